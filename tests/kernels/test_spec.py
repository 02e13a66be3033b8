"""The promise: a MelSpec checks itself, and its window and filterbank are those of librosa, torch and torchaudio."""

import dataclasses
import json
import warnings

import numpy as np
import pytest

from triadbench.kernels import CHORD, ORIGINAL, SPECS, WHISPER, MelSpec

# torchaudio's corner frequencies in float32: an error of about 4000 Hz * 2^-24 against filters of 7 Hz and wider.
FILTER_ATOL = 1e-4

FILTERBANKS = {
    "original": ORIGINAL,
    "chord": CHORD,
    "whisper": WHISPER,
    "htk_slaney_norm": MelSpec(n_fft=512, n_mels=40, norm="slaney"),
    "slaney_no_norm": MelSpec(n_fft=2048, n_mels=128, mel_scale="slaney"),
    "slaney_low_only": MelSpec(n_fft=2048, n_mels=20, mel_scale="slaney", f_max=900.0),
    "cd_rate": MelSpec(sample_rate=44100, n_fft=2048, n_mels=96, f_min=20.0, f_max=16000.0, norm="slaney"),
    "empty_filters": MelSpec(n_fft=128, n_mels=80),
}


@pytest.mark.parametrize("spec", FILTERBANKS.values(), ids=FILTERBANKS)
def test_filterbank_is_librosas(spec):
    import librosa

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Empty filters detected")
        expected = librosa.filters.mel(
            sr=spec.sample_rate,
            n_fft=spec.n_fft,
            n_mels=spec.n_mels,
            fmin=spec.f_min,
            fmax=spec.f_max,
            htk=spec.mel_scale == "htk",
            norm=spec.norm,
            dtype=np.float64,
        )
    actual = spec.filterbank()
    assert actual.dtype == np.float64
    assert actual.shape == expected.shape == (spec.n_mels, spec.n_freqs)
    # librosa in float64 as well: the same formulas must give the same numbers.
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12 * expected.max())


@pytest.mark.parametrize(
    "spec",
    [*FILTERBANKS.values(), MelSpec(n_fft=401, n_mels=30), MelSpec(sample_rate=11025, n_fft=300, n_mels=20)],
    ids=[*FILTERBANKS, "odd_n_fft", "odd_rate"],
)
def test_filterbank_is_torchaudios(spec):
    import torchaudio

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="At least one mel filterbank has all zero values")
        expected = torchaudio.functional.melscale_fbanks(
            spec.n_freqs, spec.f_min, spec.f_max, spec.n_mels, spec.sample_rate, spec.norm, spec.mel_scale
        )
    expected = expected.T.double().numpy()
    np.testing.assert_allclose(spec.filterbank(), expected, rtol=0, atol=FILTER_ATOL * expected.max())


def test_filters_peak_at_their_middle_point_and_overlap_to_one():
    spec = dataclasses.replace(ORIGINAL, n_fft=16384, n_mels=24)
    bank, bins, points = spec.filterbank(), spec.frequencies(), spec.mel_points()
    assert np.all(np.abs(bins[bank.argmax(axis=1)] - points[1:-1]) <= bins[1])
    inside = (bins >= points[1]) & (bins <= points[-2])
    np.testing.assert_allclose(bank[:, inside].sum(axis=0), 1.0, rtol=1e-12)
    assert np.count_nonzero(bank, axis=0).max() == 2


def test_empty_filters_are_reported_without_a_warning():
    assert FILTERBANKS["empty_filters"].empty_filters().size > 0
    assert MelSpec(sample_rate=8000, n_fft=256, n_mels=8, f_max=8000.0).empty_filters().tolist() == [7]
    assert all(spec.empty_filters().size == 0 for spec in SPECS.values())


@pytest.mark.parametrize("win_length", [1, 2, 7, 400, 1024])
@pytest.mark.parametrize("name", ["hann", "hamming", "blackman"])
def test_window_is_torchs(name, win_length):
    import torch

    expected = getattr(torch, f"{name}_window")(win_length, dtype=torch.float64).numpy()
    actual = MelSpec(win_length=win_length, hop_length=1, window=name).window_array()
    assert actual.dtype == np.float64
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-15)


