"""The original's network is the published one; ours treats all twelve transpositions alike and does not hear gain."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.core.toys import all_names, chord, frequency, small_net, template_net
from triadbench.core.models import networks
from triadbench.core.models.chords import root_index
from triadbench.core.models.networks import (
    BASS_WEIGHT,
    NOTES_WEIGHT,
    TRIAD_WEIGHT,
    ChordNet,
    Heads,
    OriginalNet,
    PitchAxis,
    chord_loss,
    original_loss,
    original_loss_floor,
    triad_log_probabilities,
)
from triadbench.core.models.prediction import NO_TRIAD, REDUCTION
from triadbench.core.models.targets import allowed_classes, parse_label
from triadbench.core.models.vocabulary import N_CLASSES
from triadbench.kernels import MelSpectrogram
from triadbench.kernels.spec import CHORD, ORIGINAL

WIDTHS = (1, 16, 32, 64, 128)


def published_state(n_classes, seed=0):
    """A state dict with the keys and shapes of the study's published checkpoints."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for i in range(4):
        fan_in = 9 * WIDTHS[i]
        state[f"conv{i + 1}.0.weight"] = torch.randn(WIDTHS[i + 1], WIDTHS[i], 3, 3, generator=generator) / fan_in**0.5
        state[f"conv{i + 1}.0.bias"] = torch.randn(WIDTHS[i + 1], generator=generator) * 0.1
    state["linear.weight"] = torch.randn(n_classes, 128 * 5 * 9, generator=generator) / 5760**0.5
    state["linear.bias"] = torch.randn(n_classes, generator=generator) * 0.1
    return state


def published_forward(state, mel):
    """The facts, written out: conv 3x3 padding 2, ReLU, pooling 2, four times; flatten, linear, softmax."""
    x = mel
    for i in range(1, 5):
        x = F.max_pool2d(F.relu(F.conv2d(x, state[f"conv{i}.0.weight"], state[f"conv{i}.0.bias"], padding=2)), 2)
    return torch.softmax(x.flatten(1) @ state["linear.weight"].T + state["linear.bias"], dim=1)


# --- the original's --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [4, 12])
def test_original_takes_the_published_weights_and_answers_as_they_do(n_classes):
    state = published_state(n_classes)
    net = OriginalNet(n_classes)
    assert [(k, v.shape) for k, v in net.state_dict().items()] == [(k, v.shape) for k, v in state.items()]
    net.load_state_dict(state)
    mel = torch.rand(3, 1, 64, 126, generator=torch.Generator().manual_seed(1))
    answer = net(mel)
    assert torch.allclose(answer, published_forward(state, mel), atol=1e-6)
    assert answer.shape == (3, n_classes) and torch.allclose(answer.sum(1), torch.ones(3))
    assert answer.std() > 0.01


def test_original_sees_the_original_mel():
    assert OriginalNet.spec == ORIGINAL and (ORIGINAL.n_mels, ORIGINAL.n_frames(64_000)) == (64, 126)


@pytest.mark.parametrize(("n_classes", "floor"), [(4, 0.744), (12, 1.619)])
def test_original_loss_cannot_fall_below_its_floor(n_classes, floor):
    assert original_loss_floor(n_classes) == pytest.approx(floor, abs=5e-4)
    certain = torch.eye(n_classes)
    labels = torch.arange(n_classes)
    assert float(original_loss(certain, labels)) == pytest.approx(original_loss_floor(n_classes), abs=1e-6)
    less = torch.full((n_classes, n_classes), 0.01) + certain * (1 - 0.01 * n_classes)
    assert original_loss(less, labels) > original_loss(certain, labels)
    assert float(original_loss(torch.full((1, n_classes), 1 / n_classes), labels[:1])) == pytest.approx(
        math.log(n_classes)
    )


# --- pitch axis ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def net():
    return small_net()


@pytest.fixture(scope="module")
def transform():
    return MelSpectrogram.from_spec(CHORD, log=True)


def sine_mel(midi, transform, seconds=1.0):
    t = np.arange(round(16_000 * seconds)) / 16_000
    return transform(torch.from_numpy(np.sin(2 * np.pi * frequency(midi) * t).astype(np.float32)[None]))


