"""Data sets without a download: chords mixed from note banks, under the protocol and names of Audio Piano Triads.

`plan` lists the clips (labels, recording, bank), `chord_notes` says which notes make a chord, and `Renderer.clip` mixes
one clip. Each has a random generator of its own, seeded by (seed, number of the clip), so a set's bytes do not depend
on how many processes made it nor in which order.
"""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from triadbench.core.constants import CLIP_SAMPLES, SAMPLE_RATE
from triadbench.core.errors import UserError
from triadbench.core.models.chords import TYPE_INTERVALS, VOICINGS, ClipName, root_pitch_class
from triadbench.core.render.amplifier import amplify, random_settings
from triadbench.core.render.note_banks import LAYERS, NoteBank, mix_note
from triadbench.core.render.rooms import Filter, room_response, tone_curve, with_noise

_VOLUME_VELOCITY = {"p": LAYERS[0], "m": LAYERS[1], "f": LAYERS[2]}
_FILTERS = 96

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


def _varied(clean: Any, **styles: Any) -> Any:
    """A setting of `Style`: its value in the style "clean", and in others that differ by name."""
    return field(default=clean, metadata=styles)


@dataclass(frozen=True)
class Style:
    """How clips of a set vary. Ranges are (low, high), drawn evenly; probabilities lie in 0-1.

    Attributes:
        onset_ms: silence before the chord. hold_s: time until the keys are released.
        late_ms, late_probability: how far into the sounding chord a clip begins, and how often.
        hands_ms: spread of the keys of one chord. strum_ms: time from lowest to highest string, for guitars.
        tuning_cents: detuning of the whole instrument. note_cents: of single notes, standard deviation.
        level_db: peak of the clip under full scale.
        room_probability, rt60_s, direct_db: room, as in `core.render.rooms.room_response`.
        tone_db: depth of the recording's tone curve (with the room's probability, and alone with half of it).
        noise_probability, snr_db: noise, signal over noise in power.
        amp_probability: how often the crunch amplifier is in between.
        voicings: weights of `VOICINGS` in order, for sets of random voicings.
    """

    onset_ms: tuple[float, float] = _varied((0, 400), dry=(0, 0), room=(0, 320), wild=(0, 700))
    late_ms: tuple[float, float] = _varied((0, 0), wild=(50, 1200))
    late_probability: float = _varied(0.0, wild=0.2)
    hands_ms: tuple[float, float] = _varied((0, 25), wild=(0, 50))
    strum_ms: tuple[float, float] = _varied((10, 60), wild=(5, 90))
    hold_s: tuple[float, float] = _varied((2.9, 3.1), wild=(0.7, 4.0))
    tuning_cents: tuple[float, float] = _varied((-3, 3), dry=(0, 0), room=(-10, 10), wild=(-35, 35))
    note_cents: float = _varied(0.5, dry=0.0, wild=2.0)
    level_db: tuple[float, float] = _varied((-9, -1), room=(-24, -0.5), wild=(-30, 0))
    room_probability: float = _varied(0.0, room=1.0, wild=0.6)
    rt60_s: tuple[float, float] = _varied((0.15, 0.8), room=(0.3, 0.6), wild=(0.1, 1.1))
    direct_db: tuple[float, float] = _varied((-4, 10), room=(-3, 6), wild=(-8, 12))
    tone_db: float = _varied(0.0, wild=9.0)
    noise_probability: float = _varied(0.0, room=1.0, wild=0.7)
    snr_db: tuple[float, float] = _varied((15, 40), room=(20, 30), wild=(8, 45))
    amp_probability: float = _varied(0.0, wild=0.06)
    voicings: tuple[float, ...] = _varied((1, 0, 0, 0, 0), wild=(0.38, 0.14, 0.14, 0.14, 0.2))


STYLES = {
    name: Style(**{setting.name: setting.metadata.get(name, setting.default) for setting in fields(Style)})
    for name in ("dry", "clean", "room", "wild")
}
"""Named styles: without variation; as the original was played; with room and noise; and everything, to train on."""


@dataclass(frozen=True)
class PlannedClip:
    """A clip to be rendered: its name, the bank that plays it, and the recording that it is a variant of."""

    index: int
    name: ClipName
    bank: int
    recording: int


