"""What the profile times: seeded clips, mel modules and networks. Making them is outside the clock."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from triadbench.core.constants import CLIP_SAMPLES, RECIPE_DEFAULTS, SAMPLE_RATE

if TYPE_CHECKING:
    import torch

    from triadbench.kernels.spec import MelSpec

SEED = 13


class Network(NamedTuple):
    """A network with what surrounds it in training.

    Attributes:
        name: class name.
        spec_name: name in `kernels.SPECS` of the mel it wants.
        module: float32 on the CPU, seeded weights.
        front_end: waveform (batch, 64000) -> what `module` takes.
        loss: (module's input, types (batch,), roots (batch,)) -> scalar, by a forward pass in its recipe's way.
        learning_rate: of Adam.
    """

    name: str
    spec_name: str
    module: torch.nn.Module
    front_end: Callable[[torch.Tensor], torch.Tensor]
    loss: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
    learning_rate: float


def make_waveform(batch: int) -> torch.Tensor:
    """Seeded clips (batch, 64000) in [-1, 1]: three decaying notes and a little noise, so that no band is empty."""
    import torch

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
    import numpy as np
    import torch

    chosen, middles = [], spec.mel_points()[1:-1]
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


def mel_flops(spec: MelSpec, clips: int, n_frames: int) -> float:
    """Operations of a mel: window n, real FFT 2.5 n log2 n, power 3 a bin, dense filterbank 2 a weight, per frame."""
    n_freqs = spec.n_fft // 2 + 1
    per_frame = spec.n_fft + 2.5 * spec.n_fft * math.log2(spec.n_fft) + 3 * n_freqs + 2 * n_freqs * spec.n_mels
    return clips * n_frames * per_frame


def torchaudio_mel(spec: MelSpec) -> torch.nn.Module:
    """torchaudio's own module with a spec's settings (Hann window)."""
    import torchaudio

    return torchaudio.transforms.MelSpectrogram(
        sample_rate=spec.sample_rate,
        n_fft=spec.n_fft,
        win_length=spec.win_length,
        hop_length=spec.hop_length,
        f_min=spec.f_min,
        f_max=spec.f_max,
        pad=spec.pad,
        n_mels=spec.n_mels,
        power=spec.power,
        normalized=spec.normalized,
        center=spec.center,
        pad_mode=spec.pad_mode,
        norm=spec.norm,
        mel_scale=spec.mel_scale,
    )


def drop_in_mel(spec: MelSpec, log: bool = False) -> torch.nn.Module:
    """Our module with the same settings, on the fastest backend that runs here; `.backend` says which."""
    from triadbench.kernels import MelSpectrogram

    return MelSpectrogram.from_spec(spec, log=log)


def make_networks() -> list[Network]:
    """The original type network and ours, with seeded random weights: a weight's value does not change its cost."""
    import torch

    from triadbench.core.models.networks import ChordNet, OriginalNet, chord_loss, original_loss
    from triadbench.kernels import CHORD, ORIGINAL

    original_mel, chord_mel = drop_in_mel(ORIGINAL), drop_in_mel(CHORD, log=True)
    # The caller's random state stays as it was: a profile must not change what a later training run draws.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        original, ours = OriginalNet(4), ChordNet()
    return [
        Network(
            name="OriginalNet",
            spec_name="ORIGINAL",
            module=original,
            front_end=lambda waveform: original_mel(waveform).unsqueeze(1),
            loss=lambda inputs, types, roots: original_loss(original(inputs), types),
            learning_rate=RECIPE_DEFAULTS["original"].learning_rate,
        ),
        Network(
            name="ChordNet",
            spec_name="CHORD",
            module=ours,
            front_end=chord_mel,
            loss=lambda inputs, types, roots: chord_loss(
                ours.joint(inputs), types, roots, torch.ones_like(types, dtype=torch.bool)
            ),
            learning_rate=RECIPE_DEFAULTS["ours"].learning_rate,
        ),
    ]
