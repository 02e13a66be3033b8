"""Compiled code on disk, for the CPU's and the GPU's kernels: a second process that needs it compiles nothing.

A file's name is a digest of all that the code depends on: settings, the sources that produce it, and the compilers'
versions; an edit therefore never meets old code. A file holds the SHA-256 of the code in hexadecimal, a line feed and
the code, so that a damaged file counts as missing.
"""

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import os
import sys
from collections.abc import Callable
from pathlib import Path

from triadbench.kernels.scratch import scratch_folder

_KERNELS = Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class ObjectCache:
    """The files of one kind of compiled code.

    Attributes:
        name: how the files' names begin. sources: the files, relative to kernels/, whose text decides what code comes
            out. packages: the distributions whose versions do.
    """

    name: str
    sources: tuple[str, ...]
    packages: tuple[str, ...]

    def key(self, *settings: object) -> str:
        """The stem of a file's name, for settings whose `repr` says all about them."""
        return f"{self.name}-{hashlib.sha256(repr((settings, self._origin)).encode()).hexdigest()[:32]}"

    @functools.cached_property
    def sources_digest(self) -> str:
        texts = [(_KERNELS / source).read_bytes() for source in self.sources]
        return hashlib.sha256(b"\0".join(texts)).hexdigest()

    @functools.cached_property
    def _origin(self) -> tuple:
        return self.sources_digest, [*map(_version, self.packages)], sys.version_info[:2]

    def code(self, file_name: str, compile_code: Callable[[], bytes], read_only: Path | None = None) -> bytes:
        """The code in the file of this name (a key and a suffix), else in the file `read_only`; where there is neither
        it is compiled, and kept under the name."""
        for file in (*(folder / file_name for folder in folders()), *([read_only] if read_only else ())):
            if (code := read(file)) is not None:
                return code
        code = compile_code()
        for folder in folders():  # the first that takes it; if none does, the next process compiles again: no error
            with contextlib.suppress(OSError):
                write(folder / file_name, code)
                break
        return code


def read(file: Path) -> bytes | None:
    """The code in a file; None where the file is missing or damaged."""
    with contextlib.suppress(OSError):
        digest, _, code = file.read_bytes().partition(b"\n")
        if hashlib.sha256(code).hexdigest().encode() == digest:
            return code
    return None


def write(file: Path, code: bytes) -> None:
    """Make or replace a file that `read` understands, at once: another process may be writing the same. May raise
    OSError, and then leaves nothing behind."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(file.parent) as folder:
        (folder / file.name).write_bytes(hashlib.sha256(code).hexdigest().encode() + b"\n" + code)
        os.replace(folder / file.name, file)


def folders() -> list[Path]:
    """Where the files may lie, best first: NUMBA_CACHE_DIR, else beside the sources or in the user's cache."""
    if chosen := os.environ.get("NUMBA_CACHE_DIR"):
        return [Path(chosen)]
    user_cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return [_KERNELS / "__pycache__", Path(user_cache) / "triadbench"]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"
