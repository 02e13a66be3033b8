"""Mel spectrograms: the settings (`MelSpec`), the drop-in module (`MelSpectrogram`) and its backends.

`from triadbench.kernels import MelSpec` needs numpy alone; torch is imported when `MelSpectrogram` is first asked for.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from triadbench.kernels.spec import CHORD, LOG_EPS, ORIGINAL, SPECS, WHISPER, MelSpec
    from triadbench.kernels.transform import MelSpectrogram

__all__ = ["CHORD", "LOG_EPS", "ORIGINAL", "SPECS", "WHISPER", "MelSpec", "MelSpectrogram", "available_backends"]

# name -> module, fastest first: the order in which backend="auto" tries them. A module offers why_unavailable(),
# why_unsupported(spec, dtype=, device=, needs_gradient=) and forward(waveform, spec, window, filterbank, log_eps).
BACKENDS = {
    "cuda": "triadbench.kernels.gpu.mel_cuda",
    "numba": "triadbench.kernels.cpu.mel_numba",
    "matmul": "triadbench.kernels.mel_matmul",
    "torchaudio": "triadbench.kernels.mel_torchaudio",
    "reference": "triadbench.kernels.mel_reference",
}


def available_backends() -> dict[str, str | None]:
    """Every backend by name, fastest first: None where it can run here, else the reason why not."""
    return {name: importlib.import_module(module).why_unavailable() for name, module in BACKENDS.items()}


def __getattr__(name: str):
    if name in __all__:
        module = "transform" if name == "MelSpectrogram" else "spec"
        return getattr(importlib.import_module(f"triadbench.kernels.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
