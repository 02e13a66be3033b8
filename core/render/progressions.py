"""Songs with known chords: progressions mixed from a note bank, with the exact time of every chord.

`plan_progression` draws what is played (everything follows from its seed), and `render_progression` plays it. Half of
the progressions are common ones in a key, half are random triads.
"""

from dataclasses import dataclass

import numpy as np

from triadbench.core.constants import SAMPLE_RATE
from triadbench.core.errors import UserError
from triadbench.core.models.chords import NO_CHORD, VOICINGS, root_index
from triadbench.core.models.spelling import chord_name, key_name
from triadbench.core.render.chords import chord_notes
from triadbench.core.render.note_banks import NoteBank, mix_note

TEMPO_BPM = (60.0, 140.0)
BEATS_A_BAR = 4
BEATS = (2, 4, 8)
"""A chord lasts half a bar, a bar or two bars."""
_BEAT_WEIGHTS = (0.35, 0.45, 0.2)
PATTERNS = ("held", "halves", "beats", "broken")
"""Struck once a bar, twice a bar, on every beat; or the notes one after the other in eighths, all of them held."""

# Semitones of the root above the tonic and the type (0 major, 1 minor, 2 diminished, 3 augmented).
COMMON = {
    "major": (
        ((0, 0), (7, 0), (9, 1), (5, 0)),
        ((0, 0), (9, 1), (5, 0), (7, 0)),
        ((9, 1), (5, 0), (0, 0), (7, 0)),
        ((2, 1), (7, 0), (0, 0), (5, 0)),
        ((0, 0), (7, 0), (9, 1), (4, 1), (5, 0), (0, 0), (2, 1), (7, 0)),
        ((0, 0), (5, 0), (11, 2), (4, 1), (9, 1), (2, 1), (7, 0), (0, 0)),
        ((0, 0), (0, 3), (9, 1), (5, 0), (2, 1), (7, 3), (0, 0), (7, 0)),
        ((0, 0), (4, 1), (5, 0), (5, 1)),
    ),
    "minor": (
        ((0, 1), (8, 0), (3, 0), (10, 0)),
        ((0, 1), (5, 1), (7, 0), (8, 0)),
        ((0, 1), (10, 0), (8, 0), (7, 0)),
        ((0, 1), (2, 2), (7, 0), (0, 1), (8, 0), (5, 1), (2, 2), (7, 0)),
        ((0, 1), (5, 1), (10, 0), (3, 0), (8, 0), (2, 2), (7, 0), (0, 1)),
        ((0, 1), (3, 3), (3, 0), (10, 0), (5, 1), (11, 2), (0, 1), (7, 0)),
    ),
}
"""Progressions of songs, folk and church music, by the mode of their key."""


@dataclass(frozen=True)
class PlannedChord:
    """A chord, or a rest, of a song.

    Attributes:
        start_s, end_s: when its keys go down and up. root, type: class indices; None for a rest.
        voicing: of `core.render.chords.chord_notes`. notes: MIDI numbers, lowest first.
    """

    start_s: float
    end_s: float
    root: int | None = None
    type: int | None = None
    voicing: str | None = None
    notes: tuple[int, ...] = ()

    @property
    def symbol(self) -> str:
        """As `Ab`, `F#m`, `Bdim`, `Faug`, or N."""
        return NO_CHORD if self.root is None or self.type is None else chord_name(self.root, self.type)


@dataclass(frozen=True)
class Progression:
    """A song to be played: chords and rests without a gap from 0 to `duration_s`, in a `key` as "C major" or none."""

    chords: tuple[PlannedChord, ...]
    tempo_bpm: float
    pattern: str
    key: str | None
    seed: int

    @property
    def duration_s(self) -> float:
        return self.chords[-1].end_s


