"""The chords of a recording of any length, over time.

The recording is read in blocks and cut into windows: half a second long, ten a second, and one second long, five a
second. The predictor scores them in batches. A Viterbi search over all chords and "no chord" finds the likeliest
sequence, in which a change is cheap on a beat, and where a note begins (`export.songs.onsets`). Its changes tell where
bars begin and how often chords change on each beat of a bar (`export.songs.beats`); with that the search is done again.
Each change is then moved to its beat, or to the onset beside it. About 700 bytes are kept of each frame, so an hour
takes 25 MB more than a minute.
"""

import contextlib
import dataclasses
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from triadbench.core.audio.io import Note, Source, iter_blocks, read_header
from triadbench.core.constants import SAMPLE_RATE
from triadbench.core.errors import UserError
from triadbench.core.models.chords import ROOTS
from triadbench.core.models.prediction import REDUCTION, Scores, chord_of, describe, require_chords, triads_of
from triadbench.core.models.spelling import read_chord, roman_numeral
from triadbench.core.models.vocabulary import NO_CHORD_CLASS, QUALITIES
from triadbench.export.predict.predictor import ChordPredictor
from triadbench.export.songs.beats import change_rates, find_bars, find_beats
from triadbench.export.songs.harmony import find_key, find_progressions
from triadbench.export.songs.onsets import OnsetCurve, Onsets, onsets

Progress = Callable[[float, float | None], None]
_NOTES = np.append(np.tile([quality.harte == "1" for quality in QUALITIES], len(ROOTS)), False)
"""Classes of single notes, bool (205,): in songs they are no chord."""
_FRAMES_AT_ONCE = 1024
_BLOCK_S = 30.0
_SILENCE_PENALTY = 8.0  # taken from the log likelihood of every chord where nothing sounds
_TINY = 1e-9
_RELEASE_S = 0.6
_SLIVER_S = 0.01
_ODDS = 3.0


@dataclass(frozen=True)
class Settings:
    """How chords are followed.

    Tuned on nine pop songs (POP909) that nothing was trained on, as piano and as band, on progressions of strummed
    sevenths and of a piano in noisy rooms, and on notes, drums and speech; see `bench.songs`.
    """

    window_s: float = 0.5  # length of the short windows
    hop_s: float = 0.1  # from one short window to the next
    long_window_s: float = 1.0  # one at every other hop; a broken chord is complete sooner in them
    long_weight: float = 0.35  # share of the long windows in the log likelihood
    lead_s: float = 0.12  # how long before the time that it answers for a window begins
    floor: float = 5e-3  # added to probabilities, so that one wrong window is not beyond repair
    change_cost: float = 30.0  # of a change of chord, in nats
    onset_discount: float = 18.0  # how much of `change_cost` an onset of full strength saves, in nats
    off_beat_cost: float = 10.0  # more for a change between beats, in nats
    beat_cost: float = 14.0  # of a change on a beat on which the chord changes every other time
    bar_weight: float = 5.0  # what a change on a beat costs more for each nat of log odds against one there
    snap_s: float = 0.15  # farthest that a change is moved to an onset
    sus_bias: float = 0.5  # added to the log probabilities of suspended chords, which windows are too short for
    power_chord_bias: float = -1.0  # the same of power chords: here they are mostly triads whose third is weak
    no_chord_bias: float = -0.5  # the same of "no chord"
    no_chord_cost: float = 20.0  # more for a change to "no chord", in nats: music rarely stops
    no_chord: float = 0.5  # least likelihood of "no chord" in quiet frames
    no_chord_loud: float = 0.005  # the same in loud frames
    quiet_db: tuple[float, float] = (-22.0, -14.0)  # from quiet to loud, relative to the loud parts of this recording
    silence_db: float = -46.0  # below this level, relative to the loud parts, nothing is left to name
    release_db: float = 5.0  # a chord before "no chord" ends where the level begins to fall so much from frame to frame
    batch: int = 128  # windows that the predictor is given at once


