"""How a block of threads transforms a tile of frames: radices, sizes and shared memory, worked out for one n_fft.

A real transform of N = r m samples, n = a m + b, k = c + r d, is r-point real transforms over a, one for each b, then
for every residue c = 0..r // 2 a complex m-point transform over b of Y_b[c] w_N^(b c); the residues above are mirror
images. The outputs Y[0] and Y[r / 2] are real. Where there is one complex pass and r is even, both share a transform
(`Plan.packed`): their bins are those of the 2 m real values Y_b[0] +- Y_b[r / 2], which it takes in pairs; so r / 2
residues are left, and fill whole warps. Elsewhere they are transformed like the others, and their mirrored half is
thrown away: that costs 1 / r of the work and keeps all threads on one path.

The m-point transforms take one or more radices in place. Position b of a residue lies at b + b // last * pad: one
complex value of padding after each run of the last radix, where that is even, spreads a warp over the memory banks, as
do the strides of residues and frames. The powers then lie over the transform's memory as rows of a bin, [bin][frame]:
bin k at row k, or at k + k // r where several threads share a residue.

A thread takes several frames at once where its registers hold them: they share window and twiddles.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterator

import numpy as np

from triadbench.kernels.spec import largest_prime

LARGEST_RADIX = 32  # 64 registers of data in a thread; 64 would need more than there are
# Bytes of shared memory that a block may take on every GPU from compute capability 8.0 on.
SHARED_LIMIT = 99 * 1024
# Wanted in a block at most, by frames: several blocks then share a multiprocessor, and one computes while another waits
# at a barrier or for memory. 512 threads of 128 registers are the whole register file.
_THREADS = {1: 512, 2: 288, 4: 288, 8: 160, 16: 160}
_TOGETHER = 80  # floats of data that a thread holds of the frames that it takes at once
_SERVED = 8  # lanes whose 16 bytes the 32 banks serve at once
_PAIRS = 16  # lanes whose 8 bytes they do


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything that the program text depends on.

    Attributes:
        real_radix: r. radices: those of the m-point transforms in order. frames (a power of two), threads: of a block.
        residue, frame: complex values from one residue, one frame to the next.
        n_mels: filters. n_bins: bins 0..n_bins - 1 are used by some; the others are not computed where that saves a
            store. shift: hop_length / m where frames overlap by whole columns of m samples, else 0.
        edge: what lies outside a clip: a pad mode.
        power: "power" |X|^2, "magnitude" |X| or "other".
    """

    n_fft: int
    real_radix: int
    radices: tuple[int, ...]
    frames: int
    threads: int = 32
    residue: int = 0
    frame: int = 0
    n_mels: int = 1
    n_bins: int = 1
    shift: int = 0
    in_dtype: str = "float32"
    edge: str = "constant"
    power: str = "power"
    log: bool = False

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
    def packed(self) -> bool:
        """Whether c = 0 and c = r / 2, whose r-point outputs are real, share a transform, that of residue 0."""
        return self.groups == 1 and self.real_radix % 2 == 0

    @property
    def n_residues(self) -> int:
        return self.real_radix // 2 + (not self.packed)

    @property
    def pad(self) -> int:
        return 1 - self.last % 2

    @property
    def n_freqs(self) -> int:
        return self.n_fft // 2 + 1

    @property
    def quad(self) -> int:
        """Neighbouring frames that a thread of the filters takes."""
        return min(self.frames, 4)

    @property
    def step(self) -> int:
        """Rows of powers that a segment takes at once: its weights for them wait for memory together."""
        return 4 if self.frames > 4 else 2

    @property
    def sums(self) -> int:
        """Where the filters' rising sums lie in shared memory, [filter][frame], in floats; the falling ones follow."""
        return self.frames * (self.spread(self.n_freqs - 1) + self.step) + 3 & ~3

    @property
    def shared_bytes(self) -> int:
        return 4 * max(2 * self.frames * self.frame, self.sums + 2 * self.frames * (self.n_mels + 1))

    def together(self, values: int) -> int:
        """Frames that a thread takes at once, of so many floats each."""
        return max(n for n in (1, 2, 4) if n == 1 or n <= self.frames and n * values <= _TOGETHER)

    def place(self, b):
        """Where position b (an int or an array) of a residue lies."""
        return b + b // self.last * self.pad

    def spread(self, k):
        """The row of bin k (an int or an array)."""
        return k + k // self.real_radix if self.groups > 1 else k


