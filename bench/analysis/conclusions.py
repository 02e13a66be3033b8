"""The study's conclusions and expectations, tested one by one on its own figures and on ours.

The limits of what counts as flat, falling, doubled and alike are set here, once, for everybody's figures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from triadbench.bench.analysis import experiments, published
from triadbench.bench.analysis.experiments import THEIRS, Row
from triadbench.bench.analysis.summary import DEVICES, number, percent, span

FLAT, FALL, ALIKE = 0.05, 0.03, 0.05
"""Shares: a time that moves by no more is flat, one that falls by more falls, two that differ by no more are alike."""
DOUBLE = (1.8, 2.2)
HOPED = 5.0
EXPECTED = {"type": (0.85, 0.90), "root": (0.75, 0.75)}
Verdict = tuple[str, bool]
Times = dict[tuple, float]
"""Mean seconds of an epoch's training part by (experiment, task, batch size, clips, device)."""


def tell(records: Sequence[dict]) -> list[dict[str, Any]]:
    """Every conclusion with what the original's figures and those of one machine say of it.

    Returns:
        dicts of `key`, `text` and `holds` {who: True, False, or None where nothing was measured}.
    """
    rows = [*experiments.published_rows(), *experiments.shown(experiments.ours(records))]
    rows = [row for row in rows if row["phase"] == "train"]
    sentences = [_sentence(key, *_CLAIMS[key], rows) for key in _CLAIMS]
    return [*sentences, *_expectations(records)]


def _sentence(key: str, claim: str, judge: Callable[[Times], Verdict | None], rows: Sequence[Row]) -> dict[str, Any]:
    texts, holds = [], {}
    for who in (THEIRS, *experiments.PIPELINES):
        mine = [row for row in rows if row["pipeline"] == who]
        verdict = judge({(*experiments.setting(row)[:4], row["device"]): row["mean_s"] for row in mine})
        holds[who] = verdict[1] if verdict else None
        short = " (short run)" if any(row["short"] for row in mine) else ""
        words = (
            f"{verdict[0]}, {'it holds' if verdict[1] else 'it does not hold'}{short}" if verdict else "not measured"
        )
        texts.append(f"{experiments.who(who)}: {words}")
    return {"key": key, "text": f"{claim}: {'; '.join(texts)}.", "holds": holds}


def _curves(times: Times, device: str, experiment: str, place: int) -> list[dict[int, float]]:
    """Seconds by batch size (place 2) or clips (place 3) of each network, where there are two or more."""
    tasks = dict.fromkeys(key[1] for key in times)
    curves = [
        {key[place]: s for key, s in sorted(times.items()) if key[:2] == (experiment, task) and key[4] == device}
        for task in tasks
    ]
    return [curve for curve in curves if len(curve) > 1]


def _flat(times: Times) -> Verdict | None:
    moves = [max(curve.values()) / min(curve.values()) - 1 for curve in _curves(times, "cpu", "batch-size", 2)]
    return (f"it moves by {percent(max(moves), 1)}", max(moves) <= FLAT) if moves else None


def _falls(times: Times) -> Verdict | None:
    falls = [1 - curve[max(curve)] / curve[min(curve)] for curve in _curves(times, "cuda", "batch-size", 2)]
    return (f"it falls by {' and '.join(percent(f, 1) for f in falls)}", min(falls) > FALL) if falls else None


def _doubles(times: Times) -> Verdict | None:
    texts, ratios = [], []
    for device, name in DEVICES.items():
        for curve in _curves(times, device, "data-size", 3):
            mine = [curve[2 * n] / curve[n] for n in curve if 2 * n in curve]
            ratios += mine
            texts += [f"{name} {' and '.join(number(ratio) for ratio in mine)} times"] if mine else []
    return (", ".join(texts), all(DOUBLE[0] <= ratio <= DOUBLE[1] for ratio in ratios)) if ratios else None


def _alike(times: Times) -> Verdict | None:
    roots = {(key[0], "type", *key[2:]): s for key, s in times.items() if key[1] == "root"}
    apart = [abs(times[key] / s - 1) for key, s in roots.items() if key in times]
    return (f"{percent(max(apart), 1)} apart at most", max(apart) <= ALIKE) if apart else None


def _speedup(times: Times) -> Verdict | None:
    gpu = {(*key[:4], "cpu"): s for key, s in times.items() if key[4] == "cuda"}
    ratios = [times[key] / s for key, s in gpu.items() if key in times]
    return (f"{span(ratios, 3)} times", min(ratios) >= HOPED) if ratios else None


_CLAIMS: dict[str, tuple[str, Callable[[Times], Verdict | None]]] = {
    "flat": ("CPU time does not move with the batch size", _flat),
    "falls": ("GPU time falls from the smallest batch size to the largest", _falls),
    "doubles": ("Twice the clips take twice the time", _doubles),
    "alike": ("Both networks take the same time", _alike),
    "speedup": (f"The GPU trains {HOPED:g} times as fast as the CPU, as was hoped", _speedup),
}


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
