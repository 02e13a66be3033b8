"""A predictor answers for waveforms: the right chord, silence as no chord, and one line for what it cannot take."""

import re

import numpy as np
import pytest
import torch

from tests.core.toys import all_names, chord, save_original, save_pair, save_template, small_net, template_net
from triadbench.core.errors import UserError
from triadbench.core.models import predictor as predict
from triadbench.core.models.checkpoint import Checkpoint, load
from triadbench.core.models.chords import ROOTS, TYPES
from triadbench.core.models.prediction import (
    NO_TRIAD,
    REDUCTION,
    Scores,
    chords_of_triads,
    describe,
    name_chord,
    no_chord,
)
from triadbench.core.models.predictor import Predictor
from triadbench.core.models.spelling import chord_name, read_chord
from triadbench.core.models.targets import parse_label
from triadbench.core.models.vocabulary import N_CLASSES, N_QUALITIES, Chord
from triadbench.kernels.spec import CHORD

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def predictor():
    return Predictor(Checkpoint(template_net(), "chordnet", "both", CHORD))


@pytest.fixture(scope="module", params=["type", "root"])
def one_task(request, tmp_path_factory):
    path = save_original(tmp_path_factory.mktemp("original") / "m.safetensors", request.param)
    return request.param, Predictor(load(path))


def test_all_chords(predictor):
    names = all_names()
    scores = predictor(np.stack([chord(name.root, name.type) for name in names]))
    assert scores.types.argmax(1).tolist() == [name.type for name in names]
    assert scores.roots.argmax(1).tolist() == [name.root for name in names]
    assert not scores.silent.any()


def test_probabilities_marginalise():
    # A net of random weights is unsure, so that a largest share is far from a sum of shares.
    predictor = Predictor(Checkpoint(small_net(), "chordnet", "both", CHORD))
    scores = predictor(np.stack([chord(1, 1), chord(5, 2)]))
    assert scores.joint.shape == (2, 12, 4) and scores.joint.dtype == np.float32
    assert np.allclose(scores.joint.sum(axis=(1, 2)), 1, atol=1e-5) and scores.joint.max() < 0.95
    assert np.allclose(scores.types, scores.joint.sum(axis=1)) and np.allclose(scores.roots, scores.joint.sum(axis=2))
    assert scores.chords.shape == (2, N_CLASSES) and scores.bass.shape == (2, 12)
    assert np.allclose(scores.chords.sum(axis=1), 1, atol=1e-5) and np.allclose(scores.bass.sum(axis=1), 1, atol=1e-5)
    without = scores.chords[:, REDUCTION == NO_TRIAD].sum(axis=1)
    for triad in range(NO_TRIAD):
        share = scores.chords[:, REDUCTION == triad].sum(axis=1) + without / NO_TRIAD
        assert np.allclose(scores.joint.reshape(2, -1)[:, triad], share, atol=1e-6)


def test_prior_and_temperature_change_the_probabilities_and_not_the_network():
    net, waveform = small_net(), chord(1, 1)[None]
    predictor = Predictor(Checkpoint(net, "chordnet", "both", CHORD))
    before = predictor(waveform).chords[0]
    net.prior[4], net.prior[-1] = 1.5, -2.0
    net.temperature.fill_(0.5)
    wanted = before.astype(np.float64) ** 2
    wanted[4:-1:N_QUALITIES] *= np.exp(3.0)
    wanted[-1] *= np.exp(-4.0)
    assert np.allclose(predictor(waveform).chords[0], wanted / wanted.sum(), rtol=1e-3)


def test_the_original_answers_its_own_task_alone(one_task):
    task, predictor = one_task
    scores = predictor(np.stack([chord(1, 1), chord(5, 2) * 0]))
    given, missing = (scores.types, scores.roots) if task == "type" else (scores.roots, scores.types)
    assert given.shape == (2, {"type": 4, "root": 12}[task]) and missing is None and scores.joint is None
    assert np.allclose(given.sum(axis=1), 1, atol=1e-5) and scores.silent.tolist() == [False, True]


def test_the_original_sees_power_and_not_its_logarithm(one_task):
    _, predictor = one_task
    mel = predictor.mel(torch.from_numpy(chord(1, 1)[None]))
    assert mel.shape == (1, 64, 126) and mel.min() >= 0 and mel.max() > 10
    with torch.inference_mode():
        wanted = predictor.model(mel.unsqueeze(1)).numpy()
    scores = predictor(chord(1, 1)[None])
    assert np.allclose(scores.types if scores.types is not None else scores.roots, wanted, atol=1e-6)


