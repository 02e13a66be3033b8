"""Name the chord in many audio files at once; a bad file is reported and the rest goes on.

Threads take a few files each, decode them and hand their windows to the predictor in batches: libsndfile, soxr, NumPy's
loops and the predictor work outside of Python's lock. One thread does all of a file's steps, so that a window stays in
its core's cache and nothing waits for another thread.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from triadbench.core.audio.io import AUDIO_SUFFIXES, STDIN, iter_blocks
from triadbench.core.errors import UserError
from triadbench.core.models.prediction import Scores
from triadbench.export.predict.window_votes import Hearing, loudness, windows

BATCH = 16
"""Windows that the predictor is given at once: 4 MB, and more do not make it faster on a CPU."""
WARM_AFTER = 200
"""Windows after which loading the kernel front end pays."""
_BLOCK_S = 30.0
_AHEAD = 4
"""Groups of files given out for each thread: one in work, and enough others that none waits for the next."""
_KEPT = 4096
"""Results kept at most while an earlier, longer file is still being heard."""
_JOIN_S = 1.0
"""A thread ends after the batch that it is at; one that waits for a pipe is left to end with the program."""

Result = tuple[int, dict]


def infer_files(
    predictor: Callable[[np.ndarray], Scores],
    files: Iterable[str | os.PathLike],
    alternatives: int = 3,
    *,
    workers: int = 1,
    batch: int = BATCH,
    at_once: bool = False,
) -> Iterator[dict]:
    """One result a file, in order: {"file", "duration_s", "windows", "agreement", "chord", ...}, or {"file", "error"}.

    A file longer than a clip is heard in windows of 4 s, half over each other (see `export.predict.window_votes.Hearing`). Memory
    grows neither with a file's length nor with the number of files.

    Args:
        predictor: of waveforms (batch, 64000); one with a method `warm_kernel` is told when there is enough to do.
        files: "-" is standard input. From an iterator, the first is answered before the second is asked for.
        alternatives: the next likely chords to name.
        workers: threads.
        batch: most windows given to the predictor at once.
        at_once: several threads may call the predictor at the same time; otherwise they take turns.

    Raises:
        UserError: the predictor answers for one task only, or fails.
    """
    task = (predictor.info if hasattr(predictor, "info") else predictor.checkpoint).task
    if task != "both":
        raise UserError(f"this model answers for the {task} only; `infer` needs one for both")
    known = len(files) if isinstance(files, Sequence) else None
    predict = _Turns(predictor, at_once, known or 0)
    numbered = enumerate(map(os.fspath, files))
    if known is None or known == 1:
        for one in numbered:
            yield from (result for _, result in _hear([one], predict, batch, alternatives))
            break
    yield from _in_order(predict, numbered, 1 if known is None or known == 1 else 0, workers, batch, alternatives)


class _Turns:
    """The predictor, called by one thread after another if need be, and told when there is enough to do.

    Attributes:
        stopped: nobody waits for answers any more.
    """

    def __init__(self, predictor: Callable[[np.ndarray], Scores], at_once: bool, expected: int):
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


def _hear(
    group: Sequence[tuple[int, str]], predict: Callable[[np.ndarray], Scores], batch: int, alternatives: int
) -> Iterator[Result]:
    """Results of a few numbered files, each as soon as it is known; their windows share the predictor's batches."""
    open_files: list[tuple[int, str, Hearing]] = []
    waiting: list[tuple[np.ndarray, Hearing]] = []

    def answer() -> None:
        stacked = np.stack([window for window, _ in waiting])
        scores = predict(stacked)
        for (_, hearing), *scored in zip(waiting, scores.joint, loudness(stacked), scores.silent, strict=True):
            hearing.add(*scored)
        waiting.clear()

    def close() -> Iterator[Result]:
        for number, file, hearing in open_files:
            yield number, {"file": file, **hearing.answer(alternatives)}
        open_files.clear()

    for number, file in group:
        hearing = Hearing()
        try:
            for window in windows(hearing.counted(_blocks(file))):
                waiting.append((window, hearing))
                if len(waiting) == batch:
                    answer()
                    yield from close()
        except _FileError as error:
            waiting[:] = [(window, other) for window, other in waiting if other is not hearing]
            yield number, {"file": file, "error": str(error)}
        else:
            open_files.append((number, file, hearing))
            if not waiting:
                yield from close()
    if waiting:
        answer()
    yield from close()


class _FileError(Exception):
    """A file that cannot be heard; the others can."""


def _blocks(file: str) -> Iterator[np.ndarray]:
    try:
        if file == STDIN:
            yield from iter_blocks(_stdin(), _BLOCK_S, name="standard input")
            return
        if os.path.isdir(file):
            os.listdir(file)
            raise UserError(f"{file}: no audio file in this folder (looked for {', '.join(AUDIO_SUFFIXES)})")
        yield from iter_blocks(file, _BLOCK_S)
    except UserError as error:
        raise _FileError(" ".join(str(error).split())) from error
    except OSError as error:
        raise _FileError(f"{file}: cannot be read ({error.strerror or error})") from error


def _stdin():
    source = getattr(sys.stdin, "buffer", None)
    if source is None or sys.stdin.isatty():
        raise UserError("standard input: no sound comes from there; pipe a file into it, as in `infer - < chord.wav`")
    return source


def _in_order(
    predict: _Turns, numbered: Iterator[tuple[int, str]], first: int, workers: int, batch: int, alternatives: int
) -> Iterator[dict]:
    """Results of all numbered files from number `first` on, in their order, from `workers` threads.

    Groups start with one file, so that a few long ones are shared out, and grow, so that many short ones fill batches.
    """
    tasks: queue.SimpleQueue = queue.SimpleQueue()
    done: queue.SimpleQueue = queue.SimpleQueue()

    def work() -> None:
        try:
            while (group := tasks.get()) is not None:
                for result in _hear(group, predict, batch, alternatives):
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
