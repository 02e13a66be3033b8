"""A set of labelled clips: a folder, a zip read without unpacking, or a packed array (`core.data.pack`).

Labels come from file names alone (`core.models.chords`); a file whose name or header cannot be read is listed in
`Dataset.skipped` with the reason, never guessed at. A manifest `clips.jsonl` beside the clips may say which recording
a clip is a variant of, one JSON object a line: `{"file": "piano_3_Af_d_m_45.wav", "recording": "r17"}`; other keys
are for whoever wrote it.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from triadbench.core.audio.header import AudioHeader
from triadbench.core.audio.io import (
    AUDIO_SUFFIXES,
    HEADER_BYTES,
    AudioError,
    check_header,
    read_audio,
    read_clip,
    read_header,
)
from triadbench.core.constants import CLIP_SAMPLES, SAMPLE_RATE
from triadbench.core.errors import UserError
from triadbench.core.models.chords import ClipName

MANIFEST = "clips.jsonl"
Progress = Callable[[int, int | None], None]

_IGNORED = {MANIFEST, "thumbs.db", "desktop.ini"}
_CHECK_CHUNK = 256
_CHECK_THREADS = 8
"""Header checks wait for the disk, not the processor; on a network disk the threads wait together."""


@dataclass(frozen=True)
class Clip:
    """Attributes:
    name: the labels, as the file name states them.
    member: the file's path below the data set's root, with "/" on every system.
    recording: id of the recording that this is a variant of, or None where no manifest says.
    """

    name: ClipName
    member: str
    recording: str | None = None


class Dataset:
    """Labelled clips that can be read by index, from any thread, and after fork or pickling.

    Attributes:
        path: where it was opened.
        kind: "folder", "zip" or "pack".
        clips: list of `Clip`, sorted by member (a pack keeps its own order).
        skipped: list of (member, reason).
        headers: list of `AudioHeader` or None (not checked), one a clip.
    """

    def __init__(
        self,
        path: Path,
        kind: str,
        store,
        clips: Sequence[Clip],
        skipped: Sequence[tuple[str, str]] = (),
        headers: Sequence[AudioHeader | None] | None = None,
    ):
        self.path, self.kind = path, kind
        self.clips, self.skipped = list(clips), list(skipped)
        self.headers = list(headers) if headers is not None else [None] * len(self.clips)
        self._store = store

    def __len__(self) -> int:
        return len(self.clips)

    def __repr__(self) -> str:
        return f"Dataset({str(self.path)!r}, {self.kind}, {len(self)} clips, {len(self.skipped)} skipped)"

    def read(self, index: int) -> np.ndarray:
        """Clip `index` as (64000,) float32, 16 kHz mono.

        Raises:
            AudioError: the file cannot be read.
        """
        if self.rows is not None:
            return self._store.rows[index].astype(np.float32) / 32768.0
        return read_clip(self._store.source(self.clips[index].member), name=self._name(index))

    def read_many(self, indices: Iterable[int]) -> np.ndarray:
        """Clips `indices` as (n, 64000) float32; the fast way to a batch of a pack."""
        indices = np.asarray(list(indices), dtype=np.int64)
        if self.rows is not None:
            return self._store.rows[indices].astype(np.float32) / 32768.0
        out = np.empty((len(indices), CLIP_SAMPLES), dtype=np.float32)
        for row, index in enumerate(indices):
            out[row] = self.read(index)
        return out

    def read_native(self, index: int) -> tuple[np.ndarray, int]:
        """Clip `index` whole and at the file's own rate: mono float32 (samples,) and the rate in Hz."""
        if self.rows is not None:
            return self.read(index), SAMPLE_RATE
        return read_audio(self._store.source(self.clips[index].member), name=self._name(index))

    def header(self, index: int) -> AudioHeader:
        """Rate, channels and length of the file of clip `index`; read now if it was not checked at opening."""
        if self.headers[index] is None:
            if self.rows is not None:
                return AudioHeader(SAMPLE_RATE, 1, CLIP_SAMPLES, "PACK", "PCM_16")
            self.headers[index] = read_header(self._store.source(self.clips[index].member), name=self._name(index))
        return self.headers[index]

    def file_bytes(self, index: int) -> bytes:
        """The stored bytes of clip `index`: its whole file, or its row of a pack."""
        if self.rows is not None:
            return self._store.rows[index].tobytes()
        return self._store.prefix(self.clips[index].member, None)[0]

    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        """Class indices of every clip: types (n,) and roots (n,), int64."""
        types = np.array([clip.name.type for clip in self.clips], dtype=np.int64)
        roots = np.array([clip.name.root for clip in self.clips], dtype=np.int64)
        return types, roots

    def subset(self, indices: Sequence[int]) -> Dataset:
        """The clips `indices`, in that order; of a pack only the first ones, whose rows stay a memory map.

        Raises:
            ValueError: other rows of a pack, which would have to be copied.
        """
        store = self._store
        if self.rows is not None:
            if list(indices) != list(range(len(indices))):
                raise ValueError("a pack's subset is its first clips, so that they can be mapped and not copied")
            store = store.first(len(indices))
        clips, headers = [self.clips[i] for i in indices], [self.headers[i] for i in indices]
        return Dataset(self.path, self.kind, store, clips, self.skipped, headers)

    def digest(self) -> str:
        """SHA-256 of the listing: names, recordings and sizes (for a zip also checksums), not of every sample."""
        digest = hashlib.sha256()
        for clip in self.clips:
            state = self._store.state(clip.member)
            digest.update(json.dumps([clip.member, clip.recording, *state]).encode())
        return digest.hexdigest()

    @property
    def rows(self) -> np.ndarray | None:
        """The (n, 64000) int16 memory map of a pack; None for other kinds."""
        return self._store.rows if self.kind == "pack" else None

    def _name(self, index: int) -> str:
        return f"{self.path}{':' if self.kind == 'zip' else '/'}{self.clips[index].member}"


