"""This project's backends, whatever `kernels.available_backends()` lists."""

from __future__ import annotations

from triadbench.bench.mel.rivals import Rival, graphed

_SLOW = ("reference",)
# A contract of every float32 backend (tests/kernels), with the margin that clips of 4 s in a batch of 512 want.
_TOLERANCE = 1e-5


def rivals() -> list[Rival]:
    """One contestant for each name in the registry, and the CUDA kernel once more in a CUDA graph."""
    from triadbench import kernels

    found = [_contestant(name) for name in kernels.BACKENDS]
    return found + [graphed(rival) for rival in found if rival.name == "ours: cuda"]


def _contestant(name: str) -> Rival:
    def prepare(spec, waveform, threads):
        from triadbench.kernels import MelSpectrogram

        module = MelSpectrogram.from_spec(spec, backend=name).to(waveform.device)
        return lambda: module(waveform)

    def unavailable(device):
        from triadbench import kernels

        return _backend(name).why_unavailable() or _why_not(name, kernels.ORIGINAL, device)

    return Rival(
        name=f"ours: {name}",
        what="MelSpectrogram of this project" + (", the float64 definition" if name in _SLOW else ""),
        prepare=prepare,
        tolerance=_TOLERANCE,
        tolerance_reason="what the tests ask of every float32 backend, with a margin",
        packages={"numba": ("numba", "llvmlite"), "cuda": ("numba-cuda",)}.get(name, ()),
        threads="torch.set_num_threads" if name not in _SLOW else "one thread",
        ours=True,
        slow=name in _SLOW,
        unavailable=unavailable,
        unsupported=lambda spec: _why_not(name, spec, "cpu") and _why_not(name, spec, "cuda"),
    )


def _backend(name: str):
    import importlib

    from triadbench import kernels

    return importlib.import_module(kernels.BACKENDS[name])


def _why_not(name: str, spec, device: str) -> str | None:
    return _backend(name).why_unsupported(spec, dtype="float32", device=device, needs_gradient=False)
