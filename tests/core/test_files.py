"""Files appear whole or not at all; checksums are those of the bytes."""

import errno
import hashlib
import os

import pytest

from triadbench.core.errors import UserError
from triadbench.core.files import atomic_path, file_digest, model_name, model_stem, only_one, only_writer
from triadbench.kernels import object_cache


def test_a_file_appears_when_the_block_succeeds(tmp_path):
    target = tmp_path / "new" / "report.html"
    with atomic_path(target) as temporary:
        assert temporary.name == target.name and temporary.parent.parent == target.parent
        temporary.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert list(target.parent.iterdir()) == [target]


def test_after_an_error_the_old_file_stays_and_nothing_else(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_appears_whole_and_leaves_nothing_after_an_error(tmp_path):
    with atomic_path(tmp_path / "set", directory=True) as folder:
        (folder / "x").write_text("x")
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["x"]
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "other", directory=True) as folder:
        (folder / "x").write_text("x")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_an_empty_folder_is_replaced_and_a_full_one_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with atomic_path(tmp_path / "empty", directory=True) as folder:
        (folder / "x").touch()
    assert (tmp_path / "empty" / "x").exists()
    with pytest.raises(UserError, match="not empty"), atomic_path(tmp_path / "empty", directory=True):
        pytest.fail("entered")


def test_places_that_cannot_be_written_are_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot make this folder"), atomic_path(tmp_path / "file" / "x"):
        pytest.fail("entered")
    with pytest.raises(UserError, match="is a folder"), atomic_path(tmp_path):
        pytest.fail("entered")


def test_digest_is_the_one_of_the_bytes_and_reports_progress(tmp_path):
    content = bytes(range(256)) * 5000
    (tmp_path / "x").write_bytes(content)
    seen = []
    assert file_digest(tmp_path / "x", "md5", lambda *at: seen.append(at)) == hashlib.md5(content).hexdigest()
    assert seen[-1] == (len(content), len(content))


def test_one_process_at_a_time(tmp_path):
    pytest.importorskip("fcntl")
    with only_writer(tmp_path / "r.jsonl"), only_writer(tmp_path / "other.jsonl"):
        with pytest.raises(
            UserError, match="r.jsonl: another run is at work with these records; wait for it or choose"
        ):
            with only_writer(tmp_path / "r.jsonl"):
                pytest.fail("held twice")
    with only_writer(tmp_path / "r.jsonl"), only_one(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_was_removed_is_none(tmp_path):
    """Two processes could hold it otherwise: the one that waited for the old file, and one that made a new file."""
    fcntl = pytest.importorskip("fcntl")
    flock = fcntl.flock

    def removed_meanwhile(file, how):
        (tmp_path / "lock").unlink()
        flock(file, how)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(UserError, match="another run is at work"):
        patch.setattr(fcntl, "flock", removed_meanwhile)
        with only_one(tmp_path):
            pytest.fail("held a lock that is not there")


def test_a_disk_without_locks_refuses_no_run(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(pytest.importorskip("fcntl"), "flock", refuse)
    with only_one(tmp_path / "run"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@pytest.mark.parametrize("umask", [0o077, 0o027, 0o022, 0o002])
def test_the_umask_decides_who_may_read(tmp_path, umask):
    before = os.umask(umask)
    try:
        with atomic_path(tmp_path / "file") as temporary:
            temporary.unlink()  # as some writers do, who make the file anew for its owner alone
            os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
        with atomic_path(tmp_path / "folder", directory=True) as temporary:
            (temporary / "x").touch()
        object_cache.write(tmp_path / "code", b"code")
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    finally:
        os.umask(before)
    plain = 0o666 & ~umask
    assert modes == {"file": plain, "folder": 0o777 & ~umask, "x": plain, "code": plain}


def test_what_a_model_of_two_files_is_called():
    assert (model_name("a/type.pth"), model_stem("a/type.pth")) == ("type.pth", "type")
    pair = ("a/type.pth", "b/root.pth")
    assert model_name(pair) == "type.pth + root.pth" and model_stem(pair) == model_stem(pair[::-1]) == "root-type"
    pair = ("a/type/best.safetensors", "a/root/best.safetensors")
    assert model_name(pair) == "type/best.safetensors + root/best.safetensors" and model_stem(pair) == "best"
