"""A folder, a zip and a pack of the same clips are the same data set; what cannot be read is listed, not guessed."""

import multiprocessing
import pickle
import re
import struct
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.core.audio import real_files
from tests.core.sounds import NAMES, encode, make_folder, make_zip, manifest, short_wav, tone
from triadbench.core.audio.io import AudioError
from triadbench.core.constants import CLIP_SAMPLES
from triadbench.core.data.dataset import open_dataset
from triadbench.core.data.pack import pack
from triadbench.core.errors import UserError

CONTEXTS = ["spawn", *({"fork"} & set(multiprocessing.get_all_start_methods()))]


def clean_files():
    files = {f"audio/{name}": short_wav(seed) for seed, name in enumerate(NAMES)}
    files["audio_augmented_x10/piano_3_Af_d_m_45.wav"] = short_wav(9)
    files["more/piano_3_En_n_p_02_inv1.FLAC"] = encode(tone(500, 44_100, seed=5), 44_100, "FLAC")
    files["more/clips.jsonl"] = manifest({"piano_3_En_n_p_02_inv1.FLAC": "r7"})
    return files


def dirty_files():
    return clean_files() | {
        "README.md": b"# Piano Triad Dataset",
        "audio/piano_3_Af_d_m_46.wav": b"",
        "audio/piano_3_Af_d_m_47.wav": b"a text file",
        "audio/piano_3_Af_d_m_48.wav": short_wav()[:400],
        "audio/piano_3_Af_d_m_49.wav": short_wav(samples=0),
        "audio/piano_3_Af_d_m_50.flac": encode(tone(5000), format="FLAC")[:3000],
        "audio/song.wav": short_wav(),
        "audio/piano_3_Af_d_m_45 (1).wav": short_wav(),
        "audio/.DS_Store": b"x",
        ".git/piano_3_Af_d_m_51.wav": short_wav(),
        "__MACOSX/audio/._piano_3_Af_d_m_45.wav": b"x",
        "audio/Thumbs.db": b"x",
    }


SKIPPED = {
    "README.md": "not a sound",
    "audio/piano_3_Af_d_m_46.wav": "empty",
    "audio/piano_3_Af_d_m_47.wav": "not a sound file",
    "audio/piano_3_Af_d_m_48.wav": "truncated",
    "audio/piano_3_Af_d_m_49.wav": "zero length",
    "audio/song.wav": "not a name of the data set",
    "audio/piano_3_Af_d_m_45 (1).wav": "not a name of the data set",
}


def make(kind, tmp_path, files):
    folder = make_folder(tmp_path / "folder", files)
    if kind == "folder":
        return folder
    if kind == "pack":
        pack(open_dataset(folder), tmp_path / "set.pack")
        return tmp_path / "set.pack"
    method = zipfile.ZIP_STORED if kind == "stored zip" else zipfile.ZIP_DEFLATED
    return make_zip(tmp_path / "set.zip", files, method)


