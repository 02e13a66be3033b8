"""Every voicing spells its chord: the right pitch classes, and the right note in the bass."""

import numpy as np
import pytest

from triadbench.core.models.chords import ROOTS, TYPE_INTERVALS, TYPES
from triadbench.core.render.voicings import chord_notes, root_midi

VOICINGS = ("root", "inv1", "inv2", "open", "doubled", "guitar")
BASS = {"root": 0, "inv1": 1, "inv2": 2, "open": 0, "doubled": 0, "guitar": 0}
C, A_FLAT, A = ROOTS.index("C"), ROOTS.index("Ab"), ROOTS.index("A")


def draws(voicing, root=C, kind=0, octave=4, n=60):
    return [chord_notes(root, kind, octave, voicing, np.random.default_rng(seed)) for seed in range(n)]


@pytest.mark.parametrize(("root", "octave", "midi"), [(C, 4, 60), (A, 4, 69), (A_FLAT, 4, 68), (C, 3, 48), (A, 0, 21)])
def test_octave_four_starts_at_middle_c(root, octave, midi):
    assert root_midi(root, octave) == midi


@pytest.mark.parametrize("kind", range(4), ids=TYPES)
@pytest.mark.parametrize("voicing", VOICINGS)
def test_pitch_classes_and_bass(voicing, kind):
    for root in range(12):
        wanted = [(root + 8 + step) % 12 for step in TYPE_INTERVALS[kind]]
        for notes in draws(voicing, root, kind, n=20):
            assert {note % 12 for note in notes} == set(wanted)
            assert notes == sorted(set(notes)) and all(type(note) is int for note in notes)
            assert notes[0] % 12 == wanted[BASS[voicing]]


@pytest.mark.parametrize(
    ("voicing", "notes"), [("root", [60, 64, 67]), ("inv1", [64, 67, 72]), ("inv2", [67, 72, 76])], ids=lambda v: str(v)
)
def test_c_major(voicing, notes):
    assert draws(voicing, n=1) == [notes]


def test_open_is_wider_than_an_octave_in_three_ways():
    assert {tuple(notes) for notes in draws("open")} == {(60, 67, 76), (48, 64, 67), (60, 76, 79)}


def test_doubled_adds_one_to_three_notes():
    assert {len(notes) for notes in draws("doubled")} == {4, 5, 6}
    assert all({60, 64, 67} < set(notes) for notes in draws("doubled"))


def test_guitar_shapes_have_four_to_six_strings_from_the_root_up():
    drawn = {tuple(notes) for notes in draws("guitar")}
    assert (60, 67, 72, 76, 79, 84) in drawn  # the E shape
    assert len(drawn) == 5 and {len(notes) for notes in drawn} == {4, 5, 6} and {notes[0] for notes in drawn} == {60}
