"""The synthesiser plays what its parameters say: pitch, inharmonicity, decay, touch; same seed, same bytes."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import numpy as np
import pytest

from triadbench.core.render import synthesiser as synth
from triadbench.core.render.synthesiser import (
    BAND_LIMIT,
    FAMILIES,
    body_gain_db,
    inharmonicity,
    make_instrument,
    note_frequency,
    partial_frequencies,
    render_note,
)

RATE = 16_000


def spectrum_db(x, start_s, seconds):
    """Hz and dB of a stretch, Blackman, padded fourfold so that a parabola through the peak is exact enough."""
    x = x[int(start_s * RATE) : int((start_s + seconds) * RATE)].astype(np.float64)
    size = 4 * len(x)
    return np.fft.rfftfreq(size, 1 / RATE), 20 * np.log10(np.abs(np.fft.rfft(x * np.blackman(len(x)), size)) + 1e-12)


def peak_hz(frequency, db, near, cents=45):
    inside = np.flatnonzero(np.abs(1200 * np.log2(np.maximum(frequency, 1.0) / near)) < cents)
    top = inside[np.argmax(db[inside])]
    left, middle, right = db[top - 1 : top + 2]
    return frequency[top] + 0.5 * (left - right) / (left - 2 * middle + right) * frequency[1]


def rms(x, at_s, seconds=0.1):
    return float(np.sqrt(np.mean(x[int(at_s * RATE) : int((at_s + seconds) * RATE)].astype(np.float64) ** 2)))


def centroid_hz(x, start_s=0.0):
    """Of the half second from `start_s`."""
    x = x[int(start_s * RATE) :][: RATE // 2].astype(np.float64)
    power = np.abs(np.fft.rfft(x * np.hanning(len(x)))) ** 2
    return float(np.sum(np.fft.rfftfreq(len(x), 1 / RATE) * power) / power.sum())


# Determinism


@pytest.mark.parametrize("family", FAMILIES)
def test_same_arguments_same_bytes(family):
    a, b = (render_note(make_instrument(5, family), 57, 0.6, seconds=1.0, hold_s=0.5) for _ in range(2))
    assert a.tobytes() == b.tobytes()


_DIGEST = """
import hashlib, sys
from triadbench.core.render.synthesiser import FAMILIES, make_instrument, render_note
h = hashlib.sha256()
for family in FAMILIES:
    for midi in (30, 50, 70, 90):
        h.update(render_note(make_instrument(9, family), midi, 0.6).tobytes())
