"""Open a set of labelled clips: a folder, a zip read without unpacking, or a packed array (`core.data.pack`).

Labels come from file names alone (`core.models.chords`); a file whose name or header cannot be read is listed in
`Dataset.skipped` with the reason, never guessed at. A manifest `clips.jsonl` beside the clips may say which recording
a clip is a variant of, one JSON object a line: `{"file": "piano_3_Af_d_m_45.wav", "recording": "r17"}`; other keys
are for whoever wrote it. Reads keep no position, so that threads, forked processes and unpickled copies can use one
folder or zip together.
"""

from __future__ import annotations

import contextlib
import json
import os
import posixpath
import re
import stat
import struct
import threading
import zipfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from triadbench.core.audio.header import HEADER_BYTES, AudioHeader
from triadbench.core.audio.io import SUFFIXES_SAID, AudioError, check_header, read_clip, read_header
from triadbench.core.data.clips import Clip, Dataset, Progress, Skipped, parse_member
from triadbench.core.data.pack import is_pack, open_pack
from triadbench.core.errors import UserError
from triadbench.core.files import StrPath, walk_files

__all__ = ["MANIFEST", "Clip", "Dataset", "open_dataset", "parse_member"]

MANIFEST = "clips.jsonl"
MEMBER_LIMIT = 1 << 30
"""Bytes of one member, unpacked: hours of 16 kHz sound fit, a decompression bomb does not."""
ENCRYPTED = 0x1
_IGNORED = {MANIFEST, "thumbs.db", "desktop.ini"}
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_CHECK_CHUNK = 256
_CHECK_THREADS = 8
"""Header checks wait for the disk, not the processor; on a network disk the threads wait together."""


class _FileDataset(Dataset):
    """Clips that are the sound files of a folder or zip."""

    def __init__(
        self, container: _Folder | _Zip, clips: Sequence[Clip], skipped: Skipped, headers: Sequence[AudioHeader | None]
    ):
        super().__init__(container.path, container.kind, clips, skipped)
        self._container, self._headers = container, list(headers)

    def read(self, index: int) -> np.ndarray:
        return read_clip(**self._source(index))

    def header(self, index: int) -> AudioHeader:
        header = self._headers[index] or read_header(**self._source(index))
        self._headers[index] = header
        return header

    def file_bytes(self, index: int) -> bytes:
        return self._container.prefix(self.clips[index].member, None)[0]

    def subset(self, indices: Sequence[int]) -> _FileDataset:
        clips, headers = [self.clips[i] for i in indices], [self._headers[i] for i in indices]
        return _FileDataset(self._container, clips, self.skipped, headers)

    def _source(self, index: int) -> dict[str, Any]:
        member = self.clips[index].member
        name = f"{self.path}{':' if self.kind == 'zip' else '/'}{member}"
        return {"source": self._container.source(member), "name": name}

    def _state(self, member: str) -> tuple[int, ...]:
        return self._container.state(member)


def open_dataset(path: StrPath, *, check: str = "header", progress: Progress | None = None) -> Dataset:
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
    if path.is_dir() and is_pack(path):
        return open_pack(path)
    container = _Folder(path) if path.is_dir() else _Zip(path)
    skipped = list(container.skipped)
    recordings = _read_manifests(container, skipped)
    clips = []
    for member in container.members:
        if not _is_ignored(member):
            try:
                clips.append(Clip(parse_member(member), member, recordings.get(member)))
            except UserError as error:
                skipped.append((member, str(error)))
    headers: Sequence[AudioHeader | None] = [None] * len(clips)
    if check == "header":
        clips, headers = _check_all(container, clips, skipped, progress)
    skipped.sort()
    if not clips:
        raise UserError(_no_clip_message(path, skipped))
    return _FileDataset(container, clips, skipped, headers)


def _is_ignored(member: str) -> bool:
    """True for what is never a clip and not worth listing: hidden files, `__MACOSX`, manifests."""
    parts = member.split("/")
    return any(part.startswith(".") or part == "__MACOSX" for part in parts) or parts[-1].lower() in _IGNORED


def _read_manifests(container: _Folder | _Zip, skipped: list[tuple[str, str]]) -> dict[str, str]:
    """Recordings by member; what a manifest names and is not there goes to `skipped`."""
    members = set(container.members)
    recordings: dict[str, str] = {}
    for manifest in (member for member in container.members if posixpath.basename(member) == MANIFEST):
        label = f"{container.path}/{manifest}"
        try:
            lines = container.prefix(manifest, None)[0].decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise UserError(f"{label} is not UTF-8 text; mend or remove it") from error
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            entry = read_entry(line, f"{label}, line {number}")
            file, recording = entry["file"], entry.get("recording")
            member = posixpath.normpath(posixpath.join(posixpath.dirname(manifest), file.replace("\\", "/")))
            if member not in members:
                skipped.append((member, f"named in {manifest} but not there"))
            elif recording is not None:
                if recordings.setdefault(member, recording) != recording:
                    raise UserError(f"{label}, line {number}: {file!r} has two recordings; mend the manifest")
    return recordings


