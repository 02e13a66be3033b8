"""A labelled clip, and what every data set of clips offers, however it is stored."""

from __future__ import annotations

import abc
import hashlib
import json
import posixpath
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from triadbench.core.audio.header import AudioHeader
from triadbench.core.audio.io import AUDIO_SUFFIXES, SUFFIXES_SAID
from triadbench.core.constants import CLIP_SAMPLES
from triadbench.core.errors import UserError
from triadbench.core.models.chords import ClipName

Progress = Callable[[int, int | None], None]
"""Called with what is done and how much there is in all, where that is known."""
Skipped = Iterable[tuple[str, str]]
"""(name, reason) of what is left out."""


@dataclass(frozen=True)
class Clip:
    """Labels, path below the set's root (with "/"), and the id of the recording of which a manifest says it varies."""

    name: ClipName
    member: str
    recording: str | None = None


def parse_member(member: str) -> ClipName:
    """Labels of a file of a data set by its path; UserError: not a sound, or not one of the set's names."""
    stem, suffix = posixpath.splitext(posixpath.basename(member))
    if suffix.lower() not in AUDIO_SUFFIXES:
        raise UserError(f"not a sound ({suffix or 'no suffix'}; expected {SUFFIXES_SAID})")
    return ClipName.parse(stem)


class Dataset(abc.ABC):
    """Labelled clips that can be read by index, from any thread, and after fork or pickling.

    Attributes:
        path: where it was opened. kind: "folder", "zip" or "pack".
        clips: sorted by member (a pack keeps its own order). skipped: list of (member, reason).
        rows: int16 (n, 64000), the memory map of a pack; None for other kinds.
    """

    rows: np.ndarray | None = None

    def __init__(self, path: Path, kind: str, clips: Sequence[Clip], skipped: Skipped = ()):
        self.path, self.kind = path, kind
        self.clips, self.skipped = list(clips), list(skipped)

    def __len__(self) -> int:
        return len(self.clips)

    def __repr__(self) -> str:
        return f"Dataset({str(self.path)!r}, {self.kind}, {len(self)} clips, {len(self.skipped)} skipped)"

    @abc.abstractmethod
    def read(self, index: int) -> np.ndarray:
        """Clip `index` as (64000,) float32, 16 kHz mono; AudioError: the file cannot be read."""

    def read_many(self, indices: Iterable[int]) -> np.ndarray:
        """Clips `indices` as (n, 64000) float32; the fast way to a batch of a pack."""
        indices = list(indices)
        clips = np.empty((len(indices), CLIP_SAMPLES), dtype=np.float32)
        for row, index in enumerate(indices):
            clips[row] = self.read(index)
        return clips

    @abc.abstractmethod
    def header(self, index: int) -> AudioHeader:
        """Rate, channels and length of the file of clip `index`; read now if it was not checked at opening."""

    @abc.abstractmethod
    def file_bytes(self, index: int) -> bytes:
        """The stored bytes of clip `index`: its whole file, or its row of a pack."""

    @abc.abstractmethod
    def subset(self, indices: Sequence[int]) -> Dataset:
        """The clips `indices`, in that order; of a pack only its first ones, whose rows need not be copied."""

    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        """Class indices of every clip: types (n,) and roots (n,), int64."""
        labels = np.array([(clip.name.type, clip.name.root) for clip in self.clips], dtype=np.int64).reshape(-1, 2)
        return labels[:, 0].copy(), labels[:, 1].copy()

    def digest(self) -> str:
        """SHA-256 of the listing: names, recordings and sizes (for a zip also checksums), not of every sample."""
        digest = hashlib.sha256()
        for clip in self.clips:
            digest.update(json.dumps([clip.member, clip.recording, *self._state(clip.member)]).encode())
        return digest.hexdigest()

    def _state(self, member: str) -> tuple[int, ...]:
        """What tells apart two files of the same name without reading them."""
        return ()
