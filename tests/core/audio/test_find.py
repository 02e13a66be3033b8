"""Which files a user's paths name: sorted, none hidden, none twice, and what cannot be used stays in the list."""

import os

import pytest

from triadbench.core.audio import io as find_audio
from triadbench.core.audio.io import find_files


@pytest.fixture
def folder(tmp_path):
    for name in ("b.wav", "a.FLAC", "deep/er/c.ogg", "deep/d.mp3", "notes.txt", ".hidden.wav", "._b.wav", ".git/x.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "bundle.wav").mkdir()
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_find_files(folder):
    found = find_files([folder / "missing.wav", folder, folder / "notes.txt", folder / "empty", "-"])
    wanted = ["missing.wav", "a.FLAC", "b.wav", "deep/d.mp3", "deep/er/c.ogg", "notes.txt", "empty"]
    assert found == [*(str(folder / name) for name in wanted), "-"]


def test_the_folder_at_hand(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert find_files(["."]) == ["a.FLAC", "b.wav", "deep/d.mp3", "deep/er/c.ogg"]
    assert find_files(["deep/", "./-"]) == ["deep/d.mp3", "deep/er/c.ogg", "./-"]
    assert find_files([".git"]) == [".git/x.wav"]  # asked for by name


def test_links_are_followed_and_loops_are_not(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "z.wav").write_bytes(b"")
    try:
        (folder / "deep" / "back").symlink_to(folder, target_is_directory=True)
        (folder / "empty" / "other").symlink_to(elsewhere, target_is_directory=True)
        (folder / "empty" / "same").symlink_to(elsewhere, target_is_directory=True)
        (folder / "self.wav").symlink_to(folder / "self.wav")
    except OSError:
        pytest.skip("this file system has no links")
    found = [os.path.relpath(file, folder) for file in find_files([folder])]
    assert found == ["a.FLAC", "b.wav", "deep/d.mp3", "deep/er/c.ogg", "empty/other/z.wav"]


def test_very_deep_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(400):
        os.mkdir("d")
        os.chdir("d")
    open("x.wav", "wb").close()
    os.chdir(tmp_path)
    assert find_files(["d"]) == ["d/" * 400 + "x.wav"]


def test_a_folder_that_cannot_be_read_is_reported(folder, monkeypatch):
    inner = os.scandir

    def refuse(path):
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied")
        return inner(path)

    monkeypatch.setattr(find_audio.os, "scandir", refuse)
    assert [os.path.relpath(file, folder) for file in find_files([folder])] == ["a.FLAC", "b.wav", "deep"]
