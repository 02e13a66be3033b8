"""A data set as one memory-mapped array: no file to open, no header to read, no codec to run per clip.

A pack is a folder of three files:

    clips.npy    int16 (n, 64000), 16 kHz mono; float is this over 32768
    index.jsonl  one JSON object a clip, in row order: {"file": name, "recording": id or null, ...}
    meta.json    version, sample_rate, samples, n, skipped, source

It is written under a temporary name and renamed, so that a pack that exists is whole. Labels still come from the
names in the index alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from triadbench.core.audio.io import AudioError, to_int16
from triadbench.core.constants import CLIP_SAMPLES, SAMPLE_RATE
from triadbench.core.data.dataset import Clip, Dataset, Progress, parse_member
from triadbench.core.errors import UserError
from triadbench.core.files import atomic_path

VERSION = 1
CLIPS, INDEX, META = "clips.npy", "index.jsonl", "meta.json"


class PackWriter:
    """Write a pack of `n` clips row by row, in any order and from several processes.

    with PackWriter("set.pack", n) as writer:
        writer.write(0, waveform)                     # here, or in a worker:
        open_rows(writer.clips_path)[1] = to_int16(waveform)
        writer.finish([{"file": "piano_3_Af_d_m_00.wav", "recording": "r0"}, ...])

    The pack appears at `out` when the block ends; without `finish`, or after an error, nothing does.

    Attributes:
        clips_path: the array's temporary path, while the block runs.
        rows: its memory map, int16 (n, 64000), filled with silence.

    Raises:
        UserError: `out` exists and is not an empty folder, or the disk has no room.
    """

    def __init__(self, out: str | os.PathLike, n: int):
        if n < 1:
            raise UserError(f"a pack of {n} clips cannot be written; at least one is needed")
        self.out, self.n = Path(out), n
        self._index: list[dict] | None = None
        self._meta: dict = {}

    def __enter__(self) -> PackWriter:
        self._stack = contextlib.ExitStack()
        self._folder = self._stack.enter_context(atomic_path(self.out, directory=True))
        try:
            _check_room(self._folder, self.n * CLIP_SAMPLES * 2)
            self.clips_path = self._folder / CLIPS
            shape = (self.n, CLIP_SAMPLES)
            self.rows = np.lib.format.open_memmap(self.clips_path, mode="w+", dtype="<i2", shape=shape)
            _reserve(self.clips_path)
        except BaseException as error:
            self._close(error)
            raise
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if error is None:
            try:
                self._write_rest()
            except BaseException as caught:
                self._close(caught)
                raise
        self._close(error)

    def write(self, row: int, waveform: np.ndarray) -> None:
        """Put a clip (64000,), float32 in [-1, 1] (clipped beyond) or int16, into a row."""
        if waveform.shape != (CLIP_SAMPLES,):
            raise ValueError(f"waveform.shape={waveform.shape} must be ({CLIP_SAMPLES},)")
        self.rows[row] = to_int16(waveform)

    def finish(
        self, index: Sequence[dict], *, skipped: Iterable[tuple[str, str]] = (), source: dict | None = None
    ) -> None:
        """State what the rows hold; rows beyond `len(index)` are cut off.

        Args:
            index: one object a row with "file" (a name of the data set) and optionally "recording" and more.
            skipped: (name, reason) of clips that were left out.
            source: where the clips came from; kept in meta.json.

        Raises:
            UserError: a name that carries no labels, no rows, or more than there are.
        """
        if not 0 < len(index) <= self.n:
            raise UserError(f"an index of {len(index)} clips does not fit a pack of {self.n} rows")
        for entry in index:
            parse_member(entry["file"])
        self._index = list(index)
        self._meta = {"skipped": [list(item) for item in skipped], "source": source}

    def _write_rest(self) -> None:
        if self._index is None:
            raise UserError(f"{self.out}: the pack was left without an index; nothing was written")
        self.rows.flush()
        self.rows = None
        n = len(self._index)
        if n < self.n:
            _shorten(self.clips_path, n)
        meta = {"format": "triadbench-pack", "version": VERSION, "sample_rate": SAMPLE_RATE, "samples": CLIP_SAMPLES}
        (self._folder / META).write_text(json.dumps({**meta, "n": n, **self._meta}, indent=1) + "\n", "utf-8")
        with open(self._folder / INDEX, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(json.dumps(entry) + "\n" for entry in self._index)

    def _close(self, error: BaseException | None) -> None:
        self.rows = None
        self._stack.__exit__(type(error) if error else None, error, error.__traceback__ if error else None)


def pack(dataset: Dataset, out: str | os.PathLike, progress: Progress | None = None) -> dict:
    """Write a data set as a pack; a clip that cannot be read is skipped and listed.

    Returns:
        {"path", "n", "skipped": [[name, reason], ...] (with those that the data set had skipped), "bytes"}

    Raises:
        UserError: no clip could be read, `out` is taken, or the disk has no room.
    """
    skipped, index = list(dataset.skipped), []
    with PackWriter(out, len(dataset)) as writer:
        for position, clip in enumerate(dataset.clips):
            try:
                writer.write(len(index), dataset.read(position))
                index.append({"file": clip.member, "recording": clip.recording})
            except AudioError as error:
                # Without the folder, which means nothing where the pack goes.
                skipped.append((clip.member, str(error).partition(f"{clip.member}: ")[2] or str(error)))
            if progress is not None:
                progress(position + 1, len(dataset))
        if not index:
            raise UserError(f"{dataset.path}: none of {len(dataset)} clips could be read; the last: {skipped[-1][1]}")
        source = {"name": dataset.path.name, "kind": dataset.kind, "digest": dataset.digest()}
        writer.finish(index, skipped=skipped, source=source)
    size = sum(os.path.getsize(Path(out) / name) for name in (CLIPS, INDEX, META))
    return {"path": str(out), "n": len(index), "skipped": [list(item) for item in skipped], "bytes": size}


def open_rows(path: str | os.PathLike, mode: str = "r+") -> np.ndarray:
    """The (n, 64000) int16 memory map of a pack's clips.npy; "r+" to write (workers), "r" to read.

    Raises:
        UserError: not such an array.
    """
    try:
        rows = np.load(path, mmap_mode=mode, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: damaged pack, its array cannot be read ({error}); pack the clips again") from error
    if rows.dtype != np.dtype("<i2") or rows.ndim != 2 or rows.shape[1] != CLIP_SAMPLES or not rows.flags.c_contiguous:
        raise UserError(
            f"{path}: damaged pack, its array is {rows.dtype} {rows.shape}, not int16 (n, {CLIP_SAMPLES}); "
            "pack the clips again"
        )
    return rows


def is_pack(path: Path) -> bool:
    """True for a folder that is a pack, whole or damaged."""
    return (path / CLIPS).is_file() or ((path / META).is_file() and (path / INDEX).is_file())


def open_pack(path: Path) -> Dataset:
    """Open a pack as a `Dataset`; its `skipped` are those of the set that was packed.

    Raises:
        UserError: a part is missing or damaged, or the parts contradict one another.
    """
    meta = _read_json(path / META)
    if not isinstance(meta, dict) or meta.get("format") != "triadbench-pack":
        raise UserError(f"{path / META}: not the description of a pack; pack the clips again")
    stated = (meta.get("version"), meta.get("sample_rate"), meta.get("samples"))
    if stated != (VERSION, SAMPLE_RATE, CLIP_SAMPLES):
        raise UserError(
            f"{path}: a pack of version, rate, samples {stated}; this program reads "
            f"{(VERSION, SAMPLE_RATE, CLIP_SAMPLES)}; pack the clips again"
        )
    store = _PackStore(path)
    clips = [_clip(path, number, line) for number, line in enumerate(_lines(path / INDEX), 1)]
    if not len(clips) == len(store.rows) == meta.get("n"):
        raise UserError(
            f"{path}: damaged pack, {len(clips)} names for {len(store.rows)} clips ({meta.get('n')} stated); "
            "pack the clips again"
        )
    return Dataset(path, "pack", store, clips, _skipped(path, meta))


class _PackStore:
    """The rows of a pack. Pickled as its path: a memory map would be copied whole."""

    def __init__(self, path: Path, n: int | None = None):
        self.path = path
        self.rows = open_rows(path / CLIPS, "r")[:n]

    def first(self, n: int) -> _PackStore:
        return _PackStore(self.path, n)

    def state(self, member: str) -> tuple[int, ...]:
        return ()

    def __getstate__(self) -> dict:
        return {"path": self.path, "n": len(self.rows)}

    def __setstate__(self, state: dict) -> None:
        self.__init__(state["path"], state["n"])


def _clip(path: Path, number: int, line: str) -> Clip:
    where = f"{path / INDEX}, line {number}"
    try:
        entry = json.loads(line)
        recording = entry.get("recording")
        return Clip(parse_member(entry["file"]), entry["file"], None if recording is None else str(recording))
    except UserError as error:
        raise UserError(f"{where}: {error}; pack the clips again") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{where}: damaged index; pack the clips again") from error


def _skipped(path: Path, meta: dict) -> list[tuple[str, str]]:
    skipped = meta.get("skipped", [])
    if not isinstance(skipped, list) or not all(isinstance(item, list) and len(item) == 2 for item in skipped):
        raise UserError(f'{path / META}: damaged, "skipped" is not a list of pairs; pack the clips again')
    return [(str(name), str(reason)) for name, reason in skipped]


def _read_json(path: Path):
    try:
        return json.loads("\n".join(_lines(path)))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged ({error}); pack the clips again") from error


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8").splitlines()
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing, so this is no whole pack; pack the clips again") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); pack the clips again") from error


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(f"{folder.parent}: {needed / 1e9:.2f} GB are needed and {free / 1e9:.2f} GB are free")


def _reserve(path: Path) -> None:
    # A full disk met while writing to a memory map kills the process; met here it is an error to report.
    if hasattr(os, "posix_fallocate"):
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, os.path.getsize(path))


def _shorten(path: Path, n: int) -> None:
    """Cut a clips.npy to its first `n` rows; the header keeps its length, so the rows stay where they are."""
    with open(path, "r+b") as file:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise UserError(f"{path}: array header of version {version}, expected (1, 0)")
        np.lib.format.read_array_header_1_0(file)
        start = file.tell()
        fields = {"descr": "<i2", "fortran_order": False, "shape": (n, CLIP_SAMPLES)}
        text = (repr(fields)).encode("latin1")
        file.seek(10)
        file.write(text.ljust(start - 11) + b"\n")
        file.truncate(start + n * CLIP_SAMPLES * 2)
