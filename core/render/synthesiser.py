"""Our own keyboard and string instruments: every seed is another instrument, every note is made of decaying partials.

The sound is a sum of exponentially decaying sinusoids (modal synthesis) plus a short filtered noise for hammer, key or
finger. What the modes are comes from the physics of each family:

* `grand`, `upright`: stiff struck strings, f_k = k f_0 sqrt(1 + B k^2) (Fletcher & Rossing, *The Physics of Musical
  Instruments*, 2nd ed., eq. 2.67 and ch. 12); B over the keyboard after Rigaud, David & Daudet, JASA 133 (2013) 3107;
  hammer contact and its dependence on velocity after Askenfelt & Jansson, JASA 93 (1993) 2181; two-stage decay of
  coupled unisons after Weinreich, JASA 62 (1977) 1474; loss growing with frequency after Bank & Valimaki, IEEE Signal
  Process. Lett. 10 (2003) 120.
* `electric`: a tine or reed before a nonlinear pickup, after Pfeifle & Munster, *Tone production of the Wurlitzer and
  Rhodes e-pianos* (2017), and two-operator FM (Chowning, JAES 21 (1973) 526). The harmonics of the nonlinear
  characteristic are computed, not sampled, so nothing can alias.
* `plucked`: nylon and steel guitars with pluck-position comb and body modes (Fletcher & Rossing, ch. 9), or a magnetic
  pickup instead of the body.

Modes are summed by splitting time n = p Q + q: z^n = z^(pQ) z^q, so all modes of a note are one matrix product of
(P, 2K) by (2K, Q) instead of K N sines.
"""

import math
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any

import numpy as np
from scipy import fft

from triadbench.core.constants import SAMPLE_RATE

FAMILIES = ("grand", "upright", "electric", "plucked")
FAMILY_ODDS = (0.45, 0.25, 0.15, 0.15)
_KINDS = {"grand": ("",), "upright": ("",), "electric": ("tine", "reed", "fm"), "plucked": ("nylon", "steel", "pickup")}
MIDI_RANGE = (21, 108)
"""The 88 keys."""
BAND_LIMIT = 0.47
"""Highest partial as a share of the sample rate: leaves room for the attack's sidebands below Nyquist."""

_BLOCK = 256  # Q above: near the square root of a 4.5 s note at 16 kHz, where tables and product are cheapest
_FLOOR_DB = -85.0  # weaker modes are dropped: below the 16-bit noise of a clip at its quietest level
_LN_1000 = math.log(1000.0)  # amplitude decay over one T60
_CURVE_HZ = np.geomspace(30.0, 12000.0, 27)  # about one point per third of an octave
_CLAMPED_BAR = (6.27, 17.55)  # second and third mode of a clamped-free bar over its first (Fletcher & Rossing 2.63)


def _drawn(low: float, high: float, *, log: bool = False, **families: tuple[float, float]) -> Any:
    """A number drawn evenly from [low, high], or from the range of its family; evenly in its logarithm with `log`."""
    return field(metadata={"log": log, "range": (low, high), **families})


