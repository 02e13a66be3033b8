"""torchaudio's own path: functional.spectrogram (pad, torch.stft, abs, pow), then the filterbank as a dense product.

(batch, time) float32, float64 or int16 -> (batch, n_mels, n_frames); any setting, any device, differentiable.
The window and the filterbank come from the caller, so a difference from another backend is one of arithmetic alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from triadbench.kernels.spec import INT16_FULL_SCALE, MelSpec
from triadbench.kernels.torch_operator import without_autocast

if TYPE_CHECKING:
    from torch import Tensor

COMPUTES_IN_FLOAT64 = False
TRACEABLE = True  # torch.jit.trace sees all that it does


def why_unavailable() -> str | None:
    """None, or why torchaudio cannot be imported."""
    try:
        import torchaudio.functional  # noqa: F401
    except (ImportError, OSError) as error:  # OSError: its compiled library does not match torch's
        return f"torchaudio cannot be imported ({error}); install torchaudio of the same release as torch"
    return None


def why_unsupported(spec: MelSpec, *, dtype: str, device: str, needs_gradient: bool) -> str | None:
    """None: it has every setting."""
    return None


def forward(waveform: Tensor, spec: MelSpec, window: Tensor, filterbank: Tensor, log_eps: float | None) -> Tensor:
    """(batch, time) -> (batch, n_mels, n_frames).

    window (win_length,) and filterbank (n_mels, n_freqs) have the floating dtype and the device of the computation.
    """
    import torch
    from torchaudio.functional import spectrogram

    if waveform.dtype == torch.int16:
        waveform = waveform.to(window.dtype) / INT16_FULL_SCALE
    names = ("pad", "n_fft", "hop_length", "win_length", "power", "normalized", "center", "pad_mode")
    settings = {name: getattr(spec, name) for name in names}
    compute = _for_compiler if torch.compiler.is_compiling() else spectrogram
    with without_autocast(waveform.device.type):
        power_spectrogram = compute(waveform, window=window, **settings)
        # The order of torchaudio's MelScale: (..., time, freq) @ (freq, n_mels), then back.
        mel = torch.matmul(power_spectrogram.transpose(-1, -2), filterbank.T).transpose(-1, -2)
    return mel if log_eps is None else torch.log(mel + log_eps)


def _for_compiler(waveform, window, pad, n_fft, hop_length, win_length, power, normalized, center, pad_mode) -> Tensor:
    """torchaudio's operations one by one: its own function asks torch.jit about a type, which breaks a graph."""
    import torch

    if pad > 0:
        waveform = torch.nn.functional.pad(waveform, (pad, pad))
    options = {"center": center, "pad_mode": pad_mode, "normalized": normalized == "frame_length"}
    spectrum = torch.stft(waveform, n_fft, hop_length, win_length, window, return_complex=True, **options)
    if normalized in (True, "window"):
        spectrum = spectrum / window.pow(2.0).sum().sqrt()
    return spectrum.abs() if power == 1.0 else spectrum.abs().pow(power)
