"""How well chords and beats are followed through songs, by mir_eval: songs of ours, or recordings with a `.lab` beside
each.

A song of ours is made up from its seed; one instrument plays all its parts, and it may be recorded anew in a room.
Each song is read by `export.songs.timeline` as a user's file is, by the chroma template, and by other recognisers
where they are installed. Scores are mir_eval's over the time of all songs, the weighted chord symbol recall: `triads`
compares root and type (dim and aug count as such; a suspended chord is right as the same alone). Time at which both
say "no chord" counts as right, as in MIREX.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from triadbench.bench import machine, records
from triadbench.core.audio.io import read_clip, write_wav
from triadbench.core.constants import SAMPLE_RATE
from triadbench.core.data.chord_labels import Stretch, find_labelled
from triadbench.core.errors import UserError
from triadbench.core.models.chords import NO_CHORD
from triadbench.core.models.chroma_template import WINDOW_S
from triadbench.core.models.peers import listen
from triadbench.core.models.prediction import is_silent
from triadbench.core.render.note_banks import NoteBank, bank_for
from triadbench.core.render.rooms import degrade_song
from triadbench.core.render.songs import SongRenderer, arrange
from triadbench.core.training.name_evaluation import (
    SCORES,
    TEMPLATE,
    Answer,
    as_mir_eval,
    percent,
    score,
    template_label,
)
from triadbench.export.predict.predictor import ChordPredictor
from triadbench.export.songs.timeline import find_timeline
from triadbench.kernels.scratch import scratch_folder

_COLUMNS = (*SCORES, "segmentation", "beats")
HEADERS = ["songs by", "songs", *(f"{name} %" for name in _COLUMNS), "changes in 150 ms %", "off by ms"]
_NEAR_S, _RESAMPLED, _TEMPLATE_HOP_S = 0.15, 1000, 0.5

Progress = Callable[[int, int], None]


class Song(NamedTuple):
    """A sound file and its true chords by time; where they are known, times of beats and their positions in the bar."""

    path: Path
    stretches: Sequence[Stretch]
    beats: Sequence[tuple[float, int]] = ()


class Followed(NamedTuple):
    """What was heard in a song: answers by stretch, mir_eval's `seg`, and how far each true change is from the nearest
    change of the answers, in seconds."""

    answers: list[Answer]
    segmentation: float
    change_errors_s: list[float]


def score_songs(
    sources: Sequence[str],
    predictor: ChordPredictor,
    *,
    songs: int = 24,
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
        if bank.high - bank.low < 11:  # without a note of each pitch class
            raise UserError(f"{bank.name} plays {bank.low} to {bank.high}, less than an octave; choose another")
        with scratch_folder() as folder:
            played = (_play(bank, folder, seed + i, degraded) for i in range(songs))
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
    songs = [Song(path, stretches) for path, stretches, _ in sounds if np.isfinite(stretches[-1][1])]
    if not songs:
        raise UserError(f"{folder}: no song with a .lab beside it")
    summary = _measure(songs, len(songs), predictor, peers or {}, progress)
    return {"instrument": folder.resolve().name, "source": "recordings", "degraded": False, **summary}


def _play(bank: NoteBank, folder: Path, seed: int, degraded: bool) -> Song:
    rng = np.random.default_rng([seed, 0x50])
    song = arrange(rng, f"song {seed}").excerpt(-rng.uniform(0.5, 2))  # begins with silence
    waveform = SongRenderer([bank], [1.0], seed).perform(song, rng)
    waveform *= 0.7 / np.abs(waveform).max()
    path = folder / f"{song.name}.wav"
    write_wav(path, degrade_song(waveform, seed) if degraded else waveform)
    return Song(path, song.chords, song.beats)


def _measure(
    songs: Iterable[Song], n: int, predictor: ChordPredictor, peers: Mapping[str, str], progress: Progress | None
) -> dict:
    """What `_scores` says of our answers, and "others": {name: the same of each other recogniser}; the 95 % interval of
    "triads" from drawing songs anew (bootstrap); mean F-measure of "beats"; "scores": each song's own triads."""
    known, beats, work_s = [], [], 0.0
    followed: dict[str, list[Followed]] = {"": [], TEMPLATE: []}
    for song in songs:
        begin = time.perf_counter()
        timeline = find_timeline(str(song.path), predictor, name=song.path.stem)
        work_s += time.perf_counter() - begin
        heard = [(s.start_s, s.end_s, s.label, s.confidence, s.label_confidence) for s in timeline.segments]
        followed[""].append(compare(song, heard))
        followed[TEMPLATE].append(compare(song, _template_answers(song.path)))
        if song.beats:
            beats.append(beats_found(song.beats, timeline.beats))
        known.append(song)
        if progress is not None:
            progress(len(known), n)
    for name, python in peers.items():
        answers = listen(name, python, [song.path for song in known])
        followed[name] = [compare(*pair) for pair in zip(known, answers, strict=True)]
    scores = {name: _scores(rows) for name, rows in followed.items()}
    lengths = np.array([sum(answer.weight for answer in song.answers) for song in followed[""]])
    triads = np.array([score(song.answers)["triads"] or 0.0 for song in followed[""]])
    drawn = np.random.default_rng(0).integers(len(known), size=(_RESAMPLED, len(known)))
    resampled = (triads[drawn] * lengths[drawn]).sum(axis=1) / lengths[drawn].sum(axis=1)
    return {
        "songs": len(known),
        "seconds": float(lengths.sum()),
        **scores.pop(""),
        "beats": float(np.mean(beats)) if beats else None,
        "triads_interval": np.percentile(resampled, [2.5, 97.5]).tolist(),
        "real_time_factor": work_s / float(lengths.sum()),
        "scores": triads.tolist(),
        "others": scores,
    }


