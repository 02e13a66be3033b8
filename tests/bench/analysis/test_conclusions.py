"""Each of the study's conclusions is tested on its own figures and on ours, and can be refuted."""

from __future__ import annotations

import pytest

from tests.bench.analysis.test_experiments import record
from triadbench.bench.analysis import conclusions
from triadbench.bench.analysis.experiments import THEIRS


def told(records):
    return {one["key"]: one for one in conclusions.tell(records)}


def test_the_originals_own_figures():
    found = told([])
    assert {key: one["holds"][THEIRS] for key, one in found.items()} == {
        "flat": True,
        "falls": True,
        "doubles": True,
        "alike": True,
        "speedup": False,
        "expected type": True,
        "expected root": True,
    }
    assert "1.02, it holds; ours, original pipeline: not measured" in found["flat"]["text"]
    assert "1.99 to 2.27, it does not hold" in found["speedup"]["text"]
    assert "85 % to 90 %; the original: 91.4 %" in found["expected type"]["text"]
    assert "75 %; the original: 81.1 %" in found["expected root"]["text"]


def measure(change: float, pipeline="fast"):
    """Figures in which every conclusion holds where `change` is 0, and none of them where it is 0.5."""
    made = []
    for task, more in (("type", 1.0), ("root", 1 + change)):
        for batch in (32, 256):
            grown = 1 + change if batch == 256 else 1.0
            made.append(record("cpu", pipeline, "train", 10 * more * grown, batch_size=batch))
            gpu = 1.0 if batch == 32 else 0.9 + change
            made.append(record("cuda", pipeline, "train", more * gpu * (1 + 10 * change), batch_size=batch))
            for one in made[-2:]:
                one["parameters"]["task"] = task
    for clips in (4096, 8192):
        made.append(record("cpu", pipeline, "train", clips ** (1 + change), "data-size", num_items=clips))
    return made


@pytest.mark.parametrize(("change", "holds"), [(0.0, True), (0.5, False)])
@pytest.mark.parametrize("key", ["flat", "falls", "doubles", "alike", "speedup"])
def test_ours_hold_or_do_not(change, holds, key):
    one = told(measure(change))[key]
    assert one["holds"]["fast"] is holds and one["holds"]["original"] is None


def test_disturbed_figures_say_nothing():
    made = [one | {"disturbed": "other processes used 90 % of a core"} for one in measure(0.0)]
    assert all(told(made)[key]["holds"]["fast"] is None for key in ("flat", "falls", "doubles", "alike", "speedup"))


def test_a_short_run_says_so_and_testing_says_nothing():
    made = measure(0.0)
    for one in made:
        one["parameters"]["protocol"] = "short: 1 epoch a trial, not 5"
    assert "it holds (short run)" in told(made)["flat"]["text"]
    for one in made:
        one["parameters"]["phase"] = "test"
    assert told(made)["flat"]["holds"]["fast"] is None


def test_accuracies_of_our_final_training_stand_beside_what_was_expected():
    parameters = {"task": "root", "pipeline": "fast", "clips": 86_400}
    final = {"name": "final training", "parameters": parameters, "samples": [1.0] * 30, "test_accuracy": [0.1, 0.74]}
    final["data"] = {"origin": "rendered"}
    one = told([final])["expected root"]
    assert one["holds"]["fast"] is False
    assert "ours, fast pipeline, 30 epochs of 86,400 rendered clips: 74.0 %" in one["text"]


def test_a_full_run_and_short_ones_of_fewer_clips_are_never_compared():
    made = [record("cpu", "fast", "train", 10.0, batch_size=32)]
    for batch in (32, 64):
        short = record("cpu", "fast", "train", 0.6, batch_size=batch, num_items=512)
        short["parameters"]["protocol"] = "short: 512 clips, not 8,192"
        made.append(short)
    assert "1.00, it holds (short run)" in told(made)["flat"]["text"]
    made.append(record("cpu", "fast", "train", 20.0, batch_size=64))
    assert "2.00, it does not hold." in told(made)["flat"]["text"], "whole runs need no short ones"
