"""Songs to train on: bands that play known chords, cut into rows of 4 s.

`arrange` makes songs up; `core.data.midi_songs` reads others. `SongRenderer` draws instruments from the note banks and
plays the tracks in any key, a little faster or slower, with drums, a voice, rooms and noise.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from triadbench.core.constants import CLIP_SAMPLES, CLIP_SECONDS, SAMPLE_RATE
from triadbench.core.models.chords import NO_CHORD, root_index, root_pitch_class
from triadbench.core.models.spelling import UNKNOWN, chord_name, harte, read_chord, read_harte
from triadbench.core.models.vocabulary import QUALITIES, Chord
from triadbench.core.render import negatives
from triadbench.core.render.chords import STYLES, Renderer
from triadbench.core.render.codecs import lossy
from triadbench.core.render.fretboard import fingerings
from triadbench.core.render.mixture import QUALITY_WEIGHTS, STRINGED, voiced
from triadbench.core.render.note_banks import NoteBank, mix_note

SONG_ROWS = 16
SECONDS = SONG_ROWS * CLIP_SECONDS
"""Of a song that are played."""
Note = tuple[float, float, int, float]
"""When a key goes down and up, in seconds; MIDI number and velocity."""
_STRETCH, _SHIFT = (0.85, 1.2), range(-5, 7)
_GAP_S, _LOW = 0.02, 36
_PROGRESSIONS = """
C G Am F, Am F C G, C Am Dm G, F G Em Am, C G/B Am7 F, C G/B Am C/G F C/E Dm7 G7, Cadd9 Em7 Fmaj7 Gsus4
C Csus2 F Fsus2 Am7 Gsus4 G, Csus4 C Gsus4 G Am7 F6, C Caug C6 C7 F Fm C/G G7, Fmaj7 C/E Dm7 C Bb F/A Gsus4 G
Am AmM7 Am7 Am6 Fmaj7 Dm7 Esus4 E7, Am G F E7, Am E/G# C/G D/F# F C/E Bdim E7, C5 G5 A5 F5, C Bb F C, C F/C G/C C
Dm7 G7 Cmaj7 C6, Cmaj7 A7 Dm7 G7 Em7 A7 Dm7 G7, Bm7b5 E7 AmM7 Am6, Dm7 G7 Cmaj7 Fmaj7 Bm7b5 E7 Am7 Am6
Cmaj7 C#dim7 Dm7 D#dim7 Em7 A7 Dm7 G7, Cmaj7 C7 Fmaj7 Fm6 Em7 Ebdim7 Dm7 G7, Cm7 F7 Bbmaj7 Ebmaj7 Am7b5 D7 Gm6 G7
C7 C7 C7 C7 F7 F7 C7 C7 G7 F7 C7 G7, C7 F7 C7 C7 F7 F#dim7 C7/G A7 Dm7 G7 C7 G7, Cm7 Cm7 Cm7 Fm7 Fm7 Cm7 Ab7 G7
"""
"""Pop, jazz and blues in C major or A minor, to be moved to other keys."""


@functools.lru_cache(maxsize=1 << 13)
def transposed(label: str, semitones: int) -> str:
    """A label in Harte's syntax, so many semitones up; what the table of qualities lacks becomes the nearest."""
    chord = None if label == UNKNOWN else read_harte(label)
    return label if chord is None else _label(_moved(chord, semitones))


def _moved(chord: Chord, semitones: int) -> Chord:
    bass = None if chord.bass is None else (chord.bass + semitones) % 12
    return Chord((chord.root + semitones) % 12, chord.quality, bass)


def _label(chord: Chord) -> str:
    return harte(chord_name(chord.root, chord.quality, bass=chord.bass))


def _bass(chord: Chord) -> int:
    return root_pitch_class(chord.root if chord.bass is None else chord.bass)


@dataclass(frozen=True)
class Song:
    """Who plays what, and the chords.

    Attributes:
        tracks: notes by role: "comping" or "guitar" and, where the song has them, "bridge", "melody", "bass".
        chords: stretches in Harte's syntax, by time. beats: time in seconds and position in the bar, from 1.
    """

    name: str
    tracks: dict[str, list[Note]]
    chords: list[tuple[float, float, str]]
    beats: list[tuple[float, int]]

    def excerpt(self, start_s: float, stretch: float = 1.0, shift: int = 0) -> Song:
        """`SECONDS` from `start_s` on, all times `stretch` as long, `shift` semitones up; "N" where no chord is."""

        def at(time_s: float) -> float:
            return (time_s - start_s) * stretch

        chords, time = [], 0.0
        for begin, until, label in [*self.chords, (np.inf, np.inf, NO_CHORD)]:
            begin, until = min(max(at(begin), time), SECONDS), min(at(until), SECONDS)
            if begin - time > _GAP_S:
                chords.append((time, begin, NO_CHORD))
                time = begin
            if until > time:
                chords.append((time, until, transposed(label, shift)))
                time = until
        tracks = {
            role: [(at(a), at(b), midi + shift, v) for a, b, midi, v in notes if at(b) > 0 and at(a) < SECONDS]
            for role, notes in self.tracks.items()
        }
        return Song(self.name, tracks, chords, [(at(beat), k) for beat, k in self.beats if 0 <= at(beat) < SECONDS])


