"""Full names, triads by mir_eval's rule, sounds without a chord, and confidences are counted as they should be."""

from unittest.mock import Mock
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.core.sounds import encode
from tests.core.toys import chord, save_original, template_net
from triadbench.core.data.chord_labels import LabelledSound
from triadbench.core.errors import UserError
from triadbench.core.models.checkpoint import Checkpoint, load
from triadbench.core.models.prediction import Scores
from triadbench.core.models.predictor import Predictor
from triadbench.core.training import name_evaluation
from triadbench.core.training.name_evaluation import (
    Answer,
    draw_reliability,
    evaluate_names,
    reliability,
    score,
)
from triadbench.kernels.spec import CHORD

pytest.importorskip("mir_eval")


@pytest.mark.parametrize(
    ("label", "answer", "triad", "name"),
    [
        ("C:maj7", "C:maj", True, False),
        ("A:min7/b3", "A:min7", True, True),
        ("A:min7/b3", "C:maj6", False, False),
        ("F#:maj", "Gb:maj", True, True),
        ("C:sus4", "C:sus4", True, True),
        ("C:sus4", "C:maj", False, False),
        ("C:sus4", "N", False, False),
        ("C:5", "C:1", False, False),
        ("C:9", "C:7", True, True),
        ("C:add9", "C:maj(9)", True, True),  # mir_eval knows no add9
        ("C:aug", "E:aug", False, False),
        ("C:aug/3", "E:aug", True, True),  # inverted it is the same chord
        ("B:dim7/b3", "D:dim7", True, True),
        ("B:hdim7", "B:dim7", True, False),
        ("N", "N", True, True),
        ("N", "C:1", True, True),
        ("C:1", "N", True, True),
        ("C:1", "C:maj", False, False),
        ("N", "C:maj", False, False),
        ("C:maj", "X", False, False),
    ],
)
def test_what_is_right(label, answer, triad, name):
    result = score([Answer(label, answer)])
    assert (result["triads"], result["names"]) == (triad, name)
    assert result["non_chords"] == (name if label in ("N", "C:1") else None)


def test_weights_and_what_nobody_knows():
    result = score([Answer("C:maj", "C:maj", 3.0, "a"), Answer("C:min", "C:maj", 1.0, "b"), Answer("X", "C:maj", 9.0)])
    assert result["triads"] == result["names"] == 0.75 and result["root"] == 1 and result["non_chords"] is None
    assert result["by_kind"] == {"a": {"n": 3, "triads": 1, "names": 1}, "b": {"n": 1, "triads": 0, "names": 0}}
    assert list(result["by_quality"]) == ["maj", "min"]


def test_reliability():
    right, weights = np.array([1, 1, 0, 0, 1, 1, -1]), np.ones(7)
    result = reliability([0.95, 0.91, 0.95, 0.35, None, 1.0, 0.1], right, weights)
    assert [row["n"] for row in result["bins"]] == [1, 4]
    low, high = result["bins"]
    assert (low["from"], low["to"], low["right"]) == (0.3, 0.4, 0) and high["to"] == 1
    assert high["confidence"] == pytest.approx(0.9525) and high["right"] == 0.75
    assert result["ece"] == pytest.approx((0.35 + 4 * 0.2025) / 5)
    result = reliability([0.9, 0.9], np.array([1, 0]), np.array([3, 1]))
    assert result["ece"] == pytest.approx(0.15)  # 0.9 stated, 0.75 of the time right
    assert reliability([None], np.ones(1), np.ones(1)) == {"ece": None, "bins": []}


LABELS = [("C:maj", "strum"), ("A:min7", "strum"), ("G:sus4", None), ("N", "hum"), ("C:1", "note"), ("X", None)]


@pytest.fixture
def sounds(tmp_path):
    """A silent file of each label: answers are faked."""
    found = []
    for number, (label, kind) in enumerate(LABELS):
        path = tmp_path / f"{number}.wav"
        path.write_bytes(encode(np.zeros(8000)))
        found.append(LabelledSound(path, [(0.0, 4.0, label)], kind))
    return found


@pytest.fixture
def answer(monkeypatch):
    """Sets what the model answers for one sound after another: label, confidence of the name and of the triad."""

    def answers(*rows):
        left = ({"label": label, "label_confidence": name, "confidence": triad} for label, name, triad in rows)
        monkeypatch.setattr(name_evaluation, "name_chord", lambda *_: next(left))
        scores = Scores(None, None, np.ones((1, 12, 4)), np.zeros(1, bool))
        return Mock(return_value=scores, checkpoint=Mock(task="both"))

    return answers