KINDS = ["folder", "zip", "stored zip", "pack"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_reads_the_same_clips_labels_and_recordings(kind, tmp_path):
    files = clean_files()
    dataset = open_dataset(make(kind, tmp_path, files))
    assert dataset.skipped == []
    assert [clip.member for clip in dataset.clips] == sorted(name for name in files if not name.endswith("jsonl"))
    assert len(dataset) == 6 and dataset.kind == kind.split()[-1]
    types, roots = dataset.labels()
    assert types.dtype == roots.dtype == np.int64
    assert types.tolist() == [2, 0, 0, 1, 2, 1] and roots.tolist() == [0, 4, 0, 2, 0, 8]
    assert [clip.recording for clip in dataset.clips] == [None] * 5 + ["r7"]
    first = dataset.read(0)
    assert first.dtype == np.float32 and first.shape == (CLIP_SAMPLES,)
    np.testing.assert_allclose(first[:400], tone(400, seed=0)[:, 0], atol=1 / 16384)
    assert not first[400:].any()
    np.testing.assert_array_equal(dataset.read_many([3, 0])[1], first)
    assert dataset.read_many([]).shape == (0, CLIP_SAMPLES)


@pytest.mark.parametrize("kind", KINDS)
def test_foreign_and_damaged_files_are_listed_and_skipped(kind, tmp_path):
    dataset = open_dataset(make(kind, tmp_path, dirty_files()))
    found = dict(dataset.skipped)
    assert len(found) == len(dataset.skipped)
    for member, reason in SKIPPED.items():
        assert reason in found.pop(member)
    # A FLAC cut after its header shows only when it is decoded.
    if kind == "pack":
        assert "truncated" in found.pop("audio/piano_3_Af_d_m_50.flac")
        assert len(dataset) == 6
    else:
        index = [clip.member for clip in dataset.clips].index("audio/piano_3_Af_d_m_50.flac")
        with pytest.raises(AudioError, match=r"piano_3_Af_d_m_50.flac: .*truncated"):
            dataset.read(index)
        assert len(dataset) == 7
    assert found == {}


def test_without_the_header_check_damage_shows_at_reading(tmp_path):
    dataset = open_dataset(make_folder(tmp_path, {"piano_3_Af_d_m_46.wav": b"", NAMES[0]: short_wav()}), check="none")
    assert len(dataset) == 2 and dataset.skipped == []
    assert dataset.header(0).frames == 400
    with pytest.raises(AudioError, match=r"piano_3_Af_d_m_46.wav: the file is empty"):
        dataset.read(1)


@pytest.mark.parametrize("kind", ["folder", "zip", "pack"])
@pytest.mark.parametrize("context", CONTEXTS)
def test_other_processes_and_threads_read_the_same(kind, context, tmp_path):
    dataset = open_dataset(make(kind, tmp_path, clean_files()))
    expected = [dataset.read(index) for index in range(6)]
    wanted = list(range(6)) * 20
    with ThreadPoolExecutor(8) as pool:
        for index, clip in zip(wanted, pool.map(dataset.read, wanted), strict=True):
            np.testing.assert_array_equal(clip, expected[index])
    if context == "spawn":
        copy = pickle.loads(pickle.dumps(dataset))
        assert len(pickle.dumps(dataset)) < 20_000
        for index in range(6):
            np.testing.assert_array_equal(copy.read(index), expected[index])
        return
    import os

    read_end, write_end = os.pipe()
    child = os.fork()
    good = all((dataset.read(index) == expected[index]).all() for index in wanted)
    if child == 0:
        os.write(write_end, b"y" if good else b"n")
        os._exit(0)
    os.waitpid(child, 0)
    answer = os.read(read_end, 1)
    os.close(read_end)
    os.close(write_end)
    assert good and answer == b"y"


def hostile_zip(path):
    link = zipfile.ZipInfo("piano_3_Af_d_m_03.wav")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(NAMES[0], short_wav())
        for name in ("../piano_3_Af_d_m_01.wav", "/piano_3_Af_d_m_02.wav", "C:/piano_3_Af_d_m_04.wav"):
            archive.writestr(name, short_wav())
        archive.writestr("x/y", b"")
        archive.writestr(link, b"/etc/passwd")
        archive.writestr("piano_3_Af_d_m_05.wav", short_wav(), zipfile.ZIP_BZIP2)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr(NAMES[0], short_wav(1))
    return path


def test_a_zip_with_hostile_names_gives_only_its_honest_clip(tmp_path):
    dataset = open_dataset(hostile_zip(tmp_path / "x.zip"))
    assert [clip.member for clip in dataset.clips] == [NAMES[0]]
    reasons = dict(dataset.skipped)
    assert "climbs out" in reasons["../piano_3_Af_d_m_01.wav"]
    assert "absolute" in reasons["/piano_3_Af_d_m_02.wav"] and "absolute" in reasons["C:/piano_3_Af_d_m_04.wav"]
    assert "link" in reasons["piano_3_Af_d_m_03.wav"] and "method 12" in reasons["piano_3_Af_d_m_05.wav"]
    assert "second member" in reasons[NAMES[0]]
    np.testing.assert_allclose(dataset.read(0)[:400], tone(400)[:, 0], atol=1 / 16384)


def test_a_damaged_member_is_an_audio_error(tmp_path):
    path = make_zip(tmp_path / "x.zip", {NAMES[0]: short_wav(), NAMES[1]: short_wav(1)}, zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[content.index(b"data") + 100] ^= 0xFF
    path.write_bytes(content)
    dataset = open_dataset(path)
    with pytest.raises(AudioError, match="checksum"):
        dataset.read(0)
    assert dataset.read(1).any()


def test_a_member_that_unpacks_to_more_than_it_declares_is_an_audio_error(tmp_path):
    path = make_zip(tmp_path / "x.zip", {NAMES[0]: short_wav(samples=4000), NAMES[1]: short_wav()})
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, content.index(b"PK\1\2") + 24, 8043)
    path.write_bytes(content)
    dataset = open_dataset(path)
    assert dict(dataset.skipped)[NAMES[0]].startswith("truncated") and len(dataset) == 1
    with pytest.raises(AudioError, match="size or checksum"):
        open_dataset(path, check="none").read(0)


def test_a_zip_that_changed_is_noticed_by_a_copy(tmp_path):
    path = make_zip(tmp_path / "x.zip", {NAMES[0]: short_wav()})
    pickled = pickle.dumps(open_dataset(path))
    make_zip(path, {NAMES[0]: short_wav(1), NAMES[1]: short_wav()})
    with pytest.raises(UserError, match="has changed"):
        pickle.loads(pickled)


def test_a_manifest_names_recordings_relative_to_its_folder(tmp_path):
    files = {
        f"a/{NAMES[0]}": short_wav(),
        f"b/{NAMES[0]}": short_wav(1),
        f"c/deep/{NAMES[0]}": short_wav(2),
        "a/clips.jsonl": manifest({NAMES[0]: "one", "missing.wav": "x"}),
        "clips.jsonl": manifest({f"c/deep/{NAMES[0]}": "three", f"b/{NAMES[0]}": None}) + b"\n\n",
    }
    dataset = open_dataset(make_folder(tmp_path, files))
    assert [clip.recording for clip in dataset.clips] == ["one", None, "three"]
    assert dataset.skipped == [("a/missing.wav", "named in a/clips.jsonl but not there")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "line 1 is not JSON"),
        (b'{"file": "x.wav"}\n[]', 'line 2 must be an object with "file"'),
        (b'{"file": 3}', 'must be an object with "file"'),
        (b'{"file": "x.wav", "recording": [1]}', '"recording" must be'),
        (b"\xff\xfe{}", "not UTF-8"),
        (manifest({NAMES[0]: "a"}) + b"\n" + manifest({f"./{NAMES[0]}": "b"}), "two recordings"),
    ],
)
def test_a_damaged_manifest_is_refused(content, message, tmp_path):
    with pytest.raises(UserError, match=message):
        open_dataset(make_folder(tmp_path, {NAMES[0]: short_wav(), "clips.jsonl": content}))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"no clip found; looked for \.wav.*piano_3_Af_d_m_45.wav.* 0 other files"),
        ({"a.txt": b"", "song.wav": b""}, r"2 other files skipped \(the first: a.txt: not a sound"),
        ({"x/set.zip": b""}, "to read x/set.zip, give its own path"),
    ],
)
def test_an_empty_data_set_says_what_was_looked_for(files, message, tmp_path):
    with pytest.raises(UserError, match=message):
        open_dataset(make_folder(tmp_path, files))
    with pytest.raises(UserError, match=message):
        open_dataset(make_zip(tmp_path.with_suffix(".zip"), files))