def make_plan(
    n_fft: int, hop_length: int, n_mels: int, n_bins: int, in_dtype: str, edge: str, power: str, log: bool
) -> Plan:
    """Raises ValueError for an n_fft or n_mels that `why_not` refuses."""
    reason, layout = why_not(n_fft, n_mels), _layout(n_fft, n_mels)
    if reason or layout is None:
        raise ValueError(reason)
    n_bins = min(n_bins + layout.step - 1, n_fft // 2 + 1)  # a filter's last rows may be these, with weights of zero
    shift = hop_length // layout.m if hop_length < n_fft and hop_length % layout.m == 0 else 0
    layout = dataclasses.replace(layout, n_bins=n_bins, shift=shift, in_dtype=in_dtype)
    return dataclasses.replace(layout, edge=edge, power=power, log=log)


@functools.cache
def why_not(n_fft: int, n_mels: int = 1) -> str | None:
    """Why no kernel can be made for this n_fft and so many filters, or None."""
    if largest_prime(n_fft) > 5:
        return f"n_fft={n_fft} must be a product of 2, 3 and 5"
    for filters, what in ((1, f"n_fft={n_fft}"), (n_mels, f"n_fft={n_fft} with n_mels={n_mels}")):
        if 4 * n_fft > SHARED_LIMIT or _layout(n_fft, filters) is None:
            return f"{what} needs more than the {SHARED_LIMIT} bytes of shared memory that a block has"
    return None


@functools.cache
def _layout(n_fft: int, n_mels: int) -> Plan | None:
    """The cheapest plan that fits, by a count of passes and idle threads, without what the clip and the bins decide."""
    best = None
    splits = [(n_fft,)] if n_fft <= 8 else (radices for radices in _splits(n_fft) if len(radices) > 1)
    for (real_radix, *rest), frames in itertools.product(splits, _THREADS):
        plan = Plan(n_fft, real_radix, tuple(rest) or (1,), frames, n_mels=n_mels)
        items = frames // plan.together(2 * plan.last) * plan.n_residues * plan.groups
        plan = dataclasses.replace(plan, threads=-(-items // 32) * 32, residue=plan.place(plan.m))
        plan = dataclasses.replace(plan, frame=plan.n_residues * plan.residue)
        if plan.threads <= _THREADS[frames] and plan.shared_bytes <= SHARED_LIMIT:
            cost = _cost(plan)
            if best is None or cost < best[0]:
                best = cost, plan
    return best and _with_strides(best[1])


def _cost(plan: Plan) -> float:
    """Instructions of a frame's warps, idle lanes included; by rule of thumb, for choosing only."""
    passes = [(plan.m, plan.real_radix, 0.5, plan.together(plan.real_radix))]
    passes += [(plan.n_residues * plan.m // r, r, 1.0, plan.together(2 * r)) for r in plan.radices]
    total = 0.0
    for items, radix, share, together in passes:
        warps = -(-plan.frames // together * items // 32)
        total += warps * 32 * (20 + together * radix * (6 + share * 4 * np.log2(radix + 1)))
    registers = 1.0 + 0.005 * max(0, max(plan.real_radix, *plan.radices) - 16)  # fewer threads fit
    return total / plan.frames * registers * (1.1 if plan.threads < 128 else 1.0)


def _with_strides(plan: Plan) -> Plan:
    """The plan with the least padding of residues and frames that spreads the first stores and the last loads best."""
    item, together, tile = np.arange(plan.threads), plan.together(2 * plan.last), plan.together(plan.real_radix)
    tiles = plan.frames // together
    rest, last_frame = item // tiles, item % tiles * together
    run = plan.place(plan.last) if plan.groups > 1 else 0
    best = None
    for residue, frame_pad in itertools.product(range(plan.residue, plan.residue + 4), range(_PAIRS)):
        frame = plan.n_residues * residue + frame_pad
        wider = dataclasses.replace(plan, residue=residue, frame=frame)
        loads = last_frame * frame + rest % plan.n_residues * residue + rest // plan.n_residues * run
        stores = item // plan.m * tile * frame + plan.place(item % plan.m)
        passes = sum(_passes(lanes) for places in (loads, stores) for lanes in places.reshape(-1, _PAIRS))
        if wider.shared_bytes <= SHARED_LIMIT and (best is None or (passes, frame) < best[0]):
            best = (passes, frame), wider
    return best[1] if best else plan


def _passes(places: np.ndarray) -> int:
    """Passes that these 8-byte places take together."""
    return int(np.bincount(np.unique(places) % _PAIRS).max())


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
    """Segments of rows, each weighed for two filters: its own, which rises, and the one below, which falls.

    Bins between the peaks of neighbouring triangles belong to no other filter, so that each power is read once. Filters
    that overlap in another way have a segment each, with weights for its own alone.

    Returns:
        (n_mels + 1, 2) int32: a segment's first row, and how many times `plan.step` rows it spans; and the weights,
        float32, as [pair of rows][segment][row][rising, falling]. Zero at the padding, before and behind, that lets
        the segments which are served together begin in different banks.
    """
    segment = _segments(filterbank)
    rising, falling = (np.pad(filterbank, (rows, (0, 0))) for rows in ((0, 1), (1, 0)))
    if segment is None:
        falling = 0 * falling
    else:
        own = segment == np.arange(len(rising))[:, None]
        rising, falling = rising * own, falling * own
    used = [plan.spread(np.flatnonzero(weighed)) for weighed in (rising != 0.0) | (falling != 0.0)]
    apart = _SERVED * plan.quad // plan.frames  # segments that are served together
    begins = [int(rows[0]) if len(rows) else 0 for rows in used]
    if 1 < apart <= _SERVED:
        for at in range(len(begins), 0, -apart):  # the longest segments come first
            served = slice(max(0, at - apart), at)
            begins[served] = _in_different_banks(begins[served], apart)
    spans = [(rows[-1] + plan.step - b) // plan.step if len(rows) else 0 for b, rows in zip(begins, used, strict=True)]
    bands = np.array([(b if span else 0, span) for b, span in zip(begins, spans, strict=True)], np.int32)
    weights = np.zeros((plan.step * max(1, *spans), len(bands), 2), np.float32)
    for s, rows in enumerate(used):
        both = np.stack((rising[s], falling[s]), axis=1)
        weights[rows - begins[s], s] = both[both.any(axis=1)]
    return bands, weights.reshape(-1, 2, len(bands), 2).swapaxes(1, 2).ravel()


def _segments(filterbank: np.ndarray) -> np.ndarray | None:
    """For each bin the segment s such that no filters but s - 1 and s weigh it, ascending; None where there is none."""
    n_mels, n_bins = filterbank.shape
    weighed = filterbank != 0.0
    peaks = filterbank.argmax(axis=1)
    top = np.where(weighed.any(axis=0), n_mels - 1 - weighed[::-1].argmax(axis=0), -1)  # the last filter of a bin
    alone = weighed.sum(axis=0) == 1
    segment = np.maximum.accumulate(top + (alone & (np.arange(n_bins) > peaks[top])))
    low = weighed.argmax(axis=0)
    right = ~weighed.any(axis=0) | (low >= segment - 1) & (top <= segment)
    return segment if right.all() else None


def _in_different_banks(begins: list[int], apart: int) -> list[int]:
    """Each moved down by less than `apart`, to different remainders, with the least moves in all."""
    best: dict = {0: (0, ())}  # remainders that are taken, as bits -> moves, beginnings
    for begin in begins:
        longer: dict = {}
        for (taken, (moves, chosen)), move in itertools.product(best.items(), range(min(apart, begin + 1))):
            bits = taken | 1 << (begin - move) % apart
            new = moves + move + 100 * (bits == taken), (*chosen, begin - move)
            longer[bits] = min(new, longer.get(bits, new))
        best = longer
    return list(min(best.values())[1])
