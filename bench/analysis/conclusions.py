"""The study's conclusions and expectations, tested one by one on its own figures and on ours.

Each conclusion is a ratio of times that should lie within limits, which are set here, once, for everybody's figures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from triadbench.bench.analysis import experiments, published
from triadbench.bench.analysis.experiments import THEIRS
from triadbench.bench.analysis.summary import DEVICES, percent, span

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
    for key, (claim, ratios_of, least, most) in _CLAIMS.items():
        texts, holds = [], dict.fromkeys((THEIRS, *experiments.PIPELINES))
        for who in holds:
            mine, text = [row for row in rows if row["pipeline"] == who], "not measured"
            # Short runs say something only where the full ones say nothing, and the two are never compared.
            for short in (False, True):
                same = [row for row in mine if bool(row["short"]) == short]
                ratios = ratios_of({(*experiments.setting(row)[:4], row["device"]): row["mean_s"] for row in same})
                if ratios and holds[who] is None:
                    holds[who] = least <= min(ratios) and max(ratios) <= most
                    text = f"{span(ratios, 3)}, it {'holds' if holds[who] else 'does not hold'}"
                    text += " (short run)" * short
            texts.append(f"{experiments.who(who)}: {text}")
        sentences.append({"key": key, "text": f"{claim}: {'; '.join(texts)}.", "holds": holds})
    return [*sentences, *_expectations(records)]


def _curves(times: Times, device: str, experiment: str, place: int) -> list[dict[int, float]]:
    """Seconds by batch size (place 2) or clips (place 3), all else alike, where there are two or more."""
    curves: dict[tuple, dict[int, float]] = {}
    for key, seconds in times.items():
        if (key[0], key[4]) == (experiment, device):
            curves.setdefault((*key[:place], *key[place + 1 :]), {})[key[place]] = seconds
    return [curve for curve in curves.values() if len(curve) > 1]


def _moves(times: Times) -> list[float]:
    return [max(curve.values()) / min(curve.values()) for curve in _curves(times, "cpu", "batch-size", 2)]


def _falls(times: Times) -> list[float]:
    return [curve[max(curve)] / curve[min(curve)] for curve in _curves(times, "cuda", "batch-size", 2)]


def _doublings(times: Times) -> list[float]:
    curves = [curve for device in DEVICES for curve in _curves(times, device, "data-size", 3)]
    return [curve[2 * n] / curve[n] for curve in curves for n in curve if 2 * n in curve]


def _over(times: Times, place: int, slow: str, quick: str) -> list[float]:
    """Times of one network (place 1) or device (place 4) over those of another."""
    others = {key: (*key[:place], slow, *key[place + 1 :]) for key in times if key[place] == quick}
    return [times[other] / times[key] for key, other in others.items() if other in times]


_CLAIMS: dict[str, tuple[str, Callable[[Times], list[float]], float, float]] = {
    "flat": ("CPU time does not move with the batch size (longest over shortest)", _moves, 1.0, 1.05),
    "falls": ("GPU time falls with the batch size (at the largest over the smallest)", _falls, 0.0, 0.97),
    "doubles": ("Twice the clips take twice the time", _doublings, 1.8, 2.2),
    "alike": ("Both networks take the same time", lambda times: _over(times, 1, "type", "root"), 0.95, 1.05),
    "speedup": (f"CPU over GPU is {HOPED:g}, as was hoped", lambda times: _over(times, 4, "cpu", "cuda"), HOPED, 1e9),
}
"""Key -> the claim, ratios of times, and the limits within which all of them lie where it holds."""


def _expectations(records: Sequence[dict]) -> list[dict[str, Any]]:
    """The accuracies that the original expected, got, and those of our repetition of its final training."""
    sentences = []
    for task, (least, most) in EXPECTED.items():
        theirs = published.final_epochs(task)[-1]["test_accuracy"]
        wanted = f"{percent(least)} to {percent(most)}" if most > least else percent(least)
        text, holds = f"Expected of the {task}: {wanted}; the original: {percent(theirs, 1)}", {THEIRS: theirs >= least}
        for record in records:
            if record["name"] == "final training" and record["parameters"]["task"] == task:
                parameters, accuracy = record["parameters"], record["test_accuracy"][-1]
                whose = f"{experiments.who(parameters['pipeline'])}, {len(record['samples'])} epochs"
                text += f"; {whose} of {parameters['clips']:,} {record['data']['origin']} clips: {percent(accuracy, 1)}"
                holds[parameters["pipeline"]] = accuracy >= least
        sentences.append({"key": f"expected {task}", "text": f"{text}.", "holds": holds})
    return sentences
