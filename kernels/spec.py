"""What a mel spectrogram is: one frozen `MelSpec`, its window and its filterbank, in float64 numpy.

Formulas (all frequencies in Hz):
    htk      m(f) = 2595 log10(1 + f / 700)
    slaney   m(f) = 3 f / 200 below 1 kHz, 15 + 27 log(f / 1000) / log(6.4) above     (Slaney, Auditory Toolbox, 1998)
    filter i rises from p[i] to p[i + 1] and falls to p[i + 2]; p are n_mels + 2 points, equally spaced in m
    norm     "slaney" divides filter i by half its width: weights 2 / (p[i + 2] - p[i])
    window   periodic cosine sums, w[n] = sum_j a_j cos(2 pi j n / win_length)

The values are those of `torchaudio.transforms.MelSpectrogram`, computed in float64 where torchaudio uses float32.
torchaudio places bin k at k * (sample_rate // 2) / (n_freqs - 1), which for odd n_fft or an odd sample rate (11,025 Hz)
is not the bin's true frequency k * sample_rate / n_fft (librosa uses the true one; filters differ by up to 1 %); a
drop-in has to follow torchaudio, so we do.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

LOG_EPS = 1e-10  # log mel is log(mel + LOG_EPS): -23.03 for silence
INT16_FULL_SCALE = 32768  # int16 input is divided by this, so that it lies in [-1, 1)

MEL_SCALES = ("htk", "slaney")
NORMS = (None, "slaney")
PAD_MODES = ("reflect", "constant", "replicate", "circular")
NORMALIZATIONS = (False, True, "window", "frame_length")
# Coefficients a_j of the periodic cosine-sum windows. "custom" marks a window that travels as an array beside the spec.
_COSINE_SUMS = {"hann": (0.5, -0.5), "hamming": (0.54, -0.46), "blackman": (0.42, -0.5, 0.08), "rectangular": (1.0,)}
WINDOWS = (*_COSINE_SUMS, "custom")
_CHOICES: dict[str, tuple] = {"pad_mode": PAD_MODES, "window": WINDOWS, "normalized": NORMALIZATIONS}
_CHOICES |= {"norm": NORMS, "mel_scale": MEL_SCALES}
_Number = TypeVar("_Number", int, float)


class _Derived(Generic[_Number]):
    """A field that is given as a number or None, and read as a number: `MelSpec` fills it in."""

    def __get__(self, spec: object, owner: type) -> _Number:
        return None  # type: ignore[return-value]  # the default; a spec's own value comes first

    if TYPE_CHECKING:

        def __set__(self, spec: object, value: _Number | None) -> None: ...


@dataclasses.dataclass(frozen=True)
class MelSpec:
    """Every setting of a mel spectrogram. Checks itself; derived defaults are filled in, so equal specs compare equal.

    `dataclasses.replace` keeps the filled-in values: when you change n_fft, state win_length and hop_length too.

    Attributes:
        sample_rate: Hz.
        n_fft: FFT length, samples; any size.
        win_length: window length, samples, 1..n_fft; shorter windows are centred in the frame; default n_fft.
        hop_length: samples between frames; default win_length // 2.
        f_min: lower end of the filterbank, Hz. f_max: upper end; default sample_rate // 2.
        n_mels: number of filters.
        power: exponent of the magnitude: 1 magnitude, 2 power.
        pad: zeros put on both sides before anything else, samples.
        center: put n_fft // 2 samples of `pad_mode` padding on both sides: frame t is centred at t * hop_length.
        window: one of WINDOWS; periodic.
        normalized: True or "window" divides the spectrum by the window's L2 norm; "frame_length" by sqrt(n_fft).
        norm: None or "slaney" (area normalisation of the filters).
        mel_scale: "htk" or "slaney".

    Raises:
        ValueError: a setting breaks a rule; names the setting, its value, the rule and the way out.
    """

    sample_rate: int = 16000
    n_fft: int = 1024
    win_length: _Derived[int] = _Derived()
    hop_length: _Derived[int] = _Derived()
    f_min: float = 0.0
    f_max: _Derived[float] = _Derived()
    n_mels: int = 64
    power: float = 2.0
    pad: int = 0
    center: bool = True
    pad_mode: str = "reflect"
    window: str = "hann"
    normalized: bool | str = False
    norm: str | None = None
    mel_scale: str = "htk"

    def __post_init__(self) -> None:
        put = functools.partial(object.__setattr__, self)  # the dataclass is frozen
        for name in ("sample_rate", "n_fft", "n_mels"):
            put(name, _integer(name, getattr(self, name), at_least=1))
        win_length = self.n_fft if self.win_length is None else self.win_length
        put("win_length", _integer("win_length", win_length, at_least=1))
        if self.win_length > self.n_fft:
            raise ValueError(
                f"win_length={self.win_length} must not exceed n_fft={self.n_fft}; shorten the window or raise n_fft"
            )
        if self.hop_length is None and self.win_length == 1:
            raise ValueError("hop_length=None means win_length // 2, which is 0 for win_length=1; state hop_length")
        hop_length = self.win_length // 2 if self.hop_length is None else self.hop_length
        put("hop_length", _integer("hop_length", hop_length, at_least=1))
        put("pad", _integer("pad", self.pad, at_least=0))
        put("f_min", _real("f_min", self.f_min))
        put("f_max", float(self.sample_rate // 2) if self.f_max is None else _real("f_max", self.f_max))
        if not 0.0 <= self.f_min < self.f_max:
            raise ValueError(
                f"f_min={self.f_min} and f_max={self.f_max} must satisfy 0 <= f_min < f_max (Hz); "
                "f_max=None means sample_rate // 2"
            )
        put("power", _real("power", self.power))
        if self.power <= 0.0:
            raise ValueError(f"power={self.power} must be above 0; use 1 for magnitude or 2 for power")
        if not isinstance(self.center, (bool, np.bool_)):
            raise ValueError(f"center={self.center!r} must be True or False")
        put("center", bool(self.center))
        for name, valid in _CHOICES.items():
            _one_of(name, getattr(self, name), valid)
        self.text  # noqa: B018  (made once, here, for torch.compile)

    @functools.cached_property
    def text(self) -> str:
        """Every setting, as `ast.literal_eval` reads it: for operators, which take no dataclass."""
        return repr(self.to_dict())

    @property
    def n_freqs(self) -> int:
        """Bins of the one-sided spectrum."""
        return self.n_fft // 2 + 1

    def n_frames(self, n_samples: int) -> int:
        """Frames of a clip of `n_samples`. Raises ValueError where the padding or the first frame has too few samples.

        The limits are torch's: reflect padding needs more than n_fft // 2 samples, circular at least that many,
        constant and replicate at least one; with center=False one whole frame is needed. `pad` counts as samples.
        """
        n_samples = _integer("n_samples", n_samples, at_least=0)
        n_padded, edge = n_samples + 2 * self.pad, self.n_fft // 2
        if self.center:
            least = {"reflect": edge + 1, "circular": max(edge, 1)}.get(self.pad_mode, 1)
            if n_padded < least:
                raise ValueError(
                    f"n_samples={n_samples} with pad={self.pad} on both sides must give at least {least} samples for "
                    f'n_fft={self.n_fft} and pad_mode="{self.pad_mode}"; use a longer clip, a smaller n_fft or '
                    'pad_mode="constant"'
                )
            n_padded += 2 * edge
        if n_padded < self.n_fft:
            raise ValueError(
                f"n_samples={n_samples} with pad={self.pad} on both sides must give at least one frame of "
                f"n_fft={self.n_fft} samples; use a longer clip, a smaller n_fft or center=True"
            )
        return 1 + (n_padded - self.n_fft) // self.hop_length

    def n_frames_unchecked(self, n_samples):
        """`n_frames` by arithmetic alone, for a length that a captured graph leaves open: it may be a symbol."""
        n_padded = n_samples + 2 * self.pad + (2 * (self.n_fft // 2) if self.center else 0)
        return 1 + (n_padded - self.n_fft) // self.hop_length

    def frame_window(self, window: np.ndarray) -> np.ndarray:
        """The window, centred in n_fft samples, times the spectrum's normalisation: float64 (n_fft,)."""
        frame = np.zeros(self.n_fft)
        left = (self.n_fft - self.win_length) // 2
        frame[left : left + self.win_length] = window
        if self.normalized in (True, "window"):
            return frame / np.sqrt(np.sum(frame**2))
        return frame / np.sqrt(self.n_fft) if self.normalized == "frame_length" else frame

    def window_array(self) -> np.ndarray:
        """The window, float64 (win_length,). Raises ValueError for window="custom", which has no formula."""
        if self.window == "custom":
            raise ValueError('window="custom" has no formula; pass the window array that belongs to this spec')
        if self.win_length == 1:
            return np.ones(1)  # as torch: a periodic window of one sample would be its zero
        angle = 2.0 * np.pi * np.arange(self.win_length) / self.win_length
        terms = [a * np.cos(j * angle) for j, a in enumerate(_COSINE_SUMS[self.window])]
        return sum(terms, np.zeros(self.win_length))

    def frequencies(self) -> np.ndarray:
        """Where the filterbank places each bin, Hz, float64 (n_freqs,); see the file's docstring on odd sizes."""
        return np.linspace(0.0, self.sample_rate // 2, self.n_freqs)

    def mel_points(self) -> np.ndarray:
        """Corners of the filters, Hz, float64 (n_mels + 2,): filter i spans points i to i + 2 and peaks at i + 1."""
        ends = _hz_to_mel(np.array([self.f_min, self.f_max]), self.mel_scale)
        return _mel_to_hz(np.linspace(ends[0], ends[1], self.n_mels + 2), self.mel_scale)

    def filterbank(self) -> np.ndarray:
        """Triangular filters, float64 (n_mels, n_freqs); torchaudio's `mel_scale.fb` is the transpose."""
        points, bins = self.mel_points(), self.frequencies()
        left, peak, right = points[:-2, None], points[1:-1, None], points[2:, None]
        rising, falling = (bins - left) / (peak - left), (right - bins) / (right - peak)
        weights = np.maximum(0.0, np.minimum(rising, falling))
        if self.norm == "slaney":
            weights *= 2.0 / (right - left)
        return weights

    def empty_filters(self) -> np.ndarray:
        """Indices of the filters that no bin falls into, int64: too many mels for this n_fft, or f_max too high."""
        return np.flatnonzero(self.filterbank().max(axis=1) == 0.0)

    def check_shapes(self, window: tuple[int, ...], filterbank: tuple[int, ...]) -> None:
        """Raises ValueError where the shapes of arrays from elsewhere are not (win_length,) and (n_mels, n_freqs)."""
        if tuple(window) != (self.win_length,) or tuple(filterbank) != (self.n_mels, self.n_freqs):
            raise ValueError(
                f"window shape={tuple(window)} and filterbank shape={tuple(filterbank)} must be ({self.win_length},) "
                f"and ({self.n_mels}, {self.n_freqs}) for this spec (a module's buffer `mel_scale.fb` is the "
                "filterbank's transpose); make a spec with the win_length, n_fft and n_mels of these arrays"
            )

    def to_dict(self) -> dict[str, Any]:
        """Every setting by name, JSON-safe."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> MelSpec:
        """Inverse of `to_dict`; missing settings take their defaults, unknown ones raise ValueError."""
        if not isinstance(settings, Mapping):
            raise ValueError(f"settings={settings!r} must be a mapping of MelSpec settings")
        valid = [field.name for field in dataclasses.fields(cls)]
        unknown = [key for key in settings if key not in valid]
        if unknown:
            raise ValueError(f"unknown MelSpec settings {unknown}; the valid ones are {', '.join(valid)}")
        return cls(**settings)


def _hz_to_mel(frequency: np.ndarray, mel_scale: str) -> np.ndarray:
    if mel_scale == "htk":
        return 2595.0 * np.log10(1.0 + frequency / 700.0)
    above = 15.0 + 27.0 * np.log(np.maximum(frequency, 1000.0) / 1000.0) / math.log(6.4)
    return np.where(frequency < 1000.0, 3.0 * frequency / 200.0, above)


def _mel_to_hz(mel: np.ndarray, mel_scale: str) -> np.ndarray:
    if mel_scale == "htk":
        return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    above = 1000.0 * np.exp(math.log(6.4) * (np.maximum(mel, 15.0) - 15.0) / 27.0)
    return np.where(mel < 15.0, 200.0 * mel / 3.0, above)


def _integer(name: str, value: Any, *, at_least: int) -> int:
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise ValueError(f"{name}={value!r} must be an integer; convert it with int()") from None
    if number < at_least:
        raise ValueError(f"{name}={number} must be at least {at_least}; give a larger {name}")
    return number


def _real(name: str, value: Any) -> float:
    try:
        if isinstance(value, (bool, np.bool_, str)):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name}={value!r} must be a number") from None
    if not math.isfinite(number):
        raise ValueError(f"{name}={number} must be finite")
    return number


def _one_of(name: str, value: Any, valid: tuple) -> None:
    # Same type as well: 1 == True must not pass as normalized=True, nor 0 as False.
    if not any(type(value) is type(choice) and value == choice for choice in valid):
        raise ValueError(f"{name}={value!r} must be one of {', '.join(map(repr, valid))}")


ORIGINAL = MelSpec(sample_rate=16000, n_fft=1024, hop_length=512, n_mels=64)
CHORD = MelSpec(sample_rate=16000, n_fft=4096, hop_length=1024, n_mels=192, f_min=60.0, f_max=4000.0)
WHISPER = MelSpec(sample_rate=16000, n_fft=400, hop_length=160, n_mels=80, norm="slaney", mel_scale="slaney")
SPECS = {"ORIGINAL": ORIGINAL, "CHORD": CHORD, "WHISPER": WHISPER}


@functools.cache
def prime_factors(size: int) -> tuple[int, ...]:
    """Ascending; none for 1."""
    if size == 1:
        return ()
    prime = next(p for p in (*range(2, math.isqrt(size) + 1), size) if size % p == 0)
    return prime, *prime_factors(size // prime)


def largest_prime(size: int) -> int:
    """The largest prime factor, 1 for 1."""
    return max(prime_factors(size), default=1)
