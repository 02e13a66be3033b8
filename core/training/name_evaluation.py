"""How well chords of all qualities are named, in clips and in songs, and how sure a model may be.

Scores are mir_eval's, in songs weighted by duration; a single note counts as no chord. A full name is right where root
and quality are; an inverted augmented or diminished seventh chord has as many roots as notes.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from triadbench.core.audio.io import AudioError, read_clip
from triadbench.core.data.chord_labels import LabelledSound, main_label
from triadbench.core.errors import UserError
from triadbench.core.models import chroma_template
from triadbench.core.models.chords import NO_CHORD
from triadbench.core.models.peers import listen
from triadbench.core.models.prediction import name_chord, no_chord, require_chords
from triadbench.core.models.spelling import UNKNOWN, chord_name, harte, read_harte
from triadbench.core.models.targets import allowed_classes, parse_label
from triadbench.core.models.vocabulary import N_QUALITIES, QUALITIES

if TYPE_CHECKING:
    from triadbench.core.models.predictor import Predictor

TEMPLATE = "chroma template"
RECALLS = ("triads", "majmin", "sevenths", "mirex", "root")
"""mir_eval's comparisons."""
SCORES = (*RECALLS, "names", "non_chords")
_BINS, _COLOURS = 10, ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#7f6bd0", "#8a8f98")


class Answer(NamedTuple):
    """What was answered for a sound, or for a stretch of a song; confidences are those of the triad and of the name.

    Labels are in Harte's syntax; `weight` is in seconds in a song; results are grouped by `kind`.
    """

    label: str
    answer: str
    weight: float = 1.0
    kind: str | None = None
    confidence: float | None = None
    label_confidence: float | None = None


def score(answers: Sequence[Answer]) -> dict:
    """The shares, 0-1, of what is right.

    Returns:
        {`SCORES`: mir_eval's, full names, and the share of what has no chord in which none is named, each None where
        nothing counts; "by_quality", "by_kind": {name: {"n", "triads", "names"}}, "n" the weight;
        "calibration": {"triads", "names": `reliability`}}. What is labelled "X" counts nowhere.
    """
    import mir_eval.chord

    labels, given = ([as_mir_eval(text) for text in row] for row in list(zip(*answers, strict=True))[:2])
    weights = np.array([answer.weight for answer in answers])
    right = {name: np.asarray(getattr(mir_eval.chord, name)(labels, given), float) for name in RECALLS}
    names = np.full(len(labels), -1.0)
    qualities: list[str | None] = [None] * len(labels)
    for row, (label, true, answer) in enumerate(zip(labels, map(_class, labels), map(_class, given), strict=True)):
        if true is not None:
            same = answer is not None and true % N_QUALITIES == answer % N_QUALITIES and allowed_classes(label)[answer]
            names[row], qualities[row] = same, NO_CHORD if label == NO_CHORD else QUALITIES[true % N_QUALITIES].harte
    right |= {"names": names, "non_chords": np.where(np.array(qualities) == NO_CHORD, names, -1)}
    right["triads"] = np.maximum(right["triads"], names)

    def share(name: str, chosen: np.ndarray | bool = True) -> float | None:
        counts = weights * (chosen & (right[name] >= 0))
        return float((counts * right[name]).sum() / counts.sum()) if counts.any() else None

    def by(groups: Sequence[str | None]) -> dict:
        members = {name: np.array([group == name for group in groups]) for name in dict.fromkeys(groups) if name}
        return {
            name: {"n": float(weights[some].sum()), **{key: share(key, some) for key in ("triads", "names")}}
            for name, some in members.items()
        }

    order = [*(quality.harte for quality in QUALITIES), NO_CHORD]
    by_quality = by(qualities)
    sure = {"triads": [a.confidence for a in answers], "names": [a.label_confidence for a in answers]}
    return {
        **{name: share(name) for name in SCORES},
        "by_quality": {name: by_quality[name] for name in order if name in by_quality},
        "by_kind": by([answer.kind for answer in answers]),
        "calibration": {name: reliability(stated, right[name], weights) for name, stated in sure.items()},
    }


def as_mir_eval(label: str) -> str:
    """A label as mir_eval reads it: one by a name that it lacks, as "add9", by the nearest; a single note is "N"."""
    import mir_eval.chord

    chord = None if label == UNKNOWN else read_harte(label)
    if chord is None or QUALITIES[chord.quality].harte == "1":
        return label if label == UNKNOWN else NO_CHORD
    try:
        mir_eval.chord.encode(label)
        return label
    except mir_eval.chord.InvalidChordException:
        return harte(chord_name(chord.root, chord.quality, bass=chord.bass))


def _class(label: str) -> int | None:
    """The class of a label; None for "X"."""
    return None if label == UNKNOWN else parse_label(label)[0]


