"""The CPU kernel of `backend="numba"` on NumPy arrays, without torch: the same machine code, the same bits.

waveforms (batch, time) float32 -> (log) mel (batch, n_mels, n_frames) float32

Here is also what kernels/cpu/kernel.py is given, prepared once for a spec and once a call: kernels/cpu/mel_numba.py
launches it on tensors. A process whose machine code lies in the cache (kernels/object_cache.py) needs numpy and
llvmlite; one that has to compile imports numba. Threads are torch's where torch is loaded, a pool of Python's else:
OpenMP comes with torch.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import struct
import sys
from typing import Any

import numpy as np

from triadbench.kernels.cpu import machine_code
from triadbench.kernels.cpu import plan as layout
from triadbench.kernels.object_cache import ObjectCache
from triadbench.kernels.spec import INT16_FULL_SCALE, LOG_EPS, PAD_MODES, MelSpec, largest_prime

LENGTHS_KEPT = 256  # clip lengths whose number of frames is remembered
_CHUNKS_PER_THREAD = 8  # enough that a thread losing its core costs little; few enough that the counter is not busy
_PARALLEL_SAMPLES = 32 * 1024  # other threads are worth starting for this many samples in frames
_LINE = 64  # bytes of a cache line
_MODULES = ("kernel", "codelets", "simd", "dft", "plan", "machine_code")
_CACHE = ObjectCache("mel", (*(f"cpu/{name}.py" for name in _MODULES), "spec.py"), ("numba", "llvmlite"))
_POOL_SAMPLES = 1 << 20  # in frames; for fewer, waking the pool's threads takes longer than they save
_PREPARED_KEPT = 16  # specs that a process keeps ready, with scratch memory


def why_unavailable(spec: MelSpec) -> str | None:
    """None, or why there are no mel spectrograms of this spec here."""
    if spec.window == "custom":
        return 'window="custom" has no formula'
    return why_not_planned(spec) or why_no_compiler()


def load(spec: MelSpec) -> None:
    """Make ready what a first call would: load the machine code, or compile it, which takes seconds."""
    _prepared(spec)


def mel(waveforms: np.ndarray, spec: MelSpec, *, log: bool, threads: int = 1) -> np.ndarray:
    """Mel spectrograms of waveforms (batch, time) float32 -> (batch, n_mels, n_frames) float32.

    Args:
        log: log(mel + LOG_EPS), not mel.
        threads: at most so many compute at once; a batch too small for them is computed on one.

    Raises:
        TypeError: another dtype. ValueError: another shape, too few samples, or threads below 1.
    """
    if waveforms.dtype != np.float32:  # of this machine's byte order
        raise TypeError(f"waveforms dtype={waveforms.dtype} must be float32; use waveforms.astype(np.float32)")
    if waveforms.ndim != 2:
        raise ValueError(f"waveforms shape={waveforms.shape} must be (batch, time); use waveforms[None] for one clip")
    if threads < 1:
        raise ValueError(f"threads={threads} must be at least 1")
    prepared = _prepared(spec)
    n_clips, time = waveforms.shape
    n_frames = prepared.n_frames(time)
    out = np.empty((n_clips, spec.n_mels, n_frames), np.float32)
    if not n_clips:
        return out
    clips = np.ascontiguousarray(waveforms)
    total = n_clips * -(-n_frames // prepared.plan.lanes)
    threads = prepared.threads(total, threads)
    # Looked for too early, OpenMP would be missing for torch as well when that comes.
    torch_is_loaded = "torch._C" in sys.modules
    if not torch_is_loaded and total * prepared.group_samples < _POOL_SAMPLES:
        threads = 1
    run = machine_code.run if torch_is_loaded or threads == 1 else machine_code.run_on_pool
    job = prepared.take(threads)
    job.fill(time, n_frames, clips.ctypes.data, out.ctypes.data, LOG_EPS if log else None, total, threads)
    run(prepared.kernel, job.address, threads)
    prepared.jobs.append(job)
    return out


@functools.lru_cache(maxsize=_PREPARED_KEPT)
def _prepared(spec: MelSpec) -> Prepared:
    # Rounded first: those are the arrays that the torch module computes with.
    window, filterbank = spec.window_array().astype(np.float32), spec.filterbank().astype(np.float32)
    return prepare(spec, window, filterbank, "float32", machine_code.host_lanes(4))


@functools.cache
def mel_kernel(lanes: int, in_dtype: str, dtype: str) -> int:
    """Address of the compiled loop, void f(int64 *job), for a job as kernels/cpu/plan.py lays it out."""

    def compile_code() -> bytes:
        from triadbench.kernels.cpu import kernel

        return kernel.compile_kernel(lanes, in_dtype, dtype)

    return machine_code.load(_CACHE, (lanes, in_dtype, dtype), layout.ENTRY, compile_code)


def why_no_compiler() -> str | None:
    """None, or why numba's machine code cannot be made or loaded here."""
    if importlib.util.find_spec("numba") is None:  # numba itself is slow to import, and needed for compiling alone
        return "numba is not installed; pip install numba"
    try:
        import llvmlite.binding  # noqa: F401
    except (ImportError, OSError) as error:  # OSError: its compiled library does not load here
        return f"llvmlite cannot be imported ({error}); pip install --force-reinstall numba"
    return None


def why_not_planned(spec: MelSpec) -> str | None:
    """Why there is no plan for this spec, or None."""
    largest, limit = largest_prime(spec.n_fft), layout.LARGEST_PRIME
    return f"n_fft={spec.n_fft} has the prime factor {largest}, above {limit}" if largest > limit else None