def arrange(rng: np.random.Generator, name: str) -> Song:
    """A song of ours: a progression in a key, comped, half of the time over a bass line, and a melody to it.

    A label says what comping and bass play while it holds, and which note is the lowest.
    """
    beat, meter = 60 / rng.uniform(71, 150), 4 if rng.random() < 0.8 else 3
    style = str(rng.choice(("held", "halves", "beats", "eighths", "broken", "strummed"), p=(0.15, *[0.17] * 5)))
    eighths = np.arange(2 * meter)
    grids = {"held": eighths < 0, "halves": eighths % 4 == 0, "beats": eighths % 2 == 0, "broken": eighths >= 0}
    grid = grids.get(style, rng.random(2 * meter) < 0.6)
    sustain, pushed = rng.choice((0.0, 0.0, 0.4)) * beat, 0.5 * (rng.random() < 0.3)
    has_bass, bass_style = rng.random() < 0.5, str(rng.choice(("held", "beats", "fifths", "walking")))
    role, progression = "guitar" if style == "strummed" else "comping", _progression(rng)
    pedal = progression[0].root if has_bass and rng.random() < 0.1 else None
    tracks: dict[str, list[Note]] = {role: [], "melody": [], "bass": []}
    starts = [0]  # of the chords, in beats; half a beat early where they are pushed
    while starts[-1] * beat < SECONDS / _STRETCH[0]:
        starts.append(starts[-1] + int(rng.choice((meter, meter, 2 * meter, 2 if meter == 4 else 3))))
    times = [(start - 0.5 * (start > 0 and rng.random() < pushed)) * beat for start in starts]
    chords, tone = [], 67
    for (start, end), (chord, following) in zip(
        itertools.pairwise(times), itertools.pairwise(itertools.cycle(progression)), strict=False
    ):
        tones = [(root_pitch_class(chord.root) + step) % 12 for step in QUALITIES[chord.quality].semitones]
        is_rest = rng.random() < 0.03
        if not is_rest:
            notes = _voicing(chord, role == "guitar", has_bass, rng)
            chord = chord._replace(bass=root_index(min(notes))) if not has_bass else chord
            chord = chord._replace(bass=pedal) if pedal is not None else chord
            tracks[role] += _strokes(notes, _onsets(start, end, beat, grid), end + sustain, style, rng)
            if has_bass:
                onsets = _onsets(start, end, beat, grids["held" if bass_style == "held" else "beats"])
                line = _bass_line(chord, following, len(onsets), bass_style, rng)
                tracks["bass"] += [(a, b, n, 90.0) for a, b, n in zip(onsets, [*onsets[1:], end], line, strict=True)]
        chords.append((start, end, NO_CHORD if is_rest else _label(chord)))
        while start < end - beat / 4 and not is_rest:  # melody: the chord's notes near the last one, some passing ones
            length = float(rng.choice((0.5, 1, 1, 1.5, 2))) * beat
            if len(tones) > 2 and rng.random() < 0.25:
                tone, length = tone + int(rng.choice((-2, -1, 1, 2))), beat / 2
            else:
                near = sorted((n for n in range(58, 84) if n % 12 in tones), key=lambda note: abs(note - tone))
                tone = near[rng.integers(4)]
            if rng.random() < 0.85:
                tracks["melody"].append((start, min(start + length, end), tone, rng.uniform(60, 110)))
            start += length
    return Song(name, tracks, chords, [(k * beat, k % meter + 1) for k in range(starts[-1])])


