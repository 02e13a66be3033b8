"""Name the chord in many audio files at once; a bad file is reported and the rest goes on.

A file is cut into windows of 4 s, whose chords vote. Threads take a few files each, decode them and hand their windows
to the predictor in batches: FFmpeg, soxr, NumPy's loops and the predictor work outside of Python's lock. One thread
does all of a file's steps, so that a window stays in its core's cache and nothing waits for another thread.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import queue
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from triadbench.core.audio.io import STDIN, SUFFIXES_SAID, Note, Source, iter_blocks
from triadbench.core.constants import CLIP_SAMPLES, SAMPLE_RATE
from triadbench.core.errors import UserError
from triadbench.core.models.chords import ROOTS
from triadbench.core.models.prediction import Scores, likeliest_class, name_chord, no_chord, require_chords
from triadbench.core.models.vocabulary import N_CLASSES

if TYPE_CHECKING:
    from triadbench.export.predict.predictor import ChordPredictor

WINDOW_S = CLIP_SAMPLES / SAMPLE_RATE
HOP_S = WINDOW_S / 2
BATCH = 16  # windows in one call of the predictor: 4 MB, and more do not make it faster on a CPU
WARM_AFTER = 200  # windows after which loading the kernel front end pays
_BLOCK_S = 30.0
_AHEAD = 4  # groups of files handed to each thread: the one at work, and enough others that no thread waits
_KEPT = 4096  # results kept at most while an earlier, longer file is still being read
_JOIN_S = 1.0  # a thread ends after the batch that it is at; one that waits for a pipe ends with the program

Result = tuple[int, dict]
Opener = Callable[[str], tuple[Source, str | None]]
"""Of a file's name: its sound, and the name that messages call it; None: that of the file. Raises UserError."""


def infer_files(
    predictor: ChordPredictor,
    files: Iterable[str | os.PathLike[str]],
    alternatives: int = 3,
    *,
    workers: int = 1,
    batch: int = BATCH,
    at_once: bool = False,
    source: Opener | None = None,
) -> Generator[dict, None, None]:
    """One result a file, in order: {"file", "duration_s", "windows", "agreement", "chord", ...}, or {"file", "error"}.

    A file longer than a clip is cut into windows of 4 s, half over each other (see `WindowVotes`). Memory grows neither
    with a file's length nor with the number of files.

    Args:
        predictor: of waveforms (batch, 64000); its `warm_kernel`, if it has one, is called when there are many windows.
        files: "-" is standard input. From an iterator, the first is answered before the second is asked for.
        alternatives, batch: the next likely chords to name, and the most windows in one call of the predictor.
        workers, at_once: threads, and whether they may call the predictor at the same time or take turns.
        source: opens each file; the default is `source_of`.

    Raises:
        UserError: the predictor answers for one task only, or fails.
    """
    require_chords(predictor.info.task)
    known = len(files) if isinstance(files, Sequence) else None
    predict = _SharedPredictor(predictor, at_once, known or 0)
    numbered = enumerate(os.fspath(file) for file in files)
    n_alone = int(known in (None, 1))
    alone = list(itertools.islice(numbered, n_alone))
    name_group = functools.partial(
        _name_group, predict=predict, batch=batch, alternatives=alternatives, source=source or source_of
    )
    yield from (result for _, result in name_group(alone))
    yield from _in_order(predict, numbered, n_alone, workers, batch, name_group)


class _SharedPredictor:
    """The predictor, called by one thread after another if need be; it loads its kernel when there are many windows.
    `stopped`: the caller no longer wants results."""

    def __init__(self, predictor: ChordPredictor, at_once: bool, expected: int):
        self.stopped = False
        self._predictor = predictor
        self._turn = contextlib.nullcontext() if at_once else threading.Lock()
        self._left = WARM_AFTER - expected
        self._warm = getattr(predictor, "warm_kernel", None)
        self._count(0)

    def __call__(self, waveforms: np.ndarray) -> Scores:
        self._count(len(waveforms))
        with self._turn:
            if self.stopped:
                raise _Stopped
            return self._predictor(waveforms)

    def _count(self, n: int) -> None:
        self._left -= n  # of several threads one may be lost: it is no more than a hint
        if self._left <= 0 and self._warm is not None:
            warm, self._warm = self._warm, None
            warm()


