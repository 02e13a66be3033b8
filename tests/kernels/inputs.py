"""What several tests of the mel backends feed, compare with, and run."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from hypothesis import strategies as st

from triadbench.kernels import MelSpec

ROOT = Path(__file__).resolve().parents[2]
# float32 FFTs, powers and sums agree with float64 to a few 1e-7; float64 ones to a few 1e-16 times sqrt(n_fft).
TOLERANCES = {"float32": {"rtol_peak": 3e-6, "rtol_rms": 1e-6}, "float64": {"rtol_peak": 1e-12, "rtol_rms": 1e-12}}
# torchaudio rounds its filters' corners to float32: up to 3e-5 of the peak in a narrow filter.
DROP_IN = {"rtol_peak": 1e-4, "rtol_rms": 3e-5}


def noise(shape, dtype="float32", seed=0):
    """White noise: variance 1, or at a third of int16's full scale."""
    values = np.random.default_rng(seed).standard_normal(shape)
    return (values.clip(-3, 3) * 10000).astype(np.int16) if dtype == "int16" else values.astype(dtype)


def arrays_of(spec, dtype="float32"):
    """The spec's (window, filterbank) as tensors, in the dtype that a waveform of this one is computed in."""
    wanted = torch.float64 if dtype == "float64" else torch.float32
    return tuple(torch.from_numpy(array).to(wanted) for array in (spec.window_array(), spec.filterbank()))


def tilted_tones(spec, tilt_db, n_samples=16000):
    """A waveform (n_samples,) float32 of tones, amplitudes falling (or rising, below 0) by `tilt_db` in all; and the
    indices of the filters with a tone in their middle. They are at least four bins apart: nearer tones beat, and cancel
    in some frames."""
    chosen, middles = [], spec.mel_points()[1:-1]
    apart = 4 * spec.sample_rate / spec.n_fft
    for m, middle in enumerate(middles):
        below = middles[chosen[-1]] if chosen else 0.0
        if below + apart <= middle < spec.sample_rate / 2 - apart:
            chosen.append(m)
    amplitudes = 10 ** (np.linspace(min(0, -tilt_db), min(0, tilt_db), len(chosen)) / 20)
    phases = np.random.default_rng(0).uniform(0, 2 * np.pi, len(chosen))
    t = np.arange(n_samples) / spec.sample_rate
    x = (amplitudes[:, None] * np.sin(2 * np.pi * middles[chosen][:, None] * t + phases[:, None])).sum(0)
    return (0.5 * x / np.abs(x).max()).astype(np.float32), chosen


@st.composite
def specs(draw, n_ffts, *, usual=True, powers=(1.0, 2.0, 2.0, 1.7)):
    """Specs with n_fft of the strategy `n_ffts`; `usual`: often a window as long as the frame, and a hop of its half
    or quarter."""
    n_fft = draw(n_ffts)
    win_lengths, hop_lengths = [st.integers(2, n_fft)], [st.integers(1, 2 * n_fft)]
    if usual:
        win_lengths.insert(0, st.just(n_fft))
        hop_lengths[:0] = [st.just(max(1, n_fft // 2)), st.just(max(1, n_fft // 4))]
    return MelSpec(
        n_fft=n_fft,
        win_length=draw(st.one_of(win_lengths)),
        sample_rate=draw(st.sampled_from([8000, 16000, 22050, 44100])),
        hop_length=draw(st.one_of(hop_lengths)),
        f_min=draw(st.sampled_from([0.0, 55.5, 1500.0])),
        f_max=draw(st.sampled_from([None, 3000.0])),
        n_mels=draw(st.integers(1, 24)),
        power=draw(st.sampled_from(powers)),
        pad=draw(st.sampled_from([0, 0, 5, 200])),
        center=draw(st.booleans()),
        pad_mode=draw(st.sampled_from(["reflect", "constant", "replicate", "circular"])),
        window=draw(st.sampled_from(["hann", "hamming", "rectangular"])),
        normalized=draw(st.sampled_from([False, True, "frame_length"])),
        norm=draw(st.sampled_from([None, "slaney"])),
        mel_scale=draw(st.sampled_from(["htk", "slaney"])),
    )


def in_a_new_process(code, **environment):
    """The words that a fresh interpreter prints for this program, with these environment variables besides ours."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()