def open_dataset(path: str | os.PathLike, *, check: str = "header", progress: Progress | None = None) -> Dataset:
    """Open a folder (with all below it), a zip, or a pack.

    Hidden files, `__MACOSX` and manifests are passed over; any other file that is no clip is listed as skipped.

    Args:
        check: "header" judges each file by its first bytes and skips what is damaged; "none" opens none.
        progress: called with (files checked, files to check).

    Raises:
        UserError: nothing there, not a data set, no clip in it, or a manifest that cannot be read.
    """
    if check not in ("header", "none"):
        raise ValueError(f"check={check!r} must be 'header' or 'none'")
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist; give a folder of clips, a .zip of them, or a pack")
    if path.is_dir():
        from triadbench.core.data.pack import is_pack, open_pack

        if is_pack(path):
            return open_pack(path)
        from triadbench.core.data.containers import FolderStore

        return _open_store(path, "folder", FolderStore(path), check, progress)
    from triadbench.core.data.containers import ZipStore

    return _open_store(path, "zip", ZipStore(path), check, progress)


def _open_store(path: Path, kind: str, store, check: str, progress: Progress | None) -> Dataset:
    members, skipped = store.members, list(store.skipped)
    recordings = _read_manifests(path, store, [m for m in members if posixpath.basename(m) == MANIFEST], skipped)
    clips = []
    for member in members:
        if is_ignored(member):
            continue
        try:
            clips.append(Clip(parse_member(member), member, recordings.get(member)))
        except UserError as error:
            skipped.append((member, str(error)))
    headers: list[AudioHeader | None] = [None] * len(clips)
    if check == "header":
        clips, headers, damaged = _check_all(store, clips, progress)
        skipped += damaged
    skipped.sort()
    if not clips:
        raise UserError(_nothing_found(path, skipped))
    return Dataset(path, kind, store, clips, skipped, headers)


