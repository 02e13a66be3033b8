"""Stacks of calls: time lies in the innermost call, a range outlives who opened it, no path of a machine is kept."""

from __future__ import annotations

from types import SimpleNamespace

from triadbench.bench.profile import flame
from triadbench.bench.report import flame_page


def call(name, start_us, length_us, *children):
    end, length = 1000 * (start_us + length_us), 1000 * length_us
    return SimpleNamespace(name=name, end_time_ns=end, duration_time_ns=length, children=children)


MODULE = call("torch/nn/modules/module.py(1): _call_impl", 150, 800, call("aten::conv2d", 200, 300))
SESSION = call("<built-in method run of Session object at 0x7f00>", 600, 200)
STEP = call("/home/someone/triadbench/core/x.py(7): step", 100, 900, MODULE, SESSION)
ROOT = call("flame.py(1): _watched", 90, 1000, STEP)
CALLS = [(None, "work", 0.1), (0, "x.py(7): step", 0.4), (1, "aten::conv2d", 0.3), (1, "run (built-in)", 0.2)]


def test_calls_within_one_another_without_wrappers_and_folders():
    assert flame.tree(flame._find([call("x.py(1): y", 0, 2000, ROOT)], "_watched"), "work") == CALLS


def test_a_file_of_ours_is_named_so_in_a_checkout_too():
    root = call("w", 0, 100, call("core/x.py(1): a", 0, 90, call("triadbench/core/x.py(2): b", 0, 80)))
    assert [name for _, name, _ in flame.tree(root, "w")[1:]] == [
        "triadbench/core/x.py(1): a",
        "triadbench/core/x.py(2): b",
    ]


def test_a_built_in_without_a_name_is_that_of_its_type():
    names = (
        "<built-in method  of pybind11.record object at 0x7f51>",
        "<built-in method sub of re.Pattern object at 0x7f>",
    )
    root = call("w", 0, 100, call(names[0], 0, 90, call(names[1], 0, 80)))
    assert [name for _, name, _ in flame.tree(root, "w")[1:]] == ["pybind11.record (built-in)", "sub (built-in)"]


def test_a_range_outlives_the_function_that_opened_it():
    opener = call("__enter__", 0, 20, call("range", 10, 80))
    names = [name for _, name, _ in flame.tree(call("w", 0, 100, opener, call("inside", 50, 10)), "work")]
    assert names == ["work", "__enter__", "inside"]


def test_equal_stacks_are_added_up_and_small_calls_are_their_callers():
    often = [call("a", start, 30, call("small", start, 0.05)) for start in (0, 30)]
    assert flame.tree(call("w", 0, 100, *often), "work") == [(None, "work", 0.04), (0, "a", 0.06)]


def test_the_picture_is_as_wide_as_the_time():
    record = {"name": "flame", "parameters": {"target": "work", "device": "cpu"}, "samples": [1.0], "plain_ms": 0.5}
    record |= {"clips": 2, "calls": CALLS}
    (icicle,) = flame_page.figure([record])[0].data
    widths = dict(zip(icicle.labels, icicle.values, strict=True))
    # plotly adds what each calls to these.
    assert widths == {"work": 0.1, "step": 0.4, "aten::conv2d": 0.3, "run (built-in)": 0.2}
    assert icicle.branchvalues in (None, "remainder") and icicle.parents == ("", "0", "1", "1")
    (sentence,) = flame_page.findings([record])
    assert "0.250 ms a clip" in sentence and "2.00 times as long" in sentence and "step, 40 %" in sentence
