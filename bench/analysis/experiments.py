"""Figures of the two experiments, computed from records, and the original's published ones beside them."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from triadbench.bench.analysis import pairing
from triadbench.bench.report.sections import spread_badge

NAMES = {"experiment batch-size": 1, "experiment data-size": 2}
THEIRS = "the original, 2024"


def published() -> list[dict]:
    """The original's 220 trials as rows like those of `ours`, one a setting."""
    from triadbench.bench.analysis import published as theirs

    numbers = {name: number for number, name in theirs.EXPERIMENTS.items()}
    made = []
    for (at, device), samples in theirs.load().items():
        key = (numbers[at.experiment], at.task, at.batch_size, at.num_items, _device(device), at.phase)
        made.append(_row(key, THEIRS, list(samples), None, ""))
    return made


def _device(name: str) -> str:
    return "cpu" if name == "cpu" else "gpu"


def ours(records: Sequence[dict]) -> list[dict]:
    """A row for each setting, device, pipeline, number of threads and protocol of the experiments.

    Returns:
        `experiment` (1 or 2), `task`, `batch_size`, `num_items`, `device` ("cpu" or "gpu"), `phase`, `pipeline`,
        `samples` (mean epoch seconds of each kept trial), `mean_s`, `first_s` (the dropped trial), `short` (the
        protocol in words where it is not the original's), `threads`, `protocol` (what two rows must share to be
        compared), `code` (of `pairing.code`), `badge`.
    """
    made: dict[tuple, dict] = {}
    for record in records:
        if record["name"] not in NAMES or not record["samples"]:
            continue
        given = record["parameters"]
        key = (
            NAMES[record["name"]],
            given["task"],
            given["batch_size"],
            given["num_items"],
            _device(str(given["device"])),
            given["phase"],
        )
        label = str(given.get("protocol") or "full")
        short = "" if label == "full" else label
        row = _row(
            key, given["pipeline"], record["samples"], record["first_call"], short, bool(record.get("disturbed"))
        ) | {
            "threads": pairing.threads(record),
            "protocol": (label, given.get("trials"), given.get("epochs")),
            "code": pairing.code(record),
        }
        made[(*key, given["pipeline"], row["threads"], row["protocol"])] = row
    return list(made.values())


def shown(rows: Sequence[dict]) -> list[dict]:
    """One row of each setting, device and pipeline: the whole protocol before others, then most threads, then last."""
    chosen: dict[tuple, dict] = {}
    for row in rows:
        case = (*setting(row), row["device"], row["pipeline"])
        rank = (not row["short"], row["threads"] or 0)
        if case not in chosen or rank >= (not chosen[case]["short"], chosen[case]["threads"] or 0):
            chosen[case] = row
    return list(chosen.values())


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
        "threads": None,
        "protocol": ("full", None, None),
        "code": (None, None),
        "badge": spread_badge(samples, disturbed),
    }


def setting(row: dict) -> tuple:
    """What two devices or two pipelines must share to be compared."""
    return tuple(row[name] for name in ("experiment", "task", "batch_size", "num_items", "phase"))


def ratios(rows: Sequence[dict]) -> list[dict]:
    """CPU time over GPU time of each setting and pipeline that both measured alike (see `bench.analysis.pairing`).

    Returns:
        rows of the setting's names with `pipeline`, `ratio` (of means), `each` (trial by trial, in their order),
        `short`, `threads`, `rows` (the two) and `note` (where their code differs, else "").
    """
    return [
        _common(cpu, "pipeline")
        | {
            "ratio": cpu["mean_s"] / gpu["mean_s"],
            "each": [a / b for a, b in zip(cpu["samples"], gpu["samples"], strict=False)],
            "rows": [cpu, gpu],
            "note": pairing.note([cpu["code"], gpu["code"]]),
        }
        for cpu, gpu in _pairs(rows, "device", ("cpu", "gpu"), "pipeline")
    ]


def gains(rows: Sequence[dict]) -> list[dict]:
    """How many times as fast the fast pipeline is as the original one, for each setting and device measured alike.

    Returns:
        rows as of `ratios`, with `device` for `pipeline`, and `original_s` and `fast_s` for `each`.
    """
    return [
        _common(original, "device")
        | {
            "ratio": original["mean_s"] / fast["mean_s"],
            "original_s": original["mean_s"],
            "fast_s": fast["mean_s"],
            "rows": [original, fast],
            "note": pairing.note([original["code"], fast["code"]]),
        }
        for original, fast in _pairs(rows, "pipeline", ("original", "fast"), "device")
    ]


def apart(rows: Sequence[dict]) -> list[str]:
    """A sentence for each comparison that has both sides and no pair measured alike."""
    found = []
    for name, sides, other, told in (
        ("pipeline", ("original", "fast"), "device", "the original and the fast pipeline"),
        ("device", ("cpu", "gpu"), "pipeline", "CPU and GPU"),
    ):
        paired = {_place(pair[0], other) for pair in _pairs(rows, name, sides, other)}
        places = [{_place(row, other) for row in rows if row[name] == side} for side in sides]
        lone = len((places[0] & places[1]) - paired)
        if lone:
            found.append(
                f"Not compared: {told} at {lone} setting{'s' * (lone > 1)}, measured with different threads or "
                "by different protocols."
            )
    return found


def _place(row: dict, other: str) -> tuple:
    return (*setting(row), row[other])


def _common(row: dict, other: str) -> dict:
    names = ("experiment", "task", "batch_size", "num_items", "phase", "short", "threads", other)
    return {name: row[name] for name in names}


def _pairs(rows: Sequence[dict], name: str, sides: tuple[str, str], other: str) -> list[tuple[dict, dict]]:
    """Rows that differ in `name` alone; no short run of what the same threads measured by the whole protocol."""
    alike = lambda row: (*_place(row, other), row["threads"], row["protocol"])  # noqa: E731
    seconds = {alike(row): row for row in rows if row[name] == sides[1]}
    pairs = [(row, seconds[alike(row)]) for row in rows if row[name] == sides[0] and alike(row) in seconds]
    whole = {(*_place(row, other), row["threads"]) for row, _ in pairs if not row["short"]}
    return [
        pair for pair in pairs if not pair[0]["short"] or (*_place(pair[0], other), pair[0]["threads"]) not in whole
    ]
