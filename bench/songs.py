"""How well chords are followed through songs: mir_eval on progressions rendered with exact ground truth.

Each song is planned by its seed, played by one instrument, optionally recorded anew in a room, and heard by
`export.songs.timeline` as a user's file is. Scores are mir_eval's `triads` (root and type; dim and aug count as such),
weighted by duration: the weighted chord symbol recall. Time at which both say "no chord" counts as right, as in MIREX.
What is not measured here: drums, voices, sevenths, and hands other than a program's.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from triadbench.bench import machine, records
from triadbench.core.constants import SAMPLE_RATE
from triadbench.core.errors import UserError
from triadbench.core.models.chords import NO_CHORD, ROOTS, TYPES
from triadbench.core.render.degrade import degrade_song
from triadbench.core.render.note_banks import NoteBank, bank_for
from triadbench.core.render.progressions import Progression, plan_progression, render_progression, truth
from triadbench.export.songs.harmony import parse_chord
from triadbench.export.songs.timeline import Timeline, find_timeline

_NAMES = dict(zip(TYPES, ("maj", "min", "dim", "aug"), strict=True))
_NEAR_S = 0.15
_RESAMPLED = 1000


def score_songs(
    sources: Sequence[str],
    predictor: Callable,
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

    `near_changes` is the share of true changes that lie within 150 ms of a found one; `triads_interval` is 95 %, by
    drawing songs anew (bootstrap). "scores" holds each song's own.

    Raises:
        UserError: mir_eval is missing, or an instrument cannot be built.
    """
    _scorer()
    rows = []
    for k, source in enumerate(sources):
        bank = NoteBank.load(bank_for(source, cache))
        heard = []
        for i in range(songs):
            progression = plan_progression(seed + i, bars=bars)
            waveform = render_progression(progression, bank)
            if degraded:
                waveform = degrade_song(waveform, seed + i)
            heard.append(_score(progression, waveform, predictor))
            if progress is not None:
                progress(k * songs + i + 1, songs * len(sources))
        rows.append({"instrument": bank.name, "source": source, "degraded": degraded, **_summed(heard)})
    return rows


def _scorer():
    try:
        import mir_eval.chord
    except ImportError as error:
        raise UserError(
            "scoring songs needs mir_eval: pip install 'triadbench[test]', or pip install mir_eval"
        ) from error
    return mir_eval.chord


def _score(progression: Progression, waveform: np.ndarray, predictor: Callable) -> dict:
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, waveform, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    begin = time.perf_counter()
    timeline = find_timeline(file, predictor, name=f"song {progression.seed}")
    seconds = time.perf_counter() - begin
    intervals, symbols = truth(progression)
    return {"pattern": progression.pattern, "work_s": seconds, **compare(intervals, symbols, timeline)}


def compare(intervals: np.ndarray, symbols: Sequence[str], timeline: Timeline) -> dict:
    """mir_eval's scores of a timeline against the truth (intervals (n, 2) in seconds, symbols)."""
    chord = _scorer()
    found = np.array([[s.start_s, s.end_s] for s in timeline.segments])
    scores = chord.evaluate(intervals, _labels(symbols), found, _labels([s.chord for s in timeline.segments]))
    errors = [float(np.abs(found[1:, 0] - t).min()) if len(found) > 1 else 9.0 for t in intervals[1:, 0]]
    starts, hits = found[:, 0], {}
    for (start, end), symbol in zip(intervals, symbols, strict=True):
        grid = np.arange(start, end, 0.01)
        right = sum(timeline.segments[k].chord == symbol for k in np.searchsorted(starts, grid, "right") - 1)
        parsed = parse_chord(symbol)
        kind = "no chord" if parsed is None else TYPES[parsed[1]]
        n, m = hits.get(kind, (0, 0))
        hits[kind] = (n + int(right), m + len(grid))
    return {
        "duration_s": float(intervals[-1, 1]),
        "triads": float(scores["triads"]),
        "majmin": float(scores["majmin"]),
        "root": float(scores["root"]),
        "segmentation": float(scores["seg"]),
        "change_errors_s": errors,
        "hits": hits,
    }


def _labels(symbols: Sequence[str]) -> list[str]:
    parsed = [parse_chord(symbol) for symbol in symbols]
    return [NO_CHORD if p is None else f"{ROOTS[p[0]]}:{_NAMES[TYPES[p[1]]]}" for p in parsed]


def _summed(heard: list[dict]) -> dict:
    lengths = np.array([song["duration_s"] for song in heard])
    errors = np.concatenate([song["change_errors_s"] for song in heard])
    triads = np.array([song["triads"] for song in heard])
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(heard), size=(_RESAMPLED, len(heard)))
    again = (triads[drawn] * lengths[drawn]).sum(axis=1) / lengths[drawn].sum(axis=1)
    kinds: dict[str, list[int]] = {}
    for song in heard:
        for kind, (right, n) in song["hits"].items():
            total = kinds.setdefault(kind, [0, 0])
            total[0], total[1] = total[0] + right, total[1] + n
    return {
        "songs": len(heard),
        "seconds": float(lengths.sum()),
        **{
            key: float(np.average([song[key] for song in heard], weights=lengths))
            for key in ("triads", "majmin", "root", "segmentation")
        },
        "triads_interval": [float(v) for v in np.percentile(again, [2.5, 97.5])],
        "near_changes": float((errors <= _NEAR_S).mean()),
        "median_change_error_s": float(np.median(errors)),
        "by_pattern": {
            pattern: float(
                np.average(
                    [s["triads"] for s in heard if s["pattern"] == pattern],
                    weights=[s["duration_s"] for s in heard if s["pattern"] == pattern],
                )
            )
            for pattern in sorted({song["pattern"] for song in heard})
        },
        "by_type": {kind: right / n for kind, (right, n) in sorted(kinds.items())},
        "real_time_factor": float(sum(song["work_s"] for song in heard) / lengths.sum()),
        "scores": [float(value) for value in triads],
    }


def to_records(rows: Sequence[dict], settings: dict) -> list[dict]:
    """A record a row: the samples are each song's weighted chord symbol recall (triads)."""
    environment = machine.environment()
    made = []
    for row in rows:
        parameters = {key: row[key] for key in ("instrument", "degraded")} | settings
        more = {key: row[key] for key in row if key not in ("instrument", "degraded", "scores", "source")}
        made.append(
            records.make(
                "songs", parameters=parameters, unit="recall", samples=row["scores"], environment=environment, **more
            )
        )
    return made


def table(rows: Sequence[dict]) -> list[list]:
    """Cells for reading, in percent: see `HEADERS`."""
    return [
        [
            row["instrument"] + (", degraded" if row["degraded"] else ""),
            row["songs"],
            f"{100 * row['triads']:.2f} ({100 * row['triads_interval'][0]:.2f}–{100 * row['triads_interval'][1]:.2f})",
            f"{100 * row['majmin']:.2f}",
            f"{100 * row['root']:.2f}",
            f"{100 * row['segmentation']:.2f}",
            f"{100 * row['near_changes']:.1f}",
            f"{1000 * row['median_change_error_s']:.0f}",
        ]
        for row in rows
    ]


HEADERS = (
    "instrument",
    "songs",
    "triads %",
    "majmin %",
    "root %",
    "segmentation %",
    "changes in 150 ms %",
    "off by ms",
)
