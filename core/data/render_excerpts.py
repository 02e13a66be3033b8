"""Render a set to train on (`core.data.excerpts`), in parallel, part by part: the same command goes on after a kill."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

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

_Part = tuple[int, str, int, int]
"""Number, kind ("clip", "song-own", "song-midi"), first row among those of its kind, and how many."""


@dataclass(frozen=True)
class ExcerptsConfig:
    """A set to be rendered.

    Attributes:
        out: folder to make or go on with. clips, songs, midi_rows: rows of single sounds, songs of ours, MIDI songs.
        midi, chords: folders as of `find_midi_songs`. without: a text of names of MIDI songs to leave out.
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


def render_excerpts(
    config: ExcerptsConfig, *, bank_progress: Progress | None = None, progress: Progress | None = None
) -> dict:
    """Render what is missing of a set. Returns path, rows of each kind, parts, and how many of them were kept.

    Raises:
        UserError: a set of other settings in `out`, MIDI songs or notes that cannot be read, a full disk.
    """
    if bool(config.midi_rows) != bool(config.midi) or ((config.chords or config.without) and not config.midi):
        raise UserError("MIDI songs need both a folder and a number of rows; give --midi and --midi-rows")
    rows = {"clip": config.clips, "song-own": config.songs, "song-midi": config.midi_rows}
    size = config.part_rows
    pieces = [(kind, first, min(size, n - first)) for kind, n in rows.items() for first in range(0, n, size)]
    parts: list[_Part] = [(number, *piece) for number, piece in enumerate(pieces)]
    without = frozenset(config.without.read_text("utf-8", "replace").split() if config.without else ())
    songs = find_midi_songs(config.midi, config.chords, without) if config.midi else []
    rendered = {"rows": rows, "seed": config.seed, "instruments": [list(source) for source in config.instruments]}
    rendered |= {"midi_songs": [song.stem for song in songs], "corrected": config.chords is not None}
    description = {"format": FORMAT, "version": VERSION, "parts": len(parts), "rendered": rendered}
    with only_one(config.out, "output"):
        if not is_excerpts(config.out):
            if any(path.name != "lock" and path.name[0] != "." for path in config.out.iterdir()):
                raise UserError(f"{config.out} exists already and is not empty; remove it or choose another output")
            with atomic_path(config.out / SET) as path:
                path.write_text(json.dumps(description, indent=1) + "\n", "utf-8")
        elif read_description(config.out) != description:
            raise UserError(f"{config.out} was begun with other settings; repeat those or choose another output")
        missing = [part for part in parts if not (config.out / f"{part[0]:03d}.jsonl").exists()]
        check_room(config.out, sum(n for *_, n in missing) * CLIP_SAMPLES * 2)
        sources = [source for source, _ in config.instruments]
        banks = build_banks(sources, config.cache, workers=config.workers, progress=bank_progress)
        kept = len(parts) - len(missing)

        def count(done: int, _: int) -> None:
            if progress is not None:
                progress(kept + done, len(parts))

        run_all(_PartRenderer, (config, banks, songs), missing, config.workers, progress=count)
    return {"path": str(config.out), "rows": rows, "parts": len(parts), "kept": kept}


class _PartRenderer:
    """Renders a part into the set's folder; every row depends on the seed and its number alone."""

    def __init__(self, config: ExcerptsConfig, bank_paths: Sequence[Path], midi_songs: Sequence[Path]):
        self._config, self._midi_songs = config, midi_songs
        self._banks = [NoteBank.load(path) for path in bank_paths]
        self._weights = [weight for _, weight in config.instruments]
        self._clips = MixtureRenderer(self._banks, config.seed)
        self._songs = SongRenderer(self._banks, self._weights, config.seed)
        self._order = np.random.default_rng([config.seed, 0x52]).permutation(len(midi_songs))

    def __call__(self, part: _Part) -> None:
        number, kind, first, n = part
        rows, entries = np.empty((n, CLIP_SAMPLES), dtype=np.int16), list[Entry]()
        for waveform, entry in self._sounds(first, n) if kind == "clip" else self._bands(kind, first, n):
            rows[len(entries)] = to_int16(waveform)
            entries.append(entry)
        place = self._config.out / f"{number:03d}"
        with atomic_path(place.with_suffix(".npy")) as path:
            np.save(path, rows)
        with atomic_path(place.with_suffix(".jsonl")) as path:
            path.write_text("".join(json.dumps(entry._asdict()) + "\n" for entry in entries), "utf-8")

    def _sounds(self, first: int, n: int) -> Iterator[tuple[np.ndarray, Entry]]:
        seed = self._config.seed
        for clip in plan_mixture(n, self._banks, self._weights, seed=seed, first=first):
            waveform, start, end = self._clips.clip(clip)
            rng = np.random.default_rng([seed, 0xC2, clip.index])
            entry = Entry(clip.kind, f"{seed}-{clip.index}", [(round(start, 3), round(end, 3), clip.label)])
            yield lossy(waveform, rng) if rng.random() < 0.1 else waveform, entry

    def _bands(self, kind: str, first: int, n: int) -> Iterator[tuple[np.ndarray, Entry]]:
        for number in range(first // SONG_ROWS, -(-(first + n) // SONG_ROWS)):
            song = self._own(number) if kind == "song-own" else self._midi(number)
            for waveform, chords in self._songs.rows(song, number)[: first + n - number * SONG_ROWS]:
                yield waveform, Entry(kind, song.name, chords)

    def _own(self, number: int) -> Song:
        return arrange(np.random.default_rng([self._config.seed, 0x51, number]), f"{self._config.seed}-song-{number}")

    def _midi(self, number: int) -> Song:
        """All songs in turn, shuffled; one that cannot be used makes way for the next."""
        for k in range(len(self._order)):
            path = self._midi_songs[self._order[(number + k) % len(self._order)]]
            if (song := read_midi_song(path, self._config.chords)) is not None:
                return song
        raise UserError(f"{self._config.midi}: the corrected chords fit none of its songs; check --chords")