def _template_answers(path: Path) -> list[Stretch]:
    """The chroma template's answer for two seconds around every half second of a sound."""
    waveform = read_clip(path, None)
    hop, window = round(_TEMPLATE_HOP_S * SAMPLE_RATE), round(WINDOW_S * SAMPLE_RATE)
    padded = np.pad(waveform, ((window - hop) // 2, window))
    parts = [padded[start : start + window] for start in range(0, max(len(waveform), 1), hop)]
    labels = [NO_CHORD if is_silent(part[None])[0] else template_label(part) for part in parts]
    return [(k * _TEMPLATE_HOP_S, (k + 1) * _TEMPLATE_HOP_S, label) for k, label in enumerate(labels)]


def compare(song: Song, heard: Sequence[tuple]) -> Followed:
    """Answers against the truth; what no stretch of either covers is no chord.

    `heard`: (start and end in seconds, label in Harte's syntax, and perhaps confidences of triad and name) by time.
    """
    from mir_eval import chord

    start, end = song.stretches[0][0], song.stretches[-1][1]
    times = np.unique(np.clip([time for row in (*song.stretches, *heard) for time in row[:2]], start, end))
    answers = []
    for a, b in zip(times, times[1:], strict=False):
        (label, *_), (answer, *sure) = (_at(rows, (a + b) / 2) for rows in (song.stretches, heard))
        answers.append(Answer(as_mir_eval(label), as_mir_eval(answer), float(b - a), None, *sure))
    intervals = np.column_stack([times[:-1], times[1:]])
    said = [list(labels) for labels in list(zip(*answers, strict=True))[:2]]
    segmentation = float(chord.seg(*(chord.merge_chord_intervals(intervals, labels) for labels in said)))
    changes = [row[0] for row in heard[1:]] or [np.inf]
    true_changes = [b[0] for a, b in itertools.pairwise(song.stretches) if a[2] != b[2]]
    errors = [min(float(np.abs(np.array(changes) - time).min()), 9.0) for time in true_changes]
    return Followed(answers, segmentation, errors)


def beats_found(true: Sequence[tuple], heard: Sequence[tuple]) -> float:
    """F-measure, 0-1, of beats, (time in seconds, position) by time, within 70 ms; as usual, not of the first 5 s."""
    from mir_eval.beat import f_measure

    times = [np.array([time for time, _ in beats if time >= 5]) for beats in (true, heard)]
    return float(f_measure(*times)) if all(map(len, times)) else 0.0


def _at(stretches: Sequence[tuple], time: float) -> tuple:
    return next((tuple(row[2:]) for row in stretches if row[0] <= time < row[1]), (NO_CHORD,))


def _scores(songs: Sequence[Followed]) -> dict:
    """What `score` says of all songs' answers, with "segmentation", "near_changes": the share of true changes with a
    change of the answers within 150 ms, and "median_change_error_s"."""
    lengths = [sum(answer.weight for answer in song.answers) for song in songs]
    errors = np.concatenate([song.change_errors_s for song in songs])
    return {
        **score([answer for song in songs for answer in song.answers]),
        "segmentation": float(np.average([song.segmentation for song in songs], weights=lengths)),
        "near_changes": float((errors <= _NEAR_S).mean()) if len(errors) else None,
        "median_change_error_s": float(np.median(errors)) if len(errors) else None,
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
    cells = []
    for row in rows:
        instrument = f"{row['instrument']}, degraded" if row["degraded"] else row["instrument"]
        for name, scores in [(instrument, row), *((f"  {name}", other) for name, other in row["others"].items())]:
            recalls = [percent(scores.get(key)) for key in (*_COLUMNS, "near_changes")]
            off = scores["median_change_error_s"]
            cells.append([name, row["songs"], *recalls, None if off is None else f"{1000 * off:.0f}"])
    return cells
