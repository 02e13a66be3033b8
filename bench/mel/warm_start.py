"""How long does a fresh process wait for its first mel, above importing torch? Ours, compiled code already on disk."""

from __future__ import annotations

import functools
import subprocess
import sys
import time
from collections.abc import Callable

from triadbench.core.constants import CLIP_SAMPLES
from triadbench.core.workers import module_command

_TIMEOUT_S = 300


def wanted(store, times: int) -> list[Callable[[], None]]:
    """One piece of work for each of our backends that runs here and has no record yet."""
    import torch

    from triadbench.kernels import available_backends

    if not times:
        return []
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return [
        functools.partial(_add, store, name, "cuda" if name == "cuda" else "cpu", times)
        for name, reason in available_backends().items()
        if reason is None and (name != "cuda" or device == "cuda") and not store.has("mel warm start", backend=name)
    ]


def _add(store, name: str, device: str, times: int) -> None:
    parameters = {"backend": name, "spec": "ORIGINAL", "batch": 1, "device": device}
    try:
        measure(name, device)  # fills the cache, if nothing else did
        store.add("mel warm start", parameters, [1e3 * measure(name, device) for _ in range(times)])
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        store.add("mel warm start", parameters, reason=" ".join(str(error).split())[:300])


def measure(name: str, device: str) -> float:
    """Seconds in one fresh process. Raises RuntimeError with the last line of its complaint."""
    done = subprocess.run(
        module_command("triadbench.bench.mel.warm_start", name, device),
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode != 0:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1])
    return float(done.stdout.split()[-1])


def _main(name: str, device: str) -> None:
    """The fresh process's side. The clock starts after torch is in: timed are our imports, the module, the first call."""
    import torch

    waveform = torch.zeros(1, CLIP_SAMPLES, device=device)
    start = time.perf_counter()
    from triadbench.kernels import ORIGINAL, MelSpectrogram

    mel = MelSpectrogram.from_spec(ORIGINAL, backend=name)(waveform)
    if mel.is_cuda:
        torch.cuda.synchronize()
    print(time.perf_counter() - start)


if __name__ == "__main__":
    _main(*sys.argv[1:])
