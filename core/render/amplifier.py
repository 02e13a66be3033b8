"""A crunch amplifier: the second half of the original study's data was every clip played through one ("Marvel Crunch").

Chain: high-pass -> pre-gain -> oversampled asymmetric soft clip -> tone stack -> cabinet -> output level.

* Clipping makes harmonics beyond Nyquist, which fold back as inharmonic tones (aliases). So the clip runs at
  `oversampling` times the rate (Zolzer, *DAFX*, 2nd ed., 4.3; Yeh, Abel & Smith, DAFx-07).
* A bias before the symmetric curve makes it asymmetric, hence even harmonics beside odd ones (DAFX 4.3.2).
* Tone and cabinet are the biquads of Bristow-Johnson's *Cookbook formulae for audio EQ*; their joint impulse response,
  all minimum-phase, is one short FIR.

Both resamplers are linear-phase FIR filters, centred, so without delay. They are computed as the product of overlapping
tiles with a Toeplitz matrix: it does twice the arithmetic of a polyphase loop and takes a fraction of its time.
"""

import math
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any

import numpy as np
from scipy import fft, signal

_HALF_TAPS = 16  # input samples on each side: a transition of 0.16 of the rate, see _matrices
_TILE = 32  # output samples of a tile at the low rate: as many as it overlaps, where overlap and product balance
_IR_S = 0.1  # by then the lowest corner, 40 Hz, has died away
_ONE_THREAD = 2**18  # OpenBLAS uses one thread up to this many multiplications
_SILENCE = 2.0**-16  # half a step of 16-bit audio: nothing is there to amplify


def _knob(default: float, allowed: tuple[float, float], drawn: tuple[float, float] | None = None) -> Any:
    """A setting of the amplifier: the ranges that it may have, and that `random_settings` draws evenly from."""
    return field(default=default, metadata={"allowed": allowed, "drawn": drawn})


@dataclass(frozen=True)
class AmpSettings:
    """The amplifier's knobs; checks itself.

    Attributes:
        pre_gain_db: how far the clip's peak is driven beyond the clipper's unit knee. Relative to the clip's own peak,
            not absolute: a quiet recording crunches as much as a loud one.
        bias: working point of the clipper, in units of its knee; 0 is symmetric (odd harmonics only).
        shape: knee, from tanh (0) to the longer one of x / sqrt(1 + x^2) (1).
        low_cut_hz: first-order high-pass before the clipper, which keeps chords from turning to mud.
        bass_db, mid_db, treble_db: low shelf at 120 Hz, bell at 600 Hz, high shelf at 2.5 kHz.
        cabinet_low_hz, cabinet_high_hz: band of the loudspeaker (12 and 24 dB per octave outside).
        resonance_db: bump of the cone at its low corner. level_db: peak of the result below full scale.
        hiss_db: hiss at the input, below the clip's peak; only where `amplify` is given a generator.
        oversampling: rate of the clipper over that of the clip, 1 to 16. 8 keeps aliases of a full-scale 5 kHz sine at
            16 kHz and `CRUNCH` 60 dB below it.

    Raises:
        ValueError: a value out of its range.
    """

    pre_gain_db: float = _knob(14.0, allowed=(-20.0, 40.0), drawn=(3.0, 18.0))
    bias: float = _knob(0.25, allowed=(-1.0, 1.0), drawn=(-0.5, 0.5))
    shape: float = _knob(0.0, allowed=(0.0, 1.0), drawn=(0.0, 0.6))
    low_cut_hz: float = _knob(70.0, allowed=(10.0, 500.0), drawn=(40.0, 140.0))
    bass_db: float = _knob(0.0, allowed=(-15.0, 15.0), drawn=(-6.0, 6.0))
    mid_db: float = _knob(3.0, allowed=(-15.0, 15.0), drawn=(-5.0, 7.0))
    treble_db: float = _knob(2.0, allowed=(-15.0, 15.0), drawn=(-6.0, 6.0))
    cabinet_low_hz: float = _knob(85.0, allowed=(40.0, 400.0), drawn=(60.0, 130.0))
    cabinet_high_hz: float = _knob(5000.0, allowed=(1500.0, 20000.0), drawn=(3500.0, 7000.0))
    resonance_db: float = _knob(4.0, allowed=(0.0, 12.0), drawn=(1.0, 8.0))
    level_db: float = _knob(-1.0, allowed=(-60.0, 0.0), drawn=(-9.0, -0.5))
    hiss_db: float = _knob(-75.0, allowed=(-200.0, -20.0), drawn=(-90.0, -55.0))
    oversampling: int = _knob(8, allowed=(1, 16))

    def __post_init__(self):
        for knob in fields(self):
            value, (low, high) = getattr(self, knob.name), knob.metadata["allowed"]
            integer = knob.name == "oversampling"
            types = (int, np.integer) if integer else (int, float, np.number)
            if isinstance(value, bool) or not isinstance(value, types) or not low <= value <= high:
                kind = "an integer" if integer else "a number"
                raise ValueError(f"{knob.name}={value!r} must be {kind} from {low:g} to {high:g}")