def _progression(rng: np.random.Generator) -> list[Chord]:
    """Common chords in a key, some of them in another colour; or chords in no order, some of them inverted."""
    chords = []
    if rng.random() < 0.25:
        for _ in range(8):
            quality = int(rng.choice(len(QUALITY_WEIGHTS), p=QUALITY_WEIGHTS / QUALITY_WEIGHTS.sum()))
            root, step = int(rng.integers(12)), int(rng.choice(QUALITIES[quality].semitones))
            chords.append(Chord(root, quality, (root + step) % 12 if step and rng.random() < 0.3 else None))
        return chords
    key, progressions = int(rng.integers(12)), _PROGRESSIONS.strip().replace("\n", ", ").split(", ")
    for name in progressions[rng.integers(len(progressions))].split():
        chord = read_chord(name)
        assert chord is not None
        if rng.random() < 0.15:
            triads = (QUALITIES[chord.quality].triad, None)
            chord = Chord(chord.root, int(rng.choice([q for q in range(15) if QUALITIES[q].triad in triads])))
        chords.append(_moved(chord, key))
    return chords


def _voicing(chord: Chord, on_guitar: bool, has_bass: bool, rng: np.random.Generator) -> list[int]:
    """MIDI numbers; without a bass player the chord's bass is the lowest, where a hand can reach it."""
    root, steps, bass = root_pitch_class(chord.root), QUALITIES[chord.quality].semitones, _bass(chord)
    if on_guitar:
        ways = fingerings(root, steps)
        ways = (not has_bass and tuple(way for way in ways if min(way) % 12 == bass)) or ways
        return list(ways[rng.integers(len(ways))])
    notes = voiced(root, steps, rng)
    if not has_bass and (chord.bass is not None or rng.random() < 0.7):
        notes = sorted({*notes, notes[0] - (notes[0] - bass) % 12})
    up = 12 * max(0, -((notes[0] - _LOW) // 12))
    return [note + up for note in notes]


def _onsets(start: float, end: float, beat: float, grid: np.ndarray) -> list[float]:
    """The start, and the eighths until `end` where `grid`, of the eighths of a bar, is true."""
    first, last = int(2 * start / beat + 1e-3) + 1, int(np.ceil(2 * end / beat - 1e-3))
    return [start, *(k * beat / 2 for k in range(first, last) if grid[k % len(grid)])]


def _strokes(notes: list[int], onsets: list[float], end: float, style: str, rng: np.random.Generator) -> list[Note]:
    """What comping plays: all notes on every onset, or one after the other, and at first those that have no time."""
    velocity, struck = rng.uniform(55, 105), []
    if style == "broken":
        order = [*notes, *notes[-2:0:-1]]
        struck = [(time, end, order[k % len(order)]) for k, time in enumerate(onsets)]
        struck += [(onsets[0], end, note) for note in notes[len(onsets) :]]
    for time, until in zip(onsets, [*onsets[1:], end], strict=True) if style != "broken" else ():
        spread = rng.uniform(0.005, 0.05) / len(notes) if style == "strummed" else 0.0
        ordered = notes[::-1] if style == "strummed" and rng.random() < 0.4 else notes
        struck += [(time + spread * k, until, note) for k, note in enumerate(ordered)]
    return [(a, b, note, float(np.clip(velocity + rng.normal(0, 7), 20, 120))) for a, b, note in struck]


def _bass_line(chord: Chord, following: Chord, n: int, style: str, rng: np.random.Generator) -> list[int]:
    """`n` notes; the first, or under an inverted chord each, is the chord's lowest."""
    line, steps = [_LOW + _bass(chord)] * n, QUALITIES[chord.quality].semitones
    if chord.bass not in (None, chord.root):
        return line
    if style == "fifths":
        line = [note + 7 * (k % 2 and 7 in steps) for k, note in enumerate(line)]
    elif style == "walking":
        line[1:] = [note + int(rng.choice(steps)) for note in line[1:]]
        if n > 2:  # next to the following chord's
            line[-1] = _LOW + _bass(following) + int(rng.choice((-1, 1, 2)))
    return line


class SongRenderer:
    """Plays songs; what comes out depends on the seed, the number and the song alone."""

    BESIDE = {"bridge": (0.5, -12, 2), "melody": (0.5, -10, 3), "bass": (1.0, -10, 3)}
    """How often each is heard beside the comping, and the range of its level over it, in dB."""

    def __init__(self, banks: Sequence[NoteBank], weights: Sequence[float], seed: int):
        self.banks, self.seed, self._odds = banks, seed, np.asarray(weights, dtype=float)
        self._stringed = np.array([bank.family in STRINGED for bank in banks])
        self._renderer = Renderer(banks, STYLES["wild"], seed)

    def rows(self, song: Song, number: int) -> list[tuple[np.ndarray, list[tuple[float, float, str]]]]:
        """`SONG_ROWS` rows in order: float32 (64000,) in [-1, 1], and the chords that sound in it."""
        rng = np.random.default_rng([self.seed, 0x53, number])
        stretch, shift = rng.uniform(*_STRETCH), int(rng.choice(_SHIFT))
        song = song.excerpt(rng.uniform(0, max(song.chords[-1][1] - SECONDS / stretch, 0.01)), stretch, shift)
        rows, waveform = [], self.perform(song, rng)
        for k, row in enumerate(waveform.reshape(SONG_ROWS, CLIP_SAMPLES)):
            within = [(max(a - 4 * k, 0.0), min(b - 4 * k, CLIP_SECONDS), label) for a, b, label in song.chords]
            chords = [(round(a, 3), round(b, 3), label) for a, b, label in within if b - a > 0.05]
            if np.abs(row).max() < 1e-3:
                chords = [(0.0, CLIP_SECONDS, NO_CHORD)]
            row = self._renderer.record(row, rng, 0.04)
            rows.append((lossy(row, rng) if rng.random() < 0.15 else row, chords))
        return rows

    def perform(self, song: Song, rng: np.random.Generator) -> np.ndarray:
        """The band, float32 (samples,) of `SECONDS`, as it sounds before it is recorded."""
        tuning, role = rng.uniform(*STYLES["wild"].tuning_cents), "guitar" if "guitar" in song.tracks else "comping"
        out = self._play(song.tracks.get(role, []), role, tuning, rng)
        level, parts = max(_rms(out), 1e-5), list[tuple[np.ndarray, int, int]]()
        for role, (probability, low_db, high_db) in self.BESIDE.items():
            notes = song.tracks.get(role, [])
            if role == "bass" and not notes and rng.random() < 0.5:
                notes = _roots(song, int(rng.choice((1, 1, 2))))
            if notes and rng.random() < probability:
                parts.append((self._play(notes, role, tuning, rng), low_db, high_db))
        first = next((k for k, (_, position) in enumerate(song.beats) if position == 1), None)
        if first is not None and rng.random() < 0.45:
            times = np.array([time for time, _ in song.beats[first:]]) * SAMPLE_RATE
            sixteenths = np.interp(np.arange(4 * len(times)) / 4, np.arange(len(times)), times)
            a_bar = 16 if any(position == 4 for _, position in song.beats) else 12
            parts.append((negatives.drums(rng, len(out), sixteenths, a_bar), -10, 5))
        if rng.random() < 0.1:
            parts.append((np.tile(negatives.voice(rng, len(out) // 4, sung=True), 4), -12, 0))
        for part, low_db, high_db in parts:
            out += part * np.float32(level / max(_rms(part), 1e-6) * 10 ** (rng.uniform(low_db, high_db) / 20))
        return out

    def _play(self, notes: Sequence[Note], role: str, tuning: float, rng: np.random.Generator) -> np.ndarray:
        """A track on an instrument that is drawn: float32 (samples,)."""
        odds = self._odds * self._stringed if role == "guitar" and self._stringed.any() else self._odds
        bank = self.banks[int(rng.choice(len(self.banks), p=odds / odds.sum()))]
        octave = 12 * int(rng.choice((0, 0, 1, -1))) if role == "melody" else 0
        hold = float(rng.choice((0.0, 0.05, 0.3))) if role == "comping" else 0.0
        tuning, decay = tuning + rng.uniform(-5, 5), np.exp(-1 / (0.06 * SAMPLE_RATE))
        out = np.zeros(round(SECONDS * SAMPLE_RATE), dtype=np.float32)
        for start_s, end_s, midi, velocity in notes:
            note = midi + octave  # by octaves into the instrument's range
            note += 12 * (max(0, -((note - bank.low) // 12)) - max(0, -((bank.high - note) // 12)))
            layer, gain = bank.stroke(note, velocity)
            first, release = max(int(start_s * SAMPLE_RATE), 0), (end_s + hold) * SAMPLE_RATE
            view, start = out[first : int(release) + SAMPLE_RATE // 2], start_s * SAMPLE_RATE - first
            step = 2 ** ((tuning + rng.normal(0, 1)) / 1200)
            mix_note(view, bank.notes[note - bank.first, layer], gain, start, step, release - first, decay)
        return out


def _roots(song: Song, every: int) -> list[Note]:
    """A simple bass: the lowest note of each chord, on every beat or every second."""
    times, line = np.array([time for time, _ in song.beats[::every]]), []
    for start, end, label in song.chords:
        if label != UNKNOWN and (chord := read_harte(label)) is not None:
            on = times[(times >= start - _GAP_S) & (times < end - 0.05)]
            line += [(t, t + 0.4, _LOW + _bass(chord), 90.0) for t in on.tolist()]
    return line


def _rms(waveform: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(waveform))))
