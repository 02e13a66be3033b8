"""Labelled chords made by torch on the device, tens of thousands in seconds: where no instrument and no data set is.

The 48 chords of the original study in three octaves and in inversions, as decaying partials of random brightness,
decay, tuning and level, with a little noise. What the clips are depends on the seed alone; their noise, which is drawn
on the device, on the device as well.
"""

import math
import wave
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from triadbench.core.constants import CLIP_SAMPLES, SAMPLE_RATE
from triadbench.core.models.chords import TYPE_INTERVALS, VOICINGS, ClipName, root_pitch_class

_CHUNK = 256  # clips made together; a chunk and what it takes to make it are 400 MB
_PARTIALS = 8
_ATTACK_S = 0.01
_AUGMENTED = 3
# From a clip's least to its most: a partial's amplitude over that of the one below, decay (1/s), level, noise.
_RANGES = ((0.3, 0.8), (0.4, 2.0), (0.5, 0.9), (1e-4, 3e-3))


def clip_names(n: int, seed: int = 13) -> list[ClipName]:
    """What `n` clips are of: every 48 of them each chord once, shuffled."""
    draw = torch.Generator().manual_seed(seed)
    names = []
    for block in range(-(-n // 48)):
        numbers = zip(torch.randperm(48, generator=draw).tolist(), _integers(48, 27, draw), strict=True)
        for place, (chord, more) in enumerate(numbers):
            (root, kind), octave, volume, inversion = divmod(chord, 4), more // 9, more // 3 % 3, more % 3
            # An inverted augmented triad is the same notes as another one: its root cannot be told.
            voicing = VOICINGS[0 if kind == _AUGMENTED else inversion]
            names.append(ClipName(root, kind, 3 + octave, "pmf"[volume], 48 * block + place, voicing))
    return names[:n]


def make_chunks(names: list[ClipName], device: str | torch.device, seed: int = 13) -> Iterator[Tensor]:
    """Waveforms (up to 256, 64000) float32 on the device, in [-1, 1], of the clips in their order."""
    draw, noise = torch.Generator().manual_seed(seed), torch.Generator(device).manual_seed(seed)
    time_s = torch.arange(CLIP_SAMPLES, device=device) / SAMPLE_RATE
    attack = (time_s / _ATTACK_S).clamp(max=1)
    for start in range(0, len(names), _CHUNK):
        chunk = names[start : start + _CHUNK]
        n = len(chunk)
        notes = torch.tensor([_notes(name) for name in chunk]) + 0.05 * torch.randn(n, 3, generator=draw)
        parts = [low + (high - low) * torch.rand(n, 1, generator=draw) for low, high in _RANGES]
        brightness, decay, level, hiss = parts
        loudness = torch.tensor([[{"p": 0.25, "m": 0.5, "f": 1.0}[name.volume or "f"]] for name in chunk])
        phases = 2 * math.pi * torch.rand(n, 3 * _PARTIALS, generator=draw)
        order = torch.arange(1, _PARTIALS + 1).repeat(3)
        hertz = order * 440 * torch.exp2((notes.repeat_interleave(_PARTIALS, dim=1) - 69) / 12)
        amplitudes = torch.where(hertz < SAMPLE_RATE / 2, brightness ** (order - 1), 0.0)
        rates = decay * (1 + 0.3 * (order - 1))
        partials = [part.to(device).split(1, dim=1) for part in (2 * math.pi * hertz, phases, amplitudes, rates)]
        waveforms = torch.zeros(n, CLIP_SAMPLES, device=device)
        for frequency, phase, amplitude, rate in zip(*partials, strict=True):
            waveforms += amplitude * torch.exp(-rate * time_s) * torch.sin(frequency * time_s + phase)
        waveforms *= attack / waveforms.abs().amax(dim=1, keepdim=True)
        waveforms += hiss.to(device) * torch.randn(n, CLIP_SAMPLES, device=device, generator=noise)
        yield (waveforms * (level * loudness).to(device)).clamp(-1, 1)


def write_wavs(n: int, folder: Path, device: str | torch.device, seed: int = 13) -> Path:
    """`folder`, with `n` clips as 16-bit mono files under the data set's names."""
    folder.mkdir(parents=True)
    names = clip_names(n, seed)
    files = iter(names)
    for waveforms in make_chunks(names, device, seed):
        for samples in (32767 * waveforms).round().to(torch.int16).cpu().numpy():
            with wave.open(str(folder / f"{next(files).format()}.wav"), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(SAMPLE_RATE)
                file.writeframes(samples.astype("<i2").tobytes())
    return folder


def _integers(n: int, most: int, draw: torch.Generator) -> list[int]:
    return torch.randint(most, (n,), generator=draw).tolist()


def _notes(name: ClipName) -> list[float]:
    """MIDI numbers of a close triad; an inversion puts its lowest notes an octave up."""
    assert name.octave is not None, "these names state it"
    root, raised = 12 * (name.octave + 1) + root_pitch_class(name.root), VOICINGS.index(name.voicing)
    return [root + step + 12.0 * (i < raised) for i, step in enumerate(TYPE_INTERVALS[name.type])]
