"""nnAudio: the Fourier transform as a convolution with stored sines and cosines."""

from triadbench.bench.mel.rivals import Rival, without_gradient


def _prepare(spec, waveform, threads):
    from nnAudio.features import MelSpectrogram

    settings = {"sr": spec.sample_rate, "n_fft": spec.n_fft, "win_length": spec.n_fft, "hop_length": spec.hop_length}
    settings |= {"n_mels": spec.n_mels, "fmin": spec.f_min, "fmax": spec.f_max, "htk": spec.mel_scale == "htk"}
    settings |= {"norm": 1 if spec.norm == "slaney" else None, "power": spec.power}
    settings |= {"window": "hann", "center": True, "pad_mode": "reflect", "verbose": False}
    return without_gradient(MelSpectrogram(**settings).to(waveform.device), waveform)


RIVALS = [
    Rival(
        "nnAudio",
        "nnAudio.features.MelSpectrogram: two conv1d with the DFT's matrix, square, dense product",
        _prepare,
        modules=("nnAudio",),
        packages=("nnAudio", "torch"),
        tolerance_reason="sums of n_fft products in float32 with a stored float32 DFT; the magnitude is rooted and "
        "squared again",
    )
]
