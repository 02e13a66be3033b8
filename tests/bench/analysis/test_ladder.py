"""The ladder's figures and sentences are those of its records, and nothing is compared that was not measured alike."""

from __future__ import annotations

import pytest

from tests.bench import report_records as made
from triadbench.bench.analysis import ladder


def rung(device, number, seconds, parts, mel="clip", n_clips=1000, **more):
    parameters = {"rung": number, "name": f"rung {number}", "device": device, "task": "type", "batch_size": 32}
    parameters |= {"num_items": 64, "protocol": "full", "switches": {"mel": mel}}
    return {
        "name": "ladder",
        "parameters": parameters,
        "samples": [seconds],
        "parts": parts,
        "instrumented_s": 1.1 * seconds,
        "n_clips": n_clips,
        "first_call": seconds,
        "max_difference": 0.0,
        "losses": [1.0],
        "spread_of_seeds": 0.1,
        "tolerance": 0.1,
        "seeds": [0, 1, 2],
    } | more


CPU = [
    rung("cpu", 0, 10.0, {"reading": 1, "mel": 1, "forward": 3, "backward": 5}),
    rung("cpu", 1, 5.0, {"forward": 2, "backward": 3}, "batch"),
]
# With the clock in, 8 s: shares count, and the seconds are those without it.
GPU = [
    rung("cuda", 0, 4.0, {"reading": 2, "mel": 4, "forward": 1, "idle": 1}),
    rung("cuda", 1, 0.05, {"mel": 0.025, "forward": 0.025}, "batch"),
]


def test_a_cpus_sentences_are_computed_from_the_parts():
    text = " ".join(ladder.sentences(CPU))
    assert "costs the original pipeline 10 ms: backward 5.0, forward 3.0, reading 1.0, mel 1.0." in text
    assert "one by one takes 20 % of an epoch (reading 10 %, mel 10 %), the network 80 %, waiting 0 %" in text
    assert "2.0 times as fast (10.0 s to 5.00 s)" in text and "“rung 1” (5.00 ms a clip)" in text
    assert "20 % of an epoch" in text and "at most 5.0 times as fast" in text and "GPU: not measured" in text
    assert ladder.sentences([]) == [] == ladder.explain([])
    assert "In the original's own figures" in ladder.explain(CPU)[-1]


def test_cpu_and_gpu_are_compared_part_by_part():
    text = " ".join(ladder.sentences(CPU + GPU))
    assert (
        "the GPU is 2.5 times as fast as the CPU: its network runs 16 times as fast, but preparing clips only" in text
    )
    assert "0.67 times, and that is 75 % of its epoch" in text and "still be only 3.3 times as fast" in text
    assert "mel takes 2,000 us a clip when clips come one by one and 25.0 us in batches: 99 % of it" in text
    assert "With the fast pipeline the GPU is 100 times as fast as the CPU." in text and "not measured" not in text


def test_ladders_that_were_measured_otherwise_are_not_compared():
    gpu = [record | {"parameters": record["parameters"] | {"batch_size": 64}} for record in GPU]
    text = " ".join(ladder.sentences(CPU + gpu))
    assert "measured with different batch size 32 and 64" in text and "the GPU is" not in text


def test_an_epoch_that_is_all_network_has_no_bound():
    (row,) = ladder.main_ladder([rung("cpu", 0, 10.0, {"forward": 3, "backward": 5})], "cpu")
    assert ladder.bound(row) is None and "infinitely fast" in ladder.bound_sentence(row)


def test_without_the_original_nothing_is_said_over_it():
    records = made.ladder(made.environment())[3:]
    rows = ladder.main_ladder(records, "cpu")
    assert [row["over_original"] for row in rows] == [None] * 4 and rows[0]["over_previous"] is None
    assert ladder.sentences(records) == [] and rows[0]["passed"] is None


def test_the_largest_complete_ladder_is_the_main_one():
    whole = made.ladder(made.environment())
    larger = [record | {"parameters": record["parameters"] | {"num_items": 16384}} for record in whole[2:]]
    assert ladder.main_ladder(larger + whole, "cpu")[0]["setting"]["clips"] == 8192
    assert ladder.main_ladder(larger, "cpu")[0]["setting"]["clips"] == 16384
    assert ladder.main_ladder(larger, "cuda") == []


def test_parts_of_the_median_epoch_are_shares_of_the_instrumented_one():
    row = ladder.main_ladder(made.ladder(made.environment()), "cpu")[0]
    assert sum(ladder.split_s(row).values()) == pytest.approx(row["median_s"])
    assert sum(ladder.per_clip_ms(row).values()) == pytest.approx(1e3 * row["median_s"] / 5734)
    assert ladder.share(row, ["reading"]) == pytest.approx(row["parts"]["reading"] / row["instrumented_s"])


def test_the_terminals_tables():
    text = ladder.text([*CPU, rung("cpu", 2, 1.0, None, name="ladder left out", samples=[], max_difference=0.5)])
    line = next(line for line in text.splitlines() if line.startswith("rung 1"))
    # 5 s for 1,000 clips are 28.68 s for 5,735.
    assert line.split()[2:] == ["5.000", "5.000", "28.68", "2.00x", "2.00x", "5.000", "0.0e+00", "1.10x"]
    assert "rung 2: left out, its loss differs by 0.5 from the original's; 0.1 is allowed" in text
    assert "may differ by 0.1: the spread of 3 seeds of the original pipeline (0.1)" in text
    assert "CPU, type, batch 32, 64 clips of which 1,000 train; protocol full" in text


@pytest.mark.parametrize("disturbed", [0, -1])
def test_of_a_disturbed_rung_no_ratio_is_told(disturbed):
    every = made.ladder(made.environment())
    every[disturbed]["disturbed"] = True
    rows = ladder.main_ladder(every, "cpu")
    assert rows[-1]["over_original"] is None and (rows[1]["over_previous"] is None) == (disturbed == 0)
    assert (rows[-1]["over_previous"] is None) == (disturbed == -1)
    assert "nothing is concluded" in ladder.gain_sentence(rows) and "times as fast" not in ladder.gain_sentence(rows)
