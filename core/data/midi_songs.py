"""Songs of other people: MIDI files with chord labels.

Two layouts are read: `NAME.mid` beside `NAME.lab`, and POP909's, `NNN/NNN.mid` beside `beat_midi.txt` and
`chord_midi.txt`. Corrected chords of POP909-CL, a folder of scores `NNN.mid` whose last track holds them, can take
the place of POP909's, which a program made.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from triadbench.core.data.chord_labels import Stretch, read_lab
from triadbench.core.errors import UserError
from triadbench.core.models.spelling import UNKNOWN
from triadbench.core.models.vocabulary import QUALITIES, nearest_quality
from triadbench.core.render.mixture import harte_label
from triadbench.core.render.songs import Note, Song

_ROLES = {"bass": ("bass",), "melody": ("melod", "vocal", "voice", "lead"), "bridge": ("bridge",)}
"""Parts of a track's name by the role that it tells; all other tracks accompany."""
_DRUMS = 9
_BEATS, _CHORDS = "beat_midi.txt", "chord_midi.txt"
_CLOSE_S, _LEAST_MATCH = 0.04, 0.8
"""A corrected score fits where so many of its onsets lie so close to one that is played."""
_NINTHS = {
    (0, 5, 7, 10),
    (0, 2, 4, 7, 11),
    (0, 2, 3, 7, 10),
    (0, 2, 4, 7, 10),
    (0, 2, 3, 7),
    (0, 4, 8, 11),
    (0, 4, 8, 10),
}
_SEMITONES = {q.semitones for q in QUALITIES if "6" not in q.harte}
_CORRECTED = {frozenset(steps): nearest_quality(steps) for steps in _SEMITONES | _NINTHS}
"""Qualities of the corrected chords, which have ninths but no sixths, by semitones above the root."""


def find_midi_songs(folder: Path, corrected: Path | None = None, without: frozenset[str] = frozenset()) -> list[Path]:
    """The MIDI files below a folder that have chord labels, sorted; UserError: none.

    Args:
        corrected: folder of POP909-CL's scores; songs that it lacks are left out. without: names to leave out.
    """
    songs = [
        path
        for path in sorted(folder.rglob("*.mid"))
        if path.stem not in without
        and ((corrected / path.name).exists() and (path.parent / _BEATS).exists() if corrected else _lab(path).exists())
    ]
    if not songs:
        labels = f"a score in {corrected}" if corrected else "a .lab beside it"
        raise UserError(f"{folder}: no MIDI file with {labels}; give a folder of songs with chord labels")
    return songs


def read_midi_song(path: Path, corrected: Path | None = None) -> Song | None:
    """A song with its chords; None where the corrected ones do not fit what is played; UserError: damaged files."""
    try:
        midi, seconds = _open(path)
        tracks: dict[str, list[Note]] = {}
        for track in midi.tracks:
            name = track.name.lower()
            role = next((role for role, parts in _ROLES.items() if any(part in name for part in parts)), "comping")
            notes = [(float(seconds(a)), float(seconds(b)), note, float(v)) for a, b, note, v in _notes(track)]
            tracks[role] = tracks.get(role, []) + notes
        notes = sorted(note for part in tracks.values() for note in part)
        last = max((note[1] for note in notes), default=0.0)
        if (path.parent / _BEATS).exists():
            beats = _beats(path.parent / _BEATS)
        else:
            n = int(np.searchsorted(seconds(np.arange(1 << 14) * midi.ticks_per_beat), last))
            beats = [(float(seconds(k * midi.ticks_per_beat)), k % 4 + 1) for k in range(n)]
        if corrected is not None:
            onsets = np.array([note[0] for note in notes])
            chords = _fitted(corrected / path.name, onsets, np.array([time for time, _ in beats]))
        else:
            chords = [(a, min(b, last), label) for a, b, label in read_lab(_lab(path)) if a < last]
    except (OSError, EOFError, ValueError, IndexError, KeyError) as error:
        raise UserError(f"{path}: cannot be read as a song with chords ({error}); mend it or leave it out") from error
    return Song(path.stem, tracks, chords, beats) if chords else None


