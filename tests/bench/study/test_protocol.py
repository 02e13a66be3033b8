"""The original's protocol by default, labels of what is not it, fair turns, and refusals that name the way out."""

from __future__ import annotations

import pytest

from triadbench.bench.study import protocol
from triadbench.core.errors import UserError


def make(experiment="batch-size", **changes):
    return protocol.make(experiment, **{"device": "cpu", **changes})


def test_defaults_are_the_originals():
    first, second = make(), make("data-size")
    assert (first.batch_sizes, first.clips, first.tasks) == ((32, 64, 128, 256), (8192,), ("type", "root"))
    assert (second.batch_sizes, second.clips, second.tasks) == ((32,), (4096, 8192, 16384), ("type",))
    assert all((made.trials, made.epochs, made.label()) == (6, 5, "full") for made in (first, second))
    assert len(first.cases()) == 16 and len(first.turns()) == 96 and len(second.turns()) == 36


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({"trials": 2}, "short: 2 trials, not 6"),
        ({"epochs": 1, "clips": (512,)}, "short: 1 epoch a trial, not 5; 512 clips, not 8,192"),
        ({"clips": (4096,)}, "short: 4,096 clips, not 8,192"),
        ({"batch_sizes": (16,)}, "other: batch size 16, not 32 or 64 or 128 or 256"),
        ({"trials": 9}, "longer: 9 trials, not 6"),
        ({"trials": 9, "epochs": 4}, "short: 9 trials, not 6; 4 epochs a trial, not 5"),
        ({"batch_sizes": (64,), "task": "root", "pipeline": "fast"}, "full"),
        ({"type_classes": 4}, "other: types learnt by 4 classes, not 12"),
        ({"type_classes": 4, "task": "root"}, "full"),
        ({"type_classes": 4, "trials": 2}, "short: 2 trials, not 6; types learnt by 4 classes, not 12"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_shorter_run_is_labelled_as_one(changes, label):
    made = make(**changes)
    assert made.label() == label
    assert protocol.parameters(made.cases()[0], made)["protocol"] == label


def test_of_a_data_size_run_only_the_odd_sizes_are_short():
    made = make("data-size", clips=(512, 4096))
    assert [made.label(n) for n in (512, 4096)] == ["short: 512 clips, not 4,096 or 8,192 or 16,384", "full"]


def test_contestants_take_turns():
    made = make(batch_sizes=(32, 64), trials=4)
    turns = made.turns()
    assert len(set(turns)) == len(turns) == 4 * len(made.cases())
    assert [turn.case.batch_size for turn in turns] == [32] * 16 + [64] * 16, "setting by setting, the smallest first"
    assert [turn.trial for turn in turns[:16]] == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4
    assert [turn.case.pipeline for turn in turns[:8]] == ["original", "fast"] * 2 + ["fast", "original"] * 2
    orders = []
    for start in range(0, len(turns), 4):  # task x pipeline of one setting are neighbours
        group = [turn.case for turn in turns[start : start + 4]]
        assert len({(case.batch_size, case.num_items) for case in group}) == 1
        assert len({(case.task, case.pipeline) for case in group}) == 4
        orders.append(tuple((case.task, case.pipeline) for case in group))
    assert len(set(orders)) > 1, "nobody always runs after the same neighbour"
    assert made.turns() == turns, "a resumed run keeps the order"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trials": 0}, "trials=0: the first trial is dropped"),
        ({"trials": 1}, "trials=1: .* nothing would be kept; at least 2"),
        ({"epochs": 0}, "epochs=0"),
        ({"device": "tpu"}, "unknown device 'tpu'; choose cpu, cuda or all"),
        ({"task": "colour"}, "unknown task 'colour'; choose from type, root"),
        ({"pipeline": "slow"}, "unknown pipeline 'slow'; choose from original, fast"),
        ({"batch_sizes": (32, 32)}, "each value once"),
        ({"batch_sizes": (64,), "clips": (64,)}, "of 64 clips only 45 train; give more clips or smaller batches"),
        ({"batch_sizes": (0,)}, "batch size 0"),
    ],
    ids=lambda value: "-".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_bad_options(changes, message):
    with pytest.raises(UserError, match=message):
        make(**changes)


def test_a_gpu_that_is_not_there(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="no CUDA GPU here; .*use cpu"):
        make(device="cuda")
    assert make(device="all").devices == ("cpu",)


def test_all_devices_where_there_is_a_gpu(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert make(device="all").devices == ("cpu", "cuda")
