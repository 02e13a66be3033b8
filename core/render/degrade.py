"""Worse recordings of clips and songs (room, noise, level, tuning, start), to test what a model withstands."""

from dataclasses import dataclass

import numpy as np

from triadbench.core.constants import CLIP_SAMPLES, SAMPLE_RATE
from triadbench.core.render.chords import mix_note
from triadbench.core.render.rooms import Filter, room_response, with_noise

_ROOMS = 64


@dataclass(frozen=True)
class Degradation:
    """Ranges (low, high) from which each clip's recording is drawn, evenly.

    Attributes:
        rt60_s: reverberation time. direct_db: direct sound over the tail.
        snr_db: signal over noise, in power; the noise's colour is drawn as well.
        gain_db: change of level; what exceeds full scale is clipped, as a recorder does.
        tuning_cents: change of pitch. onset_ms: delay of the sound.
    """

    rt60_s: tuple[float, float] = (0.3, 0.6)
    direct_db: tuple[float, float] = (-3, 6)
    snr_db: tuple[float, float] = (20, 30)
    gain_db: tuple[float, float] = (-12, 12)
    tuning_cents: tuple[float, float] = (-10, 10)
    onset_ms: tuple[float, float] = (0, 320)

    def room(self, rng: np.random.Generator, samples: int) -> Filter:
        """A room for waveforms of `samples`. It keeps the level, so that gain means what it says."""
        response = room_response(rng, SAMPLE_RATE, rng.uniform(*self.rt60_s), rng.uniform(*self.direct_db))
        return Filter(response / np.sqrt(np.sum(np.square(response))), samples, SAMPLE_RATE)

    def record(self, rng: np.random.Generator, waveform: np.ndarray, room: Filter) -> np.ndarray:
        """A waveform (samples,) as a microphone in `room` records it, with noise and another level, in [-1, 1]."""
        waveform = with_noise(rng, room(waveform), SAMPLE_RATE, self.snr_db)
        return np.clip(waveform * np.float32(10 ** (rng.uniform(*self.gain_db) / 20)), -1, 1)


class Degrader:
    """Degrades clips; clip `index` of a seed is always degraded alike."""

    def __init__(self, degradation: Degradation, seed: int):
        self.degradation, self.seed = degradation, seed
        rng = np.random.default_rng([seed, 0xDE])
        self._rooms = [degradation.room(rng, CLIP_SAMPLES) for _ in range(_ROOMS)]

    def __call__(self, waveform: np.ndarray, index: int) -> np.ndarray:
        """float32 (64000,) in [-1, 1] of a clip (64000,)."""
        rng = np.random.default_rng([self.seed, index])
        start = rng.uniform(*self.degradation.onset_ms) * SAMPLE_RATE / 1000
        step = 2 ** (rng.uniform(*self.degradation.tuning_cents) / 1200)
        moved = np.zeros(CLIP_SAMPLES, dtype=np.float32)
        mix_note(moved, waveform, 1.0, start, step, np.inf, 1.0)
        return self.degradation.record(rng, moved, self._rooms[int(rng.integers(_ROOMS))])


def degrade_song(waveform: np.ndarray, seed: int, degradation: Degradation | None = None) -> np.ndarray:
    """A worse recording of a song (samples,): one room, noise and level for all of it; the chords keep their times.

    Tuning and start stay, so `tuning_cents` and `onset_ms` of the degradation are not used.
    """
    degradation = degradation or Degradation()
    rng = np.random.default_rng([seed, 0x52])
    return degradation.record(rng, waveform, degradation.room(rng, len(waveform))).astype(np.float32)
