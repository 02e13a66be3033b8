"""The scores that a predictor returns, and the chord that they name. Needs numpy alone: no PyTorch, no ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from triadbench.core.errors import UserError
from triadbench.core.models.chords import NO_CHORD, ROOTS, TYPES
from triadbench.core.models.spelling import chord_name, chord_root, harte
from triadbench.core.models.vocabulary import N_CLASSES, N_QUALITIES, NO_CHORD_CLASS, QUALITIES, Chord

SILENCE_PEAK = 1e-4
"""Below this deviation from the mean (80 dB under full scale) nothing sounds."""
_SOUND_BLOCK, _SOUND_BLOCKS = 400, 4
"""A chord sounds in at least four blocks of 25 ms; a click, or the edge of a constant offset, in fewer."""
_BLOCKS_AT_ONCE = 16
_SURE_BASS = 0.5
"""A bass that is not the root is named where its probability is above."""

NO_TRIAD = len(ROOTS) * len(TYPES)
"""Index of "none" behind the 48 triads, each root * 4 + type."""
_TRIADS = [NO_TRIAD if quality.triad is None else quality.triad for quality in QUALITIES]
REDUCTION = np.array([min(len(TYPES) * root + t, NO_TRIAD) for root in range(len(ROOTS)) for t in _TRIADS] + [NO_TRIAD])
"""Triad of every class of `core.models.vocabulary`, int (205,): 0-47, or `NO_TRIAD`."""
_IN_TRIAD = np.eye(NO_TRIAD + 1, dtype=np.float32)[REDUCTION]


@dataclass(frozen=True)
class Scores:
    """Probabilities for a batch, float32; None for what the model was not trained to name.

    Attributes:
        types: (batch, 4). roots: (batch, 12). joint: (batch, 12, 4), of every triad. silent: bool (batch,).
        chords: (batch, 205), of the classes of `core.models.targets`; made of `joint` where a model knows triads alone.
        bass: (batch, 12), of the lowest note; None where a model does not name it.
    """

    types: np.ndarray | None
    roots: np.ndarray | None
    joint: np.ndarray | None
    silent: np.ndarray
    chords: np.ndarray | None = None
    bass: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.chords is None and self.joint is not None:
            object.__setattr__(self, "chords", chords_of_triads(self.joint))

    def of_triads(self) -> Scores:
        """The scores of triads alone: every chord counts as its triad, and what has none as nothing."""
        if self.chords is None:
            return self
        triads = triads_of(self.chords)[:, :NO_TRIAD] + np.float32(1e-30)
        joint = (triads / triads.sum(axis=1, keepdims=True)).reshape(-1, len(ROOTS), len(TYPES))
        return Scores(joint.sum(axis=1), joint.sum(axis=2), joint, self.silent)


def require_chords(task: str, model: str = "this model") -> None:
    """Raises UserError, with the way out, where a model answers for the "type" or the "root" only."""
    if task != "both":
        other = "root" if task == "type" else "type"
        way_out = "give the checkpoints of both, --model TYPE --model ROOT (in Python, a list of the two)"
        raise UserError(f"{model} answers for the {task} only, a chord needs the {other} network as well; {way_out}")


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of logits (batch, ...): each row's sum to 1."""
    axes = tuple(range(1, logits.ndim))
    shares = np.exp(logits - logits.max(axis=axes, keepdims=True))
    return shares / shares.sum(axis=axes, keepdims=True)


def triads_of(chords: np.ndarray) -> np.ndarray:
    """Probabilities (..., 49) of the 48 triads, each root * 4 + type, and of none, from those of chords (..., 205)."""
    return chords @ _IN_TRIAD


def chords_of_triads(joint: np.ndarray) -> np.ndarray:
    """Probabilities (batch, 205) of chords from those of triads alone (batch, 12, 4): all others have none."""
    chords = np.zeros((len(joint), len(ROOTS), N_QUALITIES), np.float32)
    chords[:, :, : len(TYPES)] = joint
    return np.pad(chords.reshape(len(joint), NO_CHORD_CLASS), ((0, 0), (0, N_CLASSES - NO_CHORD_CLASS)))


