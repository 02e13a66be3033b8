"""Records are only appended, survive a killed writer, and a bad line is named by its number."""

from __future__ import annotations

import json

import pytest

from triadbench.bench import records
from triadbench.core.errors import UserError


def make(**changes) -> dict:
    given = {"parameters": {"batch": 1}, "unit": "ms", "samples": [1.0, 2.5], "environment": {"cpu": "x"}}
    return records.make("mel", **{**given, **changes})


def test_round_trip_keeps_every_sample(tmp_path):
    path = tmp_path / "new" / "records.jsonl"
    first, second = make(first_call=7.0, flops=10), make(error={"peak_relative": 1e-7})
    records.append(first, path)
    records.append(second, path)
    assert records.load(path) == ([first, second], [])


def test_a_killed_writers_half_line_is_reported_and_stepped_over(tmp_path):
    path = tmp_path / "records.jsonl"
    records.append(make(), path)
    before = path.read_bytes()
    path.write_bytes(before + before[:40])
    loaded, problems = records.load(path)
    assert len(loaded) == 1 and len(problems) == 1 and problems[0].startswith("records.jsonl:2: not JSON")
    records.append(make(), path)
    assert path.read_bytes().startswith(before + before[:40]), "nothing that was written is edited"
    loaded, problems = records.load(path)
    assert len(loaded) == 2 and len(problems) == 1


def test_what_was_never_a_record_is_no_half_line(tmp_path):
    (tmp_path / "sound.wav").write_bytes(b"RIFF\x24\x00\x00\x00WAVE")
    (problem,) = records.load(tmp_path / "sound.wav")[1]
    assert "not JSON" in problem and "half line" not in problem


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("[]", "JSON object"),
        ("{}", "'schema' is missing"),
        (json.dumps(make() | {"samples": ["1"]}), "not a number"),
        (json.dumps(make() | {"unit": 3}), "'unit' is a int"),
        (json.dumps(make() | {"schema": 99}), "newer"),
        (json.dumps(make() | {"samples": [float("nan")]}), "NaN"),
    ],
    ids=["list", "empty", "text sample", "unit", "future schema", "nan"],
)
def test_bad_lines_are_left_out_with_number_and_reason(tmp_path, line, reason):
    path = tmp_path / "r.jsonl"
    path.write_text(f"\n{line}\n{json.dumps(make())}\n")
    loaded, problems = records.load(path)
    assert len(loaded) == 1
    assert len(problems) == 1 and problems[0].startswith("r.jsonl:2:") and reason in problems[0]


def test_nan_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError):
        records.append(make(samples=[float("nan")]), tmp_path / "r.jsonl")
    assert not (tmp_path / "r.jsonl").exists()


def test_unwritable_and_missing_files_are_user_errors(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot append"):
        records.append(make(), tmp_path / "file" / "r.jsonl")
    with pytest.raises(UserError, match="cannot read records"):
        records.load(tmp_path / "none.jsonl")