@dataclass(frozen=True)
class Instrument:
    """One instrument: numbers shared by all of its notes. Made by `make_instrument`; hashable.

    Attributes:
        seed, family: identity; every random choice of a note follows from them, the key and the velocity.
        kind: variety inside the family ("" for pianos; "tine", "reed", "fm"; "nylon", "steel", "pickup").
        body_db: gain at `_CURVE_HZ`. body_peaks: (Hz, dB, width in octaves) each.
        tuning_cents, stretch_cents: offset of the whole instrument; extra stretch 40 semitones from middle C.
        inharmonicity: factor on the typical curve of B (0 for electric).
        position: where the string is struck or plucked, or the pickup sits, as a share of its length.
        cutoff_hz, cutoff_slope, order: low-pass of hammer or finger at middle C and full velocity; its growth in
            octaves per octave of pitch; its order (6 dB per octave each).
        touch: exponent of velocity in the cutoff.
        decay_s, decay_octaves: T60 of the fundamental's first stage at middle C; octaves of pitch that halve it.
        loss, loss_power: added decay rate at 1 kHz, 1/s, and its growth with frequency.
        aftersound_db, aftersound_factor: level and slowness of the second stage.
        detune_cents, unevenness_db: standard deviation of the unisons' tuning, and of single partials.
        low_hz, tilt_db: high-pass corner of the body; tilt per octave above 1 kHz.
        attack_s: rise time at middle C. noise_db, noise_s: level and T60 of the knock. level_tilt_db: per octave.
        release_s: time to fall 40 dB under the damper. reverb_db, reverb_s: tail of the case; -inf for none.
        drive, offset: pickup characteristic. bell_db: inharmonic modes. tremolo_hz, tremolo_depth.
    """

    seed: int
    family: str
    kind: str
    body_db: tuple[float, ...]
    body_peaks: tuple[tuple[float, float, float], ...]
    tuning_cents: float = _drawn(-4, 4)
    stretch_cents: float = _drawn(0, 4, grand=(4, 14), upright=(3, 16))
    inharmonicity: float = _drawn(0, 0, log=True, grand=(0.3, 1.6), upright=(0.7, 4), plucked=(0.05, 0.35))
    position: float = _drawn(0.08, 0.16, plucked=(0.06, 0.3))
    cutoff_hz: float = _drawn(450, 2600, log=True, plucked=(900, 5000))
    cutoff_slope: float = _drawn(0.2, 0.6)
    order: float = _drawn(1.2, 2.6, plucked=(0.8, 2))
    touch: float = _drawn(0.4, 1.0, plucked=(0.2, 0.7))
    decay_s: float = _drawn(4, 14, log=True, upright=(2.5, 8), electric=(3, 14), plucked=(2, 8))
    decay_octaves: float = _drawn(1.1, 1.9, plucked=(1.6, 3.5))
    loss: float = _drawn(0.4, 2.5, log=True, upright=(0.6, 3.5), electric=(0.05, 0.6), plucked=(0.8, 5))
    loss_power: float = _drawn(0.9, 1.6)
    aftersound_db: float = _drawn(-22, -5, electric=(-30, -12))
    aftersound_factor: float = _drawn(2, 6, electric=(0.8, 1.5), plucked=(1.5, 4))
    detune_cents: float = _drawn(0.1, 1.3, log=True, upright=(0.4, 2), electric=(0.1, 1))
    unevenness_db: float = _drawn(1, 4.5, upright=(2, 6), electric=(0.5, 2))
    low_hz: float = _drawn(50, 140, log=True, upright=(90, 220), electric=(30, 90), plucked=(70, 120))
    tilt_db: float = _drawn(-4, 1.5, electric=(-4, 1))
    attack_s: float = _drawn(0.0012, 0.004, log=True, electric=(0.001, 0.003), plucked=(0.0008, 0.003))
    noise_db: float = _drawn(-42, -20, upright=(-34, -14), electric=(-50, -28), plucked=(-40, -20))
    noise_s: float = _drawn(0.04, 0.18, log=True, electric=(0.02, 0.07), plucked=(0.02, 0.1))
    level_tilt_db: float = _drawn(-1.2, 0.6)
    release_s: float = _drawn(0.05, 0.2, log=True)
    reverb_db: float = _drawn(-34, -16)
    reverb_s: float = _drawn(0.2, 1.2)
    drive: float = _drawn(0, 0, electric=(0.25, 1.6))
    offset: float = _drawn(0, 0, electric=(0.1, 0.9))
    bell_db: float = _drawn(-99, -99, electric=(-34, -10))
    tremolo_hz: float = _drawn(4, 7)
    tremolo_depth: float = _drawn(0, 0, electric=(0, 0.35))


