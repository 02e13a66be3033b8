"""The constants of the mel spectrogram as matrix products: a four-step FFT, worked out in float64 numpy.

A frame's sample n = n2 a + b and its bin k = c + n1 d, with n_fft = n1 n2, give

    X[c + n1 d] = sum_b  w_N^(b c) w_n2^(b d)  sum_a  w_n1^(a c)  window[n2 a + b] x[n2 a + b],  w_M = exp(-2 pi i / M)

    first[b]    the inner sum over a, the window folded in: real input, so that the residues c = 0 .. n1 / 2 say all
    second[c]   twiddle and outer sum over b in one matrix: a twiddle pass would move more memory than it saves

|X[k]| = |X[n_fft - k]|, so the residues up to n1 / 2 hold every bin. Those of 0 and n1 / 2 are real and share one
group: its "imaginary" half is residue n1 / 2. Every bin is an output of plain sums of products, never a difference of
two outputs, so that a quiet bin keeps its digits beside a loud one. Bins that no filter weighs are not computed.

Nothing here needs torch; what applies the constants, kernels/mel_matmul.py or a graph of another library, needs only
padding, slices, concatenation, matrix products and elementwise operations.
"""

import dataclasses

import numpy as np

from triadbench.kernels.spec import MelSpec, largest_prime

# What moving one value through memory once more costs, in multiplications: small transforms are one dense matrix.
_PASS_COST = 32
LARGEST_PRIME = 1024  # a prime factor p costs 2 p operations a value, where other transforms stay below 100


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """Constants in float64, for frames (n_fft, t): sample n of frame t, with t counting frames of any number of clips.

    Attributes:
        n1, n2: n_fft = n1 n2; n1 = 1: no first step.
        first: (n2, 2 m, n1), m = groups; None for n1 = 1. Y = first @ frames as (n2, n1, t).
            Row c < m of matrix b is the real part at residue c, row m + c the imaginary part; row m is residue n1 / 2
            for even n1 and zero for odd.
        second: (groups, 2 slots, 2 n2); (1, 2 slots, n_fft) for n1 = 1. Z = second @ Y as (groups, 2 n2, t).
            Column 2 b + i takes the real (i = 0) or imaginary part of Y at b. Row s is the real part of slot s, row
            slots + s its imaginary part.
        filters: (n_mels, groups slots). mel = filters @ (Z[:, :slots] ** 2 + Z[:, slots:] ** 2) as (groups slots, t).
        bins: (groups slots,) int64: the bin that a slot computes, -1 for one that is left over (zeros).
    """

    spec: MelSpec
    n1: int
    n2: int
    first: np.ndarray | None
    second: np.ndarray
    filters: np.ndarray
    bins: np.ndarray

    @property
    def groups(self) -> int:
        """Matrices of the second step."""
        return len(self.second)

    @property
    def slots(self) -> int:
        """Bins that each of them computes."""
        return self.second.shape[1] // 2

    @property
    def multiplications(self) -> int:
        """Of one frame, in all three products."""
        return sum(a.size for a in (self.first, self.second, self.filters) if a is not None)


def make_plan(
    spec: MelSpec, window: np.ndarray, filterbank: np.ndarray, *, n1: int | None = None, all_bins: bool = False
) -> Plan:
    """The plan of a spec, its window (win_length,) and its filterbank (n_mels, n_freqs).

    Args:
        n1: the first factor; default: what costs least.
        all_bins: compute every bin, also those that no filter weighs.

    Raises:
        ValueError: n1 does not divide n_fft, or `why_not` has a reason.
    """
    if reason := why_not(spec.n_fft):
        raise ValueError(reason)
    filterbank = np.asarray(filterbank, np.float64)
    needed = np.ones(spec.n_freqs, bool) if all_bins else (filterbank != 0.0).any(axis=0)
    n1 = _cheapest(spec.n_fft, needed) if n1 is None else n1
    if not 1 <= n1 <= spec.n_fft or spec.n_fft % n1:
        raise ValueError(f"n1={n1} must divide n_fft={spec.n_fft}")
    n2 = spec.n_fft // n1
    framed = spec.frame_window(window)
    slots = _slots(spec.n_fft, n1, needed)
    bins = np.where(slots < 0, -1, np.minimum(slots, spec.n_fft - slots)).ravel()
    first = None if n1 == 1 else np.ascontiguousarray(_first(n1, n2) * framed.reshape(n1, n2).T[:, None, :])
    second = _dense(spec.n_fft, slots) * framed if n1 == 1 else _second(n1, n2, slots)
    filters = np.where(bins < 0, 0.0, filterbank[:, bins])
    return Plan(spec, n1, n2, first, np.ascontiguousarray(second), np.ascontiguousarray(filters), bins)


