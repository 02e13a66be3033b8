"""Between an instrument and a recording: rooms, tone, noise, and `Degradation`, which tests what a model withstands.

The same generator state gives the same sound.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.fft

from triadbench.core.constants import CLIP_SAMPLES, SAMPLE_RATE
from triadbench.core.render.note_banks import mix_note

NOISE_COLOURS = {"white": 0.0, "pink": -1.0, "brown": -2.0, "blue": 1.0}
"""Exponent of frequency in each colour's power density."""
_POOL_SECONDS = 12.0
_N_ROOMS = 64  # of a `Degrader`
Gains = Callable[[np.ndarray], np.ndarray]
"""Gains over frequencies in Hz."""


def room_response(rng: np.random.Generator, sample_rate: int, rt60_s: float, direct_db: float = 0.0) -> np.ndarray:
    """Impulse response of a room: the direct sound, a few early reflections, and a decaying diffuse tail.

    The tail is Gaussian noise under an exponential decay (Moorer, "About this reverberation business", 1979), in
    two bands of which the upper dies sooner, as air and walls absorb treble.

    Args:
        rt60_s: time in which the tail falls by 60 dB. direct_db: level of the direct sound over the whole tail.

    Returns:
        float32 (samples,), the direct sound first, at 1.
    """
    n = int(min(rt60_s, 1.2) * sample_rate)
    t = np.arange(n) / sample_rate
    tail = rng.standard_normal(n)
    treble = np.diff(rng.standard_normal(n + 1)) / np.sqrt(2)
    decay = np.log(1000) / rt60_s
    tail = tail * np.exp(-decay * t) + treble * np.exp(-decay * rng.uniform(1.2, 2.5) * t)
    tail[: int(rng.uniform(0.002, 0.02) * sample_rate)] = 0  # the wave has to reach a wall first
    for delay in rng.uniform(0.002, 0.05, rng.integers(3, 9)):
        position = int(delay * sample_rate)
        if position < n:
            tail[position] += rng.choice((-1, 1)) * rng.uniform(1, 4) * np.exp(-decay * delay)
    tail *= 10 ** (-direct_db / 20) / max(float(np.sqrt(np.sum(tail**2))), 1e-9)
    tail[0] = 1.0
    return tail.astype(np.float32)


def tone_curve(rng: np.random.Generator, frequencies: np.ndarray, depth_db: float) -> np.ndarray:
    """A microphone's or loudspeaker's gains over `frequencies` in Hz: tilt, cut-offs, three bells within `depth_db`."""
    octave = np.log2(np.maximum(frequencies, 20.0) / 640.0)
    gain_db = rng.uniform(-0.25, 0.25) * depth_db * octave
    for _ in range(3):
        centre, width = rng.uniform(-3, 3.5), rng.uniform(0.3, 1.2)
        gain_db = gain_db + rng.uniform(-1, 1) * depth_db * np.exp(-(((octave - centre) / width) ** 2))
    low_cut, high_cut = 40 * 2 ** rng.uniform(-1, 1.5), 7500 * 2 ** rng.uniform(-1.3, 0)
    gain = 10 ** (gain_db / 20)
    gain /= np.sqrt(1 + (low_cut / np.maximum(frequencies, 1.0)) ** 4)
    return (gain / np.sqrt(1 + (frequencies / high_cut) ** 8)).astype(np.float32)


@functools.lru_cache(maxsize=2)
def _noise_pool(sample_rate: int) -> dict[str, np.ndarray]:
    """One long loop of each colour; clips take slices of it, because drawing noise afresh costs more than the chord."""
    n = scipy.fft.next_fast_len(int(_POOL_SECONDS * sample_rate), real=True)
    frequencies = np.maximum(np.fft.rfftfreq(n, 1 / sample_rate), 30.0)
    pool = {}
    for k, (colour, exponent) in enumerate(NOISE_COLOURS.items()):
        spectrum = scipy.fft.rfft(np.random.default_rng(1000 + k).standard_normal(n)) * frequencies ** (exponent / 2)
        loop = scipy.fft.irfft(spectrum, n).astype(np.float32)
        pool[colour] = np.tile(loop / np.sqrt(np.mean(loop**2)), 2)
    return pool


