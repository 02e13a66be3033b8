"""librosa.feature.melspectrogram."""

from __future__ import annotations

from triadbench.bench.mel.rivals import Rival, lacks_plain_settings


def rivals() -> list[Rival]:
    """librosa."""
    return [
        Rival(
            "librosa",
            "librosa.feature.melspectrogram of the whole batch, numpy's FFT",
            _prepare,
            modules=("librosa",),
            packages=("librosa", "numpy", "scipy"),
            devices=("cpu",),
            tolerance=1e-4,
            tolerance_reason="its filterbank is rounded to float32 once and applied to float32 powers",
            threads="one thread, but the matrix product: BLAS, limited by threadpoolctl",
            unsupported=_unsupported,
        )
    ]


def _unsupported(spec) -> str | None:
    return lacks_plain_settings(spec) or ("odd n_fft: its bins lie elsewhere" if spec.n_fft % 2 else None)


def _prepare(spec, waveform, threads):
    import librosa
    import threadpoolctl

    clips = waveform.numpy()
    settings = {
        "sr": spec.sample_rate,
        "n_fft": spec.n_fft,
        "hop_length": spec.hop_length,
        "n_mels": spec.n_mels,
        "fmin": spec.f_min,
        "fmax": spec.f_max,
        "power": spec.power,
        "htk": spec.mel_scale == "htk",
        "norm": spec.norm,
        "pad_mode": "reflect",
    }

    def compute():
        with threadpoolctl.threadpool_limits(threads, "blas"):
            return librosa.feature.melspectrogram(y=clips, **settings)

    return compute
