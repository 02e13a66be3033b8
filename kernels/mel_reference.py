"""The definition: mel spectrogram in float64 numpy, written as the formula reads.

    x    waveform with `pad` zeros on both sides, and with center=True n_fft // 2 samples of pad_mode on both sides
    X    X[t, k] = c * sum_n w[n] x[t * hop_length + n] exp(-2 pi i k n / n_fft),  w centred in n_fft samples
    mel  mel[m, t] = sum_k filterbank[m, k] |X[t, k]| ** power;  log mel = log(mel + eps)

c is 1, 1 / ||w||_2 or 1 / sqrt(n_fft) after `normalized`. Every other backend is compared with this one; it is
not meant to be fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from triadbench.kernels.spec import INT16_FULL_SCALE, LOG_EPS, MelSpec
from triadbench.kernels.torch_operator import is_captured

if TYPE_CHECKING:
    from torch import Tensor

_NUMPY_PAD_MODES = {"reflect": "reflect", "constant": "constant", "replicate": "edge", "circular": "wrap"}


def mel_spectrogram(
    waveform: np.ndarray,
    spec: MelSpec,
    *,
    window: np.ndarray | None = None,
    filterbank: np.ndarray | None = None,
    log: bool = False,
    eps: float = LOG_EPS,
) -> np.ndarray:
    """(..., time) float32, float64 or int16 (divided by 32768) -> (..., n_mels, n_frames) float64.

    Args:
        window: (win_length,); default `spec.window_array()`.
        filterbank: (n_mels, n_freqs); default `spec.filterbank()`.

    Raises:
        ValueError: too short a clip (see `MelSpec.n_frames`) or a wrong shape. TypeError: another dtype.
    """
    waveform = np.asarray(waveform)
    if waveform.dtype not in (np.float32, np.float64, np.int16):
        raise TypeError(f"waveform dtype={waveform.dtype} must be float32, float64 or int16; convert it first")
    if waveform.ndim == 0:
        raise ValueError("waveform shape=() must be (..., time); give at least one dimension")
    window = _checked("window", spec.window_array() if window is None else window, (spec.win_length,))
    filterbank = _checked(
        "filterbank", spec.filterbank() if filterbank is None else filterbank, (spec.n_mels, spec.n_freqs)
    )
    n_frames = spec.n_frames(waveform.shape[-1])

    x = waveform.astype(np.float64)
    if waveform.dtype == np.int16:
        x /= INT16_FULL_SCALE
    x = _pad_time(x, spec.pad, "constant")
    if spec.center:
        x = _pad_time(x, spec.n_fft // 2, _NUMPY_PAD_MODES[spec.pad_mode])

    left = (spec.n_fft - spec.win_length) // 2
    w = np.zeros(spec.n_fft)
    w[left : left + spec.win_length] = window

    frames = np.lib.stride_tricks.sliding_window_view(x, spec.n_fft, axis=-1)  # one that starts at every sample
    frames = frames[..., : n_frames * spec.hop_length : spec.hop_length, :]  # (..., n_frames, n_fft)
    X = np.fft.rfft(frames * w, axis=-1) if frames.size else np.zeros((*frames.shape[:-1], spec.n_freqs), complex)
    if spec.normalized in (True, "window"):
        X /= np.sqrt(np.sum(window**2))
    elif spec.normalized == "frame_length":
        X /= np.sqrt(spec.n_fft)

    magnitude = (X.real**2 + X.imag**2) ** (spec.power / 2)  # |X| ** power: a complex abs() takes much longer
    # The frames of all clips in one product.
    mel = magnitude.reshape(-1, spec.n_freqs) @ filterbank.T
    mel = np.swapaxes(mel.reshape(*magnitude.shape[:-1], spec.n_mels), -1, -2)
    return np.log(mel + eps) if log else mel


def _pad_time(x: np.ndarray, amount: int, mode: str) -> np.ndarray:
    if amount == 0 or x.size == 0 and x.shape[-1] > 0:  # an empty batch: only the shape has to grow
        return x if amount == 0 else np.zeros((*x.shape[:-1], x.shape[-1] + 2 * amount))
    return np.pad(x, [(0, 0)] * (x.ndim - 1) + [(amount, amount)], mode=mode)  # type: ignore[call-overload]


def _checked(name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(array, dtype=np.float64)
    if array.shape != shape:
        raise ValueError(f"{name} shape={array.shape} must be {shape} for this spec")
    return array


# ---- the backend protocol, as the drop-in module calls it (torch tensors; see kernels/transform.py)

COMPUTES_IN_FLOAT64 = True  # asks for the window and the filterbank unrounded, whatever the input's dtype


def why_unavailable() -> str | None:
    """None: numpy is always here."""
    return None


def why_unsupported(spec: MelSpec, *, dtype: str, device: str, needs_gradient: bool) -> str | None:
    """What this backend lacks for such input, or None."""
    return "it has no gradient" if needs_gradient else None


def forward(waveform: Tensor, spec: MelSpec, window: Tensor, filterbank: Tensor, log_eps: float | None) -> Tensor:
    """(batch, time) tensor on any device -> (batch, n_mels, n_frames) on it; float64 inside, rounded once at the end.

    window (win_length,) and filterbank (n_mels, n_freqs) in float64.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensor

    # make_fx would take NumPy's result for a constant; torch.compile breaks its graph here.
    if is_captured() and not torch.compiler.is_compiling() or isinstance(waveform, FakeTensor):
        raise RuntimeError(
            "backend='reference' is NumPy and needs tensors with values: not those of torch.vmap, torch.export, "
            "make_fx or FakeTensorMode; use backend='auto'"
        )
    arrays = {"window": window.detach().cpu().numpy(), "filterbank": filterbank.detach().cpu().numpy()}
    mels = [  # clip by clip, which bounds the memory of the float64 frames
        mel_spectrogram(clip, spec, **arrays, log=log_eps is not None, eps=log_eps or 0.0)
        for clip in waveform.detach().cpu().numpy()
    ]
    dtype = torch.float64 if waveform.dtype == torch.float64 else torch.float32
    return torch.from_numpy(np.stack(mels)).to(device=waveform.device, dtype=dtype)
