"""When notes begin: spectral flux of a sound that comes in blocks.

Flux is the growth of log spectra over two frames, against the louder of neighbouring bins, so that vibrato is no onset
(Böck and Widmer, "Maximum filter vibrato suppression for onset detection", 2013). NumPy alone: importing a library
that finds onsets takes longer than this takes for a song, and needs the whole sound in memory.
"""

from typing import NamedTuple

import numpy as np

from triadbench.core.constants import SAMPLE_RATE

HOP = 160  # 10 ms
RATE = SAMPLE_RATE // HOP
_N_FFT = 1024
_GROWTH_FRAMES = 2  # notes take longer than one frame to grow
_COMPRESSION = 1000.0
_BINS = slice(3, 320)  # 47 to 5000 Hz
_FRAMES_AT_ONCE = 512  # small enough for the cache
_SPREAD_S = 0.03  # least time between two onsets
_FULL_STRENGTH_PERCENTILE = 98.0
_LEAST_STRENGTH = 0.05


class OnsetCurve:
    """Collects the flux of a sound, block by block; 400 bytes a second of sound are kept."""

    def __init__(self) -> None:
        self.samples = 0  # added so far
        self._rest = np.zeros(_N_FFT // 2, np.float32)  # the first frame is centred on the first sample
        self._before: np.ndarray | None = None
        self._parts = [np.zeros(0, np.float32)]
        self._window = np.hanning(_N_FFT).astype(np.float32)

    def add(self, block: np.ndarray) -> None:
        """Go on with the next block (samples,) at 16 kHz."""
        self.samples += len(block)
        waveform = np.concatenate([self._rest, block])
        n = max(0, (len(waveform) - _N_FFT) // HOP + 1)
        self._rest = waveform[n * HOP :]
        if n == 0:
            return
        frames = np.lib.stride_tricks.sliding_window_view(waveform, _N_FFT)[: n * HOP : HOP]
        for start in range(0, n, _FRAMES_AT_ONCE):
            part = frames[start : start + _FRAMES_AT_ONCE] * self._window
            spectra = np.abs(np.fft.rfft(part)[:, _BINS]) * np.float32(4 / _N_FFT)
            self._add_flux(np.log1p(_COMPRESSION * spectra.astype(np.float32)))

    def _add_flux(self, log_spectra: np.ndarray) -> None:
        if self._before is None:
            self._before = np.repeat(log_spectra[:1], _GROWTH_FRAMES, axis=0)
        joined = np.concatenate([self._before, log_spectra])
        widened = joined.copy()
        np.maximum(widened[:, 1:], joined[:, :-1], out=widened[:, 1:])
        np.maximum(widened[:, :-1], joined[:, 1:], out=widened[:, :-1])
        growth = joined[_GROWTH_FRAMES:] - widened[:-_GROWTH_FRAMES]
        self._parts.append(np.maximum(growth, 0).mean(axis=1))
        self._before = joined[-_GROWTH_FRAMES:]

    def curve(self) -> np.ndarray:
        """Flux, float32 (frames,) at `RATE` a second."""
        return np.concatenate(self._parts)


class Onsets(NamedTuple):
    """Times in seconds (n,), ascending, and strengths 0-1 (n,); 1 is a strong onset of this sound."""

    times: np.ndarray
    strengths: np.ndarray


def onsets(curve: np.ndarray) -> Onsets:
    """The peaks of a flux curve (frames,)."""
    if len(curve) < 3:
        return Onsets(np.zeros(0), np.zeros(0))
    reach = max(1, round(_SPREAD_S * RATE))
    padded = np.pad(curve, reach, constant_values=-1)
    highest = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1).max(axis=1)
    peaks = np.flatnonzero((curve == highest) & (curve > 0))
    full_strength = max(float(np.percentile(curve, _FULL_STRENGTH_PERCENTILE)), 1e-6)
    strengths = np.clip(curve[peaks] / full_strength, 0, 1)
    keep = strengths >= _LEAST_STRENGTH
    # A window of 64 ms reaches a note before its middle does, and growth is over `_GROWTH_FRAMES`: the two cancel.
    return Onsets(peaks[keep] / RATE, strengths[keep])
