"""Two sets of records side by side: a change is one only beyond the noise of both, and never of a disturbed timing."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from tests.bench import report_records as made
from triadbench import cli
from triadbench.bench import records
from triadbench.bench.analysis import compare


def timing(name, samples, **more):
    cores = more.pop("cores", 2)
    environment = made.environment() | {"cores_usable": cores}
    parameters = {"batch": 1, "threads": more.pop("threads", cores)}
    return records.make(name, parameters=parameters, unit="ms", samples=samples, environment=environment, **more)


STEADY = [10.0, 10.1, 9.9, 10.0, 10.2]


def scaled(factor):
    return [factor * sample for sample in STEADY]


def test_a_change_is_beyond_the_noise_of_both():
    ours = [timing("halved", scaled(0.5)), timing("same", STEADY), timing("slower", scaled(1.5))]
    ours += [timing("noisy", [5.0, 9.0, 14.0]), timing("disturbed", scaled(0.1), disturbed=True)]
    ours += [timing("once", [1.0]), timing("alone", STEADY)]
    others = [timing(name, STEADY) for name in ("halved", "same", "slower", "noisy", "disturbed", "once", "gone")]
    rows = compare.compare(ours, others)
    found = {row["name"]: row for row in rows}
    verdicts = {name: row["verdict"] for name, row in found.items()}
    assert verdicts == {
        "halved": "faster",
        "slower": "slower",
        "same": "within noise",
        "noisy": "within noise",
        "disturbed": "disturbed",
        "once": "fewer than 3 samples",
    }
    assert rows[0]["name"] == "halved"
    assert found["halved"]["ratio"] == pytest.approx(2) and found["halved"]["low"] < 2 < found["halved"]["high"]
    assert found["disturbed"]["ratio"] is None and found["once"]["ratio"] is None


def test_all_cores_of_two_machines_are_one_case_and_other_thread_counts_are_not():
    rows = compare.compare([timing("x", STEADY, cores=16)], [timing("x", STEADY, cores=2)])
    assert len(rows) == 1 and "all threads" in rows[0]["case"]
    rows = compare.compare([timing("x", STEADY, cores=16, threads=4)], [timing("x", STEADY, cores=2)])
    assert rows == []


def run(*arguments):
    return CliRunner().invoke(cli.main, ["report", *map(str, arguments)])


def test_the_command_writes_a_page_of_what_changed(tmp_path):
    ours = made.write([timing("<halved>", scaled(0.5)), timing("same", STEADY)], tmp_path / "new.jsonl")
    other = made.write([timing("<halved>", STEADY), timing("same", STEADY)], tmp_path / "old.jsonl")
    done = run(ours, "--compare", other, "--out", tmp_path / "r.html")
    assert done.exit_code == 0, done.output
    assert "Of 2 timings 1 are faster and 0 slower" in done.stdout and "2.00 times as fast" in done.stdout
    page = (tmp_path / "r.html").read_text()
    assert "&lt;halved&gt;" in page and "<halved>" not in page and "not measured in turns" in page
    result = json.loads(run(ours, "--compare", other, "--out", tmp_path / "r.html", "--json").stdout)
    assert [row["verdict"] for row in result["rows"]] == ["faster", "within noise"]


def test_nothing_in_common_and_wrong_usage(tmp_path):
    one = made.write([timing("x", STEADY)], tmp_path / "a.jsonl")
    another = made.write([timing("y", STEADY)], tmp_path / "b.jsonl")
    done = run(one, "--compare", another, "--out", tmp_path / "r.html")
    assert done.exit_code == 0 and "the two have no timing in common" in done.stdout
    rehearsed = timing("x", STEADY)
    rehearsed["environment"]["rehearsal"] = True
    empty = made.write([rehearsed], tmp_path / "c.jsonl")
    failed = run(one, "--compare", empty, "--out", tmp_path / "s.html")
    assert failed.exit_code == 1 and "nothing to compare" in failed.stderr and not (tmp_path / "s.html").exists()
    assert run(one, "--compare", one, "--pictures", tmp_path, "--out", tmp_path / "r.html").exit_code == 2
