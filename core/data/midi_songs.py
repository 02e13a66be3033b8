"""Songs of other people: MIDI files with chord labels.

Two layouts are read: `NAME.mid` beside `NAME.lab`, and POP909's, `NNN/NNN.mid` beside `beat_midi.txt` and
`chord_midi.txt`. POP909's own labels were made by rules; the corrected ones of POP909-CL, a folder of scores `NNN.mid`
whose last track holds the chords, can take their place.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from triadbench.core.data.chord_labels import Stretch, read_lab
from triadbench.core.errors import UserError
from triadbench.core.models.spelling import UNKNOWN
from triadbench.core.models.vocabulary import QUALITIES
from triadbench.core.render.mixture import harte_label
from triadbench.core.render.songs import Note, Song

_ROLES = {"bass": ("bass",), "melody": ("melod", "vocal", "voice", "lead"), "bridge": ("bridge",)}
"""Parts of a track's name by the role that it tells; all other tracks accompany."""
_DRUMS = 9
_BEATS, _CHORDS = "beat_midi.txt", "chord_midi.txt"
_CLOSE_S, _LEAST_MATCH = 0.04, 0.8
"""A corrected score fits where so many of its onsets lie so close to one that is played."""
_HARTE = [quality.harte for quality in QUALITIES]
_CORRECTED = {
    frozenset(quality.semitones): index for index, quality in enumerate(QUALITIES) if "6" not in quality.harte
} | {
    frozenset(steps): _HARTE.index(name)
    for steps, name in (
        ((0, 5, 7, 10), "sus4"),
        ((0, 2, 4, 7, 11), "maj7"),
        ((0, 2, 3, 7, 10), "min7"),
        ((0, 2, 4, 7, 10), "7"),
        ((0, 2, 3, 7), "min"),
        ((0, 4, 8, 11), "aug"),
        ((0, 4, 8, 10), "aug"),
    )
}
"""Qualities of the corrected chords by semitones above the root; they know no sixths."""


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
            for start, until, note, velocity in _notes(track):
                tracks.setdefault(role, []).append(Note(float(seconds(start)), float(seconds(until)), note, velocity))
        end = max((note.end_s for notes in tracks.values() for note in notes), default=0.0)
        beats = _beats(path.parent / _BEATS) if (path.parent / _BEATS).exists() else _grid(midi, seconds, end)
        if corrected is None:
            chords = [(a, min(b, end), label) for a, b, label in read_lab(_lab(path)) if a < end]
        else:
            onsets = np.sort([note.start_s for notes in tracks.values() for note in notes])
            chords = _fitted(corrected / path.name, onsets, np.array([time for time, _ in beats]))
    except (OSError, EOFError, ValueError, IndexError, KeyError) as error:
        raise UserError(f"{path}: cannot be read as a song with chords ({error}); mend it or leave it out") from error
    return Song(path.stem, tracks, chords, beats) if chords and tracks else None


def _lab(path: Path) -> Path:
    lab = path.with_suffix(".lab")
    return lab if lab.exists() else path.parent / _CHORDS


def _open(path: Path) -> tuple[Any, Callable[[Any], np.ndarray]]:
    """A MIDI file, and what turns its ticks into seconds."""
    import mido

    midi = mido.MidiFile(path)
    tempos = {0: 500_000}
    for track in midi.tracks:
        ticks = 0
        for message in track:
            ticks += message.time
            if message.type == "set_tempo":
                tempos[ticks] = message.tempo
    changes = np.array([*sorted(tempos), 1 << 40])
    a_tick = np.array([tempos[tick] for tick in changes[:-1].tolist()]) / 1e6 / midi.ticks_per_beat
    times = np.concatenate([[0], np.cumsum(np.diff(changes) * a_tick)])
    return midi, lambda ticks: np.interp(ticks, changes, times)


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
    for time, _, is_first in np.loadtxt(path, ndmin=2):
        position = 1 if is_first else position + 1
        beats.append((float(time), position))
    return beats


def _grid(midi: Any, seconds: Callable[[Any], np.ndarray], end_s: float) -> list[tuple[float, int]]:
    """Beats until `end_s` as tempo and the first time signature say."""
    messages = (message for track in midi.tracks for message in track)
    meter = next((m.numerator for m in messages if m.type == "time_signature"), 4)
    beats: list[tuple[float, int]] = []
    while not beats or beats[-1][0] < end_s:
        beats.append((float(seconds(len(beats) * midi.ticks_per_beat)), len(beats) % meter + 1))
    return beats


def _fitted(score: Path, onsets: np.ndarray, beats: np.ndarray) -> list[Stretch]:
    """The corrected chords, moved so that the score's notes lie on those played, `onsets` (n,) in seconds, sorted; or
    none, where no start and no length of a beat brings most of them there."""
    midi, _ = _open(score)
    beat = float(np.median(np.diff(beats)))
    ticks = np.unique([start for start, *_ in _notes(midi.tracks[1])])
    best = (0.0, 0.0, 1.0)
    for a_tick in beat / midi.ticks_per_beat * np.array([1, 0.5, 2]):
        for start in [*beats[:12], *(beats[0] - k * beat for k in range(1, 5))]:
            times = ticks * a_tick + start
            after = np.clip(np.searchsorted(onsets, times), 1, len(onsets) - 1)
            distance = np.minimum(np.abs(onsets[after] - times), np.abs(onsets[after - 1] - times))
            best = max(best, (float((distance < _CLOSE_S).mean()), float(start), float(a_tick)), key=lambda fit: fit[0])
    match, start, a_tick = best
    if match < _LEAST_MATCH:
        return []
    notes: dict[int, list[tuple[int, int]]] = {}
    for first, last, note, _ in _notes(midi.tracks[-1]):
        notes.setdefault(first, []).append((last, note))
    begins = sorted(notes)
    chords = []
    for first, following in zip(begins, [*begins[1:], 1 << 40], strict=True):
        last = max(end for end, _ in notes[first])
        if (following - last) * a_tick < beat / 2:  # no rest
            last = following
        chords.append((first * a_tick + start, last * a_tick + start, _chord([note for _, note in notes[first]])))
    return chords


def _chord(notes: list[int]) -> str:
    """Label of notes that sound together; where several roots would do, the bass is the root."""
    bass = min(notes) % 12
    tones = {note % 12 for note in notes}
    for root in [bass, *sorted(tones - {bass})]:
        quality = _CORRECTED.get(frozenset((tone - root) % 12 for tone in tones))
        if quality is not None:
            return harte_label(root, quality, bass)
    return UNKNOWN
