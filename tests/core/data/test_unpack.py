"""A hostile or damaged archive is refused before or while it is unpacked, and leaves nothing anywhere."""

import struct
import zipfile

import pytest

from tests.core.sounds import NAMES, make_zip, short_wav
from triadbench.core.data.unpack import safe_unpack
from triadbench.core.errors import UserError


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def entry(name, mode=0):
    info = zipfile.ZipInfo(name)
    info.filename = name
    info.external_attr = mode << 16
    return info


def test_an_honest_archive_unpacks_with_progress(tmp_path):
    files = {f"audio/{name}": short_wav(seed) for seed, name in enumerate(NAMES)} | {"README.md": b"x", "empty/": b""}
    seen = []
    count = safe_unpack(make_zip(tmp_path / "x.zip", files), tmp_path / "out", lambda *at: seen.append(at))
    assert count == 5
    assert names(tmp_path / "out") == sorted(["audio", "empty", "README.md", *(f"audio/{name}" for name in NAMES)])
    for name, content in files.items():
        if content:
            assert (tmp_path / "out" / name).read_bytes() == content
    total = sum(map(len, files.values()))
    assert seen[-1] == (total, total) and seen == sorted(seen)


HOSTILE = {
    "climbs": ([entry("../evil.wav")], "climbs out"),
    "climbs inside": ([entry("a/../../evil.wav")], "climbs out"),
    "absolute": ([entry("/tmp/evil.wav")], "absolute"),
    "drive": ([entry("C:/evil.wav")], "absolute"),
    "drive without slash": ([entry("C:evil.wav")], "absolute"),
    "stream": ([entry("a.wav:evil")], "colon"),
    "backslash": ([entry("..\\evil.wav")], "backslash"),
    "control character": ([entry("a\nb.wav")], "control character"),
    "dot": ([entry("./a.wav")], "empty part"),
    "double slash": ([entry("a//b.wav")], "empty part"),
    "only spaces": ([entry(" /b.wav")], "empty part"),
    "link": ([entry("link", 0o120777)], "link or device"),
    "device": ([entry("null", 0o020666)], "link or device"),
    "pipe": ([entry("pipe", 0o010666)], "link or device"),
    "twice": ([entry("a.wav"), entry("a.wav")], "second member"),
    "twice but for case": ([entry("a.wav"), entry("A.WAV")], "second member"),
    "twice but for accents": ([entry("\u00e9.wav"), entry("e\u0301.wav")], "second member"),
    "file that is a folder": ([entry("a"), entry("a/b")], "a file is also a folder"),
    "folder that is a file": ([entry("a/b"), entry("a")], "second member"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_names_are_refused_and_nothing_is_left(case, tmp_path):
    members, message = HOSTILE[case]
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("honest.wav", b"x")
        for member in members:
            archive.writestr(member, b"evil")
    with pytest.raises(UserError, match=f"refused, member .*{message}.*nothing was unpacked"):
        safe_unpack(tmp_path / "x.zip", tmp_path / "deep" / "out")
    assert names(tmp_path) == ["x.zip"]


def test_a_bomb_is_refused_by_its_directory(tmp_path):
    make_zip(tmp_path / "x.zip", {f"{number}.wav": bytes(10 << 20) for number in range(7)})
    with pytest.raises(UserError, match=r"bytes would unpack to 73400320 \(at most .* 100 times"):
        safe_unpack(tmp_path / "x.zip", tmp_path / "out")
    with pytest.raises(UserError, match="would unpack to"):
        safe_unpack(tmp_path / "x.zip", tmp_path / "out", max_ratio=1e9, max_bytes=70_000_000)
    assert names(tmp_path) == ["x.zip"]
    assert safe_unpack(tmp_path / "x.zip", tmp_path / "out", max_ratio=1e9) == 7


def test_a_bomb_that_lies_about_its_size_is_stopped(tmp_path):
    path = make_zip(tmp_path / "x.zip", {"a.wav": short_wav(), "b.wav": bytes(10 << 20)})
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\1\2")
    struct.pack_into("<I", content, at + 24, 1000)
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged or not a zip"):
        safe_unpack(path, tmp_path / "out")
    assert names(tmp_path) == ["x.zip"]


def test_members_that_overlap_are_refused(tmp_path):
    path = make_zip(tmp_path / "x.zip", {f"{number}.wav": short_wav(number) for number in range(3)})
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\1\2")
    struct.pack_into("<I", content, at + 20, len(content))
    path.write_bytes(content)
    with pytest.raises(UserError, match="overlap"):
        safe_unpack(path, tmp_path / "out")
    assert names(tmp_path) == ["x.zip"]


def test_damage_met_midway_leaves_nothing(tmp_path):
    path = make_zip(tmp_path / "x.zip", {name: short_wav(seed) for seed, name in enumerate(NAMES)}, zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[content.rindex(b"data") + 50] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(UserError, match="Bad CRC"):
        safe_unpack(path, tmp_path / "out")
    assert names(tmp_path) == ["x.zip"]


@pytest.mark.parametrize("content", [b"", b"text" * 100, None])
def test_what_is_no_zip_is_refused(content, tmp_path):
    if content is not None:
        (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(UserError, match="does not exist" if content is None else "not a zip"):
        safe_unpack(tmp_path / "x.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_encrypted_member_and_a_taken_place_are_refused(tmp_path):
    path = make_zip(tmp_path / "x.zip", {"a.wav": short_wav()})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(UserError, match="not empty"):
        safe_unpack(path, tmp_path / "out")
    assert names(tmp_path / "out") == ["mine"]
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="encrypted"):
        safe_unpack(path, tmp_path / "new")
