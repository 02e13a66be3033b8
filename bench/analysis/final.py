"""The original's final training and ours, side by side: epoch by epoch, and in all."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from statistics import fmean, median
from typing import NamedTuple

from triadbench.bench.analysis import published
from triadbench.bench.analysis.summary import DEVICES, number, percent
from triadbench.core.commands.console import table

NAME = "final training"
COMMAND = "python cli.py experiment final"
TOTAL_S = {"type": 8692.0, "root": 7965.0}
"""The original's, as it stated them; its epochs are in `published.final_epochs`."""
HEAD = ["network", "who", "epochs", "test accuracy", "test loss", "s an epoch", "s in all"]


class Training(NamedTuple):
    """One training of a network: whose, (test accuracy, test loss, seconds) of every epoch, seconds of those that
    nothing disturbed (of all, where none is), and its whole time; `short` names it in a table's head."""

    task: str
    who: str
    short: str
    epochs: list[tuple[float, float, float]]
    quiet_s: list[float]
    in_all: str


def trainings(records: Sequence[dict]) -> list[Training]:
    """Of each network that we trained the original's, then ours."""
    found = []
    for task, total_s in TOTAL_S.items():
        mine = [record for record in records if record["name"] == NAME and record["parameters"]["task"] == task]
        if mine:
            theirs = [(e["test_accuracy"], e["test_loss"], e["elapsed_s"]) for e in published.final_epochs(task)]
            who, quiet_s = "the original, RTX 2070 Max-Q", [seconds for *_, seconds in theirs]
            found.append(Training(task, who, "original", theirs, quiet_s, number(total_s, 4)))
        for record in mine:
            parameters, epochs_s = record["parameters"], record["samples"]
            epochs = list(zip(record["test_accuracy"], record["test_loss"], epochs_s, strict=True))
            in_all = number(record["wall_s"], 4) if record["wall_s"] else f"{number(sum(epochs_s), 4)} (epochs alone)"
            quiet_s = [s for n, s in enumerate(epochs_s, 1) if n not in record["disturbed_epochs"]] or epochs_s
            if record["extrapolated_s"]:
                seconds = record["extrapolated_s"] * median(quiet_s) / median(epochs_s)
                in_all = f"about {number(seconds)} (extrapolated from {len(quiet_s)} epoch{'s' * (len(quiet_s) > 1)})"
            short = f"{parameters['pipeline']}, {DEVICES[parameters['device']]}"
            found.append(Training(task, _who(parameters), short, epochs, quiet_s, in_all))
    return found


def _who(parameters: dict) -> str:
    """As "ours, fast pipeline, CPU"; with the protocol where it is short."""
    short = "" if parameters["protocol"] == "full" else f" ({parameters['protocol']})"
    return f"ours, {parameters['pipeline']} pipeline, {DEVICES[parameters['device']]}{short}"


def totals(records: Sequence[dict]) -> list[list[str]]:
    """Rows under `HEAD`."""
    rows = []
    for task, who, _, epochs, quiet_s, in_all in trainings(records):
        accuracy, loss, _ = epochs[-1]
        figures = [percent(accuracy, 1), number(loss), number(fmean(quiet_s), 4), in_all]
        rows.append([task, who, str(len(epochs)), *figures])
    return rows


def by_epoch(records: Sequence[dict]) -> dict[str, tuple[list[str], list[list[str]]]]:
    """(head, rows) of each network: of every epoch of ours test accuracy, test loss and seconds, and the original's."""
    tables = {}
    for task, group in itertools.groupby(trainings(records), lambda training: training.task):
        mine = list(group)
        head = ["epoch", *(cell for training in mine for cell in (f"{training.short}: accuracy", "loss", "s"))]
        n_shown = max(len(training.epochs) for training in mine[1:])
        rows = [
            [str(n), *(cell for a, loss, s in epochs for cell in (percent(a, 2), number(loss, 4), number(s, 4)))]
            for n, epochs in enumerate(
                itertools.zip_longest(*(t.epochs[:n_shown] for t in mine), fillvalue=(None,) * 3), 1
            )
        ]
        tables[task] = (head, rows)
    return tables


def remarks(records: Sequence[dict]) -> list[str]:
    """What the reader must know of these figures."""
    own = [record for record in records if record["name"] == NAME]
    lines = ["An epoch is training and testing; all of ours is from packed audio to the last checkpoint."]
    if any(record["data"]["origin"] == "rendered" for record in own):
        lines.append("Our clips are rendered, half of them amplifier copies: accuracies are not those of recordings.")
    return lines + [
        f"{_who(record['parameters'])}, {record['parameters']['task']}: other work disturbed, or other code timed, "
        f"{len(epochs)} of {len(record['samples'])} epochs."
        for record in own
        if (epochs := record["disturbed_epochs"])
    ]


def text(records: Sequence[dict]) -> str:
    """The terminal's tables."""
    tables = [table(*of_task) for of_task in by_epoch(records).values()]
    return "\n\n".join([*tables, table(HEAD, totals(records)), "\n".join(remarks(records))])
