"""How to transform W frames at once: a short program of FFT passes over a scratch memory, worked out in numpy.

A real transform of N = r m samples, n = a m + b, k = c + r d, is r-point real transforms over a, then per residue c:
    c = 0                     a real m-point transform over b
    0 < c < r / 2             a complex m-point transform of Y_b[c] w_N^(b c); its mirror images are the residues r - c
    c = r / 2 (r even)        m even: a complex (m / 2)-point transform of (y_b - i y_(b + m / 2)) w_2m^b, even d
                              m odd: a real m-point transform of (-1)^b y_b
so every bin comes out of a plain transform. The usual post-pass of a half-size complex transform would subtract bin
N - k from bin k, and leave eps times the power of the mirror bin, which shows in the log mel of tilted spectra.

Complex transforms split the same way, in place, outputs in digit-reversed order; the last pass writes |X|^2 at `bins`.
All offsets are in elements of the scratch memory, where sample b of a real block takes W elements (one a frame) and
of a complex block 2 W. The rows of the samples come first: row i holds x[(t + j) hop + i] for j = 0..columns - 1, so
that the W frames at sample n = q hop + i are the W neighbours from column q: each sample is transposed once.
"""

import dataclasses
import math

import numpy as np

from triadbench.kernels.spec import largest_prime, prime_factors

# The operations of a step; each one's fields are told where it is made, below
FIRST, PASS, LAST, TWIDDLE, POWERS, SQUARES, DIRECT_FIRST, DIRECT_PASS = range(8)
N_FIELDS = 12
# A job, what the compiled code is given: int64 slots. First come sizes ...
HOP, LEAD, PAD, PAD_MODE, TIME, N_FRAMES, N_MELS, N_FREQS, ROWS, ROW_STRIDE, COLUMNS, N_STEPS, ITEM = range(13)
# ... then, from NEXT_AREA on, what differs from call to call. The threads change NEXT_AREA, the next scratch memory to
# take, and COUNTER, the next group to do, which have a cache line of their own. EPS (of log(mel + eps), negative for
# plain mel) and HALF_POWER are doubles; TOTAL and GRAIN are groups, in all and to take at once.
NEXT_AREA, COUNTER, SAMPLES, OUT, EPS, TOTAL, GRAIN, HALF_POWER = range(30, 38)
# Addresses of the plan's arrays and the filters'; from AREAS on, of each thread's scratch memories, AREA_SIZE slots a
# thread: work, wide, tail, edges and addresses.
PROGRAM, INDEX, TABLE, WEIGHTS, BANDS = range(38, 43)
AREAS, AREA_SIZE = 48, 8
ENTRY = "mel_entry"  # the compiled function's name
# Radices with straight-line code, in order of preference; other primes are summed directly. Complex butterflies of 16
# take fewer passes but spill the 16 registers of AVX2: 8 is faster.
RADICES = (16, 8, 4, 2, 5, 3)
PASS_RADICES, LAST_RADICES = (8, 4, 5, 3), (8, 4, 2, 5, 3)
LARGEST_PRIME = 257  # a direct sum costs its square: from here on other libraries' transforms are faster
_LINE = 64  # bytes of a cache line
_BATCH_BYTES = 16 * 1024  # complex blocks that together fit half of L1 are transformed together, larger ones one by one


@dataclasses.dataclass(frozen=True)
class Plan:
    """The program and its tables. program (steps, N_FIELDS) int64; index int64; table float; see the operations."""

    n_fft: int
    lanes: int
    program: np.ndarray
    index: np.ndarray
    table: np.ndarray
    rows: int
    row_stride: int
    columns: int
    work_size: int  # elements; the power spectrum (n_freqs, W) lies at 0, over the rows, which are then used up

    @property
    def path(self) -> str:
        """ "fast": straight-line code alone; "direct": some prime factor is summed directly."""
        return "direct" if np.isin(self.program[:, 0], (DIRECT_FIRST, DIRECT_PASS)).any() else "fast"


def wide_size(n_fft: int, lanes: int) -> int:
    """Elements of scratch memory that the direct sums of the largest prime factor need."""
    radix = largest_prime(n_fft)
    return (2 * radix + 4) * lanes + 2 * radix