# --- silence ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("waveform", "silent"),
    [
        (np.zeros(64_000), True),
        (np.full(64_000, 0.7), True),
        (RNG.integers(-1, 2, 64_000) / 32768, True),  # dither of the last bit
        (0.5 + RNG.integers(-1, 2, 64_000) / 32768, True),
        (RNG.uniform(-0.9e-4, 0.9e-4, 64_000), True),
        (RNG.uniform(-5e-4, 5e-4, 64_000), False),
        (1e-3 * chord(0, 0), False),
        (chord(0, 0), False),
        (0.9 + 1e-3 * chord(0, 0), False),
    ],
    ids=[
        "zeros",
        "DC",
        "dither",
        "DC and dither",
        "under 80 dB",
        "hiss",
        "a quiet chord",
        "a chord",
        "a quiet chord on DC",
    ],
)
def test_silence(predictor, waveform, silent):
    scores = predictor(waveform[None].astype(np.float32))
    assert scores.silent.tolist() == [silent] and np.isfinite(scores.joint).all()


def test_a_quiet_chord_on_dc_is_still_named(predictor):
    assert name_chord(predictor(0.5 + 0.05 * chord(4, 0)[None]).of_triads().chords[0])["chord"] == "C"


# --- what it takes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [4096, 5000, 64_000, 100_001])
def test_ours_takes_any_length(predictor, samples):
    scores = predictor(chord(7, 1, seconds=samples / 16_000)[None])
    assert name_chord(scores.of_triads().chords[0])["chord"] == "Ebm"


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_any_floating_type_and_stride(predictor, dtype):
    batch = np.stack([chord(7, 1), chord(2, 0)]).astype(dtype)
    for waveforms in (batch, batch[::-1][::-1], np.asfortranarray(batch), np.repeat(batch, 2, axis=1)[:, ::2]):
        assert predictor(waveforms).joint.reshape(2, 48).argmax(1).tolist() == [7 * 4 + 1, 2 * 4]


@pytest.mark.parametrize(
    ("waveforms", "message"),
    [
        (
            np.zeros(64_000),
            r"waveforms of shape \(64000,\): expected \(batch, samples\), at least 4096 samples; pad with zeros",
        ),
        (np.zeros((1, 1, 64_000)), "expected .batch, samples."),
        (np.zeros((2, 4095)), r"shape \(2, 4095\): .*at least 4096 samples"),
        (np.full((1, 5000), np.nan), "waveforms hold NaN or infinite values"),
        (np.full((1, 5000), -np.inf), "waveforms hold NaN or infinite values"),
    ],
)
def test_what_it_does_not_take(predictor, waveforms, message):
    with pytest.raises(UserError, match=message):
        predictor(waveforms)


def test_the_original_takes_one_length(one_task):
    with pytest.raises(UserError, match="the original network takes 64000 samples, not 64001"):
        one_task[1](np.zeros((1, 64_001)))


def test_cuda_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="device cuda: torch finds no CUDA GPU here"):
        Predictor(Checkpoint(template_net(), "chordnet", "both", CHORD), "cuda")


@pytest.mark.parametrize("device", ["graphics", "meta", "cuda:x"])
def test_other_devices(device):
    with pytest.raises(UserError, match=f"device '{device}'.*choose cpu or cuda"):
        Predictor(Checkpoint(template_net(), "chordnet", "both", CHORD), device)


# --- the model's file ------------------------------------------------------------------------------------------------


def test_load(tmp_path, monkeypatch):
    path = save_template(tmp_path / "chordnet.safetensors")
    assert Predictor.load(path).checkpoint.training == {"note": "by hand"}
    monkeypatch.setattr(predict, "SHIPPED", path)
    assert Predictor.load().checkpoint.training == {"note": "by hand"}


def test_without_the_shipped_model_the_message_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "SHIPPED", tmp_path / "chordnet.safetensors")
    message = f"the shipped model chordnet.safetensors is not in {tmp_path}; give --model FILE"
    with pytest.raises(UserError, match=re.escape(message)):
        Predictor.load()
    with pytest.raises(UserError, match="other.safetensors: no such model file"):
        Predictor.load(tmp_path / "other.safetensors")


# --- words -----------------------------------------------------------------------------------------------------------


def triads_of(**shares):
    """Probabilities (205,) with these triads, by name ("C", "Am"), and the rest spread thin over all triads."""
    joint = np.full((12, 4), (1 - sum(shares.values())) / (48 - len(shares)), dtype=np.float32)
    for symbol, share in shares.items():
        joint[read_chord(symbol)[:2]] = share
    return chords_of_triads(joint[None])[0]


