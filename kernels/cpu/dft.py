"""Discrete Fourier transforms of fixed small size, as straight-line arithmetic on anything with +, -, * and `fma`.

    complex  X[k] = sum_n x[n] exp(-2 pi i k n / N)         pairs (re, im)
    real     the same for real x, k = 0..N // 2; X[0] and, for even N, X[N/2] are real: their im is None

Even sizes split by radix 2 with every twiddle folded into fused multiply-adds (Linzer and Feig, 1993): w = c - i s
gives E +- w O in six of them: E +- c (O - i t O), t = s / c, where |s| <= |c|, else with c and s exchanged.
"""

import math

from triadbench.kernels.cpu.simd import fma

COMPLEX_SIZES = REAL_SIZES = (2, 3, 4, 5, 8, 16)


def complex_dft(x: list[tuple]) -> list[tuple]:
    """N pairs (re, im) -> N pairs, N = 1 or of COMPLEX_SIZES."""
    size = len(x)
    if size == 1:
        return x
    if size in (3, 5):
        return _odd_complex(x)
    even, odd, half = complex_dft(x[0::2]), complex_dft(x[1::2]), size // 2
    pairs = [_rotated_sum(even[k], odd[k], k, size) for k in range(half)]
    return [plus for plus, _ in pairs] + [minus for _, minus in pairs]


def real_dft(x: list) -> list[tuple]:
    """N reals -> N // 2 + 1 pairs (re, im or None), N = 1 or of REAL_SIZES."""
    size = len(x)
    if size == 1:
        return [(x[0], None)]
    if size in (3, 5):
        return _odd_real(x)
    even, odd, half = real_dft(x[0::2]), real_dft(x[1::2]), size // 2
    out: list = [None] * (half + 1)
    out[0], out[half] = (even[0][0] + odd[0][0], None), (even[0][0] - odd[0][0], None)
    for k in range(1, (half - 1) // 2 + 1):
        plus, (re, im) = _rotated_sum(even[k], odd[k], k, size)
        out[k], out[half - k] = plus, (re, -im)
    if half % 2 == 0:
        out[half // 2] = (even[half // 2][0], -odd[half // 2][0])
    return out


def rotate(x: tuple, cosine, sine) -> tuple:
    """(re, im) times cosine - i sine."""
    re, im = x
    return fma(im, sine, re * cosine), fma(im, cosine, -(re * sine))


def _rotated_sum(e: tuple, o: tuple, k: int, size: int) -> tuple[tuple, tuple]:
    """e + w o and e - w o for w = exp(-2 pi i k / size), 0 <= k < size / 2."""
    if k == 0:
        return (e[0] + o[0], e[1] + o[1]), (e[0] - o[0], e[1] - o[1])
    if 4 * k == size:  # w = -i
        return (e[0] + o[1], e[1] - o[0]), (e[0] - o[1], e[1] + o[0])
    c, s = math.cos(2 * math.pi * k / size), math.sin(2 * math.pi * k / size)
    if 8 * k == size or 8 * k == 3 * size:  # |c| = |s|: the inner products are sums
        u, v = (o[0] + o[1], o[1] - o[0]) if c > 0 else (o[1] - o[0], -(o[0] + o[1]))
        scale = s
    elif abs(s) < abs(c):
        u, v, scale = fma(o[1], s / c, o[0]), fma(o[0], -s / c, o[1]), c
    else:
        u, v, scale = fma(o[0], c / s, o[1]), fma(o[1], c / s, -o[0]), s
    return (fma(u, scale, e[0]), fma(v, scale, e[1])), (fma(u, -scale, e[0]), fma(v, -scale, e[1]))


def _odd_complex(x: list[tuple]) -> list[tuple]:
    re, im = _odd_sums([r for r, _ in x]), _odd_sums([i for _, i in x])
    out = [(re[0][0], im[0][0])]
    out += [(re[k][0] + im[k][1], im[k][0] - re[k][1]) for k in range(1, len(re))]
    out += [(re[k][0] - im[k][1], im[k][0] + re[k][1]) for k in range(len(re) - 1, 0, -1)]
    return out


def _odd_real(x: list) -> list[tuple]:
    sums = _odd_sums(x)
    return [(sums[0][0], None)] + [(cosines, -sines) for cosines, sines in sums[1:]]


def _odd_sums(x: list) -> list[tuple]:
    """For k = 0..(N - 1) / 2: (sum_n x[n] cos(2 pi k n / N), sum_n x[n] sin(2 pi k n / N)); no sines for k = 0."""
    size = len(x)
    halves = range(1, (size + 1) // 2)
    plus, minus = {n: x[n] + x[size - n] for n in halves}, {n: x[n] - x[size - n] for n in halves}
    total = x[0]
    for n in halves:
        total = total + plus[n]
    out = [(total, None)]
    for k in halves:
        cosines, sines = x[0], None
        for n in halves:
            angle = 2 * math.pi * k * n / size
            cosines = fma(plus[n], math.cos(angle), cosines)
            sines = minus[n] * math.sin(angle) if sines is None else fma(minus[n], math.sin(angle), sines)
        out.append((cosines, sines))
    return out
