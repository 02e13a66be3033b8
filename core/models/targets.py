"""The classes of our network, and what it is trained to answer for them.

Class `root * 17 + quality` is a chord, with the root in label order (`core.models.chords.ROOTS`) and the quality a row
of `core.models.vocabulary.QUALITIES`; the last class is N, no chord. `REDUCTION` says which triad a class has.
"""

import numpy as np

from triadbench.core.models.chords import ROOTS, TYPES, ClipName, root_index, root_pitch_class
from triadbench.core.models.vocabulary import QUALITIES, degree_fifths

N_QUALITIES = len(QUALITIES)
NO_CHORD_CLASS = len(ROOTS) * N_QUALITIES
N_CLASSES = NO_CHORD_CLASS + 1
NO_TRIAD = len(ROOTS) * len(TYPES)
"""Index of "none" behind the 48 triads, each root * 4 + type."""


def chord_class(pitch_class: int, quality: int) -> int:
    """Class of the chord on a pitch class (0 is C) with a quality."""
    return root_index(pitch_class) * N_QUALITIES + quality


def _reduction() -> np.ndarray:
    triads = [quality.triad for quality in QUALITIES]
    rows = [NO_TRIAD if t is None else len(TYPES) * root + t for root in range(len(ROOTS)) for t in triads]
    return np.array([*rows, NO_TRIAD])


REDUCTION = _reduction()
"""Triad of every class, int (205,): 0-47, or `NO_TRIAD`."""


def _same_notes() -> np.ndarray:
    notes = [
        frozenset((root_pitch_class(r) + s) % 12 for s in q.semitones) for r in range(len(ROOTS)) for q in QUALITIES
    ]
    same = np.array([[a == b for b in notes] for a in notes])
    return np.pad(same, ((0, 1), (0, 1))) | np.eye(N_CLASSES, dtype=bool)


SAME_NOTES = _same_notes()
"""True where two classes have the same notes, bool (205, 205): augmented and diminished seventh chords on other roots,
sixths and the sevenths that they invert, suspensions."""


def parse_label(label: str) -> tuple[int, int | None]:
    """Class of a chord in Harte's syntax as the renderer writes it, and pitch class of its bass (None without one)."""
    if label == "N":
        return NO_CHORD_CLASS, None
    root, _, rest = label.partition(":")
    name, _, degree = rest.partition("/")
    pitch_class = "C Db D Eb E F Gb G Ab A Bb B".split().index(root)
    quality = [quality.harte for quality in QUALITIES].index(name)
    bass = pitch_class + (7 * degree_fifths(degree) if degree else 0)
    return chord_class(pitch_class, quality), bass % 12


def allowed_classes(label: str) -> np.ndarray:
    """Classes that are right for a label, bool (205,). The bass decides among chords of the same notes: where it is the
    chord's root, only this class is right, else all of them."""
    index, bass = parse_label(label)
    if index == NO_CHORD_CLASS or bass == root_pitch_class(index // N_QUALITIES):
        return np.arange(N_CLASSES) == index
    return SAME_NOTES[index]


def label_of(name: ClipName) -> str:
    """Label of a clip of the data set by its file name: a triad, and its bass where the voicing tells."""
    quality = QUALITIES[name.type]
    degree = {"inv1": quality.degrees[1], "inv2": quality.degrees[2]}.get(name.voicing)
    return f"{ROOTS[name.root]}:{quality.harte}" + (f"/{degree}" if degree else "")


def sounding(label: str) -> np.ndarray:
    """Pitch classes that sound in root order, float32 (12,): 1 or 0; none of them without a chord."""
    index, _ = parse_label(label)
    notes = np.zeros(len(ROOTS), dtype=np.float32)
    if index != NO_CHORD_CLASS:
        root, quality = divmod(index, N_QUALITIES)
        notes[[(root + step) % 12 for step in QUALITIES[quality].semitones]] = 1
    return notes
