"""Nominal work by hand, and against the figures that the notes on performance quote."""

import pytest

from triadbench.kernels import ORIGINAL, MelSpec
from triadbench.kernels import operation_count as work


def test_flops_by_hand():
    spec = MelSpec(sample_rate=8, n_fft=4, hop_length=2, n_mels=1, f_min=0.0, f_max=4.0)
    # One filter over bins 0, 2 and 4 Hz: weights at 2 Hz alone. Window 4, FFT 2.5 * 4 * 2, power 3 * 3, filter 2.
    assert work.flops(spec, clips=3, n_samples=8) == 3 * spec.n_frames(8) * (4 + 20 + 9 + 2)


def test_original_clip_is_as_quoted():
    assert work.flops(ORIGINAL, 1, 64_000) == pytest.approx(3.81e6, rel=0.01)
    assert work.fused_bytes(ORIGINAL, 1, 64_000) == 4 * (64_000 + 64 * 126)
    assert work.fused_bytes(ORIGINAL, 2, 64_000, item_bytes=2) == 2 * (2 * 64_000 + 4 * 64 * 126)
