"""How long does a fresh process wait for its first mel, above importing torch? Ours, compiled code already on disk."""

import functools
import sys
import time
from collections.abc import Callable

from triadbench.bench import machine, records
from triadbench.bench.mel.records import Store
from triadbench.core.constants import CLIP_SAMPLES
from triadbench.core.workers import module_command

NAME = "mel warm start"


def tasks(store: Store, times: int) -> list[Callable[[], None]]:
    """A task for each of our backends that runs here and has no record yet: so many fresh processes."""
    import torch

    from triadbench.kernels import available_backends

    runs_here = [name for name, reason in available_backends().items() if reason is None]
    if not torch.cuda.is_available() and "cuda" in runs_here:
        runs_here.remove("cuda")
    missing = [name for name in runs_here if times and not store.find(NAME, backend=name)]
    return [functools.partial(_add, store, name, times) for name in missing]


def _add(store: Store, name: str, times: int) -> None:
    device = "cuda" if name == "cuda" else "cpu"
    parameters = {"backend": name, "spec": "ORIGINAL", "batch": 1, "device": device}
    try:
        measure(name, device)  # fills the cache, if nothing else did
        store.add(store.make(NAME, parameters, [1e3 * measure(name, device) for _ in range(times)]))
    except machine.ProcessError as error:
        store.add(store.make(NAME, parameters, reason=records.reason_of(error)))


def measure(name: str, device: str) -> float:
    """Seconds in one fresh process. Raises `machine.ProcessError`."""
    return float(machine.run_process(module_command("triadbench.bench.mel.warm_start", name, device)).split()[-1])


def _main(name: str, device: str) -> None:
    """The fresh process's side. The clock starts once torch is imported: our imports, the module, the first call."""
    import torch

    waveform = torch.zeros(1, CLIP_SAMPLES, device=device)
    start = time.perf_counter()
    from triadbench.kernels import ORIGINAL, MelSpectrogram

    MelSpectrogram.from_spec(ORIGINAL, backend=name)(waveform)
    machine.drain(device)
    print(time.perf_counter() - start)


if __name__ == "__main__":
    _main(*sys.argv[1:])