def _lab(path: Path) -> Path:
    lab = path.with_suffix(".lab")
    return lab if lab.exists() else path.parent / _CHORDS


def _open(path: Path) -> tuple[Any, Callable[[Any], np.ndarray]]:
    """A MIDI file, and what turns its ticks into seconds."""
    import mido

    try:
        midi, tempos = mido.MidiFile(path), {0: 500_000}
    except mido.KeySignatureError as error:  # a bare Exception
        raise ValueError(str(error)) from error
    for track in midi.tracks:
        ticks = np.cumsum([message.time for message in track])
        tempos |= {int(t): m.tempo for t, m in zip(ticks, track, strict=True) if m.type == "set_tempo"}
    changes = sorted(tempos)
    a_tick = np.array([tempos[tick] for tick in changes]) / 1e6 / midi.ticks_per_beat
    until = np.array([*changes, 1 << 40])
    times = np.concatenate([[0], np.cumsum(np.diff(until) * a_tick)])
    return midi, lambda ticks: np.interp(ticks, until, times)


def _notes(track: Any) -> list[tuple[int, int, int, int]]:
    """Start and end in ticks, MIDI number and velocity of a track's notes, without drums."""
    ticks, held, notes = 0, dict[int, list[tuple[int, int]]](), []
    for message in track:
        ticks += message.time
        if message.type not in ("note_on", "note_off") or message.channel == _DRUMS:
            continue
        if message.type == "note_on" and message.velocity:
            held.setdefault(message.note, []).append((ticks, message.velocity))
        elif held.get(message.note):
            start, velocity = held[message.note].pop(0)
            notes.append((start, ticks, message.note, velocity))
    return notes


def _beats(path: Path) -> list[tuple[float, int]]:
    """POP909's beats: a time, and in the third column whether a bar begins."""
    beats, position = [], 1
    for time, _, is_first in np.loadtxt(path, ndmin=2).tolist():
        position = 1 if is_first else position + 1
        beats.append((time, position))
    return beats


def _fitted(score: Path, onsets: np.ndarray, beats: np.ndarray) -> list[Stretch]:
    """The corrected chords, moved so that the score's notes lie on those played, `onsets` (n,) in seconds, sorted; or
    none, where no start and no length of a beat brings most of them there."""
    midi, _ = _open(score)
    beat, best = float(np.median(np.diff(beats))), (0.0, 0.0, 1.0)
    ticks = np.unique([start for start, *_ in _notes(midi.tracks[1])])
    for a_tick in (beat / midi.ticks_per_beat * np.array([1, 0.5, 2])).tolist():
        for start in [*beats[:12].tolist(), *(float(beats[0]) - k * beat for k in range(1, 5))]:
            times = ticks * a_tick + start
            after = np.clip(np.searchsorted(onsets, times), 1, len(onsets) - 1)
            distance = np.minimum(np.abs(onsets[after] - times), np.abs(onsets[after - 1] - times))
            best = max(best, (float((distance < _CLOSE_S).mean()), start, a_tick), key=lambda fit: fit[0])
    match, start, a_tick = best
    notes: dict[int, list[tuple[int, int]]] = {}
    for first, last, note, _ in _notes(midi.tracks[-1]) if match >= _LEAST_MATCH else ():
        notes.setdefault(first, []).append((last, note))
    begins, chords = sorted(notes), []
    for first, following in zip(begins, [*begins[1:], 1 << 40], strict=False):
        last = max(end for end, _ in notes[first])
        if (following - last) * a_tick < beat / 2:  # no rest
            last = following
        chords.append((first * a_tick + start, last * a_tick + start, _chord([note for _, note in notes[first]])))
    return chords


def _chord(notes: list[int]) -> str:
    """Label of notes that sound together; where several roots would do, the bass is the root."""
    bass, tones = min(notes) % 12, {note % 12 for note in notes}
    for root in [bass, *sorted(tones - {bass})]:
        quality = _CORRECTED.get(frozenset((tone - root) % 12 for tone in tones))
        if quality is not None:
            return harte_label(root, quality, bass)
    return UNKNOWN
