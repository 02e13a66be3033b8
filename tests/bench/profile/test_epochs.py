"""The chapter of an epoch's parts: real epochs of both pipelines, checked before they are timed, drawn from records."""

from __future__ import annotations

import json
import re

import pytest

from tests.bench import report_records as made
from triadbench.bench import records
from triadbench.bench.profile import epochs
from triadbench.bench.report import figures, pipeline_page, profile_page
from triadbench.bench.report.report import write_report
from triadbench.core.constants import EPOCH_PARTS

COSTS = {
    "original": [0.08, 0.02, 0.1, 0.0, 0.2, 0.5, 0.04, 0.04, 0.02],
    "fast": [0, 0, 0, 0, 0.1, 0.2, 0.04, 0.04, 0.02],
}
"""Seconds of each part, in their order: 1 s and 0.4 s."""


def make(pipeline: str, **more) -> dict:
    """An epoch of 100 clips whose clock adds a quarter: 0.8 s without it for the original, 0.32 s for the fast."""
    parts = dict(zip(EPOCH_PARTS, COSTS[pipeline], strict=True))
    total = sum(parts.values())
    return (
        records.make(
            epochs.NAME,
            parameters={"pipeline": pipeline, "device": "cpu", "task": "type", "batch_size": 32, "num_items": 143},
            unit="s",
            samples=[0.8 * total] * 3,
            first_call=2 * total,
            environment=made.environment(),
            error={"reference": "the original", "max_difference": 1.5e-7, "allowed": 0.02},
            n_clips=100,
            prepared_s=0.25 if pipeline == "fast" else 0.0,
            parts=parts,
            instrumented_s=total,
            overhead=1.25,
            other_cores=0.0,
            disturbed=False,
        )
        | more
    )


BOTH = [make("original"), make("fast")]


def bars(page: str) -> dict[str, list[float]]:
    """{part: milliseconds a clip of each bar} of the picture."""
    source = re.search(r'data-plot="pipeline0-parts">(.*?)</script>', page).group(1)
    drawn = json.loads(source)["figure"]
    assert all(bar["y"] == ["original", "fast"] and bar["orientation"] == "h" for bar in drawn["data"])
    assert drawn["layout"]["barmode"] == "stack"
    return {bar["name"]: bar["x"] for bar in drawn["data"]}


@pytest.fixture(scope="module")
def measured():
    seen = []
    found = epochs.run_parts(
        made.environment(),
        clips=12,
        batch_size=4,
        rounds=2,
        progress=lambda done, total: seen.append((done, total)),
    )
    return found, seen


def test_both_pipelines_are_split_into_all_parts(measured):
    found, seen = measured
    assert [record["parameters"]["pipeline"] for record in found] == ["original", "fast"]
    for record in found:
        assert set(record["parts"]) == set(EPOCH_PARTS) and record["n_clips"] == 9 and len(record["samples"]) == 2
        assert sum(record["parts"].values()) == pytest.approx(record["instrumented_s"])
        assert record["error"]["max_difference"] < epochs.LOSS_TOLERANCE
        assert record["overhead"] > 0 and record["parameters"]["threads"] >= 1 and json.dumps(record)
    original, fast = (record["parts"] for record in found)
    assert min(original[part] for part in ("reading", "mel", "forward", "backward", "optimizer")) > 0
    assert fast["mel"] == 0, "its features were computed in the first epoch"
    assert found[1]["prepared_s"] > 0 and found[0]["prepared_s"] == 0
    assert seen == [(count, 10) for count in range(1, 11)]


def test_time_that_is_over_ends_the_rounds():
    found = epochs.run_parts(made.environment(), clips=8, batch_size=4, rounds=50, max_time_s=0.0)
    assert all(len(record["samples"]) == 1 and record["parts"] for record in found)


@pytest.mark.parametrize(
    ("fast", "told"), [([1.38, 1.5], "differ by 0.1 "), ([1.38], "inf"), ([1.38, float("nan")], "inf")]
)
def test_other_losses_are_not_timed(fast, told):
    with pytest.raises(RuntimeError, match=told):
        epochs.check_losses([1.38, 1.4], fast)
    assert epochs.check_losses([1.38, 1.4], [1.38, 1.41]) == pytest.approx(0.01)


def test_bars_and_table_are_the_shares_of_the_epochs_without_a_clock():
    page = pipeline_page.chapter(BOTH)
    found = bars(page)
    assert list(found) == list(EPOCH_PARTS)
    for index, part in enumerate(EPOCH_PARTS):
        # 0.8 of the instrumented seconds, over 100 clips.
        assert found[part] == pytest.approx([8 * COSTS["original"][index], 8 * COSTS["fast"][index]])
    table = page[page.index("Milliseconds a training clip</caption>") :]
    assert "<td>backward</td><td>4.000</td><td>50.0 %</td><td>1.600</td><td>50.0 %</td>" in table
    assert "<td>reading</td><td>0.640</td><td>8.0 %</td><td>0</td><td>0.0 %</td>" in table
    assert "<td><b>together</b></td><td>8.000</td><td>100.0 %</td><td>3.200</td><td>100.0 %</td>" in table
    assert page.index('"pipeline0-parts"') < page.index("Milliseconds a training clip</caption>"), "the table is below"
    assert "+25 %" in page and "1.5e-07" in page and ", 2 threads</h3>" in page


def test_every_part_has_a_colour_of_its_own_and_a_hatching_or_a_neighbour_without():
    assert set(figures.PARTS) == set(EPOCH_PARTS) and len(set(figures.PARTS.values())) == len(EPOCH_PARTS)
    assert "hovertemplate" in pipeline_page.chapter(BOTH)


def test_findings_state_the_gain_and_what_was_not_alike():
    sentences = pipeline_page.findings(BOTH)
    assert sentences[0].startswith("CPU with 2 threads, original pipeline: 8") and "backward 50 %" in sentences[0]
    assert "2.5" in sentences[-1] and "commit" not in sentences[-1]
    other = make("fast", environment={**made.environment(), "commit": "feedface" * 5})
    assert "different commits (0123456, feedfac)" in pipeline_page.findings([BOTH[0], other])[-1]
    one = make("fast", environment={**made.environment(), "torch_threads": 1})
    assert not any("times as fast" in sentence for sentence in pipeline_page.findings([BOTH[0], one]))
    disturbed = pipeline_page.findings([make("original", disturbed=True), BOTH[1]])
    assert "(disturbed)" in disturbed[0] and "not compared" in disturbed[-1] and "times as fast" not in disturbed[-1]
    assert pipeline_page.chapter([]) == pipeline_page.chapter([make("fast", parts=None)]) == ""


def test_profile_and_report_have_the_chapter(tmp_path):
    page = profile_page.page({"pipeline": BOTH})
    assert '<section id="pipeline"' in page and bars(page)["mel"] == pytest.approx([0.8, 0.0])
    result = write_report([made.write(BOTH, tmp_path / "a.jsonl")], tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert result["problems"] == [] and '<section id="pipeline"' in page and '<section id="other"' not in page
    assert bars(page)["backward"] == pytest.approx([4.0, 1.6])
    result = write_report([made.write(made.everything(), tmp_path / "a.jsonl")], tmp_path / "r.html")
    assert any("profile --only pipeline" in line for line in result["machines"][0]["missing"])
