"""Sounds without a chord are what they are called, and the same for the same seed."""

import numpy as np
import pytest

from triadbench.core.constants import SAMPLE_RATE
from triadbench.core.render import negatives

MAKERS = [negatives.drums, negatives.voice, negatives.hum, negatives.hiss, negatives.clicks]


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_same_seed_same_sound_of_full_scale(make):
    one, again, other = (make(np.random.default_rng(seed), 32_000) for seed in (1, 1, 2))
    assert one.dtype == np.float32 and one.shape == (32_000,)
    assert np.array_equal(one, again) and not np.array_equal(one, other)
    assert np.abs(one).max() == pytest.approx(1) and np.isfinite(one).all()


def test_hum_lies_on_multiples_of_the_mains():
    for seed in range(4):
        spectrum = np.abs(np.fft.rfft(negatives.hum(np.random.default_rng(seed), 4 * SAMPLE_RATE)))
        hz = spectrum.argmax() / 4
        assert min(abs(hz / max(round(hz / first), 1) / first - 1) for first in (50, 60)) < 0.011 + 0.25 / hz


def test_a_sung_line_holds_its_notes_and_speech_does_not():
    def glide(sung):
        """Median change of the strongest partial below 1 kHz from one 64 ms frame to the next, in semitones."""
        changes = []
        for seed in range(8):
            wave = negatives.voice(np.random.default_rng(seed), 4 * SAMPLE_RATE, sung)
            frames = wave[: len(wave) // 1024 * 1024].reshape(-1, 1024) * np.hanning(1024)
            power = np.abs(np.fft.rfft(frames, 8192))[:, 40:512]
            loud = power.max(axis=1) > 0.2 * power.max()
            pitch = 12 * np.log2(power.argmax(axis=1) + 40)
            changes.append(np.abs(np.diff(pitch))[loud[1:] & loud[:-1]])
        return np.median(np.concatenate(changes))

    assert glide(True) < 0.7 * glide(False)
