"""Our trials stand beside the original's published figures, and ratios are of means."""

from __future__ import annotations

import pytest

from triadbench.bench.analysis import experiments, published
from triadbench.bench.analysis.published import Setting
from triadbench.bench.report import experiments_page


def record(device, pipeline, phase, seconds, experiment="batch-size", batch_size=32, num_items=8192):
    parameters = {"experiment": experiment, "task": "type", "batch_size": batch_size, "num_items": num_items}
    parameters |= {"device": device, "pipeline": pipeline, "phase": phase, "protocol": "full"}
    name = f"experiment {experiment}"
    return {"name": name, "parameters": parameters, "samples": [seconds] * 5, "first_call": 9.0, "disturbed": False}


RECORDS = [
    record("cpu", "original", "train", 40.0),
    record("cpu", "fast", "train", 10.0),
    record("cuda", "original", "train", 20.0),
    record("cuda", "fast", "train", 0.1),
]


def test_the_table_stands_beside_the_originals():
    (row,) = experiments.beside_published(RECORDS)
    assert row["fast_over_original"] == pytest.approx({"cpu": 4, "cuda": 200})
    assert row["gpu_over_cpu"] == pytest.approx({"original": 2, "fast": 100})
    assert row["published_ratio"] == pytest.approx(1.986, abs=1e-3)
    assert row["published"]["cpu"] == pytest.approx(19.237, abs=5e-4)
    text = experiments.text(RECORDS)
    assert all(word in text for word in ("4.00x", "200.00x", "100.00x", "19.237", "9.686", "1.99x", "Protocol full"))
    assert "not measured" not in text and "i7-10750H" in text and "Other programs" not in text


def test_what_was_not_measured_and_what_was_disturbed_is_said():
    odd = record("cpu", "fast", "train", 1.0, num_items=512) | {"disturbed": True}
    text = experiments.text([odd])
    assert "GPU: not measured." in text and "published CPU" not in text
    assert "Other programs used the processor meanwhile" in text


def test_a_short_run_has_the_published_times_of_a_clip_beside_it():
    short = record("cpu", "fast", "train", 1.0, num_items=512, batch_size=48)
    short["parameters"]["protocol"] = "short: 512 clips, not 8,192"
    head, _, row, *notes = experiments.text([short]).splitlines()
    assert "CPU fast ms a clip" in head and "published CPU ms a clip" in head and "published GPU ms a clip" in head
    # 359 of 512 clips train, 5,735 of the original's 8,192 at batch 32, the nearest to 48.
    theirs = published.seconds(Setting("batch-size", "type", 32, 8192, "train"), "cpu")
    assert f"{1e3 / 359:.3f}" in row and f"{1e3 * theirs / 5735:.3f}" in row
    assert any("8,192 clips at the nearest batch size" in note for note in notes)
    assert any("12 classes" in note for note in notes) and any("3.6770 and 3.5788" in note for note in notes)


def test_what_is_left_of_a_begun_experiment_is_missing():
    assert experiments.missing(RECORDS[:1]) == [
        "batch-size, CPU, original pipeline: root 32, 64, 128, 256; type 64, 128, 256",
        "batch-size, CPU, fast pipeline: root 32, 64, 128, 256; type 32, 64, 128, 256",
    ]
    assert experiments.missing([record("cpu", "fast", "train", 1.0, "data-size", num_items=4096)])[1] == (
        "data-size, CPU, fast pipeline: type 8192, 16384"
    )
    assert "Missing of the original's protocol: batch-size, GPU" in experiments.text(RECORDS)
    short = record("cpu", "fast", "train", 1.0, num_items=512)
    short["parameters"]["protocol"] = "short: 512 clips, not 8,192"
    assert experiments.missing([short]) == []
    assert experiments.text([]) == "no figures"


def test_rows_of_the_table_can_be_told_apart():
    cases = [(phase, clips) for phase in ("train", "test") for clips in (32, 64)]
    records = [record("cpu", "fast", phase, 1.0, batch_size=8, num_items=clips) for phase, clips in cases]
    head, *rows = [line for line in experiments.text(records).splitlines() if line.split()[0] in ("task", "type")]
    assert "batch size" in head and "clips" in head
    assert sorted(row.split()[:4] for row in rows) == [
        ["type", phase, "8", clips] for phase in ("test", "train") for clips in ("32", "64")
    ]
    one = [record for record in records if record["parameters"]["num_items"] == 64]
    assert "clips" not in experiments.text(one).splitlines()[0]
    by_data = [record("cpu", "fast", phase, 1.0, "data-size", 8, clips) for phase, clips in cases]
    assert "experiment" in experiments.text(records + by_data).splitlines()[0]
    assert "batch size" not in experiments.text(by_data).splitlines()[0]


def test_one_row_of_each_setting_is_shown_the_whole_protocol_first():
    short = record("cpu", "fast", "train", 5.0)
    short["parameters"]["protocol"] = "short: 1 epoch a trial, not 5"
    few = record("cpu", "fast", "train", 8.0) | {"environment": {"torch_threads": 1}}
    many = record("cpu", "fast", "train", 4.0) | {"environment": {"torch_threads": 2}}
    for order in ([short, many, few], [few, many, short]):
        (row,) = experiments.shown(experiments.ours(order))
        assert (row["mean_s"], row["threads"]) == (4.0, 2)


def test_the_published_rows_are_all_there():
    rows = experiments.published_rows()
    assert len(rows) == 44 and sum(len(row["samples"]) for row in rows) == 220
    assert {row["pipeline"] for row in rows} == {experiments.THEIRS}
    assert len(experiments.ratios(rows)) == 22 and experiments.gains(rows) == []


def test_no_line_joins_sets_of_different_sizes():
    made = [
        record("cpu", "fast", "train", 3.0),
        *(record("cpu", "fast", "train", 0.5, "batch-size", b, 512) for b in (32, 64)),
    ]
    for short in made[1:]:
        short["parameters"]["protocol"] = "short: 512 clips, not 8,192"
    figure, _ = experiments_page.times(experiments.ours(made), "batch_size")
    lines = [list(trace.y) for trace in figure.data if trace.mode == "lines"]
    assert lines == [[0.5, 0.5], [3.0]]
    assert {trace.name for trace in figure.data if trace.mode == "markers"} == {
        "ours, fast, CPU (some short runs of 512 clips)"
    }