def noise(rng: np.random.Generator, samples: int, sample_rate: int, colour: str | None = None) -> np.ndarray:
    """Noise of unit RMS, float32 (samples,), from a random place in a loop of 12 s; without `colour` it is drawn.

    Raises:
        ValueError: an unknown colour, or more samples than the loop holds.
    """
    colour = colour or rng.choice(list(NOISE_COLOURS))
    pool = _noise_pool(sample_rate)
    if colour not in pool:
        raise ValueError(f"colour={colour!r}: expected one of {', '.join(pool)}")
    loop = pool[colour]
    if samples > len(loop) // 2:
        raise ValueError(f"samples={samples}: at most {len(loop) // 2} of noise at {sample_rate} Hz")
    start = int(rng.integers(len(loop) // 2))
    return loop[start : start + samples] * np.float32(rng.choice((-1, 1)))


def with_noise(
    rng: np.random.Generator, waveform: np.ndarray, sample_rate: int, snr_db: tuple[float, float]
) -> np.ndarray:
    """A waveform (samples,) with noise of a random colour; the signal-to-noise ratio is drawn from `snr_db`."""
    rms = np.sqrt(np.mean(np.square(waveform)))
    loop = noise(rng, min(len(waveform), 8 * sample_rate), sample_rate)
    return waveform + np.resize(loop, len(waveform)) * np.float32(rms * 10 ** (-rng.uniform(*snr_db) / 20))


class Filter:
    """A filter (taps,) float32 times `gains` for clips of `samples`, as a spectrum: each clip costs two transforms."""

    def __init__(self, response: np.ndarray, samples: int, sample_rate: int, gains: Gains | None = None):
        # The tone curves have no phase and so reach to both sides; this much room keeps them from wrapping around.
        margin = 1024
        self.samples = samples
        self.size = scipy.fft.next_fast_len(samples + len(response) + margin, real=True)
        spectrum = scipy.fft.rfft(response.astype(np.float32), self.size)
        if gains is not None:
            spectrum = spectrum * gains(np.fft.rfftfreq(self.size, 1 / sample_rate)).astype(np.float32)
        self.spectrum = spectrum.astype(np.complex64)

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        """Filtered waveform, float32, of the same length (samples,)."""
        spectrum = scipy.fft.rfft(waveform, self.size)
        return scipy.fft.irfft(spectrum * self.spectrum, self.size)[: self.samples]


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
        self._rooms = [degradation.room(rng, CLIP_SAMPLES) for _ in range(_N_ROOMS)]

    def __call__(self, waveform: np.ndarray, index: int) -> np.ndarray:
        """float32 (64000,) in [-1, 1] of a clip (64000,)."""
        rng = np.random.default_rng([self.seed, index])
        start = rng.uniform(*self.degradation.onset_ms) * SAMPLE_RATE / 1000
        step = 2 ** (rng.uniform(*self.degradation.tuning_cents) / 1200)
        moved = np.zeros(CLIP_SAMPLES, dtype=np.float32)
        mix_note(moved, waveform, 1.0, start, step, np.inf, 1.0)
        return self.degradation.record(rng, moved, self._rooms[int(rng.integers(_N_ROOMS))])


def degrade_song(waveform: np.ndarray, seed: int) -> np.ndarray:
    """A worse recording of a song (samples,): one room, noise and level for all of it; tuning and times stay."""
    degradation, rng = Degradation(), np.random.default_rng([seed, 0x52])
    return degradation.record(rng, waveform, degradation.room(rng, len(waveform))).astype(np.float32)
