"""How often a model is right: on a labelled set, by octave, volume and voicing, with a chroma template beside it."""

from __future__ import annotations

import concurrent.futures
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from triadbench.core.audio.io import AudioError
from triadbench.core.constants import usable_cores
from triadbench.core.data.dataset import Dataset, parse_member
from triadbench.core.errors import UserError
from triadbench.core.files import atomic_path
from triadbench.core.models import chroma_template as baseline
from triadbench.core.models.chords import ROOTS, TYPES
from triadbench.core.models.predictor import Predictor

_BATCH = 32


def evaluate(dataset: Dataset, predictor: Predictor, progress: Callable[[int, int], None] | None = None) -> dict:
    """Measure a model on every clip of a set.

    A clip that cannot be read is left out and listed under `failed`. Where the root is undefined (an inverted
    augmented triad) it counts for the type only.

    Returns:
        {"n", "type_accuracy", "root_accuracy", "both_accuracy", their "..._interval" (95 %, Wilson), "confusion_type",
        "confusion_root" (rows true, columns answered, in label order), "root_undefined", "by_octave", "by_volume",
        "by_voicing", "failed", "skipped", "labels", "baseline": the same accuracies of `core.models.chroma_template`}. An accuracy
        that the model or the set does not give is None.

    Raises:
        UserError: no clip could be read.
    """
    answers: list[tuple[int | None, int | None]] = []
    template: list[tuple[int, int]] = []
    rows: list[int] = []
    failed, foreign = _sort_skipped(dataset)
    # The template answers in other threads (NumPy and SciPy let go of the interpreter) while the network computes.
    with concurrent.futures.ThreadPoolExecutor(usable_cores()) as pool:
        for start in range(0, len(dataset), _BATCH):
            batch, kept = [], []
            for index in range(start, min(start + _BATCH, len(dataset))):
                try:
                    batch.append(dataset.read(index))
                    kept.append(index)
                except AudioError as error:
                    failed.append({"file": dataset.clips[index].member, "error": str(error)})
            if batch:
                waveforms = np.stack(batch)
                pending = pool.map(baseline.predict, np.split(waveforms, len(waveforms)))
                scores = predictor(waveforms)
                answers += zip(_best(scores.types, len(batch)), _best(scores.roots, len(batch)), strict=True)
                template += [(int(types.argmax()), int(roots.argmax())) for types, roots in pending]
                rows += kept
            if progress is not None:
                progress(min(start + _BATCH, len(dataset)), len(dataset))
    if not rows:
        raise UserError(
            f"{dataset.path}: none of its {len(dataset)} clips could be read; the first: {failed[0]['error']}"
        )
    names = [dataset.clips[index].name for index in rows]
    result = {"n": len(rows), **_accuracies(names, answers)}
    result["confusion_type"] = _confusion([(n.type, a[0]) for n, a in zip(names, answers, strict=True)], len(TYPES))
    defined = [(n.root, a[1]) for n, a in zip(names, answers, strict=True) if n.root_is_defined]
    result["confusion_root"] = _confusion(defined, len(ROOTS))
    result["root_undefined"] = len(names) - len(defined)
    for key in ("octave", "volume", "voicing"):
        groups = sorted({getattr(n, key) for n in names} - {None})
        result[f"by_{key}"] = {
            str(group): _accuracies(
                [n for n in names if getattr(n, key) == group],
                [a for n, a in zip(names, answers, strict=True) if getattr(n, key) == group],
            )
            for group in groups
        }
    result["baseline"] = {"method": "chroma template, no training", **_accuracies(names, template)}
    result["failed"] = failed
    result["skipped"] = foreign
    result["labels"] = {"types": list(TYPES), "roots": list(ROOTS)}
    return result


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


def _best(scores: np.ndarray | None, n: int) -> list[int | None]:
    return [None] * n if scores is None else [int(row.argmax()) for row in scores]


def _accuracies(names, answers) -> dict:
    """Accuracies of answers (type, root) for clips of these names, with their intervals."""
    types = [n.type == a[0] for n, a in zip(names, answers, strict=True) if a[0] is not None]
    defined = [(n, a) for n, a in zip(names, answers, strict=True) if n.root_is_defined and a[1] is not None]
    roots = [n.root == a[1] for n, a in defined]
    both = [n.root == a[1] and n.type == a[0] for n, a in defined if a[0] is not None]
    result: dict = {"n": len(names)}
    for key, hits in (("type", types), ("root", roots), ("both", both)):
        result[f"{key}_accuracy"] = sum(hits) / len(hits) if hits else None
        result[f"{key}_interval"] = wilson(sum(hits), len(hits)) if hits else None
    return result


def wilson(hits: int, n: int) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson, "Probable inference", 1927)."""
    z = 1.959964
    centre = (hits + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(hits * (n - hits) / n + z * z / 4)
    return max(centre - half, 0.0), min(centre + half, 1.0)


def _confusion(pairs, n_classes: int) -> list[list[int]] | None:
    if any(answer is None for _, answer in pairs):
        return None
    table = np.zeros((n_classes, n_classes), dtype=int)
    for true, answer in pairs:
        table[true, answer] += 1
    return table.tolist()


def draw_confusions(result: dict, path: str | Path, title: str) -> None:
    """Write the confusion matrices of `evaluate`'s result as one self-contained interactive page."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    shown = [
        (key, labels) for key, labels in (("type", TYPES), ("root", ROOTS)) if result[f"{key}_accuracy"] is not None
    ]
    headings = [f"{key}: {100 * result[f'{key}_accuracy']:.2f} %" for key, _ in shown]
    figure = make_subplots(rows=1, cols=len(shown), subplot_titles=headings, horizontal_spacing=0.15)
    for column, (key, labels) in enumerate(shown, 1):
        table = np.array(result[f"confusion_{key}"])
        share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
        figure.add_trace(
            go.Heatmap(
                z=share,
                x=labels,
                y=labels,
                zmin=0,
                zmax=1,
                colorscale="Viridis",
                text=table,
                texttemplate="%{text}",
                hovertemplate="true %{y}, answered %{x}: %{text} clips<extra></extra>",
                showscale=column == 1,
            ),
            row=1,
            col=column,
        )
        figure.update_yaxes(title_text="true", autorange="reversed", row=1, col=column)
        figure.update_xaxes(title_text="answered", row=1, col=column)
    figure.update_layout(title=f"{title} ({result['n']} clips)", height=560)
    with atomic_path(path) as temporary:
        figure.write_html(temporary, include_plotlyjs=True)
