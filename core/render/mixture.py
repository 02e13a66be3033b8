"""Clips to train on: triads, all other chords, guitars, power chords and notes, and sound without a chord.

`plan_mixture` draws kind, label, instrument and notes of every clip, each from a generator of its own, seeded by (seed,
number of the clip); `MixtureRenderer.clip` plays and records it in the style "wild".
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from triadbench.core.constants import CLIP_SAMPLES, CLIP_SECONDS, SAMPLE_RATE
from triadbench.core.models.chords import VOICINGS, root_index
from triadbench.core.models.spelling import chord_name, harte
from triadbench.core.models.vocabulary import QUALITIES
from triadbench.core.render import negatives
from triadbench.core.render.chords import STYLES, Renderer, chord_notes
from triadbench.core.render.fretboard import fingerings
from triadbench.core.render.note_banks import NoteBank

KINDS = {"triad": 14, "chord": 14, "guitar": 9, "fifth": 2, "note": 3, "negative": 6}
"""Kinds of clips, and how often each is drawn, relative to the others."""
_HARTE = [quality.harte for quality in QUALITIES]
_MAJ, _MIN, _DIM, _AUG, _7, _MAJ7, _MIN7 = range(7)
_FIFTH, _NOTE = _HARTE.index("5"), _HARTE.index("1")
QUALITY_WEIGHTS = np.array([3 if q < 2 else 4 if _7 <= q <= _MIN7 else 1 for q in range(_FIFTH)], dtype=float)
STRINGED = ("guitar", "plucked")
_NEGATIVES = {"drums": 16, "speech": 14, "sung": 10, "hum": 36, "hiss": 12, "clicks": 5, "melody": 10, "cluster": 5}
_MAKERS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "drums": negatives.drums,
    "speech": negatives.voice,
    "sung": functools.partial(negatives.voice, sung=True),
    "hum": negatives.hum,
    "hiss": negatives.hiss,
    "clicks": negatives.clicks,
}


def harte_label(root: int, quality: int, bass: int) -> str:
    """Label in Harte's syntax of a chord on pitch class `root` with pitch class `bass` below."""
    return harte(chord_name(root_index(root), quality, bass=root_index(bass)))


@dataclass(frozen=True)
class PlannedSound:
    """A clip to be rendered: `kind` of `KINDS`; label in Harte's syntax; index of the instrument; MIDI numbers."""

    index: int
    kind: str
    label: str
    bank: int
    notes: tuple[int, ...] = ()


class RenderedSound(NamedTuple):
    """float32 (64000,) in [-1, 1], and from when to when the label holds, in seconds."""

    waveform: np.ndarray
    start_s: float
    end_s: float


def plan_mixture(
    n: int, banks: Sequence[NoteBank], weights: Sequence[float] | None = None, *, seed: int, first: int = 0
) -> list[PlannedSound]:
    """Clips `first` to `first + n` of all kinds; `weights` of the instruments as in `core.render.chords.plan`."""
    odds = np.ones(len(banks)) if weights is None else np.asarray(weights, dtype=float)
    stringed = np.array([bank.family in STRINGED for bank in banks])
    kinds, shares = list(KINDS), np.array(list(KINDS.values())) / sum(KINDS.values())
    clips = []
    for index in range(first, first + n):
        rng = np.random.default_rng([seed, 0xC0, index])
        kind = kinds[rng.choice(len(kinds), p=shares)]
        if kind == "negative":
            clips.append(PlannedSound(index, kind, "N", 0))
            continue
        # Guitars play what is fingered, most fifths and half of the notes; everything plays the rest.
        chosen = odds * stringed if rng.random() < {"guitar": 1, "fifth": 0.7, "note": 0.5}.get(kind, 0) else odds
        if not chosen.any():
            chosen = odds
        while True:  # until the drawn instrument has the drawn notes
            bank = int(rng.choice(len(banks), p=chosen / chosen.sum()))
            label, notes = _draw(kind, banks[bank], rng)
            if banks[bank].low <= min(notes) and max(notes) <= banks[bank].high:
                break
        clips.append(PlannedSound(index, kind, label, bank, tuple(notes)))
    return clips


def _draw(kind: str, bank: NoteBank, rng: np.random.Generator) -> tuple[str, list[int]]:
    """Label and notes of one clip; the notes may lie outside of the instrument."""
    root = int(rng.integers(12))
    if kind == "triad":
        quality, voicing = int(rng.integers(4)), str(rng.choice(VOICINGS, p=np.array(STYLES["wild"].voicings)))
        notes = chord_notes(root_index(root), quality, int(rng.integers(2, 6)), voicing, rng)
    elif kind == "note":
        quality, octave = _NOTE, int(rng.integers(2, 6))
        notes = [12 * (octave + 1) + root]
        if rng.random() < 0.4:
            notes = sorted({*notes, notes[0] + int(rng.choice((-12, 12))), notes[0] + int(rng.choice((-12, 12, 24)))})
    elif kind == "fifth":
        quality, octave = _FIFTH, int(rng.integers(2, 5))
        low = 12 * (octave + 1) + root
        notes = [
            low,
            low + 7,
            *([low + 12] if rng.random() < 0.6 else []),
            *([low + 19] if rng.random() < 0.15 else []),
        ]
    else:
        quality = int(rng.choice(len(QUALITY_WEIGHTS), p=QUALITY_WEIGHTS / QUALITY_WEIGHTS.sum()))
        steps = QUALITIES[quality].semitones
        optional = (7,) if len(steps) > 3 and 7 in steps and rng.random() < 0.15 else ()
        if kind == "guitar":
            ways = fingerings(root, steps, optional)
            rooted = [way for way in ways if way[0] % 12 == root]
            chosen = rooted if rooted and rng.random() < 0.8 else ways
            notes = list(chosen[rng.integers(len(chosen))])
        else:
            notes = voiced(root, [step for step in steps if step not in optional], rng)
    return harte_label(root, quality, min(notes) % 12), notes


