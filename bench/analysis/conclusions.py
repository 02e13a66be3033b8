"""The study's conclusions and expectations, tested one by one on its own figures and on ours.

The limits of what counts as flat, falling, doubled and alike are set here, once, for everybody's figures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from triadbench.bench.analysis import experiments, published
from triadbench.bench.analysis.experiments import THEIRS, Row
from triadbench.bench.analysis.summary import DEVICES, percent, span

FLAT, FALL, ALIKE = 0.05, 0.03, 0.05
"""Shares: a time that moves by no more is flat, one that falls by more falls, two that differ by no more are alike."""
DOUBLE = (1.8, 2.2)
HOPED = 5.0
EXPECTED = {"type": (0.85, 0.90), "root": (0.75, 0.75)}
Times = dict[tuple, float]
"""Mean seconds of an epoch's training part by (experiment, task, batch size, clips, device)."""


def tell(records: Sequence[dict]) -> list[dict[str, Any]]:
    """Every conclusion with what the original's figures and those of one machine say of it; disturbed ones say nothing.

    Returns:
        dicts of `key`, `text` and `holds` {who: True, False, or None where nothing was measured}.
    """
    rows = [*experiments.published_rows(), *experiments.shown(experiments.ours(records))]
    rows = [row for row in rows if row["phase"] == "train" and row["badge"] != "disturbed"]
    sentences = []
    for key, (claim, measure, words, judge) in _CLAIMS.items():
        texts, holds = [], dict.fromkeys((THEIRS, *experiments.PIPELINES))
        for who in holds:
            mine = [row for row in rows if row["pipeline"] == who]
            text = "not measured"
            if values := measure({(*experiments.setting(row)[:4], row["device"]): row["mean_s"] for row in mine}):
                holds[who] = judge(values)
                text = f"{words(values)}, {'it holds' if holds[who] else 'it does not hold'}"
                text += " (short run)" * any(row["short"] for row in mine)
            texts.append(f"{experiments.who(who)}: {text}")
        sentences.append({"key": key, "text": f"{claim}: {'; '.join(texts)}.", "holds": holds})
    return [*sentences, *_expectations(records)]


def _curves(times: Times, device: str, experiment: str, place: int) -> list[dict[int, float]]:
    """Seconds by batch size (place 2) or clips (place 3) of each network, where there are two or more."""
    curves: dict[str, dict[int, float]] = {}
    for key, seconds in sorted(times.items()):
        if (key[0], key[4]) == (experiment, device):
            curves.setdefault(key[1], {})[key[place]] = seconds
    return [curve for curve in curves.values() if len(curve) > 1]


def _moves(times: Times) -> list[float]:
    return [max(curve.values()) / min(curve.values()) - 1 for curve in _curves(times, "cpu", "batch-size", 2)]


def _falls(times: Times) -> list[float]:
    return [1 - curve[max(curve)] / curve[min(curve)] for curve in _curves(times, "cuda", "batch-size", 2)]


def _doublings(times: Times) -> list[float]:
    curves = [curve for device in DEVICES for curve in _curves(times, device, "data-size", 3)]
    return [curve[2 * n] / curve[n] for curve in curves for n in curve if 2 * n in curve]


def _apart(times: Times) -> list[float]:
    types = {key: (key[0], "type", *key[2:]) for key in times if key[1] == "root"}
    return [abs(times[key] / times[root] - 1) for root, key in types.items() if key in times]


def _speedups(times: Times) -> list[float]:
    return [times[cpu] / s for key, s in times.items() if key[4] == "cuda" and (cpu := (*key[:4], "cpu")) in times]


_CLAIMS: dict[str, tuple[str, Callable[[Times], list[float]], Callable[[list[float]], str], Callable]] = {
    "flat": (
        *("CPU time does not move with the batch size", _moves),
        *(lambda values: f"it moves by {percent(max(values), 1)}", lambda values: max(values) <= FLAT),
    ),
    "falls": (
        *("GPU time falls from the smallest batch size to the largest", _falls),
        *(lambda values: f"it falls by {percent(min(values), 1)} or more", lambda values: min(values) > FALL),
    ),
    "doubles": (
        *("Twice the clips take twice the time", _doublings),
        *(
            lambda values: f"{span(values, 3)} times",
            lambda values: DOUBLE[0] <= min(values) and max(values) <= DOUBLE[1],
        ),
    ),
    "alike": (
        *("Both networks take the same time", _apart),
        *(lambda values: f"{percent(max(values), 1)} apart at most", lambda values: max(values) <= ALIKE),
    ),
    "speedup": (
        *(f"The GPU beats the CPU by the factor that was hoped for, {HOPED:g}", _speedups),
        *(lambda values: f"{span(values, 3)} times", lambda values: min(values) >= HOPED),
    ),
}
"""key -> the claim, what it is judged by, that in words, and whether it holds."""


def _expectations(records: Sequence[dict]) -> list[dict[str, Any]]:
    """The accuracies that the original expected, got, and those of our repetition of its final training."""
    sentences = []
    for task, (least, most) in EXPECTED.items():
        theirs = published.final_epochs(task)[-1]["test_accuracy"]
        wanted = f"{percent(least)} to {percent(most)}" if most > least else percent(least)
        text, holds = f"Expected of the {task}: {wanted}; the original: {percent(theirs, 1)}", {THEIRS: theirs >= least}
        for record in records:
            if record["name"] == "final training" and record["parameters"]["task"] == task and record["test_accuracy"]:
                parameters, accuracy = record["parameters"], record["test_accuracy"][-1]
                whose = f"{experiments.who(parameters['pipeline'])}, {len(record['samples'])} epochs"
                text += f"; {whose} of {parameters['clips']:,} rendered clips: {percent(accuracy, 1)}"
                holds[parameters["pipeline"]] = accuracy >= least
        sentences.append({"key": f"expected {task}", "text": f"{text}.", "holds": holds})
    return sentences
