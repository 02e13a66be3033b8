"""Amplifier copies: names, grouping, and the same bytes from the same seed whatever the number of processes.
Worse recordings: every clip once, under its name, the same bytes for the same seed."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.core.sounds import encode, make_folder, tone
from triadbench.core.audio.io import write_wav
from triadbench.core.data import copies as module
from triadbench.core.data.copies import amplify_set, copy_names, degrade_set, pack_with_copies, recording_of
from triadbench.core.data.dataset import Clip, open_dataset
from triadbench.core.errors import UserError
from triadbench.core.models.chords import ClipName

NAMES = ["piano_3_Af_d_m_45", "piano_3_Af_d_m_46", "piano_4_Cn_j_f_01"]


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        write_wav(folder / f"{name}.wav", 0.5 * np.sin(np.arange(64_000, dtype=np.float32) * 0.05 * (number + 1)))
    (folder / "clips.jsonl").write_text('{"file": "piano_3_Af_d_m_45.wav", "recording": "r1"}\n')
    return folder


def everything(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_copies_are_named_grouped_and_listed(source, tmp_path):
    result = amplify_set(source, tmp_path / "out", seed=3, jobs=1)
    assert (result["n"], result["skipped"]) == (3, [])
    copies = open_dataset(tmp_path / "out")
    assert [clip.member for clip in copies.clips] == [
        "shred___Af_d__000.wav",
        "shred___Af_d__001.wav",
        "shred___Cn_j__000.wav",
    ]
    assert copies.clips[0].recording == "r1"
    lines = [json.loads(line) for line in (tmp_path / "out" / "clips.jsonl").read_text().splitlines()]
    assert [line["source"] for line in lines] == [f"{name}.wav" for name in NAMES]
    assert not np.array_equal(copies.read(0), open_dataset(source).read(0)), "the amplifier changes the sound"


def test_same_seed_same_bytes_and_another_seed_other_bytes(source, tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        amplify_set(source, tmp_path / name, seed=seed, jobs=1)
    assert everything(tmp_path / "a") == everything(tmp_path / "b")
    assert everything(tmp_path / "a")["shred___Af_d__000.wav"] != everything(tmp_path / "c")["shred___Af_d__000.wav"]


def test_processes_do_not_change_the_bytes(source, tmp_path, monkeypatch):
    amplify_set(source, tmp_path / "one", seed=3, jobs=1)
    monkeypatch.setattr(module, "_CHUNK", 1)
    amplify_set(source, tmp_path / "two", seed=3, jobs=2)
    assert everything(tmp_path / "one") == everything(tmp_path / "two")


def test_without_a_manifest_what_may_be_one_recording_is_one():
    clips = [Clip(ClipName.parse(name), f"{name}.wav") for name in NAMES]
    first, second, third = (recording_of(clip) for clip in clips)
    assert first == second != third
    assert copy_names(clips) == ["shred___Af_d__000", "shred___Af_d__001", "shred___Cn_j__000"]


def test_an_interrupted_run_leaves_nothing(source, tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        amplify_set(source, tmp_path / "out", jobs=1, progress=stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]


def test_mistakes_are_user_errors(source, tmp_path):
    with pytest.raises(UserError, match="jobs=0"):
        amplify_set(source, tmp_path / "out", jobs=0)
    with pytest.raises(UserError, match="does not exist"):
        amplify_set(tmp_path / "none", tmp_path / "out")
    with pytest.raises(UserError, match="not empty"):
        amplify_set(source, source)


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    clips = {f"{name}.wav": encode(tone(64_000, 16_000)) for name in NAMES[:2]}
    return make_folder(tmp_path_factory.mktemp("degrade") / "set", clips)


def test_every_clip_is_degraded_once_and_keeps_its_name(tones, tmp_path):
    calls = []
    result = degrade_set(tones, tmp_path / "a", seed=3, progress=lambda *numbers: calls.append(numbers))
    assert result["n"] == 2 and result["skipped"] == [] and result["seed"] == 3 and calls == [(1, 2), (2, 2)]
    before, after = open_dataset(tones), open_dataset(tmp_path / "a")
    assert [clip.member for clip in after.clips] == [clip.member for clip in before.clips]
    for index in range(2):
        clean, degraded = before.read(index), after.read(index)
        assert degraded.shape == clean.shape and np.abs(degraded).max() > 0.01
        assert abs(np.corrcoef(clean, degraded)[0, 1]) < 0.99
    meta = json.loads((tmp_path / "a" / "meta.json").read_text())
    assert meta["source"] == {"degraded": tones.name, "seed": 3}


def test_the_seed_decides_every_byte_of_a_degraded_set(tones, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        degrade_set(tones, tmp_path / name, seed=seed)
    clips = [(tmp_path / name / "clips.npy").read_bytes() for name in "abc"]
    assert clips[0] == clips[1] != clips[2]


def test_a_set_without_a_readable_clip_is_not_degraded(tmp_path):
    folder = make_folder(tmp_path / "set", {f"{NAMES[0]}.wav": encode(tone(64_000, 16_000))})
    dataset = open_dataset(folder)
    (folder / dataset.clips[0].member).write_bytes(b"")
    with pytest.raises(UserError, match="no clip found"):
        degrade_set(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_pack_with_copies_holds_each_clip_before_its_copy(source, tmp_path):
    pack_with_copies(source, tmp_path / "pack", seed=3)
    amplify_set(source, tmp_path / "out", seed=3, jobs=1)
    both, clips, copies = map(open_dataset, (tmp_path / "pack", source, tmp_path / "out"))
    assert [clip.member for clip in both.clips][1::2] == [clip.member for clip in copies.clips]
    assert [clip.recording for clip in both.clips][:2] == ["r1", "r1"] and len(both) == 6
    for k in range(3):
        assert np.array_equal(both.read(2 * k), clips.read(k)) and np.array_equal(both.read(2 * k + 1), copies.read(k))
