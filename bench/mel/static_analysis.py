"""What the compiler makes of the CUDA kernel: registers, spills, shared memory, instructions. Needs no GPU."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable, Sequence

_ARCHS = ("sm_80", "sm_90", "sm_120")
_SPECS = ("ORIGINAL", "CHORD", "WHISPER")
ALL = tuple((spec, arch) for spec in _SPECS for arch in _ARCHS)
ORIGINAL_ONLY = tuple(("ORIGINAL", arch) for arch in _ARCHS)


def wanted(store, cases: Sequence[tuple[str, str]]) -> list[Callable[[], None]]:
    """One piece of work for each case without a record; one alone, the reason, where nothing can be compiled."""
    if not cases:
        return []
    reason = why_unavailable()
    if reason is not None:
        there = store.has("mel cuda static", spec=None, arch=None, reason=reason)
        return [] if there else [functools.partial(_add_reason, store, {"spec": None, "arch": None}, reason)]
    return [
        functools.partial(_add, store, spec, arch)
        for spec, arch in cases
        if not store.has("mel cuda static", spec=spec, arch=arch)
    ]


def why_unavailable() -> str | None:
    """Why the CUDA kernel cannot be compiled here, or None."""
    if importlib.util.find_spec("triadbench.kernels.gpu.static_analysis") is None:
        return "this version has no CUDA kernel"
    return importlib.import_module("triadbench.kernels.gpu.static_analysis").why_unavailable()


def _add_reason(store, parameters: dict, reason: str) -> None:
    store.add("mel cuda static", {**parameters, "reason": reason}, reason=reason)


def _add(store, spec: str, arch: str) -> None:
    from triadbench.kernels import SPECS

    analyse = importlib.import_module("triadbench.kernels.gpu.static_analysis").analyse
    try:
        found = analyse(SPECS[spec], arch=arch)
    except Exception as error:  # a compiler's complaint is a result too
        _add_reason(store, {"spec": spec, "arch": arch}, " ".join(str(error).split())[:300])
        return
    store.add("mel cuda static", {"spec": spec, "arch": arch}, analysis=found)
