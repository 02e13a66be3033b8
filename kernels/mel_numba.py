"""Mel spectrogram on the CPU: SIMD over frames, fused from samples to (log) mel, compiled by numba.

    mel[m, t] = sum_k filterbank[m, k] |X[t, k]| ** power,  log mel = log(mel + eps)      (kernels/mel_reference.py)

(batch, time) float32, float64 or int16 -> (batch, n_mels, n_frames). W consecutive frames of a clip travel together,
one a lane: their samples are transposed once, go through the plan's FFT passes (kernels/numba_plan.py), become powers,
are summed by the filters and stored, W neighbours at a time, in a scratch memory that fits L2. Groups of W frames are
handed out to the threads one chunk after the other, so a slow thread delays only its own chunk.

This file is the launcher: what is prepared once, the threads, torch's side. What is compiled: kernels/numba_kernel.py.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import struct

import numpy as np

import kernels.numba_plan as numba_plan
import kernels.numba_threads as numba_threads
from kernels.spec import INT16_FULL_SCALE, PAD_MODES, MelSpec, largest_prime
from kernels.torch_side import Kept, identity, needs_operator, register_operator

COMPUTES_IN_FLOAT64 = False

_CHUNKS_PER_THREAD = 8  # enough that a thread losing its core costs little; few enough that the counter is not busy
_PARALLEL_SAMPLES = 32 * 1024  # other threads are worth starting for this many samples in frames
_PREPARED_KEPT = 16  # settings that a process keeps ready, with scratch memory
_LENGTHS_KEPT = 256  # clip lengths whose number of frames is remembered
_LINE = 64  # bytes of a cache line


def why_unavailable() -> str | None:
    """None, or why numba cannot be imported."""
    return _import_failure()


def why_unsupported(spec: MelSpec, *, dtype: str, device: str, needs_gradient: bool) -> str | None:
    """What this backend lacks for such input, or None."""
    if device != "cpu":
        return f"it runs on the CPU and the input is on {device}"
    if needs_gradient:
        return "it has no gradient"
    largest = largest_prime(spec.n_fft)
    if largest > numba_plan.LARGEST_PRIME:
        return f"n_fft={spec.n_fft} has the prime factor {largest}, above {numba_plan.LARGEST_PRIME}"
    return None


def plan_for(spec: MelSpec, lanes: int | None = None) -> numba_plan.Plan:
    """The passes that a float32 input takes with the spec's own window; `.path` is "fast" or "direct"."""
    import kernels.numba_cache as numba_cache

    lanes = lanes or numba_cache.host_lanes(4)
    window = spec.frame_window(spec.window_array())
    return numba_plan.make_plan(spec.n_fft, spec.hop_length, window, lanes, np.float32)


def forward(waveform, spec: MelSpec, window, filterbank, log_eps: float | None):
    """(batch, time) float32, float64 or int16 on the CPU -> (batch, n_mels, n_frames).

    window (win_length,) and filterbank (n_mels, n_freqs) in the dtype of the result. They are prepared once; a change
    in place is seen by torch's version counter, so one through `.data`, which hides from it, is not.
    """
    if needs_operator(waveform):
        import torch

        return torch.ops.triadbench.mel_numba(waveform, window, filterbank, spec.text, log_eps)
    return compute(waveform, spec, window, filterbank, log_eps)


