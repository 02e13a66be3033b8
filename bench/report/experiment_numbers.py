"""Figures of the two experiments, computed from records, and the original's published ones beside them."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from bench.report.pieces import spread_badge

NAMES = {"experiment batch-size": 1, "experiment data-size": 2}
THEIRS = "the original, 2024"


def published() -> list[dict]:
    """The original's 220 trials as rows like those of `ours`, one a setting."""
    from bench.study import published as theirs

    numbers = {name: number for number, name in theirs.EXPERIMENTS.items()}
    made = []
    for (at, device), samples in theirs.load().items():
        key = (numbers[at.experiment], at.task, at.batch_size, at.num_items, _device(device), at.phase)
        made.append(_row(key, THEIRS, list(samples), None, ""))
    return made


def _device(name: str) -> str:
    return "cpu" if name == "cpu" else "gpu"


def ours(records: Sequence[dict]) -> list[dict]:
    """A row for each setting, device and pipeline of the experiments.

    Returns:
        `experiment` (1 or 2), `task`, `batch_size`, `num_items`, `device` ("cpu" or "gpu"), `phase`, `pipeline`,
        `samples` (mean epoch seconds of each kept trial), `mean_s`, `first_s` (the dropped trial), `short` (the
        protocol in words where it is not the original's), `badge`.
    """
    made: dict[tuple, dict] = {}
    for record in records:
        if record["name"] not in NAMES or not record["samples"]:
            continue
        given = record["parameters"]
        key = (
            NAMES[record["name"]], given["task"], given["batch_size"], given["num_items"],
            _device(str(given["device"])), given["phase"],
        )  # fmt: skip
        protocol = str(given.get("protocol") or "full")
        short = "" if protocol == "full" else protocol
        row = _row(
            key, given["pipeline"], record["samples"], record["first_call"], short, bool(record.get("disturbed"))
        )
        # The whole protocol is shown where it was run, and not a short run of the same setting.
        case = (*key, given["pipeline"])
        if case not in made or made[case]["short"] or not short:
            made[case] = row
    return list(made.values())


def _row(
    key: tuple, pipeline: str, samples: list[float], first: float | None, short: str, disturbed: bool = False
) -> dict:
    names = ("experiment", "task", "batch_size", "num_items", "device", "phase")
    return dict(zip(names, key, strict=True)) | {
        "pipeline": pipeline,
        "samples": samples,
        "mean_s": fmean(samples),
        "first_s": first,
        "short": short,
        "badge": spread_badge(samples, disturbed),
    }


def setting(row: dict) -> tuple:
    """What two devices or two pipelines must share to be compared."""
    return tuple(row[name] for name in ("experiment", "task", "batch_size", "num_items", "phase"))


def ratios(rows: Sequence[dict]) -> list[dict]:
    """CPU time over GPU time of each setting and pipeline.

    Returns:
        rows of the setting's names with `pipeline`, `ratio` (of means) and `each` (trial by trial, in their order).
    """
    made = []
    for row in rows:
        if row["device"] != "cpu":
            continue
        for other in rows:
            if other["device"] == "gpu" and setting(other) == setting(row) and other["pipeline"] == row["pipeline"]:
                pairs = zip(row["samples"], other["samples"], strict=False)
                made.append(
                    {name: row[name] for name in ("experiment", "task", "batch_size", "num_items", "phase", "pipeline")}
                    | {"ratio": row["mean_s"] / other["mean_s"], "each": [cpu / gpu for cpu, gpu in pairs],
                       "short": row["short"] or other["short"]}
                )  # fmt: skip
    return made


def gains(rows: Sequence[dict]) -> list[dict]:
    """How many times as fast the fast pipeline is as the original one, for each setting and device measured."""
    made = []
    for row in rows:
        if row["pipeline"] != "original":
            continue
        for other in rows:
            same = setting(other) == setting(row) and other["device"] == row["device"]
            if same and other["pipeline"] == "fast":
                made.append(
                    {name: row[name] for name in ("experiment", "task", "batch_size", "num_items", "phase", "device")}
                    | {"ratio": row["mean_s"] / other["mean_s"], "short": row["short"] or other["short"],
                       "original_s": row["mean_s"], "fast_s": other["mean_s"]}
                )  # fmt: skip
    return made