class _Stopped(Exception):
    """Ends a thread in the midst of a file."""


def _name_group(
    group: Sequence[tuple[int, str]],
    predict: _SharedPredictor,
    batch: int,
    alternatives: int,
    source: Opener,
) -> Iterator[Result]:
    """Results of a few numbered files, each as soon as it is known; their windows share the predictor's batches."""
    complete: list[tuple[int, str, WindowVotes]] = []
    waiting: list[tuple[np.ndarray, WindowVotes]] = []

    def predict_waiting() -> Iterator[Result]:
        """Vote with all windows that wait; no file that was read to its end waits for more."""
        if waiting:
            stacked = np.stack([window for window, _ in waiting])
            scores = predict(stacked)
            shares = loudness(stacked)
            for row, (_, votes) in enumerate(waiting):
                votes.add(scores, row, shares[row])
            waiting.clear()
        for number, file, votes in complete:
            yield number, {"file": file, **votes.result(alternatives)}
        complete.clear()

    for number, file in group:
        votes = WindowVotes()
        try:
            for window in windows(votes.counted(_blocks(file, votes.notes.append, source))):
                waiting.append((window, votes))
                if len(waiting) == batch:
                    yield from predict_waiting()
        except _FileError as error:
            waiting[:] = [(window, other) for window, other in waiting if other is not votes]
            yield number, {"file": file, "error": str(error)}
        else:
            complete.append((number, file, votes))
            if not waiting:
                yield from predict_waiting()
    yield from predict_waiting()


class _FileError(Exception):
    """A file that cannot be read; the others can."""


def _blocks(file: str, note: Note, source: Opener) -> Iterator[np.ndarray]:
    try:
        sound, name = source(file)
        yield from iter_blocks(sound, _BLOCK_S, name=name, note=note)
    except UserError as error:
        raise _FileError(" ".join(str(error).split())) from error
    except OSError as error:
        raise _FileError(f"{file}: cannot be read ({error.strerror or error})") from error


def source_of(file: str) -> tuple[str | BinaryIO, str | None]:
    """What `core.audio.io` reads for a path or "-", and the name in its messages, None for the path itself. Raises
    UserError for a folder without any audio file, or where nothing is piped into standard input."""
    if file == STDIN:
        source = getattr(sys.stdin, "buffer", None)
        if source is None or sys.stdin.isatty():
            raise UserError("standard input: no sound comes from there; pipe a file into it: `infer - < chord.wav`")
        return source, "standard input"
    if os.path.isdir(file):
        os.listdir(file)
        raise UserError(f"{file}: no audio file in this folder (looked for {SUFFIXES_SAID})")
    return file, None


