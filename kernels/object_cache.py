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
import tempfile
from collections.abc import Callable
from pathlib import Path

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
    def _origin(self) -> tuple:
        texts = [(_KERNELS / source).read_bytes() for source in self.sources]
        return hashlib.sha256(b"\0".join(texts)).hexdigest(), [*map(_version, self.packages)], sys.version_info[:2]

    def code(self, file_name: str, compile_code: Callable[[], bytes]) -> bytes:
        """The code in the file of this name (a key and a suffix); where there is none it is compiled, and kept."""
        for folder in folders():
            with contextlib.suppress(OSError):
                digest, _, code = (folder / file_name).read_bytes().partition(b"\n")
                if hashlib.sha256(code).hexdigest().encode() == digest:
                    return code
        code = compile_code()
        _write(file_name, code)
        return code


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


def _write(file_name: str, code: bytes) -> None:
    """Into the first folder that takes the file. If none does, the next process compiles again: that is no error."""
    for folder in folders():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = tempfile.NamedTemporaryFile(dir=folder, delete=False)
        except OSError:
            continue
        try:
            with file:
                file.write(hashlib.sha256(code).hexdigest().encode() + b"\n" + code)
            os.chmod(file.name, 0o644)
            os.replace(file.name, folder / file_name)  # atomic: another process may be writing the same file
            return
        except OSError:
            with contextlib.suppress(OSError):
                os.remove(file.name)
