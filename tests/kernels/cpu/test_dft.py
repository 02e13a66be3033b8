"""The promise: the butterflies and the plans of the CPU kernel are the discrete Fourier transform, for every size.

The butterflies run on numpy arrays here; the plan's program runs in a plain interpreter below, in float64 and with the
fields that kernels/cpu/plan.py documents, so a wrong plan is told from wrong compiled code.
"""

import numpy as np
import pytest

from triadbench.kernels import spec
from triadbench.kernels.cpu import dft as numba_dft
from triadbench.kernels.cpu import plan as numba_plan
from triadbench.kernels.cpu.plan import DIRECT_FIRST, DIRECT_PASS, FIRST, LAST, PASS, POWERS, TWIDDLE

W = 4
# n_fft -> a size that needs: every radix, both kinds of middle, blocks one by one and together, direct sums
SIZES = [
    1,
    2,
    3,
    4,
    5,
    6,
    8,
    9,
    10,
    12,
    14,
    15,
    16,
    20,
    27,
    30,
    31,
    32,
    48,
    64,
    77,
    96,
    125,
    128,
    160,
    175,
    202,
    210,
    256,
    301,
    360,
    400,
    441,
    512,
    600,
    1000,
    1024,
    1280,
    2048,
    2187,
    4096,
    4800,
]


@pytest.mark.parametrize("size", [1, *numba_dft.COMPLEX_SIZES])
def test_butterflies(size):
    x = np.random.default_rng(size).standard_normal((2, size, 7))
    pairs = numba_dft.complex_dft(list(zip(x[0], x[1], strict=True)))
    np.testing.assert_allclose([re + 1j * im for re, im in pairs], np.fft.fft(x[0] + 1j * x[1], axis=0), atol=1e-14)
    pairs = numba_dft.real_dft(list(x[0]))
    assert [im is None for _, im in pairs] == [k in (0, size / 2) for k in range(size // 2 + 1)]
    outputs = [re if im is None else re + 1j * im for re, im in pairs]
    np.testing.assert_allclose(outputs, np.fft.rfft(x[0], axis=0), atol=1e-14)


def _interpret(plan, frames):
    """|rfft|^2 of frames (W, n_fft) by the plan: (n_freqs, W). The rows are filled from a signal with these frames."""
    work = np.full(plan.work_size, np.nan)
    row = lambda at: slice(at, at + W)  # noqa: E731
    element = lambda at: work[row(at)] + 1j * work[row(at + W)]  # noqa: E731

    def put(at, z):
        work[row(at)], work[row(at + W)] = z.real, z.imag

    for i in range(plan.rows):  # the row's columns: frame j's sample q hop + i lies in column j + q
        for j in range(plan.columns):
            frame, q = (j, 0) if j < W else (W - 1, j - W + 1)
            n = q * plan.rows + i
            work[i * plan.row_stride + j] = frames[frame, n] if n < plan.n_fft else 0.0
    table, index = plan.table.astype(np.float64), plan.index
    for operation, r, count, base, extra, *more in plan.program.tolist():
        for i in range(count):
            if operation in (FIRST, DIRECT_FIRST):
                step, zero, blocks, apart, middle, middle_step, size = more
                values = table[base + i * size : base + (i + 1) * size]
                x = [work[row(index[extra + a] + i * step)] * values[a] for a in range(r)]
                y = np.fft.fft(x, axis=0)
                work[row(zero + i * W)] = y[0].real
                for c in range(1, (r - 1) // 2 + 1):
                    cosine, sine = values[r + 2 * c - 2 : r + 2 * c]
                    put(blocks + (c - 1) * apart + i * 2 * W, y[c] * (cosine - 1j * sine))
                if r % 2 == 0:
                    work[row(middle + i * middle_step)] = y[r // 2].real * values[-1]
            elif operation in (PASS, DIRECT_PASS):
                m = more[0]
                for b in range(m):
                    at = [base + ((i * r + a) * m + b) * 2 * W for a in range(r)]
                    y = np.fft.fft([element(offset) for offset in at], axis=0)
                    twiddles = table[extra + b * (2 * r - 2) : extra + (b + 1) * (2 * r - 2)].reshape(-1, 2)
                    y[1:] *= (twiddles[:, 0] - 1j * twiddles[:, 1])[:, None]
                    for offset, value in zip(at, y, strict=True):
                        put(offset, value)
            elif operation == LAST:
                y = np.fft.fft([element(base + (i * r + a) * 2 * W) for a in range(r)], axis=0)
                for c in range(r):
                    work[row(index[extra + i * r + c])] = np.abs(y[c]) ** 2
            elif operation == TWIDDLE:
                cosine, sine = table[extra + 2 * i : extra + 2 * i + 2]
                put(base + i * 2 * W, element(base + i * 2 * W) * (cosine - 1j * sine))
            elif operation == POWERS:
                work[row(index[extra + i])] = np.abs(element(base + i * 2 * W)) ** 2
            else:
                work[row(index[extra + i])] = work[row(base + i * W)] ** 2
    return work[: (plan.n_fft // 2 + 1) * W].reshape(-1, W)


def _signal_frames(n_fft, hop):
    signal = np.random.default_rng(n_fft).standard_normal((W - 1) * hop + n_fft)
    return np.stack([signal[t * hop : t * hop + n_fft] for t in range(W)])


@pytest.mark.parametrize("n_fft", SIZES)
def test_plans_are_transforms(n_fft):
    window = np.random.default_rng(1).uniform(0.5, 1.0, n_fft)
    for hop in {1, max(1, n_fft // 7), max(1, n_fft // 2), n_fft, n_fft + 3}:
        frames = _signal_frames(n_fft, hop)
        plan = numba_plan.make_plan(n_fft, hop, window, W, np.float64)
        expected = np.abs(np.fft.rfft(frames * window)) ** 2
        np.testing.assert_allclose(_interpret(plan, frames).T, expected, rtol=1e-9, atol=1e-9)


def test_the_sizes_reach_every_operation_and_radix():
    reached = set()
    for n_fft in SIZES:
        program = numba_plan.make_plan(n_fft, max(1, n_fft // 2), np.ones(n_fft), W, np.float64).program
        reached |= {(int(operation), int(radix)) for operation, radix in program[:, :2]}
    assert {operation for operation, _ in reached} == set(range(8))
    assert {radix for operation, radix in reached if operation == FIRST} == set(numba_plan.RADICES)
    assert {radix for operation, radix in reached if operation == PASS} == set(numba_plan.PASS_RADICES)
    assert {radix for operation, radix in reached if operation == LAST} == set(numba_plan.LAST_RADICES)


@pytest.mark.parametrize(
    ("size", "path"), [(400, "fast"), (1024, "fast"), (2187, "fast"), (301, "direct"), (1, "direct")]
)
def test_path(size, path):
    assert numba_plan.make_plan(size, max(1, size // 2), np.ones(size), W, np.float32).path == path


def test_factors():
    factors = [spec.prime_factors(n) for n in (1, 2, 12, 97, 2 * 2 * 3 * 49 * 101)]
    assert factors == [(), (2,), (2, 2, 3), (97,), (2, 2, 3, 7, 7, 101)]
    assert [spec.largest_prime(n) for n in (1, 8, 1021, 2062)] == [1, 2, 1021, 1031]
