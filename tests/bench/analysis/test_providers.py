"""Figures of `benchmark` are those of its records, and ratios are of timings that took turns."""

from __future__ import annotations

import numpy as np
import pytest

from tests.bench import report_records as made
from tests.bench.benchmark_records import everything, record
from triadbench.bench.analysis import providers
from triadbench.bench.analysis.providers import BASELINE


def test_statistics_are_numpys():
    samples = np.random.default_rng(0).lognormal(size=1024)
    statistics = providers.statistics(samples)
    assert statistics["n"] == 1024 and statistics["mean"] == pytest.approx(samples.mean())
    assert (statistics["min"], statistics["max"]) == (samples.min(), samples.max())
    for name, percent in {"p50": 50, "p90": 90, "p95": 95, "p99": 99, "p99.9": 99.9}.items():
        assert statistics[name] == pytest.approx(np.percentile(samples, percent))


def test_ratios_are_of_one_run_and_as_many_threads():
    records = everything()
    rows = {(row["format"], row["threads"]): row for row in providers.rows(records)}
    for threads in (1, 2):
        ours, eager = rows["onnx, clip by clip", threads], rows[BASELINE, threads]
        assert ours["over_eager"] == pytest.approx(eager["single"]["p50"] / ours["single"]["p50"])
        assert ours["over_eager_offline"] == pytest.approx(ours["best"] / eager["best"])
        assert eager["over_eager"] is None and providers.over_eager(eager) == "1"
    later = made.environment() | {"time": "2026-11-23T20:00:00+00:00"}
    for one in records:
        if one["parameters"].get("format") == BASELINE:
            one["environment"] = later
    assert all(row["over_eager"] is None and row["over_eager_offline"] is None for row in providers.rows(records))


def test_a_gpus_crossover_is_where_it_passes_every_cpu_row():
    rows = providers.rows(everything("Test GPU"))
    # 10 ms a call against 2 ms a clip: slower at batch 1, faster from 8 on.
    [crossing] = providers.crossovers(rows)
    assert (crossing["name"], crossing["batch"]) == ("onnx, whole batch, cuda", 8)
    sentences = providers.sentences(everything("Test GPU"))
    assert "onnx, whole batch, cuda: faster than every CPU contestant from batch 8 on" in sentences[-1]
    assert not providers.crossovers(providers.rows(everything()))
    slow = record("benchmark offline", "onnx, whole batch", [1e6] * 3, batch=8, provider="cuda")
    sentences = providers.sentences([*everything(), slow])
    assert sentences[-1] == "onnx, whole batch, cuda: at no batch size that was measured faster than the CPU."


def test_a_folder_is_compared_with_the_best_loop_of_the_same_run():
    ours, loop, times = providers.files_ratio(everything())
    assert (ours["what"], loop["what"]) == ("infer", "eager loop, one thread")
    assert times == pytest.approx(6.72 / 1.12)
    assert providers.files_ratio([]) is None


def test_nothing_is_concluded_from_disturbed_timings():
    assert not any("isturbed" in sentence for sentence in providers.sentences(everything()))
    records = everything()
    for one in records:
        one["disturbed"] = True
    sentences = providers.sentences(records)
    assert "nothing is concluded" in sentences[0] and not any("times as" in sentence for sentence in sentences)
    every = providers.rows(records)
    assert not any(row["over_eager"] or row["over_eager_offline"] for row in every)
    assert providers.files_ratio(records) is None
    assert sum(": disturbed." in sentence for sentence in sentences) == 2


def test_what_was_absent_once_and_timed_later_is_not_left_out():
    records = everything()
    assert providers.left_out(records) == [("torchscript, cuda", "no <GPU>")]
    records.append(record("benchmark offline", "torchscript", [1.0], provider="cuda"))
    assert providers.left_out(records) == []
    wrong = record("benchmark offline left out", "onnx", [], batch=8) | {"reason": "wrong labels"}
    assert providers.left_out([*records, wrong]) == [("onnx, batch 8", "wrong labels")]


def test_copies_precision_and_provider_are_in_the_name():
    other = record("benchmark offline", "onnx", [1.0], provider="cuda", copies=False)
    other["parameters"]["precision"] = "fp16"
    other["error"]["agreement"] = 0.75
    (row,) = providers.rows([other])
    assert row["name"] == "onnx, fp16, cuda, no copies" and row["over_eager"] is None
    assert providers.difference(row) == "1.2e-07, 75.0 % of the labels"


def test_the_terminals_tables():
    text = providers.text(everything())
    lines = [line.split() for line in text.splitlines() if line.startswith(("onnx, clip by clip", BASELINE))]
    assert len(lines) == 5 and ["123", "9.87", "36.5", "102", "1"] == lines[-1][-5:]
    assert "A folder of 512 files: infer takes 1.12 s and is 6.0 times as fast" in text
    assert "python cli.py infer clip.wav takes 0.432 s as a whole process (median of 7)." in text
    assert "not measured: torchscript, cuda: no <GPU>" in text
    assert providers.text([]).startswith("- GPU: not measured")
