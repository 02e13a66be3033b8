"""Sound without a chord, or beside one: drums, speech-like and sung lines, hum, noise, clicks.

Every function takes a random generator and returns float32 (samples,) with its peak at 1; the same state gives the
same sound.
"""

import math

import numpy as np
from scipy import signal

from triadbench.core.constants import SAMPLE_RATE
from triadbench.core.render.rooms import noise


def _scaled(waveform: np.ndarray) -> np.ndarray:
    return (waveform / max(float(np.abs(waveform).max()), 1e-9)).astype(np.float32)


def _hit(rng: np.random.Generator, kind: str) -> np.ndarray:
    """One stroke on "kick", "tom", "snare", "hat" or "cymbal"."""
    seconds = {"kick": 0.4, "tom": 0.6, "snare": 0.3, "hat": 0.15, "cymbal": 1.5}[kind]
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    hiss = rng.standard_normal(len(t))
    if kind in ("kick", "tom"):
        low = rng.uniform(40, 70) if kind == "kick" else rng.uniform(70, 220)
        sweep = low * (t + rng.uniform(0.3, 3.0) * 0.03 * (1 - np.exp(-t / 0.03)))
        body = np.sin(2 * np.pi * sweep) * np.exp(-t / (seconds * rng.uniform(0.12, 0.35)))
        return _scaled(body + 0.3 * rng.random() * hiss * np.exp(-t / 0.004))
    cut = rng.uniform(800, 2500) if kind == "snare" else rng.uniform(3500, 6500)
    hiss = signal.sosfilt(signal.butter(2, cut, "highpass", fs=SAMPLE_RATE, output="sos"), hiss)
    hiss = hiss * np.exp(-t / (seconds * rng.uniform(0.1, 0.35)))
    if kind == "snare":
        hiss = hiss + rng.uniform(0.2, 1.2) * np.sin(2 * np.pi * rng.uniform(140, 260) * t) * np.exp(-t / 0.05)
    elif rng.random() < 0.4:  # metal rings with partials in no order
        partials = rng.uniform(300, 7000, 8)
        hiss = hiss + 0.15 * np.sin(2 * np.pi * partials[:, None] * t).sum(0) * np.exp(-t / (0.3 * seconds))
    return _scaled(hiss)


def drums(rng: np.random.Generator, samples: int, sixteenths: np.ndarray | None = None, a_bar: int = 16) -> np.ndarray:
    """A drum pattern: a kit of five, one bar repeated with small changes.

    Args:
        sixteenths: when they are, in samples, from the start of a bar on; by default 60 to 180 beats a minute.
        a_bar: sixteenths in a bar, 16 at most.
    """
    kit = {kind: _hit(rng, kind) for kind in ("kick", "tom", "snare", "hat", "cymbal")}
    step = 60 / rng.uniform(60, 180) / 4 * SAMPLE_RATE
    chance = {kind: rng.random(16) < density for kind, density in zip(kit, (0.2, 0.06, 0.12, 0.5, 0.04), strict=True)}
    chance["kick"][0] = chance["snare"][4] = chance["snare"][12] = True
    gain = {kind: rng.uniform(0.3, 1.0) for kind in kit}
    out = np.zeros(samples, dtype=np.float32)
    starts = np.arange(0, samples, step) if sixteenths is None else sixteenths
    for k, start in enumerate(starts.astype(int)):
        for kind, hit in kit.items():
            if chance[kind][k % a_bar] != (rng.random() < 0.05) and 0 <= start < samples:
                part = hit[: samples - start]
                out[start : start + len(part)] += part * np.float32(gain[kind] * rng.uniform(0.5, 1))
    return _scaled(out)


