"""Which notes make a chord: root position, inversions, open, doubled, and the shapes of a guitar."""

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


# Semitones that lift the three notes of a close chord, one of the ways to be drawn.
_LIFTS = {
    "root": ((0, 0, 0),),
    "inv1": ((12, 0, 0),),
    "inv2": ((12, 12, 0),),
    "open": ((0, 12, 0), (-12, 0, 0), (0, 12, 12)),
}


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
    bass, steps = root_midi(root, octave), TYPE_INTERVALS[chord_type]
    if voicing == "guitar":
        shape = _GUITAR_SHAPES[rng.integers(len(_GUITAR_SHAPES))]
        return sorted({bass + steps[degree] + 12 * octaves for degree, octaves in shape})
    notes = [bass + step for step in steps]
    if voicing == "doubled":
        extra = [bass - 12, bass + 12, bass + 12 + steps[1], bass + 12 + steps[2]]
        return sorted({*notes, *map(int, rng.choice(extra, rng.integers(1, 4), replace=False))})
    lifts = _LIFTS[voicing]
    lift = lifts[rng.integers(len(lifts)) if len(lifts) > 1 else 0]
    return sorted(note + step for note, step in zip(notes, lift, strict=True))
