"""The work of a mel spectrogram, counted from its spec: the same nominal figures for every way of computing it.

flops   per frame: window n, real FFT 2.5 n log2 n (n = n_fft, a nominal count whatever the size's factors), power 3 a
        bin, 2 for every weight of the filterbank that is not zero. No log.
bytes   the least that a fused kernel moves: every sample read once, every mel value written once. Window, twiddles
        and filters are taken to stay in a cache.
Whoever computes more (a dense filterbank) or moves more (a spectrum in memory) gets no credit for it.
"""

import math

import numpy as np

from triadbench.kernels.spec import MelSpec


def flops(spec: MelSpec, clips: int, n_samples: int) -> float:
    """Nominal operations of `clips` clips of `n_samples` samples."""
    filterbank = spec.filterbank()
    weights = int(np.count_nonzero(filterbank > 1e-9 * filterbank.max()))  # rounding leaves 1e-17 at a filter's end
    per_frame = spec.n_fft + 2.5 * spec.n_fft * math.log2(spec.n_fft) + 3 * spec.n_freqs + 2 * weights
    return clips * spec.n_frames(n_samples) * per_frame


def fused_bytes(spec: MelSpec, clips: int, n_samples: int, item_bytes: int = 4) -> int:
    """Least bytes moved: samples of `item_bytes` in, float32 mel out."""
    return clips * (n_samples * item_bytes + spec.n_mels * spec.n_frames(n_samples) * 4)
