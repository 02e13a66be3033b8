"""The crunch amplifier adds harmonics and nothing else: no aliases, no delay, no DC, no noise into silence."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import numpy as np
import pytest

from triadbench.core.render import amplifier as amp
from triadbench.core.render.amplifier import CRUNCH, AmpSettings, amplify, random_settings

RATE = 16_000
SAMPLES = 32_000
PLAIN = replace(CRUNCH, mid_db=0.0, treble_db=0.0, cabinet_high_hz=7000.0)


def sine(hz, samples=SAMPLES, rate=RATE):
    return np.sin(2 * np.pi * hz * np.arange(samples) / rate).astype(np.float32)


def spectrum_db(y, rate=RATE):
    """Hz and dB of the second half, where nothing rings any more; Blackman, whose sidelobes fall below -58 dB."""
    y = y[len(y) // 2 :].astype(np.float64)
    power = np.abs(np.fft.rfft(y * np.blackman(len(y))))
    return np.fft.rfftfreq(len(y), 1 / rate), 20 * np.log10(power + 1e-12)


def level_at(y, hz):
    frequency, db = spectrum_db(y)
    return db[np.abs(frequency - hz) < 4].max()


def alias_db(settings, hz, rate=RATE):
    """Strongest tone that is no harmonic of `hz`, against the fundamental."""
    frequency, db = spectrum_db(amplify(sine(hz, rate=rate), rate, settings), rate)
    nearest = np.round(frequency / hz) * hz
    # 20 Hz: beyond Blackman's sidelobes at this length, and far less than from any alias of these tones to a harmonic
    return db[np.abs(frequency - nearest) > 20].max() - db[np.abs(frequency - hz) < 4].max()


# 5013 and not 5000 Hz: 16 kHz is 3.2 times 5 kHz, so some aliases of a 5 kHz tone fall on its own harmonics and hide.
@pytest.mark.parametrize("hz", [5013.0, 4310.0, 2217.0], ids=["every-order", "cabinet-corner", "treble-note"])
def test_aliases_are_60_db_below_the_fundamental(hz):
    assert alias_db(CRUNCH, hz) < -60


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_the_alias_test_fails_without_enough_oversampling(factor):
    assert alias_db(replace(CRUNCH, oversampling=factor), 5013.0) > -60


def test_every_random_amplifier_keeps_chords_free_of_aliases():
    rng = np.random.default_rng(1)
    # 1003 Hz is near B5, the top of the triads' fundamentals; 2217 is well above it.
    assert max(alias_db(random_settings(rng), hz) for _ in range(10) for hz in (1003.0, 2217.0)) < -60


def test_other_sample_rates_do_not_alias_either():
    assert alias_db(CRUNCH, 5013.0, rate=44_100) < -60


def test_bias_makes_even_harmonics_beside_the_odd_ones():
    biased = amplify(sine(440.0), RATE, PLAIN)
    symmetric = amplify(sine(440.0), RATE, replace(PLAIN, bias=0.0))
    for harmonic in (2, 3, 4, 5):
        assert level_at(biased, 440.0 * harmonic) > level_at(biased, 440.0) - 50
    for harmonic in (2, 4):
        assert level_at(symmetric, 440.0 * harmonic) < level_at(symmetric, 440.0) - 80
    assert level_at(symmetric, 1320.0) > level_at(symmetric, 440.0) - 30


def test_harmonics_grow_with_gain_and_the_longer_knee_is_another_sound():
    def third(**change):
        y = amplify(sine(440.0), RATE, replace(PLAIN, bias=0.0, **change))
        return level_at(y, 1320.0) - level_at(y, 440.0)

    assert third(pre_gain_db=-20.0) < -50 < third(pre_gain_db=0.0) < third(pre_gain_db=14.0)
    assert abs(third(pre_gain_db=0.0, shape=1.0) - third(pre_gain_db=0.0)) > 1


@pytest.mark.parametrize("name, hz", [("bass_db", 100.0), ("mid_db", 600.0), ("treble_db", 4000.0)])
def test_each_tone_knob_moves_its_own_band(name, hz):
    clean = replace(PLAIN, pre_gain_db=-20.0, bias=0.0)
    x = 0.1 * (sine(100.0) + sine(600.0) + sine(4000.0))
    flat, turned = amplify(x, RATE, clean), amplify(x, RATE, replace(clean, **{name: 12.0}))
    change = {f: level_at(turned, f) - level_at(flat, f) for f in (100.0, 600.0, 4000.0)}
    others = [value for f, value in change.items() if f != hz]
    assert change[hz] - max(others) > 6


def test_the_cabinet_cuts_both_ends():
    clean = replace(PLAIN, pre_gain_db=-20.0, bias=0.0, cabinet_high_hz=3500.0, cabinet_low_hz=120.0)
    y = amplify(0.1 * (sine(40.0) + sine(800.0) + sine(7000.0)), RATE, clean)
    assert level_at(y, 40.0) < level_at(y, 800.0) - 12
    assert level_at(y, 7000.0) < level_at(y, 800.0) - 24


@pytest.mark.parametrize("samples", [0, 1, 31, 32, 33, 1000, 64_000], ids=lambda n: f"{n}-samples")
def test_length_and_dtype_are_kept(samples):
    y = amplify(sine(440.0, samples), RATE)
    assert (y.shape, y.dtype) == ((samples,), np.float32)
    assert np.isfinite(y).all()


@pytest.mark.parametrize("factor", [1, 8])
def test_silence_stays_silence(factor):
    settings = replace(CRUNCH, bias=0.9, oversampling=factor)
    assert not amplify(np.zeros(SAMPLES, np.float32), RATE, settings, np.random.default_rng(0)).any()
    assert not amplify(np.full(SAMPLES, 1e-6, np.float32), RATE, settings).any(), "below half a 16-bit step"
    x = np.zeros(SAMPLES, np.float32)
    x[-8000:] = sine(440.0, 8000)
    assert np.abs(amplify(x, RATE, settings)[: SAMPLES - 8000 - 32]).max() < 1e-6, "silence before a note"


@pytest.mark.parametrize("at", [200, 5000], ids=["start", "middle"])
@pytest.mark.parametrize("factor", [1, 3, 8])
def test_no_delay(at, factor):
    x = np.zeros(SAMPLES, np.float32)
    x[at] = 1.0
    # Undriven: a clipped impulse would grow the resamplers' side lobes, 0.2 ms around it, to its own size.
    y = np.abs(amplify(x, RATE, replace(PLAIN, oversampling=factor, pre_gain_db=-20.0, bias=0.0)))
    # The loudspeaker's low-pass is minimum-phase: its peak is a sample or two late, its onset is not.
    assert abs(int(np.argmax(y > 0.2)) - at) <= 1
    assert 0 <= int(np.argmax(y)) - at <= 2


def test_no_delay_when_driven():
    x = np.zeros(SAMPLES, np.float32)
    x[8000:] = sine(440.0, SAMPLES - 8000)
    y = amplify(x, RATE)
    assert abs(int(np.argmax(np.abs(y) > 0.1)) - 8000) <= 3


def test_resamplers_alone_are_transparent_and_aligned():
    from triadbench.core.render.amplifier import _downsample, _upsample

    x = sine(1000.0, 1000) * np.hanning(1000).astype(np.float32)
    high = _upsample(x, 8)
    assert np.abs(high[: 8 * 1000 : 8] - x).max() < 1e-3
    assert np.abs(_downsample(high, 8, 1000) - x).max() < 1e-3


def test_bounded_and_free_of_dc():
    rng = np.random.default_rng(5)
    waveform = rng.uniform(-1, 1, SAMPLES).astype(np.float32) * np.linspace(1, 0.01, SAMPLES, dtype=np.float32)
    for _ in range(20):
        settings = random_settings(rng)
        y = amplify(waveform, RATE, settings, rng)
        assert np.abs(y).max() == pytest.approx(10 ** (settings.level_db / 20), rel=1e-5)
        assert abs(float(y.mean())) < 1e-3 * float(np.sqrt(np.mean(y**2)))
    y = amplify(sine(220.0), RATE, replace(CRUNCH, bias=1.0, level_db=0.0))
    assert abs(float(y.mean())) < 2e-3


def test_gain_is_relative_to_the_clip():
    loud, quiet = amplify(0.9 * sine(440.0), RATE), amplify(0.001 * sine(440.0), RATE)
    np.testing.assert_allclose(quiet, loud, atol=1e-4)


def test_same_arguments_same_bytes_and_the_hiss_follows_its_generator():
    x = sine(330.0)
    before = x.copy()
    assert amplify(x, RATE).tobytes() == amplify(x, RATE).tobytes()
    assert np.array_equal(x, before), "the input is not written to"
    hiss = [amplify(x, RATE, CRUNCH, np.random.default_rng(seed)).tobytes() for seed in (1, 1, 2)]
    assert hiss[0] == hiss[1] != hiss[2] != amplify(x, RATE).tobytes()


_DIGEST = """
import hashlib
import numpy as np
from triadbench.core.render.amplifier import amplify
print(hashlib.sha256(amplify(np.random.default_rng(0).standard_normal(64_000), 16_000).tobytes()).hexdigest())
"""


@pytest.mark.parametrize("threads", ["1", "2"])
def test_another_process_and_number_of_threads_give_the_same_bytes(threads):
    here = amplify(np.random.default_rng(0).standard_normal(64_000), RATE)
    environment = os.environ | {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
    root = Path(amp.__file__).parents[1]
    run = subprocess.run([sys.executable, "-c", _DIGEST], env=environment, cwd=root, capture_output=True, text=True)
    assert run.stdout.strip() == hashlib.sha256(here.tobytes()).hexdigest(), run.stderr


def test_random_settings_are_seeded_and_varied():
    assert random_settings(np.random.default_rng(3)) == random_settings(np.random.default_rng(3))
    assert len({random_settings(np.random.default_rng(seed)) for seed in range(50)}) == 50


@pytest.mark.parametrize(
    "name, value, rule",
    [
        ("pre_gain_db", 41.0, "-20 to 40"),
        ("bias", float("nan"), "-1 to 1"),
        ("shape", -0.1, "0 to 1"),
        ("oversampling", 0, "integer from 1 to 16"),
        ("oversampling", 2.0, "integer from 1 to 16"),
        ("cabinet_high_hz", 100.0, "1500 to 20000"),
        ("cabinet_low_hz", 0.0, "40 to 400"),
        ("level_db", 1.0, "-60 to 0"),
        ("treble_db", "4", "-15 to 15"),
        ("bias", True, "-1 to 1"),
    ],
)
def test_settings_name_value_and_rule(name, value, rule):
    with pytest.raises(ValueError, match=f"{name}={value!r} must be .*{rule}"):
        AmpSettings(**{name: value})


def test_settings_are_frozen():
    with pytest.raises(FrozenInstanceError):
        CRUNCH.bias = 0.0


@pytest.mark.parametrize(
    "waveform, rate, message",
    [
        (np.zeros((2, 100), np.float32), RATE, r"shape \(2, 100\)"),
        (np.array([0.0, np.nan], np.float32), RATE, "NaN"),
        (np.array([0.0, np.inf], np.float32), RATE, "infinity"),
        (np.ones(100, np.float32), 100, "sample_rate=100"),
    ],
    ids=["stereo", "nan", "infinity", "rate"],
)
def test_bad_input_is_named(waveform, rate, message):
    with pytest.raises(ValueError, match=message):
        amplify(waveform, rate)
