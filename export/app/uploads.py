"""A visitor's clip: checked, read, and answered for, with what the page needs to show of it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from triadbench.core.audio.io import AudioError, iter_blocks, read_header
from triadbench.core.constants import SAMPLE_RATE
from triadbench.core.errors import UserError
from triadbench.export.predict.bulk import HOP_S, WindowVotes, loudness, windows

CLIP_LIMIT_S = 60.0
ALTERNATIVES = 5
_MANY_CHANNELS = 64


@dataclass(frozen=True)
class Limits:
    """Of what a visitor may send: megabytes of a file, minutes of a song."""

    max_mb: float = 100.0
    max_minutes: float = 30.0


@dataclass(frozen=True)
class Heard:
    """Attributes:
    answer: as of `export.predict.bulk.WindowVotes.result`.
    window: float32 (64000,), the loudest that the model was given. start_s: where it begins.
    read_ms, model_ms: what reading the file and answering took.
    """

    answer: dict
    window: np.ndarray
    start_s: float
    read_ms: float
    model_ms: float


def checked(path: str | None, limits: Limits, longest_s: float, way_out: str) -> str:
    """The path of an upload that may be read; its promised length is judged before anything is decoded.

    Raises:
        UserError: nothing was sent, it is too large or too long, or no sound.
    """
    if not path:
        raise UserError("no sound yet: record one, drop a file, or choose an example")
    size = Path(path).stat().st_size
    if size > limits.max_mb * 1e6:
        raise UserError(f"this file has {size / 1e6:.0f} MB; at most {limits.max_mb:g} MB are taken")
    header = read_header(path, name="this file")
    if header.channels > _MANY_CHANNELS:
        raise UserError(f"this file has {header.channels} channels; at most {_MANY_CHANNELS} are taken")
    if header.frames is not None and header.frames / header.sample_rate > longest_s + 0.001:
        raise UserError(_too_long(header.frames / header.sample_rate, longest_s, way_out))
    return path


def until(blocks: Iterable[np.ndarray], longest_s: float, way_out: str) -> Iterator[np.ndarray]:
    """The blocks themselves, for files whose header does not tell their length, or lies.

    Raises:
        UserError: there is more than `longest_s`.
    """
    done = 0
    for block in blocks:
        done += len(block)
        check_length(done / SAMPLE_RATE, longest_s, way_out)
        yield block


def check_length(seconds: float, longest_s: float, way_out: str) -> None:
    """Raises UserError where so much has been heard that the sound is too long."""
    if seconds > longest_s + 0.001:
        raise UserError(_too_long(None, longest_s, way_out))


def hear(path: str | None, predictor, limits: Limits) -> Heard:
    """The chord of a clip of at most a minute; a longer one than 4 s is heard in windows, as `infer` does.

    Raises:
        UserError: as `checked`, or the sound is damaged.
    """
    begin = time.perf_counter()
    way_out = "drop it on the tab Song"
    path = checked(path, limits, CLIP_LIMIT_S, way_out)
    votes = WindowVotes()
    blocks = until(iter_blocks(path, CLIP_LIMIT_S / 4, name="this file"), CLIP_LIMIT_S, way_out)
    batch = np.stack(list(windows(votes.counted(blocks))))
    read = time.perf_counter()
    shares, scores = loudness(batch), predictor(batch)
    for joint, share, silent in zip(scores.joint, shares, scores.silent, strict=True):
        votes.add(joint, float(share), bool(silent))
    answer = votes.result(ALTERNATIVES)
    done = time.perf_counter()
    loudest = int(shares.argmax())
    return Heard(answer, batch[loudest], loudest * HOP_S, 1e3 * (read - begin), 1e3 * (done - read))


def friendly(error: Exception) -> str:
    """One line for the visitor. What is no mistake of theirs is told without its inner life."""
    if isinstance(error, UserError):
        text = " ".join(str(error).split())
        return text if not isinstance(error, AudioError) else f"{text.rstrip('.')}. Try a wav, flac, ogg or mp3 file"
    return "something went wrong here, and was noted in the server's log; try another file"


def _too_long(seconds: float | None, longest_s: float, way_out: str) -> str:
    told = "this sound" if seconds is None else f"this sound lasts {clock(seconds)} and"
    return f"{told} is longer than {clock(longest_s)}: {way_out}"


def clock(seconds: float) -> str:
    """4:05, or 1:02:03 from an hour on."""
    whole = int(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
