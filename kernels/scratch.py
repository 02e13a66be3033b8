"""Folders for what is unfinished: removed at the end of their block, and after SIGKILL by the next process that makes
one in the same place.

A folder belongs to the process that holds a lock (flock) on it. The system lets go of the lock when that process ends,
however it ends, so a folder that can be locked has no owner and may go. Where a disk or a system has no such locks,
nothing is swept.
"""

import contextlib
import functools
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_NAME = re.compile(r"\.?triadbench-[a-z0-9_]{8}\.scratch")


@contextlib.contextmanager
def scratch_folder(parent: Path | None = None) -> Iterator[Path]:
    """Yield a new folder, hidden in `parent` or else where temporary files belong (TMPDIR). May raise OSError."""
    prefix = "triadbench-" if parent is None else ".triadbench-"
    parent = Path(parent or tempfile.gettempdir()).absolute()
    _sweep(parent)
    folder = lock = None
    while folder is None or not folder.is_dir():  # a sweep may take it before it is locked
        folder = Path(tempfile.mkdtemp(prefix=prefix, suffix=".scratch", dir=parent))
        lock = _lock(folder, wait=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


@functools.cache  # once is enough: what dies later is the next process's to sweep
def _sweep(parent: Path) -> None:
    """Remove the folders in `parent` whose owners have died; those of other users stay."""
    with contextlib.suppress(OSError):
        for name in filter(_NAME.fullmatch, os.listdir(parent)):
            lock = _lock(parent / name, wait=False)
            if lock is not None:
                if os.fstat(lock).st_uid == os.geteuid():
                    shutil.rmtree(parent / name, ignore_errors=True)
                os.close(lock)


def _lock(folder: Path, wait: bool) -> int | None:
    """Lock a folder: the open descriptor that holds the lock. None where it is locked already, is gone, or no lock is
    to be had."""
    if fcntl is None:
        return None
    lock = None
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        return lock
    except OSError:
        if lock is not None:
            os.close(lock)
        return None