CRUNCH = AmpSettings()
"""The default: break-up on the attack, clean again as the chord dies away."""


def random_settings(rng: np.random.Generator) -> AmpSettings:
    """Settings of another amplifier, from just breaking up to well driven."""
    knobs = [knob for knob in fields(AmpSettings) if knob.metadata["drawn"]]
    drawn: dict[str, Any] = {knob.name: float(rng.uniform(*knob.metadata["drawn"])) for knob in knobs}
    return AmpSettings(**drawn)


def amplify(
    waveform: np.ndarray, sample_rate: int, settings: AmpSettings = CRUNCH, rng: np.random.Generator | None = None
) -> np.ndarray:
    """Play a clip through the amplifier.

    Args:
        waveform: (samples,), finite; its level does not matter. sample_rate: Hz, at least 4000.
        rng: source of the hiss; None for an amplifier without. Same generator state, same bytes.

    Returns:
        float32 (samples,), peak at `settings.level_db`, no delay. Silence (below half a 16-bit step) gives zeros.

    Raises:
        ValueError: more than one channel, NaN or infinity, or a rate too low.
    """
    x = np.asarray(waveform, dtype=np.float32)
    if x.ndim != 1:
        raise ValueError(f"waveform of shape {x.shape} must be (samples,); mix the channels first")
    if not 4000 <= sample_rate <= 384000:
        raise ValueError(f"sample_rate={sample_rate!r} must lie between 4000 and 384000 Hz")
    peak = float(np.max(np.abs(x), initial=0.0))
    if not math.isfinite(peak):
        raise ValueError("waveform holds NaN or infinity; every sample must be finite")
    if peak < _SILENCE:
        return np.zeros(len(x), dtype=np.float32)
    x = x / np.float32(peak)
    if rng is not None:
        x = x + rng.standard_normal(len(x), dtype=np.float32) * np.float32(10.0 ** (settings.hiss_db / 20.0))
    b, a = signal.butter(1, min(settings.low_cut_hz, 0.2 * sample_rate), "highpass", fs=sample_rate)
    x = signal.lfilter(b.astype(np.float32), a.astype(np.float32), x)
    x *= np.float32(10.0 ** (settings.pre_gain_db / 20.0))
    factor = int(settings.oversampling)
    y = _downsample(_clip(_upsample(x, factor), settings), factor, len(x))
    size = fft.next_fast_len(len(y) + round(_IR_S * sample_rate), real=True)
    y = fft.irfft(fft.rfft(y, size) * _tone_and_cabinet(settings, sample_rate, size), size)[: len(y)]
    loudest = float(np.max(np.abs(y)))
    if loudest == 0.0:
        return np.zeros(len(x), dtype=np.float32)
    return y * np.float32(10.0 ** (settings.level_db / 20.0) / loudest)


def _clip(u: np.ndarray, settings: AmpSettings) -> np.ndarray:
    """The curve, zero at zero: silence between notes stays silence; (samples,) float32, overwrites `u`."""
    bias, shape = np.float32(settings.bias), np.float32(settings.shape)
    if bias:
        u += bias
    y = np.tanh(u)
    rest = np.tanh(bias)
    if shape:
        y *= 1 - shape
        y += shape * u / np.sqrt(1 + u * u)
        rest = (1 - shape) * rest + shape * bias / np.sqrt(1 + bias * bias)
    if bias:
        y -= rest
    return y


@lru_cache(maxsize=16)
def _matrices(factor: int) -> tuple[np.ndarray, np.ndarray]:
    """Toeplitz matrices of the two resamplers: (window in, tile out) each, float32.

    Their low-pass is 80 dB down from Nyquist on. Kaiser's formula: beta 7.9 gives 80 dB, and a transition of
    72 / (2.285 * 2 pi * 32) = 0.157 of the low rate. It ends at Nyquist, so the clip's top half octave is lost; hardly
    any guitar loudspeaker reaches there.
    """
    h = signal.firwin(2 * _HALF_TAPS * factor - 1, 0.5 - 0.157 / 2, window=("kaiser", 7.9), fs=factor)
    span = _HALF_TAPS * factor  # h[span - 1] is the centre
    low = np.arange(_TILE + 2 * _HALF_TAPS - 1)[:, None] - (_HALF_TAPS - 1)
    lag = np.arange(_TILE * factor)[None, :] - low * factor
    up = np.where(np.abs(lag) < span, factor * h[np.clip(lag + span - 1, 0, len(h) - 1)], 0.0)
    high = np.arange((_TILE - 1) * factor + 2 * span - 1)[:, None] - (span - 1)
    lag = np.arange(_TILE)[None, :] * factor - high
    down = np.where(np.abs(lag) < span, h[np.clip(lag + span - 1, 0, len(h) - 1)], 0.0)
    return up.astype(np.float32), down.astype(np.float32)


