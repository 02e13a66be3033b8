"""Bulk recognition on Ray: the answers of `infer`, one row an id, whatever is killed meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pandas
import pytest
import soundfile

from tests.commands import assert_one_line
from tests.export.cluster.conftest import free_port, is_open, s3_server, sound, thirty_kinds
from triadbench.core.files import only_one
from triadbench.export.cluster.destination import LOCK

ROOT = Path(__file__).resolve().parents[3]
N = 6000
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked for in /proc")


def command(*arguments):
    return [sys.executable, "cli.py", *map(str, arguments)]


def infer_bulk(*arguments, code=0):
    done = subprocess.run(command("infer-bulk", *arguments), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def by_infer(folder) -> dict[str, dict]:
    done = subprocess.run(command("infer", folder, "--jsonl"), cwd=ROOT, capture_output=True, text=True)
    results = map(json.loads, done.stdout.splitlines())
    return {result["file"]: result for result in results}


def rows(out) -> list[dict]:
    return duckdb.sql(f"select * from '{out}/*.parquet' order by id").to_arrow_table().to_pylist()


def assert_as_infer(out, expected: dict[str, dict]):
    found = rows(out)
    assert [row["id"] for row in found] == sorted(expected), "every id once"
    for row in found:
        wanted = expected[row["id"]]
        assert row["path"] == wanted["file"]
        for key in ("name", "label", "bass", "chord", "root", "type", "windows", "duration_s", "note", "error"):
            assert row[key] == wanted.get(key), (row["id"], key)
        for key in ("label_confidence", "confidence", "type_confidence", "root_confidence", "agreement"):
            assert row[key] == pytest.approx(wanted.get(key), abs=1e-4), (row["id"], key)


@pytest.fixture(scope="module")
def done(sounds, tmp_path_factory):
    out = tmp_path_factory.mktemp("done") / "rows"
    return out, infer_bulk(sounds, "--out", out, code=1)


def test_the_rows_are_what_infer_says(done, sounds):
    out, result = done
    assert_as_infer(out, by_infer(sounds))
    assert_one_line(subprocess.CompletedProcess([], 1, "", result.stderr.splitlines(True)[-1]), "2 of 27 files failed")
    assert "25 of 27 files recognised" in result.stdout and "Dashboard: http://127.0.0.1" in result.stderr
    assert len(pandas.read_parquet(out)) == 27, "pandas reads the folder as well"


def test_nothing_is_left_to_do_and_what_is_new_is_added(done, sounds, tmp_path):
    out, _ = done
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    again = infer_bulk(sounds, "--out", out, "--json", code=1)
    assert json.loads(again.stdout) == {
        "out": str(out),
        "files": 27,
        "kept": 27,
        "model": rows(out)[0]["model"],
        "failed": 2,
    }
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_songs(tmp_path):
    import numpy as np

    for n in range(2):
        soundfile.write(tmp_path / f"{n}.wav", np.concatenate([sound(n + k) for k in range(4)]), 16_000)
    (tmp_path / "bad.wav").write_text("x")
    infer_bulk(tmp_path, "--out", tmp_path / "rows", "--timeline", code=1)
    one = subprocess.run(command("infer", tmp_path / "1.wav", "--timeline", "--json"), cwd=ROOT, capture_output=True)
    expected = json.loads(one.stdout)["results"][0]
    _, found, bad = rows(tmp_path / "rows")
    assert "not a sound file" in bad["error"]
    assert [s["name"] for s in found["segments"]] == [s["name"] for s in expected["segments"]]
    assert found["key"] == expected["key"] and found["duration_s"] == expected["duration_s"]
    assert [list(beat.values()) for beat in found["beats"]] == expected["beats"]

    (tmp_path / "bad.wav").write_bytes((tmp_path / "1.wav").read_bytes())
    assert "2 of 3 files recognised" in infer_bulk(tmp_path, "--out", tmp_path / "rows", "--timeline", code=1).stdout
    infer_bulk(tmp_path, "--out", tmp_path / "rows", "--timeline", "--retry")
    _, found, mended = rows(tmp_path / "rows")
    assert mended["segments"] == found["segments"] and mended["error"] is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gone"], ("gone does not exist",)),
        (["SOUNDS", "--address", "127.0.0.1:9"], ("--address 127.0.0.1:9", "ray start --head")),
        (["SOUNDS", "--address", "ray://127.0.0.1:9"], ("ray://127.0.0.1:9", "ray start --head")),
        (["SOUNDS", "--provider", "cuda"], ("provider cuda", "--provider cpu")),
        (["SOUNDS", "--out", "SOUNDS/notes.txt"], ("notes.txt",)),
        (["SOUNDS", "--out", "SOUNDS"], ("other files are here",)),
    ],
    ids=["source", "no ray", "no server", "no gpu", "out is a file", "out is full"],
)
def test_wrong_places_are_one_line(sounds, tmp_path, arguments, words):
    arguments = [argument.replace("SOUNDS", str(sounds)) for argument in arguments]
    out = [] if "--out" in arguments else ["--out", tmp_path / "rows"]
    assert_one_line(infer_bulk(*arguments, *out, code=1), *words)
    assert not (tmp_path / "rows").exists() and not list(sounds.glob("*lock*"))


def test_two_at_once(sounds, tmp_path):
    with only_one(tmp_path / "rows", name=LOCK):
        assert_one_line(infer_bulk(sounds, "--out", tmp_path / "rows", code=1), "rows: another run is at work here")


@LINUX
@pytest.mark.slow
@pytest.mark.parametrize("after_s", [1.0, 3.0, 5.0, 7.0, 9.0])
def test_a_command_that_is_told_to_end(many, tmp_path, after_s):
    place, expected = many
    driver = subprocess.Popen(
        command("infer-bulk", place, "--out", tmp_path / "rows"), cwd=ROOT, stderr=subprocess.PIPE
    )
    time.sleep(after_s)
    below = children(driver.pid)
    driver.terminate()
    said = driver.communicate(timeout=60)[1].decode()
    assert driver.returncode == 130 and "Traceback" not in said and "Interrupted" in said
    wait_for(lambda: not any(Path(f"/proc/{process}").exists() for process in below), 30)
    infer_bulk(place, "--out", tmp_path / "rows")
    assert_as_infer(tmp_path / "rows", expected)


def through_s3(s3, tmp_path, n_good):
    """Good files and thirty bad ones through a bucket; expected rows are those of `infer` on a copy."""
    copy, kinds = tmp_path / "copy", thirty_kinds()
    copy.mkdir()
    for name, content in kinds.items():
        (copy / name).write_bytes(content)
    for n in range(n_good):
        soundfile.write(copy / f"good-{n:04}.wav", sound(n % 48), 16_000)
    prefix = tmp_path.name
    for path in copy.iterdir():
        s3.put_object(Bucket="music", Key=f"{prefix}/{path.name}", Body=path.read_bytes())
    infer_bulk(f"s3://music/{prefix}", "--out", f"s3://music/rows-{prefix}", code=1)
    there = s3.get_paginator("list_objects_v2").paginate(Bucket="music", Prefix=f"rows-{prefix}/part")
    for page in there:
        for entry in page["Contents"]:
            s3.download_file("music", entry["Key"], str(tmp_path / entry["Key"].rpartition("/")[2]))
    moved = json.loads(json.dumps(by_infer(copy)).replace(f"{copy}/", f"s3://music/{prefix}/"))
    expected = {row["file"]: row for row in moved.values()}
    assert_as_infer(tmp_path, expected)
    bad = {f"s3://music/{prefix}/{name}" for name in kinds}
    assert {row["id"] for row in rows(tmp_path) if row["error"]} == bad


def test_thirty_kinds_of_bad_files_through_s3(s3, tmp_path):
    through_s3(s3, tmp_path, 20)


@pytest.mark.slow
def test_a_thousand_files_through_s3(s3, tmp_path):
    through_s3(s3, tmp_path, 970)


def children(driver: int) -> list[int]:
    """Processes below a driver."""
    found = [driver]
    for process in found:
        for thread in Path("/proc").glob(f"{process}/task/*/children"):
            with contextlib.suppress(OSError):
                found += map(int, thread.read_text().split())
    return found[1:]


def workers(driver: int) -> list[int]:
    """Processes below a driver that are actors."""
    found = []
    for process in children(driver):
        with contextlib.suppress(OSError):  # it has ended
            if b"MapWorker" in Path(f"/proc/{process}/cmdline").read_bytes():
                found.append(process)
    return found


def parts(out) -> int:
    return len(list(Path(out).glob("part*"))) if Path(out).exists() else 0


def wait_for(condition, seconds=120):
    end = time.time() + seconds
    while not (value := condition()):
        assert time.time() < end
        time.sleep(0.05)
    return value


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A list of many files, all of them of 12 sounds, with what `infer` says of these."""
    folder = tmp_path_factory.mktemp("many")
    for n in range(12):
        soundfile.write(folder / f"{n}.wav", sound(n), 16_000)
    place = folder / "many.csv"
    place.write_text("id,path\n" + "".join(f"{n:04},{n % 12}.wav\n" for n in range(N)))
    answers = by_infer(folder)
    return place, {f"{n:04}": answers[str(folder / f"{n % 12}.wav")] for n in range(N)}


