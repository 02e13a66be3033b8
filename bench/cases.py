"""What is timed: seeded clips, mel modules, networks and counts. Making them is outside the clock."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from triadbench.core.constants import CLIP_SAMPLES, RECIPE_DEFAULTS, SAMPLE_RATE, usable_cores
from triadbench.core.errors import UserError
from triadbench.kernels.spec import MelSpec

SEED = 13


class Network(NamedTuple):
    """A network with what surrounds it in training."""

    name: str
    spec_name: str  # in `kernels.SPECS`, of its mel
    module: torch.nn.Module  # float32 on the CPU, seeded weights
    front_end: Callable[[torch.Tensor], torch.Tensor]  # waveform (batch, 64000) -> what `module` takes
    forward: Callable[[torch.Tensor], Any]  # `module`'s input -> its answer, as its recipe trains it
    answer_loss: Callable[..., torch.Tensor]  # (answer, types (batch,), roots (batch,)) -> scalar
    learning_rate: float  # of Adam

    def loss(self, inputs: torch.Tensor, types: torch.Tensor, roots: torch.Tensor) -> torch.Tensor:
        """Scalar loss of a forward pass."""
        return self.answer_loss(self.forward(inputs), types, roots)


def make_labels(batch: int, device: str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    """Seeded (types, roots), each (batch,)."""
    generator = torch.Generator().manual_seed(SEED)
    types = torch.randint(0, 4, (batch,), generator=generator)
    return types.to(device), torch.randint(0, 12, (batch,), generator=generator).to(device)


def check_counts(batches: Sequence[int], threads: Sequence[int], most_batch: int) -> tuple[int, ...]:
    """The thread counts in order, without repeats; of none 1 and all cores. Raises UserError for one out of range."""
    cores = usable_cores()
    limits = (("batch", batches, most_batch, ""), ("threads", threads, cores, ", the cores of this machine"))
    for name, values, most, meaning in limits:
        for value in values:
            if not 1 <= value <= most:
                raise UserError(f"{name}={value} must be in 1 to {most:,}{meaning}")
    return tuple(sorted(set(threads or (1, cores))))


def make_waveform(batch: int) -> torch.Tensor:
    """Seeded clips (batch, 64000) in [-1, 1]: three decaying notes and a little noise, so that no band is empty."""
    generator = torch.Generator().manual_seed(SEED)
    time_s = torch.arange(CLIP_SAMPLES, dtype=torch.float32) / SAMPLE_RATE
    midi = torch.randint(48, 84, (batch, 3, 1), generator=generator).float()
    frequency = 440.0 * 2.0 ** ((midi - 69.0) / 12.0)
    notes = torch.sin(2 * math.pi * frequency * time_s).sum(dim=1) * torch.exp(-time_s) * 0.2
    return notes + 1e-3 * torch.randn(batch, CLIP_SAMPLES, generator=generator)


def tilted_tones(spec: MelSpec, tilt_db: float) -> tuple[torch.Tensor, list[int]]:
    """One second (1, sample_rate) of tones whose amplitudes fall (or rise, below 0) by `tilt_db`, and their filters.

    A tone lies in the middle of filters at least four bins apart: nearer ones beat, and cancel in some frames.
    """
    chosen: list[int] = []
    middles = spec.mel_points()[1:-1]
    apart = 4 * spec.sample_rate / spec.n_fft
    for m, middle in enumerate(middles):
        below = middles[chosen[-1]] if chosen else 0.0
        if below + apart <= middle < spec.sample_rate / 2 - apart:
            chosen.append(m)
    level_db = np.linspace(min(0, tilt_db), min(0, -tilt_db), len(chosen))
    phase = np.random.default_rng(SEED).uniform(0, 2 * np.pi, len(chosen))
    time_s = np.arange(spec.sample_rate) / spec.sample_rate
    tones = np.sin(2 * np.pi * middles[chosen][:, None] * time_s + phase[:, None])
    waveform = (10 ** (level_db[:, None] / 20) * tones).sum(axis=0)
    return torch.from_numpy((0.5 * waveform / np.abs(waveform).max()).astype(np.float32))[None], chosen


def torchaudio_mel(spec: MelSpec) -> torch.nn.Module:
    """torchaudio's own module with a spec's settings (Hann window)."""
    import torchaudio

    names = "sample_rate n_fft win_length hop_length f_min f_max n_mels mel_scale norm".split()
    names += "pad center pad_mode power normalized".split()
    return torchaudio.transforms.MelSpectrogram(**{name: getattr(spec, name) for name in names})


def make_networks() -> list[Network]:
    """The original type network and ours, with seeded random weights: a weight's value does not change its cost."""
    from triadbench.core.models.networks import ChordNet, Heads, OriginalNet, chord_loss, original_loss
    from triadbench.core.models.vocabulary import N_CLASSES, N_QUALITIES
    from triadbench.kernels import CHORD, ORIGINAL, MelSpectrogram

    original_mel, chord_mel = MelSpectrogram.from_spec(ORIGINAL), MelSpectrogram.from_spec(CHORD, log=True)
    # The caller's random state stays as it was: a profile must not change what a later training run draws.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        original, chord = OriginalNet(4), ChordNet()

    def original_front_end(waveform: torch.Tensor) -> torch.Tensor:
        return original_mel(waveform).unsqueeze(1)

    def type_loss(answer: torch.Tensor, types: torch.Tensor, roots: torch.Tensor) -> torch.Tensor:
        return original_loss(answer, types)

    def heads_loss(heads: Heads, types: torch.Tensor, roots: torch.Tensor) -> torch.Tensor:
        allowed = torch.nn.functional.one_hot(roots * N_QUALITIES + types, N_CLASSES).bool()
        return chord_loss(heads, allowed, roots, torch.zeros_like(heads.notes))

    rates = {recipe: defaults.learning_rate for recipe, defaults in RECIPE_DEFAULTS.items()}
    return [
        Network("OriginalNet", "ORIGINAL", original, original_front_end, original, type_loss, rates["original"]),
        Network("ChordNet", "CHORD", chord, chord_mel, chord.heads, heads_loss, rates["ours"]),
    ]
