"""How long does a fresh process wait for its first mel, above importing torch? Ours, compiled code already on disk."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_TIMEOUT_S = 300
# The clock starts after torch is in; what is left is importing kernels, making the module and the first call.
_PROGRAM = """
import sys, time
import torch
waveform = torch.zeros(1, 64_000, device=sys.argv[2])
start = time.perf_counter()
import kernels
mel = kernels.MelSpectrogram.from_spec(kernels.ORIGINAL, backend=sys.argv[1])(waveform)
if mel.is_cuda:
    torch.cuda.synchronize()
print(time.perf_counter() - start)
"""


def wanted(store, times: int) -> list[Callable[[], None]]:
    """One piece of work for each of our backends that runs here and has no record yet."""
    import torch

    from kernels import available_backends

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
        [sys.executable, "-c", _PROGRAM, name, device],
        cwd=_ROOT, capture_output=True, text=True, timeout=_TIMEOUT_S, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1])
    return float(done.stdout.split()[-1])
