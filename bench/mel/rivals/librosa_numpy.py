"""librosa.feature.melspectrogram."""

from triadbench.bench.mel.rivals import Rival, lacks_plain_settings


def _why_unsupported(spec) -> str | None:
    return lacks_plain_settings(spec) or ("odd n_fft: its bins lie elsewhere" if spec.n_fft % 2 else None)


def _prepare(spec, waveform, threads):
    import librosa
    import threadpoolctl

    settings = {"y": waveform.numpy(), "sr": spec.sample_rate, "n_fft": spec.n_fft, "hop_length": spec.hop_length}
    settings |= {"n_mels": spec.n_mels, "fmin": spec.f_min, "fmax": spec.f_max, "htk": spec.mel_scale == "htk"}
    settings |= {"norm": spec.norm, "power": spec.power, "pad_mode": "reflect"}

    def compute():
        with threadpoolctl.threadpool_limits(threads, "blas"):
            return librosa.feature.melspectrogram(**settings)

    return compute


RIVALS = [
    Rival(
        "librosa",
        "librosa.feature.melspectrogram of the whole batch, numpy's FFT",
        _prepare,
        modules=("librosa",),
        packages=("librosa", "numpy", "scipy"),
        devices=("cpu",),
        tolerance_reason="its filterbank is rounded to float32 once and applied to float32 powers",
        threads="one thread, but the matrix product: BLAS, limited by threadpoolctl",
        unsupported=_why_unsupported,
    )
]
