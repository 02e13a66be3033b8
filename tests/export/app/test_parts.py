"""The parts of the app that need no server: drawings, the spectrogram, the games, the sweep of old files."""

from __future__ import annotations

import base64
import io
import os
import time
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from tests.core.toys import chord as chord_of_sines
from tests.core.toys import save_pair
from triadbench.core.audio.io import write_wav
from triadbench.core.errors import UserError
from triadbench.core.models.chords import ROOTS, TYPE_INTERVALS, TYPES, root_pitch_class
from triadbench.core.models.prediction import Scores
from triadbench.core.models.spelling import chord_name, note_names, printed, spoken
from triadbench.core.models.targets import parse_label
from triadbench.export.app import EXAMPLES, example_sounds, html, quiz
from triadbench.export.app.predictors import Predictors
from triadbench.export.app.recognition import Recogniser
from triadbench.kernels import CHORD, ORIGINAL, mel_reference
from triadbench.kernels.spec import MelSpec

Image = pytest.importorskip("PIL.Image", reason='the app needs Gradio, which brings Pillow: pip install -e ".[app]"')


@pytest.mark.parametrize("kind", range(len(TYPES)))
@pytest.mark.parametrize("root", range(12))
def test_notes_are_spelled_and_lie_on_their_keys(root, kind):
    notes = html.notes(chord_name(root, kind))
    assert [name for name, _ in notes] == note_names(chord_name(root, kind))
    assert [at - root_pitch_class(root) for _, at in notes] == list(TYPE_INTERVALS[kind])


def test_what_the_reader_has_to_say_is_shown(tmp_path):
    sound = example_sounds.triad("D", "minor", 3, 4)
    write_wav(tmp_path / "x.wav", np.stack([sound, -sound], axis=1))
    recogniser = Recogniser(Predictors(), tmp_path, 3, 0.5)
    clip = html.render("clip", answer=recogniser.name_clip(str(tmp_path / "x.wav"), None, None), window_s=4.0)
    song = html.render("song", answer=recogniser.name_song(str(tmp_path / "x.wav"), None, None), audio="x.wav")
    for section in (clip, song):
        assert "Note: this file: its channels cancel each other out" in section


class Hears:
    """Every window is Cmaj7 over E, or Gsus4, and no triad for sure."""

    provider, path, model_name = "cpu", "fake.onnx", "fake.onnx"

    def __init__(self, label, bass):
        self.label, self.bass = label, bass
        self.info = type("info", (), {"task": "both", "samples": None, "spec": CHORD})

    def warm_kernel(self):
        pass

    def __call__(self, waveforms):
        n = len(waveforms)
        chords, bass = np.zeros((n, 205), np.float32), np.zeros((n, 12), np.float32)
        chords[:, parse_label(self.label)[0]], bass[:, ROOTS.index(self.bass)] = 1, 1
        return Scores(None, None, np.full((n, 12, 4), 1 / 48, np.float32), np.zeros(n, bool), chords, bass)


@pytest.mark.parametrize(
    ("label", "bass", "name", "words"),
    [
        ("C:maj7", "E", "Cmaj7/E", "C major seventh over E"),
        ("G:sus4", "G", "Gsus4", "G suspended fourth"),
        ("N", "C", "N", ""),
    ],
)
def test_the_page_shows_whole_chords(label, bass, name, words, tmp_path):
    write_wav(tmp_path / "x.wav", example_sounds.triad("D", "minor", 3, 4))
    recogniser = Recogniser(Predictors(), tmp_path, 3, 0.5)
    recogniser.predictors.get = lambda *_: Hears(label, bass)
    answer = recogniser.name_clip(str(tmp_path / "x.wav"), None, None)
    answer = answer._replace(
        predictor=type("p", (), {"info": answer.predictor.info, "provider": "cpu", "model_name": "x.onnx"})
    )
    clip = html.render("clip", answer=answer, window_s=4.0)
    assert f'<p class="tb-chord">{printed(name)}</p>' in clip and words in clip
    assert ("Type: " in clip) == (label == "C:maj7") and ("No chord" in clip) == (name == "N")
    song = html.render("song", answer=recogniser.name_song(str(tmp_path / "x.wav"), None, None), audio="x.wav")
    assert f"<b>{printed(name)}</b>" in song and ("--hue" in song) == (name != "N")


def test_the_menu_has_triads_alone():
    predictors = Predictors()
    assert predictors.chords == ["all chords", "triads alone"]
    assert not predictors.get().triads and predictors.get(chords="triads alone").triads
    with pytest.raises(UserError, match="chords='none' is not in the menu"):
        predictors.get(chords="none")


def test_two_networks_are_one_entry_of_the_menu(tmp_path):
    files = save_pair(tmp_path / "pair")
    predictors = Predictors(files)
    assert predictors.models[:2] == ["type.pth + root.safetensors", "shipped model"]
    assert predictors.providers[0] == "torch" and Predictors().providers[0] == "cpu"
    recogniser = Recogniser(predictors, tmp_path, 3, 0.5)
    write_wav(tmp_path / "x.wav", chord_of_sines(4, 1))
    answer = recogniser.name_clip(str(tmp_path / "x.wav"), None, None)
    assert answer.chord["chord"] == "Cm" and answer.chord["agreement"] == 1
    assert "by type.pth + root.safetensors on torch" in html.render("clip", answer=answer, window_s=4.0)
    assert recogniser.name_song(str(tmp_path / "x.wav"), None, None).timeline.duration_s == 4
    assert recogniser.name_clip(str(tmp_path / "x.wav"), "shipped model", "cpu").chord["chord"] == "Cm"
    with pytest.raises(UserError, match="two networks are joined by PyTorch alone"):
        predictors.get(provider="cpu")
    with pytest.raises(UserError, match="root.safetensors answers for the root only, a chord needs the type network"):
        Predictors(files[1])