print(h.hexdigest())
"""


@pytest.mark.parametrize("threads", ["1", "2"])
def test_another_process_and_number_of_threads_give_the_same_bytes(threads):
    digest = hashlib.sha256()
    for family in FAMILIES:
        for midi in (30, 50, 70, 90):
            digest.update(render_note(make_instrument(9, family), midi, 0.6).tobytes())
    environment = os.environ | {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
    root = Path(synth.__file__).parents[1]
    run = subprocess.run([sys.executable, "-c", _DIGEST], env=environment, cwd=root, capture_output=True, text=True)
    assert run.stdout.strip() == digest.hexdigest(), run.stderr


def test_every_argument_is_heard():
    notes = [
        render_note(make_instrument(seed, family), midi, velocity, seconds=0.5, hold_s=hold_s).tobytes()
        for seed, family, midi, velocity, hold_s in [
            (1, "grand", 60, 0.5, None),
            (2, "grand", 60, 0.5, None),
            (1, "upright", 60, 0.5, None),
            (1, "grand", 61, 0.5, None),
            (1, "grand", 60, 0.51, None),
            (1, "grand", 60, 0.5, 0.2),
        ]
    ]
    assert len(set(notes)) == len(notes)


def test_the_held_part_does_not_depend_on_the_release():
    instrument = make_instrument(3, "grand")
    held, released = (render_note(instrument, 60, 0.7, hold_s=hold_s) for hold_s in (None, 1.0))
    # The peak, to which both are scaled, lies in the attack.
    np.testing.assert_allclose(released[:RATE], held[:RATE], atol=1e-6)


def test_a_key_keeps_its_tuning_at_every_velocity():
    instrument = make_instrument(4, "grand")
    soft, hard = (peak_hz(*spectrum_db(render_note(instrument, 64, v), 0.3, 1.5), 329.6) for v in (0.2, 1.0))
    assert 1200 * abs(np.log2(hard / soft)) < 0.5


def test_instruments_are_all_different_and_pianos_most_frequent():
    instruments = [make_instrument(seed) for seed in range(400)]
    assert len({replace(i, seed=0) for i in instruments}) == 400
    share = {family: sum(i.family == family for i in instruments) / 400 for family in FAMILIES}
    assert share["grand"] + share["upright"] > 0.6
    assert min(share.values()) > 0.08
    assert {i.kind for i in instruments} == {"", "tine", "reed", "fm", "nylon", "steel", "pickup"}


# Pitch


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("midi", range(28, 101, 8))
def test_pitch_is_within_8_cents_of_the_stretched_scale(family, midi):
    # A note's own 3 cents, and 3 more of a slow second string that outlasts the first, are meant to be there.
    for seed in (0, 1, 2):
        instrument = replace(make_instrument(seed, family), tremolo_depth=0.0)
        expected = note_frequency(instrument, midi)
        measured = peak_hz(*spectrum_db(render_note(instrument, midi, 0.8), 0.3, 2.0), expected)
        assert 1200 * abs(np.log2(measured / expected)) < 8, f"seed {seed}: {measured:.2f} of {expected:.2f} Hz"


def test_the_scale_is_equal_temperament_with_offset_and_stretch():
    instrument = replace(make_instrument(0, "grand"), tuning_cents=0.0, stretch_cents=10.0)
    assert note_frequency(instrument, 60) == pytest.approx(261.6256, abs=1e-3)
    assert 1200 * np.log2(note_frequency(instrument, 100) / (440 * 2 ** (31 / 12))) == pytest.approx(10)
    assert 1200 * np.log2(note_frequency(instrument, 20) / (440 * 2 ** (-49 / 12))) == pytest.approx(-10)


@pytest.mark.parametrize("family", ["grand", "upright"])
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("midi, partials", [(40, 20), (52, 16), (64, 12)])
def test_partials_are_stretched_by_b(family, seed, midi, partials):
    instrument = make_instrument(seed, family)
    # Bright, even and long: this test is about frequencies, and every partial must be there to be measured.
    instrument = replace(
        instrument, unevenness_db=0.0, cutoff_hz=8000.0, loss=0.2, detune_cents=0.01, reverb_db=-np.inf, position=0.031
    )
    spectrum = spectrum_db(render_note(instrument, midi, 1.0), 0.3, 3.0)
    expected = partial_frequencies(instrument, midi, partials)
    measured = np.array([peak_hz(*spectrum, f, 20) for f in expected])
    k = np.arange(1, partials + 1)
    # (f_k / k)^2 = f_0^2 + f_0^2 B k^2: a straight line over k^2.
    slope, constant = np.polyfit(k**2, (measured / k) ** 2, 1)
    assert slope / constant == pytest.approx(inharmonicity(instrument, midi), rel=0.05)


def test_inharmonicity_is_that_of_pianos():
    values = [inharmonicity(make_instrument(seed, "grand"), 60) for seed in range(50)]
    assert 5e-5 < min(values) < max(values) < 1e-3
    for seed in range(5):
        instrument = make_instrument(seed, "upright")
        middle = inharmonicity(instrument, 50)
        assert inharmonicity(instrument, 24) > middle < inharmonicity(instrument, 96)
    assert inharmonicity(make_instrument(0, "electric"), 60) == 0.0


# Level, brightness, decay


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("midi", [33, 48, 60, 72, 84])
def test_velocity_raises_level_and_brightness(family, midi):
    brighter = []
    for seed in range(8):
        # Without the knock, whose share differs from stroke to stroke.
        instrument = replace(make_instrument(seed, family), noise_db=-90.0)
        soft, hard = (render_note(instrument, midi, velocity, seconds=1.0) for velocity in (0.25, 1.0))
        assert rms(hard, 0.0, 0.5) > 2 * rms(soft, 0.0, 0.5)
        brighter.append(centroid_hz(hard) / centroid_hz(soft))
    # One note may be an exception: the phases of its strings are new at every stroke, and so is what they cancel.
    assert np.median(np.log2(brighter)) > 0.02


def test_level_is_that_of_the_velocity():
    peaks = {v: [np.abs(render_note(make_instrument(s), 60, v, 0.5)).max() for s in range(12)] for v in (0.15, 1.0)}
    assert 0.03 < min(peaks[0.15]) and max(peaks[0.15]) < 0.08
    assert 0.3 < min(peaks[1.0]) and max(peaks[1.0]) < 0.75


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("midi", [28, 52, 76, 100])
def test_notes_decay(family, midi):
    for seed in range(4):
        instrument = replace(make_instrument(seed, family), tremolo_depth=0.0)
        note = render_note(instrument, midi, 0.7)
        assert rms(note, 3.0) < 0.8 * rms(note, 0.2)


def test_treble_dies_before_bass_and_highs_before_lows():
    for seed in range(4):
        instrument = make_instrument(seed, "grand")
        bass, treble = (render_note(instrument, midi, 0.7) for midi in (40, 88))
        assert rms(treble, 3.0) / rms(treble, 0.1) < rms(bass, 3.0) / rms(bass, 0.1)
        assert centroid_hz(bass, 3.0) < centroid_hz(bass)


def test_decay_has_two_stages():
    instrument = replace(
        make_instrument(0, "grand"), reverb_db=-np.inf, aftersound_db=-12.0, aftersound_factor=6.0, decay_s=4.0
    )
    slopes = []
    for midi in range(58, 68):  # beats blur single notes
        note = render_note(instrument, midi, 0.8, seconds=6.0)
        levels = [20 * np.log10(rms(note, at, 0.4)) for at in (0.1, 1.1, 4.5, 5.5)]
        slopes.append((levels[0] - levels[1], levels[2] - levels[3]))
    early, late = np.mean(slopes, axis=0)
    assert early > 1.5 * late > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_the_damper_stops_the_note(family):
    for seed in range(4):
        instrument = replace(make_instrument(seed, family), reverb_db=-np.inf)
        held, released = (render_note(instrument, 55, 0.7, hold_s=hold_s) for hold_s in (None, 1.0))
        assert rms(released, 1.3) < 0.02 * rms(held, 1.3)
        assert rms(released, 0.8) == pytest.approx(rms(held, 0.8), rel=1e-3)


def test_the_top_strings_of_a_piano_have_no_damper():
    instrument = make_instrument(0, "grand")
    assert render_note(instrument, 96, 0.7).tobytes() == render_note(instrument, 96, 0.7, hold_s=0.3).tobytes()
    assert render_note(instrument, 88, 0.7).tobytes() != render_note(instrument, 88, 0.7, hold_s=0.3).tobytes()


def test_the_attack_comes_at_once():
    for seed in range(8):
        note = np.abs(render_note(make_instrument(seed), 60, 0.8, seconds=0.5))
        assert note[0] < 0.2 * note.max()
        assert note[: RATE // 50].max() > 0.3 * note.max(), "within 20 ms"


def test_the_body_is_shared_by_all_notes_and_stays_in_bounds():
    for seed in range(20):
        gain = body_gain_db(make_instrument(seed), np.geomspace(200, 4000, 300))
        assert -50 < gain.min() < gain.max() < 35
        assert gain.max() - gain.min() > 3


# Bounds


@pytest.mark.parametrize("midi", [21, 60, 108])
@pytest.mark.parametrize("velocity", [0.01, 1.0])
def test_finite_and_never_clipped(midi, velocity):
    for seed in range(12):
        note = render_note(make_instrument(seed), midi, velocity, seconds=1.0)
        assert (note.shape, note.dtype) == ((RATE,), np.float32)
        assert np.isfinite(note).all()
        assert 0 < np.abs(note).max() <= 0.91


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("midi", [33, 69, 93, 106])
def test_nothing_above_the_band_limit(family, midi):
    for seed in range(3):
        frequency, db = spectrum_db(render_note(make_instrument(seed, family), midi, 1.0), 0.05, 2.0)
        # 40 Hz and 60 dB: the skirt of a quickly decaying partial just below the limit
        assert db[frequency > BAND_LIMIT * RATE + 40].max() < db.max() - 60


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("midi", [84, 93, 103])
def test_no_tone_that_is_not_a_partial(family, midi):
    """An alias would stand between the partials; late enough, knock, thump and bell are gone."""
    for seed in range(4):
        instrument = replace(make_instrument(seed, family), tremolo_depth=0.0, drive=1.6, reverb_db=-np.inf)
        frequency, db = spectrum_db(render_note(instrument, midi, 1.0), 1.0, 2.0)
        partials = partial_frequencies(instrument, midi, 12)
        away = np.min(np.abs(frequency[:, None] - partials), axis=1) > 0.01 * frequency + 6
        assert db[away].max() < db.max() - 65


@pytest.mark.parametrize("rate", [8000, 22_050, 48_000])
def test_other_sample_rates_play_the_same_note(rate):
    instrument = make_instrument(1, "grand")
    note = render_note(instrument, 60, 0.7, seconds=1.0, sample_rate=rate)
    assert len(note) == rate
    spectrum = np.abs(np.fft.rfft(note * np.blackman(rate)))
    assert np.argmax(spectrum[240:290]) + 240 == pytest.approx(note_frequency(instrument, 60), abs=1.5)


@pytest.mark.parametrize("samples", [1, 2, 255, 256, 257, 600])
def test_any_length(samples):
    assert render_note(make_instrument(0), 60, 0.5, seconds=samples / RATE, hold_s=10.0).shape == (samples,)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"midi": 20}, "midi=20 must be an integer from 21 to 108"),
        ({"midi": 109}, "midi=109"),
        ({"midi": 60.5}, "midi=60.5"),
        ({"midi": True}, "midi=True"),
        ({"velocity": 0.0}, "velocity=0.0 must be above 0 and at most 1"),
        ({"velocity": 1.01}, "velocity=1.01"),
        ({"velocity": float("nan")}, "velocity=nan"),
        ({"seconds": 0.0}, "seconds=0.0"),
        ({"seconds": float("inf")}, "seconds=inf"),
        ({"sample_rate": 0}, "sample_rate=0"),
        ({"hold_s": 0.0}, "hold_s=0.0"),
        ({"hold_s": float("nan")}, "hold_s=nan"),
        ({"midi": 108, "sample_rate": 8000}, "sample_rate=8000 is too low for midi=108"),
    ],
)
def test_what_cannot_be_played_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        render_note(make_instrument(0, "grand"), **{"midi": 60, "velocity": 0.5, "seconds": 0.1} | change)


@pytest.mark.parametrize("seed", [-1, 1.5, True, "7"])
def test_seed_must_be_a_whole_number(seed):
    with pytest.raises(ValueError, match=f"seed={seed!r}"):
        make_instrument(seed)


def test_unknown_family_lists_the_known():
    with pytest.raises(ValueError, match="family='organ' is unknown; choose one of grand, upright, electric, plucked"):
        make_instrument(0, "organ")


def test_instruments_are_frozen():
    with pytest.raises(FrozenInstanceError):
        make_instrument(0).seed = 1