@dataclass(frozen=True)
class Segment:
    """A stretch of one chord, as `core.models.prediction.describe` has it, spelled for the key."""

    start_s: float  # from the start of the recording
    end_s: float
    chord: str | None  # its triad, as "F#m", or "N"; None where the chord has none
    root: str | None  # the name of the class, as "Gb"; None for "N" and without a triad, as `type`
    type: str | None
    confidence: float | None  # probability of the triad, or of there being none (`_sureness`); None for "N"
    name: str  # of the chord itself, as "F#m7/E"
    label: str  # the same in Harte's syntax
    bass: str | None  # the name of the class, where it is another note than the root
    label_confidence: float | None  # the same of the chord, whatever its bass


@dataclass
class Timeline:
    """The chords of a recording: segments without a gap from 0 to `duration_s`, neighbours of different chords."""

    segments: list[Segment]
    duration_s: float
    key: str | None  # as "F# minor"; None where there is no chord
    key_confidence: float | None  # 0-1, against the other 23 keys; None without a key
    tempo_bpm: float | None  # beats a minute; None where no beat is heard
    roman: list[str | None]  # Roman numeral of each segment in the key; None for "N"
    progressions: list[dict]  # the most common ones, {"roman", "chords", "count"}
    settings: dict  # the `Settings` in use
    meter: int | None = None  # beats in a bar, 4 or 3; None where chords change too seldom to tell
    beats: list[tuple[float, int | None]] = dataclasses.field(default_factory=list)
    """Time in seconds, and position in its bar from 1, of each beat; None without a meter."""

    def as_dict(self) -> dict:
        """Plain values, as for JSON; each segment has its Roman numeral."""
        plain = dataclasses.asdict(self)
        for segment, numeral in zip(plain["segments"], plain.pop("roman"), strict=True):
            segment["roman"] = numeral
        return plain


def find_timeline(
    source: Source,
    predictor: ChordPredictor,
    *,
    progress: Progress | None = None,
    name: str | None = None,
    note: Note | None = None,
    settings: Settings = Settings(),
) -> Timeline:
    """Find the chords of a recording over time, in memory that hardly grows with its length. Silence is "N".

    Args:
        source: a path, the bytes of a file, or a binary file; messages call it `name`.
        predictor: names the chords of waveforms (batch, samples) at 16 kHz.
        progress: called with seconds done and seconds in all (None where the file does not say).
        note: called with what `core.audio.io.iter_blocks` has to say of the file.

    Raises:
        UserError: the file cannot be used, or the model does not name both type and root.
    """
    require_chords(predictor.info.task)
    frames = _score_frames(source, predictor, progress, name, note, settings)
    duration_s, curve = frames.onset_curve.samples / SAMPLE_RATE, frames.onset_curve.curve()
    note_onsets, beats = onsets(curve), find_beats(curve)
    path, meter, positions = _decode(frames, note_onsets, beats, settings)
    segments = _segments(path, frames, note_onsets, beats, duration_s, settings)
    key, confidence = find_key([(s.name, s.end_s - s.start_s) for s in segments])
    segments = [dataclasses.replace(s, **describe(read_chord(s.name), key)) for s in segments]
    chords = [segment.name for segment in segments]
    roman = [roman_numeral(chord, key) for chord in chords]
    bpm = None if key is None or len(beats) < 2 else 60 / float(np.diff(beats).mean())
    counted = [(time, None if meter is None else k + 1) for time, k in zip(beats.tolist(), positions, strict=True)]
    rhythm = (None, []) if bpm is None else (meter, counted)
    found = key, confidence, bpm, roman, find_progressions(chords, roman)
    return Timeline(segments, duration_s, *found, dataclasses.asdict(settings), *rhythm)


class _Frames(NamedTuple):
    """What is kept of each frame (hop) of a recording."""

    onset_curve: OnsetCurve
    chords: np.ndarray  # probabilities in its short window, float16 (frames, 205)
    chords_long: np.ndarray  # the same in the long windows
    bass: np.ndarray  # in its short window, float16 (frames, 12); zeros where the model does not name it
    long_rows: np.ndarray  # which of these is the frame's
    silent: np.ndarray  # bool (frames,)
    levels_db: np.ndarray  # of the frame itself, (frames,)


