"""How often a model is right: on a labelled set, by octave, volume and voicing, with a chroma template beside it."""

from __future__ import annotations

import concurrent.futures
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from triadbench.core.audio.io import AudioError
from triadbench.core.constants import usable_cores
from triadbench.core.data.dataset import Dataset, parse_member
from triadbench.core.errors import UserError
from triadbench.core.files import atomic_path
from triadbench.core.models import chroma_template
from triadbench.core.models.chords import ROOTS, TYPES, ClipName

if TYPE_CHECKING:
    from triadbench.core.models.predictor import Predictor

_BATCH = 32
Answers = list[tuple[ClipName, int | None, int | None]]
"""(name of a clip, type and root that it was given; None from a model that does not name them)."""


def evaluate(dataset: Dataset, predictor: Predictor, progress: Callable[[int, int], None] | None = None) -> dict:
    """Measure a model on every clip of a set.

    A clip that cannot be read is left out and listed under `failed`. Where the root is undefined (an inverted
    augmented triad) it counts for the type only.

    Returns:
        {"n", "type_accuracy", "root_accuracy", "both_accuracy", their "..._interval" (95 %, Wilson), "confusion_type",
        "confusion_root" (rows true, columns answered, in label order), "root_undefined", "by_octave", "by_volume",
        "by_voicing", "failed", "skipped", "labels", "baseline": the same accuracies of `core.models.chroma_template`}.
        An accuracy that the model or the set does not give is None.

    Raises:
        UserError: no clip could be read.
    """
    answers: Answers = []
    template: Answers = []
    failed, foreign = _sort_skipped(dataset)
    # The template answers in other threads (NumPy and SciPy let go of the interpreter) while the network computes.
    with concurrent.futures.ThreadPoolExecutor(usable_cores()) as pool:
        for start in range(0, len(dataset), _BATCH):
            end, batch, names = min(start + _BATCH, len(dataset)), [], []
            for index in range(start, end):
                try:
                    batch.append(dataset.read(index))
                    names.append(dataset.clips[index].name)
                except AudioError as error:
                    failed.append({"file": dataset.clips[index].member, "error": str(error)})
            if batch:
                waveforms = np.stack(batch)
                pending = pool.map(chroma_template.predict, np.split(waveforms, len(waveforms)))
                scores = predictor(waveforms)
                kinds = scores.types, scores.roots
                best = ([None] * len(batch) if kind is None else kind.argmax(1).tolist() for kind in kinds)
                answers += zip(names, *best, strict=True)
                for name, (types, roots) in zip(names, pending, strict=True):
                    template.append((name, int(types.argmax()), int(roots.argmax())))
            if progress is not None:
                progress(end, len(dataset))
    if not answers:
        first = failed[0]["error"]
        raise UserError(f"{dataset.path}: none of its {len(dataset)} clips could be read; the first: {first}")
    defined = [answer for answer in answers if answer[0].root_is_defined]
    result = {
        **_accuracies(answers),
        "confusion_type": _confusion([(name.type, type_) for name, type_, _ in answers], len(TYPES)),
        "confusion_root": _confusion([(name.root, root) for name, _, root in defined], len(ROOTS)),
        "root_undefined": len(answers) - len(defined),
    }
    for key in ("octave", "volume", "voicing"):
        groups = sorted({getattr(name, key) for name, *_ in answers} - {None})
        members = {str(group): [answer for answer in answers if getattr(answer[0], key) == group] for group in groups}
        result[f"by_{key}"] = {group: _accuracies(some) for group, some in members.items()}
    result["baseline"] = {"method": "chroma template, no training", **_accuracies(template)}
    return {**result, "failed": failed, "skipped": foreign, "labels": {"types": list(TYPES), "roots": list(ROOTS)}}


def _sort_skipped(dataset: Dataset) -> tuple[list[dict], list[dict]]:
    """What was skipped at opening: clips, by their names, that are damaged; and files that are none of the set's."""
    damaged: list[dict] = []
    foreign: list[dict] = []
    for file, reason in dataset.skipped:
        try:
            parse_member(file)
            # What a pack lacks was reported when it was packed, and what only a manifest names was never a file.
            is_clip = dataset.kind != "pack" and not reason.endswith("but not there")
        except UserError:
            is_clip = False
        if is_clip:
            damaged.append({"file": file, "error": f"{file}: {reason}"})
        else:
            foreign.append({"file": file, "reason": reason})
    return damaged, foreign


def _accuracies(answers: Answers) -> dict:
    """How many answers, and the accuracies of those that there are, with their intervals."""
    defined = [answer for answer in answers if answer[0].root_is_defined and answer[2] is not None]
    right = {
        "type": [name.type == type_ for name, type_, _ in answers if type_ is not None],
        "root": [name.root == root for name, _, root in defined],
        "both": [(name.type, name.root) == (type_, root) for name, type_, root in defined if type_ is not None],
    }
    result: dict = {"n": len(answers)}
    for key, hits in right.items():
        result[f"{key}_accuracy"] = sum(hits) / len(hits) if hits else None
        result[f"{key}_interval"] = wilson(sum(hits), len(hits)) if hits else None
    return result


def wilson(hits: int, n: int) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson, "Probable inference", 1927)."""
    z = 1.959964
    centre = (hits + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(hits * (n - hits) / n + z * z / 4)
    return max(centre - half, 0.0), min(centre + half, 1.0)


def _confusion(pairs: Sequence[tuple[int, int | None]], n_classes: int) -> list[list[int]] | None:
    """Counts [true class][answered class]; None where an answer is missing."""
    counts = np.zeros((n_classes, n_classes), dtype=int)
    for true, answer in pairs:
        if answer is None:
            return None
        counts[true, answer] += 1
    return counts.tolist()


def draw_confusions(result: dict, path: str | Path, title: str) -> None:
    """Write the confusion matrices of `evaluate`'s result as one self-contained interactive page."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    labels = {"type": TYPES, "root": ROOTS}
    shown = [key for key in labels if result[f"{key}_accuracy"] is not None]
    headings = [f"{key}: {100 * result[f'{key}_accuracy']:.2f} %" for key in shown]
    figure = make_subplots(rows=1, cols=len(shown), subplot_titles=headings, horizontal_spacing=0.15)
    for column, key in enumerate(shown, 1):
        counts = np.array(result[f"confusion_{key}"])
        shares, names = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), labels[key]
        heatmap = go.Heatmap(z=shares, x=names, y=names, zmin=0, zmax=1, text=counts, showscale=column == 1)
        hover = "true %{y}, answered %{x}: %{text} clips<extra></extra>"
        heatmap.update(colorscale="Viridis", texttemplate="%{text}", hovertemplate=hover)
        figure.add_trace(heatmap, row=1, col=column)
        figure.update_yaxes(title_text="true", autorange="reversed", row=1, col=column)
        figure.update_xaxes(title_text="answered", row=1, col=column)
    figure.update_layout(title=f"{title} ({result['n']} clips)", height=560)
    with atomic_path(path) as temporary:
        figure.write_html(temporary, include_plotlyjs=True)
