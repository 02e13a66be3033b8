"""Figures are divided by one another only where they were measured alike, and where their code differs it is said."""

from __future__ import annotations

import json

import pytest

from tests.bench import report_records as made
from triadbench.bench.analysis import experiments as experiment_numbers
from triadbench.bench.analysis import gather, pairing
from triadbench.bench.analysis import ladder as ladder_numbers
from triadbench.bench.report.report import write_report

FULL = {"protocol": "full", "trials": 6, "epochs": 5}


def told(result: dict) -> dict[str, dict]:
    return {sentence["key"]: sentence for sentence in result["machines"][0]["story"]}


def chapter(page: str, name: str) -> str:
    return page.split(f'<section id="{name}"')[1].split("</section>")[0]


def test_a_short_run_is_never_compared_with_a_whole_one(tmp_path):
    every = made.experiments(made.environment("Test GPU"), ("cpu", "cuda"))
    for record in every:
        if record["parameters"]["pipeline"] == "fast":
            record["parameters"] |= FULL
        if record["parameters"]["device"] == "cuda":
            record["parameters"] |= {"protocol": "longer: 9 epochs a trial, not 5", "trials": 6, "epochs": 9}
    rows = experiment_numbers.ours(every)
    assert experiment_numbers.gains([row for row in rows if row["device"] == "cpu"]) == []
    assert experiment_numbers.ratios(rows) == []
    result = write_report([made.write(every, tmp_path / "a.jsonl")], tmp_path / "r.html")
    assert "experiments" not in told(result)["gain"]["numbers"] and told(result)["gain"]["missing"]
    assert "Not compared: CPU and GPU at 44 settings" in chapter((tmp_path / "r.html").read_text(), "experiments")
    assert "measured, but not alike" in told(result)["gpu"]["text"]


def test_only_the_same_threads_are_compared(tmp_path):
    one, two = made.environment("Test GPU"), made.environment("Test GPU")
    one["torch_threads"] = 1
    slow, quick = made.experiments(one, ("cpu", "cuda")), made.experiments(two, ("cpu", "cuda"), scale=0.1)
    side = lambda found, name, value: [r for r in found if r["parameters"][name] == value]  # noqa: E731
    mixed = side(slow, "pipeline", "original") + side(quick, "pipeline", "fast")
    rows = experiment_numbers.ours(gather.latest(mixed))
    assert experiment_numbers.gains(rows) == [] and len(experiment_numbers.ratios(rows)) == 44
    found = told(write_report([made.write(mixed, tmp_path / "a.jsonl")], tmp_path / "r.html"))
    assert "the original and the fast pipeline at 11 settings" in found["gain"]["text"]
    # The last run of a case does not hide the one with other threads, and the story takes most threads.
    both = quick + slow
    gains = experiment_numbers.gains(experiment_numbers.ours(gather.latest(both)))
    assert {gain["threads"] for gain in gains} == {1, 2} and len(gains) == 88
    assert all(3 < gain["ratio"] < 5 for gain in gains), "scales cancel where both sides have the same"
    found = told(write_report([made.write(both, tmp_path / "a.jsonl")], tmp_path / "r.html"))
    assert found["gain"]["numbers"]["experiments_threads"] == 2 and "with 2 threads it is" in found["gain"]["text"]
    assert found["gpu"]["numbers"]["fast_threads"] == 2 and "as fast as the CPU with 2 threads" in found["gpu"]["text"]


def test_ladders_of_different_threads_stay_apart(tmp_path):
    one = made.environment("Test GPU")
    one["torch_threads"] = 1
    two = made.environment("Test GPU")
    every = [*made.ladder(two), *made.ladder(one, scale=2), *made.ladder(one, "cuda", 0.01)]
    kept = gather.latest(every)
    assert len(kept) == len(every)
    assert [key[4] for key in ladder_numbers.ladders(kept)] == [2, 1, 1]
    sentences = " ".join(ladder_numbers.sentences([*every[:7], *every[14:]]))
    assert "not compared" in sentences and "threads 2 and 1" in sentences and "the GPU is" not in sentences
    result = write_report([made.write(every, tmp_path / "a.jsonl")], tmp_path / "r.html")
    assert told(result)["gain"]["numbers"]["threads"] == 2
    text = chapter((tmp_path / "r.html").read_text(), "ladder")
    assert text.count("8,192 clips, 2 threads</h3>") == 1 and text.count("8,192 clips, 1 thread</h3>") == 2


def test_different_commits_are_said(tmp_path):
    whole = made.write(made.everything(), tmp_path / "whole.jsonl")
    assert "commit" not in told(write_report([whole], tmp_path / "r.html"))["gain"]["text"]
    every = made.everything("Test GPU")
    for record in every:
        record["fingerprint"] = "same"
        fast, rung = record["parameters"].get("pipeline") == "fast", record["parameters"].get("rung", 0)
        if fast or rung == 6:
            record["environment"] = {**record["environment"], "commit": "feedface" * 5}
    result = write_report([made.write(every, tmp_path / "a.jsonl")], tmp_path / "r.html")
    note = "Measured at different commits (0123456, feedfac); threads, versions, clips and the code that was timed are"
    assert told(result)["gain"]["text"].count(note) == 1
    page = (tmp_path / "r.html").read_text()
    assert note in chapter(page, "experiments") and note in chapter(page, "ladder")
    # CPU and GPU of one pipeline were measured at one commit; the GPU's ladder was not.
    rows = experiment_numbers.ours([record for record in every if record["name"].startswith("experiment")])
    assert not any(ratio["note"] for ratio in experiment_numbers.ratios(rows))
    assert pairing.note([("a", "x"), ("a", "y")]).startswith("Measured with different code")
    assert pairing.note([("a", "x"), ("b", "y")]) == "Measured at different commits (a, b)."


@pytest.mark.parametrize("words", ["short: 1 epoch a trial, not 5", "longer: 9 epochs a trial, not 5; 8 trials, not 6"])
def test_what_differs_from_the_protocol_is_said_in_the_records_words(tmp_path, words):
    every = made.experiments(made.environment("Test GPU"), ("cpu", "cuda"))
    for record in every:
        record["parameters"]["protocol"] = words
    found = told(write_report([made.write(every, tmp_path / "a.jsonl")], tmp_path / "r.html"))
    assert (
        f"By the original's protocol with 2 threads it is 4.0 to 4.1 times as fast ({words})." in found["gain"]["text"]
    )
    assert f"({words})" in found["gpu"]["text"] and "short runs" not in json.dumps(found)
    legend = f"ours, fast, CPU ({words.split(':')[0]} run)"
    assert legend in (tmp_path / "r.html").read_text()


def test_marks_of_fewer_clips_say_so_beside_the_published_ones(tmp_path):
    every = made.experiments(made.environment())
    for record in every:
        if record["name"] == "experiment batch-size":
            record["parameters"]["num_items"] = 512
    write_report([made.write(every, tmp_path / "a.jsonl")], tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert "ours, fast, CPU (short run of 512 clips)" in page and "ours, fast, CPU (short run)" in page
