"""Songs to train on: bands that play known chords, cut into rows of 4 s.

`arrange` makes songs up; `core.data.midi_songs` reads others. `SongRenderer` draws instruments for their tracks from
the note banks, plays them in any key and a little faster or slower, adds drums, a voice, rooms and noise.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

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
_STRETCH, _SHIFT = (0.85, 1.2), (-5, 6)
_CODEC_PROBABILITY, _AMP_PROBABILITY = 0.15, 0.04
_GAP_S, _SHORTEST_S = 0.02, 0.05
_SILENCE = 1e-3
_LOW = 36
PROGRESSIONS = tuple(
    line.split()
    for line in (
        # Pop, folk and rock.
        "C G Am F",
        "Am F C G",
        "C Am Dm G",
        "F G Em Am",
        "C G/B Am7 F",
        "C G/B Am C/G F C/E Dm7 G7",
        "Cadd9 Em7 Fmaj7 Gsus4",
        "C Csus2 F Fsus2 Am7 Gsus4 G",
        "Csus4 C Gsus4 G Am7 F6",
        "C Caug C6 C7 F Fm C/G G7",
        "Fmaj7 C/E Dm7 C Bb F/A Gsus4 G",
        "Am AmM7 Am7 Am6 Fmaj7 Dm7 Esus4 E7",
        "Am G F E7",
        "Am E/G# C/G D/F# F C/E Bdim E7",
        "C5 G5 A5 F5",
        "C Bb F C",
        "C F/C G/C C",
        # Jazz.
        "Dm7 G7 Cmaj7 C6",
        "Cmaj7 A7 Dm7 G7 Em7 A7 Dm7 G7",
        "Bm7b5 E7 AmM7 Am6",
        "Dm7 G7 Cmaj7 Fmaj7 Bm7b5 E7 Am7 Am6",
        "Cmaj7 C#dim7 Dm7 D#dim7 Em7 A7 Dm7 G7",
        "Cmaj7 C7 Fmaj7 Fm6 Em7 Ebdim7 Dm7 G7",
        "Cm7 F7 Bbmaj7 Ebmaj7 Am7b5 D7 Gm6 G7",
        # Blues.
        "C7 C7 C7 C7 F7 F7 C7 C7 G7 F7 C7 G7",
        "C7 F7 C7 C7 F7 F#dim7 C7/G A7 Dm7 G7 C7 G7",
        "Cm7 Cm7 Cm7 Cm7 Fm7 Fm7 Cm7 Cm7 Ab7 G7 Cm7 G7",
    )
)
"""In C major or A minor, to be moved to other keys."""


class Note(NamedTuple):
    """When a key goes down and up, its MIDI number and velocity."""

    start_s: float
    end_s: float
    midi: int
    velocity: float


@functools.lru_cache(maxsize=1 << 13)
def transposed(label: str, semitones: int) -> str:
    """A label in Harte's syntax, so many semitones up; what the table of qualities lacks becomes the nearest."""
    if label == UNKNOWN or (chord := read_harte(label)) is None:
        return label
    return _label(_moved(chord, semitones))


def _moved(chord: Chord, semitones: int) -> Chord:
    bass = None if chord.bass is None else (chord.bass + semitones) % 12
    return Chord((chord.root + semitones) % 12, chord.quality, bass)


def _label(chord: Chord) -> str:
    return harte(chord_name(chord.root, chord.quality, bass=chord.bass))


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
        """The song from `start_s` on, all times `stretch` as long, `shift` semitones up; chords from 0 to `SECONDS`
        without a gap, "N" where there is none."""

        def at(time_s: float) -> float:
            return (time_s - start_s) * stretch

        chords, time = [], 0.0
        for begin, until, label in self.chords:
            begin, until = max(at(begin), time), min(at(until), SECONDS)
            if until <= begin:
                continue
            if begin - time > _GAP_S:
                chords.append((time, begin, NO_CHORD))
                time = begin
            chords.append((time, until, transposed(label, shift)))
            time = until
        if SECONDS - time > _GAP_S:
            chords.append((time, SECONDS, NO_CHORD))
        tracks = {
            role: [Note(at(a), at(b), midi + shift, v) for a, b, midi, v in notes if at(b) > 0 and at(a) < SECONDS]
            for role, notes in self.tracks.items()
        }
        return Song(self.name, tracks, chords, [(at(beat), k) for beat, k in self.beats if at(beat) < SECONDS])


