"""How well chords are followed through songs, by mir_eval: progressions rendered with exact ground truth, or recordings
with a `.lab` beside each.

A rendered song is planned by its seed, played by one instrument, and optionally recorded anew in a room; any song may
go through a lossy codec. Each is read by `export.songs.timeline` as a user's file is, by the chroma template, and by
other recognisers where they are installed. Scores are mir_eval's, weighted by duration: the weighted chord symbol
recall. `triads` compares root and type (dim and aug count as such; a suspended chord is right as the same alone). Time
at which both say "no chord" counts as right, as in MIREX.
"""

import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from triadbench.bench import machine, records
from triadbench.core.audio.io import read_clip, write_wav
from triadbench.core.constants import SAMPLE_RATE
from triadbench.core.data.chord_labels import find_labelled
from triadbench.core.errors import UserError
from triadbench.core.models.chords import NO_CHORD, TYPES
from triadbench.core.models.chroma_template import WINDOW_S
from triadbench.core.models.peers import listen
from triadbench.core.models.prediction import is_silent
from triadbench.core.models.spelling import harte, read_harte
from triadbench.core.models.vocabulary import QUALITIES
from triadbench.core.render.note_banks import NoteBank, bank_for
from triadbench.core.render.progressions import plan_progression, render_progression, truth
from triadbench.core.render.rooms import degrade_song
from triadbench.core.training.name_evaluation import (
    TEMPLATE,
    in_mir_eval,
    is_no_chord,
    reliability,
    stretches_of,
    template_label,
)
from triadbench.export.predict.predictor import ChordPredictor
from triadbench.export.songs.timeline import find_timeline

HEADERS = "songs by|songs|triads %|majmin %|sevenths %|mirex %|root %|segmentation %|no chord %".split("|")
HEADERS += ["changes in 150 ms %", "off by ms"]
_RECALLS = ("triads", "majmin", "sevenths", "mirex", "root")
"""mir_eval's comparisons; "segmentation" is its `seg`."""
_SCORES = (*_RECALLS, "segmentation")
_NEAR_S, _RESAMPLED, _TEMPLATE_HOP_S = 0.15, 1000, 0.5

Progress = Callable[[int, int], None]
Answers = Sequence[tuple[float, float, str, float | None]]
"""(start and end in seconds, label in Harte's syntax, confidence or None) of each stretch, without a gap from 0 on."""


class Song(NamedTuple):
    """A sound file and its true chords: intervals (n, 2) in seconds, labels in Harte's syntax."""

    path: Path
    intervals: np.ndarray
    labels: list[str]
    pattern: str | None = None


def score_songs(
    sources: Sequence[str],
    predictor: ChordPredictor,
    *,
    songs: int = 24,
    bars: int = 16,
    seed: int = 0,
    degraded: bool = False,
    peers: Mapping[str, str] | None = None,
    cache: str | Path = Path("data/banks"),
    progress: Progress | None = None,
) -> list[dict]:
    """One row an instrument: {"instrument", "source", "degraded", and what `_measure` says}.

    `peers`: other recognisers, {name: Python}.

    Raises:
        ModuleNotFoundError: mir_eval is not installed.
        UserError: an instrument cannot be built, or a peer failed.
    """
    import mir_eval.chord  # noqa: F401  (if it is missing, before the first song)

    rows = []
    for source in sources:
        bank = NoteBank.load(bank_for(source, cache))
        with tempfile.TemporaryDirectory() as folder:
            played = (_play(bank, Path(folder), seed + i, bars, degraded) for i in range(songs))
            summary = _measure(played, songs, predictor, peers or {}, progress)
        rows.append({"instrument": bank.name, "source": source, "degraded": degraded, **summary})
    return rows


def score_recordings(
    folder: Path, predictor: ChordPredictor, peers: Mapping[str, str] | None = None, progress: Progress | None = None
) -> dict:
    """The row of `score_songs` for the labelled recordings below a folder, whose name is the "instrument".

    Raises:
        UserError: as `score_songs`, or no labelled recording, or one that cannot be read.
    """
    sounds, _ = find_labelled(folder)
    if not sounds:
        raise UserError(f"{folder}: no song with a .lab beside it")
    songs = []
    for path, stretches, _ in sounds:
        ends = [end if np.isfinite(end) else len(read_clip(path, None)) / SAMPLE_RATE for _, end, _ in stretches]
        intervals = np.array([[start, end] for (start, *_), end in zip(stretches, ends, strict=True)])
        songs.append(Song(path, intervals, [label for *_, label in stretches]))
    summary = _measure(songs, len(songs), predictor, peers or {}, progress)
    return {"instrument": folder.resolve().name, "source": "recordings", "degraded": False, **summary}