def compute(waveform, spec: MelSpec, window, filterbank, log_eps: float | None, lanes: int | None = None):
    """`forward` outside torch.compile; `lanes` (W) defaults to the host's vector width."""
    import torch

    n_clips, time = waveform.shape
    lanes = lanes or _host_lanes(window.dtype.itemsize)
    prepared = _prepared(spec, window, filterbank, waveform.dtype, lanes)
    n_frames = prepared.n_frames(time)
    out = window.new_empty((n_clips, spec.n_mels, n_frames))  # not torch's default device
    if not n_clips:
        return out
    clips = waveform.contiguous()
    total = n_clips * -(-n_frames // lanes)
    n_threads = torch.get_num_threads()
    # All of torch's threads or none: OpenMP ends and starts threads where their number changes.
    if total == 1 or total * prepared.group_samples < _PARALLEL_SAMPLES:
        n_threads = 1
    job = prepared.take(n_threads)
    job.fill(time, n_frames, clips.data_ptr(), out.data_ptr(), log_eps, total, n_threads)
    numba_threads.run(prepared.kernel, job.address, n_threads)
    prepared.jobs.append(job)
    return out


@functools.cache
def _host_lanes(float_bytes: int) -> int:
    import kernels.numba_cache as numba_cache

    return numba_cache.host_lanes(float_bytes)


class _Job:
    """What the compiled code is given (kernels/numba_plan.py), and the scratch memories of `n_threads` threads."""

    def __init__(self, prepared: _Prepared, n_threads: int) -> None:
        plan = prepared.plan
        self.n_threads = n_threads
        self.slots = _aligned_zeros(numba_plan.AREAS + numba_plan.AREA_SIZE * n_threads, "int64")
        self.address = self.slots.ctypes.data
        self.slots[: len(prepared.sizes)] = prepared.sizes
        self.slots[list(numba_plan.ARRAYS)] = prepared.addresses
        self.slots.view(np.float64)[numba_plan.HALF_POWER] = prepared.spec.power / 2
        self.areas = []  # keeps the memory
        for i in range(n_threads):
            arrays = (
                _aligned_zeros(plan.work_size, prepared.dtype),
                _aligned_zeros(numba_plan.wide_size(plan.n_fft, plan.lanes), prepared.dtype),
                _aligned_zeros(plan.lanes, prepared.dtype),
                _aligned_zeros(plan.columns * plan.rows, prepared.in_dtype),
                np.zeros(plan.columns, np.int64),
            )
            self.areas.append(arrays)
            first = numba_plan.AREAS + numba_plan.AREA_SIZE * i
            self.slots[first : first + len(arrays)] = [array.ctypes.data for array in arrays]

    def fill(self, time, n_frames, samples, out, log_eps, total, n_threads) -> None:
        """What differs from call to call."""
        grain = max(1, total // (n_threads * _CHUNKS_PER_THREAD))
        eps = -1.0 if log_eps is None else log_eps
        _CALL_SIZES.pack_into(self.slots, 8 * numba_plan.TIME, time, n_frames)
        _CALL.pack_into(self.slots, 8 * numba_plan.NEXT_AREA, 0, 0, samples, out, eps, total, grain)


_CALL_SIZES = struct.Struct("=2q")  # TIME and N_FRAMES
_CALL = struct.Struct("=4qd2q")  # NEXT_AREA, COUNTER, SAMPLES, OUT, EPS, TOTAL, GRAIN


def _aligned_zeros(size: int, dtype: str) -> np.ndarray:
    n_bytes = size * np.dtype(dtype).itemsize
    memory = np.zeros(n_bytes + _LINE, np.uint8)
    start = -memory.ctypes.data % _LINE
    return memory[start : start + n_bytes].view(dtype)


# ---- what one spec, window and filterbank need, worked out once


@dataclasses.dataclass(eq=False)
class _Prepared:
    """`arrays` are what `addresses` point at. `tensors` and `spec` keep what the key names by its address alive, so
    that nothing else can come to lie there. `jobs` are those not running now: as many as calls ran at the same time."""

    spec: MelSpec
    plan: numba_plan.Plan
    in_dtype: str
    dtype: str
    kernel: int  # address
    sizes: np.ndarray  # TIME and N_FRAMES are filled in for each input
    arrays: tuple
    addresses: tuple  # program, index, table, weights, bands
    tensors: tuple
    group_samples: int  # in the frames of one group
    jobs: list[_Job] = dataclasses.field(default_factory=list)
    lengths: dict[int, int] = dataclasses.field(default_factory=dict)

    def n_frames(self, time: int) -> int:
        found = self.lengths.get(time)
        if found is None:
            if len(self.lengths) >= _LENGTHS_KEPT:
                self.lengths.clear()
            found = self.lengths[time] = self.spec.n_frames(time)
        return found

    def take(self, n_threads: int) -> _Job:
        """A job that nobody else uses; the caller puts it back into `jobs`."""
        try:
            job = self.jobs.pop()
        except IndexError:
            return _Job(self, n_threads)
        return job if job.n_threads >= n_threads else _Job(self, n_threads)


_kept: Kept[_Prepared] = Kept(_PREPARED_KEPT)


def _prepared(spec: MelSpec, window, filterbank, in_dtype, lanes: int) -> _Prepared:
    # By address: hashing a spec costs more than all other look-ups.
    key = (id(spec), identity(window), identity(filterbank), in_dtype, lanes)
    found = _kept.get(key)
    if found is None:
        found = _prepare(spec, window, filterbank, str(in_dtype).removeprefix("torch."), lanes)
        _kept.put(key, found)
    return found


def _prepare(spec: MelSpec, window, filterbank, in_dtype: str, lanes: int) -> _Prepared:
    import kernels.numba_cache as numba_cache

    # Checked here, once: the compiled code reads and writes by address.
    spec.check_shapes(window.shape, filterbank.shape)
    if window.dtype != filterbank.dtype or str(window.dtype) not in ("torch.float32", "torch.float64"):
        raise TypeError(
            f"window dtype={window.dtype} and filterbank dtype={filterbank.dtype} must be the same, torch.float32 or "
            "torch.float64; convert them with .to()"
        )
    if in_dtype not in ("float32", "float64", "int16"):
        raise TypeError(f"waveform dtype={in_dtype} must be float32, float64 or int16; use waveform.float()")
    frame_window = spec.frame_window(window.detach().double().numpy())
    if in_dtype == "int16":
        frame_window /= INT16_FULL_SCALE
    filters = filterbank.detach().numpy()
    plan = numba_plan.make_plan(spec.n_fft, spec.hop_length, frame_window, lanes, filters.dtype)
    bands, weights = _bands(filters)
    arrays = (plan.program, plan.index, plan.table, weights, bands)
    sizes = np.zeros(numba_plan.N_SIZES, np.int64)
    for position, value in {
        numba_plan.HOP: spec.hop_length,
        numba_plan.LEAD: spec.n_fft // 2 if spec.center else 0,
        numba_plan.PAD: spec.pad,
        numba_plan.PAD_MODE: PAD_MODES.index(spec.pad_mode),
        numba_plan.N_MELS: spec.n_mels,
        numba_plan.N_FREQS: spec.n_freqs,
        numba_plan.ROWS: plan.rows,
        numba_plan.ROW_STRIDE: plan.row_stride,
        numba_plan.COLUMNS: plan.columns,
        numba_plan.N_STEPS: len(plan.program),
        numba_plan.ITEM: np.dtype(in_dtype).itemsize,
    }.items():
        sizes[position] = value
    return _Prepared(
        spec=spec,
        plan=plan,
        in_dtype=in_dtype,
        dtype=filters.dtype.name,
        kernel=numba_cache.kernel(lanes, in_dtype, filters.dtype.name),
        sizes=sizes,
        arrays=arrays,
        addresses=tuple(array.ctypes.data for array in arrays),
        tensors=(window.detach(), filterbank.detach()),  # of their own: `.data` may be set on the caller's
        group_samples=lanes * spec.n_fft,
    )


def _bands(filterbank: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n_mels, 3) int64: each filter's first bin, its bins up to the last with a weight, where its weights begin;
    and the weights, one filter after the other."""
    bands, weights, used = np.zeros((len(filterbank), 3), np.int64), [filterbank[:0, 0]], 0
    for m, row in enumerate(filterbank):
        bins = np.flatnonzero(row)
        if len(bins):
            bands[m] = bins[0], bins[-1] + 1 - bins[0], used
            weights.append(row[bins[0] : bins[-1] + 1])
            used += len(weights[-1])
    return bands, np.concatenate(weights)


# ---- torch.compile: the kernel as an operator with a shape function


@functools.cache
def _import_failure() -> str | None:
    if importlib.util.find_spec("numba") is None:  # numba itself is slow to import, and needed for compiling alone
        return "numba is not installed; pip install numba"
    try:
        import llvmlite.binding  # noqa: F401
    except (ImportError, OSError) as error:  # OSError: its compiled library does not load here
        return f"llvmlite cannot be imported ({error}); pip install --force-reinstall numba"
    register_operator("mel_numba", compute)
    return None
