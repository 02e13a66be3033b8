"""Beats and bars of a song: beats by dynamic programming on its flux curve (Ellis, "Beat tracking by dynamic
programming", 2007) around a tempo that may drift; bars from the beats on which chords change."""

import functools

import numpy as np

from triadbench.export.songs.onsets import RATE

CHANGE_RATES = {4: np.array([0.60, 0.17, 0.40, 0.15]), 3: np.array([0.60, 0.12, 0.12])}
"""How often the chord changes on each beat of a bar, by the number of beats in it: in four as in the 815 such songs of
POP909 that are not held out for tests, in three a guess."""
_FULL_STRENGTH_PERCENTILE = 98.0
_WINDOW_S, _HOP_S = 15.0, 5.0  # of local tempi
_SLOWEST_BPM, _USUAL_BPM, _FASTEST_BPM = 50.0, 105.0, 200.0
_BEATS_BETWEEN = (1, 2, 4)
_BLUR = np.array([1, 2, 3, 2, 1]) / 9
_LEAST_CORRELATION = 0.25  # speech stays below 0.2; music has 0.4 and more
_DRIFT_COST = 8.0  # of log tempo from window to window, against correlations
_STRETCH_COST = 16.0  # of the squared log of an interval over the period, against onsets of full strength
_LEAST_CHANGES = 4
_THREE_COST = 3.0  # nats; of 840 songs of POP909 24 are in three
_SHIFT = 0.005  # probability that a bar is cut short at a beat


def find_beats(curve: np.ndarray) -> np.ndarray:
    """Times of beats in seconds (n,), ascending, of a flux curve (frames,); none where no beat is heard."""
    periods = _periods(curve)
    if periods is None:
        return np.zeros(0)
    strength = np.convolve(curve, [0.25, 0.5, 0.25], "same")
    strength = np.minimum(strength / max(float(np.percentile(strength, _FULL_STRENGTH_PERCENTILE)), 1e-6), 1)
    total, before = strength.astype(np.float64), np.full(len(curve), -1)
    for frame, period in enumerate(periods.tolist()):
        costs = _stretch_costs(period)
        first = frame - period // 2 - len(costs) + 1
        reach = total[max(first, 0) : max(first + len(costs), 0)] - costs[max(-first, 0) :]
        if len(reach) and reach[best := int(reach.argmax())] > 0:
            total[frame] += reach[best]
            before[frame] = max(first, 0) + best
    end = len(curve) - min(len(curve), round(1.5 * periods[-1]))
    beats = [end + int(total[end:].argmax())]
    while before[beats[-1]] >= 0:
        beats.append(int(before[beats[-1]]))
    return np.array(beats[::-1]) / RATE


@functools.cache
def _stretch_costs(period: int) -> np.ndarray:
    """Of intervals from two periods down to half of one."""
    return _STRETCH_COST * np.log(np.arange(2 * period, period // 2 - 1, -1) / period) ** 2


def _periods(curve: np.ndarray) -> np.ndarray | None:
    """Frames between beats, int (frames,), at each frame of a flux curve; None where no beat is heard.

    The lag of most autocorrelation in windows that follow each other, among them usual tempi and small changes
    preferred. Chords may be struck every other beat or once a bar only, so that two and four beats count as well.
    """
    window, hop = round(_WINDOW_S * RATE), round(_HOP_S * RATE)
    lags = np.arange(round(60 * RATE / _FASTEST_BPM), round(60 * RATE / _SLOWEST_BPM) + 1)
    if len(curve) < 2 * _BEATS_BETWEEN[-1] * lags[-1]:
        return None
    preference = np.exp(-0.5 * (np.log2(60 * RATE / lags / _USUAL_BPM) / 0.9) ** 2)
    centred = np.convolve(curve - curve.mean(), _BLUR, "same")  # hands are not exact to a frame
    starts = range(0, max(len(curve) - window, 0) + 1, hop)
    costs = _DRIFT_COST * np.abs(np.log(lags[:, None] / lags))
    total, origins, heard = np.zeros(len(lags)), [], []
    for start in starts:
        correlation = _autocorrelation(centred[start : start + window])
        rows = np.array([correlation[k * lags] for k in _BEATS_BETWEEN])
        heard.append(rows.max(axis=0))
        reach = total - costs
        origins.append(reach.argmax(axis=1))
        total = reach.max(axis=1) + rows.sum(axis=0) * preference
    path = [int(total.argmax())]
    for origin in origins[:0:-1]:
        path.append(int(origin[path[-1]]))
    path.reverse()
    if np.mean([row[k] for row, k in zip(heard, path, strict=True)]) < _LEAST_CORRELATION:
        return None
    middles = np.array(starts) + window / 2
    return np.rint(np.interp(np.arange(len(curve)), middles, lags[path])).astype(int)


def _autocorrelation(values: np.ndarray) -> np.ndarray:
    """Of values (n,), at lags 0 to n - 1; 1 at lag 0, or 0 everywhere."""
    size = 1 << int(2 * len(values) - 1).bit_length()
    spectrum = np.fft.rfft(values, size)
    correlation = np.fft.irfft(spectrum * spectrum.conj(), size)[: len(values)]
    return correlation / correlation[0] if correlation[0] > 0 else np.zeros(len(values))


def find_bars(changes: np.ndarray) -> tuple[int | None, np.ndarray]:
    """Beats in a bar, 4 or 3, and the position of each beat in its bar (n,), from 0; by the chords.

    Args:
        changes: whether the chord changes on a beat, bool (n,). If too seldom to tell, the meter is None.
    """
    if np.count_nonzero(changes) < _LEAST_CHANGES:
        return None, np.zeros(len(changes), dtype=int)
    ways = []
    for meter, rates in CHANGE_RATES.items():
        total, origins = np.full(meter, -_THREE_COST * (meter == 3)), []
        for change in changes.tolist():
            shifted = total.max() + np.log(_SHIFT / meter)
            goes_on = np.roll(total, 1) + np.log(1 - _SHIFT)
            origins.append(np.where(goes_on >= shifted, np.roll(np.arange(meter), 1), total.argmax()))
            total = np.maximum(goes_on, shifted) + np.log(rates if change else 1 - rates)
        positions = [int(total.argmax())]
        for origin in origins[:0:-1]:
            positions.append(int(origin[positions[-1]]))
        ways.append((float(total.max()), meter, np.array(positions[::-1])))
    _, meter, best = max(ways, key=lambda way: way[0])
    return meter, best


def change_rates(changes: np.ndarray, meter: int, positions: np.ndarray) -> np.ndarray:
    """How often the chord of this song changes on each beat of its bars (meter,), in 0-1: `CHANGE_RATES` count as
    eight bars."""
    n, usual = 8, CHANGE_RATES[meter]
    counts = np.bincount(positions, minlength=meter), np.bincount(positions, changes, minlength=meter)
    return (counts[1] + n * usual) / (counts[0] + n)
