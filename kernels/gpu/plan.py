"""How a block of threads transforms a tile of frames: radices, sizes and shared memory, worked out for one n_fft.

A real transform of N = r m samples, n = a m + b, k = c + r d, is r-point real transforms over a, one for each b, then
for every residue c = 0..r // 2 a complex m-point transform over b of Y_b[c] w_N^(b c); the residues above are mirror
images. c = 0 and c = r / 2 are transformed like the others, and their mirrored half is thrown away: that costs 1 / r
of the work, keeps all threads on one path, and leaves no bin that is the difference of two larger ones.

The m-point transforms take one or more radices in place. Position b of a residue lies at b + b // last * pad: one
complex value of padding after each run of the last radix, where that is even, spreads a warp over the memory banks.
The powers then lie over the transform's memory, bin k at k, or at k + k // r where several threads share a residue.
"""

import dataclasses
import functools
from collections.abc import Iterator

import numpy as np

from triadbench.kernels.spec import largest_prime

LARGEST_RADIX = 32  # 64 registers of data in a thread; 64 would need more than there are
# Bytes of shared memory that a block may take on every GPU from compute capability 8.0 on.
SHARED_LIMIT = 99 * 1024
# Wanted in a block at most, where it holds several frames, or two: several blocks then share a multiprocessor, and one
# computes while another waits at a barrier or for memory.
_THREADS, _THREADS_OF_TWO = 128, 288
_MOST_THREADS = 512  # of 128 registers each: the whole register file
_BANKS = 32
TAIL = 3  # floats after a frame's powers that a filter's last quad may reach


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything that the program text depends on.

    Attributes:
        real_radix: r. radices: those of the m-point transforms in order. frames, threads: of a block.
        n_bins: bins 0..n_bins - 1 are used by some filter; the others are not computed where that saves a store.
        edge: what lies outside a clip: a pad mode.
        power: "power" |X|^2, "magnitude" |X| or "other".
    """

    n_fft: int
    real_radix: int
    radices: tuple[int, ...]
    frames: int
    threads: int
    n_bins: int
    in_dtype: str
    edge: str
    power: str
    log: bool

    # ---- sizes in elements; `residue` and `frame` in complex values

    @property
    def m(self) -> int:
        return self.n_fft // self.real_radix

    @property
    def last(self) -> int:
        return self.radices[-1]

    @property
    def groups(self) -> int:
        """Threads that share a residue in the last pass."""
        return self.m // self.last

    @property
    def n_residues(self) -> int:
        return self.real_radix // 2 + 1

    @property
    def pad(self) -> int:
        return 1 - self.last % 2

    @property
    def residue(self) -> int:
        return self.place(self.m)

    @property
    def frame(self) -> int:
        return self.n_residues * self.residue

    @property
    def power_frame(self) -> int:
        """Floats from one frame's powers to the next's: odd, and what the next threads of the warp expect."""
        least, bank = self.spread(self.n_freqs - 1) + 1 + TAIL, self.n_residues * self.groups % _BANKS
        bank += 1 - bank % 2
        return least + (bank - least) % _BANKS if self.frames > 1 else least

    @property
    def n_freqs(self) -> int:
        return self.n_fft // 2 + 1

    @property
    def shared_bytes(self) -> int:
        return 4 * self.frames * max(2 * self.frame, self.power_frame)

    def place(self, b: int) -> int:
        """Where position b of a residue lies."""
        return b + b // self.last * self.pad

    def spread(self, k):
        """Where bin k (an int or an array) of the powers lies."""
        return k + k // self.real_radix if self.groups > 1 else k


def make_plan(n_fft: int, n_bins: int, in_dtype: str, edge: str, power: str, log: bool) -> Plan:
    """Raises ValueError for an n_fft that `why_not` refuses."""
    reason, layout = why_not(n_fft), _layout(n_fft)
    if reason or layout is None:
        raise ValueError(reason)
    n_bins = min(n_bins + TAIL, n_fft // 2 + 1)  # a filter's last quad reads them, with weights of zero
    return dataclasses.replace(layout, n_bins=n_bins, in_dtype=in_dtype, edge=edge, power=power, log=log)


@functools.cache
def why_not(n_fft: int) -> str | None:
    """Why no kernel can be made for this n_fft, or None."""
    if largest_prime(n_fft) > 5:
        return f"n_fft={n_fft} must be a product of 2, 3 and 5"
    if 4 * n_fft > SHARED_LIMIT or _layout(n_fft) is None:
        return f"n_fft={n_fft} needs more than the {SHARED_LIMIT} bytes of shared memory that a block has"
    return None


@functools.cache
def _layout(n_fft: int) -> Plan | None:
    """The cheapest plan that fits, by a count of passes and idle threads; its radices, frames and threads count."""
    best = None
    splits = [(n_fft,)] if n_fft <= 8 else (radices for radices in _splits(n_fft) if len(radices) > 1)
    for real_radix, *rest in splits:
        one = Plan(n_fft, real_radix, tuple(rest) or (1,), 1, 32, 1, "float32", "constant", "power", False)
        for frames in range(1, 33):
            plan = dataclasses.replace(one, frames=frames)
            threads = -(-frames * plan.n_residues * plan.groups // 32) * 32  # the last pass's
            most = _MOST_THREADS if frames == 1 else _THREADS if frames > 2 else _THREADS_OF_TWO
            if threads > most or plan.shared_bytes > SHARED_LIMIT:
                break
            cost = _cost(plan, threads)
            if best is None or cost < best[0]:
                best = cost, dataclasses.replace(plan, threads=threads)
    return best and best[1]


def _cost(plan: Plan, threads: int) -> float:
    """Instructions of a frame's warps, idle lanes included; by rule of thumb, for choosing only."""
    passes = [(plan.m, plan.real_radix, 0.5)]
    passes += [(plan.n_residues * plan.m // radix, radix, 1.0) for radix in plan.radices]
    total = 0.0
    for items, radix, share in passes:
        warps = -(-plan.frames * items // 32)
        total += warps * 32 * (20 + radix * (6 + share * 4 * np.log2(radix + 1)))
    registers = 1.0 + 0.005 * max(0, max(plan.real_radix, *plan.radices) - 16)  # fewer threads fit
    return total / plan.frames * registers * (1.1 if threads < 64 else 1.0)


def _splits(n_fft: int, most: int = 4) -> Iterator[tuple[int, ...]]:
    """n_fft as ordered products of at most `most` radices."""
    if n_fft == 1:
        yield ()
    for radix in range(2, LARGEST_RADIX + 1) if most else ():
        if n_fft % radix == 0:
            yield from ((radix, *rest) for rest in _splits(n_fft // radix, most - 1))


def table_offsets(plan: Plan) -> list[int]:
    """Where the parts of the tables begin, in floats, all multiples of 4: the twiddles after the real pass, those after
    each radix but the last, and the filters' weights. The window lies at 0."""
    used = 4 * plan.m * _quads(plan.real_radix)
    offsets, size = [used], plan.m
    used += 4 * plan.m * _quads(2 * (plan.n_residues - 1))
    for radix in plan.radices[:-1]:
        offsets.append(used)
        size //= radix
        used += 4 * size * _quads(2 * (radix - 1))
    return [*offsets, used]


def make_tables(plan: Plan, frame_window: np.ndarray) -> np.ndarray:
    """float32: the window x[a m + b], then w_N^(b c), then w_size^(b e) after each radix, computed in float64.

    A thread reads 16 bytes at a time: the values that one b needs in order (window over a; cos, sin over c = 1, 2, ..)
    lie in quads, [quad][b][4].  frame_window: float64 (n_fft,), every constant factor of the spectrum included.
    """
    parts = [_in_quads(frame_window.reshape(plan.real_radix, plan.m)), _twiddles(plan.n_residues, plan.m, plan.n_fft)]
    size = plan.m
    for radix in plan.radices[:-1]:
        parts.append(_twiddles(radix, size // radix, size))
        size //= radix
    return np.concatenate(parts).astype(np.float32)


def _twiddles(count: int, size: int, n: int) -> np.ndarray:
    angle = -2.0 * np.pi * (np.arange(1, count)[:, None] * np.arange(size) % n) / n
    return _in_quads(np.stack((np.cos(angle), np.sin(angle)), axis=1).reshape(-1, size))


def _in_quads(rows: np.ndarray) -> np.ndarray:
    """(values, b) -> [quad][b][4], flat; missing values are zero."""
    full = np.zeros((4 * _quads(len(rows)), rows.shape[1]))
    full[: len(rows)] = rows
    return full.reshape(-1, 4, rows.shape[1]).transpose(0, 2, 1).ravel()


def _quads(count: int) -> int:
    return -(-count // 4)


def make_bands(plan: Plan, filterbank: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n_mels, 2) int32: where a filter's first power lies, and how many quads of powers it spans; and the weights,
    float32, as [quad][mel][4]: neighbouring threads read neighbouring weights. Zero at the padding between powers and
    up to a whole quad."""
    places = [plan.spread(np.flatnonzero(row)) for row in filterbank]
    bands = np.array([(p[0], _quads(p[-1] + 1 - p[0])) if len(p) else (0, 0) for p in places], np.int32)
    weights = np.zeros((4 * bands[:, 1].max(), len(filterbank)))
    for m, (row, positions) in enumerate(zip(filterbank, places, strict=True)):
        weights[positions - bands[m, 0], m] = row[row != 0.0]
    return bands, _in_quads(weights).astype(np.float32)