def read_entry(line: str, where: str) -> dict[str, Any]:
    """A manifest's line, `where` as messages call it: an object with a "file", and "recording" as text if it has one;
    UserError: it is none."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON ({error}); mend or remove the manifest") from error
    if not isinstance(entry, dict) or not isinstance(entry.get("file"), str):
        raise UserError(f'{where} must be an object with "file"; mend or remove the manifest')
    recording = entry.get("recording")
    if recording is not None and (isinstance(recording, bool) or not isinstance(recording, (str, int))):
        raise UserError(f'{where}: "recording" must be a string or a whole number, not {recording!r}')
    return entry if recording is None else {**entry, "recording": str(recording)}


def _check_all(
    container: _Folder | _Zip, clips: Sequence[Clip], skipped: list[tuple[str, str]], progress: Progress | None
) -> tuple[list[Clip], list[AudioHeader]]:
    """The undamaged clips and their headers; the damaged go to `skipped`."""
    kept, headers, done = [], [], 0
    chunks = [clips[start : start + _CHECK_CHUNK] for start in range(0, len(clips), _CHECK_CHUNK)]
    with ThreadPoolExecutor(_CHECK_THREADS) as pool:
        for results in pool.map(lambda chunk: [(clip, _check(container, clip)) for clip in chunk], chunks):
            for clip, result in results:
                if isinstance(result, str):
                    skipped.append((clip.member, result))
                else:
                    kept.append(clip)
                    headers.append(result)
            done += len(results)
            if progress is not None:
                progress(done, len(clips))
    return kept, headers


def _check(container: _Folder | _Zip, clip: Clip) -> AudioHeader | str:
    """The header of a clip, or why it is skipped."""
    name = posixpath.basename(clip.member)
    try:
        header = check_header(*container.prefix(clip.member, HEADER_BYTES), name=name)
        return header if header is not None else read_header(container.source(clip.member), name=name)
    except AudioError as error:
        return str(error).removeprefix(f"{name}: ")


def _no_clip_message(path: Path, skipped: Sequence[tuple[str, str]]) -> str:
    line = (
        f"{path}: no clip found; looked for {SUFFIXES_SAID} "
        f"named like piano_3_Af_d_m_45.wav or shred___Af_d__000.wav, {len(skipped)} other files skipped"
    )
    if skipped:
        line += f" (the first: {skipped[0][0]}: {skipped[0][1]})"
    archives = [member for member, _ in skipped if member.lower().endswith(".zip")]
    return f"{line}; to read {archives[0]}, give its own path" if archives else line


def first_true(*objections: tuple[str, object]) -> str | None:
    """The first reason whose condition holds, or None."""
    return next((reason for reason, applies in objections if applies), None)


def unsafe_name(name: str) -> str | None:
    """Why a member's name must not be used as a path below a folder, or None where it may be."""
    return first_true(
        ("empty name or one with a NUL", not name or "\0" in name),
        ("backslash in the name", "\\" in name),
        ("absolute path", name.startswith("/") or re.match(r"[A-Za-z]:", name)),
        ("colon in the name", ":" in name),
        ("path that climbs out (..)", ".." in name.split("/")),
        ("control character in the name", any(ord(character) < 32 for character in name)),
    )


class _Folder:
    """Files below a folder. Folders behind links are entered, each once.

    Attributes:
        members: sorted names. skipped: (name, reason) of what is no usable member.
    """

    kind = "folder"

    def __init__(self, path: Path):
        self.path = path
        self.members: list[str] = []
        self.skipped: list[tuple[str, str]] = []
        for member, problem in walk_files(path):
            if member == "":
                raise UserError(f"{path}: {problem}")
            if "__MACOSX" in member.split("/")[:-1]:
                continue
            if problem is None:
                self.members.append(member)
            else:
                self.skipped.append((member, problem))
        self.members.sort()

    def source(self, member: str) -> Path:
        """What `core.audio.io` reads the member from."""
        return self.path / member

    def prefix(self, member: str, length: int | None) -> tuple[bytes, int]:
        """The first `length` bytes (None: all) of a member, and its whole size; AudioError: missing or damaged."""
        try:
            with open(self.path / member, "rb") as file:
                return file.read(length), os.fstat(file.fileno()).st_size
        except OSError as error:
            raise AudioError(f"{self.path / member}: cannot be read ({error.strerror or error})") from error

    def state(self, member: str) -> tuple[int, ...]:
        """The member's size, and in a zip its checksum."""
        return (os.path.getsize(self.path / member),)


