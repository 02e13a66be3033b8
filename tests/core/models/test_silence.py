"""Silence is looked for block by block and only as long as needed; the rule is written out here once more."""

import numpy as np
import pytest

from triadbench.core.models.prediction import is_silent


def by_the_rule(waveforms):
    blocks = waveforms[:, : waveforms.shape[1] // 400 * 400].reshape(len(waveforms), -1, 400)
    deviation = np.abs(blocks - blocks.mean(axis=2, keepdims=True)).max(axis=2)
    return (deviation >= 1e-4).sum(axis=1) < 4


@pytest.mark.parametrize("samples", [399, 400, 1600, 6400, 64_000, 64_123])
def test_is_silent(samples):
    rng = np.random.default_rng(samples)
    waveforms = np.full((40, samples), 0.2, np.float32)
    for i, waveform in enumerate(waveforms):
        for block in rng.choice(max(1, samples // 400), min(i // 4, samples // 400), replace=False):
            sounding = waveform[400 * block : 400 * (block + 1)]
            sounding[rng.integers(len(sounding))] += rng.choice([-1, 1]) * 10.0 ** rng.uniform(-4.5, -3)
    found = is_silent(waveforms)
    assert found.dtype == bool and found.shape == (40,)
    np.testing.assert_array_equal(found, by_the_rule(waveforms))
    assert samples < 1600 or 0 < found.sum() < 40


def test_no_waveforms():
    assert is_silent(np.zeros((0, 64_000), np.float32)).shape == (0,)
