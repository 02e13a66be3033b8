"""Songs are scored as mir_eval scores them: a perfect timeline gets 1, a wrong one what it deserves, and records load."""

import numpy as np
import pytest

from tests.export.instruments import small_piano
from triadbench.bench import records, songs
from triadbench.core.render.progressions import plan_progression, truth
from triadbench.export.songs.timeline import Segment, Timeline

pytest.importorskip("mir_eval")


def heard(rows):
    segments = [Segment(a, b, chord, None, None, None) for a, b, chord in rows]
    return Timeline(segments, segments[-1].end_s, None, None, None, [None] * len(segments), [], {})


TRUTH = (np.array([[0.0, 1.0], [1.0, 3.0], [3.0, 5.0], [5.0, 6.0]]), ["N", "C", "Adim", "Faug"])


def test_perfect():
    score = songs.compare(*TRUTH, heard([(0, 1, "N"), (1, 3, "C"), (3, 5, "Adim"), (5, 6, "Faug")]))
    assert [score[key] for key in ("triads", "root", "segmentation")] == pytest.approx([1, 1, 1])
    assert max(score["change_errors_s"]) == 0
    assert all(right == n for right, n in score["hits"].values()) and set(score["hits"]) == {
        "no chord",
        "major",
        "diminished",
        "augmented",
    }


def test_diminished_and_augmented_count():
    score = songs.compare(*TRUTH, heard([(0, 1, "N"), (1, 3, "C"), (3, 5, "Am"), (5, 6, "F")]))
    assert score["triads"] == pytest.approx(3 / 6) and score["root"] == pytest.approx(1)
    assert score["hits"]["diminished"][0] == 0


def test_late_changes():
    score = songs.compare(*TRUTH, heard([(0, 1.3, "N"), (1.3, 3, "C"), (3, 5, "Adim"), (5, 6, "Faug")]))
    assert score["triads"] == pytest.approx(5.7 / 6) and score["change_errors_s"][0] == pytest.approx(0.3)


def test_rows_and_records(monkeypatch, tmp_path):
    monkeypatch.setattr(songs, "bank_for", lambda source, cache: source)
    monkeypatch.setattr(songs, "NoteBank", type("N", (), {"load": staticmethod(lambda path: small_piano())}))

    def perfect(file, predictor, name):
        plan = plan_progression(int(name.split()[1]), bars=2)
        intervals, symbols = truth(plan)
        return heard([(a, b, s) for (a, b), s in zip(intervals, symbols, strict=True)])

    monkeypatch.setattr(songs, "find_timeline", perfect)
    monkeypatch.setattr(songs.machine, "environment", lambda: {"cpu": "any"})
    told = []
    rows = songs.score_songs(["any"], None, songs=3, bars=2, seed=4, degraded=True, progress=lambda *a: told.append(a))
    assert (
        rows[0]["triads"] == pytest.approx(1)
        and rows[0]["triads_interval"] == pytest.approx([1, 1])
        and told[-1] == (3, 3)
    )
    records.append_all(songs.to_records(rows, {"seed": 4}), tmp_path / "r.jsonl")
    [record], problems = records.load(tmp_path / "r.jsonl")
    assert record["samples"] == pytest.approx([1, 1, 1]) and record["unit"] == "recall" and not problems
    assert record["parameters"] == {"instrument": "small piano", "degraded": True, "seed": 4}
    assert len(songs.table(rows)[0]) == len(songs.HEADERS)