def test_full_names(sounds, answer, monkeypatch):
    monkeypatch.setattr(name_evaluation, "listen", lambda *_: [[(0.0, np.inf, "G:sus4")]] * 6)
    rows = [("C:maj", 0.8, 0.9), ("A:min", 0.7, 0.8), ("G:sus4", 0.6, 0.6), ("C:maj", 0.5, 0.55), ("C:1", 0.9, 0.9)]
    counts = []
    result = evaluate_names(
        sounds, answer(*rows, ("E:7", 0.1, 0.1)), {"peer": "python"}, lambda *count: counts.append(count)
    )
    assert result["n"] == 6 and counts[-1] == (6, 6) and not result["failed"]
    assert (result["triads"], result["names"], result["non_chords"]) == (0.8, 0.6, 0.5)
    assert list(result["by_quality"]) == ["maj", "min7", "sus4", "N"]
    assert result["by_quality"]["min7"] == {"n": 1, "triads": 1, "names": 0}
    assert {kind: group["names"] for kind, group in result["by_kind"].items()} == {"strum": 0.5, "hum": 0, "note": 1}
    # Stated for triads 0.9 0.8 0.6 0.55 0.9, of which the fourth is wrong; for names the second is wrong as well.
    assert result["calibration"]["triads"]["ece"] == pytest.approx((0.1 * 2 + 0.2 + 0.4 + 0.55) / 5)
    assert result["calibration"]["names"]["ece"] == pytest.approx((0.1 + 0.2 + 0.7 + 0.4 + 0.5) / 5)
    assert result["others"]["peer"]["names"] == pytest.approx(1 / 5)
    assert result["others"]["chroma template"]["by_quality"]["maj"]["n"] == 1


def test_a_model_of_triads(tmp_path):
    """Today's models: the confidence of the triad is that of the name, and silence is N."""
    files = {"c": (chord(4, 0), "C:7"), "am": (chord(1, 1), "A:min"), "none": (np.zeros(64_000), "N")}
    sounds = []
    for name, (waveform, label) in files.items():
        (tmp_path / name).write_bytes(encode(waveform))
        sounds.append(LabelledSound(tmp_path / name, [(0.0, 4.0, label)]))
    result = evaluate_names(sounds, Predictor(Checkpoint(template_net(), "chordnet", "both", CHORD)), {})
    assert (result["triads"], result["names"], result["non_chords"]) == pytest.approx((1, 2 / 3, 1))
    assert sum(row["n"] for row in result["calibration"]["triads"]["bins"]) == 2


def test_what_cannot_be_read_is_listed(sounds, answer):
    sounds[1].path.write_bytes(b"")
    result = evaluate_names(sounds, answer(*[("N", None, None)] * 5), {})
    assert result["n"] == 5 and [str(sounds[1].path)] == [entry["file"] for entry in result["failed"]]
    with pytest.raises(UserError, match="none of 1 sounds.*empty"):
        evaluate_names(sounds[1:2], answer(), {})
    with pytest.raises(UserError, match="none of 1 sounds.*X"):
        evaluate_names(sounds[5:], answer(("N", None, None)), {})


def test_a_model_of_one_task(sounds, tmp_path):
    predictor = Predictor(load(save_original(tmp_path / "m.safetensors", "type")))
    with pytest.raises(UserError, match="answers for the type only, a chord needs the root network"):
        evaluate_names(sounds, predictor, {})


def test_the_picture():
    bins = [{"from": 0.9, "to": 1.0, "n": 3.0, "confidence": 0.95, "right": 0.75}]
    picture = ElementTree.fromstring(
        draw_reliability({"triads": {"ece": 0.2, "bins": bins}, "a & b": {"ece": None, "bins": []}}, "set")
    )
    texts = [element.text for element in picture.iter() if element.tag.endswith("text")]
    assert texts[0] == "set" and texts[-2:] == ["triads: 20.0 points off", "a & b"]
    [mark] = [element for element in picture.iter() if element.tag.endswith("circle")]
    assert (mark.get("cx"), mark.get("cy"), mark.get("r")) == ("430.0", "140.0", "12.0")
