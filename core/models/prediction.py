"""The scores that a predictor returns, and the chord that they name. Needs numpy alone: no PyTorch, no ONNX Runtime."""

from dataclasses import dataclass

import numpy as np

from triadbench.core.models.chords import NO_CHORD, ROOTS, TYPES
from triadbench.core.models.spelling import chord_name

SILENCE_PEAK = 1e-4
"""Below this deviation from the mean (80 dB under full scale) nothing sounds."""
_SOUND_BLOCK, _SOUND_BLOCKS = 400, 4
"""A chord sounds in at least four blocks of 25 ms; a click, or the edge of a constant offset, in fewer."""
_BLOCKS_AT_ONCE = 16


@dataclass(frozen=True)
class Scores:
    """Probabilities for a batch, float32; None for what the model was not trained to name.

    Attributes:
        types: (batch, 4). roots: (batch, 12). joint: (batch, 12, 4), of every triad. silent: bool (batch,).
        chords: (batch, 205), of the classes of `core.models.targets`. bass: (batch, 12), of the lowest note.
    """

    types: np.ndarray | None
    roots: np.ndarray | None
    joint: np.ndarray | None
    silent: np.ndarray
    chords: np.ndarray | None = None
    bass: np.ndarray | None = None


def is_silent(waveforms: np.ndarray) -> np.ndarray:
    """True where there is no chord to name, bool (batch,), of waveforms (batch, samples) at 16 kHz.

    A constant offset counts as silence, and so does the step where it begins, ends or is padded with zeros.
    """
    return np.array([_sounding_blocks(waveform) < _SOUND_BLOCKS for waveform in waveforms], dtype=bool)


def _sounding_blocks(waveform: np.ndarray) -> int:
    """Number of blocks of a waveform (samples,) that sound, counted until there are enough: most sounds start soon."""
    n_blocks = len(waveform) // _SOUND_BLOCK
    blocks = waveform[: n_blocks * _SOUND_BLOCK].reshape(n_blocks, _SOUND_BLOCK)
    sounding = 0
    for start in range(0, n_blocks, _BLOCKS_AT_ONCE):
        part = blocks[start : start + _BLOCKS_AT_ONCE]
        mean = part.mean(axis=1)
        deviation = np.maximum(part.max(axis=1) - mean, mean - part.min(axis=1))
        sounding += int(np.count_nonzero(deviation >= SILENCE_PEAK))
        if sounding >= _SOUND_BLOCKS:
            break
    return sounding


def name_chord(joint: np.ndarray, alternatives: int = 3) -> dict:
    """The likeliest chord of joint probabilities (12, 4), its parts, their confidences, and the next chords.

    The chord is the largest joint probability; type and root are its own, so the three never contradict one another.
    "chord" is spelled as people write it ("F#m"), "root" is the name of its class ("Gb").
    """
    joint = joint / joint.sum()  # float32 sums stray from 1, and a confidence must not exceed it
    types, roots = np.minimum(joint.sum(axis=0), 1.0), np.minimum(joint.sum(axis=1), 1.0)
    ranked = [divmod(int(k), len(TYPES)) for k in np.argsort(-joint, axis=None)[: alternatives + 1]]
    root, chord_type = ranked[0]
    return {
        "chord": chord_name(root, chord_type),
        "type": TYPES[chord_type],
        "root": ROOTS[root],
        "confidence": float(joint[root, chord_type]),
        "type_confidence": float(types[chord_type]),
        "root_confidence": float(roots[root]),
        "alternatives": [{"chord": chord_name(r, t), "confidence": float(joint[r, t])} for r, t in ranked[1:]],
    }


def no_chord() -> dict:
    """The result of `name_chord` for silence."""
    absent = dict.fromkeys(("type", "root", "confidence", "type_confidence", "root_confidence"))
    return {"chord": NO_CHORD, **absent, "alternatives": []}