def _play(bank: NoteBank, folder: Path, seed: int, bars: int, degraded: bool) -> Song:
    progression = plan_progression(seed, bars=bars)
    waveform = render_progression(progression, bank)
    path = folder / f"song {seed}.wav"
    write_wav(path, degrade_song(waveform, seed) if degraded else waveform)
    intervals, symbols = truth(progression)
    return Song(path, intervals, [harte(symbol) for symbol in symbols], progression.pattern)


def _measure(
    songs: Iterable[Song], n: int, predictor: ChordPredictor, peers: Mapping[str, str], progress: Progress | None
) -> dict:
    """`_summary` of our answers, with "others": {name: the scores of each other recogniser}."""
    ours, template, known = [], [], []
    for song in songs:
        begin = time.perf_counter()
        timeline = find_timeline(str(song.path), predictor, name=song.path.stem)
        seconds = time.perf_counter() - begin
        answers = [(s.start_s, s.end_s, s.label, s.confidence) for s in timeline.segments]
        ours.append({"pattern": song.pattern, "work_s": seconds, **compare(song.intervals, song.labels, answers)})
        template.append(compare(song.intervals, song.labels, _template_answers(song.path)))
        known.append(song)
        if progress is not None:
            progress(len(known), n)
    others = {TEMPLATE: template}
    for name, python in peers.items():
        heard = listen(name, python, [song.path for song in known])
        others[name] = [
            compare(song.intervals, song.labels, [(*row, None) for row in stretches_of(changes, song.intervals[-1, 1])])
            for song, changes in zip(known, heard, strict=True)
        ]
    return {**_summary(ours), "others": {name: _recalls(scores) for name, scores in others.items()}}


