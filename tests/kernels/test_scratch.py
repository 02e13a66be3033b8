"""Scratch folders never stay behind: not after an error, and after SIGKILL only until the next one is made there."""

import os
import subprocess
import sys
import threading

import pytest

from triadbench.kernels import scratch
from triadbench.kernels.scratch import scratch_folder

fcntl = pytest.importorskip("fcntl", reason="needs locks on folders")
HOLD = """
import sys, time
from pathlib import Path
from triadbench.kernels.scratch import scratch_folder
with scratch_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("half")
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def a_new_process():
    """Each process sweeps a place once."""
    scratch._sweep.cache_clear()


def holder(place):
    """A process that writes in `place`."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, place], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def end(process):
    process.kill()
    process.stdout.close()
    process.wait()


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_it_goes_with_its_block(tmp_path, error):
    try:
        with scratch_folder(tmp_path) as folder:
            (folder / "below").mkdir()
            (folder / "below" / "x").touch()
            assert folder.parent == tmp_path and folder.name.startswith(".") and folder.stat().st_mode & 0o077 == 0
            if error:
                raise error
    except (RuntimeError, KeyboardInterrupt):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_swept_and_what_a_living_one_writes_stays(tmp_path):
    living, dead = holder(tmp_path), holder(tmp_path)
    try:
        end(dead)
        assert len(list(tmp_path.glob(".*/half"))) == 2
        with scratch_folder(tmp_path):
            (kept,) = tmp_path.glob(".*/half")
            assert living.poll() is None and kept.read_text() == "half"
    finally:
        end(living)
    scratch._sweep.cache_clear()
    with scratch_folder(tmp_path):
        assert not list(tmp_path.glob(".*/half"))
    assert list(tmp_path.iterdir()) == []


def test_nothing_else_is_swept(tmp_path):
    names = [".triadbench-abcdefgh", "triadbench-results", ".triadbench-abcdefg.scratch", "triadbench-x.scratch.old"]
    for name in names:
        (tmp_path / name).mkdir()
    (tmp_path / ".triadbench-12345678.scratch").write_text("a file")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x").touch()
    (tmp_path / ".triadbench-23456789.scratch").symlink_to(tmp_path / "elsewhere")
    before = sorted(tmp_path.rglob("*"))
    with scratch_folder(tmp_path):
        pass
    assert sorted(tmp_path.rglob("*")) == before


def test_folders_of_other_users_stay(tmp_path, monkeypatch):
    (tmp_path / ".triadbench-abcdefgh.scratch").mkdir()
    ours = os.geteuid()
    monkeypatch.setattr(scratch.os, "geteuid", lambda: ours + 1)
    with scratch_folder(tmp_path):
        assert (tmp_path / ".triadbench-abcdefgh.scratch").is_dir()


def test_a_sweep_that_comes_before_the_lock(tmp_path, monkeypatch):
    """The folder is made anew."""
    lock, calls = scratch._lock, []

    def swept_first(folder, wait):
        calls.append(folder)
        if len(calls) == 1:
            folder.rmdir()
        return lock(folder, wait)

    monkeypatch.setattr(scratch, "_lock", swept_first)
    with scratch_folder(tmp_path) as folder:
        assert folder.is_dir() and len(calls) == 2


def test_without_locks_nothing_is_swept(tmp_path, monkeypatch):
    (tmp_path / ".triadbench-abcdefgh.scratch").mkdir()

    def refuse(*_):
        raise OSError("no locks on this disk")

    monkeypatch.setattr(scratch.fcntl, "flock", refuse)
    with scratch_folder(tmp_path) as folder:
        assert folder.is_dir() and (tmp_path / ".triadbench-abcdefgh.scratch").is_dir()
    assert not folder.exists()


def test_threads_have_folders_of_their_own(tmp_path):
    seen, meet = [], threading.Barrier(8)

    def work():
        meet.wait(10)
        with scratch_folder(tmp_path) as folder:
            seen.append(folder)
            meet.wait(10)
            assert folder.is_dir()
            meet.wait(10)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(seen)) == 8 and list(tmp_path.iterdir()) == []
