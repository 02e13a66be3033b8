"""When notes begin, and how fast the beat is: spectral flux of a sound that comes in blocks.

Flux is the growth of log spectra over two frames, against the louder of neighbouring bins, so that vibrato is no onset
(Böck and Widmer, "Maximum filter vibrato suppression for onset detection", 2013). NumPy alone: importing a library
that has onsets takes longer than this takes for a song, and wants the whole sound in memory.
"""

from __future__ import annotations

import numpy as np

from triadbench.core.constants import SAMPLE_RATE

HOP = 160
"""10 ms."""
RATE = SAMPLE_RATE // HOP
_N_FFT = 1024
_BACK = 2
"""Frames: notes take longer than one to grow."""
_COMPRESSION = 1000.0
_BINS = slice(3, 320)
"""47 to 5000 Hz."""
_SPREAD_S = 0.03
"""Two onsets lie at least so far apart."""
_NORMAL_PERCENTILE = 98.0
_WEAKEST = 0.05
_TEMPI = (50.0, 200.0)
_USUAL_BPM = 105.0
_BEATS_BETWEEN = (1, 2, 4)
_BLUR = np.array([1, 2, 3, 2, 1]) / 9
_LEAST_CORRELATION = 0.15


class OnsetCurve:
    """Collects the flux of a sound, block by block; 400 bytes a second of sound are kept."""

    def __init__(self) -> None:
        # The first frame is centred on the first sample.
        self._rest = np.zeros(_N_FFT // 2, np.float32)
        self._before: np.ndarray | None = None
        self._parts: list[np.ndarray] = []
        self._window = np.hanning(_N_FFT).astype(np.float32)

    def add(self, block: np.ndarray) -> None:
        """Go on with the next block (samples,) at 16 kHz."""
        waveform = np.concatenate([self._rest, block])
        n = (len(waveform) - _N_FFT) // HOP + 1
        if n <= 0:
            self._rest = waveform
            return
        frames = np.lib.stride_tricks.sliding_window_view(waveform, _N_FFT)[: n * HOP : HOP]
        for start in range(0, n, 512):  # small enough for the cache
            part = frames[start : start + 512] * self._window
            spectra = np.abs(np.fft.rfft(part)[:, _BINS]) * np.float32(4 / _N_FFT)
            self._flux(np.log1p(_COMPRESSION * spectra.astype(np.float32)))
        self._rest = waveform[n * HOP :]

    def _flux(self, log_spectra: np.ndarray) -> None:
        if self._before is None:
            self._before = np.repeat(log_spectra[:1], _BACK, axis=0)
        joined = np.concatenate([self._before, log_spectra])
        widened = joined.copy()
        np.maximum(widened[:, 1:], joined[:, :-1], out=widened[:, 1:])
        np.maximum(widened[:, :-1], joined[:, 1:], out=widened[:, :-1])
        growth = joined[_BACK:] - widened[:-_BACK]
        self._parts.append(np.maximum(growth, 0).mean(axis=1))
        self._before = joined[-_BACK:]

    def curve(self) -> np.ndarray:
        """Flux, float32 (frames,) at `RATE` a second."""
        return np.concatenate(self._parts) if self._parts else np.zeros(0, np.float32)


def onsets(curve: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Times in seconds (n,) and strengths 0-1 (n,) of the peaks of a flux curve; 1 is a strong onset of this sound."""
    if len(curve) < 3:
        return np.zeros(0), np.zeros(0)
    reach = max(1, round(_SPREAD_S * RATE))
    padded = np.pad(curve, reach, constant_values=-1)
    highest = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1).max(axis=1)
    peaks = np.flatnonzero((curve == highest) & (curve > 0))
    if not len(peaks):
        return np.zeros(0), np.zeros(0)
    normal = np.percentile(curve, _NORMAL_PERCENTILE)
    strengths = np.clip(curve[peaks] / max(float(normal), 1e-6), 0, 1)
    keep = strengths >= _WEAKEST
    # A window of 64 ms feels a note before its middle comes there, and growth is over `_BACK` frames: the two cancel.
    times = peaks[keep] / RATE
    return times, strengths[keep]


def tempo(curve: np.ndarray) -> float | None:
    """Beats a minute of a flux curve, by autocorrelation that prefers usual tempi; None where none is heard.

    Chords may be struck every other beat or once a bar only, so that two and four beats count as well.
    """
    low, high = (round(60 * RATE / bpm) for bpm in reversed(_TEMPI))
    most = max(_BEATS_BETWEEN) * high
    if len(curve) < 2 * most:
        return None
    # Hands are not exact to a frame.
    centred = np.convolve(curve - curve.mean(), _BLUR, "same")
    size = 1 << int(2 * len(centred) - 1).bit_length()
    spectrum = np.fft.rfft(centred, size)
    correlation = np.fft.irfft(spectrum * spectrum.conj(), size)[: most + 4]
    if correlation[0] <= 0:
        return None
    correlation /= correlation[0]
    lags = np.arange(low, high + 1)
    preference = np.exp(-0.5 * (np.log2(60 * RATE / lags / _USUAL_BPM) / 0.9) ** 2)
    scores = sum(correlation[beats * lags] for beats in _BEATS_BETWEEN) * preference
    lag = int(lags[scores.argmax()])
    beats = max(_BEATS_BETWEEN, key=lambda n: correlation[n * lag])
    if correlation[beats * lag] < _LEAST_CORRELATION:
        return None
    # The farther beat tells the time between two with less error.
    near = np.arange(max(_BEATS_BETWEEN) * lag - 3, max(_BEATS_BETWEEN) * lag + 4)
    if correlation[near].max() > _LEAST_CORRELATION:
        return 60 * RATE * max(_BEATS_BETWEEN) / float(near[correlation[near].argmax()])
    return 60 * RATE / lag