def _template_answers(path: Path) -> Answers:
    """The chroma template's answer for two seconds around every half second of a sound."""
    waveform = read_clip(path, None)
    hop, window = round(_TEMPLATE_HOP_S * SAMPLE_RATE), round(WINDOW_S * SAMPLE_RATE)
    padded = np.pad(waveform, ((window - hop) // 2, window))
    starts = range(0, max(len(waveform), 1), hop)
    windows = (padded[start : start + window] for start in starts)
    labels = [NO_CHORD if is_silent(part[None])[0] else template_label(part) for part in windows]
    return [(k * _TEMPLATE_HOP_S, (k + 1) * _TEMPLATE_HOP_S, label, None) for k, label in enumerate(labels)]


def compare(intervals: np.ndarray, labels: Sequence[str], answers: Answers) -> dict:
    """mir_eval's scores of answers against the truth (intervals (n, 2) in seconds, labels in Harte's syntax).

    Returns:
        {"duration_s", the scores (None where nothing of the song counts), "change_errors_s": distance of each true
        change from the nearest change of the answers, "hits": {type: seconds (right, all)} of `triads`, "non_chords":
        seconds (with none named, all) without a chord or of a single note,
        "confidences": [(confidence or None, right, seconds)] of each stretch}.
    """
    from mir_eval import chord, util

    labels = [in_mir_eval(label) for label in labels]
    said = {str(k): in_mir_eval(row[2]) for k, row in enumerate(answers)}
    sure = {str(k): row[3] for k, row in enumerate(answers)}
    span = intervals.min(), intervals.max(), NO_CHORD, NO_CHORD
    bounds, heard = util.adjust_intervals(np.array([row[:2] for row in answers], float), [*said], *span)
    merged, truths, indices = util.merge_labeled_intervals(intervals, labels, bounds, heard)
    given, heard = ([said.get(k, k) for k in row] for row in (indices, heard))
    lengths = util.intervals_to_durations(merged)
    scores: dict[str, float | None] = {}
    for name in _RECALLS:
        right = getattr(chord, name)(truths, given)
        counts = lengths * (right >= 0)
        scores[name] = float((counts * right).sum() / counts.sum()) if counts.sum() else None
    changes = [chord.merge_chord_intervals(*row) for row in ((intervals, labels), (bounds, heard))]
    scores["segmentation"] = float(chord.seg(*changes))
    triads = chord.triads(truths, given)
    hits: dict[str, tuple[float, float]] = {}
    confidences, without = [], np.zeros(2)
    for label, k, right, length in zip(truths, indices, triads.tolist(), lengths.tolist(), strict=True):
        if is_no_chord(label):
            without += length * is_no_chord(said.get(k, k)), length
        if right >= 0:
            n_right, n = hits.get(_kind(label), (0.0, 0.0))
            hits[_kind(label)] = n_right + right * length, n + length
            confidences.append((sure.get(k), right, length))
    starts = bounds[:, 0]
    errors = [float(np.abs(starts[1:] - change).min()) if len(starts) > 1 else 9.0 for change in intervals[1:, 0]]
    song = {"duration_s": float(intervals[-1, 1]), **scores, "change_errors_s": errors}
    return {**song, "hits": hits, "non_chords": without, "confidences": confidences}


def _kind(label: str) -> str:
    chord = read_harte(label)
    if chord is None:
        return "no chord"
    return TYPES[chord.quality] if chord.quality < len(TYPES) else QUALITIES[chord.quality].harte


def _recalls(songs: Sequence[dict]) -> dict:
    """Means of mir_eval's scores over songs, by their duration, and "non_chords": the share of the time without a chord
    in which none is named; None where the songs have nothing that counts."""
    means: dict[str, float | None] = {}
    for name in _SCORES:
        counting = [song for song in songs if song[name] is not None]
        lengths = [song["duration_s"] for song in counting]
        means[name] = float(np.average([song[name] for song in counting], weights=lengths)) if counting else None
    right, total = np.sum([song["non_chords"] for song in songs], axis=0)
    return {**means, "non_chords": float(right / total) if total else None}


def _summary(songs: list[dict]) -> dict:
    """Of one instrument's songs: {"songs", "seconds", mir_eval's scores, "non_chords", "triads_interval",
    "near_changes", "median_change_error_s", "by_pattern", "by_type", "calibration", "real_time_factor", "scores"}.

    `near_changes` is the share of true changes with a change of the timeline within 150 ms; `triads_interval` is the
    95 % interval from drawing songs anew (bootstrap). "scores" holds each song's own triads. "calibration" compares the
    confidence of segments with the share of their time that is right.
    """
    lengths = np.array([song["duration_s"] for song in songs])
    errors = np.concatenate([song["change_errors_s"] for song in songs])
    triads = np.array([song["triads"] or 0.0 for song in songs])
    drawn = np.random.default_rng(0).integers(len(songs), size=(_RESAMPLED, len(songs)))
    resampled = (triads[drawn] * lengths[drawn]).sum(axis=1) / lengths[drawn].sum(axis=1)
    kinds = sorted({kind for song in songs for kind in song["hits"]})
    hits = {kind: np.sum([song["hits"].get(kind, (0, 0)) for song in songs], axis=0) for kind in kinds}
    patterns = sorted({song["pattern"] for song in songs} - {None})
    confidences = [row for song in songs for row in song["confidences"]] or [(None, 0, 0)]
    return {
        "songs": len(songs),
        "seconds": float(lengths.sum()),
        **_recalls(songs),
        "triads_interval": np.percentile(resampled, [2.5, 97.5]).tolist(),
        "near_changes": float((errors <= _NEAR_S).mean()) if len(errors) else None,
        "median_change_error_s": float(np.median(errors)) if len(errors) else None,
        "by_pattern": {name: _recalls([s for s in songs if s["pattern"] == name])["triads"] for name in patterns},
        "by_type": {kind: float(right / n) for kind, (right, n) in hits.items()},
        "calibration": reliability(*(list(column) for column in zip(*confidences, strict=True)))
        if confidences
        else None,
        "real_time_factor": float(sum(song["work_s"] for song in songs) / lengths.sum()),
        "scores": triads.tolist(),
    }


def to_records(rows: Sequence[dict], settings: dict) -> list[dict]:
    """A record a row: the samples are each song's weighted chord symbol recall (triads)."""
    environment, recorded = machine.environment(), []
    for row in rows:
        parameters = {"instrument": row["instrument"], "degraded": row["degraded"], **settings}
        values = {k: v for k, v in row.items() if k not in ("instrument", "degraded", "scores", "source")}
        values |= {"unit": "recall", "samples": row["scores"], "environment": environment}
        recorded.append(records.make("songs", parameters=parameters, **values))
    return recorded


def table(rows: Sequence[dict]) -> list[list]:
    """Cells for reading, in percent: see `HEADERS`; below each instrument the other recognisers on the same songs."""

    def percent(value: float | None, digits: int) -> str | None:
        return None if value is None else f"{100 * value:.{digits}f}"

    cells = []
    for row in rows:
        instrument = f"{row['instrument']}, degraded" if row["degraded"] else row["instrument"]
        low, high = (100 * bound for bound in row["triads_interval"])
        recalls = [percent(row[name], 2) for name in (*_SCORES, "non_chords")]
        recalls[0] = f"{recalls[0]} ({low:.2f}–{high:.2f})"
        off = row["median_change_error_s"]
        changes = [percent(row["near_changes"], 1), None if off is None else f"{1000 * off:.0f}"]
        cells.append([instrument, row["songs"], *recalls, *changes])
        for name, scores in row["others"].items():
            recalls = [percent(scores[key], 2) for key in (*_SCORES, "non_chords")]
            cells.append([f"  {name}", row["songs"], *recalls, None, None])
    return cells