def plan(
    n: int,
    banks: Sequence[NoteBank],
    *,
    seed: int,
    variants: int = 1,
    octaves: Sequence[int] = (3, 4, 5),
    voicings: Sequence[str] | None = ("root",),
    voicing_weights: Sequence[float] = (1, 0, 0, 0, 0),
    weights: Sequence[float] | None = None,
) -> list[PlannedClip]:
    """Spread `n` clips evenly over voicing, octave, root, type and volume, in shuffled order of the keys.

    Args:
        banks: instruments; each recording is played by one of them, drawn by `weights` (None: equal) among those whose
            range holds the chord.
        variants: clips of each recording (the same hands and instrument, recorded anew), numbered in a row.
        octaves: of the root, 4 starts at middle C.
        voicings: of `VOICINGS`, evenly; None draws each recording's by `voicing_weights`, one for each of `VOICINGS`.

    Raises:
        UserError: an unknown voicing, or a range that no bank can play.
    """
    unknown = set(voicings or ()) - set(VOICINGS)
    if unknown:
        raise UserError(f"unknown voicing {', '.join(sorted(unknown))}; choose from {', '.join(VOICINGS)}")
    if n < 1 or variants < 1:
        raise UserError(f"a set of {n} clips with {variants} variants each: both must be at least 1")
    keys = list(itertools.product(voicings or (None,), octaves, range(12), range(4), "fmp"))
    rng = np.random.default_rng([seed, 0xB4])
    probabilities = np.ones(len(banks)) if weights is None else np.asarray(weights, dtype=float)
    playable = {}
    for octave in octaves:
        # Two octaves above and one below the root hold every voicing; the edges of narrow instruments are tried anew.
        bottom = 12 * (octave + 1)
        fits = np.array([bank.low <= bottom and bank.high >= bottom + 19 for bank in banks])
        if not fits.any():
            raise UserError(f"octave {octave}: none of the instruments plays there; choose other octaves")
        playable[octave] = np.where(fits, probabilities, 0) / np.where(fits, probabilities, 0).sum()
    clips: list[PlannedClip] = []
    examples: dict[tuple, int] = {}
    for recording in itertools.count():
        if recording % len(keys) == 0:
            order = rng.permutation(len(keys))
        key = keys[order[recording % len(keys)]]
        voicing, octave, root, chord_type, volume = key
        if voicing is None:
            voicing = str(rng.choice(VOICINGS, p=np.asarray(voicing_weights) / np.sum(voicing_weights)))
            key = (voicing, *key[1:])
        bank = int(rng.choice(len(banks), p=playable[octave]))
        for _ in range(variants):
            if len(clips) == n:
                return clips
            example = examples[key] = examples.get(key, -1) + 1
            name = ClipName(root, chord_type, octave, volume, example, voicing)
            clips.append(PlannedClip(len(clips), name, bank, recording))
    raise AssertionError("the loop above ends by returning")


def root_midi(root: int, octave: int) -> int:
    """MIDI number of a root; octave 4 starts at middle C (60)."""
    return 12 * (octave + 1) + root_pitch_class(root)


