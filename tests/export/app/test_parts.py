"""The parts of the app that need no server: drawings, the spectrogram, the games, the sweep of old files."""

from __future__ import annotations

import os
import time
import xml.etree.ElementTree as ElementTree
import zlib

import numpy as np
import pytest

from triadbench.core.models.chords import ROOTS, TYPE_INTERVALS, TYPES, root_pitch_class
from triadbench.export.app import drawings, games, sounds, spectrogram
from triadbench.export.app.uploads import clock
from triadbench.kernels import CHORD, ORIGINAL, mel_reference
from triadbench.kernels.spec import MelSpec


@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize("chord_type", TYPES)
def test_notes_are_spelled_in_thirds_and_lie_on_their_keys(root, chord_type):
    found = drawings.notes(root, chord_type)
    letters = ["CDEFGAB".index(name[0]) for name, _ in found]
    assert [(letter - letters[0]) % 7 for letter in letters] == [0, 2, 4] and found[0][0] == root
    low = root_pitch_class(ROOTS.index(root))
    assert [at - low for _, at in found] == list(TYPE_INTERVALS[TYPES.index(chord_type)])


def test_notes_by_hand():
    assert [name for name, _ in drawings.notes("C", "augmented")] == ["C", "E", "G#"]
    assert [name for name, _ in drawings.notes("Eb", "diminished")] == ["Eb", "Gb", "Bbb"]
    assert [drawings.printed(name) for name in ("Bbb", "G#", "B")] == ["B♭♭", "G♯", "B"]
    assert drawings.spoken("Bbb") == "B double flat"
    assert [drawings.symbol(chord) for chord in ("Ebm", "Bdim", "Bb", "N")] == ["E♭m", "Bdim", "B♭", "N"]


@pytest.mark.parametrize("root", [*ROOTS, None])
def test_the_keyboard_shows_and_tells_the_notes(root):
    svg = ElementTree.fromstring(drawings.keyboard(root, root and "minor"))
    marked = [rect for rect in svg.iter("rect") if "on" in rect.get("class").split()]
    assert len(list(svg.iter("rect"))) == 24 and len(marked) == (3 if root else 0)
    told = svg.find("desc").text
    assert told in svg.get("aria-label")
    assert told == "No chord" or [*told.split(": ")[1].split(", ")] == [
        drawings.spoken(n) for n, _ in drawings.notes(root, "minor")
    ]


@pytest.mark.parametrize(
    "spec",
    [
        CHORD,
        ORIGINAL,
        MelSpec(n_fft=512, win_length=300, hop_length=100, power=1.0, pad=7, center=False, normalized=True),
        MelSpec(n_fft=400, pad_mode="constant", norm="slaney", mel_scale="slaney", normalized="frame_length"),
    ],
    ids=["chord", "original", "short window, magnitude", "slaney"],
)
def test_the_picture_is_of_the_mel_that_the_spec_defines(spec):
    waveform = np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    expected = mel_reference.mel_spectrogram(waveform[None], spec)[0]
    found = spectrogram.power_mel(waveform, spec)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-6 * np.abs(expected).max()


def test_the_png_is_whole():
    shades = np.arange(12, dtype=np.uint8).reshape(3, 4)
    png = spectrogram._png(shades)
    start = png.index(b"IDAT") + 4
    rows = np.frombuffer(zlib.decompressobj().decompress(png[start:]), np.uint8)
    assert (
        np.array_equal(rows.reshape(3, 5)[:, 1:], shades) and png.startswith(b"\x89PNG") and png.endswith(b"\xaeB`\x82")
    )


def test_a_tone_is_drawn_where_it_sounds():
    tone = np.sin(2 * np.pi * 440 * np.arange(64_000) / 16_000).astype(np.float32)
    svg = ElementTree.fromstring(spectrogram.picture(tone, CHORD, 2.0))
    assert "loudest near 4" in svg.find("desc").text and "from second 2" in svg.get("aria-label")
    times = [text.text for text in svg.iter("text")][-5:]
    assert times == ["2 s", "3 s", "4 s", "5 s", "6 s"]


def test_ear_training_is_fair():
    question = games.Question("C", "augmented", 3, 0)
    assert games.check(question, "type", "augmented", None) and not games.check(question, "type", "major", None)
    for root, right in {"C": True, "E": True, "Ab": True, "D": False}.items():  # an augmented triad has three roots
        assert games.check(question, "type and root", "augmented", root) == right
    minor = games.Question("C", "minor", 3, 0)
    assert not games.check(minor, "type and root", "minor", "E") and not games.check(
        minor, "type and root", "minor", None
    )
    asked = [games.ask() for _ in range(400)]
    assert {question.root for question in asked} == set(ROOTS) and {question.type for question in asked} == set(TYPES)
    assert all((lambda a, b: (a.root, a.type) != (b.root, b.type))(one, games.ask(one)) for one in asked)


def test_a_score_is_counted():
    score = games.Score()
    for right in (True, False, True, True):
        score = score.counted(right)
    assert score.words() == "3 of 4 right, 2 in a row" and games.Score().words() == "no answer yet"


def test_old_files_go_and_new_ones_and_examples_stay(tmp_path):
    from triadbench.export.app.server import sweep

    paths = {name: tmp_path / name / "x.wav" for name in ("visitor", "example")}
    for path in paths.values():
        path.parent.mkdir()
        path.write_bytes(b"x")
        os.utime(path, (0, 0))  # as a copy of an old file: it came just now all the same
    keep = frozenset({paths["example"]})
    assert sweep(tmp_path, 50, keep) == 0 and paths["visitor"].exists()
    assert sweep(tmp_path, 50, keep, now=time.time() + 100) == 1
    assert not paths["visitor"].exists() and paths["example"].exists()
    assert sweep(tmp_path, 50, now=time.time() + 200) == 1 and not any(path.exists() for path in paths.values())


def test_the_examples_are_what_the_command_writes(tmp_path):
    written = sounds.write_examples(tmp_path)
    assert {path.name for path in written} == {path.name for path in sounds.EXAMPLES.iterdir()}


def test_clock():
    assert [clock(seconds) for seconds in (0, 65.9, 3723)] == ["0:00", "1:05", "1:02:03"]
