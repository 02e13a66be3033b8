"""A codec changes a sound and moves it nowhere."""

import numpy as np
import pytest

from triadbench.core.render import codecs


@pytest.mark.parametrize("name", codecs.CODECS)
def test_sound_stays_where_it_was(name, monkeypatch):
    monkeypatch.setattr(codecs, "CODECS", {name: codecs.CODECS[name]})
    rng = np.random.default_rng(0)
    sound = np.zeros(64_000, dtype=np.float32)
    for start in (2000, 20_000, 61_000):
        sound[start : start + 400] = rng.standard_normal(400) * np.hanning(400) * 0.3
    heard = codecs.lossy(sound, np.random.default_rng(1))
    assert heard.shape == sound.shape and heard.dtype == np.float32 and not np.array_equal(heard, sound)
    match = np.fft.irfft(np.fft.rfft(heard) * np.conj(np.fft.rfft(sound)))
    assert np.argmax(match) == 0 and match[0] > 0.7 * np.sum(sound**2)
