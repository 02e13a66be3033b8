"""Results of training, evaluation and inference as text."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from bench.console import table

_CHORD_COLUMNS = (
    "file", "chord", "type", "root", "confidence", "type_confidence", "root_confidence", "agreement", "duration_s",
    "windows", "error",
)  # fmt: skip


def training(records: dict[str, dict]) -> str:
    """The best epoch of every task's training record (`core.train.train`)."""
    rows = []
    for task, record in records.items():
        best = record["curves"][record["best_epoch"] - 1]
        shares = [f"{key[5:-9]} {100 * best[key]:.2f} %" for key in best if key.endswith("accuracy")]
        rows.append([task, record["best_epoch"], ", ".join(shares), best["test_loss"], record["seconds"]])
    return table(["task", "best epoch", "test accuracy", "test loss", "seconds"], rows)


def accuracies(result: dict) -> str:
    """Accuracies in percent of `core.evaluate.evaluate`'s result: of all, of each group, and of the template."""
    groups = {"all": result}
    for key in ("octave", "volume", "voicing"):
        groups |= {f"{key} {name}": group for name, group in result[f"by_{key}"].items()}
    groups["chroma template, all"] = result["baseline"]
    keys = ("type_accuracy", "root_accuracy", "both_accuracy")
    rows = [
        [name, group["n"], *(None if group[key] is None else f"{100 * group[key]:.2f}" for key in keys)]
        for name, group in groups.items()
    ]
    return table(["clips", "n", "type %", "root %", "both %"], rows)


def chords(results: Sequence[dict]) -> str:
    """Results of `core.infer.infer_files`, without failed ones, for reading."""
    rows = []
    for result in results:
        others = [f"{other['chord']} {_percent(other['confidence'])}" for other in result["alternatives"][:2]]
        shares = [_percent(result[key]) for key in ("type_confidence", "root_confidence", "agreement")]
        rows.append([result["file"], result["chord"], *shares, f"{result['duration_s']:.2f}", ", ".join(others)])
    return table(["file", "chord", "type", "root", "agree", "seconds", "or"], rows)


def chords_csv(results: Sequence[dict]) -> str:
    """Results of `core.infer.infer_files`, failed ones included, as comma-separated lines with a header."""
    out = io.StringIO()
    writer = csv.DictWriter(out, _CHORD_COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(results)
    return out.getvalue()


def _percent(share: float | None) -> str:
    return "—" if share is None else f"{100 * share:.1f} %"
