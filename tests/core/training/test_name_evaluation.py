"""Full names, triads by mir_eval's rule, sounds without a chord, and confidences are counted as they should be."""

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
    draw_reliability,
    evaluate_names,
    reliability,
    right_names,
    right_triads,
    stretches_of,
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
    assert (right_triads([label], [answer]), right_names([label], [answer])) == ([triad], [name])


def test_stretches():
    assert stretches_of([(0.5, "C:maj"), (2.0, "N"), (4.5, "G:7")]) == [(0, 0.5, "N"), (0.5, 2, "C:maj"), (2, 4, "N")]
    assert stretches_of([(0.0, "C:maj")], 9.0) == [(0, 9.0, "C:maj")] and stretches_of([]) == [(0, 4, "N")]


def test_reliability():
    result = reliability([0.95, 0.91, 0.95, 0.35, None, 1.0], [True, True, False, False, True, True])
    assert [row["weight"] for row in result["bins"]] == [1, 4]
    low, high = result["bins"]
    assert (low["from"], low["to"], low["right"]) == (0.3, 0.4, 0) and high["to"] == 1
    assert high["confidence"] == pytest.approx(0.9525) and high["right"] == 0.75
    assert result["ece"] == pytest.approx((0.35 + 4 * 0.2025) / 5)
    assert reliability([0.9, 0.9], [1, 0], [3, 1])["ece"] == pytest.approx(0.15)  # 0.9 stated, 0.75 of the time right
    assert reliability([None], [True]) == {"ece": None, "bins": []}


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
    """Sets what the model answers for one sound after another, as `name_chord` would."""

    def answers(*rows):
        left = iter(rows)
        monkeypatch.setattr(name_evaluation, "_named", lambda scores, row: next(left))
        return lambda waveforms: Scores(None, None, np.ones((len(waveforms), 12, 4)), np.zeros(len(waveforms), bool))

    return answers


def named(label, chord, label_confidence, confidence):
    return {"label": label, "chord": chord, "label_confidence": label_confidence, "confidence": confidence}


def test_full_names(sounds, answer, monkeypatch):
    monkeypatch.setattr(name_evaluation, "listen", lambda *_: [[(0.0, "G:sus4")]] * 5)
    predictor = answer(
        named("C:maj", "C", 0.8, 0.9),
        named("A:min", "Am", 0.7, 0.8),
        named("G:sus4", None, 0.6, 0.6),
        named("C:maj", "C", 0.5, 0.55),
        named("C:1", "N", 0.9, 0.9),
    )
    counts = []
    result = evaluate_names(sounds, predictor, {"peer": "python"}, lambda *count: counts.append(count))
    assert result["n"] == 5 and counts == [(5, 5)] and not result["failed"]
    assert (result["triads"]["n"], result["triads"]["share"]) == (3, 1)
    assert result["names"]["share"] == pytest.approx(2 / 3) and len(result["names"]["interval"]) == 2
    assert (result["non_chords"]["n"], result["non_chords"]["share"]) == (2, 0.5)
    assert list(result["by_quality"]) == ["maj", "min7", "sus4"]
    assert result["by_quality"]["min7"]["triads"]["share"] == 1 and result["by_quality"]["min7"]["names"]["share"] == 0
    assert {kind: group["names"]["share"] for kind, group in result["by_kind"].items()} == {
        "strum": 0.5,
        "hum": 0,
        "note": 1,
    }
    # Stated for triads 0.9 0.8 0.6 0.55 0.9, of which the fourth is wrong; for names the second is wrong as well.
    assert result["calibration"]["triads"]["ece"] == pytest.approx((0.1 * 2 + 0.2 + 0.4 + 0.55) / 5)
    assert result["calibration"]["names"]["ece"] == pytest.approx((0.1 + 0.2 + 0.7 + 0.4 + 0.5) / 5)
    assert result["others"]["peer"]["names"]["share"] == pytest.approx(1 / 3)
    assert result["others"]["chroma template"]["triads"]["n"] == 3


def test_a_model_of_triads(tmp_path):
    """Today's models: the confidence of the triad is that of the name, and silence is N."""
    files = {"c": (chord(4, 0), "C:7"), "am": (chord(1, 1), "A:min"), "none": (np.zeros(64_000), "N")}
    sounds = []
    for name, (waveform, label) in files.items():
        (tmp_path / name).write_bytes(encode(waveform))
        sounds.append(LabelledSound(tmp_path / name, [(0.0, 4.0, label)]))
    result = evaluate_names(sounds, Predictor(Checkpoint(template_net(), "chordnet", "both", CHORD)), {})
    assert (result["triads"]["share"], result["names"]["share"], result["non_chords"]["share"]) == (1, 0.5, 1)
    assert sum(row["weight"] for row in result["calibration"]["triads"]["bins"]) == 2


def test_what_cannot_be_read_is_listed(sounds, answer):
    sounds[1].path.write_bytes(b"")
    result = evaluate_names(sounds, answer(*[named("N", "N", None, None)] * 4), {})
    assert result["n"] == 4 and [str(sounds[1].path)] == [entry["file"] for entry in result["failed"]]
    with pytest.raises(UserError, match="none of 1 sounds.*empty"):
        evaluate_names(sounds[1:2], answer(), {})
    with pytest.raises(UserError, match="none of 1 sounds.*X"):
        evaluate_names(sounds[5:], answer(), {})


def test_a_model_of_one_task(sounds, tmp_path):
    predictor = Predictor(load(save_original(tmp_path / "m.safetensors", "type")))
    with pytest.raises(UserError, match="both type and root"):
        evaluate_names(sounds, predictor, {})


def test_the_page(sounds, answer, tmp_path):
    result = evaluate_names(sounds, answer(*[named("N", "N", 0.5, 0.5)] * 5), {})
    draw_reliability(result, tmp_path / "r.html", "fake on set")
    page = (tmp_path / "r.html").read_text()
    assert "fake on set (5 sounds)" in page and "names: " in page and 'src="http' not in page
