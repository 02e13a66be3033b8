"""nnAudio: the Fourier transform as a convolution with stored sines and cosines."""

from __future__ import annotations

from triadbench.bench.mel.rivals import Rival, lacks_plain_settings


def rivals() -> list[Rival]:
    """nnAudio."""
    return [
        Rival(
            "nnAudio",
            "nnAudio.features.MelSpectrogram: two conv1d with the DFT's matrix, square, dense product",
            _prepare,
            modules=("nnAudio",),
            packages=("nnAudio", "torch"),
            unsupported=lacks_plain_settings,
            tolerance=1e-4,
            tolerance_reason="sums of n_fft products in float32 with a stored float32 DFT; the magnitude is rooted and "
            "squared again",
        )
    ]


def _prepare(spec, waveform, threads):
    import torch
    from nnAudio.features import MelSpectrogram

    module = MelSpectrogram(
        sr=spec.sample_rate,
        n_fft=spec.n_fft,
        win_length=spec.n_fft,
        n_mels=spec.n_mels,
        hop_length=spec.hop_length,
        window="hann",
        center=True,
        pad_mode="reflect",
        power=spec.power,
        htk=spec.mel_scale == "htk",
        fmin=spec.f_min,
        fmax=spec.f_max,
        norm=1 if spec.norm == "slaney" else None,
        verbose=False,
    ).to(waveform.device)

    def compute():
        with torch.inference_mode():
            return module(waveform)

    return compute