def test_rectangular_window_is_ones_and_custom_has_no_formula():
    assert MelSpec(window="rectangular").window_array().tolist() == [1.0] * 1024
    with pytest.raises(ValueError, match='window="custom" has no formula; pass'):
        MelSpec(window="custom").window_array()


def test_derived_defaults_are_filled_in():
    spec = MelSpec(n_fft=1000, win_length=601)
    assert (spec.hop_length, spec.f_max, spec.n_freqs) == (300, 8000.0, 501)
    assert MelSpec() == ORIGINAL
    assert hash(MelSpec()) == hash(ORIGINAL)
    assert (CHORD.n_fft, CHORD.hop_length, CHORD.n_mels, CHORD.f_min, CHORD.f_max) == (4096, 1024, 192, 60.0, 4000.0)
    assert (WHISPER.n_fft, WHISPER.hop_length, WHISPER.n_mels, WHISPER.norm) == (400, 160, 80, "slaney")
    assert MelSpec(sample_rate=11025).f_max == 5512.0  # torchaudio's sample_rate // 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.n_fft = 5


@pytest.mark.parametrize("spec", FILTERBANKS.values(), ids=FILTERBANKS)
def test_dict_round_trip_through_json(spec):
    assert MelSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_dict_of_numpy_settings_is_json_safe():
    spec = MelSpec(n_fft=np.int64(512), f_max=np.float32(4000), center=np.bool_(True))
    assert json.loads(json.dumps(spec.to_dict()))["n_fft"] == 512


def test_from_dict_is_strict():
    with pytest.raises(ValueError, match=r"unknown MelSpec settings \['hop'\]; the valid ones are sample_rate, n_fft"):
        MelSpec.from_dict({"hop": 512})
    with pytest.raises(ValueError, match="must be a mapping"):
        MelSpec.from_dict([1, 2])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sample_rate": 0}, "sample_rate=0 must be at least 1"),
        ({"n_fft": 512.0}, r"n_fft=512\.0 must be an integer; convert"),
        ({"n_fft": True}, "n_fft=True must be an integer"),
        ({"n_mels": -3}, "n_mels=-3 must be at least 1"),
        ({"win_length": 2048}, "win_length=2048 must not exceed n_fft=1024; shorten"),
        ({"win_length": 1}, "hop_length=None means win_length // 2, which is 0 for win_length=1; state"),
        ({"hop_length": 0}, "hop_length=0 must be at least 1"),
        ({"pad": -1}, "pad=-1 must be at least 0"),
        ({"f_min": 9000.0}, r"f_min=9000\.0 and f_max=8000\.0 must satisfy 0 <= f_min < f_max .*None means"),
        ({"f_min": -1.0}, "must satisfy 0 <= f_min"),
        ({"f_min": 100.0, "f_max": 100.0}, "must satisfy 0 <= f_min < f_max"),
        ({"f_max": float("nan")}, "f_max=nan must be finite"),
        ({"power": None}, "power=None must be a number"),
        ({"power": 0.0}, r"power=0\.0 must be above 0; use 1"),
        ({"center": 1}, "center=1 must be True or False"),
        ({"pad_mode": "edge"}, "pad_mode='edge' must be one of 'reflect', 'constant', 'replicate', 'circular'"),
        ({"window": "kaiser"}, "window='kaiser' must be one of 'hann'"),
        ({"normalized": 1}, "normalized=1 must be one of False, True, 'window', 'frame_length'"),
        ({"norm": "area"}, "norm='area' must be one of None, 'slaney'"),
        ({"mel_scale": "bark"}, "mel_scale='bark' must be one of 'htk', 'slaney'"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_bad_settings_name_value_and_rule(settings, message):
    with pytest.raises(ValueError, match=message):
        MelSpec(**settings)


@pytest.mark.parametrize(
    ("settings", "n_samples", "expected"),
    [
        ({}, 64000, 126),
        ({}, 513, 2),
        ({"center": False}, 64000, 124),
        ({"center": False}, 1024, 1),
        ({"center": False, "pad": 512}, 1, 1),
        ({"n_fft": 401, "hop_length": 7}, 1000, 143),  # odd: one sample fewer than n_fft of padding
        ({"hop_length": 5000}, 5000, 2),
        ({"pad": 10}, 511 + 512, 3),
    ],
)
def test_n_frames(settings, n_samples, expected):
    assert MelSpec(**settings).n_frames(n_samples) == expected
