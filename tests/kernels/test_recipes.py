"""The promise: every call in kernels/README.md's table of recipes makes librosa's mel spectrogram of these settings."""

import re
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch

from triadbench.kernels import MelSpectrogram
from triadbench.kernels.compare import assert_close

TABLE = (Path(__file__).parents[2] / "kernels" / "README.md").read_text().partition("## Recipes")[2]
CALLS = re.findall(r"^\| ([^|]+) \| `(MelSpectrogram\(.*?\))`", TABLE, flags=re.MULTILINE)


def test_the_table_is_read():
    assert len(CALLS) == 8


@pytest.mark.parametrize(("model", "call"), CALLS, ids=[model for model, _ in CALLS])
def test_a_recipe_is_librosas(model, call):
    module = eval(call, {"MelSpectrogram": MelSpectrogram})
    spec, waveform = module.spec, np.random.default_rng(0).standard_normal(20_000)
    window = module.spectrogram.window.double().numpy() if spec.window == "custom" else "hann"
    sizes = {"n_fft": spec.n_fft, "win_length": spec.win_length, "hop_length": spec.hop_length, "n_mels": spec.n_mels}
    limits = {
        "fmin": spec.f_min,
        "fmax": spec.f_max,
        "norm": spec.norm,
        "htk": spec.mel_scale == "htk",
        "dtype": np.float64,
    }
    expected = librosa.feature.melspectrogram(
        y=waveform,
        sr=spec.sample_rate,
        window=window,
        center=spec.center,
        power=spec.power,
        pad_mode="reflect",
        **sizes,
        **limits,
    )
    actual = module(torch.from_numpy(waveform).float())
    assert_close(actual.numpy(), expected, dtype="float32", rtol_peak=3e-6, rtol_rms=1e-6)
