"""What our backends cost besides a call: the wait of a fresh process, and what the compiler makes of the CUDA kernel.

A fresh process waits for its first mel above importing torch, with compiled code already on disk. The kernel's
registers, spills, shared memory, instructions and work need no GPU. Kernels and torch are imported in the functions: a
fresh process runs this module, and their import is timed.
"""

import functools
import sys
import time
from collections.abc import Callable, Sequence

from triadbench.bench import machine, records
from triadbench.bench.mel.records import Store
from triadbench.core.constants import CLIP_SAMPLES
from triadbench.core.workers import module_command

WARM_START, STATIC = "mel warm start", "mel cuda static"
_ARCHS = ("sm_80", "sm_90", "sm_120")
_MODELLED = "sm_90"  # the work of a clip is counted for it (kernels/gpu/cost_model.py)
ALL_CASES = tuple((spec, arch) for spec in ("ORIGINAL", "CHORD", "WHISPER") for arch in _ARCHS)
ORIGINAL_CASES = ALL_CASES[: len(_ARCHS)]


def warm_start_tasks(store: Store, times: int, devices: Sequence[str]) -> list[Callable[[], None]]:
    """A task for each of our backends that is measured and has no record yet: `times` fresh processes."""
    from triadbench.kernels import available_backends

    usable = [name for name, why_not in available_backends().items() if not why_not]
    names = [name for name in usable if ("cuda" if name == "cuda" else "cpu") in devices]
    missing = [name for name in names if times and not store.find(WARM_START, backend=name)]
    return [functools.partial(_add_warm_start, store, name, times) for name in missing]


def _add_warm_start(store: Store, name: str, times: int) -> None:
    device = "cuda" if name == "cuda" else "cpu"
    parameters = {"backend": name, "spec": "ORIGINAL", "batch": 1, "device": device}
    try:
        measure_warm_start(name, device)  # fills the cache, if nothing else did
        samples_ms = [1e3 * measure_warm_start(name, device) for _ in range(times)]
        store.add(store.make(WARM_START, parameters, samples_ms))
    except machine.ProcessError as error:
        store.add(store.make(WARM_START, parameters, reason=records.reason_of(error)))


def measure_warm_start(name: str, device: str) -> float:
    """Seconds in one fresh process. Raises `machine.ProcessError`."""
    return float(machine.run_process(module_command("triadbench.bench.mel.own_backends", name, device)).split()[-1])


def static_tasks(store: Store, cases: Sequence[tuple[str, str]]) -> list[Callable[[], None]]:
    """A task for each (spec, arch) without a record; one alone, the reason, where nothing can be compiled."""
    from triadbench.kernels import SPECS
    from triadbench.kernels.gpu import cost_model, static_analysis

    reason = static_analysis.why_unavailable() if cases else None
    if reason is not None:
        nowhere = {"spec": None, "arch": None, "reason": reason}
        record = store.make(STATIC, nowhere, reason=reason)
        return [] if store.find(STATIC, **nowhere) else [functools.partial(store.add, record)]

    def analyse(spec: str, arch: str) -> None:
        parameters = {"spec": spec, "arch": arch}
        try:
            analysis = static_analysis.analyse(SPECS[spec], arch=arch)
            if arch == _MODELLED:
                analysis["cost"] = cost_model.count(SPECS[spec], n_samples=CLIP_SAMPLES, arch=arch)
            record = store.make(STATIC, parameters, analysis=analysis)
        except Exception as error:  # a compiler's complaint is a result too
            reason = records.reason_of(error)
            record = store.make(STATIC, {**parameters, "reason": reason}, reason=reason)
        store.add(record)

    missing = [(spec, arch) for spec, arch in cases if not store.find(STATIC, spec=spec, arch=arch)]
    return [functools.partial(analyse, spec, arch) for spec, arch in missing]


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
