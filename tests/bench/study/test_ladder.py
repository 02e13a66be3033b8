"""A rung that changes more than speed is named and not timed; one that does not is timed, split, and explained."""

from __future__ import annotations

import os
import signal

import pytest

from tests.bench.study.fakes import CLIPS, FakeMonitor, FakeTrainer, make_clips, run_ladder, settings
from tests.bench.study.test_experiments import counted, kill, start, wait_for_lines
from triadbench.bench import records
from triadbench.bench.analysis import ladder as analysis
from triadbench.bench.study import ladder
from triadbench.bench.study.session import make_trainer
from triadbench.core.constants import EPOCH_PARTS
from triadbench.core.errors import UserError
from triadbench.core.training.settings import ORIGINAL_PIPELINE, fast_pipeline


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return make_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(autouse=True)
def forget():
    FakeTrainer.made.clear()


def rungs(*steps):
    return lambda device: [
        ladder.Rung(i, name, switches, f"{name}.", more) for i, (name, switches, more) in enumerate(steps)
    ]


PACKED = ORIGINAL_PIPELINE.with_(packed=True)


def test_every_rung_has_a_record(tmp_path, clips):
    result = run_ladder(tmp_path, clips)
    made, problems = records.load(tmp_path / "records.jsonl")
    assert not problems and len(made) == len(ladder.rungs_of("cpu")) and not result["failed"]
    assert [record["parameters"]["rung"] for record in made] == list(range(len(made)))
    for record in made:
        assert record["name"] == "ladder" and record["passes"] and len(record["samples"]) == 2
        assert sum(record["parts"].values()) == pytest.approx(record["instrumented_s"])
        assert record["overhead"] == 1 and len(record["losses"]) == 10 and record["sentence"]
        assert "copies" in record and record["spread_of_seeds"] == pytest.approx(0.1) and record["max_difference"] == 0
        assert record["tolerance"] == pytest.approx(0.09 / 2), "half of what twice the learning rate does"
        assert record["parameters"]["protocol"] == "short: 64 clips, not 8,192"
    assert made[0]["parameters"]["switches"] == ORIGINAL_PIPELINE.describe()
    assert made[-1]["parameters"]["switches"] == fast_pipeline("cpu").describe()
    assert run_ladder(tmp_path, clips)["measured"] == 0


def test_the_record_says_which_epochs_were_disturbed(tmp_path, clips):
    FakeMonitor.others += [0.0, 0.0, 0.0, 6400.0]  # of two timed epochs, and then of two instrumented ones
    given = rungs(("original", ORIGINAL_PIPELINE, {}))
    result = run_ladder(tmp_path, clips, rungs=given)
    (record,) = result["rungs"]
    assert record["disturbed"] == "other processes used 6400 % of a core" and len(record["monitor"]) == 2
    assert record["disturbed_epochs"] == {"timed": [], "instrumented": [1]}
    assert "Other programs used the processor during epochs of original (1 instrumented)." in analysis.text([record])
    FakeMonitor.others += [0.0, 6400.0]
    (quiet,) = run_ladder(tmp_path / "other", clips, rungs=lambda device: given(device), rounds=1)["rungs"]
    assert quiet["disturbed_epochs"] == {"timed": [], "instrumented": [0]}
    (quiet,) = run_ladder(tmp_path / "quiet", clips, rungs=given)["rungs"]
    assert not quiet["disturbed"] and quiet["disturbed_epochs"] == {"timed": [], "instrumented": []}
    assert "Other programs" not in analysis.text([quiet])


def test_another_learning_rate_fails_and_is_not_timed(tmp_path, clips):
    wrong = rungs(
        ("original", ORIGINAL_PIPELINE, {}), ("wrong", PACKED, {"learning_rate": 1e-3}), ("right", PACKED, {})
    )
    notes = []
    result = run_ladder(tmp_path, clips, rungs=wrong, note=notes.append)
    assert [record["parameters"]["name"] for record in result["rungs"]] == ["original", "right"]
    (failed,) = result["failed"]
    assert failed["name"] == "ladder left out" and failed["samples"] == [] and not failed["passes"]
    assert failed["max_difference"] > failed["tolerance"]
    assert any("wrong: not the original's loss" in note for note in notes)
    assert "wrong: left out" in analysis.text([*result["rungs"], *result["failed"]])


@pytest.mark.parametrize("rate", [1e-12, 1e-4], ids=["learns nothing", "ten times too fast"])
def test_a_real_network_with_another_learning_rate_fails(tmp_path, clips, rate):
    fast = fast_pipeline("cpu")
    steps = rungs(
        ("original", fast, {}), ("same", PACKED.with_(mel="batch"), {}), ("wrong", fast, {"learning_rate": rate})
    )
    result = run_ladder(tmp_path, clips, make_trainer, steps, rounds=1)
    assert [record["parameters"]["name"] for record in result["rungs"]] == ["original", "same"]
    assert result["rungs"][1]["max_difference"] < 1e-4
    assert [record["parameters"]["name"] for record in result["failed"]] == ["wrong"]
    assert set(result["rungs"][0]["parts"]) == set(EPOCH_PARTS)


@pytest.mark.parametrize("losses", [[1.0, float("nan")], [1.0, float("inf")], [1.0]], ids=["nan", "inf", "short"])
def test_a_curve_that_is_none_differs_without_end(losses):
    assert ladder.largest_difference(losses, [1.0, 1.0]) == float("inf")


def test_spread_is_nearly_the_tightest_step():
    curves = [[0.0] * 20, [float(step) for step in range(20)]]
    assert ladder.spread_of_seeds(curves) == 1.0  # the second of twenty
    assert ladder.spread_of_seeds([[1, 5], [2, 9], [4, 5]]) == 3
    with pytest.raises(ValueError, match="at least two seeds"):
        ladder.spread_of_seeds([[1.0]])


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL on Windows")
def test_killed_it_goes_on(tmp_path, clips):
    path = tmp_path / "run" / "trials.jsonl"
    process = start("ladder", tmp_path, clips, 0.02)
    wait_for_lines(process, path, 15)
    kill(process, signal.SIGKILL)
    before = len(records.load(path)[0])
    result = run_ladder(tmp_path, clips)
    n = len(ladder.rungs_of("cpu"))
    assert before + result["measured"] == 3 + n * (1 + 2 + 2) == len(counted(path))
    assert set(counted(path).values()) == {1}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rounds": 0}, "rounds=0"),
        ({"task": "both"}, "unknown task 'both'"),
        ({"num_items": 16}, "of 16 clips 12 train; give more clips or a smaller batch"),
    ],
    ids=["rounds", "task", "batch"],
)
def test_bad_cases(changes, message):
    with pytest.raises(UserError, match=message):
        ladder.LadderCase("cpu", **changes)


@pytest.mark.gpu
def test_every_rung_passes_on_the_gpu(tmp_path, clips):
    cases = [ladder.LadderCase(device, num_items=CLIPS, batch_size=8, rounds=1) for device in ("cpu", "cuda")]
    result = ladder.run(cases, settings(tmp_path, clips, maker=make_trainer))
    assert not result["failed"]
    assert len(result["rungs"]) == sum(len(ladder.rungs_of(device)) for device in ("cpu", "cuda"))
    for record in result["rungs"]:
        assert sum(record["parts"].values()) == pytest.approx(record["instrumented_s"], rel=1e-3)
        assert (record["copies"]["bytes"] > 0) == (record["parameters"]["device"] == "cuda")
    assert any("With the fast pipeline the GPU is" in sentence for sentence in analysis.sentences(result["rungs"]))