def voiced(root: int, steps: Sequence[int], rng: np.random.Generator) -> list[int]:
    """Notes of a chord on a keyboard: close or spread, inverted, with the root doubled below, or notes above."""
    low = 12 * int(rng.integers(3, 6)) + root + (12 if rng.random() < 0.5 else 0)
    notes = [low + step for step in steps]
    for _ in range(int(rng.choice(len(steps), p=_inversions(len(steps))))):
        notes = [*notes[1:], notes[0] + 12]
    if rng.random() < 0.35:  # spread: some inner notes an octave up
        notes = [note + 12 * int(k > 0 and rng.random() < 0.4) for k, note in enumerate(notes)]
    if rng.random() < 0.4:
        notes.append(
            min(notes) - 12 * int(rng.integers(1, 3)) if rng.random() < 0.3 else low - 12 * int(rng.integers(1, 3))
        )
    for note in rng.permutation(notes)[: int(rng.choice(3, p=(0.6, 0.3, 0.1)))]:
        notes.append(int(note) + 12)
    return sorted(set(notes))


def _inversions(n: int) -> np.ndarray:
    """Probabilities of the inversions 0 to n - 1."""
    return np.array([0.64, *[0.36 / (n - 1)] * (n - 1)])


class MixtureRenderer:
    """Plays and records the clips of `plan_mixture` with the same banks and seed."""

    def __init__(self, banks: Sequence[NoteBank], seed: int):
        self.banks, self.seed = banks, seed
        self._renderer = Renderer(banks, STYLES["wild"], seed)

    def clip(self, planned: PlannedSound) -> RenderedSound:
        """The clip; its label holds from the first stroke until the keys are released, within the clip."""
        rng = np.random.default_rng([self.seed, 0xC1, planned.index])
        if planned.kind == "negative":
            return RenderedSound(self._renderer.record(self._negative(rng), rng, 0.0), 0.0, CLIP_SECONDS)
        velocity = float(rng.choice((45, 80, 115)))
        bank = self.banks[planned.bank]
        # A strum catches some strings more than others; keys are more even.
        uneven_db = rng.uniform(0, 8 if bank.family in STRINGED else 3)
        waveform, start, end = self._renderer.strike(bank, planned.notes, velocity, rng, rng, uneven_db)
        waveform = self._beside(waveform, rng)
        amp = 0.5 if planned.kind == "fifth" else 0.1 if planned.kind == "guitar" else 0.06
        return RenderedSound(self._renderer.record(waveform, rng, amp), max(start, 0.0), min(end, CLIP_SECONDS))

    def _beside(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One chord in six sounds beside drums or a voice, which are at most as loud as it is."""
        if rng.random() < 1 / 6:
            other = negatives.drums(rng, CLIP_SAMPLES) if rng.random() < 0.7 else negatives.voice(rng, CLIP_SAMPLES)
            level = np.sqrt(np.mean(waveform**2) / max(np.mean(other**2), 1e-9)) * 10 ** (-rng.uniform(0, 15) / 20)
            waveform = waveform + other * np.float32(level)
        return waveform

    def _negative(self, rng: np.random.Generator) -> np.ndarray:
        """Sound that is no chord."""
        kind = str(rng.choice(list(_NEGATIVES), p=np.array(list(_NEGATIVES.values())) / sum(_NEGATIVES.values())))
        return _MAKERS[kind](rng, CLIP_SAMPLES) if kind in _MAKERS else self._notes(kind, rng)

    def _notes(self, kind: str, rng: np.random.Generator) -> np.ndarray:
        """A line of single notes that moves by steps, or neighbouring semitones together."""
        bank = self.banks[int(rng.integers(len(self.banks)))]
        low, high = max(bank.low, 45), min(bank.high, 88)
        if kind == "cluster":
            bottom, size = int(rng.integers(low, high - 7)), int(rng.integers(4, 8))
            return self._renderer.strike(bank, range(bottom, bottom + size), 80, rng, rng)[0]
        out = np.zeros(CLIP_SAMPLES, dtype=np.float32)
        note, at = int(rng.integers(low, high)), 0
        while at < CLIP_SAMPLES:
            length = int(rng.uniform(0.12, 0.6) * SAMPLE_RATE)
            played = self._renderer.strike(bank, [note], 80, rng, rng)[0]
            first = int(np.argmax(np.abs(played) > 1e-4))
            piece = played[first : first + min(length, CLIP_SAMPLES - at)]
            fade = np.minimum(1, np.arange(len(piece), 0, -1) / 400)
            out[at : at + len(piece)] += (piece * fade).astype(np.float32)
            note = int(np.clip(note + rng.choice((-3, -2, -1, 1, 2, 3)), low, high))
            at += length
        return out
