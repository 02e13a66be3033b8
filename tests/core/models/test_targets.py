"""Every chord has the class, the triad and the equals that its notes say."""

import itertools

import numpy as np
import pytest

from triadbench.core.models.chords import ROOTS, TYPE_INTERVALS
from triadbench.core.models.prediction import NO_TRIAD, REDUCTION
from triadbench.core.models.targets import SAME_NOTES, allowed_classes, parse_label
from triadbench.core.models.vocabulary import N_CLASSES, N_QUALITIES, NO_CHORD_CLASS, QUALITIES

MIREX = {
    0: "maj 7 maj7 maj6 maj(9)",
    1: "min min7 minmaj7 min6",
    2: "dim hdim7 dim7",
    3: "aug",
    None: "sus2 sus4 5 1",
}


def test_classes_are_roots_times_qualities_and_none():
    assert (N_QUALITIES, NO_CHORD_CLASS, N_CLASSES) == (17, 204, 205)
    numbers = [parse_label(f"{root}:{quality.harte}")[0] for root in ROOTS for quality in QUALITIES]
    assert numbers == list(range(204))


def test_reduction_is_mirex():
    by_name = {name: triad for triad, names in MIREX.items() for name in names.split()}
    for root, (q, quality) in itertools.product(range(12), enumerate(QUALITIES)):
        triad = by_name[quality.harte]
        assert REDUCTION[root * 17 + q] == (NO_TRIAD if triad is None else root * 4 + triad)
    assert REDUCTION[NO_CHORD_CLASS] == NO_TRIAD


def test_a_chord_holds_the_notes_of_its_triad():
    for quality in QUALITIES:
        if quality.triad is not None:
            assert set(TYPE_INTERVALS[quality.triad]) <= set(quality.semitones)


@pytest.mark.parametrize(
    ("label", "names"),
    [
        ("C:aug/3", "C:aug E:aug Ab:aug"),
        ("A:min7/b3", "A:min7 C:maj6"),
        ("C:min6/5", "C:min6 A:hdim7"),
        ("C:sus2/5", "C:sus2 G:sus4"),
        ("B:dim7/b3", "B:dim7 D:dim7 F:dim7 Ab:dim7"),
        ("C:maj/3", "C:maj"),
        ("N", "N"),
    ],
)
def test_where_the_bass_is_no_root_every_spelling_of_the_notes_is_right(label, names):
    wanted = [parse_label(name)[0] for name in names.split()]
    assert np.flatnonzero(allowed_classes(label)).tolist() == sorted(wanted)


@pytest.mark.parametrize("label", ["C:aug", "A:min7", "C:maj6", "C:sus2", "B:dim7"])
def test_where_the_bass_is_the_root_it_decides(label):
    assert np.flatnonzero(allowed_classes(label)).tolist() == [parse_label(label)[0]]


def test_equals_go_both_ways_and_none_equals_itself_alone():
    assert (SAME_NOTES == SAME_NOTES.T).all() and SAME_NOTES.diagonal().all()
    assert SAME_NOTES[NO_CHORD_CLASS].sum() == 1


def test_the_bass_of_a_label_is_a_degree_above_its_root():
    assert parse_label("F:7/b7") == (ROOTS.index("F") * 17 + 4, 3)
    assert parse_label("Eb:min/5") == (ROOTS.index("Eb") * 17 + 1, 10)
    assert parse_label("D:5") == (ROOTS.index("D") * 17 + 15, 2)
    assert parse_label("N") == (NO_CHORD_CLASS, None)
