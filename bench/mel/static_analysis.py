"""What the compiler makes of the CUDA kernel: registers, spills, shared memory, instructions. Needs no GPU."""

import functools
from collections.abc import Callable, Sequence

from triadbench.bench import records
from triadbench.bench.mel.records import Store
from triadbench.kernels import SPECS

NAME = "mel cuda static"
_ARCHS = ("sm_80", "sm_90", "sm_120")
ALL = tuple((spec, arch) for spec in ("ORIGINAL", "CHORD", "WHISPER") for arch in _ARCHS)
ORIGINAL_ONLY = ALL[: len(_ARCHS)]


def tasks(store: Store, cases: Sequence[tuple[str, str]]) -> list[Callable[[], None]]:
    """A task for each (spec, arch) without a record; one alone, the reason, where nothing can be compiled."""
    from triadbench.kernels.gpu import static_analysis

    reason = static_analysis.why_unavailable() if cases else None
    if reason is not None:
        nowhere = {"spec": None, "arch": None, "reason": reason}
        return [] if store.find(NAME, **nowhere) else [functools.partial(_add_reason, store, nowhere)]
    missing = [case for case in cases if not store.find(NAME, spec=case[0], arch=case[1])]
    return [functools.partial(_add, store, spec, arch) for spec, arch in missing]


def _add(store: Store, spec: str, arch: str) -> None:
    from triadbench.kernels.gpu.static_analysis import analyse

    case = {"spec": spec, "arch": arch}
    try:
        store.add(store.make(NAME, case, analysis=analyse(SPECS[spec], arch=arch)))
    except Exception as error:  # a compiler's complaint is a result too
        _add_reason(store, {**case, "reason": records.reason_of(error)})


def _add_reason(store: Store, parameters: dict) -> None:
    store.add(store.make(NAME, parameters, reason=parameters["reason"]))
