"""The original's network is the published one; ours treats all twelve transpositions alike and does not hear gain."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.core.toys import all_names, chord, frequency, small_net, template_net
from triadbench.core.models.chords import ROOTS, TYPE_INTERVALS, TYPES, root_pitch_class
from triadbench.core.models.networks import (
    ChordNet,
    OriginalNet,
    PitchAxis,
    chord_loss,
    original_loss,
    original_loss_floor,
)
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
        one, moved = net.joint(axis), net.joint(axis.roll(3 * semitones, dims=1))
    over_roots = float(one.std(dim=1).min())  # the answer does depend on the root
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


# --- loss of ours ----------------------------------------------------------------------------------------------------

AUGMENTED = TYPES.index("augmented")


def loss(joint, root, kind, defined=True):
    return float(chord_loss(joint, torch.tensor([kind]), torch.tensor([root]), torch.tensor([defined])))


def test_loss_is_the_likelihood_of_the_true_chord():
    joint = torch.randn(1, 12, 4, generator=torch.Generator().manual_seed(0))
    for root, kind in ((0, 0), (7, 2), (11, 3)):
        wanted = -torch.log_softmax(joint.flatten(), 0)[root * 4 + kind]
        assert loss(joint, root, kind) == pytest.approx(float(wanted), abs=1e-6)


def test_where_the_root_is_undefined_any_of_the_three_will_do():
    joint = torch.randn(1, 12, 4, generator=torch.Generator().manual_seed(0))
    of_each = [loss(joint, (2 + 4 * k) % 12, AUGMENTED, False) for k in range(3)]
    assert of_each == pytest.approx([of_each[0]] * 3, abs=1e-6)
    wanted = sum(math.exp(-loss(joint, (2 + 4 * k) % 12, AUGMENTED, True)) for k in range(3))
    assert math.exp(-of_each[0]) == pytest.approx(wanted, rel=1e-5)
    spelt = [{(root_pitch_class((2 + 4 * k) % 12) + step) % 12 for step in TYPE_INTERVALS[AUGMENTED]} for k in range(3)]
    assert spelt[0] == spelt[1] == spelt[2]
    assert of_each[0] < min(loss(joint, (2 + 4 * k) % 12, AUGMENTED) for k in range(3))


def test_a_batch_is_averaged():
    joint = torch.randn(2, 12, 4, generator=torch.Generator().manual_seed(0))
    both = chord_loss(joint, torch.tensor([1, 3]), torch.tensor([5, 6]), torch.tensor([True, False]))
    assert float(both) == pytest.approx((loss(joint[:1], 5, 1) + loss(joint[1:], 6, 3, False)) / 2, abs=1e-6)


@pytest.mark.parametrize("defined", [True, False])
def test_gradient_reaches_every_weight(defined):
    net = small_net(2, width=4, hidden=16).train()
    mel = torch.randn(8, CHORD.n_mels, 33, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    types, roots = torch.randint(4, (8,), generator=generator), torch.randint(len(ROOTS), (8,), generator=generator)
    chord_loss(net.joint(mel), types, roots, torch.full((8,), defined)).backward()
    for name, parameter in net.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        # A softmax over the frames takes away the bias that all of them share.
        assert parameter.grad.abs().max() > 0 or name == "attention.bias", name
