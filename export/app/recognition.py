"""Names the chords in what visitors send: clips at once, songs in turn."""

import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from triadbench.core.audio.io import iter_blocks
from triadbench.core.constants import SAMPLE_RATE
from triadbench.export.app.predictors import Predictors
from triadbench.export.app.song_queue import SongQueue
from triadbench.export.app.uploads import NAME, LengthLimit, Limits, check_upload
from triadbench.export.predict.bulk import HOP_S, WindowVotes, loudness, windows
from triadbench.export.predict.predictor import ChordPredictor
from triadbench.export.songs.files import FORMATS, write
from triadbench.export.songs.timeline import Timeline, find_timeline

ALTERNATIVES = 5
_CLIP = LengthLimit(60.0, "drop it on the tab Song")


@dataclass(frozen=True)
class ClipAnswer:
    """The chord of a clip, and what the page shows of it.

    Attributes:
        chord: as of `export.predict.bulk.WindowVotes.result`.
        predictor: what gave the answer.
        window: float32 (64000,), the loudest that the model was given.
        start_s: where the window begins.
        read_ms, model_ms: time of reading the file and of answering.
    """

    chord: dict
    predictor: ChordPredictor
    window: np.ndarray
    start_s: float
    read_ms: float
    model_ms: float


@dataclass(frozen=True)
class SongAnswer:
    """The timeline of a song, paths of a file of every format, and the time taken."""

    timeline: Timeline
    files: list[str]
    seconds: float


class Recogniser:
    """Answers for all visitors.

    Args:
        predictors: of the menus.
        limits: of what is sent.
        folder: for files of visitors; each answer gets a random folder inside. Old files there are deleted.
        at_once: clips that are answered at the same time.

    Attributes:
        songs: the queue of songs; closed when the app is.
    """

    def __init__(self, predictors: Predictors, limits: Limits, folder: Path, at_once: int = 2):
        self.predictors, self.limits, self.folder, self.at_once = predictors, limits, folder, at_once
        self.songs = SongQueue()

    def name_clip(self, audio: str | None, model: str | None, provider: str | None) -> ClipAnswer:
        """The chord of a clip of at most a minute; one longer than 4 s is cut into windows, as by `infer`.

        Raises:
            UserError: as `export.app.uploads.check_upload`, or the sound is damaged.
        """
        predictor = self.predictors.get(model, provider)
        begin = time.perf_counter()
        path = check_upload(audio, self.limits.max_mb, _CLIP)
        votes, clips = WindowVotes(), []
        for window in windows(votes.counted(iter_blocks(path, _CLIP.seconds / 4, name=NAME))):
            _CLIP.check(votes.samples / SAMPLE_RATE)  # a header may state no length, or lie
            clips.append(window)
        batch, read = np.stack(clips), time.perf_counter()
        levels, scores = loudness(batch), predictor(batch)
        assert scores.joint is not None  # `Predictors` offers no other models
        for joint, level, silent in zip(scores.joint, levels, scores.silent, strict=True):
            votes.add(joint, float(level), bool(silent))
        chord = votes.result(ALTERNATIVES)
        model_ms, loudest = 1e3 * (time.perf_counter() - read), int(levels.argmax())
        return ClipAnswer(chord, predictor, batch[loudest], loudest * HOP_S, 1e3 * (read - begin), model_ms)

    def name_song(
        self,
        audio: str | None,
        model: str | None,
        provider: str | None,
        progress: Callable[[float, float | None], None] | None = None,
        report_place: Callable[[int], None] | None = None,
    ) -> SongAnswer:
        """The chords of a song over time, when it is its turn.

        Args:
            progress: called with seconds done, and in all or None.
            report_place: called with the number of songs before this one.

        Raises:
            UserError: as `check_upload`, `SongQueue.turn` and `find_timeline`.
        """
        predictor = self.predictors.get(model, provider)
        limit = LengthLimit(60 * self.limits.max_minutes, "cut it, or use `infer --timeline` on the command line")
        path = check_upload(audio, self.limits.max_mb, limit)

        def go_on(done_s: float, total_s: float | None) -> None:
            self.songs.check()
            limit.check(done_s)
            if progress is not None:
                progress(done_s, total_s)

        with self.songs.turn(report_place):
            begin = time.perf_counter()
            timeline = find_timeline(path, predictor, progress=go_on, name=NAME)
            paths = self._write_formats(timeline, path)
            return SongAnswer(timeline, paths, time.perf_counter() - begin)

    def _write_formats(self, timeline: Timeline, audio: str) -> list[str]:
        stem = re.sub(r"[^\w. -]", "_", Path(audio).stem)[:60].strip(". ") or "song"
        folder = self.new_folder()
        for suffix in FORMATS:
            write(timeline, folder / f"{stem}.{suffix}", suffix)
        return [str(folder / f"{stem}.{suffix}") for suffix in FORMATS]

    def new_folder(self) -> Path:
        """A random folder for one answer's files."""
        return Path(tempfile.mkdtemp(prefix="answer-", dir=self.folder))