@dataclasses.dataclass(eq=False)
class Prepared:
    """What one spec, window, filterbank, input dtype and width need.

    Attributes:
        n_frames: `MelSpec.n_frames`, remembered; keeps the spec alive, which a caller's key names by its address.
        slots: what all jobs begin with (int64): sizes and the addresses of `arrays`.
        keep: tensors that a caller's key names by their address: kept alive, so that it is not reused.
        group_samples: samples in the frames of one group.
        jobs: those not running now; as many as calls ran at the same time.
    """

    n_frames: Any
    plan: layout.Plan
    in_dtype: str
    dtype: str
    kernel: int
    slots: np.ndarray
    arrays: tuple
    keep: tuple
    group_samples: int
    jobs: list[Job] = dataclasses.field(default_factory=list)

    def threads(self, total: int, n_threads: int) -> int:
        """How many of `n_threads` are worth it for `total` groups: all or one."""
        return 1 if total == 1 or total * self.group_samples < _PARALLEL_SAMPLES else n_threads

    def take(self, n_threads: int) -> Job:
        """A job that nobody else uses; the caller puts it back into `jobs`."""
        try:  # another thread may take the last one
            job = self.jobs.pop()
        except IndexError:
            return Job(self, n_threads)
        return job if job.n_threads >= n_threads else Job(self, n_threads)


def prepare(
    spec: MelSpec, window: np.ndarray, filterbank: np.ndarray, in_dtype: str, lanes: int, keep: tuple = ()
) -> Prepared:
    """window (win_length,) and filterbank (n_mels, n_freqs), both float32 or float64; in_dtype float32, float64 or
    int16. `keep` is held as long as what is prepared."""
    # Checked here, once: the compiled code reads and writes by address.
    spec.check_shapes(window.shape, filterbank.shape)
    frame_window = spec.frame_window(window.astype(np.float64))
    if in_dtype == "int16":
        frame_window /= INT16_FULL_SCALE
    dtype = filterbank.dtype
    plan = layout.make_plan(spec.n_fft, spec.hop_length, frame_window, lanes, dtype)
    bands, weights = _bands(filterbank)
    arrays = (plan.program, plan.index, plan.table, weights, bands)
    slots = np.zeros(layout.AREAS, np.int64)
    slots[[layout.HOP, layout.LEAD, layout.PAD]] = spec.hop_length, spec.n_fft // 2 if spec.center else 0, spec.pad
    slots[layout.PAD_MODE] = PAD_MODES.index(spec.pad_mode)
    slots[[layout.N_MELS, layout.N_FREQS, layout.N_STEPS]] = spec.n_mels, spec.n_freqs, len(plan.program)
    slots[[layout.ROWS, layout.ROW_STRIDE, layout.COLUMNS]] = plan.rows, plan.row_stride, plan.columns
    slots[layout.ITEM] = np.dtype(in_dtype).itemsize
    slots[layout.PROGRAM : layout.PROGRAM + len(arrays)] = [array.ctypes.data for array in arrays]
    slots.view(np.float64)[layout.HALF_POWER] = spec.power / 2
    kernel, group_samples = mel_kernel(lanes, in_dtype, dtype.name), lanes * spec.n_fft
    n_frames = functools.lru_cache(LENGTHS_KEPT)(spec.n_frames)
    return Prepared(n_frames, plan, in_dtype, dtype.name, kernel, slots, arrays, keep, group_samples)


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


class Job:
    """What the compiled code is given (kernels/cpu/plan.py), and the scratch memories of `n_threads` threads."""

    def __init__(self, prepared: Prepared, n_threads: int) -> None:
        plan = prepared.plan
        self.n_threads = n_threads
        slots = _aligned_zeros(layout.AREAS + layout.AREA_SIZE * n_threads, "int64")
        self.slots: Any = slots  # a buffer too, which numpy's types do not say
        self.address = self.slots.ctypes.data
        self.slots[: layout.AREAS] = prepared.slots
        self.areas = []  # keeps the memory
        for i in range(n_threads):
            arrays = (
                _aligned_zeros(plan.work_size, prepared.dtype),
                _aligned_zeros(layout.wide_size(plan.n_fft, plan.lanes), prepared.dtype),
                _aligned_zeros(plan.lanes, prepared.dtype),
                _aligned_zeros(plan.columns * plan.rows, prepared.in_dtype),
                np.zeros(plan.columns, np.int64),
            )
            self.areas.append(arrays)
            first = layout.AREAS + layout.AREA_SIZE * i
            self.slots[first : first + len(arrays)] = [array.ctypes.data for array in arrays]

    def fill(self, time, n_frames, samples, out, log_eps, total, n_threads) -> None:
        """What differs from call to call."""
        grain = max(1, total // (n_threads * _CHUNKS_PER_THREAD))
        eps = -1.0 if log_eps is None else log_eps
        _CALL_SIZES.pack_into(self.slots, 8 * layout.TIME, time, n_frames)
        _CALL.pack_into(self.slots, 8 * layout.NEXT_AREA, 0, 0, samples, out, eps, total, grain)


_CALL_SIZES = struct.Struct("=2q")  # TIME and N_FRAMES
_CALL = struct.Struct("=4qd2q")  # NEXT_AREA, COUNTER, SAMPLES, OUT, EPS, TOTAL, GRAIN


def _aligned_zeros(size: int, dtype: str) -> np.ndarray:
    n_bytes = size * np.dtype(dtype).itemsize
    memory = np.zeros(n_bytes + _LINE, np.uint8)
    start = -memory.ctypes.data % _LINE
    return memory[start : start + n_bytes].view(dtype)