@pytest.mark.parametrize("midi", [48, 52, 60, 65, 69, 72, 77, 81, 88, 96])
def test_a_sine_lies_at_its_semitone(net, transform, midi):
    axis = net.pitch_axis(sine_mel(midi, transform)).mean(dim=2)[0]
    # Bin 1 is LOW_MIDI, and three bins make a semitone.
    assert int(axis.argmax()) == pytest.approx(1 + 3 * (midi - ChordNet.LOW_MIDI), abs=1)


def test_pitch_axis_interpolates_between_band_centres():
    matrix = PitchAxis(CHORD, 35, 6, 3).matrix
    assert matrix.shape == (216, CHORD.n_mels)
    assert torch.allclose(matrix.sum(dim=1), torch.ones(216), atol=1e-6)
    assert matrix.min() >= 0 and int((matrix > 0).sum(dim=1).max()) <= 2
    centres = torch.from_numpy(np.diff(CHORD.mel_points())[:1] * 0 + CHORD.mel_points()[1:-1]).float()
    wanted = torch.tensor([frequency(35 + k / 3) for k in range(216)]).clamp(float(centres[0]), float(centres[-1]))
    # The filters' centres of mass lie within a third of a bin of their peaks; a bin is a third of a semitone, 2 %.
    assert torch.allclose(matrix @ centres, wanted, rtol=0.02)


# --- ours ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def bare(monkeypatch):
    """Nets take a pitch axis in place of a log mel, so that a shift by a semitone can be made exactly."""

    def make(net):
        monkeypatch.setattr(net, "pitch_axis", torch.nn.Identity())
        return net

    return make


def centred_net(seed):
    """A random net whose layers look no further than an octave, so that what lies in the middle never meets an edge,
    and that answers nothing to nothing."""
    net = small_net(seed, width=4, hidden=16)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
                module.running_mean.zero_()
        for layer in (net.around[0], net.around[3]):
            layer.bias.zero_()
            middle = layer.weight.shape[-1] // 2
            layer.weight[:, :, : middle - 2] = 0
            layer.weight[:, :, middle + 3 :] = 0
        far = [i for i, shift in enumerate(net.PARTIALS) if abs(shift) > 12]
        net.harmonics[0].weight.view(8, len(net.PARTIALS), 4)[:, far] = 0
    return net


@pytest.mark.parametrize("semitones", [1, 2, 7, 12, -5])
def test_a_transposed_chord_is_the_same_answer_at_other_roots(bare, semitones):
    generator = torch.Generator().manual_seed(3)
    net = bare(centred_net(1))
    axis = torch.zeros(2, 216, 17)  # half of RANGE_NATS below the loudest: what the net sees as zero
    axis[:, 3 * 30 : 3 * 40] = torch.rand(2, 30, 17, generator=generator) * 14 - 7
    axis[:, 100, 5] = 7
    with torch.inference_mode():
        first, second = net.heads(axis), net.heads(axis.roll(3 * semitones, dims=1))
    assert torch.allclose(first.chords[:, -1], second.chords[:, -1], atol=1e-4)
    one, moved = (torch.cat([h.chords[:, :-1].reshape(2, 12, -1), h.bass[..., None]], dim=2) for h in (first, second))
    over_roots = float(one.std(dim=1).mean())  # the answer does depend on the root
    assert over_roots > 0.01
    assert float((one.roll(semitones, dims=1) - moved).abs().max()) < 1e-3 * over_roots


def test_every_root_and_type_stands_in_label_order(transform):
    names = all_names()
    mel = transform(torch.from_numpy(np.stack([chord(name.root, name.type) for name in names])))
    with torch.inference_mode():
        best = template_net().joint(mel).flatten(1).argmax(dim=1)
    assert best.tolist() == [name.root * 4 + name.type for name in names]


def test_gain_is_not_heard(net, transform):
    mel = transform(torch.from_numpy(chord(3, 1)[None]))
    with torch.inference_mode():
        one, other = net.joint(mel), net.joint(transform(torch.from_numpy(chord(4, 1)[None])))
        apart = float((other - one).abs().max())
        for nats in (-8.0, -1.3, 5.0):
            assert float((net.joint(mel + nats) - one).abs().max()) < 1e-3 * apart


