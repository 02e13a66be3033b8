"""Names the chords in what visitors send: clips at once, songs in turn; and tells visitors what cannot be used."""

import contextlib
import logging
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from triadbench.core.audio.io import iter_blocks, read_header
from triadbench.core.constants import SAMPLE_RATE, usable_cores
from triadbench.core.errors import UserError
from triadbench.export.app.predictors import Predictors
from triadbench.export.predict.bulk import HOP_S, WindowVotes, loudness, windows
from triadbench.export.predict.predictor import ChordPredictor
from triadbench.export.songs import files
from triadbench.export.songs.timeline import Timeline, find_timeline

_NAME = "this file"  # what messages call an upload
_MANY_CHANNELS = 64
_ALTERNATIVES = 5
_log = logging.getLogger("triadbench.app")


class LengthLimit(NamedTuple):
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
    if (size := Path(path).stat().st_size) > max_mb * 1e6:
        raise UserError(f"{_NAME} has {size / 1e6:.0f} MB; at most {max_mb:g} MB are taken")
    header = read_header(path, name=_NAME)
    if header.channels > _MANY_CHANNELS:
        raise UserError(f"{_NAME} has {header.channels} channels; at most {_MANY_CHANNELS} are taken")
    if header.frames is not None:
        seconds = header.frames / header.sample_rate
        limit.check(seconds, f"this sound lasts {clock(seconds)} and")
    return path


def visitor_message(error: Exception) -> str:
    """One line for the visitor. An error that is no mistake of theirs is logged in full, and not shown."""
    if not isinstance(error, UserError):
        _log.error("an answer failed", exc_info=error)
        return "something went wrong here, and was noted in the server's log; try another file"
    return " ".join(str(error).split())


def clock(seconds: float) -> str:
    """4:05, or 1:02:03 from an hour on."""
    return files.clock(int(seconds)).removesuffix(".00")


_CLIP = LengthLimit(60.0, "drop it on the tab Song")


class SongQueue:
    """One song at a time, in the order of arrival, so that no long song keeps visitors from clips.

    Args:
        max_waiting: songs that wait at most; the visitor of one more is asked to come again.
    """

    def __init__(self, max_waiting: int = 8):
        self._max_waiting, self._closed = max_waiting, False
        self._line: list[object] = []
        self._changed = threading.Condition()

    def close(self, patience_s: float = 1.0) -> None:
        """Send away who waits, and have `check` stop the song at work; returns once all are gone, or patience is."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._line, patience_s)

    def check(self) -> None:
        """Raises UserError once closed; the song at work calls it now and then."""
        if self._closed:
            raise UserError("the app is being closed; come again when it is back")

    @contextlib.contextmanager
    def turn(self, report: Callable[[int], None] | None = None) -> Iterator[None]:
        """A block that runs when it is its turn.

        Args:
            report: called with the number of songs before this one, whenever it changes.

        Raises:
            UserError: too many wait, or the app is being closed.
        """
        ticket = object()
        with self._changed:
            self.check()
            if len(self._line) > self._max_waiting:
                raise UserError(f"{len(self._line)} songs are before yours, and no more can wait; come again soon")
            self._line.append(ticket)
        place = None
        try:
            while place != 0:
                with self._changed:
                    while not self._closed and self._line.index(ticket) == place:
                        self._changed.wait()
                    self.check()
                    place = self._line.index(ticket)
                if place and report is not None:
                    report(place)
            yield
        finally:
            with self._changed:
                self._line.remove(ticket)
                self._changed.notify_all()


class ClipAnswer(NamedTuple):
    """The chord of a clip, and what the page shows of it."""

    chord: dict  # as of `export.predict.bulk.WindowVotes.result`
    predictor: ChordPredictor
    window: np.ndarray  # float32 (64000,), the loudest that the model was given
    start_s: float  # of the window
    read_ms: float
    model_ms: float


class SongAnswer(NamedTuple):
    """The timeline of a song, paths of a file of every format, the time taken, and what was wrong with the sound."""

    timeline: Timeline
    files: list[str]
    seconds: float
    notes: list[str]


class Recogniser:
    """Answers for all visitors.

    Args:
        predictors: of the menus.
        folder: for files of visitors; each answer gets a random folder inside. Old files there are deleted.
        max_mb, max_minutes: megabytes of a file and minutes of a song that a visitor may send at most.

    Attributes:
        at_once: clips that are answered at the same time.
        songs: the queue of songs; closed when the app is.
    """

    def __init__(self, predictors: Predictors, folder: Path, max_mb: float, max_minutes: float):
        self.predictors, self._folder, self.max_mb = predictors, folder, max_mb
        self._song_limit = LengthLimit(60 * max_minutes, "cut it, or use `infer --timeline` on the command line")
        self.at_once = max(2, usable_cores() // predictors.threads)
        self.songs = SongQueue()

    def name_clip(
        self, audio: str | None, model: str | None, provider: str | None, chords: str | None = None
    ) -> ClipAnswer:
        """The chord of a clip of at most a minute; one longer than 4 s is cut into windows, as by `infer`.

        Raises:
            UserError: as `check_upload`, or the sound is damaged.
        """
        predictor = self.predictors.get(model, provider, chords)
        begin = time.perf_counter()
        path = check_upload(audio, self.max_mb, _CLIP)
        votes, clips = WindowVotes(), []
        blocks = iter_blocks(path, _CLIP.seconds / 4, name=_NAME, note=votes.notes.append)
        for window in windows(votes.counted(blocks)):
            _CLIP.check(votes.samples / SAMPLE_RATE)  # a header may state no length, or lie
            clips.append(window)
        batch, read = np.stack(clips), time.perf_counter()
        levels, scores = loudness(batch), predictor(batch)
        for row, level in enumerate(levels):
            votes.add(scores, row, float(level))
        chord = votes.result(_ALTERNATIVES)
        model_ms, loudest = 1e3 * (time.perf_counter() - read), int(levels.argmax())
        return ClipAnswer(chord, predictor, batch[loudest], loudest * HOP_S, 1e3 * (read - begin), model_ms)

    def name_song(
        self,
        audio: str | None,
        model: str | None,
        provider: str | None,
        progress: Callable[[float, float | None], None] | None = None,
        report_place: Callable[[int], None] | None = None,
        chords: str | None = None,
    ) -> SongAnswer:
        """The chords of a song over time, when it is its turn (see `SongQueue.turn` for `report_place`).

        Raises:
            UserError: as `check_upload`, `SongQueue.turn` and `find_timeline`.
        """
        predictor = self.predictors.get(model, provider, chords)
        path = check_upload(audio, self.max_mb, self._song_limit)

        def go_on(done_s: float, total_s: float | None) -> None:
            self.songs.check()
            self._song_limit.check(done_s)
            if progress is not None:
                progress(done_s, total_s)

        with self.songs.turn(report_place):
            begin, notes = time.perf_counter(), list[str]()
            timeline = find_timeline(path, predictor, progress=go_on, name=_NAME, note=notes.append)
            stem = re.sub(r"[^\w. -]", "_", Path(path).stem)[:60].strip(". ") or "song"
            folder = self.new_folder()
            paths = [str(folder / f"{stem}.{suffix}") for suffix in files.FORMATS]
            for output in paths:
                files.write(timeline, output)
            return SongAnswer(timeline, paths, time.perf_counter() - begin, notes)

    def new_folder(self) -> Path:
        """A random folder for one answer's files."""
        return Path(tempfile.mkdtemp(prefix="answer-", dir=self._folder))