def test_words():
    named = name_chord(triads_of(Cm=0.6, Eb=0.2, Ab=0.1, Cdim=0.05), alternatives=2)
    assert (named["chord"], named["type"], named["root"]) == ("Cm", "minor", "C")
    assert named["confidence"] == pytest.approx(0.6, abs=1e-6)
    rest = 0.05 / 44
    assert named["type_confidence"] == pytest.approx(0.6 + 11 * rest, abs=1e-6)
    assert named["root_confidence"] == pytest.approx(0.65 + 2 * rest, abs=1e-6)
    assert [other["chord"] for other in named["alternatives"]] == ["Eb", "Ab"]
    assert [other["confidence"] for other in named["alternatives"]] == pytest.approx([0.2, 0.1])


def test_alternatives_never_repeat_the_answer():
    # Type by type and root by root the answer would be B minor, which is less likely than B flat minor.
    chords = triads_of(Bbm=0.3, B=0.25, Bm=0.2, Bdim=0.15)
    named = name_chord(chords, alternatives=3)
    assert (named["chord"], named["type"], named["root"]) == ("Bbm", "minor", "Bb")
    assert [other["chord"] for other in named["alternatives"]] == ["B", "Bm", "Bdim"]
    assert len(name_chord(chords, alternatives=0)["alternatives"]) == 0
    assert len(name_chord(chords, alternatives=47)["alternatives"]) == 47


def test_no_chord_has_the_same_words():
    nothing = no_chord()
    assert nothing.keys() == name_chord(triads_of(C=0.9)).keys()
    assert nothing["chord"] == "N" and nothing["alternatives"] == []
    assert nothing["name"] == nothing["label"] == "N"
    assert all(nothing[key] is None for key in nothing.keys() - {"chord", "name", "label", "alternatives"})


def test_labels_of_the_words():
    for root in range(12):
        for kind in range(4):
            named = name_chord(triads_of(**{chord_name(root, kind): 0.9}))
            assert (named["type"], named["root"]) == (TYPES[kind], ROOTS[root])
            assert named["chord"] == chord_name(root, kind)


def test_a_chord_is_spelled_and_a_root_is_a_class():
    named = name_chord(triads_of(**{"F#m": 0.6, "D#dim": 0.3, "C#m": 0.05}))
    assert (named["chord"], named["type"], named["root"]) == ("F#m", "minor", "Gb")
    assert [other["chord"] for other in named["alternatives"][:2]] == ["D#dim", "C#m"]


def chords_of(**shares):
    """Probabilities (205,) of these chords, by label in Harte's syntax with _ for its colon; NO is no chord."""
    chords = np.zeros(N_CLASSES, np.float32)
    for label, share in shares.items():
        chords[parse_label(label.replace("_", ":", 1).replace("NO", "N"))[0]] = share
    return chords


def bass_of(root, share):
    bass = np.full(12, (1 - share) / 11, np.float32)
    bass[ROOTS.index(root)] = share
    return bass


@pytest.mark.parametrize(
    ("chords", "bass", "chord", "label", "name"),
    [
        # The triad is likelier than any other, though C major by itself is the likeliest chord.
        (dict(C_maj=0.4, A_min7=0.35, A_min=0.25), None, "Am", "A:min7", "Am7"),
        (dict(C_7=0.6, C_maj=0.4), None, "C", "C:7", "C7"),
        (dict(C_maj=0.9, NO=0.1), ("E", 0.6), "C", "C:maj/3", "C/E"),
        (dict(C_maj=0.9, NO=0.1), ("E", 0.4), "C", "C:maj", "C"),
        (dict(C_maj=0.9, NO=0.1), ("D", 0.9), "C", "C:maj", "C"),  # no note of the chord
        (dict(C_maj=0.9, NO=0.1), ("C", 0.9), "C", "C:maj", "C"),
        (dict(C_7=0.9), ("Bb", 0.9), "C", "C:7/b7", "C7/Bb"),
        (dict(C_sus4=0.5, C_5=0.3, C_maj=0.2), None, None, "C:sus4", "Csus4"),
        (dict(C_1=0.5, NO=0.2, C_maj=0.3), None, None, "C:1", "C (note)"),
        (dict(C_1=0.2, NO=0.4, C_maj=0.4), None, "N", "N", "N"),
        (dict(Gb_min7=1.0), ("E", 0.9), "F#m", "F#:min7/b7", "F#m7/E"),
    ],
)
def test_the_triad_is_named_first_then_the_chord_and_its_bass(chords, bass, chord, label, name):
    named = name_chord(chords_of(**chords), None if bass is None else bass_of(*bass), alternatives=0)
    assert (named["chord"], named["label"], named["name"]) == (chord, label, name)
    assert (named["type"] is None) == (named["root"] is None) == (chord in (None, "N"))
    assert named["bass"] == (bass[0] if "/" in name else None)


