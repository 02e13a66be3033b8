"""Beats are found where clicks are, also while the tempo drifts; chords tell where bars begin; noise has no beat."""

import numpy as np
import pytest

from triadbench.export.songs.beats import change_rates, find_bars, find_beats
from triadbench.export.songs.onsets import OnsetCurve

RATE = 16_000


def flux(waveform):
    curve = OnsetCurve()
    curve.add(waveform.astype(np.float32))
    return curve.curve()


def clicks(times, seconds):
    t, rng = np.arange(round(0.1 * RATE)) / RATE, np.random.default_rng(0)
    waveform = 1e-4 * rng.standard_normal(round(seconds * RATE))
    for time in times:
        part = waveform[round(time * RATE) :][: len(t)]
        part += (0.3 * rng.standard_normal(len(t)) * np.exp(-60 * t))[: len(part)]
    return waveform


@pytest.mark.parametrize("bpm", [72, 100, 126])
def test_beats_of_clicks(bpm):
    times = np.arange(0.4, 40, 60 / bpm)
    assert find_beats(flux(clicks(times, 40))) == pytest.approx(times, abs=0.03)


@pytest.mark.parametrize(("first", "last"), [(0.66, 0.55), (0.5, 0.8)])
def test_beats_follow_a_drifting_tempo(first, last):
    times = 0.3 + np.concatenate([[0], np.cumsum(np.linspace(first, last, 150))])
    waveform = clicks(times, times[-1] + 1) + 0.5 * clicks((times[1:] + times[:-1]) / 2, times[-1] + 1)
    beats = find_beats(flux(waveform))
    assert np.mean([np.abs(beats - time).min() < 0.03 for time in times]) > 0.97 and abs(len(beats) - len(times)) <= 3


def test_a_missing_click_is_still_a_beat():
    times = np.arange(0.5, 30, 0.6)
    assert find_beats(flux(clicks(np.delete(times, [10, 25]), 30))) == pytest.approx(times, abs=0.04)


@pytest.mark.parametrize("waveform", [np.zeros(30 * RATE), np.random.default_rng(0).standard_normal(30 * RATE)])
def test_silence_and_noise_have_no_beat(waveform):
    assert len(find_beats(flux(waveform))) == len(find_beats(np.zeros(5))) == 0


@pytest.mark.parametrize(("meter", "first"), [(4, 0), (4, 3), (3, 0), (3, 1)])
def test_bars_begin_where_chords_change(meter, first):
    positions = (np.arange(96) - first) % meter
    rng = np.random.default_rng(meter)
    changes = (positions == 0) & (rng.random(96) < 0.8) | (rng.random(96) < 0.05)
    found, where = find_bars(changes)
    assert found == meter and np.array_equal(where, positions)
    rates = change_rates(changes, meter, positions)
    assert rates.argmax() == 0 and rates[0] > 0.65 and rates[1:].max() < 0.25


def test_a_bar_cut_short_shifts_the_rest():
    positions = np.concatenate([np.arange(62) % 4, np.arange(64) % 4])
    meter, where = find_bars(positions == 0)
    assert meter == 4 and np.array_equal(where == 0, positions == 0)


def test_too_few_changes_tell_no_bars():
    meter, where = find_bars(np.arange(40) % 14 == 0)
    assert meter is None and len(where) == 40