def plan_progression(
    seed: int,
    *,
    bars: int = 16,
    kind: str | None = None,
    pattern: str | None = None,
    tempo_bpm: float | None = None,
    silence_s: tuple[float, float] = (0.5, 2.0),
    rest_probability: float = 0.02,
) -> Progression:
    """Draw a song of about `bars` bars.

    An augmented triad keeps its root in the bass: inverted, its notes are another root's.

    Args:
        kind: "major", "minor" (a common progression in such a key) or "random"; None draws it.
        pattern: one of `PATTERNS`, None draws it. tempo_bpm: None draws it from `TEMPO_BPM`.
        silence_s: range of the silence before and after. rest_probability: of a rest in the place of a chord.

    Raises:
        UserError: an unknown kind or pattern, or fewer bars than one.
    """
    rng = np.random.default_rng([seed, 0x50])
    # All three are drawn, so that stating one does not change the rest of the song.
    drawn = str(rng.choice(["major", "minor", "random"], p=[0.3, 0.2, 0.5])), str(rng.choice(PATTERNS))
    kind, pattern, tempo = kind or drawn[0], pattern or drawn[1], float(rng.uniform(*TEMPO_BPM))
    tempo = tempo if tempo_bpm is None else float(tempo_bpm)
    for name, value, choices in (("kind", kind, (*COMMON, "random")), ("pattern", pattern, PATTERNS)):
        if value not in choices:
            raise UserError(f"{name}={value!r} must be one of {', '.join(choices)}")
    if bars < 1 or tempo <= 0:
        raise UserError(f"bars={bars} and tempo_bpm={tempo:g} must be positive")
    tonic = int(rng.integers(12))
    degrees = COMMON[kind][rng.integers(len(COMMON[kind]))] if kind != "random" else ()
    time = float(rng.uniform(*silence_s))
    chords = [PlannedChord(0.0, time)] if time > 0 else []
    beats_left, position, before = bars * BEATS_A_BAR, 0, None
    while beats_left > 0:
        beats = int(rng.choice(BEATS, p=_BEAT_WEIGHTS))
        beats = max(length for length in BEATS if length <= min(beats, beats_left))
        end = time + beats * 60 / tempo
        if before is not None and rng.random() < rest_probability:
            chords.append(PlannedChord(time, end))
        else:
            if degrees:
                step, chord_type = degrees[position % len(degrees)]
                root, position = root_index(tonic + step), position + 1
            else:
                root, chord_type = before or (0, 0)
                while (root, chord_type) == (before or (0, 0)):
                    root, chord_type = int(rng.integers(12)), int(rng.integers(4))
            before = root, chord_type
            voicing = str(rng.choice(VOICINGS, p=[0.4, 0.2, 0.15, 0.1, 0.15]))
            if chord_type == 3 and voicing in ("inv1", "inv2"):
                voicing = "root"
            notes = chord_notes(root, chord_type, int(rng.choice([3, 4])), voicing, rng)
            chords.append(PlannedChord(time, end, root, chord_type, voicing, tuple(notes)))
        time, beats_left = end, beats_left - beats
    tail = float(rng.uniform(*silence_s))
    if tail > 0:
        chords.append(PlannedChord(time, time + tail))
    key = key_name(root_index(tonic), kind) if degrees else None
    return Progression(tuple(chords), tempo, pattern, key, seed)


def render_progression(progression: Progression, bank: NoteBank) -> np.ndarray:
    """The song as the bank's instrument plays it: float32 (samples,) at 16 kHz, peak 0.7.

    Chords out of reach are moved by octaves. Raises UserError if the instrument's range is narrower than a chord.
    """
    rng = np.random.default_rng([progression.seed, 0x51])
    out = np.zeros(round(progression.duration_s * SAMPLE_RATE), dtype=np.float32)
    for chord in progression.chords:
        if chord.root is None:
            continue
        octaves = (0, 12, -12, 24, -24)
        shift = next((s for s in octaves if bank.low <= chord.notes[0] + s and chord.notes[-1] + s <= bank.high), None)
        if shift is None:
            reach = f"{bank.name} plays {bank.low} to {bank.high}"
            raise UserError(f"{reach}, too few notes for {chord.notes}; choose another")
        notes = [note + shift for note in chord.notes]
        velocity = rng.uniform(55, 105)
        decay = np.exp(-1 / (rng.uniform(0.02, 0.08) * SAMPLE_RATE))
        for time, until, struck in _strokes(chord, notes, progression):
            for note in struck:
                layer, gain = bank.stroke(note, float(np.clip(velocity + rng.normal(0, 7), 5, 127)))
                start = (time + rng.uniform(0, 0.012)) * SAMPLE_RATE
                first = int(start)
                # A view from the stroke on: the note's own samples are few in a song of minutes.
                view = out[first : first + bank.notes.shape[-1] + 2]
                release = max(until * SAMPLE_RATE - first, 1.0)
                mix_note(view, bank.notes[note - bank.first, layer], gain, start - first, 1.0, release, decay)
    peak = float(np.abs(out).max())
    return out * np.float32(0.7 / peak) if peak > 0 else out


def _strokes(chord: PlannedChord, notes: list[int], progression: Progression):
    """(time, release, notes) of every stroke of a chord, in seconds."""
    beat = 60 / progression.tempo_bpm
    if progression.pattern == "broken":
        n = max(1, round((chord.end_s - chord.start_s) / (beat / 2)))
        order = notes + notes[-2:0:-1]
        for k in range(n):
            time = chord.start_s + k * beat / 2
            note = order[k % len(order)]
            again = next((j for j in range(k + 1, n) if order[j % len(order)] == note), None)
            yield time, chord.end_s if again is None else chord.start_s + again * beat / 2, [note]
        return
    every = {"held": BEATS_A_BAR, "halves": 2, "beats": 1}[progression.pattern] * beat
    for k in range(max(1, round((chord.end_s - chord.start_s) / every))):
        time = chord.start_s + k * every
        yield time, min(time + every, chord.end_s), notes


def truth(progression: Progression) -> tuple[np.ndarray, list[str]]:
    """The right answer: intervals (n, 2) in seconds and their chord symbols, equal neighbours merged."""
    intervals: list[list[float]] = []
    symbols: list[str] = []
    for chord in progression.chords:
        if symbols and symbols[-1] == chord.symbol:
            intervals[-1][1] = chord.end_s
        else:
            intervals.append([chord.start_s, chord.end_s])
            symbols.append(chord.symbol)
    return np.array(intervals), symbols