def test_what_is_no_data_set_is_refused(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        open_dataset(tmp_path / "missing")
    (tmp_path / "x.wav").write_bytes(short_wav())
    with pytest.raises(UserError, match="not a zip that can be read"):
        open_dataset(tmp_path / "x.wav")
    path = make_zip(tmp_path / "x.zip", {NAMES[0]: short_wav()})
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match="not a zip that can be read"):
        open_dataset(path)


def test_folders_behind_links_are_entered_once(tmp_path):
    make_folder(tmp_path / "set", {f"a/{NAMES[0]}": short_wav()})
    make_folder(tmp_path / "far", {NAMES[1]: short_wav()})
    (tmp_path / "set" / "b").symlink_to(tmp_path / "far")
    (tmp_path / "set" / "a" / "loop").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "gone.wav").symlink_to(tmp_path / "nowhere")
    dataset = open_dataset(tmp_path / "set")
    assert [clip.member for clip in dataset.clips] == [f"a/{NAMES[0]}", f"b/{NAMES[1]}"]
    assert dataset.skipped == [("gone.wav", "broken link or not a plain file")]


def test_the_digest_follows_names_sizes_and_recordings(tmp_path):
    files = clean_files()
    digests = {open_dataset(make_folder(tmp_path / "a", files)).digest()}
    assert open_dataset(make_folder(tmp_path / "b", files)).digest() in digests
    for change in (
        {"piano_3_Af_d_m_00.wav": short_wav()},
        {f"audio/{NAMES[0]}": short_wav(samples=401)},
        {"more/clips.jsonl": b""},
    ):
        digests.add(open_dataset(make_folder(tmp_path / f"c{len(digests)}", files | change)).digest())
    assert len(digests) == 4


def test_progress_counts_every_file(tmp_path):
    seen = []
    files = {f"piano_3_Af_d_m_{number}.wav": short_wav() for number in range(600)}
    open_dataset(make_folder(tmp_path, files), progress=lambda *at: seen.append(at))
    assert seen == [(256, 600), (512, 600), (600, 600)]


def test_kinds_of_files_that_are_no_whole_sound_are_skipped_with_the_reason(tmp_path):
    kinds = {f"piano_3_Af_d_m_{k}.wav": kind for k, kind in enumerate(real_files.KINDS.values())}
    dataset = open_dataset(make_folder(tmp_path, {name: kind.make() for name, kind in kinds.items()}))
    skipped = dict(dataset.skipped)
    for name, kind in kinds.items():
        if name in skipped:
            assert kind.reason is not None and re.search(kind.reason, skipped[name]), (name, skipped[name])
    for index, clip in enumerate(dataset.clips):  # damage that no header shows is found by reading
        if kinds[clip.member].reason is None:
            assert dataset.read(index).any() and dataset.header(index).sample_rate > 0
        else:
            with pytest.raises(AudioError, match=kinds[clip.member].reason):
                dataset.read(index)
