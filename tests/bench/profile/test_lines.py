"""Line profiles: the slow line is the hottest, counts are right, the cost of profiling is told, a lost name is an error."""

from __future__ import annotations

import sys
import textwrap
import time

import pytest

from triadbench.bench import records
from triadbench.bench.profile import lines as line_profiles

ENVIRONMENT = {"cores_usable": 2, "gpu": None}

SOURCE = """
import functools
import time


class Loader:
    def read(self, index):
        time.sleep(0.01)
        return index < 0 or "<b>&" in str(index)


def wrapped(function):
    @functools.wraps(function)
    def inner(*args):
        return function(*args)

    return inner


@wrapped
def step(loader, n):
    total = 0
    for i in range(n):
        total += loader.read(i)
        time.sleep(0.001)
    if total < 0:
        raise ValueError("never")
    return total


def unused():
    return 1
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "profiled_example.py").write_text(textwrap.dedent(SOURCE), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield __import__("profiled_example")
    sys.modules.pop("profiled_example")


def make_target(module, *functions, **more):
    loader = module.Loader()
    return line_profiles.Target("example", functions, lambda: module.step(loader, 7), 7, **{"parameters": {}, **more})


STEP, READ = "profiled_example:step", "profiled_example:Loader.read"


@pytest.fixture
def record(module):
    return line_profiles.run([make_target(module, STEP, READ, parameters={"device": "cpu"})], ENVIRONMENT, rounds=3)[0]


def line_with(record, text):
    found = [line for line in record["lines"] if text in line["text"]]
    assert len(found) == 1
    return found[0]


def test_the_slow_line_is_the_hottest(record):
    hottest = max(record["lines"], key=lambda line: line["own_seconds"])
    assert hottest["text"].strip() == "time.sleep(0.01)" and hottest["function"] == READ
    assert hottest["file"] == "profiled_example.py", "no path of this machine"
    assert hottest["share"] > 0.4


def test_hits_are_those_of_all_profiled_rounds(record):
    assert line_with(record, "total = 0")["hits"] == 3
    assert line_with(record, "total += ")["hits"] == 3 * 7
    assert line_with(record, "time.sleep(0.01)")["hits"] == 3 * 7
    assert line_with(record, "for i in range")["hits"] == 3 * 8
    assert line_with(record, "raise ValueError")["hits"] == 0, "a line that never ran is listed all the same"
    assert record["clips"] == 21
    assert [f["calls"] for f in record["functions"]] == [3, 21]


def test_a_calling_line_keeps_only_its_own_time(record):
    calling = line_with(record, "total += loader.read")
    assert calling["enters"] == [READ]
    read_s = next(f["seconds"] for f in record["functions"] if f["function"] == READ)
    assert calling["seconds"] > read_s > 3 * 7 * 0.009
    assert calling["own_seconds"] == pytest.approx(calling["seconds"] - read_s)
    total = record["samples"][0]
    assert sum(line["own_seconds"] for line in record["lines"]) == pytest.approx(total, rel=1e-6)
    assert sum(line["share"] for line in record["lines"] if line["function"] == STEP) == pytest.approx(1)


def test_overhead_is_the_ratio_of_rounds_taken_in_turns(record):
    assert len(record["plain_s"]) == len(record["profiled_s"]) == 3
    assert record["overhead"] == pytest.approx(min(record["profiled_s"]) / min(record["plain_s"]))
    assert all(seconds > 7 * 0.011 for seconds in record["plain_s"])


def test_overhead_shows_where_lines_are_many(module, monkeypatch):
    def busy():
        total = 0
        for i in range(20_000):
            total += i
        return total

    monkeypatch.setattr(module, "busy", busy, raising=False)
    target = line_profiles.Target("busy", ("profiled_example:busy",), module.busy, 1, {})
    assert line_profiles.profile(target, ENVIRONMENT, rounds=3)["overhead"] > 1.2


def test_record_is_kept_and_read_again(record, tmp_path):
    records.append(record, tmp_path / "r.jsonl")
    assert records.load(tmp_path / "r.jsonl") == ([record], [])
    assert record["name"] == "lines" and record["unit"] == "s"
    assert record["parameters"] == {"target": "example", "rounds": 3, "device": "cpu"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("profiled_example:stepp", "there is no 'stepp'; profiled_example has .*step"),
        ("profiled_example:Loader.reed", "there is no 'reed'"),
        ("profiled_exampel:step", "no module 'profiled_exampel'"),
        ("profiled_example:time.sleep", "not a function written in Python"),
        ("profiled_example:Loader", "a type and not a function"),
    ],
)
def test_an_unknown_function_is_an_error(module, name, message):
    with pytest.raises(line_profiles.UserError, match=message):
        line_profiles.run([make_target(module, STEP, name)], ENVIRONMENT, rounds=1)


def test_a_function_that_never_runs_is_an_error(module):
    with pytest.raises(line_profiles.UserError, match="never calls profiled_example:unused"):
        line_profiles.run([make_target(module, STEP, "profiled_example:unused")], ENVIRONMENT, rounds=1)


def test_profiling_leaves_no_tracer_behind(module):
    before = sys.getprofile(), sys.gettrace()
    line_profiles.run([make_target(module, STEP)], ENVIRONMENT, rounds=1)
    assert (sys.getprofile(), sys.gettrace()) == before
    assert time.sleep.__name__ == "sleep"


def test_no_line_gives_away_more_than_it_took():
    """The parts of two lines are measured in one round and the times in others; where they differ the rest moves on."""
    lines = [
        {"own_seconds": 1.0, "entered_s": {"load": 5.0}},
        {"own_seconds": 6.0, "entered_s": {"load": 5.0}},
        {"own_seconds": 3.0, "entered_s": {}},
    ]
    calls = {("step", 1, "load"): [1, 5.0], ("step", 2, "load"): [1, 5.0]}
    line_profiles._subtract_callee("load", 6.0, lines, calls)
    assert [line["own_seconds"] for line in lines] == pytest.approx([0.0, 1.0, 3.0])
