"""The list of files is cut once; a run is known again, and another's is refused."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from triadbench.core.errors import UserError
from triadbench.export.cluster.destination import CHORDS, Destination

RUN = {"model": "chordnet 0123456789ab", "version": "0.1.0", "timeline": False}


def files(*ids):
    return pa.table({"id": list(ids), "path": [f"/x/{id}".encode() for id in ids]})


def row(id, error=None):
    return {"id": id, "path": f"/x/{id}", "model": RUN["model"], "error": error, "name": "C", "windows": 1}


@pytest.fixture(params=["folder", "bucket"])
def out(request, tmp_path):
    if request.param == "folder":
        return str(tmp_path / "rows")
    request.getfixturevalue("s3")
    return f"s3://music/{tmp_path.name}"


def begin(there, table, size=4):
    return there.write_plan(there.plan(table, RUN), RUN, size)


def test_an_interrupted_run_has_the_same_parts_and_new_files_come_behind(out):
    there = Destination(out)
    table = begin(there, files(*"abcdefghij"))
    assert table["part"].to_pylist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2] and there.parts() == set()
    there.write_part(1, [row(id, "bad" if id == "f" else None) for id in "efgh"], CHORDS, {"seconds": 1.5})
    again = begin(Destination(out), files(*"zyxabcdefghij"), size=2)
    assert again["id"].to_pylist() == [*"abcdefghijzyx"] and again["part"].to_pylist()[-5:] == [2, 2, 3, 3, 4]
    assert there.parts() == {1} and there.count() == (4, 4, 1) and there.statistics() == {1: {"seconds": 1.5}}
    assert begin(Destination(out), files("a")).equals(again), "what SOURCE has no longer stays"


def test_an_id_may_come_with_another_path(out):
    begin(Destination(out), files(*"abc"))
    moved = pa.table({"id": ["b", "d"], "path": [b"/y/b", b"/y/d"]})
    assert begin(Destination(out), moved)["path"].to_pylist() == [b"/x/a", b"/y/b", b"/x/c", b"/y/d"]


@pytest.mark.parametrize("name", ["_run.json", "_files.arrow"])
@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe"])
def test_a_damaged_run_is_one_line(out, name, content):
    begin(Destination(out), files("a"))
    Destination(out).write(name, content)
    with pytest.raises(UserError, match="damaged|cannot be used") as caught:
        Destination(out).plan(files("a"), RUN)
    assert "\n" not in str(caught.value)


def test_places_that_are_none(s3):
    with pytest.raises(UserError, match="there is no bucket nobucket"):
        Destination("s3://nobucket/rows").plan(files("a"), RUN)
    with pytest.raises(UserError, match="--out has no name"):
        Destination(" ")


def test_files_behind_a_list_of_one_part(out):
    begin(Destination(out), files("a"))
    assert begin(Destination(out), files("b"))["part"].to_pylist() == [0, 1]


def test_a_run_that_was_killed_before_its_list_was_written_begins_anew(out):
    there = Destination(out)
    there.write("_run.json", json.dumps(RUN).encode())
    assert begin(there, files(*"abc"), size=2)["part"].to_pylist() == [0, 0, 1]


@pytest.mark.parametrize("change", [{"model": "chordnet fff"}, {"version": "0.2.0"}, {"timeline": True}])
def test_another_runs_destination_is_refused(out, change):
    begin(Destination(out), files("a"))
    before = Destination(out).names()
    (key,) = change
    with pytest.raises(UserError, match=f"another run is here .*its {key} is .*choose another --out"):
        Destination(out).plan(files("a"), RUN | change)
    assert Destination(out).names() == before


def test_a_folder_of_other_things_is_refused(out):
    Destination(out).write("thesis.docx", b"x")
    with pytest.raises(UserError, match="other files are here, as thesis.docx; choose a new folder"):
        Destination(out).plan(files("a"), RUN)


def test_a_plan_writes_nothing(out):
    Destination(out).plan(files("a"), RUN)
    assert Destination(out).names() == []


def test_attempts_are_kept_until_the_part_is_done_or_another_run_begins(out):
    there = Destination(out)
    assert there.read_attempts(7) == []
    for number in (7, 8):
        there.write_attempts(number, ["", "/x/a"])
    assert Destination(out).read_attempts(7) == ["", "/x/a"]
    there.write_part(7, [row("a")], CHORDS, {})
    assert there.read_attempts(7) == [] and sorted(there.names()) == ["_attempts-000008.json", "part-000007.parquet"]
    there.write("_run.json", json.dumps(RUN).encode())
    begin(there, files("a"))
    assert there.read_attempts(8) == []