def _score_frames(
    source: Source,
    predictor: ChordPredictor,
    progress: Progress | None,
    name: str | None,
    note: Note | None,
    settings: Settings,
) -> _Frames:
    total_s = _length_s(source) if progress is not None else None
    curve, n_frames, n_long = OnsetCurve(), 0, 0
    parts: list[tuple[np.ndarray, ...]] = []

    def blocks() -> Iterator[np.ndarray]:
        for block in iter_blocks(source, _BLOCK_S, name=name, note=note):
            curve.add(block)
            yield block

    def scores(windows: np.ndarray) -> Scores:
        """Of windows; the original network takes 4 s, and zeros follow, as its preprocessing fills short clips."""
        missing = (predictor.info.samples or windows.shape[1]) - windows.shape[1]
        return predictor(np.pad(windows, ((0, 0), (0, missing))) if missing else np.ascontiguousarray(windows))

    lengths_s = (settings.window_s, settings.hop_s, settings.long_window_s, settings.lead_s)
    window, hop, long_window, lead = (round(seconds * SAMPLE_RATE) for seconds in lengths_s)
    for batch in _windows(blocks(), long_window, hop, lead, settings.batch):
        n_frames += len(batch)
        short = scores(batch[:, :window])
        # Every other one: the sound of a second changes little in a tenth.
        long = scores(batch[::2])
        assert short.chords is not None and long.chords is not None  # models of one task are refused
        bass = np.zeros((len(batch), len(ROOTS))) if short.bass is None else short.bass
        answers = (values.astype(np.float16) for values in (short.chords, long.chords, bass))
        long_rows = n_long + np.arange(len(batch)) // 2
        n_long += len(long.chords)
        frame = batch[:, lead - hop // 2 : lead - hop // 2 + hop]
        power = np.square(frame - frame.mean(axis=1, keepdims=True)).mean(axis=1)
        parts.append((*answers, long_rows, short.silent, 10 * np.log10(power + _TINY**2)))
        if len(parts) == 2:
            predictor.warm_kernel()  # a long recording: the faster front end pays
        if progress is not None:
            progress(min(n_frames * settings.hop_s, curve.samples / SAMPLE_RATE), total_s)
    return _Frames(curve, *map(np.concatenate, zip(*parts, strict=True)))


def _length_s(source: Source) -> float | None:
    """Seconds of a file that states its length, else None; reading it tells what is wrong with it."""
    with contextlib.suppress(UserError):
        if isinstance(source, str | os.PathLike) and (header := read_header(source)).frames:
            return header.frames / header.sample_rate
    return None


def _windows(blocks: Iterable[np.ndarray], window: int, hop: int, lead: int, batch: int) -> Iterator[np.ndarray]:
    """Batches (at most `batch`, window) of a waveform in blocks, zeros beyond its ends.

    The window of frame k begins `lead` samples before the middle of the frame, (k + 0.5) hop.
    """
    rest = np.zeros(lead - hop // 2, np.float32)
    samples = frames = 0

    def batches(n: int) -> Iterator[np.ndarray]:
        nonlocal rest, frames
        for start in range(0, n, batch):
            size = min(batch, n - start)
            yield np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(rest, window)[: size * hop : hop])
            rest, frames = rest[size * hop :], frames + size

    for block in blocks:
        samples += len(block)
        rest = np.concatenate([rest, block])
        yield from batches((len(rest) - window) // hop + 1)
    left = max(1, -(-samples // hop)) - frames
    rest = np.concatenate([rest, np.zeros(max(0, left * hop + window - len(rest)), np.float32)])
    yield from batches(left)


def _log_likelihoods(frames: _Frames, settings: Settings) -> Iterator[np.ndarray]:
    """float32 (some frames, 205) after one another: of all chords, and of "no chord" in the last column."""
    levels = frames.levels_db - float(np.percentile(frames.levels_db, 95))
    low, high = settings.quiet_db
    quiet, loud = np.log(settings.no_chord), np.log(settings.no_chord_loud)
    biases = _biases(settings) * frames.chords.any(axis=0)  # none for what a model of triads alone never names
    for start in range(0, len(levels), _FRAMES_AT_ONCE):
        part = slice(start, start + _FRAMES_AT_ONCE)
        scores = (1 - settings.long_weight) * _logs(frames.chords[part], settings)
        scores += settings.long_weight * _logs(frames.chords_long[frames.long_rows[part]], settings)
        loudness = np.clip((levels[part] - low) / (high - low), 0, 1)
        scores += biases
        scores[:, -1] = np.maximum(scores[:, -1] + settings.no_chord_bias, quiet + (loud - quiet) * loudness)
        silent = frames.silent[part] | (levels[part] < settings.silence_db) | (frames.levels_db[part] < -80)
        scores[silent, -1] = 0.0
        scores[silent, :-1] -= _SILENCE_PENALTY
        yield scores


def _logs(chords: np.ndarray, settings: Settings) -> np.ndarray:
    """Log probabilities, float32, of chords (frames, 205); single notes are no chord."""
    chords = chords.astype(np.float32)
    chords[:, -1] += chords[:, _NOTES].sum(axis=1)
    logs = np.log(chords + settings.floor)
    logs[:, _NOTES] = -_SILENCE_PENALTY
    return logs


def _biases(settings: Settings) -> np.ndarray:
    """What is added to the log likelihood of each chord, float32 (205,)."""
    biases = {"sus2": settings.sus_bias, "sus4": settings.sus_bias, "5": settings.power_chord_bias}
    of_qualities = [biases.get(quality.harte, 0.0) for quality in QUALITIES]
    return np.append(np.tile(of_qualities, len(ROOTS)), 0).astype(np.float32)


def _decode(
    frames: _Frames, note_onsets: Onsets, beats: np.ndarray, settings: Settings
) -> tuple[np.ndarray, int | None, list[int]]:
    """The states (frames,); beats in a bar, if chords tell, and the position of each beat in its bar."""
    costs = _change_costs(len(frames.silent), note_onsets, settings)
    on_beat = _frames_of(beats, len(costs), settings)
    if len(beats):
        costs += settings.off_beat_cost
        costs[on_beat] = settings.beat_cost

    def search() -> np.ndarray:
        scores = itertools.chain.from_iterable(_log_likelihoods(frames, settings))
        return viterbi(scores, costs, settings.no_chord_cost)

    path = search()
    changes = path[on_beat] != path[np.maximum(on_beat - 1, 0)]
    meter, positions = find_bars(changes)
    if meter is not None:
        rates = change_rates(changes, meter, positions)
        costs[on_beat] = np.maximum(settings.beat_cost - settings.bar_weight * np.log(rates / (1 - rates)), 0)[
            positions
        ]
        path = search()
    return path, meter, positions.tolist()


def _frames_of(beats: np.ndarray, n_frames: int, settings: Settings) -> np.ndarray:
    """The frame before which a change on each beat is, int (n,)."""
    return np.minimum(np.rint(beats / settings.hop_s).astype(int), n_frames - 1)


def _change_costs(n_frames: int, note_onsets: Onsets, settings: Settings) -> np.ndarray:
    """(n_frames,): of a change between each frame and the one before."""
    times, strengths = note_onsets
    strongest = np.zeros(n_frames)
    for shift in (-1, 0, 1):
        frame = np.rint(times / settings.hop_s).astype(int) + shift
        near = (frame >= 0) & (frame < n_frames) & (np.abs(times - frame * settings.hop_s) <= settings.hop_s)
        np.maximum.at(strongest, frame[near], strengths[near])
    return settings.change_cost - settings.onset_discount * strongest


def viterbi(scores: Iterable[np.ndarray], change_cost: np.ndarray, last_cost: float = 0.0) -> np.ndarray:
    """The states (frames,) of the best path through log likelihoods (states,) of each frame.

    A change between the frame before and this one costs `change_cost` (frames,), and one to the last state `last_cost`
    more, whatever the state before is, so a frame needs one maximum and not a table of all pairs.
    """
    n, rows = len(change_cost), iter(scores)
    total = next(rows).astype(np.float64)
    stays = np.zeros((n, -(-len(total) // 8)), dtype=np.uint8)  # a bit a state
    origin = np.zeros(n, dtype=np.int16)
    more = np.zeros_like(total)
    more[-1] = last_cost
    for k, row in enumerate(rows, 1):
        origin[k] = total.argmax()
        after_change = total[origin[k]] - change_cost[k] - more
        stays[k] = np.packbits(total >= after_change)
        total = np.maximum(total, after_change) + row
    path = np.empty(n, dtype=np.int16)
    path[-1] = total.argmax()
    for k in range(n - 1, 0, -1):
        byte, bit = divmod(int(path[k]), 8)
        path[k - 1] = path[k] if stays[k, byte] & (0x80 >> bit) else origin[k]
    return path


def _segments(
    path: np.ndarray,
    frames: _Frames,
    note_onsets: Onsets,
    beats: np.ndarray,
    duration_s: float,
    settings: Settings,
) -> list[Segment]:
    """The segments of a path of states (frames,); those too short to hear, such as the zeros after the last whole
    frame, belong to the one before. Chords are spelled without a key."""
    changes = (np.flatnonzero(np.diff(path)) + 1).tolist()
    beat_of = dict(zip(_frames_of(beats, len(path), settings).tolist(), beats.tolist(), strict=True))
    bounds = [0.0]
    for start, change in zip([0, *changes], changes, strict=False):
        if path[change] == NO_CHORD_CLASS:
            time = _release(change, start, frames.levels_db, settings)
        else:
            time = beat_of.get(change) or _snap(change * settings.hop_s, note_onsets, bounds[-1], settings)
        bounds.append(min(max(time, bounds[-1] + settings.hop_s / 2), duration_s))
    segments: list[Segment] = []
    edges = zip([0, *changes], [*changes, len(path)], bounds, [*bounds[1:], duration_s], strict=True)
    for start, end, start_s, end_s in edges:
        state = int(path[start])
        if segments and end_s - start_s < _SLIVER_S:
            segments[-1] = dataclasses.replace(segments[-1], end_s=end_s)
        elif state == NO_CHORD_CLASS:
            segments.append(Segment(start_s, end_s, **describe(None), confidence=None, label_confidence=None))
        else:
            mean = frames.chords[start:end].mean(axis=0, dtype=np.float64)
            described = describe(chord_of(state, frames.bass[start:end].mean(axis=0, dtype=np.float64)))
            confidence, label_confidence = triads_of(mean)[REDUCTION[state]], mean[state]
            shares = {"confidence": confidence, "label_confidence": label_confidence}
            shares = {key: _sureness(float(share)) for key, share in shares.items()}
            segments.append(Segment(start_s, end_s, **described, **shares))
    return segments


def _sureness(probability: float) -> float:
    """Probability that a chord is right, of its mean probability in its windows, which know no beats nor neighbours:
    the odds times a constant fitted on the songs that `Settings` are tuned on."""
    return min(1.0, _ODDS * probability / (1 + (_ODDS - 1) * probability))


def _snap(time: float, note_onsets: Onsets, after: float, settings: Settings) -> float:
    """Time of the strongest onset near a change to a chord at `time`, later than `after`; all in seconds."""
    times, strengths = note_onsets
    low, high = np.searchsorted(times, [max(time - settings.snap_s, after + 0.02), time + settings.snap_s])
    if low >= high:
        return time
    nearness = 1 - 0.5 * np.abs(times[low:high] - time) / settings.snap_s
    return float(times[low:high][(strengths[low:high] * nearness).argmax()])


def _release(change: int, start: int, levels_db: np.ndarray, settings: Settings) -> float:
    """When (in seconds) the keys of the chord in the frames `start` to `change` were let go: while the dampers fall
    the chord can still be named."""
    for frame in range(max(start + 1, change - round(_RELEASE_S / settings.hop_s)), change):
        # The level fell there, and did not rise again.
        if levels_db[frame : change + 1].max() < levels_db[frame - 1] - settings.release_db:
            return frame * settings.hop_s
    return change * settings.hop_s
