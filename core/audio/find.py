"""The audio files that a user's paths name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from triadbench.core.audio.io import AUDIO_SUFFIXES

STDIN = "-"


def find_files(paths: Iterable[str | os.PathLike]) -> list[str]:
    """Files as given, "-" for standard input as well; folders with every audio file below them, sorted, hidden ones
    left out. Links to folders are followed, but no folder is entered twice.

    A missing file, a folder without any audio file, and a folder that cannot be read are left in the list, to be
    reported with the others.
    """
    files: list[str] = []
    for path in map(os.fspath, paths):
        if path != STDIN and os.path.isdir(path):
            files += list(_below(str(Path(path)))) or [path]
        else:
            files.append(path)
    return files


def _below(folder: str) -> Iterator[str]:
    seen: set[tuple[int, int]] = set()
    waiting = [folder]  # a stack, for folders may lie deeper than Python's calls may
    while waiting:
        path = waiting.pop()
        if not os.path.isdir(path):
            yield path
            continue
        try:
            status = os.stat(path)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(path) as entries:
                kept = sorted((entry.name for entry in entries if _is_wanted(entry)), reverse=True)
        except OSError:
            yield path
            continue
        waiting += kept if path == "." else [os.path.join(path, name) for name in kept]


def _is_wanted(entry: os.DirEntry) -> bool:
    if entry.name.startswith("."):
        return False
    try:
        return entry.is_dir() or (entry.name.lower().endswith(AUDIO_SUFFIXES) and entry.is_file())
    except OSError:  # a link to itself
        return False