class _Zip:
    """Members of a zip, stored or deflated, decoded in memory; nothing is written anywhere."""

    kind = "zip"

    def __init__(self, path: Path):
        self.path = path
        self.skipped: list[tuple[str, str]] = []
        # Offset, compression, packed size, size and checksum of each member.
        self._table: dict[str, tuple[int, int, int, int, int]] = {}
        try:
            status = os.stat(path)
            self._identity = (status.st_size, status.st_mtime_ns)
            with zipfile.ZipFile(path) as archive:
                members = archive.infolist()
        except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, ValueError, EOFError) as error:
            reason = f"is not a folder, and not a zip that can be read ({error})"
            raise UserError(f"{path} {reason}; give a folder of clips, a .zip of them, or a pack") from error
        except OSError as error:
            raise UserError(f"{path}: cannot be opened ({error.strerror})") from error
        for info in members:
            if info.is_dir():
                continue
            if objection := self._objection(info):
                self.skipped.append((info.filename, objection))
            else:
                sizes = (info.compress_size, info.file_size)
                self._table[info.filename] = (info.header_offset, info.compress_type, *sizes, info.CRC)
        self.members = sorted(self._table)
        self._start()

    def source(self, member: str) -> bytes:
        return self.prefix(member, None)[0]

    def prefix(self, member: str, length: int | None) -> tuple[bytes, int]:
        offset, method, packed, size, crc = self._table[member]
        label = f"{self.path}:{member}"
        head = self._read_at(offset, _LOCAL_HEADER.size)
        if len(head) < _LOCAL_HEADER.size or head[:4] != b"PK\3\4":
            raise AudioError(f"{label}: damaged archive, no member where the directory says")
        *_, n_name, n_extra = _LOCAL_HEADER.unpack(head)
        n_read = packed if length is None else min(packed, length)
        data = self._read_at(offset + _LOCAL_HEADER.size + n_name + n_extra, n_read)
        if len(data) < n_read:
            raise AudioError(f"{label}: truncated archive")
        if method == zipfile.ZIP_DEFLATED:
            try:
                # One byte beyond the declared size shows a member that lies about it.
                data = zlib.decompressobj(-15).decompress(data, size + 1 if length is None else length)
            except zlib.error as error:
                raise AudioError(f"{label}: damaged in the archive ({error})") from error
        if length is None and (len(data) != size or zlib.crc32(data) != crc):
            raise AudioError(f"{label}: damaged in the archive (size or checksum differs)")
        return data, size

    def state(self, member: str) -> tuple[int, ...]:
        return self._table[member][3:]

    def __getstate__(self) -> dict:
        return {k: v for k, v in self.__dict__.items() if k not in ("_file", "_lock")}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._start()

    def __del__(self):
        with contextlib.suppress(AttributeError):
            self._file.close()

    def _start(self) -> None:
        try:
            self._file = open(self.path, "rb", buffering=0)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be opened ({error.strerror})") from error
        status = os.fstat(self._file.fileno())
        if (status.st_size, status.st_mtime_ns) != self._identity:
            raise UserError(f"{self.path} has changed since it was opened; open it again")
        self._lock = threading.Lock()

    def _read_at(self, offset: int, length: int) -> bytes:
        if hasattr(os, "pread"):
            # Without a file position, threads and forked children cannot disturb one another.
            parts = []
            while length > 0 and (part := os.pread(self._file.fileno(), length, offset)):
                parts.append(part)
                offset, length = offset + len(part), length - len(part)
            return b"".join(parts)
        with self._lock:
            self._file.seek(offset)
            return self._file.read(length)

    def _objection(self, info: zipfile.ZipInfo) -> str | None:
        method, is_stored = info.compress_type, info.compress_type == zipfile.ZIP_STORED
        unknown_method = f"compression method {method}; only stored and deflated members are read"
        return unsafe_name(info.orig_filename) or first_true(
            ("symbolic link", stat.S_ISLNK(info.external_attr >> 16)),
            ("encrypted", info.flag_bits & ENCRYPTED),
            (unknown_method, not is_stored and method != zipfile.ZIP_DEFLATED),
            ("declared sizes contradict one another", is_stored and info.compress_size != info.file_size),
            (f"declares {info.file_size} bytes, more than {MEMBER_LIMIT}", info.file_size > MEMBER_LIMIT),
            ("second member of the same name", info.filename in self._table),
        )
