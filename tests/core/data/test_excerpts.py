"""Sets to train on: the same bytes however they were made, whole before they open, and read as they were written."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.core.data.test_midi_songs import corrected
from tests.core.toys import whole_note_folder, write_set
from triadbench.core.data import render_excerpts as rendering
from triadbench.core.data.dataset import open_dataset
from triadbench.core.data.excerpts import is_excerpts, of_dataset, open_excerpts
from triadbench.core.data.render_excerpts import ExcerptsConfig, render_excerpts
from triadbench.core.errors import UserError
from triadbench.core.models.chords import ClipName
from triadbench.core.models.targets import parse_label


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    place = tmp_path_factory.mktemp("excerpts")
    path, scores = corrected(place)
    instruments = [(f"notes:{whole_note_folder(place / 'guitar of sines')}", 1.0)]
    options = {"seed": 3, "instruments": instruments, "cache": place / "banks", "workers": 1, "part_rows": 16}
    return ExcerptsConfig(place / "set", 20, 18, 5, path.parents[1], scores, **options)


@pytest.fixture(scope="module")
def whole(base):
    counts = []
    result = render_excerpts(base, progress=lambda done, total: counts.append((done, total)))
    assert counts == [(k, 5) for k in range(1, 6)] and result["kept"] == 0
    return base.out


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_rows_of_every_kind_with_their_chords(whole):
    excerpts = open_excerpts(whole)
    assert is_excerpts(whole) and len(excerpts) == 43
    kinds = [entry.kind for entry in excerpts.entries]
    assert kinds[20:38] == ["song-own"] * 18 and kinds[38:] == ["song-midi"] * 5
    assert len({entry.recording for entry in excerpts.entries[:20]}) == 20
    assert [entry.recording for entry in excerpts.entries[20:]] == ["3-song-0"] * 16 + ["3-song-1"] * 2 + ["007"] * 5
    for entry in excerpts.entries:
        for start, end, label in entry.chords:
            assert 0 <= start < end <= 4 and (label == "X" or parse_label(label))


def test_rows_are_read_as_they_were_written(whole):
    excerpts = open_excerpts(whole)
    read = excerpts.read_many([42, 3, 20], [100, 0, 56_000], 8000)
    assert read.dtype == np.float32 and read.shape == (3, 8000)
    for waveform, (part, row, start) in zip(read, (("004", 4, 100), ("000", 3, 0), ("002", 0, 56_000)), strict=True):
        stored = np.load(whole / f"{part}.npy")[row, start : start + 8000]
        assert np.array_equal(waveform, stored.astype(np.float32) / 32768) and stored.any()


def test_a_killed_set_goes_on_and_workers_do_not_change_a_byte(base, whole, tmp_path, monkeypatch):
    again = replace(base, out=tmp_path / "again", workers=2)
    one = replace(again, workers=1)

    def kill(done, _):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render_excerpts(one, progress=kill)
    with pytest.raises(UserError, match="again is not finished, 3 of 5 parts are missing"):
        open_excerpts(one.out)
    (one.out / "001.jsonl").unlink()  # as where the kill came between the two files of a part
    assert render_excerpts(again)["kept"] == 1
    assert contents(one.out) == contents(whole)
    monkeypatch.setattr(rendering, "_PartRenderer", lambda *_: pytest.fail("rendered again"))
    digest = open_excerpts(whole).digest()
    assert open_excerpts(one.out).digest() == digest
    lines = (one.out / "002.jsonl").read_text()
    (one.out / "002.jsonl").write_text(lines.replace("song-own", "song-alone"))
    assert open_excerpts(one.out).digest() != digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 4}, "set was begun with other settings; repeat those or choose another output"),
        ({"clips": 21}, "begun with other settings"),
        ({"midi": None}, "give --midi and --midi-rows"),
        ({"midi_rows": 0}, "give --midi and --midi-rows"),
        ({"midi": None, "midi_rows": 0, "without": Path("names.txt")}, "give --midi and --midi-rows"),
    ],
)
def test_other_settings_are_refused(base, whole, change, message):
    before = contents(whole)
    with pytest.raises(UserError, match=message):
        render_excerpts(replace(base, **change))
    assert contents(whole) == before


def test_a_folder_of_something_else_is_refused(base, tmp_path):
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(UserError, match="exists already and is not empty"):
        render_excerpts(replace(base, out=tmp_path))
    assert contents(tmp_path) == {"mine.txt": b"kept"} and not is_excerpts(tmp_path)


def test_songs_may_be_left_out(base, tmp_path):
    (tmp_path / "without.txt").write_text("001 007\n")
    with pytest.raises(UserError, match="no MIDI file with a score"):
        render_excerpts(replace(base, out=tmp_path / "set", without=tmp_path / "without.txt"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("set.json", "{}", "not the description of a set"),
        ("set.json", json.dumps({"format": "triadbench-excerpts", "version": 99}), "version 99"),
        ("set.json", json.dumps({"format": "triadbench-excerpts", "version": 1}), "parts"),
        ("000.jsonl", '{"kind": "triad"}\n', "000.jsonl: damaged"),
        ("000.jsonl", '{"kind": "triad", "recording": "1", "chords": [[0, 1, "H:foo"]]}\n', "label 'H:foo'"),
        ("000.jsonl", '{"kind": "triad", "recording": "1", "chords": [[0, 5, "N"]]}\n', "N from 0 to 5 s"),
        ("000.jsonl", "", "000.jsonl: 0 lines for 16 rows"),
        ("000.npy", "", "000.npy"),
    ],
)
def test_damage_is_one_line(whole, tmp_path, name, text, message):
    shutil.copytree(whole, tmp_path / "set")
    (tmp_path / "set" / name).write_text(text)
    with pytest.raises(UserError, match=message):
        open_excerpts(tmp_path / "set")


def test_a_data_set_is_read_alike(tmp_path):
    names = [ClipName(4, 0, 5, "m"), ClipName(5, 1, 5, "m", voicing="inv1")]
    dataset = open_dataset(write_set(tmp_path / "set", names))
    excerpts = of_dataset(dataset)
    assert {entry.chords[0] for entry in excerpts.entries} == {(0, 4, "C:maj"), (0, 4, "Db:min/b3")}
    assert {entry.kind for entry in excerpts.entries} == {"triad"} and excerpts.digest() == dataset.digest()
    assert np.array_equal(excerpts.read_many([1], [1000], 500)[0], dataset.read(1)[1000:1500])
