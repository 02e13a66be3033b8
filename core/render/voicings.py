"""Which notes make a chord: root position, inversions, open, doubled, and the shapes of a guitar."""

from __future__ import annotations

import numpy as np

from triadbench.core.models.chords import TYPE_INTERVALS, root_pitch_class

# Semitones of a guitar's barre and open shapes above the root in the bass: E, A, D and C shapes, written as scale
# degrees (root, third or fifth of the chord) and octaves, so that each serves every chord type.
_GUITAR_SHAPES = (
    ((0, 0), (2, 0), (0, 1), (1, 1), (2, 1), (0, 2)),
    ((0, 0), (2, 0), (0, 1), (1, 1), (2, 1)),
    ((0, 0), (2, 0), (0, 1), (1, 1)),
    ((0, 0), (1, 0), (2, 0), (0, 1), (1, 1)),
    ((0, 0), (1, 0), (2, 0), (0, 1), (2, 1), (0, 2)),
)


def root_midi(root: int, octave: int) -> int:
    """MIDI number of a root; octave 4 starts at middle C (60)."""
    return 12 * (octave + 1) + root_pitch_class(root)


def chord_notes(root: int, chord_type: int, octave: int, voicing: str, rng: np.random.Generator) -> list[int]:
    """MIDI numbers of a chord, lowest first.

    Args:
        root: class index. chord_type: class index. octave: octave of the root in root position.
        voicing: "root" (close, as in the original), "inv1", "inv2" (the lowest one or two notes raised an octave),
            "open" (an inner note raised an octave, or the bass lowered), "doubled" (root in the bass, one to three
            chord notes doubled in other octaves), "guitar" (a guitar shape).
        rng: chooses among the ways to voice.
    """
    bass = root_midi(root, octave)
    steps = TYPE_INTERVALS[chord_type]
    notes = [bass + step for step in steps]
    if voicing == "inv1":
        notes[0] += 12
    elif voicing == "inv2":
        notes[0] += 12
        notes[1] += 12
    elif voicing == "open":
        way = rng.integers(3)
        if way == 0:
            notes[1] += 12
        elif way == 1:
            notes[0] -= 12
        else:
            notes[1] += 12
            notes[2] += 12
    elif voicing == "doubled":
        extra = [bass - 12, bass + 12, bass + 12 + steps[1], bass + 12 + steps[2]]
        notes += list(rng.choice(extra, rng.integers(1, 4), replace=False))
    elif voicing == "guitar":
        shape = _GUITAR_SHAPES[rng.integers(len(_GUITAR_SHAPES))]
        notes = [bass + steps[degree] + 12 * octaves for degree, octaves in shape]
    return sorted({int(note) for note in notes})