def _filter(x: np.ndarray, matrix: np.ndarray, before: int, hop: int, low: int) -> np.ndarray:
    """All windows of `x` (the first begins `before` zeros ahead of it) times `matrix`, joined; float32.

    `low` is the clip's length at the low rate. The product goes in batches too small for BLAS to share out among
    threads, which would change the order of the sums, and so the last bits, with the number of threads.
    """
    rows = max(1, _ONE_THREAD // matrix.size)
    count = -(-low // (_TILE * rows)) * rows
    padded = np.zeros(max(before + len(x), (count - 1) * hop + len(matrix)), dtype=np.float32)
    padded[before : before + len(x)] = x
    windows = np.lib.stride_tricks.sliding_window_view(padded, len(matrix))[::hop][:count]
    return (np.ascontiguousarray(windows).reshape(-1, rows, len(matrix)) @ matrix).reshape(-1)


def _upsample(x: np.ndarray, factor: int) -> np.ndarray:
    """(samples,) -> (at least samples * factor,) float32, in whole batches; zeros' filtered tail beyond."""
    return x if factor == 1 else _filter(x, _matrices(factor)[0], _HALF_TAPS - 1, _TILE, len(x))


def _downsample(y: np.ndarray, factor: int, n: int) -> np.ndarray:
    """(high-rate samples,) -> (n,) float32."""
    return y if factor == 1 else _filter(y, _matrices(factor)[1], _HALF_TAPS * factor - 1, _TILE * factor, n)[:n]


@lru_cache(maxsize=4)
def _tone_and_cabinet(settings: AmpSettings, sample_rate: int, size: int) -> np.ndarray:
    """Spectrum (size // 2 + 1,) complex64 of everything behind the clipper, as one FIR of `_IR_S`."""
    s = settings
    top = 0.45 * sample_rate
    sections = np.vstack(
        [
            signal.butter(2, s.cabinet_low_hz, "highpass", fs=sample_rate, output="sos"),
            signal.butter(4, min(s.cabinet_high_hz, top), fs=sample_rate, output="sos"),
            _eq("bell", 1.2 * s.cabinet_low_hz, s.resonance_db, 1.4, sample_rate),
            _eq("low", 120.0, s.bass_db, 0.707, sample_rate),
            _eq("bell", 600.0, s.mid_db, 0.7, sample_rate),
            _eq("high", min(2500.0, 0.8 * top), s.treble_db, 0.707, sample_rate),
        ]
    )
    taps = round(_IR_S * sample_rate)
    ir = signal.sosfilt(sections, np.eye(1, taps)[0])
    # What the bias makes of a loud chord is a constant; the cut-off tail must not let a trace of it through.
    fade = np.hanning(2 * taps)[taps:]
    ir *= fade
    ir -= fade * (ir.sum() / fade.sum())
    return fft.rfft(ir.astype(np.float32), size)


def _eq(kind: str, hz: float, gain_db: float, q: float, sample_rate: int) -> np.ndarray:
    """One section (1, 6) of the Cookbook: "bell", "low" or "high" shelf."""
    a = 10.0 ** (gain_db / 40.0)
    w = 2.0 * math.pi * hz / sample_rate
    alpha, cos = math.sin(w) / (2.0 * q), math.cos(w)
    if kind == "bell":
        num = [1 + alpha * a, -2 * cos, 1 - alpha * a]
        den = [1 + alpha / a, -2 * cos, 1 - alpha / a]
    else:
        sign = 1.0 if kind == "low" else -1.0
        root = 2.0 * math.sqrt(a) * alpha
        above, below = a + 1 + sign * (a - 1) * cos, a + 1 - sign * (a - 1) * cos
        num = [a * (below + root), sign * 2 * a * (a - 1 - sign * (a + 1) * cos), a * (below - root)]
        den = [above + root, sign * -2 * (a - 1 + sign * (a + 1) * cos), above - root]
    return np.array([*num, *den])[None, :] / den[0]
