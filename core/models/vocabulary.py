"""The chord qualities that have names: one table, from which spelling, labels and templates follow. Needs no numpy."""

from collections.abc import Iterable
from typing import NamedTuple

_DEGREES = (0, 2, 4, -1, 1, 3, 5)
"""Fifths from a tonic up to each degree of its major scale."""


class Chord(NamedTuple):
    """A chord by numbers.

    Attributes:
        root: class index of `core.models.chords.ROOTS`. quality: index in `QUALITIES`.
        bass: class index of the lowest note; None where it is the root.
    """

    root: int
    quality: int
    bass: int | None = None


def degree_fifths(degree: str) -> int:
    """How many fifths above the root a degree in Harte's syntax ("b3", "#5", "bb7", "9") lies; -3 is a minor third."""
    number = degree.lstrip("b#")
    return _DEGREES[(int(number) - 1) % 7] + 7 * (degree.count("#") - degree.count("b"))


class Quality(NamedTuple):
    """A chord without its root.

    Attributes:
        harte: name in Harte's syntax (`C:min7`). suffix: what follows the root where people read it (`Cm7`).
        numeral: what follows a Roman numeral; a minor third makes its letters small. words: as read aloud.
        degrees: its notes as Harte counts them, root first.
        triad: index in `core.models.chords.TYPES` of what MIREX reduces it to; None where that is no triad.
    """

    harte: str
    suffix: str
    numeral: str
    words: str
    degrees: tuple[str, ...]
    triad: int | None

    @property
    def fifths(self) -> tuple[int, ...]:
        """The notes as fifths above the root."""
        return tuple(map(degree_fifths, self.degrees))

    @property
    def semitones(self) -> tuple[int, ...]:
        """The notes as semitones above the root, 0-11."""
        return tuple(7 * fifths % 12 for fifths in self.fifths)


def _quality(harte: str, suffix: str, numeral: str, words: str, degrees: str, triad: int | None) -> Quality:
    return Quality(harte, suffix, numeral, words, tuple(degrees.split()), triad)


QUALITIES = (
    _quality("maj", "", "", "major", "1 3 5", 0),
    _quality("min", "m", "", "minor", "1 b3 5", 1),
    _quality("dim", "dim", "°", "diminished", "1 b3 b5", 2),
    _quality("aug", "aug", "+", "augmented", "1 3 #5", 3),
    _quality("7", "7", "7", "seventh", "1 3 5 b7", 0),
    _quality("maj7", "maj7", "maj7", "major seventh", "1 3 5 7", 0),
    _quality("min7", "m7", "7", "minor seventh", "1 b3 5 b7", 1),
    _quality("hdim7", "m7b5", "ø7", "half-diminished seventh", "1 b3 b5 b7", 2),
    _quality("dim7", "dim7", "°7", "diminished seventh", "1 b3 b5 bb7", 2),
    _quality("minmaj7", "mM7", "maj7", "minor, major seventh", "1 b3 5 7", 1),
    _quality("maj6", "6", "add6", "sixth", "1 3 5 6", 0),
    _quality("min6", "m6", "add6", "minor sixth", "1 b3 5 6", 1),
    _quality("sus2", "sus2", "sus2", "suspended second", "1 2 5", None),
    _quality("sus4", "sus4", "sus4", "suspended fourth", "1 4 5", None),
    _quality("maj(9)", "add9", "add9", "added ninth", "1 3 5 9", 0),
    _quality("5", "5", "5", "power chord", "1 5", None),
    _quality("1", " (note)", "", "single note", "1", None),
)
"""The first four are `core.models.chords.TYPES`, in their order."""

N_QUALITIES = len(QUALITIES)
N_CLASSES = 12 * N_QUALITIES + 1
"""Of a model that names them all: `root * N_QUALITIES + quality`, and no chord as the last."""
NO_CHORD_CLASS = N_CLASSES - 1


def nearest_quality(semitones: Iterable[int], base: int | None = None) -> int:
    """The quality whose notes differ least from these, semitones above the root: a ninth becomes its seventh, a
    seventh without its fifth stays one. Of several that differ as much, `base`, or else the first in the table."""
    notes = {step % 12 for step in semitones}
    differences = [len(notes.symmetric_difference(quality.semitones)) for quality in QUALITIES]
    return min(range(len(QUALITIES)), key=lambda index: (differences[index], index != base, index))
