"""The classes of our network, and what it is trained to answer for them.

Class `root * 17 + quality` is a chord, with the root in label order (`core.models.chords.ROOTS`) and the quality a row
of `core.models.vocabulary.QUALITIES`; the last class is N, no chord.
"""

import numpy as np

from triadbench.core.models.chords import ROOTS, ClipName, root_pitch_class
from triadbench.core.models.spelling import read_harte
from triadbench.core.models.vocabulary import N_CLASSES, N_QUALITIES, NO_CHORD_CLASS, QUALITIES


def _same_notes() -> np.ndarray:
    steps = [quality.semitones for quality in QUALITIES]
    notes = np.array([sum(1 << (r + s) % 12 for s in chord) for r in range(len(ROOTS)) for chord in steps] + [0])
    return notes[:, None] == notes


SAME_NOTES = _same_notes()
"""True where two classes have the same notes, bool (205, 205): augmented and diminished seventh chords on other roots,
sixths and the sevenths that they invert, suspensions."""


def parse_label(label: str) -> tuple[int, int | None]:
    """Class of a chord in Harte's syntax, and pitch class of its bass (None for N); errors as `spelling.read_harte`."""
    chord = read_harte(label)
    if chord is None:
        return NO_CHORD_CLASS, None
    return chord.root * N_QUALITIES + chord.quality, root_pitch_class(chord.root if chord.bass is None else chord.bass)


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
