"""This project's backends, whatever `kernels.available_backends()` lists."""

import importlib

from triadbench import kernels
from triadbench.bench.mel.rivals import Rival, graphed

_PACKAGES = {"numba": ("numba", "llvmlite"), "cuda": ("numba-cuda",)}


def _contestant(name: str) -> Rival:
    backend = importlib.import_module(kernels.BACKENDS[name])
    is_reference = name == "reference"

    def prepare(spec, waveform, threads):
        module = kernels.MelSpectrogram.from_spec(spec, backend=name).to(waveform.device)
        return lambda: module(waveform)

    def lacks(spec, device):
        return backend.why_unsupported(spec, dtype="float32", device=device, needs_gradient=False)

    return Rival(
        name=f"ours: {name}",
        what="MelSpectrogram of this project" + (", the float64 definition" if is_reference else ""),
        prepare=prepare,
        tolerance=1e-5,
        tolerance_reason="what the tests ask of every float32 backend, with a margin",
        packages=_PACKAGES.get(name, ()),
        threads="one thread" if is_reference else "torch.set_num_threads",
        ours=True,
        slow=is_reference,
        unavailable=lambda device: backend.why_unavailable() or lacks(kernels.ORIGINAL, device),
        unsupported=lambda spec: lacks(spec, "cpu") and lacks(spec, "cuda"),
    )


RIVALS = [_contestant(name) for name in kernels.BACKENDS]
RIVALS += [graphed(rival) for rival in RIVALS if rival.name == "ours: cuda"]