@LINUX
@pytest.mark.slow
def test_actors_that_are_killed_ten_times(many, tmp_path):
    place, expected = many
    driver = subprocess.Popen(
        command("infer-bulk", place, "--out", tmp_path / "rows"), cwd=ROOT, stdout=subprocess.PIPE
    )
    for n in range(10):
        wait_for(lambda n=n: parts(tmp_path / "rows") >= min(n // 2, 6) and workers(driver.pid))
        os.kill(random.choice(wait_for(lambda: workers(driver.pid))), signal.SIGKILL)
    said = driver.communicate(timeout=300)[0].decode()
    assert driver.returncode == 0 and len(said.splitlines()) == 2, "Ray's talk is not among the results"
    assert_as_infer(tmp_path / "rows", expected)


@LINUX
@pytest.mark.slow
def test_a_driver_that_is_killed_five_times(many, tmp_path):
    place, expected = many
    for n in range(5):
        driver = subprocess.Popen(command("infer-bulk", place, "--out", tmp_path / "rows"), cwd=ROOT)
        wait_for(lambda n=n, driver=driver: parts(tmp_path / "rows") > n or driver.poll() is not None)
        driver.kill()
        driver.wait()
    infer_bulk(place, "--out", tmp_path / "rows")
    assert_as_infer(tmp_path / "rows", expected)


@pytest.mark.slow
def test_a_machine_that_is_lost(many, tmp_path):
    """Two nodes of one core each; one of them goes in the middle."""
    from ray.cluster_utils import Cluster

    place, expected = many
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        second = cluster.add_node(num_cpus=1)
        arguments = command("infer-bulk", place, "--out", tmp_path / "rows", "--address", cluster.address)
        driver = subprocess.Popen(arguments, cwd=ROOT)
        wait_for(lambda: parts(tmp_path / "rows") >= 2)
        cluster.remove_node(second, allow_graceful=False)
        assert driver.wait(300) == 0
    finally:
        cluster.shutdown()
    assert_as_infer(tmp_path / "rows", expected)


@LINUX
@pytest.mark.slow
def test_a_file_that_ends_its_reader_is_a_row_and_the_run_goes_on(tmp_path):
    """A named pipe keeps its reader waiting; here whoever reads it is killed."""
    for n in range(3):
        soundfile.write(tmp_path / f"{n}.wav", sound(n), 16_000)
    os.mkfifo(tmp_path / "pipe.wav")
    place, out = tmp_path / "list.txt", tmp_path / "rows"
    place.write_text("0.wav\n1.wav\n2.wav\npipe.wav\n")
    driver = subprocess.Popen(command("infer-bulk", place, "--out", out), cwd=ROOT)
    killed = 0
    while driver.poll() is None:
        # Whoever has begun with the pipe is killed, and the next one once it has begun.
        attempts = [json.loads(file.read_text()) for file in out.glob("_attempts-*")]
        careful = attempts and len(attempts[0]) > 3 and attempts[0][-1] == ""  # it is about to say at what it is
        if parts(out) == 3 and attempts and len(attempts[0]) > killed and not careful:
            for worker in workers(driver.pid):
                os.kill(worker, signal.SIGKILL)
            killed += 1
        time.sleep(0.2)
    assert driver.wait() == 1 and killed == 5
    *good, bad = rows(out)
    assert [row["error"] for row in good] == [None] * 3 and "twice the process that read it was killed" in bad["error"]


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(many, tmp_path):
    place, expected = many
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("no disk can be mounted here")
    try:
        failed = infer_bulk(place, "--out", disk / "rows", code=1)
        assert "No space left on device" in failed.stderr.splitlines()[-1]
        subprocess.run(["mount", "-o", "remount,size=20m", disk], check=True)
        infer_bulk(place, "--out", disk / "rows")
        assert_as_infer(disk / "rows", expected)
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.slow
def test_a_bucket_that_is_lost_ends_the_run_in_one_line_without_rows_for_it(many, tmp_path, monkeypatch):
    place, expected = many
    with s3_server() as (client, server, variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        client.create_bucket(Bucket="far")
        for n in range(12):
            client.upload_file(str(place.parent / f"{n}.wav"), "far", f"{n}.wav")
        far = tmp_path / "far.csv"
        far.write_text("id,path\n" + "".join(f"{n:04},s3://far/{n % 12}.wav\n" for n in range(N)))
        driver = subprocess.Popen(
            command("infer-bulk", far, "--out", tmp_path / "rows"), cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        wait_for(lambda: parts(tmp_path / "rows") >= 1)
        server.kill()
        _, said = driver.communicate(timeout=300)
    assert driver.returncode == 1 and "Traceback" not in said
    assert "no answer" in said.splitlines()[-1] and "the same command goes on" in said.splitlines()[-1]
    assert all(row["error"] is None for row in rows(tmp_path / "rows"))


@pytest.mark.slow
def test_a_cluster_behind_ray_client(many, tmp_path):
    place, expected = many
    gcs, client = free_port(), free_port()
    ray = Path(sys.executable).with_name("ray")
    options = [f"--port={gcs}", f"--ray-client-server-port={client}", "--num-cpus=2", "--include-dashboard=false"]
    head = subprocess.Popen([ray, "start", "--head", "--block", *options], start_new_session=True)
    try:
        wait_for(lambda: is_open(client))
        infer_bulk(place, "--out", tmp_path / "rows", "--address", f"ray://127.0.0.1:{client}")
    finally:
        os.killpg(head.pid, signal.SIGTERM)
        head.wait(60)
    assert_as_infer(tmp_path / "rows", expected)
