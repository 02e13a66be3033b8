"""The networks: the original study's, one task each, and ours, which names chords of all qualities.

Both are convolutional. The original sees a power mel spectrogram as a picture. Ours sees it as music: the frequency
axis becomes a pitch axis, on which a transposed chord is the same picture a few rows higher, and every layer treats
all transpositions alike; what it learns of one root it knows of all twelve.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from triadbench.core.models.chords import ROOTS, TYPES, root_pitch_class
from triadbench.core.models.prediction import NO_TRIAD, REDUCTION
from triadbench.core.models.vocabulary import N_QUALITIES, QUALITIES
from triadbench.kernels.spec import CHORD, ORIGINAL, MelSpec

TRIAD_WEIGHT, BASS_WEIGHT, NOTES_WEIGHT = 0.5, 0.3, 0.1
"""Weights of the loss's terms beside the chord's own."""


class OriginalNet(nn.Module):
    """The original study's network ("VGG-ish", after V. Velardo), state-dict keys and shapes included; `n_classes`: 4
    for the type of chord, 12 for its root.
    """

    spec = ORIGINAL

    def __init__(self, n_classes: int):
        super().__init__()
        self.conv1, self.conv2, self.conv3, self.conv4 = (
            nn.Sequential(nn.Conv2d(n_in, n_out, kernel_size=3, padding=2), nn.ReLU(), nn.MaxPool2d(2))
            for n_in, n_out in ((1, 16), (16, 32), (32, 64), (64, 128))
        )
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(128 * 5 * 9, n_classes)
        self.softmax = nn.Softmax(dim=1)

    def forward(self, mel: Tensor) -> Tensor:
        """Probabilities (batch, n_classes) of a power mel spectrogram (batch, 1, 64, 126).

        The original hands these, and not logits, to the cross-entropy, which applies a softmax again.
        """
        return self.softmax(self.logits(mel))

    def logits(self, mel: Tensor) -> Tensor:
        """What the softmax is taken of, (batch, n_classes)."""
        return self.linear(self.flatten(self.conv4(self.conv3(self.conv2(self.conv1(mel))))))


class OriginalPair(nn.Module):
    """The original study's two networks as one model that names chords, as its app showed them: each answers alone, and
    a triad is as likely as its type times its root.
    """

    def __init__(self) -> None:
        super().__init__()
        self.types, self.roots = OriginalNet(len(TYPES)), OriginalNet(len(ROOTS))

    def joint(self, mel: Tensor) -> Tensor:
        """Log probabilities (batch, 12 roots, 4 types) of the triads, of a power mel spectrogram (batch, 64, 126)."""
        types, roots = (torch.log_softmax(net.logits(mel.unsqueeze(1)), dim=1) for net in (self.types, self.roots))
        return roots.unsqueeze(2) + types.unsqueeze(1)


class PitchAxis(nn.Module):
    """Resample the mel axis to `octaves` from MIDI number `low_midi` on, linearly between band centres."""

    matrix: Tensor

    def __init__(self, spec: MelSpec, low_midi: float, octaves: int, bins_per_semitone: int):
        super().__init__()
        n_bins = octaves * 12 * bins_per_semitone
        frequencies = torch.arange(spec.n_freqs, dtype=torch.float64) * spec.sample_rate / spec.n_fft
        filterbank = torch.from_numpy(spec.filterbank())
        centres = (filterbank @ frequencies) / filterbank.sum(dim=1).clamp(min=1e-12)
        midi = low_midi + torch.arange(n_bins, dtype=torch.float64) / bins_per_semitone
        target = (440.0 * 2.0 ** ((midi - 69) / 12)).clamp(centres[0], centres[-1])
        right = torch.searchsorted(centres, target).clamp(1, len(centres) - 1)
        weight = (target - centres[right - 1]) / (centres[right] - centres[right - 1])
        matrix = torch.zeros(n_bins, spec.n_mels, dtype=torch.float64)
        rows = torch.arange(n_bins)
        matrix[rows, right - 1] = 1 - weight
        matrix[rows, right] += weight
        self.register_buffer("matrix", matrix.float(), persistent=False)

    def forward(self, log_mel: Tensor) -> Tensor:
        """(batch, n_mels, n_frames) -> (batch, n_bins, n_frames)."""
        return torch.matmul(self.matrix, log_mel)


class Heads(NamedTuple):
    """What our network computes.

    Attributes:
        chords: logits (batch, 205) of the classes of `core.models.targets`.
        bass: logits (batch, 12) of the lowest note's pitch class, in root order.
        notes: a logit (batch, 12) for each pitch class that sounds; needed in training alone.
    """

    chords: Tensor
    bass: Tensor
    notes: Tensor


class ChordNet(nn.Module):
    """Our network: log mel spectrogram in, the chord and its bass out (`heads`), or type and root of its triad.

    1. Normalise by the clip's loudest cell, so that gain does not matter, and cut `RANGE_NATS` below it.
    2. Put it on a pitch axis (`PitchAxis`), and convolve down to one bin a semitone.
    3. Bring the harmonics of a note together: channels shifted by an octave, a twelfth, ... are stacked, so that the
       next layer sees a note's partials side by side (as Bittner et al., "Deep salience", ISMIR 2017, with their
       harmonic CQT), and convolve.
    4. Weigh the frames and sum them: a chord's sound matters, the silence before it does not.
    5. Look at two octaves around every semitone, fold the octaves onto twelve pitch classes, and convolve around the
       circle: one logit for every quality at every root, two for bass and notes, and from all of them one for no chord.

    Type and root come from one table of 12 x 4 joint logits (`joint_of`), each by summing over the other.

    Args:
        width, hidden: channels of the first stages and of the last. dropout: before the last layer, in training.
    """

    root_order: Tensor
    prior: Tensor
    temperature: Tensor
    LOW_MIDI, OCTAVES, BINS = 35, 6, 3
    RANGE_NATS = 14.0
    # In semitones: the second to eighth partial, and an octave below to tell a note from its own overtones.
    PARTIALS = (-12, 0, 12, 19, 24, 28, 31, 36)

    def __init__(self, spec: MelSpec = CHORD, width: int = 8, hidden: int = 48, dropout: float = 0.2):
        super().__init__()
        self.spec = spec
        self.config = {"width": width, "hidden": hidden, "dropout": dropout}
        self.pitch_axis = PitchAxis(spec, self.LOW_MIDI - 1 / self.BINS, self.OCTAVES, self.BINS)
        # Stride over pitch: one output a semitone, centred on it. Over time: frames overlap, and a chord lasts.
        self.stem = _conv2d(1, width, kernel=(7, 5), stride=(self.BINS, 4), padding=(2, 2))
        self.harmonics = _conv2d(width * len(self.PARTIALS), 2 * width, kernel=(1, 1))
        self.mix1, self.mix2 = (_conv2d(2 * width, 2 * width, kernel=(3, 3), padding=(1, 1)) for _ in range(2))
        self.attention = nn.Conv1d(2 * width, 1, kernel_size=3, padding=1)
        self.around = nn.Sequential(*_conv1d(4 * width, hidden, 25, 12), *_conv1d(hidden, hidden, 13, 6))
        self.circle = nn.Sequential(*_conv1d(2 * hidden, hidden, 12), nn.Dropout(dropout))
        self.at_root = nn.Conv1d(hidden, N_QUALITIES + 2, kernel_size=1)
        self.no_chord = nn.Linear(2 * hidden, 1)
        # The pitch axis starts at LOW_MIDI; this is where each root of the label order lies on the folded circle.
        order = [(root_pitch_class(root) - self.LOW_MIDI) % 12 for root in range(len(ROOTS))]
        self.register_buffer("root_order", torch.tensor(order), persistent=False)
        # Calibration, set after training: what is added to the logits of each quality and of N, and what divides them.
        self.register_buffer("prior", torch.zeros(N_QUALITIES + 1))
        self.register_buffer("temperature", torch.ones(()))

    def heads(self, log_mel: Tensor) -> Heads:
        """Logits of chords, bass and notes, from a log mel spectrogram (batch, n_mels, n_frames)."""
        loudest = log_mel.amax(dim=(1, 2), keepdim=True)
        x = (log_mel - loudest).clamp(min=-self.RANGE_NATS) * (2 / self.RANGE_NATS) + 1
        x = self.stem(self.pitch_axis(x).unsqueeze(1))
        n = self.OCTAVES * 12
        padded = nn.functional.pad(x, (0, 0, 12, max(self.PARTIALS)))
        x = self.harmonics(torch.cat([padded[:, :, 12 + shift : 12 + shift + n] for shift in self.PARTIALS], dim=1))
        x = self.mix1(x) + x
        x = self.mix2(x) + x
        weights = torch.softmax(self.attention(x.mean(dim=2)), dim=-1).unsqueeze(2)
        x = torch.cat([(x * weights).sum(dim=-1), x.amax(dim=-1)], dim=1)
        x = self.around(x)
        x = x.reshape(x.shape[0], x.shape[1], self.OCTAVES, 12)  # -1 fails for an empty batch
        x = torch.cat([x.amax(dim=2), x.mean(dim=2)], dim=1)
        x = self.circle(torch.cat([x, x[..., :11]], dim=-1))
        at_root = self.at_root(x).index_select(-1, self.root_order).transpose(1, 2)
        no_chord = self.no_chord(torch.cat([x.amax(dim=-1), x.mean(dim=-1)], dim=1))
        chords, bass, notes = at_root.split([N_QUALITIES, 1, 1], dim=2)
        return Heads(torch.cat([chords.flatten(1), no_chord], dim=1), bass.squeeze(2), notes.squeeze(2))

    def calibrated(self, chords: Tensor) -> Tensor:
        """Logits (batch, 205) of `heads` with prior and temperature; their softmax are the probabilities."""
        prior = torch.cat([self.prior[:-1].repeat(len(ROOTS)), self.prior[-1:]])
        return (chords + prior) / self.temperature

    def joint(self, log_mel: Tensor) -> Tensor:
        """Logits (batch, 12 roots, 4 types) of the triads; a chord without one, and no chord, favours none of them."""
        return joint_of(self.calibrated(self.heads(log_mel).chords))

    def forward(self, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of type (batch, 4) and root (batch, 12); their softmax are the probabilities."""
        joint = self.joint(log_mel)
        return torch.logsumexp(joint, dim=1), torch.logsumexp(joint, dim=2)