def parse_member(member: str) -> ClipName:
    """Labels of a file of a data set by its path.

    Raises:
        UserError: not a sound, or not one of the set's names.
    """
    stem, suffix = posixpath.splitext(posixpath.basename(member))
    if suffix.lower() not in AUDIO_SUFFIXES:
        raise UserError(f"not a sound ({suffix or 'no suffix'}; expected {', '.join(AUDIO_SUFFIXES)})")
    return ClipName.parse(stem)


def is_ignored(member: str) -> bool:
    """True for what is never a clip and not worth listing: hidden files, `__MACOSX`, manifests."""
    parts = member.split("/")
    return any(part.startswith(".") or part == "__MACOSX" for part in parts) or parts[-1].lower() in _IGNORED


def _read_manifests(path: Path, store, manifests: Sequence[str], skipped: list) -> dict[str, str]:
    known = set(store.members)
    recordings: dict[str, str] = {}
    for manifest in manifests:
        label = f"{path}/{manifest}"
        try:
            lines = store.prefix(manifest, None)[0].decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise UserError(f"{label} is not UTF-8 text; mend or remove it") from error
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            file, recording = _read_line(line, f"{label}, line {number}")
            member = posixpath.normpath(posixpath.join(posixpath.dirname(manifest), file.replace("\\", "/")))
            if member not in known:
                skipped.append((member, f"named in {manifest} but not there"))
            elif recording is not None:
                if recordings.setdefault(member, recording) != recording:
                    raise UserError(f"{label}, line {number}: {file!r} has two recordings; mend the manifest")
    return recordings


def _read_line(line: str, where: str) -> tuple[str, str | None]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON ({error}); mend or remove the manifest") from error
    if not isinstance(entry, dict) or not isinstance(entry.get("file"), str):
        raise UserError(f'{where} must be an object with "file"; mend or remove the manifest')
    recording = entry.get("recording")
    if recording is not None and (isinstance(recording, bool) or not isinstance(recording, (str, int))):
        raise UserError(f'{where}: "recording" must be a string or a whole number, not {recording!r}')
    return entry["file"], None if recording is None else str(recording)


def _check_all(store, clips: Sequence[Clip], progress: Progress | None):
    kept: list[Clip] = []
    headers: list[AudioHeader | None] = []
    damaged: list[tuple[str, str]] = []
    chunks = [clips[start : start + _CHECK_CHUNK] for start in range(0, len(clips), _CHECK_CHUNK)]
    done = 0
    with ThreadPoolExecutor(_CHECK_THREADS) as pool:
        checked = pool.map(lambda chunk: [_check(store, clip) for clip in chunk], chunks)
        for chunk, results in zip(chunks, checked, strict=True):
            for clip, result in zip(chunk, results, strict=True):
                if isinstance(result, AudioHeader):
                    kept.append(clip)
                    headers.append(result)
                else:
                    damaged.append((clip.member, result))
            done += len(chunk)
            if progress is not None:
                progress(done, len(clips))
    return kept, headers, damaged


def _check(store, clip: Clip) -> AudioHeader | str:
    """The header of a clip, or why it is skipped."""
    name = posixpath.basename(clip.member)
    try:
        header = check_header(*store.prefix(clip.member, HEADER_BYTES), name)
        return header if header is not None else read_header(store.source(clip.member), name=name)
    except AudioError as error:
        return str(error).removeprefix(f"{name}: ")


def _nothing_found(path: Path, skipped: Sequence[tuple[str, str]]) -> str:
    line = (
        f"{path}: no clip found; looked for {', '.join('*' + suffix for suffix in AUDIO_SUFFIXES)} "
        f"named like piano_3_Af_d_m_45.wav or shred___Af_d__000.wav, {len(skipped)} other files skipped"
    )
    if skipped:
        line += f" (the first: {skipped[0][0]}: {skipped[0][1]})"
    archives = [member for member, _ in skipped if member.lower().endswith(".zip")]
    return f"{line}; to read {archives[0]}, give its own path" if archives else line