def chord_notes(root: int, chord_type: int, octave: int, voicing: str, rng: np.random.Generator) -> list[int]:
    """MIDI numbers of a chord, lowest first.

    Args:
        root, chord_type: class indices. octave: of the root in root position. rng: chooses among the ways to voice.
        voicing: "root" (close, as in the original), "inv1", "inv2" (the lowest one or two notes raised an octave),
            "open" (an inner note raised an octave, or the bass lowered), "doubled" (root in the bass, one to three
            chord notes doubled in other octaves), "guitar" (a guitar shape).
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


class Renderer:
    """Mixes planned clips of the set `seed` from banks (by the number that each clip carries) in a style."""

    def __init__(self, banks: Sequence[NoteBank], style: Style, seed: int):
        self.banks, self.style, self.seed = banks, style, seed

    def clip(self, planned: PlannedClip) -> np.ndarray:
        """float32 (64000,) in [-1, 1]: the chord as it was played and recorded."""
        style, bank = self.style, self.banks[planned.bank]
        # The hands belong to the recording, and all its variants share them; the rest belongs to the clip.
        hands = np.random.default_rng([self.seed, 1, planned.recording])
        rng = np.random.default_rng([self.seed, 2, planned.index])
        return self.record(self._play(bank, planned.name, hands, rng), rng, style.amp_probability)

    def record(self, waveform: np.ndarray, rng: np.random.Generator, amp_probability: float) -> np.ndarray:
        """What was played (64000,) as the style's amplifier, room, noise and level make it, in [-1, 1]."""
        style = self.style
        if rng.random() < amp_probability:
            waveform = amplify(waveform, SAMPLE_RATE, random_settings(rng))
        waveform = self._record(waveform, rng)
        if rng.random() < style.noise_probability:
            waveform = with_noise(rng, waveform, SAMPLE_RATE, style.snr_db)
        peak = float(np.abs(waveform).max())
        level = 10 ** (rng.uniform(*style.level_db) / 20)
        return waveform * np.float32(level / peak) if peak > 0 else waveform

    def _play(self, bank: NoteBank, name: ClipName, hands: np.random.Generator, rng: np.random.Generator) -> np.ndarray:
        voicing = name.voicing
        assert name.octave is not None and name.volume is not None  # every planned clip states both
        if voicing == "doubled" and bank.family in ("guitar", "plucked") and hands.random() < 0.7:
            voicing = "guitar"
        for attempt in range(20):
            notes = chord_notes(name.root, name.type, name.octave, voicing, hands)
            if bank.low <= notes[0] and notes[-1] <= bank.high:
                break
            if attempt == 10:
                voicing = name.voicing
        else:
            # Only at the edge of a narrow instrument: the same chord an octave nearer to its middle.
            shift = 12 if notes[0] < bank.low else -12
            notes = [note + shift for note in notes]
            if notes[0] < bank.low or notes[-1] > bank.high:
                notes = chord_notes(name.root, name.type, name.octave, "root", hands)  # `plan` saw to it that this fits
        return self.strike(bank, notes, _VOLUME_VELOCITY[name.volume], hands, rng)[0]

    def strike(
        self,
        bank: NoteBank,
        notes: Sequence[int],
        velocity: float,
        hands: np.random.Generator,
        rng: np.random.Generator,
        uneven_db: float = 0.0,
    ) -> tuple[np.ndarray, float, float]:
        """Notes played together once, as the style says: float32 (64000,), and when they begin and are released, in
        seconds. `velocity` is MIDI's, varied by the hands; `rng` draws what belongs to the clip and not to the hands.
        `uneven_db` is the standard deviation of the notes' levels beside that.
        """
        style, out = self.style, np.zeros(CLIP_SAMPLES, dtype=np.float32)
        start = rng.uniform(*style.onset_ms) * SAMPLE_RATE / 1000
        if rng.random() < style.late_probability:
            start = -rng.uniform(*style.late_ms) * SAMPLE_RATE / 1000
        spread = hands.uniform(*style.hands_ms)
        delays = hands.uniform(0, 1, len(notes)) * spread
        if bank.family in ("guitar", "plucked"):
            delays = np.linspace(0, hands.uniform(*style.strum_ms), len(notes))
            delays = delays[::-1] if hands.random() < 0.3 else delays
        hold = hands.uniform(*style.hold_s) * SAMPLE_RATE
        decay = np.exp(-1 / (hands.uniform(0.02, 0.12) * SAMPLE_RATE))
        tuning = hands.uniform(*style.tuning_cents)
        velocity = velocity + hands.uniform(-17, 17)
        for note, delay in zip(notes, delays, strict=True):
            layer, gain = bank.stroke(note, np.clip(velocity + hands.normal(0, 7), 5, 127))
            step = 2 ** ((tuning + hands.normal(0, style.note_cents)) / 1200)
            if uneven_db:
                gain = gain * 10 ** (min(hands.normal(0, uneven_db), 2 * uneven_db) / 20)
            sound = bank.notes[note - bank.first, layer]
            mix_note(out, sound, gain, start + delay * SAMPLE_RATE / 1000, step, start + hold, decay)
        return out, start / SAMPLE_RATE, (start + hold) / SAMPLE_RATE

    def _record(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        draw, pick, room = rng.random(), int(rng.integers(_FILTERS)), self.style.room_probability
        if draw < room or (self.style.tone_db > 0 and draw < room + (1 - room) / 2):
            return _filters(self.seed, self.style, draw < room)[pick](waveform)
        return waveform


@functools.lru_cache(maxsize=4)
def _filters(seed: int, style: Style, with_room: bool) -> list[Filter]:
    """The set's rooms and microphones, made once: drawing a room costs more than playing in it."""
    rng = np.random.default_rng([seed, 3, with_room])
    filters = []
    for _ in range(_FILTERS):
        response = np.ones(1, dtype=np.float32)
        if with_room:
            response = room_response(rng, SAMPLE_RATE, rng.uniform(*style.rt60_s), rng.uniform(*style.direct_db))
        gains = None
        if style.tone_db > 0:
            gains = functools.partial(tone_curve, np.random.default_rng(rng.integers(1 << 32)), depth_db=style.tone_db)
        filters.append(Filter(response, CLIP_SAMPLES, SAMPLE_RATE, gains))
    return filters
