"""Sets to train on: rows of 4 s, and which chords sound in each from when to when.

A set is a folder of parts of at most `PART_ROWS` rows, each whole or absent, and of `set.json`, which says how it was
rendered and how many parts it has:

    000.npy    int16 (rows, 64000), 16 kHz mono; float is this over 32768
    000.jsonl  a row's {"kind": "triad", "recording": "7-123", "chords": [[0.21, 3.1, "A:min7/b3"], ...]} a line

Labels are in Harte's syntax, "N" and "X" among them; what sounds at other times is not known. Rows of a song share its
`recording`, follow one another in time, and their kind begins with "song".
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from triadbench.core.constants import CLIP_SECONDS
from triadbench.core.data.chord_labels import Stretch
from triadbench.core.data.clips import Dataset
from triadbench.core.data.pack import open_rows
from triadbench.core.errors import UserError
from triadbench.core.models.spelling import UNKNOWN, read_harte
from triadbench.core.models.targets import label_of

SET, FORMAT, VERSION = "set.json", "triadbench-excerpts", 1
PART_ROWS = 2000
_WAY_OUT = "render the set again"


class Entry(NamedTuple):
    """What a row holds: its kind, the recording that it is of, and the chords that sound, by time within the row."""

    kind: str
    recording: str
    chords: list[Stretch]


class Excerpts:
    """Rows of 4 s, on disk until they are read.

    Attributes:
        path: where the set was opened. entries: one a row.
    """

    def __init__(self, path: Path, entries: Sequence[Entry], read: Callable[[int], np.ndarray], digest: str):
        """`read` gives a row (64000,) by its number, float32 or int16."""
        self.path, self.entries = path, list(entries)
        self._read, self._digest = read, digest

    def __len__(self) -> int:
        return len(self.entries)

    def read_many(
        self, rows: Sequence[int] | np.ndarray, start: Sequence[int] | np.ndarray, samples: int
    ) -> np.ndarray:
        """float32 (n, samples) of `rows` (n,), of each from its sample `start` (n,) on."""
        out = np.empty((len(rows), samples), dtype=np.float32)
        for waveform, row, first in zip(out, rows, start, strict=True):
            piece = self._read(int(row))[first : first + samples]
            waveform[:] = piece if piece.dtype == np.float32 else piece * np.float32(1 / 32768)
        return out

    def digest(self) -> str:
        """SHA-256 of how the set was made and of what its rows hold, not of every sample."""
        return self._digest


def is_excerpts(path: Path) -> bool:
    """True for a folder that is such a set, finished or not."""
    return (path / SET).is_file()


def open_excerpts(path: Path) -> Excerpts:
    """Open a set; UserError: it is none, damaged, or not finished."""
    description = read_description(path)
    digest, entries, parts = hashlib.sha256(json.dumps(description).encode()), [], []
    names = [path / f"{k:03d}" for k in range(description["parts"])]
    if missing := [name for name in names if not name.with_suffix(".jsonl").exists()]:
        unfinished = f"{path} is not finished, {len(missing)} of {len(names)} parts are missing"
        raise UserError(f"{unfinished}; the command that began it goes on")
    for name in names:
        lines = name.with_suffix(".jsonl")
        try:
            text = lines.read_text("utf-8")
            read = [_read_entry(line) for line in text.splitlines()]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{lines}: damaged ({error}); {_WAY_OUT}") from error
        digest.update(text.encode())
        parts.append(np.asarray(open_rows(name.with_suffix(".npy"), "r")))
        if len(parts[-1]) != len(read):
            raise UserError(f"{lines}: {len(read)} lines for {len(parts[-1])} rows; {_WAY_OUT}")
        entries += read
    ends = np.cumsum([len(part) for part in parts])

    def read_row(row: int) -> np.ndarray:
        part = int(np.searchsorted(ends, row, side="right"))
        return parts[part][row - ends[part]]

    return Excerpts(path, entries, read_row, digest.hexdigest())


def _read_entry(line: str) -> Entry:
    row = json.loads(line)
    entry = Entry(str(row["kind"]), str(row["recording"]), [(a, b, label) for a, b, label in row["chords"]])
    for start, end, label in entry.chords:
        if not (start >= 0 and end <= CLIP_SECONDS):  # NaN is neither
            raise ValueError(f"{label} from {start} to {end} s, expected times within {CLIP_SECONDS:g} s")
        if label != UNKNOWN:
            read_harte(label)
    return entry


def read_description(path: Path) -> dict:
    """What `set.json` says; UserError: there is none, or it is another program's."""
    try:
        description = json.loads((path / SET).read_text("utf-8"))
        stated = description["format"], description["version"]
        if stated != (FORMAT, VERSION) or not isinstance(description["parts"], int):
            raise ValueError(f"format {description['format']}, version {description['version']}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path / SET}: not the description of a set to train on ({error}); {_WAY_OUT}") from error
    return description


def of_dataset(dataset: Dataset) -> Excerpts:
    """The clips of a data set as rows, labelled by their file names."""
    entries = [
        Entry("triad", str(clip.recording or clip.member), [(0.0, CLIP_SECONDS, label_of(clip.name))])
        for clip in dataset.clips
    ]
    return Excerpts(dataset.path, entries, dataset.read, dataset.digest())