def _conv2d(n_in: int, n_out: int, kernel: tuple[int, int], **options) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(n_in, n_out, kernel, bias=False, **options), nn.BatchNorm2d(n_out), nn.ReLU())


def _conv1d(n_in: int, n_out: int, kernel: int, padding: int = 0) -> tuple[nn.Module, ...]:
    return nn.Conv1d(n_in, n_out, kernel, padding=padding), nn.BatchNorm1d(n_out), nn.ReLU()


def triad_log_probabilities(chords: Tensor) -> Tensor:
    """Log probabilities (batch, 49) of the 48 triads and of none, from logits (batch, 205) of the chords."""
    triad = chords[:, :-1].reshape(-1, len(ROOTS), N_QUALITIES)
    members = [[k for k, quality in enumerate(QUALITIES) if quality.triad == t] for t in (*range(len(TYPES)), None)]
    *types, rest = (triad[:, :, columns].logsumexp(2) for columns in members)
    none = _logaddexp(rest.logsumexp(1), chords[:, -1])
    summed = torch.cat([torch.stack(types, dim=2).flatten(1), none.unsqueeze(1)], dim=1)
    return summed - chords.logsumexp(dim=1, keepdim=True)


def _logaddexp(one: Tensor, other: Tensor) -> Tensor:
    """torch.logaddexp is exported to ONNX as exponentials, their sum and its logarithm, which is infinite too soon."""
    return torch.stack(torch.broadcast_tensors(one, other)).logsumexp(dim=0)


