"""Where the files of a data set lie: a folder or a zip.

Reads keep no position, so that threads, forked processes and unpickled copies can use one container together.
"""

import contextlib
import os
import re
import stat
import struct
import threading
import zipfile
import zlib
from pathlib import Path
from typing import Protocol

from triadbench.core.audio.io import AudioError
from triadbench.core.errors import UserError
from triadbench.core.files import walk_files

MEMBER_LIMIT = 1 << 30
"""Bytes of one member, unpacked: hours of 16 kHz sound fit, a decompression bomb does not."""

_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
ENCRYPTED = 0x1


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


class Container(Protocol):
    """The files of a data set, read by member name.

    Attributes:
        path: of the folder or zip. kind: "folder" or "zip".
        members: sorted names. skipped: (name, reason) of what is no usable member.
    """

    path: Path
    kind: str
    members: list[str]
    skipped: list[tuple[str, str]]

    def source(self, member: str) -> Path | bytes:
        """What `core.audio.io` reads the member from."""

    def prefix(self, member: str, length: int | None) -> tuple[bytes, int]:
        """The first `length` bytes (None: all) of a member, and its whole size.

        Raises:
            AudioError: missing or damaged.
        """

    def state(self, member: str) -> tuple[int, ...]:
        """The member's size, and in a zip its checksum."""


class Folder:
    """Files below a folder. Folders behind links are entered, each once."""

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
        return self.path / member

    def prefix(self, member: str, length: int | None) -> tuple[bytes, int]:
        try:
            with open(self.path / member, "rb") as file:
                return file.read() if length is None else file.read(length), os.fstat(file.fileno()).st_size
        except OSError as error:
            raise AudioError(f"{self.path / member}: cannot be read ({error.strerror or error})") from error

    def state(self, member: str) -> tuple[int, ...]:
        return (os.path.getsize(self.path / member),)


class Zip:
    """Members of a zip, stored or deflated, decoded in memory; nothing is written anywhere."""

    kind = "zip"

    def __init__(self, path: Path):
        self.path = path
        self.skipped: list[tuple[str, str]] = []
        # Offset, compression, packed size, size and checksum of each member.
        self._table: dict[str, tuple[int, int, int, int, int]] = {}
        self._read_table()
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
        start = offset + _LOCAL_HEADER.size + n_name + n_extra
        n_read = packed if length is None else min(packed, length)
        data = self._read_at(start, n_read)
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

    def _read_table(self) -> None:
        try:
            status = os.stat(self.path)
            self._identity = (status.st_size, status.st_mtime_ns)
            with zipfile.ZipFile(self.path) as archive:
                members = archive.infolist()
        except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, ValueError, EOFError) as error:
            reason = f"is not a folder, and not a zip that can be read ({error})"
            raise UserError(f"{self.path} {reason}; give a folder of clips, a .zip of them, or a pack") from error
        except OSError as error:
            raise UserError(f"{self.path}: cannot be opened ({error.strerror})") from error
        for info in members:
            if info.is_dir():
                continue
            objection = self._objection(info)
            if objection is not None:
                self.skipped.append((info.filename, objection))
            else:
                sizes = (info.compress_size, info.file_size)
                self._table[info.filename] = (info.header_offset, info.compress_type, *sizes, info.CRC)

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