def _in_order(
    predict: _SharedPredictor,
    numbered: Iterator[tuple[int, str]],
    first: int,
    workers: int,
    batch: int,
    name_group: Callable[[Sequence[tuple[int, str]]], Iterator[Result]],
) -> Iterator[dict]:
    """Results of all numbered files from number `first` on, in their order, from `workers` threads. Groups start with
    one file, so that a few long ones are shared out, and grow, so that many short ones fill batches."""
    tasks: queue.SimpleQueue = queue.SimpleQueue()
    done: queue.SimpleQueue = queue.SimpleQueue()

    def work() -> None:
        try:
            while (group := tasks.get()) is not None:
                for result in name_group(group):
                    done.put(result)
        except BaseException as error:  # for the main thread to raise
            done.put(error)

    threads: list[threading.Thread] = []
    ready: dict[int, dict] = {}
    taken = finished = answered = first
    size, more = 1, True
    try:
        while True:
            while more and taken - finished <= (_AHEAD * workers - 1) * size and taken - answered < _KEPT:
                group = list(itertools.islice(numbered, size))
                more = len(group) == size
                if group:
                    taken += len(group)
                    tasks.put(group)
                    if len(threads) < workers:
                        threads.append(threading.Thread(target=work, daemon=True, name=f"infer-{len(threads)}"))
                        threads[-1].start()
                size = min(batch, 1 + (taken - first) // (2 * _AHEAD * workers))
            if answered == taken:
                return
            result = done.get()
            if isinstance(result, BaseException):
                raise result
            finished += 1
            ready[result[0]] = result[1]
            while answered in ready:
                yield ready.pop(answered)
                answered += 1
    finally:
        predict.stopped = True
        for _ in threads:
            tasks.put(None)
        for thread in threads:
            thread.join(_JOIN_S)


def windows(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Windows (64000,) of a waveform that comes in blocks (samples,) of any length, each half over the one before.

    The last window is padded with zeros; it is left out if all its samples have been in the one before. Windows may
    share memory with one another and with the blocks.
    """
    hop = CLIP_SAMPLES // 2
    rest = np.zeros(0, dtype=np.float32)
    full = False
    for block in blocks:
        rest = np.concatenate([rest, block]) if len(rest) else block
        while len(rest) >= CLIP_SAMPLES:
            yield rest[:CLIP_SAMPLES]
            rest, full = rest[hop:], True
    if not full or len(rest) > hop:
        yield np.concatenate([rest, np.zeros(CLIP_SAMPLES - len(rest), dtype=np.float32)])


def loudness(batch: np.ndarray) -> np.ndarray:
    """Root mean square of the deviation from the mean, (batch,), of windows (batch, samples)."""
    shares = np.empty(len(batch), dtype=np.float32)
    deviation = np.empty(batch.shape[1], dtype=np.float32)  # of one window, which stays in the cache
    for i, window in enumerate(batch):
        np.subtract(window, window.mean(), out=deviation)
        np.square(deviation, out=deviation)
        shares[i] = np.sqrt(deviation.mean())
    return shares


class WindowVotes:
    """The votes of one file's windows, in order; memory does not grow with their number. Their probabilities are
    averaged, each by its share of the sound. `samples` and `windows`: read (at 16 kHz), and voted, so far; `notes`:
    what the reader had to say of the file."""

    def __init__(self) -> None:
        self.samples = self.windows = 0
        self._chords, self._bass, self._weight = np.zeros(N_CLASSES), np.zeros(len(ROOTS)), 0.0
        self._votes = np.zeros(N_CLASSES)
        self.notes: list[str] = []

    def counted(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The blocks (samples,) themselves, their samples counted."""
        for block in blocks:
            self.samples += len(block)
            yield block

    def add(self, scores: Scores, row: int, share: float) -> None:
        """Row `row` of a batch's scores, for the next window, and its loudness; silence counts for nothing."""
        self.windows += 1
        if scores.chords is not None and not scores.silent[row]:
            self._chords += share * scores.chords[row]
            self._weight += share
            self._votes[likeliest_class(scores.chords[row])] += share
            if scores.bass is not None:
                self._bass += share * scores.bass[row]

    def result(self, alternatives: int) -> dict:
        """{"duration_s", "windows", "agreement", "chord", ...}, "note" if there is one. `agreement` is the share of
        sound whose own window says the same chord: a low one means that more than one chord is in the file."""
        length: dict = {"duration_s": round(self.samples / SAMPLE_RATE, 3), "windows": self.windows}
        if self.notes:
            length["note"] = "; ".join(self.notes)
        if self._weight == 0:
            return {**length, "agreement": None, **no_chord()}
        chords = self._chords / self._weight
        agreement = float(self._votes[likeliest_class(chords)] / self._weight)
        return {**length, "agreement": agreement, **name_chord(chords, self._bass / self._weight, alternatives)}
