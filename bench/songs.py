"""How well chords are followed through songs: mir_eval on progressions rendered with exact ground truth.

Each song is planned by its seed, played by one instrument, optionally recorded anew in a room, and read by
`export.songs.timeline` as a user's file is. Scores are mir_eval's `triads` (root and type; dim and aug count as such),
weighted by duration: the weighted chord symbol recall. Time at which both say "no chord" counts as right, as in MIREX.
What is not measured here: drums, voices, sevenths, and hands other than a program's.
"""

import io
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from triadbench.bench import machine, records
from triadbench.core.constants import SAMPLE_RATE
from triadbench.core.models.chords import TYPES
from triadbench.core.models.spelling import harte, read_chord
from triadbench.core.render.note_banks import NoteBank, bank_for
from triadbench.core.render.progressions import Progression, plan_progression, render_progression, truth
from triadbench.core.render.rooms import degrade_song
from triadbench.export.predict.predictor import ChordPredictor
from triadbench.export.songs.timeline import Timeline, find_timeline

HEADERS = "instrument|songs|triads %|majmin %|root %|segmentation %|changes in 150 ms %|off by ms".split("|")
_RECALLS = {"triads": "triads", "majmin": "majmin", "root": "root", "segmentation": "seg"}
"""Our names of mir_eval's scores, and its own."""
_NEAR_S, _GRID_S, _RESAMPLED = 0.15, 0.01, 1000


def score_songs(
    sources: Sequence[str],
    predictor: ChordPredictor,
    *,
    songs: int = 24,
    bars: int = 16,
    seed: int = 0,
    degraded: bool = False,
    cache: str | Path = Path("data/banks"),
    progress: Callable[[int, int], None] | None = None,
) -> list[dict]:
    """One row an instrument: {"instrument", "source", "degraded", "songs", "seconds", "triads", "triads_interval",
    "majmin", "root", "segmentation", "near_changes", "median_change_error_s", "by_pattern", "by_type",
    "real_time_factor", "scores"}.

    `near_changes` is the share of true changes with a change of the timeline within 150 ms; `triads_interval` is the
    95 % interval from drawing songs anew (bootstrap). "scores" holds each song's own.

    Raises:
        ModuleNotFoundError: mir_eval is not installed.
        UserError: an instrument cannot be built.
    """
    import mir_eval.chord  # noqa: F401  (if it is missing, before the first song)

    rows = []
    for k, source in enumerate(sources):
        bank = NoteBank.load(bank_for(source, cache))
        scores = []
        for i in range(songs):
            progression = plan_progression(seed + i, bars=bars)
            waveform = render_progression(progression, bank)
            if degraded:
                waveform = degrade_song(waveform, seed + i)
            scores.append(_score(progression, waveform, predictor))
            if progress is not None:
                progress(k * songs + i + 1, songs * len(sources))
        rows.append({"instrument": bank.name, "source": source, "degraded": degraded, **_summary(scores)})
    return rows


def _score(progression: Progression, waveform: np.ndarray, predictor: ChordPredictor) -> dict:
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, waveform, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    begin = time.perf_counter()
    timeline = find_timeline(file, predictor, name=f"song {progression.seed}")
    seconds = time.perf_counter() - begin
    return {"pattern": progression.pattern, "work_s": seconds, **compare(*truth(progression), timeline)}


def compare(intervals: np.ndarray, symbols: Sequence[str], timeline: Timeline) -> dict:
    """mir_eval's scores of a timeline against the truth (intervals (n, 2) in seconds, symbols), the distance of each
    true change from the nearest change of the timeline, and "hits", {type: (right, all)} points of time."""
    import mir_eval.chord

    triads = [segment.chord and read_chord(segment.chord) for segment in timeline.segments]
    bounds = np.array([[segment.start_s, segment.end_s] for segment in timeline.segments])
    labels = [harte(symbol) for symbol in symbols], [segment.label for segment in timeline.segments]
    scores = mir_eval.chord.evaluate(intervals, labels[0], bounds, labels[1])
    starts = bounds[:, 0]
    errors = [float(np.abs(starts[1:] - change).min()) if len(starts) > 1 else 9.0 for change in intervals[1:, 0]]
    hits: dict[str, tuple[int, int]] = {}
    for (start, end), symbol in zip(intervals, symbols, strict=True):
        grid = np.arange(start, end, _GRID_S)
        chord = read_chord(symbol)
        kind = "no chord" if chord is None else TYPES[chord.quality]
        right, n = hits.get(kind, (0, 0))
        right += sum(triads[k] == chord for k in np.searchsorted(starts, grid, "right") - 1)
        hits[kind] = right, n + len(grid)
    recalls = {name: float(scores[key]) for name, key in _RECALLS.items()}
    return {"duration_s": float(intervals[-1, 1]), **recalls, "change_errors_s": errors, "hits": hits}


def _summary(songs: list[dict]) -> dict:
    """The values of `score_songs` of one instrument's songs."""
    lengths = np.array([song["duration_s"] for song in songs])
    errors = np.concatenate([song["change_errors_s"] for song in songs])
    values = {name: np.array([song[name] for song in songs]) for name in _RECALLS}
    patterns = np.array([song["pattern"] for song in songs])
    drawn = np.random.default_rng(0).integers(len(songs), size=(_RESAMPLED, len(songs)))
    resampled = (values["triads"][drawn] * lengths[drawn]).sum(axis=1) / lengths[drawn].sum(axis=1)
    kinds = sorted({kind for song in songs for kind in song["hits"]})
    hits = {kind: np.sum([song["hits"].get(kind, (0, 0)) for song in songs], axis=0) for kind in kinds}

    def recall(name: str, chosen: np.ndarray | slice = slice(None)) -> float:
        return float(np.average(values[name][chosen], weights=lengths[chosen]))

    return {
        "songs": len(songs),
        "seconds": float(lengths.sum()),
        **{name: recall(name) for name in _RECALLS},
        "triads_interval": np.percentile(resampled, [2.5, 97.5]).tolist(),
        "near_changes": float((errors <= _NEAR_S).mean()),
        "median_change_error_s": float(np.median(errors)),
        "by_pattern": {str(name): recall("triads", patterns == name) for name in np.unique(patterns)},
        "by_type": {kind: float(right / n) for kind, (right, n) in hits.items()},
        "real_time_factor": float(sum(song["work_s"] for song in songs) / lengths.sum()),
        "scores": values["triads"].tolist(),
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
    """Cells for reading, in percent: see `HEADERS`."""
    cells = []
    for row in rows:
        instrument = f"{row['instrument']}, degraded" if row["degraded"] else row["instrument"]
        low, high = (100 * bound for bound in row["triads_interval"])
        recalls = [f"{100 * row[name]:.2f}" for name in _RECALLS]
        recalls[0] += f" ({low:.2f}–{high:.2f})"
        changes = [f"{100 * row['near_changes']:.1f}", f"{1000 * row['median_change_error_s']:.0f}"]
        cells.append([instrument, row["songs"], *recalls, *changes])
    return cells