def reliability(stated: Sequence[float | None], right: np.ndarray, weights: np.ndarray) -> dict:
    """How far confidences are from the shares that are right.

    Args:
        stated: confidences, 0-1; an answer with None is left out. right: 1, 0, or -1 for what is not counted.
        weights: how much each counts, as seconds.

    Returns:
        {"ece": expected calibration error, 0-1 (None without an answer), "bins": of ten of equal width those that are
        not empty, {"from", "to", "n" (weight), "confidence", "right"}}: Naeini and others, "Obtaining well calibrated
        probabilities using Bayesian binning" (AAAI 2015).
    """
    sure, bins = np.array(stated, float), []  # None is NaN
    for k in range(_BINS):
        chosen = (sure >= k / _BINS) & ((sure < (k + 1) / _BINS) | (k == _BINS - 1)) & (right >= 0)
        if chosen.any():
            mean, share = (float(np.average(values[chosen], weights=weights[chosen])) for values in (sure, right))
            ends = {"from": k / _BINS, "to": (k + 1) / _BINS}
            bins.append({**ends, "n": float(weights[chosen].sum()), "confidence": mean, "right": share})
    total = sum(row["n"] for row in bins)
    error = sum(row["n"] * abs(row["confidence"] - row["right"]) for row in bins)
    return {"ece": error / total if bins else None, "bins": bins}


def evaluate_names(
    sounds: Sequence[LabelledSound],
    predictor: Predictor,
    peers: Mapping[str, str],
    progress: Callable[[int, int], None] | None = None,
) -> dict:
    """Measure a model on labelled sounds, the chroma template and peers ({name: Python}) beside it.

    Of each sound the first 4 s count; those that cannot be read are in `failed`.

    Returns:
        {"n", what `score` returns, "others": {name: the same}, "failed": [{"file", "error"}]}.

    Raises:
        UserError: the model does not name both type and root, a peer failed, or no sound could be read.
    """
    require_chords(predictor.checkpoint.task)
    ours, template, kept, failed = [], [], [], []
    known = [(sound, main_label(sound.stretches)) for sound in sounds]
    for done, (sound, label) in enumerate(known, 1):
        try:
            waveform = read_clip(sound.path)
        except AudioError as error:
            failed.append({"file": str(sound.path), "error": str(error)})
            continue
        scores = predictor(waveform[None])
        assert scores.chords is not None  # models of one task are refused
        bass = None if scores.bass is None else scores.bass[0]
        named = no_chord() if scores.silent[0] else name_chord(scores.chords[0], bass, 0)
        sure = named["confidence"], named["label_confidence"]
        ours.append(Answer(label, named["label"], 1.0, sound.kind, *sure))
        template.append(Answer(label, template_label(waveform), 1.0, sound.kind))
        kept.append(sound)
        if progress is not None:
            progress(done, len(known))
    if all(answer.label == UNKNOWN for answer in ours):
        raise UserError(f"none of {len(sounds)} sounds can be scored; {failed[0]['error'] if failed else 'all are X'}")
    others = {TEMPLATE: score(template)}
    for name, python in peers.items():
        heard = listen(name, python, [sound.path for sound in kept])
        answers = [row._replace(answer=main_label(said)) for row, said in zip(template, heard, strict=True)]
        others[name] = score(answers)
    return {"n": len(ours), **score(ours), "others": others, "failed": failed}


def template_label(waveform: np.ndarray) -> str:
    """The chroma template's answer for a waveform (samples,), which always is some triad, in Harte's syntax."""
    types, roots = chroma_template.predict(waveform)
    return harte(chord_name(int(roots.argmax()), int(types.argmax())))


def percent(share: float | None) -> str | None:
    """A share as tables print it."""
    return None if share is None else f"{100 * share:.1f}"


def draw_reliability(calibrations: Mapping[str, dict], title: str) -> str:
    """A picture (SVG) of each `reliability`, by name: what was right over what was stated, in percent. Larger marks
    stand for more answers; on the dotted line a model is as often right as it says."""
    size = f"0 0 480 {490 + 18 * len(calibrations)}"
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{size}" font-family="sans-serif" font-size="13">']
    parts.append('<rect width="100%" height="100%" fill="#fff"/>')
    parts.append(f'<text x="50" y="24" font-weight="bold">{html.escape(title)}</text>')
    for k in range(0, 101, 20):
        parts.append(f'<path d="M50 {440 - 4 * k}h400M{50 + 4 * k} 40v400" stroke="#ddd"/>')
        parts.append(f'<text x="{50 + 4 * k}" y="458" text-anchor="middle">{k}</text>')
        parts.append(f'<text x="44" y="{444 - 4 * k}" text-anchor="end">{k}</text>')
    parts.append('<path d="M50 440L450 40" stroke="#888" stroke-dasharray="2 4"/>')
    parts.append('<text x="250" y="480" text-anchor="middle">stated %, and how many of these are right %</text>')
    for number, (name, entry) in enumerate(calibrations.items()):
        colour, bins = _COLOURS[number % len(_COLOURS)], entry["bins"]
        total = sum(row["n"] for row in bins)
        marks = [(50 + 400 * row["confidence"], 440 - 400 * row["right"], row["n"] / total) for row in bins]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in marks)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{3 + 9 * n**0.5:.1f}" fill="{colour}"/>' for x, y, n in marks]
        off = f": {percent(entry['ece'])} points off" if bins else ""
        parts.append(f'<text x="50" y="{502 + 18 * number}" fill="{colour}">{html.escape(name + off)}</text>')
    return "\n".join([*parts, "</svg>\n"])