def why_not(n_fft: int) -> str | None:
    """Why there is no plan for this n_fft, or None."""
    reason = f"n_fft={n_fft} has the prime factor {largest_prime(n_fft)}, above {LARGEST_PRIME}; use a power of two"
    return reason if largest_prime(n_fft) > LARGEST_PRIME else None


def _cheapest(n_fft: int, needed: np.ndarray) -> int:
    """The n1 of the least work: products, plus the values that pass between them."""

    def cost(n1: int) -> tuple[int, int]:
        n2, (groups, slots) = n_fft // n1, _slots(n_fft, n1, needed).shape
        if n1 == 1:
            return n_fft * 2 * slots, -1
        # On a tie the larger first factor: fewer and larger matrices in its step.
        return n2 * 2 * groups * n1 + groups * 2 * slots * 2 * n2 + _PASS_COST * 2 * groups * n2, -n1

    return min((n1 for n1 in range(1, n_fft + 1) if n_fft % n1 == 0), key=cost)


def _slots(n_fft: int, n1: int, needed: np.ndarray) -> np.ndarray:
    """(groups, slots) int64: the frequencies 0 .. n_fft - 1 that each group computes, one for each needed bin, -1 for
    a slot that is left over. A frequency above n_fft / 2 stands for its mirror image."""
    bins = np.flatnonzero(needed)
    residues = np.minimum(bins % n1, -bins % n1)
    groups = np.where(2 * residues == n1, 0, residues)
    frequencies = np.where(bins % n1 == residues, bins, n_fft - bins)
    counts = np.bincount(groups, minlength=(n1 + 1) // 2)
    slots = np.full((len(counts), max(1, counts.max())), -1, np.int64)
    slots[np.arange(slots.shape[1]) < counts[:, None]] = frequencies[np.argsort(groups, kind="stable")]
    return slots


def _turn(numerator: np.ndarray, size: int) -> np.ndarray:
    """2 pi numerator / size, the integers reduced first so that large ones lose no digits."""
    return 2.0 * np.pi * (numerator % size) / size


def _first(n1: int, n2: int) -> np.ndarray:
    """(n2, 2 m, n1), the same for every b until the window is folded in."""
    m = (n1 + 1) // 2
    angle = _turn(np.outer(np.arange(m), np.arange(n1)), n1)
    real, imaginary = np.cos(angle), -np.sin(angle)
    imaginary[0] = (-1.0) ** np.arange(n1) if n1 % 2 == 0 else 0.0  # residue n1 / 2
    return np.broadcast_to(np.concatenate([real, imaginary]), (n2, 2 * m, n1))


def _second(n1: int, n2: int, slots: np.ndarray) -> np.ndarray:
    """(groups, 2 slots, 2 n2): w_N^(b k) as a real matrix on the real and imaginary parts of Y."""
    n_fft = n1 * n2
    angle = _turn(slots[:, :, None] * np.arange(n2), n_fft)
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], 1)  # (groups, part, slots, n2, part of Y)
    # Group 0 holds two real inputs, not a complex one: each of its frequencies takes one of them.
    middle = 2 * (slots[0] % n1) == n1
    pair = np.stack([cos[0], -sin[0]])  # (part, slots, n2)
    matrix[0] = np.where(middle[:, None, None], np.stack([0 * pair, pair], -1), np.stack([pair, 0 * pair], -1))
    matrix *= (slots >= 0)[:, None, :, None, None]
    return matrix.reshape(len(slots), 2 * slots.shape[1], 2 * n2)


def _dense(n_fft: int, slots: np.ndarray) -> np.ndarray:
    """(1, 2 slots, n_fft): the transform as one matrix."""
    angle = _turn(slots[:, :, None] * np.arange(n_fft), n_fft)
    return np.concatenate([np.cos(angle), -np.sin(angle)], axis=1) * np.tile(slots >= 0, 2)[:, :, None]
