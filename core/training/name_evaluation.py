"""How well a model names chords of all qualities, finds none where there is none, and knows how sure it may be.

Scores are mir_eval's: `triads` compares what MIREX's reduction leaves of both names, and a suspended or power chord,
which it leaves as it is, with the same alone. A full name is right where root and quality are; an inverted augmented or
diminished seventh chord has as many roots as notes. A single note counts as no chord.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from triadbench.core.audio.io import AudioError, read_clip
from triadbench.core.data.chord_labels import LabelledSound, main_label
from triadbench.core.errors import UserError
from triadbench.core.files import atomic_path
from triadbench.core.models import chroma_template
from triadbench.core.models.chords import NO_CHORD
from triadbench.core.models.peers import listen
from triadbench.core.models.prediction import Scores, name_chord, no_chord
from triadbench.core.models.spelling import UNKNOWN, chord_name, harte, read_harte
from triadbench.core.models.vocabulary import QUALITIES
from triadbench.core.training.evaluation import wilson

if TYPE_CHECKING:
    from triadbench.core.models.predictor import Predictor

TEMPLATE = "chroma template"
_BATCH, _BINS = 32, 10
_ONE_NOTE = len(QUALITIES) - 1


def evaluate_names(
    sounds: Sequence[LabelledSound],
    predictor: Predictor,
    peers: Mapping[str, str],
    progress: Callable[[int, int], None] | None = None,
) -> dict:
    """Measure a model on labelled sounds, the chroma template and peers ({name: Python}) beside it.

    Of each sound the first 4 s count. Those labelled "X" are left out; those that cannot be read are in `failed`.

    Returns:
        {"n", the scores of `_scores`, "calibration": {"triads", "names": `reliability`}, "others": {name: scores},
        "failed"}.

    Raises:
        UserError: the model does not name both type and root, a peer failed, or no sound could be read.
    """
    labels, kept, answers, template, failed = [], [], [], [], []
    known = [sound for sound in sounds if main_label(sound.stretches) != UNKNOWN]
    for start in range(0, len(known), _BATCH):
        waveforms = []
        for sound in known[start : start + _BATCH]:
            try:
                waveforms.append(read_clip(sound.path))
                kept.append(sound)
                labels.append(main_label(sound.stretches))
            except AudioError as error:
                failed.append({"file": str(sound.path), "error": str(error)})
        if waveforms:
            scores = predictor(np.stack(waveforms))
            if scores.joint is None:
                raise UserError("this model does not name both type and root; full names need both")
            answers += [_named(scores, row) for row in range(len(waveforms))]
            template += [template_label(waveform) for waveform in waveforms]
        if progress is not None:
            progress(min(start + _BATCH, len(known)), len(known))
    if not kept:
        raise UserError(f"none of {len(sounds)} sounds can be scored; {failed[0]['error'] if failed else 'all are X'}")
    kinds = [None if sound.kind is None else str(sound.kind) for sound in kept]
    named = [answer.get("label") or harte(answer["chord"]) for answer in answers]
    sure = [answer["confidence"] for answer in answers]
    calibration = {
        "triads": reliability(sure, right_triads(labels, named)),
        "names": reliability(
            [answer.get("label_confidence", answer["confidence"]) for answer in answers], right_names(labels, named)
        ),
    }
    others = {TEMPLATE: _scores(labels, kinds, template)}
    for name, python in peers.items():
        heard = listen(name, python, [sound.path for sound in kept])
        others[name] = _scores(labels, kinds, [main_label(stretches_of(changes)) for changes in heard])
    scores_of_all = {"n": len(kept), **_scores(labels, kinds, named)}
    return {**scores_of_all, "calibration": calibration, "others": others, "failed": failed}


def _named(scores: Scores, row: int) -> dict:
    """The answer for one sound of a batch, as `infer` gives it."""
    if scores.silent[row] or scores.chords is None:
        return no_chord()
    return name_chord(scores.chords[row], None if scores.bass is None else scores.bass[row], 0)


def template_label(waveform: np.ndarray) -> str:
    """The chroma template's answer for a waveform (samples,), which always is some triad, in Harte's syntax."""
    types, roots = chroma_template.predict(waveform)
    return harte(chord_name(int(roots.argmax()), int(types.argmax())))


def stretches_of(changes: Sequence[tuple[float, str]], end: float = 4.0) -> list[tuple[float, float, str]]:
    """Stretches up to `end` from (start, label) of each, "N" before the first."""
    changes = [(0.0, NO_CHORD), *(change for change in changes if change[0] < end)]
    ends = [start for start, _ in changes[1:]] + [end]
    return [(start, stop, label) for (start, label), stop in zip(changes, ends, strict=True) if stop > start]


def is_no_chord(label: str) -> bool:
    """True for "N" and for a single note."""
    try:
        chord = read_harte(label)
    except ValueError:
        return False
    return chord is None or chord.quality == _ONE_NOTE


def right_names(labels: Sequence[str], answers: Sequence[str]) -> list[bool]:
    """Whether each answer has the root and the quality of its label."""
    return [_same(label, answer) for label, answer in zip(labels, answers, strict=True)]


def right_triads(labels: Sequence[str], answers: Sequence[str]) -> list[bool]:
    """Whether each answer is right by mir_eval's `triads`, or else by its full name."""
    import mir_eval.chord

    scores = mir_eval.chord.triads(*([in_mir_eval(label) for label in row] for row in (labels, answers)))
    return [bool(score > 0) or name for score, name in zip(scores, right_names(labels, answers), strict=True)]


