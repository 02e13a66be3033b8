"""A planned song is what it says: chords in time, voiced as named; and what is rendered sounds then, and only then."""

import numpy as np
import pytest

from tests.core.toys import RATE, sine_bank
from triadbench.core.errors import UserError
from triadbench.core.models.chords import TYPE_INTERVALS, root_pitch_class
from triadbench.core.models.spelling import read_chord
from triadbench.core.render import progressions
from triadbench.core.render.progressions import PATTERNS, plan_progression, render_progression, truth
from triadbench.core.render.rooms import degrade_song

PLANS = [plan_progression(seed) for seed in range(40)]


@pytest.fixture(scope="module")
def bank():
    return sine_bank()


def test_chords_follow_one_another_without_a_gap():
    for plan in PLANS:
        assert plan.chords[0].start_s == 0 and plan.chords[0].symbol == plan.chords[-1].symbol == "N"
        for before, after in zip(plan.chords, plan.chords[1:], strict=False):
            assert before.end_s == after.start_s


def test_tempi_and_lengths_of_chords():
    beats = {round((c.end_s - c.start_s) * p.tempo_bpm / 60, 6) for p in PLANS for c in p.chords[1:-1]}
    assert beats == {2, 4, 8}
    assert min(p.tempo_bpm for p in PLANS) > 60 and max(p.tempo_bpm for p in PLANS) < 140
    assert {p.pattern for p in PLANS} == set(PATTERNS)
    assert {p.key is None for p in PLANS} == {True, False}


def test_notes_are_the_chords_and_inversions_occur():
    voicings = set()
    for chord in (c for p in PLANS for c in p.chords if c.root is not None):
        wanted = {(root_pitch_class(chord.root) + step) % 12 for step in TYPE_INTERVALS[chord.type]}
        assert {note % 12 for note in chord.notes} == wanted
        if chord.type == 3:  # inverted, its notes are another root's
            assert chord.notes[0] % 12 == root_pitch_class(chord.root)
        voicings.add(chord.voicing)
    assert voicings == {"root", "inv1", "inv2", "open", "doubled"}


def test_a_song_in_a_key_goes_round_a_common_progression():
    plan = plan_progression(3, kind="minor", bars=24, rest_probability=0)
    played = [c for c in plan.chords if c.root is not None]
    tonic = root_pitch_class(read_chord(plan.key.split()[0])[0])
    steps = [((root_pitch_class(c.root) - tonic) % 12, c.type) for c in played]
    assert plan.key.endswith(" minor")
    assert any(all(steps[k] == row[k % len(row)] for k in range(len(steps))) for row in progressions.COMMON["minor"])


def test_random_chords_never_repeat_at_once():
    played = [c.symbol for c in plan_progression(5, kind="random", bars=60, rest_probability=0).chords[1:-1]]
    assert all(a != b for a, b in zip(played, played[1:], strict=False)) and len(set(played)) > 15


def test_same_seed_same_song(bank):
    assert plan_progression(9) == plan_progression(9) != plan_progression(10)
    plan = plan_progression(9, bars=2)
    assert np.array_equal(render_progression(plan, bank), render_progression(plan, bank))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_sounds_from_the_first_chord_to_the_last_and_not_outside(pattern, bank):
    plan = plan_progression(11, bars=4, pattern=pattern, rest_probability=0)
    waveform = render_progression(plan, bank)
    assert waveform.dtype == np.float32 and len(waveform) == round(plan.duration_s * RATE)
    assert np.abs(waveform).max() == pytest.approx(0.7, abs=1e-6)
    first, last = round(plan.chords[1].start_s * RATE), round(plan.chords[-1].start_s * RATE)
    assert not waveform[:first].any() and np.abs(waveform[first : first + RATE // 20]).max() > 0.01
    assert np.abs(waveform[last - RATE // 20 : last]).max() > 0.01
    assert np.abs(waveform[last + int(0.48 * RATE) :]).max(initial=0) < 0.01  # 6 times the longest decay


def test_truth_merges_alike_neighbours_and_keeps_all_time():
    plan = plan_progression(3, kind="major", bars=30)
    intervals, symbols = truth(plan)
    assert all(a != b for a, b in zip(symbols, symbols[1:], strict=False))
    assert intervals[0, 0] == 0 and intervals[-1, 1] == plan.duration_s
    assert np.array_equal(intervals[1:, 0], intervals[:-1, 1])


def test_degraded_songs_are_noisy_and_as_long(bank):
    plan = plan_progression(2, bars=2)
    waveform = render_progression(plan, bank)
    worse = degrade_song(waveform, 1)
    assert worse.shape == waveform.shape and worse.dtype == np.float32 and np.abs(worse).max() <= 1
    assert np.array_equal(worse, degrade_song(waveform, 1)) and not np.array_equal(worse, degrade_song(waveform, 2))
    quiet = worse[: round(plan.chords[0].end_s * RATE) - 100]
    assert 1e-4 < np.sqrt(np.mean(np.square(quiet))) < 0.2


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"kind": "blues"}, "kind='blues'"), ({"pattern": "x"}, "pattern='x'"), ({"bars": 0}, "bars=0")],
)
def test_unknown_settings(settings, words):
    with pytest.raises(UserError, match=words):
        plan_progression(0, **settings)


def test_too_small_an_instrument():
    with pytest.raises(UserError, match="plays 60 to 65, too few notes"):
        render_progression(plan_progression(0), sine_bank(low=60, high=65))