def make_plan(n_fft: int, hop_length: int, window: np.ndarray, lanes: int, dtype: np.dtype) -> Plan:
    """window: float64 (n_fft,), every constant factor of the spectrum included."""
    return _Planner(n_fft, hop_length, window, lanes, np.dtype(dtype)).plan()


class _Planner:
    def __init__(self, n_fft, hop_length, window, lanes, dtype) -> None:
        self.n_fft, self.hop, self.window, self.lanes, self.dtype = n_fft, hop_length, window, lanes, dtype
        self.line = max(lanes, _LINE // dtype.itemsize)
        self.rows = min(hop_length, n_fft)
        self.columns = lanes + -(-n_fft // hop_length) - 1
        self.row_stride = _round_up(self.columns, self.line)
        self.steps: list[list[int]] = []
        self.index: list[np.ndarray] = []
        self.table: list[np.ndarray] = []
        self.index_size = self.table_size = 0
        self.used = _round_up(max(self.rows * self.row_stride, (n_fft // 2 + 1) * lanes), self.line)

    def plan(self) -> Plan:
        bins = np.minimum(np.arange(self.n_fft), self.n_fft - np.arange(self.n_fft))
        self.real(self.n_fft, bins, None)
        program, index = np.array(self.steps, np.int64), np.concatenate(self.index)
        table = np.concatenate(self.table).astype(self.dtype)
        sizes = (self.rows, self.row_stride, self.columns, self.used)
        return Plan(self.n_fft, self.lanes, program, index, table, *sizes)

    def real(self, size: int, bins: np.ndarray, base: int | None) -> None:
        """Transform the block at `base`, or the windowed rows (None); bins[k] is where the power of output k goes."""
        if size == 1 and base is not None:
            self.step(SQUARES, 1, 1, base, self.add_index(bins[:1] * self.lanes))
            return
        r = _next_radix(size) if size > 1 else 1
        m = size // r
        halved = r % 2 == 0 and m % 2 == 0
        n_complex = (r - 1) // 2
        zero = self.take(m)
        block_stride = 2 * m * self.lanes + (self.line if m > 8 else 0)  # a line apart: not all in one cache set
        blocks = self.take(-(-n_complex * block_stride // self.lanes))
        middle = self.take(m) if r % 2 == 0 else 0
        self.real_pass(r, m, base, zero, blocks, block_stride, middle)
        self.real(m, bins[::r], zero)
        self.complex([(blocks + c * block_stride, bins[c + 1 :: r]) for c in range(n_complex)], m, block_stride)
        if halved:
            self.middle_twiddle(m, middle)
            self.complex([(middle, bins[r // 2 :: 2 * r])], m // 2, 0)
        elif r % 2 == 0:
            d = (m - 1) // 2 + np.arange(m)
            self.real(m, bins[(r // 2 + r * d) % size], middle)

    def real_pass(self, r, m, base, zero, blocks, block_stride, middle) -> None:
        """FIRST: radix, count, table, sources (index), source step, c = 0, blocks, block stride, middle, middle step,
        elements of a table row.

        Table, for each b: r window values, then cosine and sine of 2 pi b c / N for 0 < c < r / 2, then for even r the
        sign of the middle. `sources` are r offsets into the scratch memory, which advance by the source step.
        """
        size, b = r * m, np.arange(m)[:, None]
        n = np.arange(r) * m + b
        angle = 2 * np.pi * b * np.arange(1, (r - 1) // 2 + 1) / size
        twiddles = np.stack([np.cos(angle), np.sin(angle)], -1).reshape(m, -1)
        halved = m % 2 == 0
        signs = np.where(b < m // 2, 1.0, -1.0) if halved else (-1.0) ** b
        parts = [self.window[n] if base is None else np.ones(n.shape), twiddles] + ([signs] if r % 2 == 0 else [])
        values = np.concatenate(parts, axis=1)
        table = self.add_table(values)
        if base is None:
            sources = n % self.hop * self.row_stride + n // self.hop
            source_step = self.row_stride
            breaks = (n % self.hop == 0).any(axis=1)  # a source goes on in the next column, back at row 0
        else:
            sources, source_step, breaks = base + n * self.lanes, self.lanes, np.zeros(m, bool)
        breaks[0] = True
        if halved and r % 2 == 0:
            breaks[m // 2] = True
        starts = [*np.flatnonzero(breaks), m]
        w = self.lanes
        for start, stop in zip(starts, starts[1:]):  # noqa: B905  (neighbours)
            imaginary = halved and start >= m // 2
            into = middle + (w + 2 * w * (start - m // 2) if imaginary else (2 if halved else 1) * w * start)
            targets = (zero + start * w, blocks + 2 * w * start, block_stride, into, 2 * w if halved else w)
            operation, row_size = FIRST if r in RADICES else DIRECT_FIRST, values.shape[1]
            fields = (table + start * row_size, self.add_index(sources[start]), source_step, *targets, row_size)
            self.step(operation, r, stop - start, *fields)

    def complex(self, blocks: list[tuple[int, np.ndarray]], size: int, stride: int) -> None:
        """Transform blocks of one size, `stride` elements apart, in place, and write the powers."""
        if not blocks or size == 0:
            return
        together = max(1, _BATCH_BYTES // (2 * size * self.lanes * self.dtype.itemsize))
        radices = _complex_radices(size)
        for i in range(0, len(blocks), together):
            chunk = blocks[i : i + together]
            self.complex_together(chunk[0][0], [bins for _, bins in chunk], size, stride, radices)

    def complex_together(self, base, many_bins, size, stride, radices) -> None:
        w, length = self.lanes, size
        fused = bool(radices) and radices[-1] in LAST_RADICES
        for r in radices[:-1] if fused else radices:
            m = length // r
            angle = 2 * np.pi * np.arange(m)[:, None] * np.arange(1, r) / length
            table = self.add_table(np.stack([np.cos(angle), np.sin(angle)], -1))
            for i in range(len(many_bins)):
                # PASS: radix, count (sub-blocks), base, table, m
                self.step(PASS if r in PASS_RADICES else DIRECT_PASS, r, size // length, base + i * stride, table, m)
            length = m
        for i, bins in enumerate(many_bins):
            targets = self.add_index(_digit_reversed(bins, radices) * w)
            if fused:  # LAST: radix, count (butterflies), base, targets (index)
                self.step(LAST, radices[-1], size // radices[-1], base + i * stride, targets)
            else:  # POWERS: -, count (elements), base, targets (index)
                self.step(POWERS, 1, size, base + i * stride, targets)

    def middle_twiddle(self, m: int, base: int) -> None:
        """TWIDDLE: -, count (elements), base, table."""
        angle = np.pi * np.arange(m // 2) / m
        table = self.add_table(np.stack([np.cos(angle), np.sin(angle)], -1))
        self.step(TWIDDLE, 1, m // 2, base, table)

    def step(self, *row: int) -> None:
        """Append an operation, its radix, and the other fields."""
        self.steps.append([int(value) for value in row] + [0] * (N_FIELDS - len(row)))

    def take(self, vectors: int) -> int:
        start = self.used
        self.used += _round_up(vectors * self.lanes, self.line)
        return start

    def add_table(self, values: np.ndarray) -> int:
        self.table.append(np.ravel(values))
        self.table_size += values.size
        return self.table_size - values.size

    def add_index(self, values: np.ndarray) -> int:
        self.index.append(np.ravel(values).astype(np.int64))
        self.index_size += values.size
        return self.index_size - values.size


def _next_radix(size: int) -> int:
    return next((r for r in RADICES if size % r == 0), 0) or prime_factors(size)[0]


def _complex_radices(size: int) -> list[int]:
    """Factors of `size`: large primes first, so that the last pass, which writes the powers, is straight-line code."""
    primes = prime_factors(size)
    twos = primes.count(2)
    others = sorted((p for p in primes if p > 2), reverse=True)
    eights, rest = divmod(twos, 3)
    powers = [8] * eights + ([2**rest] if rest else [])
    if rest == 1 and eights:  # 8 x 2 is better as 4 x 4
        powers = [8] * (eights - 1) + [4, 4]
    return others + sorted(powers)


def _digit_reversed(bins: np.ndarray, radices: list[int]) -> np.ndarray:
    if not radices:
        return bins
    return np.concatenate([_digit_reversed(bins[c :: radices[0]], radices[1:]) for c in range(radices[0])])


def _round_up(value: int, multiple: int) -> int:
    return math.ceil(value / multiple) * multiple
