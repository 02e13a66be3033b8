"""The plan for a million songs is plain arithmetic of what was measured; infer-bulk that answers otherwise is no record."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
import soundfile

from tests.commands import assert_one_line, run
from tests.core.toys import chord
from triadbench.bench import bulk, records
from triadbench.core.constants import SAMPLE_RATE
from triadbench.core.errors import UserError

ROOT = Path(__file__).resolve().parents[2]

PART = {"files": 10, "failed": 1, "bytes": 8_000_000, "sound_s": 400.0, "seconds": 2.0, "memory_bytes": 5e8}
RECORD = {
    "samples": [5.0, 4.0, 6.0],
    "infer_s": [4.0, 4.5, 5.0],
    "start_s": [6.0],
    "memory_bytes": 1.5e9,
    "dispatch_s": 0.01,
    "parts": [PART] * 4,
    "parameters": {"files": 40, "timeline": True, "cores": 2},
}
"""40 songs of 40 s: 8 s of one core for 1,600 s of sound, 20 kB a second of it."""


def test_a_million_songs():
    plan = bulk.plan(RECORD, songs=1_000_000, minutes=4.0, cores=16, gbit=10.0)
    assert plan["core_s"] == pytest.approx(1.2) and plan["core_hours"] == pytest.approx(1e6 * 1.2 / 3600)
    assert plan["bytes"] == pytest.approx(1e6 * 240 * 20e3)
    assert plan["limits"] == {
        "network": pytest.approx(10 / (8e-9 * 4.8e6 / 1.2)),
        "requests": pytest.approx(5500 / 2 * 1.2),
        "parts": pytest.approx(32 * 1.2 / 0.01),
    }
    one, ten, hundred, thousand = plan["machines"]
    for row, n in ((one, 1), (ten, 10), (hundred, 100)):
        duration_s = 1e6 * 1.2 / (16 * n) + 32 * 1.2
        assert row == {
            "machines": n,
            "hours": pytest.approx(duration_s / 3600),
            "gbit": pytest.approx(8e-9 * 1e6 * 4.8e6 / duration_s),
            "limit": None,
        }
    assert thousand["limit"] == "parts" and thousand["hours"] == pytest.approx(1e6 / 15 * 0.01 / 3600)


def test_what_ends_the_scaling():
    by_network = bulk.plan(RECORD, 1_000_000, 4.0, cores=16, gbit=0.16)["machines"][0]
    assert by_network["limit"] == "network" and by_network["gbit"] == pytest.approx(0.16, rel=1e-3)
    clips = RECORD | {"parameters": {"timeline": False}}
    by_requests = bulk.plan(clips, 10_000_000, 4.0, cores=16, gbit=10.0)["machines"][-1]
    assert by_requests["limit"] == "requests" and by_requests["hours"] == pytest.approx(1e7 * 2 / 5500 / 3600)


def test_few_songs_keep_few_cores_at_work():
    plan = bulk.plan(RECORD, 100, 4.0, cores=16, gbit=10.0)
    assert plan["machines"][-1]["hours"] == pytest.approx((1.2 + 1.2) / 3600)
    assert plan["limits"]["parts"] == pytest.approx((100 * 1.2 / 0.01 / 4) ** 0.5)


def test_nothing_to_plan_by():
    with pytest.raises(UserError, match="no file could be read"):
        bulk.plan(RECORD | {"parts": [PART | {"sound_s": 0.0}]}, 1, 4.0, 16, 10.0)


def test_findings():
    first, second, third = bulk.findings(RECORD)
    assert first.startswith("40 songs on 2 cores: 8.0 a second by infer-bulk, 8.9 by infer (90 %)")
    assert "5.0 songs a second, 200 times real time, 4.0 MB/s read, at most 500 MB" in second
    assert third == "Start 6.0 s; memory of all processes 1.50 GB; Ray hands out a part in 10 ms."


def test_other_answers_than_infers_are_no_record(monkeypatch):
    monkeypatch.setattr(bulk, "_infer", lambda files, timeline: (["C", "G"], 1.0))
    monkeypatch.setattr(bulk, "_rows", lambda folder: {"a": "C", "b": "Em"})
    monkeypatch.setattr(bulk, "_watched_memory", contextlib.nullcontext)
    monkeypatch.setattr(bulk, "recognise", lambda files, out, timeline: {"out": out})
    with pytest.raises(UserError, match="infer-bulk and infer disagree on 1 files, such as b"):
        bulk.measure(pa.table({"id": ["a", "b"], "path": [b"/a", b"/b"]}), False, 1, lambda done, total: None)


def test_the_command_measures_and_plans(tmp_path):
    for n in range(4):
        soundfile.write(tmp_path / f"{n}.wav", chord(n, n), SAMPLE_RATE)
    (tmp_path / "bad.wav").write_text("la la la")
    for_songs = ("--minutes", "3", "--records", tmp_path / "records.jsonl")
    command = [sys.executable, "cli.py", "plan-bulk", tmp_path, "--rounds", "1", *for_songs]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (
        "1,000,000 files, named by one chord each, of 3 minutes" in done.stdout
        and "the answers are the same" in done.stdout
    )
    (record,), problems = records.load(tmp_path / "records.jsonl")
    assert not problems and [sum(part[key] for part in record["parts"]) for key in ("files", "failed")] == [5, 1]
    assert 1e8 < record["memory_bytes"] < 1e11 and 0 < record["dispatch_s"] < 1
    assert run("plan-bulk", *for_songs).stdout == done.stdout, "planned again from the record"
    assert_one_line(run("plan-bulk", "--timeline", *for_songs, code=1), "no record of songs")
    assert_one_line(run("plan-bulk", "--records", tmp_path / "none.jsonl", code=1), "none.jsonl", "give SOURCE")
