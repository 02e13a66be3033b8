"""Sounds of any name get their labels from files beside them; what is wrong with a label is said with its place."""

import math

import pytest

from triadbench.core.data.chord_labels import find_labelled, main_label, read_lab
from triadbench.core.errors import UserError


def test_a_lab_beside_each_sound(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("a.wav", "deep/b.flac", "c.mp3"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "a.lab").write_text("0 4 A:min7/b3\n")
    (tmp_path / "deep" / "b.lab").write_text("0.0 1.5\tN\n\n1.5 4 C:maj/3\n")
    sounds, skipped = find_labelled(tmp_path)
    assert [sound.path.name for sound in sounds] == ["a.wav", "b.flac"]
    assert sounds[0].stretches == [(0.0, 4.0, "A:min7/b3")]
    assert sounds[1].stretches == [(0.0, 1.5, "N"), (1.5, 4.0, "C:maj/3")]
    assert [entry["file"] for entry in skipped] == ["c.mp3"] and "c.lab" in skipped[0]["reason"]


def test_a_manifest_gives_labels_and_kinds(tmp_path):
    for name in ("hum.wav", "strum.wav"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "strum.lab").write_text("0 4 G:sus4")
    lines = '{"file": "hum.wav", "label": "N", "kind": "hum"}\n{"file": "strum.wav", "label": "D:5", "kind": "steel"}\n'
    (tmp_path / "clips.jsonl").write_text(lines)
    sounds, _ = find_labelled(tmp_path)
    assert [(*sound.stretches, sound.kind) for sound in sounds] == [
        ((0.0, math.inf, "N"), "hum"),
        ((0.0, 4.0, "G:sus4"), "steel"),
    ]


def test_no_folder(tmp_path):
    (tmp_path / "set.zip").write_bytes(b"x")
    assert find_labelled(tmp_path / "set.zip") == find_labelled(tmp_path / "missing") == ([], [])
    (tmp_path / "empty").mkdir()
    assert find_labelled(tmp_path / "empty") == ([], [])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("0 1 C:maj\n0 x C:maj\n", "line 2"),
        ("0 2 C:maj\n1 3 N\n", "line 2.*not before the last end"),
        ("2 1 C:maj\n", "line 1"),
        ("0 1 C:maj and more\n", "line 1"),
        ("0 1 H:maj\n", "H:maj"),
        ("C:maj", "line 1"),
        ("0 1 C:what", "line 1.*C:what"),
    ],
)
def test_a_wrong_lab(tmp_path, text, words):
    (tmp_path / "a.lab").write_text(text)
    with pytest.raises(UserError, match=words) as error:
        read_lab(tmp_path / "a.lab")
    assert str(tmp_path / "a.lab") in str(error.value)


def test_a_wrong_manifest(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"x")
    (tmp_path / "clips.jsonl").write_text('{"file": "a.wav", "label": 7}\n')
    with pytest.raises(UserError, match=r"clips.jsonl, a.wav"):
        find_labelled(tmp_path)


@pytest.mark.parametrize(
    ("stretches", "label"),
    [
        ([(0, math.inf, "D:7")], "D:7"),
        ([(0, 1, "C:maj"), (1, 2.5, "G:7"), (2.5, 3.2, "C:maj"), (3.2, 9, "N")], "C:maj"),
        ([(0, 2.8, "N"), (2.8, 4, "A:7")], "A:7"),  # the chord of a strum that starts late
        ([(0, 3.1, "N"), (3.1, 4, "A:7")], "N"),  # a sliver is no chord
        ([(0, 3, "N"), (3, 4.5, "A:7")], "A:7"),  # a quarter of the first four seconds
        ([(0, 4, "N"), (4, 9, "A:7")], "N"),
        ([(5, 9, "A:7")], "N"),
    ],
)
def test_the_main_label(stretches, label):
    assert main_label(stretches) == label
