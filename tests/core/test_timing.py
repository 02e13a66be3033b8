"""The timing protocol: checked before timed, alternated, first call apart, and other work on the machine noticed."""

from __future__ import annotations

import time

import pytest

from triadbench.core import timing
from triadbench.core.timing import OtherWork, Timing, alternate, call_times_ms, is_disturbed, load_fields, measure


def test_a_wrong_answer_is_never_timed():
    calls = []

    def check(name, result):
        raise AssertionError(f"{name} gave {result}")

    with pytest.raises(AssertionError, match="one gave 1"):
        measure({"one": lambda: calls.append(1) or 1}, check=check)
    assert len(calls) == 1, "nothing may run after a failed check"


def test_check_sees_the_timed_result_of_every_contestant():
    seen = {}
    measure({"a": lambda: 1, "b": lambda: 2}, check=seen.__setitem__, rounds=1, min_time_s=0)
    assert seen == {"a": 1, "b": 2}


def test_contestants_alternate_and_the_first_call_is_apart():
    trace = []
    contestants = {name: lambda name=name: (trace.append(name), time.sleep(0.002)) for name in "ab"}
    timed = measure(contestants, rounds=5, min_time_s=0, warmup=1)
    assert all(t.n == 5 and t.calls_per_sample == 1 for t in timed.values())
    rounds = trace[-10:]
    assert all(set(rounds[i : i + 2]) == {"a", "b"} for i in range(0, 10, 2)), "one sample of each in every round"
    assert len(trace) == 2 * (1 + 1 + 1 + 5), "first call, warm-up, length estimate, samples"


def test_first_call_is_not_among_the_samples(monkeypatch):
    seconds = iter([0.05] + [0.002] * 10)
    monkeypatch.setattr(timing, "_clock", lambda device: lambda function, calls: (next(seconds), function()))
    timed = measure({"x": int}, rounds=3, min_time_s=0)["x"]
    assert timed.first_call_s == 0.05
    assert timed.samples_ms == pytest.approx([2.0] * 3)


def test_short_calls_share_a_sample_and_are_divided(monkeypatch):
    def clock(function, calls):
        return 1e-4 * calls, function()

    monkeypatch.setattr(timing, "_clock", lambda device: clock)
    timed = measure({"x": int}, rounds=3, min_time_s=0)["x"]
    assert timed.calls_per_sample == 10, "1 ms a sample at 0.1 ms a call"
    assert timed.samples_ms == pytest.approx([0.1] * 3)


def test_time_limit_keeps_at_least_one_round():
    timed = measure({"x": lambda: time.sleep(0.01)}, rounds=1000, max_time_s=0.0)["x"]
    assert timed.n == 1


def test_percentiles_and_spread_are_those_of_the_samples():
    timed = Timing.from_samples(0.0, [1.0, 2.0, 3.0, 4.0, 5.0])
    assert (timed.p50_ms, timed.p90_ms, timed.n) == (3.0, pytest.approx(4.6), 5)
    assert timed.spread == pytest.approx(2 / 3) and timed.unstable
    assert not Timing.from_samples(0.0, [3.0, 3.1, 2.9, 3.0]).unstable


@pytest.mark.parametrize(
    ("other_cores", "threads", "cores", "expected"),
    [
        (1.0, 2, 2, True),
        (0.05, 2, 2, False),
        (1.0, 1, 2, False),
        (1.2, 1, 2, True),
        (3.0, 4, 8, False),
        (0.5, 9, 8, True),
    ],
    ids=["shared core", "idle", "a core left", "more than left", "big machine", "more threads than cores"],
)
def test_disturbed_means_more_work_than_cores(other_cores, threads, cores, expected):
    assert is_disturbed(other_cores, threads, cores) is expected


def test_equal_samples_on_a_busy_machine_are_disturbed_though_steady(monkeypatch):
    monkeypatch.setattr(timing, "own_threads", lambda: 2)
    monkeypatch.setattr(timing, "usable_cores", lambda: 2)
    timed = Timing.from_samples(0.0, [64.0] * 20, 1, other_cores=1.0)
    assert timed.spread == 0 and not timed.unstable and timed.disturbed