def joint_of(chords: Tensor) -> Tensor:
    """Logits (batch, 12 roots, 4 types) of the triads from logits (batch, 205) of the chords. What has no triad is
    spread evenly over all of them, so that their softmax is unsure of type and root."""
    triads = triad_log_probabilities(chords)
    spread = triads[:, NO_TRIAD:] - math.log(NO_TRIAD)
    return _logaddexp(triads[:, :NO_TRIAD], spread).reshape(-1, len(ROOTS), len(TYPES))


def chord_loss(heads: Heads, allowed: Tensor, bass: Tensor, notes: Tensor) -> Tensor:
    """The clips' mean loss: negative log likelihoods of chord, triad, bass and notes, weighted.

    Chords of the same notes may all be right (`core.models.targets.allowed_classes`): their probabilities are summed,
    and so are those of their triads. The triads' own term keeps a plain triad as sure as among triads alone.

    Args:
        allowed: classes that are right, bool (batch, 205).
        bass: index of the lowest note in root order (batch,), or -1. notes: those that sound, float (batch, 12) in root
            order; NaN where they are not known.
    """
    log_p = torch.log_softmax(heads.chords, dim=1)
    chord = log_p.masked_fill(~allowed, -torch.inf).logsumexp(dim=1)
    reduction = torch.from_numpy(REDUCTION).to(allowed.device).expand(len(allowed), -1)
    triads = torch.zeros(len(allowed), NO_TRIAD + 1, device=allowed.device).scatter_add_(1, reduction, allowed.float())
    triad = triad_log_probabilities(heads.chords).masked_fill(triads == 0, -torch.inf).logsumexp(dim=1)
    lowest = nn.functional.cross_entropy(heads.bass, bass.clamp(min=0), reduction="none") * (bass >= 0)
    known = ~notes.isnan()
    each = nn.functional.binary_cross_entropy_with_logits(heads.notes, notes.nan_to_num(), reduction="none")
    sounding = (each * known).mean(dim=1)
    return (BASS_WEIGHT * lowest + NOTES_WEIGHT * sounding - chord - TRIAD_WEIGHT * triad).mean()


def original_loss(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy applied to the softmax's output, as the original does: it cannot fall below a floor over zero."""
    return nn.functional.cross_entropy(probabilities, labels)


def original_loss_floor(n_classes: int) -> float:
    """Smallest value of `original_loss`: all probability on the true class."""
    return math.log(math.e + n_classes - 1) - 1