@pytest.mark.parametrize("chord", ["N", *(chord_name(root, 1) for root in range(12))])
def test_the_keyboard_shows_and_tells_the_notes(chord):
    svg = ElementTree.fromstring(html.keyboard(chord))
    marked = [rect for rect in svg.iter("rect") if "on" in rect.get("class").split()]
    assert len(list(svg.iter("rect"))) == 24 and len(marked) == (0 if chord == "N" else 3)
    assert sorted(text.text for text in svg.iter("text")) == sorted(map(printed, note_names(chord)))
    words = svg.find("desc").text
    assert words in svg.get("aria-label")
    assert words == "No chord" or words.split(": ")[1].split(", ") == [spoken(note) for note in note_names(chord)]


def test_the_keyboard_by_hand():
    assert ElementTree.fromstring(html.keyboard("D#dim")).find("desc").text == (
        "D sharp diminished: D sharp, F sharp, A"
    )
    assert ElementTree.fromstring(html.keyboard("Fm")).find("desc").text == "F minor: F, A flat, C"


@pytest.mark.parametrize(
    "spec", [CHORD, ORIGINAL, MelSpec(power=1.0, center=False)], ids=["chord", "original", "power 1"]
)
def test_the_picture_is_of_the_mel_that_the_spec_defines(spec):
    waveform = np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    mel = mel_reference.mel_spectrogram(waveform, spec)
    svg = ElementTree.fromstring(html.spectrogram(waveform, spec))
    png = svg.find("image").get("href").removeprefix("data:image/png;base64,")
    image = Image.open(io.BytesIO(base64.b64decode(png)))
    shades = np.asarray(image)[::-1]  # low notes are at the bottom
    assert image.mode == "P" and shades.shape == mel.shape
    below_peak_db = 20 / spec.power * np.log10(mel / mel.max())
    assert np.abs(shades - np.clip(255 * (1 + below_peak_db / 80), 0, 255)).max() <= 1


def test_the_png_is_whole():
    shades = np.arange(12, dtype=np.uint8).reshape(3, 4)
    image = Image.open(io.BytesIO(html._png(shades)))
    assert np.array_equal(np.asarray(image), shades)
    palette = np.array(image.getpalette()).reshape(-1, 3)
    assert palette[0].tolist() == [0, 0, 4]
    lightness = palette @ (0.2126, 0.7152, 0.0722)
    assert (np.diff(lightness) > -1).all()


def test_the_colours_reach_from_dark_to_light():
    image = Image.open(io.BytesIO(html._png(np.arange(256, dtype=np.uint8)[None])))
    colours = np.asarray(image.convert("RGB"))[0]
    assert colours[0].tolist() == [0, 0, 4] and colours[-1].tolist() == [252, 253, 191]


def test_a_tone_is_drawn_where_it_sounds():
    tone = np.sin(2 * np.pi * 440 * np.arange(64_000) / 16_000).astype(np.float32)
    svg = ElementTree.fromstring(html.spectrogram(tone, CHORD, 2.0))
    assert "loudest near 4" in svg.find("desc").text and "from second 2" in svg.get("aria-label")
    times = [text.text for text in svg.iter("text")][-5:]
    assert times == ["2 s", "3 s", "4 s", "5 s", "6 s"]


def test_ear_training_is_fair():
    question = quiz.Question("C", "augmented", 3, 0)
    assert question.is_right("augmented", None, type_only=True) and not question.is_right("major", None, type_only=True)
    for root, right in {"C": True, "E": True, "Ab": True, "D": False}.items():  # an augmented triad has three roots
        assert question.is_right("augmented", root) == right
    minor = quiz.Question("C", "minor", 3, 0)
    assert minor.is_right("minor", "C") and not minor.is_right("major", "C")
    assert not minor.is_right("minor", "E") and not minor.is_right("minor", None)
    asked = [quiz.ask() for _ in range(400)]
    assert {question.root for question in asked} == set(ROOTS) and {question.type for question in asked} == set(TYPES)
    assert not [question.chord for question in asked if any(len(n) > 2 for n in note_names(question.chord))]
    assert quiz.Question("Eb", "diminished", 3, 0).chord == "D#dim"
    for question in asked:
        following = quiz.ask(question)
        assert (question.root, question.type) != (following.root, following.type)


def test_a_score_is_counted():
    score = quiz.Score()
    for right in (True, False, True, True):
        score = score.counted(right)
    assert score.words() == "3 of 4 right, 2 in a row" and quiz.Score().words() == "no answer yet"


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
    written = example_sounds.write_examples(tmp_path)
    assert {path.name for path in written} == {path.name for path in EXAMPLES.iterdir()}