def make_instrument(seed: int, family: str | None = None) -> Instrument:
    """Draw the instrument `seed` (0 or more), of a family or (None) of any; raises ValueError for an unknown one."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed={seed!r} must be an integer of 0 or more")
    if family is not None and family not in FAMILIES:
        raise ValueError(f"family={family!r} is unknown; choose one of {', '.join(FAMILIES)}, or None to draw it")
    rng = np.random.default_rng(int(seed))
    drawn = str(rng.choice(FAMILIES, p=FAMILY_ODDS))
    family = family or drawn
    kind = str(rng.choice(_KINDS[family]))
    values = {}
    for number in fields(Instrument):
        if "range" in number.metadata:
            low, high = number.metadata.get(family, number.metadata["range"])
            log = number.metadata["log"] and low > 0
            value = math.exp(rng.uniform(math.log(low), math.log(high))) if log else rng.uniform(low, high)
            values[number.name] = float(value)
    if rng.random() < 0.4:
        values["reverb_db"] = -math.inf  # dry recordings
    if rng.random() < 0.5:
        values["tremolo_depth"] = 0.0
    # A smooth curve: white steps, averaged over three points (an octave), so about +-10 dB at its extremes.
    steps = rng.normal(0.0, rng.uniform(3.0, 8.0), len(_CURVE_HZ) + 2)
    curve = np.convolve(steps, [0.5, 1.0, 0.5], "valid") / 1.2247
    flat = 0.4 if family == "electric" or kind == "pickup" else 1.0
    curve = np.clip(flat * curve, -10.0, 10.0)
    centres = np.exp(rng.uniform(math.log(60.0), math.log(5000.0), int(rng.integers(4, 13))))
    peaks = [(float(hz), float(flat * rng.uniform(-7, 8)), float(rng.uniform(0.04, 0.25))) for hz in centres]
    if family == "plucked" and kind != "pickup":  # air, first and second plate mode (Fletcher & Rossing 9.2)
        for hz in (100.0, 200.0, 400.0):
            centre = hz * float(rng.uniform(0.88, 1.15))
            peaks.append((centre, float(rng.uniform(2, 9)), float(rng.uniform(0.12, 0.35))))
    return Instrument(int(seed), family, kind, tuple(curve.tolist()), tuple(peaks), **values)


def inharmonicity(instrument: Instrument, midi: float) -> float:
    """B of the string of key `midi`: two exponentials that meet in the tenor (Rigaud et al. 2013, table II)."""
    return instrument.inharmonicity * (math.exp(0.0926 * midi - 13.64) + math.exp(-0.0847 * midi - 5.82))


def note_frequency(instrument: Instrument, midi: float) -> float:
    """Frequency in Hz to which the first partial is tuned: equal temperament, the instrument's offset and stretch.

    The stretch is odd about middle C and steepest at the ends (Railsback's curve; Fletcher & Rossing 12.9).
    """
    cents = instrument.tuning_cents + instrument.stretch_cents * ((midi - 60.0) / 40.0) ** 3
    return 440.0 * 2.0 ** ((midi - 69.0) / 12.0 + cents / 1200.0)


def partial_frequencies(instrument: Instrument, midi: float, count: int) -> np.ndarray:
    """First `count` partials in Hz, (count,): k f_1 sqrt((1 + B k^2) / (1 + B)), before the note's own few cents."""
    k = np.arange(1, count + 1)
    b = inharmonicity(instrument, midi)
    return note_frequency(instrument, midi) * k * np.sqrt((1.0 + b * k * k) / (1.0 + b))


def body_gain_db(instrument: Instrument, frequency: np.ndarray) -> np.ndarray:
    """Gain of body, case and microphone in dB at `frequency` in Hz (any shape, > 0)."""
    f = np.asarray(frequency, dtype=np.float64)
    log_f = np.log2(f)
    gain = np.interp(log_f, np.log2(_CURVE_HZ), instrument.body_db)
    for centre, peak_db, width in instrument.body_peaks:
        gain = gain + peak_db / (1.0 + ((log_f - math.log2(centre)) / width) ** 2)
    gain = gain - 10.0 * np.log10(1.0 + (instrument.low_hz / f) ** 4)  # too small a plate to radiate the lowest bass
    return gain + instrument.tilt_db * np.maximum(log_f - math.log2(1000.0), 0.0)


def render_note(
    instrument: Instrument,
    midi: int,
    velocity: float,
    seconds: float = 4.5,
    sample_rate: int = SAMPLE_RATE,
    hold_s: float | None = None,
) -> np.ndarray:
    """Play one key. Same arguments, same bytes.

    Args:
        midi: key, 21 (A0) to 108 (C8); 60 is middle C. seconds, sample_rate: length of the result; Hz.
        velocity: above 0, at most 1; sets level (peak about 0.5 velocity^1.2) and brightness.
        hold_s: when the key is let go, in seconds; None holds it to the end. As on a piano, the strings above F6 have
            no damper and ring on.

    Returns:
        float32 (round(seconds * sample_rate),), |x| < 1, attack at sample 0.

    Raises:
        ValueError: a value out of its range; named in the message.
    """
    _check(midi, velocity, seconds, sample_rate, hold_s)
    n, midi, velocity = round(seconds * sample_rate), int(midi), float(velocity)
    identity = [instrument.seed, FAMILIES.index(instrument.family), midi]
    key_rng = np.random.default_rng(identity)  # what the tuner and the voicer left: the same at every velocity
    rng = np.random.default_rng([*identity, round(velocity * 1e6) + 1])
    own_cents = float(np.clip(key_rng.normal(0.0, 1.2), -3.0, 3.0))
    level_db = float(np.clip(key_rng.normal(0.0, 1.0), -2.0, 2.0))
    top = BAND_LIMIT * sample_rate
    modes = _electric_modes if instrument.family == "electric" else _string_modes
    f, amplitude, rate = modes(instrument, midi, velocity, top, key_rng)
    f = f * 2.0 ** (own_cents / 1200.0)
    amplitude = amplitude * 10.0 ** (body_gain_db(instrument, f) / 20.0) * (f < top)
    if not amplitude.any():
        raise ValueError(f"sample_rate={sample_rate} is too low for midi={midi}; nothing of it lies below {top:.0f} Hz")
    amplitude /= math.sqrt(float(np.sum(amplitude**2)))

    # The knock: louder against the short strings of the treble, softer under a slow key.
    noise_db = instrument.noise_db + 0.22 * max(midi - 60, 0) + 10.0 * math.log10(velocity) + rng.normal(0.0, 1.5)
    noise = 10.0 ** (noise_db / 20.0)
    thump_hz = rng.uniform(50.0, 330.0, 5)
    thump = 0.5 * noise * rng.rayleigh(0.7, 5) * 10.0 ** (np.minimum(body_gain_db(instrument, thump_hz), 6.0) / 20.0)
    thump_rate = _LN_1000 / rng.uniform(0.08, 0.3, 5)
    f, amplitude, rate = np.append(f, thump_hz), np.append(amplitude, thump), np.append(rate, thump_rate)
    # The strings' phases are the key's: every stroke must find the same partials reinforced by their doubles.
    phase = np.append(key_rng.random(len(f) - 5), rng.random(5))
    keep = amplitude > amplitude.max() * 10.0 ** (_FLOOR_DB / 20.0)
    out = _sum_modes(f[keep] / sample_rate, amplitude[keep], rate[keep] / sample_rate, phase[keep], n)

    knock = _knock(instrument, velocity, sample_rate, rng)[:n]
    out[: len(knock)] += np.float32(noise) * knock
    # Contact lasts longer in the bass: 4 ms against under 1 ms at the top (Askenfelt & Jansson 1993).
    rise = min(max(2, round(instrument.attack_s * 2.0 ** (-(midi - 60) / 36.0) * sample_rate)), n)
    out[:rise] *= np.sin(0.5 * np.pi * (np.arange(rise) + 0.5) / rise).astype(np.float32) ** 2
    if instrument.tremolo_depth > 0.0:
        swing = 2.0 * np.pi * (instrument.tremolo_hz / sample_rate * np.arange(n) + rng.random())
        out *= (1.0 - instrument.tremolo_depth * (0.5 + 0.5 * np.sin(swing))).astype(np.float32)
    if hold_s is not None and not (instrument.family in ("grand", "upright") and midi > 89):
        start = min(round(hold_s * sample_rate), n)
        per_sample = math.log(100.0) / (instrument.release_s * 2.0 ** (-(midi - 60) / 48.0) * sample_rate)
        out[start:] *= np.exp(-per_sample * np.arange(n - start)).astype(np.float32)
    if instrument.reverb_db > -math.inf:
        tail = _reverb(instrument, sample_rate)
        size = fft.next_fast_len(n + len(tail), real=True)
        out += fft.irfft(fft.rfft(out, size) * fft.rfft(tail, size), size)[:n]
    level_db += instrument.level_tilt_db * (midi - 60) / 12.0
    peak = min(0.5 * velocity**1.2 * 10.0 ** (level_db / 20.0), 0.9)
    out *= np.float32(peak / float(np.max(np.abs(out))))
    return out


def _check(midi, velocity, seconds, sample_rate, hold_s) -> None:
    if isinstance(midi, bool) or not isinstance(midi, (int, np.integer)) or not MIDI_RANGE[0] <= midi <= MIDI_RANGE[1]:
        raise ValueError(f"midi={midi!r} must be an integer from {MIDI_RANGE[0]} to {MIDI_RANGE[1]}")
    if not 0.0 < velocity <= 1.0:
        raise ValueError(f"velocity={velocity!r} must be above 0 and at most 1")
    if not 1000 <= sample_rate <= 384000:
        raise ValueError(f"sample_rate={sample_rate!r} must lie between 1000 and 384000 Hz")
    if not (math.isfinite(seconds) and round(seconds * sample_rate) >= 1):
        raise ValueError(f"seconds={seconds!r} must be finite and hold at least one sample")
    if hold_s is not None and not (math.isfinite(hold_s) and hold_s > 0.0):
        raise ValueError(f"hold_s={hold_s!r} must be finite and above 0, or None to hold the key to the end")


def _string_modes(instrument, midi, velocity, top, rng):
    """Frequencies, amplitudes and decay rates of struck or plucked strings, each (modes,)."""
    i = instrument
    plucked = i.family == "plucked"
    f = partial_frequencies(i, midi, int(top / note_frequency(i, midi)) + 1)
    f = f[f < top]
    k = np.arange(1, len(f) + 1)
    octaves = (midi - 60) / 12.0
    place = i.position * 2.0 ** rng.normal(0.0, 0.1 if plucked else 0.03)
    # The comb's zeros are never complete: the hammer is wide and the bridge not rigid.
    comb = np.sqrt(np.sin(np.pi * k * place) ** 2 + 0.01)
    if i.kind == "pickup":  # magnetic pickups sit at another point of the string and see its velocity
        comb = comb * np.sqrt(np.sin(np.pi * k * (0.35 - i.position)) ** 2 + 0.01)
    cutoff = i.cutoff_hz * 2.0 ** (i.cutoff_slope * octaves + rng.normal(0.0, 0.12)) * max(velocity, 0.04) ** i.touch
    amplitude = comb * (1.0 + (f / cutoff) ** 2) ** (-0.5 * i.order)
    if plucked:
        amplitude = amplitude / k  # a step of force at the bridge, not an impulse
    amplitude = amplitude * 10.0 ** (rng.normal(0.0, i.unevenness_db, len(f)) / 20.0)
    decay_s = i.decay_s * 2.0 ** (-octaves / i.decay_octaves) * 2.0 ** rng.normal(0.0, 0.2)
    scatter = 2.0 ** rng.normal(0.0, 0.35, len(f))  # each partial meets another admittance of the bridge
    radiated = _LN_1000 / decay_s * scatter
    internal = i.loss * (f / 1000.0) ** i.loss_power * scatter

    strings = 1 if plucked or midi < 33 else 2 if midi < 46 else 3
    modes = max(strings, 2)  # one string still has two polarizations
    # The strings' sum dies fast, what is left between them slowly and a little off pitch: beats and aftersound.
    spread = i.detune_cents if strings > 1 else min(i.detune_cents, 0.4)
    cents = np.concatenate([[0.0], np.clip(rng.normal(0.0, spread, modes - 1), -3.0, 3.0)])
    gain_db = rng.normal(i.aftersound_db, 3.5, (len(f), modes))
    gain_db[:, 0] = 0.0
    slow = np.concatenate([[1.0], i.aftersound_factor * 2.0 ** rng.normal(0.0, 0.3, modes - 1)])
    # What the bridge took is spared in the aftersound; what felt, air and the string itself take is not, or little.
    rates = radiated[:, None] / slow + internal[:, None] / slow**0.3
    frequencies, amplitudes = f[:, None] * 2.0 ** (cents / 1200.0), amplitude[:, None] * 10.0 ** (gain_db / 20.0)
    return frequencies.ravel(), amplitudes.ravel(), rates.ravel()


def _electric_modes(instrument, midi, velocity, top, rng):
    """As `_string_modes` for tine, reed and FM pianos: harmonics of the pickup's characteristic, and a bell."""
    i = instrument
    first = note_frequency(i, midi)
    octaves = (midi - 60) / 12.0
    theta = 2.0 * np.pi * np.arange(256) / 256
    swing = min((0.12 + i.drive * velocity**0.8) * 2.0 ** (-0.35 * octaves), 2.2)  # short tines move less
    offset = i.offset * 2.0 ** rng.normal(0.0, 0.2)
    if i.kind == "tine":  # the magnet's field past its pole; the coil sees the rate of change
        wave = 1.0 / (1.0 + (offset + swing * np.cos(theta)) ** 2)
    elif i.kind == "reed":  # capacitance of a gap
        wave = 1.0 / (1.25 - 0.45 * min(swing, 1.6) * np.cos(theta))
    else:
        wave = np.sin(theta + swing * np.sin(theta))
    spectrum = np.abs(np.fft.rfft(wave))[1:64]
    k = np.arange(1, 64)
    if i.kind != "fm":
        spectrum = spectrum * k
    amplitude = spectrum / spectrum.max() * (1.0 + (k * first / max(i.cutoff_hz * 2.0, 1500.0)) ** 2) ** -0.5
    amplitude = amplitude * 10.0 ** (rng.normal(0.0, i.unevenness_db, len(k)) / 20.0)
    decay_s = i.decay_s * 2.0 ** (-octaves / i.decay_octaves) * 2.0 ** rng.normal(0.0, 0.2)
    # The k-th harmonic of a weak nonlinearity goes with the k-th power of the swing, hence dies k times as fast.
    rate = (_LN_1000 / decay_s) * (1.0 + rng.uniform(0.5, 1.0) * (k - 1)) + i.loss * (k * first / 1000.0)
    bells = np.array((13.0, 14.0, 15.0) if i.kind == "fm" else _CLAMPED_BAR) * 2.0 ** rng.normal(0.0, 0.02)
    bell_db = i.bell_db + 14.0 * math.log10(velocity) - 4.0 * np.arange(len(bells)) - 6.0 * (i.kind == "reed")
    bell = amplitude.max() * 10.0 ** (bell_db / 20.0)
    bell_rate = _LN_1000 / rng.uniform(0.15, 0.8, len(bells))
    second = 10.0 ** (i.aftersound_db / 20.0)  # tone bar, or a chorus: a weak double slightly off
    shift = 2.0 ** (float(np.clip(rng.normal(0.0, 2.0 * i.detune_cents), -3.0, 3.0)) / 1200.0)
    return (
        np.concatenate([k * first, k * first * shift, bells * first]),
        np.concatenate([amplitude, second * amplitude, bell]),
        np.concatenate([rate, rate / i.aftersound_factor, bell_rate]),
    )


def _sum_modes(frequency, amplitude, rate, phase, n) -> np.ndarray:
    """sum_k a_k exp(-r_k t) cos(2 pi (f_k t + p_k)), t = 0..n-1 in samples; float32 (n,).

    In float64 although the ear would not mind float32: BLAS adds in another order on another number of threads, and
    only so does the rounding to float32 hide it. Same arguments, same bytes.
    """
    log_z = -rate + 2j * np.pi * frequency
    fine = _powers(log_z, _BLOCK)
    coarse = _powers(log_z * _BLOCK, -(-n // _BLOCK)) * (amplitude * np.exp(2j * np.pi * phase))
    product = np.hstack([coarse.real, -coarse.imag]) @ np.hstack([fine.real, fine.imag]).T
    return product.reshape(-1)[:n].astype(np.float32)


def _powers(log_z: np.ndarray, count: int) -> np.ndarray:
    """exp(log_z t), t = 0..count-1: complex (count, modes), by doubling: far fewer cosines, error of a few eps."""
    table = np.ones((count, len(log_z)), dtype=np.complex128)
    done = 1
    while done < count:
        step = min(done, count - done)
        factor = np.exp(np.maximum(log_z.real * done, -300.0) + 1j * log_z.imag * done)
        np.multiply(table[:step], factor, out=table[done : done + step])
        done += step
    return table


def _knock(instrument, velocity, sample_rate, rng) -> np.ndarray:
    """Hammer, key or finger noise through the body: float32, unit RMS over its first milliseconds."""
    n = max(16, round(1.2 * instrument.noise_s * sample_rate))
    size = fft.next_fast_len(n, real=True)
    spectrum = fft.rfft(rng.standard_normal(size))
    f = np.maximum(np.arange(len(spectrum)) * sample_rate / size, 20.0)
    dull = instrument.cutoff_hz * 0.8 * max(velocity, 0.04) ** instrument.touch  # felt damps its own noise
    gain = 10.0 ** (body_gain_db(instrument, f) / 20.0) / (1.0 + (f / dull) ** 2)
    noise = fft.irfft(spectrum * gain * (f < BAND_LIMIT * sample_rate), size)[:n]
    noise *= np.exp(-_LN_1000 / (instrument.noise_s * sample_rate) * np.arange(n)) / np.sqrt(np.mean(noise**2))
    return noise.astype(np.float32)


@lru_cache(maxsize=8)
def _reverb(instrument: Instrument, sample_rate: int) -> np.ndarray:
    """Tail of case and undamped strings: noise that dies away, the same for all notes of the instrument; float32."""
    rng = np.random.default_rng([instrument.seed, 7])
    n = max(8, round(instrument.reverb_s * sample_rate))
    tail = rng.standard_normal(n) * np.exp(-_LN_1000 / n * np.arange(n))
    tail[1:] = tail[1:] + 0.6 * tail[:-1]  # walls take the highs first
    tail[: round(0.004 * sample_rate)] = 0.0  # the first reflection comes after the direct sound
    return (10.0 ** (instrument.reverb_db / 20.0) * tail / math.sqrt(float(np.sum(tail**2)))).astype(np.float32)