def arrange(rng: np.random.Generator, name: str) -> Song:
    """A song of ours: a progression in a key, comped, half of the time with a bass line, and a melody to it.

    Every label says which notes comping and bass have while it holds, and which is the lowest.
    """
    beat, meter = 60 / rng.uniform(71, 150), 4 if rng.random() < 0.8 else 3
    progression = _progression(rng)
    pushes, sustain = rng.random() < 0.3, rng.choice((0.0, 0.0, 0.4)) * beat
    style = str(rng.choice(("held", "halves", "beats", "eighths", "broken", "strummed"), p=(0.15, *[0.17] * 5)))
    eighths = np.arange(2 * meter)
    mask = {"held": eighths < 0, "halves": eighths % 4 == 0, "beats": eighths % 2 == 0, "broken": eighths >= 0}
    strokes = mask.get(style, rng.random(2 * meter) < 0.6)
    has_bass, bass_style = rng.random() < 0.5, str(rng.choice(("held", "roots", "fifths", "walking")))
    pedal = progression[0].root if has_bass and rng.random() < 0.1 else None
    role = "guitar" if style == "strummed" else "comping"
    tracks: dict[str, list[Note]] = {role: [], "melody": [], **({"bass": []} if has_bass else {})}
    # When each chord begins: on a beat, or half a beat before it.
    lengths, starts = (meter, meter, 2 * meter, 2 if meter == 4 else 3), [0]
    while (starts[-1]) * beat < SECONDS / _STRETCH[0] + 2:
        starts.append(starts[-1] + int(rng.choice(lengths)))
    times = [(start - 0.5 * (k > 0 and pushes and rng.random() < 0.5)) * beat for k, start in enumerate(starts)]
    played = list(itertools.islice(itertools.cycle(progression), len(times)))
    chords, tone = [], 67
    for k, (start, end) in enumerate(itertools.pairwise(times)):
        chord = played[k]
        tones = [(root_pitch_class(chord.root) + step) % 12 for step in QUALITIES[chord.quality].semitones]
        is_rest = rng.random() < 0.03
        if not is_rest:
            notes = _voicing(chord, role == "guitar", has_bass, rng)
            lowest = root_index(notes[0])
            velocity = rng.uniform(55, 105)
            if has_bass:
                lowest = chord.root if chord.bass is None else chord.bass
                lowest = lowest if pedal is None else pedal
                grid = mask["held" if bass_style == "held" else "beats"]
                line = _onsets(start, end, beat, grid)
                bass_notes = _bass_line(chord, lowest, played[k + 1], len(line), bass_style, rng)
                ends = [*line[1:], end]
                tracks["bass"] += [Note(a, b, midi, 90) for a, b, midi in zip(line, ends, bass_notes, strict=True)]
            label = _label(Chord(chord.root, chord.quality, lowest))
            onsets = _onsets(start, end, beat, strokes)
            tracks[role] += _strokes(notes, onsets, end + sustain, style, velocity, rng)
        chords.append((start, end, NO_CHORD if is_rest else label))
        tone = (
            _melody(tracks["melody"], tones, tone, start, end, beat, rng) if not is_rest or rng.random() < 0.3 else tone
        )
    beats = [(k * beat, k % meter + 1) for k in range(starts[-1])]
    return Song(name, tracks, chords, beats)


def _progression(rng: np.random.Generator) -> list[Chord]:
    """Common chords in a key, some of them in another colour; or chords in no order, some of them inverted."""
    if rng.random() < 0.25:
        chords = []
        for _ in range(8):
            quality = int(rng.choice(len(QUALITY_WEIGHTS), p=QUALITY_WEIGHTS / QUALITY_WEIGHTS.sum()))
            root, step = int(rng.integers(12)), int(rng.choice(QUALITIES[quality].semitones))
            chords.append(Chord(root, quality, (root + step) % 12 if step and rng.random() < 0.3 else None))
        return chords
    key = int(rng.integers(12))
    chords = []
    for name in PROGRESSIONS[rng.integers(len(PROGRESSIONS))]:
        chord = read_chord(name)
        assert chord is not None
        if rng.random() < 0.15:
            alike = [
                q for q in range(len(QUALITY_WEIGHTS)) if QUALITIES[q].triad in (QUALITIES[chord.quality].triad, None)
            ]
            chord = Chord(chord.root, int(rng.choice(alike)))
        chords.append(_moved(chord, key))
    return chords