def test_other_work_counts_others_and_not_ourselves(monkeypatch):
    clock, own, busy = iter([0.0, 2.0]), iter([5.0, 6.0]), iter([11.0, 14.5])  # 3.5 s busy in 2 s, of which 1 s is ours
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(timing.time, "process_time", lambda: next(own))
    monkeypatch.setattr(timing.system, "busy_s", lambda: next(busy))
    work = OtherWork()
    assert work.cores() == pytest.approx(1.25)


def test_a_record_says_how_busy_others_were_and_whether_that_disturbs(monkeypatch):
    monkeypatch.setattr(timing, "usable_cores", lambda: 2)
    assert load_fields(1.0, threads=1) == {"other_cores": 1.0, "disturbed": False}
    assert load_fields(1.0, threads=2) == {"other_cores": 1.0, "disturbed": True}
    work = OtherWork()
    monkeypatch.setattr(work, "cores", lambda: 1.5)
    assert work.fields(threads=1) == {"other_cores": 1.5, "disturbed": True}


def test_every_round_has_every_contestant_in_a_seeded_order_of_its_own():
    turns = list(alternate("abc", 6, seed=3))
    assert turns == list(alternate("abc", 6, seed=3)), "the order is the seed's"
    orders = {tuple(name for number, name in turns if number == k) for k in range(6)}
    assert all(sorted(order) == list("abc") for order in orders) and len(orders) > 1


def test_the_time_limit_ends_after_a_whole_round_and_not_before_the_fewest():
    assert [number for number, _ in alternate("ab", 9, max_time_s=0.0)] == [0, 0]
    assert [number for number, _ in alternate("ab", 9, max_time_s=0.0, min_rounds=2)] == [0, 0, 1, 1]
    further = iter([True, True, False])
    assert [number for number, _ in alternate("a", 1, unfinished=lambda: next(further))] == [0, 1, 2]


def test_single_calls_are_timed_by_themselves_until_the_time_is_over(monkeypatch):
    marks = iter([0.0, 0.0, 1.0, 1.0, 3.0])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(marks))
    queries = []
    assert call_times_ms(queries.append, range(4, 9), max_time_s=2.0) == [1000.0, 2000.0]
    assert queries == [4, 5]


def test_bad_arguments_say_so():
    with pytest.raises(ValueError, match="at least one name"):
        measure({})
    with pytest.raises(ValueError, match="rounds=0"):
        measure({"x": int}, rounds=0)
    with pytest.raises(ValueError, match="'cpu' or 'cuda'"):
        measure({"x": int}, device="tpu")
    with pytest.raises(ValueError, match="no sample"):
        Timing.from_samples(0.0, [])


def test_cuda_without_a_gpu_raises_and_never_falls_back(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="no CUDA device"):
        measure({"x": int}, device="cuda")


@pytest.mark.gpu
def test_cuda_events_cover_the_whole_queue():
    import torch

    a = torch.randn(2048, 2048, device="cuda")
    timed = measure({"one": lambda: a @ a, "ten": lambda: [a @ a for _ in range(10)]}, device="cuda", rounds=10)
    assert timed["ten"].p50_ms > 4 * timed["one"].p50_ms


def test_a_slow_contestant_sits_out_when_its_share_is_spent(monkeypatch):
    contestants = {"slow": lambda: 0.02, "fast": lambda: 0.001}  # each says how long it takes
    monkeypatch.setattr(timing, "_clock", lambda device: lambda function, calls: (calls * function(), function()))
    timed = measure(contestants, rounds=12, min_time_s=0.0, warmup=0, share_s=0.03)
    assert timed["slow"].n == timing.FEWEST_SAMPLES and timed["fast"].n == 12


def test_settling_waits_and_calls_once_untimed():
    calls = []
    began = time.perf_counter()
    timed = measure({"a": lambda: calls.append(1)}, rounds=3, min_time_s=0.0, warmup=0, min_sample_s=0.0, settle_s=0.01)
    assert time.perf_counter() - began >= 0.03
    assert timed["a"].n == 3 and len(calls) == 1 + 1 + 3 * 2
