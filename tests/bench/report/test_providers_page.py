"""The page of `benchmark` holds every number of its records, and broken records are told."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.bench import report_records as made
from tests.bench.benchmark_records import everything
from triadbench.bench.analysis import findings, providers
from triadbench.bench.analysis.summary import number
from triadbench.bench.report import providers_page
from triadbench.bench.report.report import write_report


def test_the_page_holds_every_number_of_the_records():
    records = everything()
    text = re.sub(r"<[^>]+>", "|", re.sub(r"<script>.*?</script>", "", providers_page.chapter(records), flags=re.S))
    shown = set(text.split("|"))
    for one in records:
        if one["name"] == "benchmark single stream":
            stats = providers.statistics(one["samples"])
            assert {number(value) for key, value in stats.items() if key != "n"} | {"1,024", "77.7", "1.2e-07"} <= shown
        elif one["name"] == "benchmark offline":
            assert number(1e3 * one["parameters"]["batch"] / np.median(one["samples"])) in shown
        elif one["name"] in ("benchmark files", "benchmark process"):
            assert {number(np.median(one["samples"])), number(one["first_call"])} <= shown
    assert {"123", "9.87", "3.21", "36.5", "102", "2.90"} <= shown
    assert "no &lt;GPU&gt;" in shown and "GPU: not measured, and so no crossover between CPU and GPU." in shown


def test_a_gpus_crossover_and_energy_are_shown():
    page = providers_page.chapter(everything("Test GPU"))
    assert "from batch 8 on" in page and "circle-open" in page and "Energy of the whole GPU" in page
    assert "<td>1,000</td>" in page, "3 J a clip in three calls of one batch are 1,000 mJ"


def test_report_and_story_have_the_chapter(tmp_path):
    records = everything()
    result = write_report([made.write(records, tmp_path / "a.jsonl")], tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    assert result["problems"] == [] and '<section id="providers"' in text and '<section id="other"' not in text
    told = {sentence["key"]: sentence for sentence in result["machines"][0]["story"]}["providers"]
    best = max((row for row in providers.rows(records) if row["over_eager"]), key=lambda row: row["over_eager"])
    assert told["numbers"]["over_eager"] == best["over_eager"] and told["numbers"]["p99_ms"] == best["single"]["p99"]
    assert told["numbers"]["files_ratio"] == pytest.approx(6.72 / 1.12) and "6.0 times as fast" in told["text"]
    assert number(best["over_eager"], 2) in told["text"]
    missing = {sentence["key"]: sentence for sentence in findings.tell([], False)}["providers"]
    assert missing["missing"] == "python cli.py benchmark" and missing["numbers"] == {}


@pytest.mark.parametrize("field", ["parameters", "environment", "runs"])
def test_a_broken_record_is_told_and_the_report_stands(tmp_path, field):
    records = everything()
    for one in records:
        if field in one:
            one[field] = {} if isinstance(one[field], dict) else [{}]
    result = write_report([made.write(records, tmp_path / "a.jsonl")], tmp_path / "r.html")
    assert (tmp_path / "r.html").is_file() and (result["problems"] or field == "environment")


def test_where_nothing_was_measured_there_is_still_a_page():
    assert "Nothing was measured." in providers_page.page([])
    page = providers_page.page(everything())
    assert "What a prediction costs" in page and "Test CPU" in page and 'id="providers-latency"' in page