def test_confidences_of_the_triad_and_of_the_chord():
    named = name_chord(chords_of(A_min7=0.5, A_min=0.2, C_maj=0.2, C_sus4=0.1))
    shares = {key: round(named[key], 5) for key in named if key.endswith("confidence")}
    assert shares == {"confidence": 0.7, "type_confidence": 0.7, "root_confidence": 0.7, "label_confidence": 0.5}
    assert [(o["name"], o["chord"]) for o in named["alternatives"]] == [("Am", "Am"), ("C", "C"), ("Csus4", None)]
    unsure = name_chord(chords_of(C_sus4=0.4, NO=0.25, C_maj=0.35))
    assert (unsure["confidence"], unsure["label_confidence"]) == pytest.approx((0.65, 0.4))
    assert unsure["type_confidence"] is None and unsure["root_confidence"] is None


def test_a_chord_is_described_in_its_key():
    assert describe(read_chord("Gbm7/E"), "A major") == {
        "chord": "F#m",
        "type": "minor",
        "root": "Gb",
        "name": "F#m7/E",
        "label": "F#:min7/b7",
        "bass": "E",
    }
    for quality in range(N_QUALITIES):
        for root in range(12):
            described = describe(Chord(root, quality))
            assert described["chord"] is None or described["name"].startswith(described["chord"].rstrip("dimaug"))


def test_scores_of_triads_alone():
    full = chords_of(C_7=0.3, C_maj=0.1, C_sus4=0.35, NO=0.25)[None]
    joint = np.full((1, 12, 4), 1 / 48, np.float32)
    silent = np.zeros(1, bool)
    alone = Scores(joint.sum(1), joint.sum(2), joint, silent, full, bass_of("E", 0.9)[None]).of_triads()
    assert name_chord(alone.chords[0])["label"] == "C:maj" and name_chord(alone.chords[0])["confidence"] == 1
    assert alone.bass is None and alone.joint[0, ROOTS.index("C"), 0] == alone.roots.max() == alone.types.max() == 1
    # Where nothing speaks for a triad, all are as likely; a model of one task has none.
    nothing = Scores(None, None, joint, silent, chords_of(NO=1.0)[None]).of_triads()
    assert np.allclose(nothing.joint, 1 / 48)
    assert Scores(alone.types, None, None, silent).of_triads().chords is None


def test_a_model_of_triads_gives_no_other_chord_any_probability():
    joint = np.random.default_rng(0).dirichlet(np.ones(48), 3).reshape(3, 12, 4).astype(np.float32)
    scores = Scores(joint.sum(1), joint.sum(2), joint, np.zeros(3, bool))
    assert scores.chords.shape == (3, N_CLASSES) and scores.bass is None
    assert np.array_equal(scores.chords[:, :-1].reshape(3, 12, N_QUALITIES)[..., :4], joint)
    assert np.allclose(scores.chords.sum(axis=1), 1) and np.allclose(scores.of_triads().joint, joint)


def test_a_pair_answers_as_each_of_its_networks(tmp_path):
    files = save_pair(tmp_path)
    waveforms = np.stack([chord(root, kind) for root in range(12) for kind in range(4)])
    scores, (types, roots) = Predictor.load(files)(waveforms), (Predictor.load(path)(waveforms) for path in files)
    assert np.array_equal(scores.types, types.types) and np.array_equal(scores.roots, roots.roots)
    best = scores.joint.reshape(48, 48).argmax(1)
    assert np.array_equal(best, 4 * roots.roots.argmax(1) + types.types.argmax(1)) and np.array_equal(best, range(48))
    assert np.allclose(scores.joint.sum(axis=(1, 2)), 1, atol=1e-6) and scores.bass is None
    for row, waveform in enumerate(waveforms[:8]):  # whatever else it hears
        noise = waveform + np.random.default_rng(row).standard_normal(64_000).astype(np.float32)
        pair, one, other = (Predictor.load(model)(noise[None]) for model in (files, *files))
        assert pair.joint[0].argmax() == 4 * other.roots[0].argmax() + one.types[0].argmax()
    with pytest.raises(UserError, match="takes 64000 samples, not 4096"):
        Predictor.load(files)(waveforms[:, :4096])
