"""A data set as one memory-mapped array: no file to open, no header to read, no codec to run per clip.

A pack is a folder of three files:

    clips.npy    int16 (n, 64000), 16 kHz mono; float is this over 32768
    index.jsonl  one JSON object a clip, in row order: {"file": name, "recording": id or null, ...}
    meta.json    version, sample_rate, samples, n, skipped, source

Labels still come from the names in the index alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from triadbench.core.audio.header import AudioHeader
from triadbench.core.audio.io import AudioError, to_int16
from triadbench.core.constants import CLIP_SAMPLES, SAMPLE_RATE
from triadbench.core.data.clips import Clip, Dataset, Progress, Skipped, parse_member
from triadbench.core.errors import UserError
from triadbench.core.files import StrPath, atomic_path, check_room

VERSION = 1
CLIPS, INDEX, META = "clips.npy", "index.jsonl", "meta.json"
_WAY_OUT = "pack the clips again"


@contextlib.contextmanager
def new_pack(out: StrPath, n: int) -> Iterator[PackWriter]:
    """Write a pack of `n` clips row by row, in any order, here or by `open_rows(writer.clips_path)` in other processes.

    It appears at `out` when the block ends; without `writer.finish(index)`, or after an error, nothing does.
    A UserError where `out` is taken or the disk has no room.
    """
    if n < 1:
        raise UserError(f"a pack of {n} clips cannot be written; at least one is needed")
    with atomic_path(out, directory=True) as folder:
        check_room(folder.parent, n * CLIP_SAMPLES * 2)
        writer = PackWriter(folder, n)
        try:
            yield writer
            if not (folder / INDEX).exists():
                raise UserError(f"{out}: the pack was left without an index; nothing was written")
        finally:
            vars(writer).pop("rows", None)


class PackWriter:
    """The rows and the index of a pack that is being written; made by `new_pack`.

    Attributes:
        clips_path: the array's temporary path. rows: its memory map, int16 (n, 64000), filled with silence.
    """

    def __init__(self, folder: Path, n: int):
        self._folder, self.n = folder, n
        self.clips_path = folder / CLIPS
        shape = (n, CLIP_SAMPLES)
        self.rows = np.lib.format.open_memmap(self.clips_path, mode="w+", dtype=np.dtype("<i2"), shape=shape)
        _reserve(self.clips_path)

    def write(self, row: int, waveform: np.ndarray) -> None:
        """Put a clip (64000,), float32 in [-1, 1] (clipped beyond) or int16, into a row."""
        if waveform.shape != (CLIP_SAMPLES,):
            raise ValueError(f"waveform.shape={waveform.shape} must be ({CLIP_SAMPLES},)")
        self.rows[row] = to_int16(waveform)

    def finish(self, index: Sequence[dict], *, skipped: Skipped = (), source: dict | None = None) -> None:
        """State what the rows hold, when all are written; rows beyond `len(index)` are cut off.

        Args:
            index: one object a row with "file" (a name of the data set) and optionally "recording" and more; a
                UserError where a name carries no labels, or for no rows or more than there are.
            source: where the clips came from; kept in meta.json.
        """
        if not 0 < len(index) <= self.n:
            raise UserError(f"an index of {len(index)} clips does not fit a pack of {self.n} rows")
        for entry in index:
            parse_member(entry["file"])
        if reason := _bad_names(entry["file"] for entry in index):
            raise UserError(f"{INDEX}: {reason}")
        self.rows.flush()
        del self.rows
        if len(index) < self.n:
            _shorten(self.clips_path, len(index))
        meta = {"format": "triadbench-pack", "version": VERSION, "sample_rate": SAMPLE_RATE, "samples": CLIP_SAMPLES}
        meta |= {"n": len(index), "skipped": [list(item) for item in skipped], "source": source}
        (self._folder / META).write_text(json.dumps(meta, indent=1) + "\n", "utf-8")
        with open(self._folder / INDEX, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(json.dumps(entry) + "\n" for entry in index)


def pack(
    dataset: Dataset,
    out: StrPath,
    progress: Progress | None = None,
    *,
    change: Callable[[np.ndarray, int], np.ndarray] | None = None,
    source: dict | None = None,
) -> dict:
    """Write a data set as a pack; a clip that cannot be read is skipped and listed.

    Args:
        change: called with each waveform (64000,) and its number; the pack holds the result.
        source: where the clips came from; by default the data set's name, kind and digest.

    Returns:
        {"path", "n", "skipped": [[name, reason], ...] (with those that the data set had skipped), "bytes"}; a UserError
        where no clip could be read, `out` is taken, or the disk has no room.
    """
    skipped = list(dataset.skipped)
    index: list[dict[str, Any]] = []
    with new_pack(out, len(dataset)) as writer:
        for position, clip in enumerate(dataset.clips):
            try:
                waveform = dataset.read(position)
                writer.write(len(index), change(waveform, position) if change is not None else waveform)
                index.append({"file": clip.member, "recording": clip.recording})
            except AudioError as error:
                # Without the folder, which means nothing where the pack goes.
                skipped.append((clip.member, str(error).partition(f"{clip.member}: ")[2] or str(error)))
            if progress is not None:
                progress(position + 1, len(dataset))
        if not index:
            raise UserError(f"{dataset.path}: none of {len(dataset)} clips could be read; the last: {skipped[-1][1]}")
        source = source or {"name": dataset.path.name, "kind": dataset.kind, "digest": dataset.digest()}
        writer.finish(index, skipped=skipped, source=source)
    size = sum(os.path.getsize(Path(out) / name) for name in (CLIPS, INDEX, META))
    return {"path": str(out), "n": len(index), "skipped": [list(item) for item in skipped], "bytes": size}


def open_rows(path: StrPath, mode: Literal["r", "r+"] = "r+") -> np.ndarray:
    """The int16 (n, 64000) memory map of clips.npy, to write ("r+") or to read ("r"); UserError: no such array."""
    try:
        rows = np.load(path, mmap_mode=mode, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: damaged pack, its array cannot be read ({error}); {_WAY_OUT}") from error
    if rows.dtype != np.dtype("<i2") or rows.ndim != 2 or rows.shape[1] != CLIP_SAMPLES or not rows.flags.c_contiguous:
        layout = f"{rows.dtype} {rows.shape}, not int16 (n, {CLIP_SAMPLES})"
        raise UserError(f"{path}: damaged pack, its array is {layout}; {_WAY_OUT}")
    return rows


def is_pack(path: Path) -> bool:
    """True for a folder that is a pack, whole or damaged."""
    return (path / CLIPS).is_file() or ((path / META).is_file() and (path / INDEX).is_file())


def open_pack(path: Path) -> PackDataset:
    """Open a pack, or a UserError where a part is missing or damaged or the parts contradict one another."""
    try:
        meta = json.loads((path / META).read_text("utf-8"))
        lines = (path / INDEX).read_text("utf-8").splitlines()
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} is missing, so this is no whole pack; {_WAY_OUT}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged pack, cannot be read ({error}); {_WAY_OUT}") from error
    if not isinstance(meta, dict) or meta.get("format") != "triadbench-pack":
        raise UserError(f"{path / META}: not the description of a pack; {_WAY_OUT}")
    stated = tuple(meta.get(key) for key in ("version", "sample_rate", "samples"))
    ours = (VERSION, SAMPLE_RATE, CLIP_SAMPLES)
    if stated != ours:
        raise UserError(f"{path}: a pack of version, rate, samples {stated}; this program reads {ours}; {_WAY_OUT}")
    rows = open_rows(path / CLIPS, "r")
    clips = [_clip(f"{path / INDEX}, line {number}", line) for number, line in enumerate(lines, 1)]
    if reason := _bad_names(clip.member for clip in clips):
        raise UserError(f"{path / INDEX}: {reason}; {_WAY_OUT}")
    if not len(clips) == len(rows) == meta.get("n"):
        counts = f"{len(clips)} names for {len(rows)} clips ({meta.get('n')} stated)"
        raise UserError(f"{path}: damaged pack, {counts}; {_WAY_OUT}")
    skipped = meta.get("skipped", [])
    if not isinstance(skipped, list) or not all(isinstance(item, list) and len(item) == 2 for item in skipped):
        raise UserError(f'{path / META}: damaged, "skipped" is not a list of pairs; {_WAY_OUT}')
    return PackDataset(path, rows, clips, [(str(name), str(reason)) for name, reason in skipped])


class PackDataset(Dataset):
    """The clips of a pack. Pickled without its rows: a memory map would be copied whole."""

    rows: np.ndarray

    def __init__(self, path: Path, rows: np.ndarray, clips: Sequence[Clip], skipped: Skipped):
        super().__init__(path, "pack", clips, skipped)
        self.rows = rows

    def read(self, index: int) -> np.ndarray:
        return self.rows[index].astype(np.float32) / 32768.0

    def read_many(self, indices: Iterable[int]) -> np.ndarray:
        return self.rows[np.asarray(list(indices), dtype=np.int64)].astype(np.float32) / 32768.0

    def header(self, index: int) -> AudioHeader:
        return AudioHeader(SAMPLE_RATE, 1, CLIP_SAMPLES, "PACK", "PCM_16")

    def file_bytes(self, index: int) -> bytes:
        return self.rows[index].tobytes()

    def subset(self, indices: Sequence[int]) -> PackDataset:
        if list(indices) != list(range(len(indices))):
            raise ValueError("a pack's subset is its first clips, so that they can be mapped and not copied")
        return PackDataset(self.path, self.rows[: len(indices)], self.clips[: len(indices)], self.skipped)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "rows"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.rows = open_rows(self.path / CLIPS, "r")[: len(self.clips)]


def _clip(place: str, line: str) -> Clip:
    try:
        entry = json.loads(line)
        recording = entry.get("recording")
        return Clip(parse_member(entry["file"]), entry["file"], None if recording is None else str(recording))
    except UserError as error:
        raise UserError(f"{place}: {error}; {_WAY_OUT}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{place}: damaged index; {_WAY_OUT}") from error


def _bad_names(members: Iterable[str]) -> str | None:
    """Why these cannot be the names of a set's files, or None."""
    seen: set[str] = set()
    for member in members:
        if member in seen:
            return f"{member!r} names two clips"
        if member.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", member) or "\0" in member:
            return f"{member!r} is no path below a folder"
        seen.add(member)
    return None


def _reserve(path: Path) -> None:
    # A full disk met while writing to a memory map kills the process; met here it is an error to report.
    if hasattr(os, "posix_fallocate"):
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, os.path.getsize(path))


def _shorten(path: Path, n: int) -> None:
    """Cut a clips.npy to its first `n` rows; the header keeps its length, so the rows stay where they are."""
    with open(path, "r+b") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        start, fields = file.tell(), {"descr": "<i2", "fortran_order": False, "shape": (n, CLIP_SAMPLES)}
        file.seek(10)
        file.write(repr(fields).encode("latin1").ljust(start - 11) + b"\n")
        file.truncate(start + n * CLIP_SAMPLES * 2)