def _voicing(chord: Chord, on_guitar: bool, has_bass: bool, rng: np.random.Generator) -> list[int]:
    """MIDI numbers, lowest first; without a bass player the chord's bass is the lowest, where a hand can reach it."""
    root, steps = root_pitch_class(chord.root), QUALITIES[chord.quality].semitones
    bass = root if chord.bass is None else root_pitch_class(chord.bass)
    if on_guitar:
        ways = fingerings(root, steps)
        over_bass = [way for way in ways if way[0] % 12 == bass]
        ways = tuple(over_bass) if over_bass and not has_bass else ways
        return list(ways[rng.integers(len(ways))])
    notes = voiced(root, steps, rng)
    if not has_bass and (chord.bass is not None or rng.random() < 0.7):
        notes = sorted({*notes, notes[0] - (notes[0] - bass) % 12})
    up = 12 * max(0, -(-(_LOW - notes[0]) // 12))
    return [note + up for note in notes]


def _onsets(start: float, end: float, beat: float, grid: np.ndarray) -> list[float]:
    """The start, and the eighths of a bar until `end` where `grid` (eighths of a bar,) is true."""
    eighth = beat / 2
    first, last = int(start / eighth + 1e-3) + 1, int(np.ceil(end / eighth - 1e-3))
    return [start, *(k * eighth for k in range(first, last) if grid[k % len(grid)])]


def _strokes(
    notes: list[int], onsets: list[float], end: float, style: str, velocity: float, rng: np.random.Generator
) -> list[Note]:
    """What comping plays: all notes on every onset, or one after the other."""
    if style == "broken":
        order = [*notes, *notes[-2:0:-1]]
        late = notes[len(onsets) :]  # there is no time for them
        struck = [(time, end, order[k % len(order)]) for k, time in enumerate(onsets)]
        struck += [(onsets[0], end, note) for note in late]
    else:
        struck = []
        for time, until in zip(onsets, [*onsets[1:], end], strict=True):
            spread = rng.uniform(0.005, 0.05) if style == "strummed" else 0.01
            ordered = notes[::-1] if style == "strummed" and rng.random() < 0.4 else notes
            struck += [(time + spread * k / len(notes), until, note) for k, note in enumerate(ordered)]
    return [Note(a, b, note, float(np.clip(velocity + rng.normal(0, 7), 20, 120))) for a, b, note in struck]


def _bass_line(chord: Chord, lowest: int, following: Chord, n: int, style: str, rng: np.random.Generator) -> list[int]:
    """`n` notes, the first of them `lowest` (a class index)."""
    low = _LOW + root_pitch_class(lowest)
    steps = QUALITIES[chord.quality].semitones
    line = [low] * n
    if lowest != chord.root or style in ("held", "roots"):
        return line
    if style == "fifths":
        return [low + 7 * (k % 2 and 7 in steps) for k in range(n)]
    line[1:] = [low + int(rng.choice(steps)) for _ in line[1:]]
    if n > 2:  # a semitone or two from the next root
        line[-1] = _LOW + root_pitch_class(following.root) + int(rng.choice((-1, 1, 2)))
    return line


def _melody(
    track: list[Note], tones: list[int], tone: int, start: float, end: float, beat: float, rng: np.random.Generator
) -> int:
    """Add notes from `start` to `end`, near the last one, `tone`: the chord's, with passing ones. Returns the last."""
    while start < end - beat / 4:
        length = float(rng.choice((0.5, 1, 1, 1.5, 2))) * beat
        if len(tones) > 2 and rng.random() < 0.25:
            tone, length = tone + int(rng.choice((-2, -1, 1, 2))), beat / 2
        else:
            near = sorted((note for note in range(58, 84) if note % 12 in tones), key=lambda note: abs(note - tone))
            tone = near[rng.integers(min(4, len(near)))]
        if rng.random() < 0.85:
            track.append(Note(start, min(start + length, end), tone, rng.uniform(60, 110)))
        start += length
    return tone


class SongRenderer:
    """Plays songs; what comes out depends on the seed, the number and the song alone."""

    ROLES = {"bridge": (0.5, -12, 2), "melody": (0.5, -10, 3), "bass": (1.0, -10, 3)}
    """How often each is heard beside the comping, and the range of its level over it, in dB."""

    def __init__(self, banks: Sequence[NoteBank], weights: Sequence[float] | None, seed: int):
        self.banks, self.seed = banks, seed
        self._odds = np.ones(len(banks)) if weights is None else np.asarray(weights, dtype=float)
        self._stringed = np.array([bank.family in STRINGED for bank in banks])
        self._renderer = Renderer(banks, STYLES["wild"], seed)

    def rows(self, song: Song, number: int) -> list[tuple[np.ndarray, list[tuple[float, float, str]]]]:
        """`SONG_ROWS` rows in order: float32 (64000,) in [-1, 1], and the chords that sound in it."""
        rng = np.random.default_rng([self.seed, 0x53, number])
        stretch, shift = rng.uniform(*_STRETCH), int(rng.integers(_SHIFT[0], _SHIFT[1] + 1))
        start = rng.uniform(0, max(song.chords[-1][1] - SECONDS / stretch, 0.01))
        song = song.excerpt(start, stretch, shift)
        waveform, rows = self.perform(song, rng), []
        for k in range(SONG_ROWS):
            first = k * CLIP_SECONDS
            chords = [
                (round(max(a - first, 0), 3), round(min(b - first, CLIP_SECONDS), 3), label)
                for a, b, label in song.chords
                if b > first + _SHORTEST_S and a < first + CLIP_SECONDS - _SHORTEST_S
            ]
            row = waveform[k * CLIP_SAMPLES : (k + 1) * CLIP_SAMPLES]
            if np.abs(row).max() < _SILENCE:
                chords = [(0.0, CLIP_SECONDS, NO_CHORD)]
            row = self._renderer.record(row, rng, _AMP_PROBABILITY)
            rows.append((lossy(row, rng) if rng.random() < _CODEC_PROBABILITY else row, chords))
        return rows

    def perform(self, song: Song, rng: np.random.Generator) -> np.ndarray:
        """The band, float32 (samples,) of `SECONDS`, as it sounds before it is recorded."""
        samples, tuning = round(SECONDS * SAMPLE_RATE), rng.uniform(*STYLES["wild"].tuning_cents)
        comping = "guitar" if "guitar" in song.tracks else "comping"
        out = self._play(song.tracks.get(comping, []), comping, samples, tuning, rng)
        level = max(_rms(out), 1e-5)

        def add(part: np.ndarray, low_db: float, high_db: float) -> None:
            if (rms := _rms(part)) > 1e-6:
                out.__iadd__(part * np.float32(level / rms * 10 ** (rng.uniform(low_db, high_db) / 20)))

        for role, (probability, low_db, high_db) in self.ROLES.items():
            notes = song.tracks.get(role, [])
            if role == "bass" and not notes and rng.random() < 0.5:
                notes = _roots(song, int(rng.choice((1, 1, 2))))
            if notes and rng.random() < probability:
                add(self._play(notes, role, samples, tuning, rng), low_db, high_db)
        first = next((k for k, (time, position) in enumerate(song.beats) if position == 1), None)
        if first is not None and rng.random() < 0.45:
            times = np.array([time for time, _ in song.beats[first:]]) * SAMPLE_RATE
            sixteenths = np.interp(np.arange(4 * len(times)) / 4, np.arange(len(times)), times)
            a_bar = 16 if any(position == 4 for _, position in song.beats) else 12
            add(negatives.drums(rng, samples, sixteenths, a_bar), -10, 5)
        if rng.random() < 0.1:
            add(np.tile(negatives.voice(rng, samples // 4, sung=True), 4), -12, 0)
        return out

    def _play(
        self, notes: Sequence[Note], role: str, samples: int, tuning: float, rng: np.random.Generator
    ) -> np.ndarray:
        """A track on an instrument that is drawn: float32 (samples,)."""
        odds = self._odds * self._stringed if role == "guitar" and self._stringed.any() else self._odds
        bank = self.banks[int(rng.choice(len(self.banks), p=odds / odds.sum()))]
        octave = 12 * int(rng.choice((0, 0, 1, -1))) if role == "melody" else 0
        hold = float(rng.choice((0.0, 0.05, 0.3))) if role == "comping" else 0.0
        tuning, decay = tuning + rng.uniform(-5, 5), np.exp(-1 / (0.06 * SAMPLE_RATE))
        out = np.zeros(samples, dtype=np.float32)
        for start_s, end_s, midi, velocity in notes:
            note = midi + octave
            note += 12 * (-(min(note - bank.low, 0) // 12) - -(-max(note - bank.high, 0) // 12))
            layer, gain = bank.stroke(note, velocity)
            first, release = max(int(start_s * SAMPLE_RATE), 0), (end_s + hold) * SAMPLE_RATE
            view = out[first : max(int(release) + SAMPLE_RATE // 2, first)]
            step = 2 ** ((tuning + rng.normal(0, 1)) / 1200)
            sound = bank.notes[note - bank.first, layer]
            mix_note(view, sound, gain, start_s * SAMPLE_RATE - first, step, release - first, decay)
        return out


def _roots(song: Song, every: int) -> list[Note]:
    """A simple bass: the lowest note of each chord on every beat, or every second."""
    chords = [(a, b, read_harte(label)) for a, b, label in song.chords if label != UNKNOWN]
    times = np.array([time for time, _ in song.beats[::every]])
    line = []
    for start, end, chord in chords:
        if chord is not None:
            pitch = _LOW + root_pitch_class(chord.root if chord.bass is None else chord.bass)
            line += [Note(t, t + 0.4, pitch, 90) for t in times[(times >= start - _GAP_S) & (times < end - 0.05)]]
    return line


def _rms(waveform: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(waveform))))
