"""The chords of a recording of any length, over time.

The sound is read in blocks and cut into windows of half a second, ten a second, and of a second, five a second, that
the predictor names in batches. Viterbi smoothing over 48 chords and "no chord" then finds the likeliest course, in
which a change is cheap where notes begin (`export.songs.onsets`), and each change is moved to the onset beside it. Of each
frame about 300 bytes are kept, so an hour takes 11 MB beyond what a minute takes.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from triadbench.core.audio.io import iter_blocks, read_header
from triadbench.core.constants import SAMPLE_RATE
from triadbench.core.errors import UserError
from triadbench.core.models.chords import NO_CHORD, ROOTS, TYPES, chord_symbol
from triadbench.core.models.prediction import Scores
from triadbench.export.songs.decoding import viterbi
from triadbench.export.songs.harmony import find_key, find_progressions, roman_numeral
from triadbench.export.songs.onsets import OnsetCurve, onsets, tempo

_N_CHORDS = len(ROOTS) * len(TYPES)
_BLOCK_S = 30.0
_FORCED = 30.0
_TINY = 1e-9
_RELEASE_S = 0.6
_SLIVER_S = 0.01


@dataclass(frozen=True)
class Settings:
    """How chords are followed. Set on instruments that the model was trained on; see `bench.songs`.

    Attributes:
        window_s, hop_s: of what the model hears at once, and how often.
        long_window_s, long_weight: a longer window begins with each other one, in which a broken chord is complete
            sooner, and its share in the (log) likelihood.
        lead_s: how long before the time that a window answers for it begins.
        floor: added to probabilities, so that one wrong window is not beyond repair.
        change_cost, onset_discount: of a change of chord, in nats, and how much of it an onset of full strength saves.
        snap_s: farthest that a change is moved to an onset.
        no_chord: likelihood of "no chord" in quiet frames, where the model would be less sure of any chord.
        no_chord_loud: the same in loud ones. quiet_db: between the two, under the loud parts of this sound.
        silence_db: under the loud parts, where nothing is left to name.
    release_db: a chord before "no chord" ended where its level began to fall by so much from frame to frame.
        batch: windows that the predictor is given at once.
    """

    window_s: float = 0.5
    hop_s: float = 0.1
    long_window_s: float = 1.0
    long_weight: float = 0.3
    lead_s: float = 0.12
    floor: float = 1e-3
    change_cost: float = 30.0
    onset_discount: float = 18.0
    snap_s: float = 0.15
    no_chord: float = 0.15
    no_chord_loud: float = 0.02
    quiet_db: tuple[float, float] = (-22.0, -14.0)
    silence_db: float = -46.0
    release_db: float = 5.0
    batch: int = 128


@dataclass(frozen=True)
class Segment:
    """A stretch of one chord.

    Attributes:
        start_s, end_s: in seconds from the start of the recording.
        chord: as `core.models.chords.chord_symbol`, or "N". root, type: its parts; None for "N".
        confidence: mean probability of the chord in the windows of the stretch; None for "N".
    """

    start_s: float
    end_s: float
    chord: str
    root: str | None
    type: str | None
    confidence: float | None


@dataclass
class Timeline:
    """The chords of a recording: segments without a gap from 0 to `duration_s`, neighbours of different chords.

    Attributes:
        key: as "C major"; None where there is no chord. key_confidence: 0-1, over the other 23 keys.
        tempo_bpm: beats a minute; None where no beat is heard.
        roman: of each segment, in the key; None for "N".
        progressions: the most common ones, {"roman", "chords", "count"}.
        settings: what it was found with.
    """

    segments: list[Segment]
    duration_s: float
    key: str | None
    key_confidence: float | None
    tempo_bpm: float | None
    roman: list[str | None]
    progressions: list[dict]
    settings: dict

    def as_dict(self) -> dict:
        """Plain values, as for JSON; each segment has its Roman numeral."""
        described = dataclasses.asdict(self)
        for segment, numeral in zip(described["segments"], described.pop("roman"), strict=True):
            segment["roman"] = numeral
        return described


def find_timeline(
    source: str | Path | BinaryIO,
    predictor: Callable[[np.ndarray], Scores],
    *,
    progress: Callable[[float, float | None], None] | None = None,
    name: str | None = None,
    settings: Settings | None = None,
) -> Timeline:
    """Find the chords of a recording over time, in memory that hardly grows with its length.

    Silence, all of it or parts, is "N".

    Args:
        source: a path, or a binary file.
        predictor: of waveforms (batch, samples) at 16 kHz, as `export.predict.predictor.ChordPredictor`.
        progress: called with seconds done and seconds in all (None where the file does not say).
        name: what messages call the source.

    Raises:
        UserError: what is wrong with the file, in one line; or the model does not name both type and root, or takes
            clips of one length only.
    """
    settings = settings or Settings()
    _check_model(predictor)
    frames = _listen(source, predictor, progress, name, settings)
    duration_s, total_frames = frames.samples / SAMPLE_RATE, len(frames.levels_db)
    curve = frames.onset_curve.curve()
    times, strengths = onsets(curve)
    scores = _log_likelihoods(frames, settings)
    path = viterbi(scores, _change_costs(total_frames, times, strengths, settings))
    segments = _segments(path, frames, times, strengths, duration_s, settings)
    key, confidence = find_key([(s.chord, s.end_s - s.start_s) for s in segments])
    roman = [roman_numeral(s.chord, key) for s in segments]
    return Timeline(
        segments,
        duration_s,
        key,
        confidence,
        tempo(curve) if key is not None else None,
        roman,
        find_progressions([s.chord for s in segments], roman),
        dataclasses.asdict(settings),
    )


def _check_model(predictor: Callable[[np.ndarray], Scores]) -> None:
    described = predictor.info if hasattr(predictor, "info") else predictor.checkpoint
    if described.task != "both":
        raise UserError(f"this model answers for the {described.task} only; a timeline needs one for both")
    only = getattr(described, "samples", None)
    if only is not None:
        raise UserError(f"this model takes clips of {only} samples alone; a timeline needs windows of half a second")


@dataclass
class _Frames:
    """What is kept of each frame (hop) of a sound: probabilities in its short and its long window, float16
    (frames, 48), whether it is silent, and its level."""

    joint: np.ndarray
    ahead: np.ndarray
    silent: np.ndarray
    levels_db: np.ndarray
    samples: int
    onset_curve: OnsetCurve


def _listen(source, predictor, progress, name, settings: Settings) -> _Frames:
    total_s = _length(source) if progress is not None else None
    curve = OnsetCurve()
    joint, ahead, silent, levels = [], [], [], []
    counted = frames = 0

    def blocks() -> Iterator[np.ndarray]:
        nonlocal counted
        for block in iter_blocks(source, _BLOCK_S, name=name):
            counted += len(block)
            curve.add(block)
            yield block

    window, hop, long, lead = (
        round(seconds * SAMPLE_RATE)
        for seconds in (settings.window_s, settings.hop_s, settings.long_window_s, settings.lead_s)
    )
    warm = getattr(predictor, "warm_kernel", None)
    for batch in _windows(blocks(), long, hop, lead, settings.batch):
        scores = predictor(np.ascontiguousarray(batch[:, :window]))
        joint.append(scores.joint.reshape(-1, _N_CHORDS).astype(np.float16))
        silent.append(scores.silent)
        # Every other one: what is heard in a second changes little in a tenth.
        scores = predictor(np.ascontiguousarray(batch[::2]))
        ahead.append(scores.joint.reshape(-1, _N_CHORDS).astype(np.float16).repeat(2, axis=0)[: len(batch)])
        frames += len(batch)
        # The level of the frame itself, in the middle of what its window hears.
        middle = batch[:, lead - hop // 2 : lead - hop // 2 + hop]
        levels.append(10 * np.log10(np.square(middle - middle.mean(axis=1, keepdims=True)).mean(axis=1) + _TINY**2))
        if warm is not None and len(joint) == 2:
            warm()  # a long sound: the faster front end pays
        if progress is not None:
            progress(min(frames * settings.hop_s, counted / SAMPLE_RATE), total_s)
    return _Frames(*map(np.concatenate, (joint, ahead, silent, levels)), counted, curve)


def _length(source) -> float | None:
    """Seconds of a file that says so, else None; what is wrong with it, reading it tells."""
    if not isinstance(source, str | os.PathLike):
        return None
    try:
        header = read_header(source)
    except UserError:
        return None
    return header.frames / header.sample_rate if header.frames else None


def _windows(blocks: Iterator[np.ndarray], window: int, hop: int, lead: int, batch: int) -> Iterator[np.ndarray]:
    """Batches (at most `batch`, window) of a sound in blocks: frame k, at its middle (k + 0.5) hop, is answered for by
    the samples from `lead` before it on; zeros are beyond the ends."""
    rest = np.zeros(lead - hop // 2, np.float32)
    samples = frames = 0
    for block in blocks:
        samples += len(block)
        rest = np.concatenate([rest, block])
        n = (len(rest) - window) // hop + 1
        while n > 0:
            take = min(n, batch)
            yield np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(rest, window)[: take * hop : hop])
            rest, n, frames = rest[take * hop :], n - take, frames + take
    left = max(1, -(-samples // hop)) - frames
    rest = np.concatenate([rest, np.zeros(max(0, left * hop + window - len(rest)), np.float32)])
    for start in range(0, left, batch):
        take = min(batch, left - start)
        part = rest[start * hop :]
        yield np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(part, window)[: take * hop : hop])


def _log_likelihoods(frames: _Frames, settings: Settings) -> np.ndarray:
    """float32 (frames, 49): of 48 chords, and of "no chord" in the last column."""
    n = len(frames.levels_db)
    scores = np.empty((n, _N_CHORDS + 1), np.float32)
    np.log(frames.joint.astype(np.float32) + settings.floor, out=scores[:, :-1])
    scores[:, :-1] *= 1 - settings.long_weight
    scores[:, :-1] += settings.long_weight * np.log(frames.ahead.astype(np.float32) + settings.floor)
    loud = float(np.percentile(frames.levels_db, 95))
    level = frames.levels_db - loud
    low, high = settings.quiet_db
    loudness = np.clip((level - low) / (high - low), 0, 1)
    quiet, noisy = np.log(settings.no_chord), np.log(settings.no_chord_loud)
    scores[:, -1] = quiet + (noisy - quiet) * loudness
    nothing = frames.silent | (level < settings.silence_db) | (frames.levels_db < -80)
    scores[nothing, -1] = 0.0
    scores[nothing, :-1] -= _FORCED
    return scores


def _change_costs(n: int, times: np.ndarray, strengths: np.ndarray, settings: Settings) -> np.ndarray:
    """(n,): of a change between each frame and the one before."""
    best = np.zeros(n)
    middle = np.arange(n) * settings.hop_s  # between the middles of two frames
    for shift in (-1, 0, 1):
        at = np.rint(times / settings.hop_s).astype(int) + shift
        inside = (at >= 0) & (at < n)
        near = np.abs(times[inside] - middle[at[inside]]) <= settings.hop_s
        np.maximum.at(best, at[inside][near], strengths[inside][near])
    return settings.change_cost - settings.onset_discount * best


def _segments(path, frames: _Frames, times, strengths, duration_s: float, settings: Settings) -> list[Segment]:
    changes = np.flatnonzero(np.diff(path)) + 1
    starts, ends = np.concatenate([[0], changes]), np.concatenate([changes, [len(path)]])
    bounds = [0.0]
    for k, start in zip(changes, starts, strict=False):
        if path[k] == _N_CHORDS:
            time = _release(k, start, frames.levels_db, settings)
        else:
            time = _snap(k * settings.hop_s, times, strengths, bounds[-1], settings)
        bounds.append(min(max(time, bounds[-1] + settings.hop_s / 2), duration_s))
    bounds.append(duration_s)
    segments = []
    for start, end, begin_s, end_s in zip(starts, ends, bounds[:-1], bounds[1:], strict=True):
        state = int(path[start])
        if state == _N_CHORDS:
            segments.append(Segment(begin_s, end_s, NO_CHORD, None, None, None))
            continue
        root, chord_type = divmod(state, len(TYPES))
        confidence = min(1.0, float(frames.joint[start:end, state].astype(np.float64).mean()))
        symbol = chord_symbol(root, chord_type)
        segments.append(Segment(begin_s, end_s, symbol, ROOTS[root], TYPES[chord_type], confidence))
    return _without_slivers(segments)


def _without_slivers(segments: list[Segment]) -> list[Segment]:
    """Segments too short to hear, such as the zeros after the last whole frame, belong to what was before them."""
    kept: list[Segment] = []
    for segment in segments:
        if kept and segment.end_s - segment.start_s < _SLIVER_S:
            kept[-1] = dataclasses.replace(kept[-1], end_s=segment.end_s)
        else:
            kept.append(segment)
    return kept


def _snap(time: float, times, strengths, after: float, settings: Settings) -> float:
    """The strongest onset near a change to a chord at `time`, later than `after`."""
    low, high = np.searchsorted(times, [max(time - settings.snap_s, after + 0.02), time + settings.snap_s])
    if low >= high:
        return time
    nearness = 1 - 0.5 * np.abs(times[low:high] - time) / settings.snap_s
    return float(times[low:high][(strengths[low:high] * nearness).argmax()])


def _release(k: int, start: int, levels_db: np.ndarray, settings: Settings) -> float:
    """When the chord of the frames from `start` to `k` was let go: while dampers fall it can still be named."""
    for frame in range(max(start + 1, k - round(_RELEASE_S / settings.hop_s)), k):
        # It fell there, and did not rise again.
        if levels_db[frame : k + 1].max() < levels_db[frame - 1] - settings.release_db:
            return frame * settings.hop_s
    return k * settings.hop_s
