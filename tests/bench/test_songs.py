"""Songs are scored as mir_eval scores them: a perfect timeline gets 1, a wrong one what it deserves, and records load."""

import numpy as np
import pytest

from tests.commands import assert_one_line, run, run_json
from tests.export.instruments import small_piano
from triadbench.bench import records, songs
from triadbench.core.models.spelling import harte
from triadbench.core.render.progressions import plan_progression, truth
from triadbench.export.songs.timeline import Segment, Timeline

pytest.importorskip("mir_eval")


def timeline(rows):
    segments = [Segment(a, b, chord, None, None, None, chord, harte(chord), None, None) for a, b, chord in rows]
    return Timeline(segments, segments[-1].end_s, None, None, None, [None] * len(segments), [], {})


TRUTH = (np.array([[0.0, 1.0], [1.0, 3.0], [3.0, 5.0], [5.0, 6.0]]), ["N", "C", "Adim", "Faug"])


def test_perfect():
    score = songs.compare(*TRUTH, timeline([(0, 1, "N"), (1, 3, "C"), (3, 5, "Adim"), (5, 6, "Faug")]))
    assert [score[key] for key in ("triads", "root", "segmentation")] == pytest.approx([1, 1, 1])
    assert max(score["change_errors_s"]) == 0
    assert all(right == n for right, n in score["hits"].values())
    assert set(score["hits"]) == {"no chord", "major", "diminished", "augmented"}


def test_spelling_does_not_count():
    truth = np.array([[0.0, 2.0], [2.0, 4.0]]), ["Gbm", "C#"]
    score = songs.compare(*truth, timeline([(0, 2, "F#m"), (2, 4, "Db")]))
    assert score["triads"] == pytest.approx(1) and score["segmentation"] == pytest.approx(1)
    assert all(right == n for right, n in score["hits"].values())


def test_diminished_and_augmented_count():
    score = songs.compare(*TRUTH, timeline([(0, 1, "N"), (1, 3, "C"), (3, 5, "Am"), (5, 6, "F")]))
    assert score["triads"] == pytest.approx(3 / 6) and score["root"] == pytest.approx(1)
    assert score["hits"]["diminished"][0] == 0


def test_late_changes():
    score = songs.compare(*TRUTH, timeline([(0, 1.3, "N"), (1.3, 3, "C"), (3, 5, "Adim"), (5, 6, "Faug")]))
    assert score["triads"] == pytest.approx(5.7 / 6) and score["change_errors_s"][0] == pytest.approx(0.3)


@pytest.fixture
def perfect(monkeypatch):
    """Songs by a small piano, each with its true timeline."""

    def true_timeline(file, predictor, name):
        plan = plan_progression(int(name.split()[1]), bars=2)
        intervals, symbols = truth(plan)
        return timeline([(a, b, s) for (a, b), s in zip(intervals, symbols, strict=True)])

    monkeypatch.setattr(songs, "bank_for", lambda source, cache: source)
    monkeypatch.setattr(songs, "NoteBank", type("N", (), {"load": staticmethod(lambda path: small_piano())}))
    monkeypatch.setattr(songs, "find_timeline", true_timeline)
    monkeypatch.setattr(songs.machine, "environment", lambda: {"cpu": "any"})


def test_rows_and_records(perfect, tmp_path):
    steps = []
    rows = songs.score_songs(["any"], None, songs=3, bars=2, seed=4, degraded=True, progress=lambda *a: steps.append(a))
    assert rows[0]["triads"] == pytest.approx(1) and rows[0]["triads_interval"] == pytest.approx([1, 1])
    assert steps[-1] == (3, 3)
    records.append_all(songs.to_records(rows, {"seed": 4}), tmp_path / "r.jsonl")
    [record], problems = records.load(tmp_path / "r.jsonl")
    assert record["samples"] == pytest.approx([1, 1, 1]) and record["unit"] == "recall" and not problems
    assert record["parameters"] == {"instrument": "small piano", "degraded": True, "seed": 4}
    assert len(songs.table(rows)[0]) == len(songs.HEADERS)


def test_the_command_prints_and_records_both_ways(perfect, tmp_path):
    options = ["evaluate-songs", "-i", "any", "--songs", 2, "--bars", 2, "--records", tmp_path / "r.jsonl"]
    result, _ = run_json(*options)
    assert [row["degraded"] for row in result["rows"]] == [False, True] and result["bars"] == 2
    lines = run(*options, "--degraded").stdout.splitlines()
    assert lines[0].startswith("instrument") and lines[2].startswith("small piano, degraded")
    written, problems = records.load(tmp_path / "r.jsonl")
    assert [record["parameters"]["model"] for record in written] == ["shipped"] * 3 and not problems


def test_the_command_refuses_a_checkpoint():
    assert_one_line(run("evaluate-songs", "--model", "x.safetensors", code=1), "x.safetensors", "`export`")
