"""Sounds that visitors send: their limits, and mistakes in words for the visitor."""

import logging
from dataclasses import dataclass
from pathlib import Path

from triadbench.core.audio.io import AudioError, read_header
from triadbench.core.errors import UserError
from triadbench.export.songs import files

NAME = "this file"  # what messages call an upload
_MANY_CHANNELS = 64
_log = logging.getLogger("triadbench.app")


@dataclass(frozen=True)
class Limits:
    """What a visitor may send at most: megabytes of a file, minutes of a song."""

    max_mb: float = 100.0
    max_minutes: float = 30.0


@dataclass(frozen=True)
class LengthLimit:
    """Longest sound that is taken, and what a visitor can do with a longer one."""

    seconds: float
    way_out: str

    def check(self, seconds: float, sound: str = "this sound") -> None:
        """Raises UserError if so many seconds are too long."""
        if seconds > self.seconds + 0.001:
            raise UserError(f"{sound} is longer than {clock(self.seconds)}: {self.way_out}")


def check_upload(path: str | None, max_mb: float, limit: LengthLimit) -> str:
    """The path of an upload that may be read; the length that it states is judged before anything is decoded.

    Raises:
        UserError: nothing was sent, it is too large or too long, or no sound.
    """
    if not path:
        raise UserError("no sound yet: record one, drop a file, or choose an example")
    size = Path(path).stat().st_size
    if size > max_mb * 1e6:
        raise UserError(f"{NAME} has {size / 1e6:.0f} MB; at most {max_mb:g} MB are taken")
    header = read_header(path, name=NAME)
    if header.channels > _MANY_CHANNELS:
        raise UserError(f"{NAME} has {header.channels} channels; at most {_MANY_CHANNELS} are taken")
    if header.frames is not None:
        seconds = header.frames / header.sample_rate
        limit.check(seconds, f"this sound lasts {clock(seconds)} and")
    return path


def visitor_message(error: Exception) -> str:
    """One line for the visitor. An error that is no mistake of theirs is logged in full, and not shown."""
    if not isinstance(error, UserError):
        _log.error("an answer failed", exc_info=error)
        return "something went wrong here, and was noted in the server's log; try another file"
    line = " ".join(str(error).split())
    return f"{line.rstrip('.')}. Try a wav, flac, ogg or mp3 file" if isinstance(error, AudioError) else line


def clock(seconds: float) -> str:
    """4:05, or 1:02:03 from an hour on."""
    return files.clock(int(seconds)).removesuffix(".00")