def likeliest_class(chords: np.ndarray) -> int:
    """The class to answer for probabilities (205,): the likeliest of the likeliest triad, or of none."""
    return int(np.where(REDUCTION == triads_of(chords).argmax(), chords, -1).argmax())


def chord_of(index: int, bass: np.ndarray | None = None) -> Chord | None:
    """The chord of a class, None for no chord; with its bass where probabilities (12,) are sure of another of its
    notes than the root."""
    if index == NO_CHORD_CLASS:
        return None
    root, quality = divmod(index, N_QUALITIES)
    lowest = root if bass is None else int(bass.argmax())
    steps = QUALITIES[quality].semitones[1:]
    is_sure = bass is not None and bass[lowest] > _SURE_BASS and (lowest - root) % len(ROOTS) in steps
    return Chord(root, quality, lowest if is_sure else None)


def describe(chord: Chord | None, key: str | None = None) -> dict:
    """How a chord is written in a key: {"chord", "type", "root", "name", "label", "bass"}.

    `name` ("F#m7/E") is for people, `label` ("F#:min7/b7") in Harte's syntax, and `chord` ("F#m") is its triad; all are
    spelled. `root`, `type` and `bass`, None where it is the root, are names of classes ("Gb"). A chord without a triad
    has neither chord, type nor root; no chord is "N".
    """
    if chord is None:
        return {"chord": NO_CHORD, "type": None, "root": None, "name": NO_CHORD, "label": NO_CHORD, "bass": None}
    triad, name = QUALITIES[chord.quality].triad, chord_name(chord.root, chord.quality, key, chord.bass)
    return {
        "chord": None if triad is None else f"{chord_root(name)}{QUALITIES[triad].suffix}",
        "type": None if triad is None else TYPES[triad],
        "root": None if triad is None else ROOTS[chord.root],
        "name": name,
        "label": harte(name),
        "bass": None if chord.bass is None else ROOTS[chord.bass],
    }


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


def name_chord(chords: np.ndarray, bass: np.ndarray | None = None, alternatives: int = 3) -> dict:
    """The chord of probabilities (205,) and of those of its bass (12,), as `describe`; confidences; the next chords.

    The triad, or none, is chosen first, and then the chord within it, so that names never contradict one another.
    `confidence` is that of the triad, or of there being none; `label_confidence` that of the chord, whatever its bass.
    """
    chords = chords / chords.sum()  # float32 sums stray from 1, and a confidence must not exceed it
    triads = np.minimum(triads_of(chords), 1.0)
    best = likeliest_class(chords)
    shares = {"confidence": float(triads[REDUCTION[best]]), "type_confidence": None, "root_confidence": None}
    if REDUCTION[best] != NO_TRIAD:
        root, kind = divmod(int(REDUCTION[best]), len(TYPES))
        joint = triads[:NO_TRIAD].reshape(len(ROOTS), len(TYPES))
        shares["type_confidence"] = float(min(joint[:, kind].sum(), 1.0))
        shares["root_confidence"] = float(min(joint[root].sum(), 1.0))
    others = [int(k) for k in np.argsort(-chords, kind="stable") if k != best and chords[k] > 0][:alternatives]
    return {
        **describe(chord_of(best, bass)),
        **shares,
        "label_confidence": float(chords[best]),
        "alternatives": [{**_names(k), "confidence": float(chords[k])} for k in others],
    }


def _names(index: int) -> dict:
    return {key: value for key, value in describe(chord_of(index)).items() if key in ("chord", "name", "label")}


def no_chord() -> dict:
    """The result of `name_chord` for silence, in which nobody can be unsure."""
    absent = dict.fromkeys(("confidence", "type_confidence", "root_confidence", "label_confidence"))
    return {**describe(None), **absent, "alternatives": []}
