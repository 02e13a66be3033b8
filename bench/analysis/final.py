"""The original's final training and ours, side by side: epoch by epoch, and in all."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from triadbench.bench.analysis import published
from triadbench.bench.analysis.summary import DEVICES, number, percent
from triadbench.core.commands.console import table

NAME = "final training"
COMMAND = "python cli.py experiment final"
TOTAL_S = {"root": 7965.0, "type": 8692.0}
"""The original's, as it stated them; its epochs are in `published.final_epochs`."""
HEAD = ["network", "who", "epochs", "test accuracy", "test loss", "s an epoch", "s in all"]


def totals(records: Sequence[dict]) -> list[list[Any]]:
    """Rows under `HEAD`: of each network that we trained the original's, then ours."""
    rows = []
    for task in (task for task in ("type", "root") if mine(records, task)):
        epochs = published.final_epochs(task)
        seconds, last = [epoch["elapsed_s"] for epoch in epochs], epochs[-1]
        score = [percent(last["test_accuracy"], 1), number(last["test_loss"])]
        rows.append(
            [task, "the original, RTX 2070 Max-Q", len(epochs), *score, number(fmean(seconds), 4), TOTAL_S[task]]
        )
        for record in mine(records, task):
            score = [percent(record["test_accuracy"][-1], 1), number(record["test_loss"][-1])]
            whole, extrapolated = record["wall_s"] or sum(record["samples"]), record["extrapolated_s"]
            in_all = f"about {number(extrapolated)} (extrapolated)" if extrapolated else number(whole, 4)
            rows.append(
                [task, who(record), len(record["samples"]), *score, number(fmean(record["samples"]), 4), in_all]
            )
    return [[str(cell) for cell in row] for row in rows]


def mine(records: Sequence[dict], task: str) -> list[dict]:
    """Our records of one network."""
    return [record for record in records if record["name"] == NAME and record["parameters"]["task"] == task]


def who(record: dict) -> str:
    """As "ours, fast pipeline, CPU"; with the protocol where it is short."""
    parameters, short = record["parameters"], record["parameters"]["protocol"]
    words = f"ours, {parameters['pipeline']} pipeline, {DEVICES[parameters['device']]}"
    return words if short == "full" else f"{words} ({short})"


def by_epoch(records: Sequence[dict], task: str) -> tuple[list[str], list[list[Any]]]:
    """(head, rows): of every epoch test accuracy, test loss and seconds, the original's and ours."""
    theirs, ours = published.final_epochs(task), mine(records, task)
    head = ["epoch"]
    rows: list[list[Any]] = [[int(epoch["epoch"])] for epoch in theirs]
    columns = [("the original", [[e["test_accuracy"], e["test_loss"], e["elapsed_s"]] for e in theirs])]
    for record in ours:
        curves = zip(record["test_accuracy"], record["test_loss"], record["samples"], strict=True)
        parameters = record["parameters"]
        name = f"{parameters['pipeline']} pipeline, {DEVICES[parameters['device']]}"
        columns.append((name, [list(point) for point in curves]))
    for name, points in columns:
        head += [f"{name}: accuracy", "loss", "s"]
        for row, point in zip(rows, [*points, *[None] * len(rows)], strict=False):
            row += [percent(point[0], 2), number(point[1], 4), number(point[2], 4)] if point else [None] * 3
    return head, rows


def remarks(records: Sequence[dict]) -> list[str]:
    """What the reader must know of these figures."""
    own = [record for record in records if record["name"] == NAME]
    lines = ["An epoch is training and testing; all of ours is from packed audio to the last checkpoint."]
    if any(record["data"]["origin"] == "rendered" for record in own):
        lines.append("Our clips are rendered, half of them amplifier copies: accuracies are not those of recordings.")
    lines += [
        f"{who(record)}, {record['parameters']['task']}: other work disturbed {len(epochs)} epochs."
        for record in own
        if (epochs := record["disturbed_epochs"])
    ]
    return lines


def text(records: Sequence[dict]) -> str:
    """The terminal's tables."""
    tables = [table(*by_epoch(records, task)) for task in ("type", "root") if mine(records, task)]
    return "\n\n".join([*tables, table(HEAD, totals(records)), "\n".join(remarks(records))])
