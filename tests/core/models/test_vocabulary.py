"""The table of qualities against MIREX's reference implementation, and its own promises."""

import pytest

from triadbench.core.models.chords import TYPE_INTERVALS, TYPES
from triadbench.core.models.vocabulary import (
    N_CLASSES,
    QUALITIES,
    degree_fifths,
    nearest_quality,
)

BY_HARTE = {quality.harte: quality for quality in QUALITIES}
MIREX_TRIADS = ("maj", "min", "dim", "aug")


@pytest.mark.parametrize(
    ("degree", "semitones"),
    [
        ("1", 0),
        ("b2", 1),
        ("2", 2),
        ("9", 2),
        ("b3", 3),
        ("4", 5),
        ("#4", 6),
        ("b5", 6),
        ("bb7", 9),
        ("13", 9),
        ("7", 11),
    ],
)
def test_degrees(degree, semitones):
    assert 7 * degree_fifths(degree) % 12 == semitones


def test_notes_are_those_of_any_chord_book():
    notes = {quality.suffix: "".join(f"{step:x}" for step in quality.semitones) for quality in QUALITIES}
    assert notes == {
        "": "047",
        "m": "037",
        "dim": "036",
        "aug": "048",
        "7": "047a",
        "maj7": "047b",
        "m7": "037a",
        "m7b5": "036a",
        "dim7": "0369",
        "mM7": "037b",
        "6": "0479",
        "m6": "0379",
        "sus2": "027",
        "sus4": "057",
        "add9": "0472",
        "5": "07",
        " (note)": "0",
    }


def test_the_first_four_are_the_types():
    assert [quality.words for quality in QUALITIES[:4]] == list(TYPES)
    assert [quality.triad for quality in QUALITIES[:4]] == [0, 1, 2, 3]
    assert TYPE_INTERVALS == ((0, 4, 7), (0, 3, 7), (0, 3, 6), (0, 4, 8))


def test_names_are_not_ambiguous():
    for field in ("harte", "suffix", "words"):
        assert len({getattr(quality, field) for quality in QUALITIES}) == len(QUALITIES)
    assert len({frozenset(quality.semitones) for quality in QUALITIES}) == len(QUALITIES)


@pytest.mark.parametrize("quality", QUALITIES, ids=lambda quality: quality.harte)
def test_mir_eval_reads_the_same_notes_and_reduces_to_the_same_triad(quality):
    chord = pytest.importorskip("mir_eval").chord
    root, bitmap, _ = chord.encode(f"C:{quality.harte}", reduce_extended_chords=True)
    assert root == 0 and set(bitmap.nonzero()[0]) == set(quality.semitones)
    alike = [chord.triads([f"C:{quality.harte}"], [f"C:{triad}"])[0] == 1 for triad in MIREX_TRIADS]
    assert alike == [quality.triad == k for k in range(4)]


def test_there_are_205_classes():
    assert N_CLASSES == 205


@pytest.mark.parametrize("quality", range(len(QUALITIES)))
def test_a_quality_is_its_own_nearest(quality):
    assert nearest_quality(QUALITIES[quality].semitones) == quality


@pytest.mark.parametrize(
    ("notes", "base", "nearest"),
    [
        ((0, 4), None, "maj"),
        ((0, 3), None, "min"),
        ((0, 4, 10), None, "7"),
        ((0, 3, 10), None, "min7"),
        ((0, 4, 7, 10, 14), None, "7"),
        ((0, 5, 7, 10), None, "sus4"),
        ((0, 2, 5, 7, 10), None, "sus2"),
        ((0, 2, 5, 7, 10), "sus4", "sus4"),
        ((0, 4, 8, 10), "7", "aug"),
        ((0, 10), None, "1"),
    ],
)
def test_other_chords_become_the_nearest(notes, base, nearest):
    index = None if base is None else [quality.harte for quality in QUALITIES].index(base)
    assert QUALITIES[nearest_quality(notes, index)].harte == nearest
