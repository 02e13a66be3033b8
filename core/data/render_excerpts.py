"""Render a set to train on (`core.data.excerpts`), in parallel, part by part: the same command goes on after a kill."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from triadbench.core.audio.io import to_int16
from triadbench.core.constants import CLIP_SAMPLES, usable_cores
from triadbench.core.data.clips import Progress
from triadbench.core.data.excerpts import FORMAT, PART_ROWS, SET, VERSION, Entry, is_excerpts, read_description
from triadbench.core.data.midi_songs import find_midi_songs, read_midi_song
from triadbench.core.errors import UserError
from triadbench.core.files import atomic_path, check_room, only_one
from triadbench.core.render.codecs import lossy
from triadbench.core.render.mixture import MixtureRenderer, plan_mixture
from triadbench.core.render.note_banks import TRAINING, NoteBank, build_banks
from triadbench.core.render.songs import SONG_ROWS, Song, SongRenderer, arrange
from triadbench.core.workers import run_all

_CODEC_PROBABILITY = 0.1


@dataclass(frozen=True)
class ExcerptsConfig:
    """A set to be rendered.

    Attributes:
        out: folder to make, or to go on with. clips, songs, midi_rows: rows of the mixture of sounds, of songs of ours,
            and of MIDI songs.
        midi: folder of MIDI songs. chords: folder of their corrected chords; None: labels lie beside them.
        without: a text of names of MIDI songs to leave out.
        instruments: note sources and how often each plays. cache: folder where note banks are kept.
        part_rows: rows a part, a multiple of `SONG_ROWS`.
    """

    out: Path
    clips: int
    songs: int = 0
    midi_rows: int = 0
    midi: Path | None = None
    chords: Path | None = None
    without: Path | None = None
    seed: int = 0
    instruments: Sequence[tuple[str, float]] = TRAINING
    cache: Path = Path("data/banks")
    workers: int = field(default_factory=usable_cores)
    part_rows: int = PART_ROWS


class _Part(NamedTuple):
    number: int
    kind: str  # "clip", "song-own" or "song-midi"
    first: int  # among the rows of its kind
    n: int


def render_excerpts(
    config: ExcerptsConfig, *, bank_progress: Progress | None = None, progress: Progress | None = None
) -> dict:
    """Render what is missing of a set. Returns path, rows of each kind, and how many parts were there before.

    Raises:
        UserError: a set of other settings in `out`, MIDI songs or notes that cannot be read, a full disk.
    """
    if bool(config.midi_rows) != bool(config.midi):
        raise UserError("MIDI songs need both a folder and a number of rows; give --midi and --midi-rows")
    rows = {"clip": config.clips, "song-own": config.songs, "song-midi": config.midi_rows}
    parts: list[_Part] = []
    for kind, n in rows.items():
        for first in range(0, n, config.part_rows):
            parts.append(_Part(len(parts), kind, first, min(config.part_rows, n - first)))
    songs = []
    if config.midi is not None:
        without = config.without.read_text("utf-8").split() if config.without else []
        songs = find_midi_songs(config.midi, config.chords, frozenset(without))
    rendered = {
        "rows": rows,
        "seed": config.seed,
        "instruments": [list(instrument) for instrument in config.instruments],
    }
    rendered |= {"midi_songs": [song.stem for song in songs], "corrected": config.chords is not None}
    description = {"format": FORMAT, "version": VERSION, "parts": len(parts), "rendered": rendered}
    with only_one(config.out, "output"):
        if is_excerpts(config.out):
            if read_description(config.out) != description:
                raise UserError(f"{config.out} was begun with other settings; repeat those or choose another output")
        elif any(path.name != "lock" for path in config.out.iterdir()):
            raise UserError(f"{config.out} exists already and is not empty; remove it or choose another output")
        else:
            with atomic_path(config.out / SET) as path:
                path.write_text(json.dumps(description, indent=1) + "\n", "utf-8")
        missing = [part for part in parts if not (config.out / f"{part.number:03d}.jsonl").exists()]
        check_room(config.out, sum(part.n for part in missing) * CLIP_SAMPLES * 2)
        sources = [source for source, _ in config.instruments]
        banks = build_banks(sources, config.cache, workers=config.workers, progress=bank_progress)
        whole = len(parts) - len(missing)

        def count(done: int, _: int) -> None:
            if progress is not None:
                progress(whole + done, len(parts))

        run_all(_PartRenderer, (config, banks, songs), missing, config.workers, progress=count)
    return {"path": str(config.out), "rows": rows, "parts": len(parts), "kept": whole}


class _PartRenderer:
    """Renders a part into the set's folder; every row depends on the seed and its number alone."""

    def __init__(self, config: ExcerptsConfig, banks: Sequence[Path], midi_songs: Sequence[Path]):
        self._config, self._midi_songs = config, midi_songs
        self._banks = [NoteBank.load(path) for path in banks]
        self._weights = [weight for _, weight in config.instruments]
        self._clips = MixtureRenderer(self._banks, config.seed)
        self._songs = SongRenderer(self._banks, self._weights, config.seed)

    def __call__(self, part: _Part) -> None:
        rows = np.empty((part.n, CLIP_SAMPLES), dtype=np.int16)
        entries = self._mixture(part, rows) if part.kind == "clip" else self._band(part, rows)
        place = self._config.out / f"{part.number:03d}"
        with atomic_path(place.with_suffix(".npy")) as path:
            np.save(path, rows)
        with atomic_path(place.with_suffix(".jsonl")) as path:
            path.write_text("".join(json.dumps(entry._asdict()) + "\n" for entry in entries), "utf-8")

    def _mixture(self, part: _Part, rows: np.ndarray) -> list[Entry]:
        """Fill rows (n, 64000) int16 with the mixture of single sounds; what they hold."""
        entries = []
        seed = self._config.seed
        for row, clip in zip(
            rows, plan_mixture(part.n, self._banks, self._weights, seed=seed, first=part.first), strict=True
        ):
            sound = self._clips.clip(clip)
            rng = np.random.default_rng([seed, 0xC2, clip.index])
            row[:] = to_int16(lossy(sound.waveform, rng) if rng.random() < _CODEC_PROBABILITY else sound.waveform)
            chords = [(round(sound.start_s, 3), round(sound.end_s, 3), clip.label)]
            entries.append(Entry(clip.kind, f"{seed}-{clip.index}", chords))
        return entries

    def _band(self, part: _Part, rows: np.ndarray) -> list[Entry]:
        """As `_mixture`, of songs."""
        entries: list[Entry] = []
        for number in range(part.first // SONG_ROWS, -(-(part.first + part.n) // SONG_ROWS)):
            song = self._song(part.kind, number)
            for waveform, chords in self._songs.rows(song, number)[: part.n - len(entries)]:
                rows[len(entries)] = to_int16(waveform)
                entries.append(Entry(part.kind, song.name, chords))
        return entries

    def _song(self, kind: str, number: int) -> Song:
        seed = self._config.seed
        if kind == "song-own":
            return arrange(np.random.default_rng([seed, 0x51, number]), f"{seed}-song-{number}")
        # All songs in turn, in an order that the seed shuffles; one that cannot be used makes way for the next.
        order = np.random.default_rng([seed, 0x52]).permutation(len(self._midi_songs))
        for k in range(len(order)):
            song = read_midi_song(self._midi_songs[order[(number + k) % len(order)]], self._config.chords)
            if song is not None:
                return song
        raise UserError(f"{self._config.midi}: the corrected chords fit none of its songs; check --chords")
