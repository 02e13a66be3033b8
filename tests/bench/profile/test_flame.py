"""Stacks of calls from a trace: time belongs to the innermost call, a range outlives who opened it, no path is kept."""

from __future__ import annotations

import pytest

from triadbench.bench.profile import flame
from triadbench.bench.report import flame_page


def event(name, start, length, tid=1, cat="python_function"):
    return {"ph": "X", "cat": cat, "name": name, "tid": tid, "ts": start, "dur": length}


EVENTS = [
    event("before", 0, 50),
    event("work", 100, 1000, cat="user_annotation"),
    event("/home/someone/triadbench/core/x.py(7): step", 100, 900),
    event("torch/nn/modules/module.py(1): _call_impl", 150, 800),
    event("aten::conv2d", 200, 300, cat="cpu_op"),
    event("<built-in method run of Session object at 0x7f00>", 600, 200),
    event("kernel", 200, 300, tid=7, cat="kernel"),
    event("another thread", 200, 300, tid=2),
]


def test_time_belongs_to_the_innermost_call():
    own = flame.own_times(EVENTS, "work")
    step = ("work", "x.py(7): step")
    expected = {("work",): 0.1, step: 0.4, (*step, "aten::conv2d"): 0.3, (*step, "run (built-in)"): 0.2}
    assert own == pytest.approx(expected)
    assert sum(own.values()) == pytest.approx(1.0)


def test_a_range_outlives_the_function_that_opened_it():
    opened = [event("work", 0, 100), event("__enter__", 0, 20), event("range", 10, 80), event("inside", 50, 10)]
    stacks = flame.own_times(opened, "work")
    assert ("work", "range", "inside") in stacks and not any("__enter__" in stack[1:-1] for stack in stacks)


def test_small_calls_are_their_callers():
    own = {("w",): 50.0, ("w", "a"): 49.95, ("w", "b"): 0.03, ("w", "b", "c"): 0.02}
    kept = flame.folded(own)
    assert kept["frames"] == ["w", "a"] and kept["stacks"] == [[0], [0, 1]]
    assert kept["weights_ms"] == [pytest.approx(50.05), pytest.approx(49.95)]


def test_the_picture_is_as_wide_as_the_time():
    record = {"name": "flame", "parameters": {"target": "work", "device": "cpu"}, "samples": [1.0], "plain_ms": 0.5}
    record |= {"clips": 2, **flame.folded(flame.own_times(EVENTS, "work"))}
    (icicle,) = flame_page.figure([record])[0].data
    widths = dict(zip(icicle.labels, icicle.values, strict=True))
    assert widths == {"work": 1.0, "step": 0.9, "aten::conv2d": 0.3, "run (built-in)": 0.2}
    (sentence,) = flame_page.findings([record])
    assert "0.250 ms a clip" in sentence and "2.00 times as long" in sentence and "step, 40 %" in sentence