def test_one_clip_of_a_batch_does_not_change_another(net, transform):
    mel = transform(torch.from_numpy(np.stack([chord(3, 1), 30 * chord(8, 2)])))
    with torch.inference_mode():
        assert torch.allclose(net.joint(mel), torch.cat([net.joint(mel[:1]), net.joint(mel[1:])]), atol=1e-5)


@pytest.mark.parametrize("level", [math.log(1e-10), 0.0, 30.0], ids=["silence", "even", "loud"])
def test_no_contrast_is_finite(net, level):
    with torch.inference_mode():
        assert torch.isfinite(net.joint(torch.full((1, CHORD.n_mels, 63), level))).all()


@pytest.mark.parametrize("n_frames", [1, 2, 5, 63, 64, 500])
def test_any_number_of_frames(net, n_frames):
    mel = torch.randn(2, CHORD.n_mels, n_frames, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        types, roots = net(mel)
    assert (
        types.shape == (2, 4) and roots.shape == (2, 12) and torch.isfinite(types).all() and torch.isfinite(roots).all()
    )


def test_type_and_root_marginalise_the_joint(net):
    mel = torch.randn(3, CHORD.n_mels, 20, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        joint, (types, roots) = torch.softmax(net.joint(mel).flatten(1), 1).reshape(3, 12, 4), net(mel)
    assert torch.allclose(torch.softmax(types, 1), joint.sum(1), atol=1e-6)
    assert torch.allclose(torch.softmax(roots, 1), joint.sum(2), atol=1e-6)


def test_the_default_net_is_small():
    # A few MB at most: float32 and 4 bytes each.
    assert sum(parameter.numel() for parameter in ChordNet().parameters()) < 700_000


def test_dropout_is_for_training_alone():
    net = ChordNet(width=2, hidden=8, dropout=0.9)
    mel = torch.randn(2, CHORD.n_mels, 20, generator=torch.Generator().manual_seed(0))
    net.eval()
    assert torch.equal(net.joint(mel), net.joint(mel))
    net.train()
    assert not torch.equal(net.joint(mel), net.joint(mel))


# --- heads and loss of ours ------------------------------------------------------------------------------------------


def heads_of(chords, bass=None, notes=None):
    rows = len(chords)
    return Heads(chords, *(torch.zeros(rows, 12) if part is None else part for part in (bass, notes)))


def random_chords(rows=1, seed=0):
    return torch.randn(rows, N_CLASSES, generator=torch.Generator().manual_seed(seed)) * 2


def loss(heads, label, weights=(0, 0, 0), bass=-1, notes=None):
    """Of one clip, by terms: its weights are those of triad, bass and notes."""
    notes = torch.full((1, 12), math.nan) if notes is None else notes
    with pytest.MonkeyPatch.context() as patch:
        for name, weight in zip(("TRIAD_WEIGHT", "BASS_WEIGHT", "NOTES_WEIGHT"), weights, strict=True):
            patch.setattr(networks, name, weight)
        allowed = torch.from_numpy(allowed_classes(label))[None]
        return float(chord_loss(heads, allowed, torch.tensor([bass]), notes))


def test_chords_bass_and_notes_stand_in_root_order(net):
    mel = torch.randn(2, CHORD.n_mels, 20, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        heads = net.heads(mel)
    assert (heads.chords.shape, heads.bass.shape, heads.notes.shape) == ((2, N_CLASSES), (2, 12), (2, 12))


def test_a_triads_probability_is_that_of_its_chords():
    chords = random_chords(3)
    p, triads = torch.softmax(chords, 1), triad_log_probabilities(chords).exp()
    for triad in range(NO_TRIAD + 1):
        assert torch.allclose(triads[:, triad], p[:, torch.from_numpy(REDUCTION == triad)].sum(1), atol=1e-6)


@pytest.mark.parametrize("label", ["C:7", "A:min6", "N", "G:sus4", "D:1"])
def test_loss_is_the_likelihood_of_the_true_chord(label):
    chords = random_chords()
    wanted = -torch.log_softmax(chords[0], 0)[parse_label(label)[0]]
    assert loss(heads_of(chords), label) == pytest.approx(float(wanted), abs=1e-5)


def test_the_triads_term_is_the_likelihood_of_the_triad():
    chords = random_chords()
    for label, triad in (("C:maj7", 4 * root_index(0)), ("G:sus4", NO_TRIAD), ("N", NO_TRIAD)):
        both, chord = loss(heads_of(chords), label, (1, 0, 0)), loss(heads_of(chords), label)
        wanted = -float(triad_log_probabilities(chords)[0, triad])
        assert both - chord == pytest.approx(wanted, abs=1e-5)


def test_where_the_bass_leaves_the_root_open_every_chord_of_the_notes_will_do():
    chords = random_chords()
    wanted = sum(math.exp(-loss(heads_of(chords), label)) for label in ("A:min7", "C:maj6"))
    assert math.exp(-loss(heads_of(chords), "A:min7/b3")) == pytest.approx(wanted, rel=1e-5)
    triads = triad_log_probabilities(chords)[0].exp()
    wanted = float(triads[4 * root_index(9) + 1] + triads[4 * root_index(0)])
    term = loss(heads_of(chords), "A:min7/b3", (1, 0, 0)) - loss(heads_of(chords), "A:min7/b3")
    assert math.exp(-term) == pytest.approx(wanted, rel=1e-4)


def test_bass_and_notes_count_where_they_are_known():
    chords, bass = random_chords(), torch.randn(1, 12, generator=torch.Generator().manual_seed(4))
    heads = heads_of(chords, bass, 2 * bass)
    alone, notes = loss(heads, "C:maj"), (bass > 0).float()
    assert loss(heads, "C:maj", (0, 1, 1)) == pytest.approx(alone, abs=1e-6)
    known = loss(heads, "C:maj", (0, 1, 0), bass=5) - alone
    assert known == pytest.approx(-float(torch.log_softmax(bass[0], 0)[5]), abs=1e-5)
    known = loss(heads, "C:maj", (0, 0, 1), notes=notes) - alone
    assert known == pytest.approx(float(F.binary_cross_entropy_with_logits(2 * bass, notes)), abs=1e-5)


def test_a_batch_is_averaged():
    chords = random_chords(2)
    allowed = torch.from_numpy(np.stack([allowed_classes("C:maj"), allowed_classes("N")]))
    both = chord_loss(heads_of(chords), allowed, torch.tensor([3, -1]), torch.zeros(2, 12))
    weights = TRIAD_WEIGHT, BASS_WEIGHT, NOTES_WEIGHT
    silent = torch.zeros(1, 12)
    one = loss(heads_of(chords[:1]), "C:maj", weights, 3, silent), loss(heads_of(chords[1:]), "N", weights, -1, silent)
    assert float(both) == pytest.approx(sum(one) / 2, abs=1e-6)


def test_without_a_triad_type_and_root_are_unsure():
    net = template_net()
    with torch.no_grad():
        net.no_chord.bias[0] = 1000
        types, roots = net(torch.zeros(1, CHORD.n_mels, 9))
    assert torch.allclose(torch.softmax(types, 1), torch.full((1, 4), 1 / 4))
    assert torch.allclose(torch.softmax(roots, 1), torch.full((1, 12), 1 / 12))


def test_gradient_reaches_every_weight():
    net = small_net(2, width=4, hidden=16).train()
    generator = torch.Generator().manual_seed(0)
    mel = torch.randn(8, CHORD.n_mels, 33, generator=generator)
    labels = ["C:maj", "D:min7/b3", "N", "E:5", "F:sus4", "G:7", "A:1", "B:dim7/b3"]
    allowed = torch.from_numpy(np.stack([allowed_classes(label) for label in labels]))
    chord_loss(net.heads(mel), allowed, torch.arange(8) - 1, torch.rand(8, 12, generator=generator).round()).backward()
    for name, parameter in net.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        # A softmax over the frames takes away the bias that all of them share.
        assert parameter.grad.abs().max() > 0 or name == "attention.bias", name