def voice(rng: np.random.Generator, samples: int, sung: bool = False) -> np.ndarray:
    """A voice without words: harmonics under moving formants, breaths of noise between; speech glides, singing (`sung`)
    holds the notes of a scale with vibrato.
    """
    rate = 100  # control points a second
    n = samples * rate // SAMPLE_RATE + 2
    pitch, loud, formants, hiss = np.zeros(n), np.zeros(n), np.zeros((3, n)), np.zeros(n)
    base = rng.uniform(85, 260)
    scale = np.array((0, 2, 4, 5, 7, 9, 11, 12)) + rng.integers(12)
    at = 0
    while at < n:
        length = int(rate * (rng.uniform(0.25, 1.2) if sung else rng.uniform(0.08, 0.35)))
        part = slice(at, min(at + length, n))
        x = np.linspace(0, 1, part.stop - at)
        if sung:
            note = 12 * round(math.log2(base / 130.8)) + rng.choice(scale)
            wobble = 0.3 * rng.random() * np.sin(2 * np.pi * rng.uniform(4.5, 6.5) * np.arange(len(x)) / rate)
            pitch[part] = 130.8 * 2 ** ((note + wobble) / 12)
        else:
            pitch[part] = base * 2 ** (rng.uniform(-0.3, 0.3) + rng.uniform(-0.35, 0.2) * x)
        loud[part] = np.sin(np.pi * np.clip(x, 0.02, 0.98)) ** 0.5 * rng.uniform(0.3, 1)
        centres = np.array([rng.uniform(250, 850), rng.uniform(900, 2300), rng.uniform(2300, 3200)])
        formants[:, part] = centres[:, None] * (1 + rng.uniform(-0.2, 0.2, (3, 1)) * x)
        if rng.random() < 0.35:
            hiss[part] = rng.uniform(0.05, 0.4)
        if rng.random() < (0.1 if sung else 0.25):  # voiceless, or a pause
            loud[part] = 0
        at = part.stop
    smooth = np.hanning(9) / np.hanning(9).sum()
    pitch = np.convolve(np.pad(pitch, 4, mode="edge"), smooth, "valid")
    loud = np.convolve(loud, smooth, "same")
    times, grid = np.arange(samples) / SAMPLE_RATE * rate, np.arange(n)
    phase = 2 * np.pi * np.cumsum(np.interp(times, grid, pitch)) / SAMPLE_RATE
    out = np.zeros(samples, dtype=np.float32)
    for k in range(1, 30):
        hz = k * pitch
        gain = sum(1 / (1 + ((hz - f) / (60 + 0.06 * f)) ** 2) for f in formants) / k**0.6 * loud * (hz < 6000)
        out += np.interp(times, grid, gain).astype(np.float32) * np.sin(
            np.float32(k) * phase.astype(np.float32) % np.float32(2 * np.pi)
        )
    breath = signal.sosfilt(
        signal.butter(1, 2500, "highpass", fs=SAMPLE_RATE, output="sos"), rng.standard_normal(samples)
    )
    return _scaled(_scaled(out) + 0.5 * np.interp(times, grid, hiss) * breath)


def hum(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Mains: 50 or 60 Hz with harmonics, steady, and a little noise."""
    t = np.arange(samples) / SAMPLE_RATE
    first = rng.choice((50.0, 60.0)) * rng.uniform(0.99, 1.01)
    out = rng.standard_normal(samples) * 10 ** rng.uniform(-4, -0.7)
    fall, odd = rng.uniform(0, 1.5), rng.uniform(0.2, 1)
    for k in range(1, 25):
        if rng.random() < (0.8 if k % 2 == 1 or k == 2 else odd):
            phase = 2 * np.pi * (first * k * t + rng.random())
            out += rng.uniform(0, 1) / k**fall * np.sin(phase)
    return _scaled(out)


def hiss(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Noise: coloured, half of the time in a band, now and then swelling."""
    out = noise(rng, samples, SAMPLE_RATE)
    if rng.random() < 0.5:
        centre = np.exp(rng.uniform(np.log(100), np.log(4000)))
        width = rng.uniform(0.2, 1.2)
        edges = [max(centre * 2 ** (-width / 2), 20), min(centre * 2 ** (width / 2), 7900)]
        out = signal.sosfilt(signal.butter(2, edges, "bandpass", fs=SAMPLE_RATE, output="sos"), out)
    if rng.random() < 0.3:
        out = out * np.interp(np.arange(samples), np.linspace(0, samples, 9), rng.uniform(0.05, 1, 9))
    return _scaled(out)


def clicks(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Knocks, clicks and scratches over faint noise."""
    out = noise(rng, samples, SAMPLE_RATE) * 10 ** rng.uniform(-4, -1.5)
    for _ in range(rng.integers(1, 20)):
        start = int(rng.integers(samples - 100))
        n = min(int(rng.uniform(20, 1500)), samples - start)
        burst = rng.standard_normal(n) * np.exp(-np.arange(n) / (n * rng.uniform(0.05, 0.4)))
        out[start : start + n] += burst * rng.uniform(0.1, 1)
    return _scaled(out)