def in_mir_eval(label: str) -> str:
    """A label as mir_eval reads it: one with a name that only others know, as "add9", by the nearest that it knows."""
    import mir_eval.chord

    try:
        mir_eval.chord.encode(label)
    except mir_eval.chord.InvalidChordException:
        chord = read_harte(label)
        return NO_CHORD if chord is None else harte(chord_name(chord.root, chord.quality, bass=chord.bass))
    return label


def _same(label: str, answer: str) -> bool:
    if is_no_chord(label) or is_no_chord(answer):
        return is_no_chord(label) and is_no_chord(answer)
    try:
        truth, chord = read_harte(label), read_harte(answer)
    except ValueError:
        return False
    assert truth is not None and chord is not None  # those are no chords
    if truth.quality != chord.quality:
        return False
    notes = [{(c.root + step) % 12 for step in QUALITIES[c.quality].semitones} for c in (truth, chord)]
    return truth.root == chord.root or (truth.bass is not None and notes[0] == notes[1])


def _scores(labels: Sequence[str], kinds: Sequence[str | None], answers: Sequence[str]) -> dict:
    """{"triads", "names": shares of the chords named rightly, "non_chords": share of the sounds without a chord in
    which none is named, "by_quality", "by_kind"}; a score is {"n", "share", "interval" (95 %)}."""
    none = [is_no_chord(label) for label in labels]
    triads, names = right_triads(labels, answers), right_names(labels, answers)
    qualities = [NO_CHORD if absent else _quality(label) for label, absent in zip(labels, none, strict=True)]

    def share(right: Sequence[bool], chosen: Sequence[bool]) -> dict:
        hits = [hit for hit, counts in zip(right, chosen, strict=True) if counts]
        n = len(hits)
        return {"n": n, "share": sum(hits) / n if n else None, "interval": wilson(sum(hits), n) if n else None}

    def by(groups: Sequence[str | None]) -> dict:
        found = [group for group in dict.fromkeys(groups) if group is not None]
        chosen = {group: [other == group for other in groups] for group in found}
        return {group: {"triads": share(triads, some), "names": share(names, some)} for group, some in chosen.items()}

    chords = [not absent for absent in none]
    result = {"triads": share(triads, chords), "names": share(names, chords), "non_chords": share(names, none)}
    order = [quality.harte for quality in QUALITIES]
    by_quality = by([quality if quality in order else None for quality in qualities])
    in_order = {quality: by_quality[quality] for quality in order if quality in by_quality}
    return {**result, "by_quality": in_order, "by_kind": by(kinds)}


def _quality(label: str) -> str:
    chord = read_harte(label)
    return NO_CHORD if chord is None else QUALITIES[chord.quality].harte


def reliability(
    confidences: Sequence[float | None], right: Sequence[float | bool], weights: Sequence[float] | None = None
) -> dict:
    """How far confidences are from the shares that are right.

    Args:
        confidences: 0-1; an answer with None is left out. right: whether each answer is right, or which share of it.
        weights: how much each counts, as seconds; by default all the same.

    Returns:
        {"ece": expected calibration error, 0-1 (None without an answer), "bins": of ten of equal width those that are
        not empty, {"from", "to", "weight", "confidence", "right"}}: Naeini and others, "Obtaining well calibrated
        probabilities using Bayesian binning" (AAAI 2015).
    """
    stated = np.array([np.nan if value is None else value for value in confidences], float)
    kept = ~np.isnan(stated)
    stated, hits = stated[kept], np.asarray(right, float)[kept]
    counts = np.ones(len(stated)) if weights is None else np.asarray(weights, float)[kept]
    number = np.minimum((stated * _BINS).astype(int), _BINS - 1)
    bins, error = [], 0.0
    for k in range(_BINS):
        chosen = number == k
        if weight := float(counts[chosen].sum()):
            mean, share = (float(np.average(values[chosen], weights=counts[chosen])) for values in (stated, hits))
            bins.append(
                {"from": k / _BINS, "to": (k + 1) / _BINS, "weight": weight, "confidence": mean, "right": share}
            )
            error += weight * abs(mean - share)
    return {"ece": error / float(counts.sum()) if bins else None, "bins": bins}


def draw_reliability(result: dict, path: str | Path, title: str) -> None:
    """Write what `evaluate_names` says of confidences as one self-contained interactive page."""
    import plotly.graph_objects as go

    figure = go.Figure(reliability_traces({name: entry for name, entry in result["calibration"].items()}))
    figure.update_layout(
        title=f"{title} ({result['n']} sounds)", height=560, xaxis_title_text="stated confidence, percent"
    )
    figure.update_yaxes(title_text="right, percent")
    with atomic_path(path) as temporary:
        figure.write_html(temporary, include_plotlyjs=True)


def reliability_traces(calibrations: Mapping[str, dict]) -> list[dict]:
    """Plotly's traces of reliability by name, in percent, and the line on which a model is as sure as it is right."""
    axis = [0, 100]
    traces = [
        {"x": axis, "y": axis, "mode": "lines", "name": "as sure as right", "line": {"dash": "dot", "color": "#888"}}
    ]
    for name, entry in calibrations.items():
        bins = entry["bins"]
        points = {"x": [100 * row["confidence"] for row in bins], "y": [100 * row["right"] for row in bins]}
        total = sum(row["weight"] for row in bins) or 1
        marker = {"size": [6 + 24 * (row["weight"] / total) ** 0.5 for row in bins]}
        label = f"{name}: {100 * entry['ece']:.1f} points off" if bins else name
        hover = "stated %{x:.1f} %, right %{y:.1f} %<extra>%{fullData.name}</extra>"
        traces.append({**points, "mode": "lines+markers", "name": label, "marker": marker, "hovertemplate": hover})
    return traces
