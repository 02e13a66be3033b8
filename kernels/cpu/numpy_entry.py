"""The CPU kernel of `backend="numba"` on NumPy arrays, without torch: the same machine code, the same bits.

waveforms (batch, time) float32 -> (log) mel (batch, n_mels, n_frames) float32

A process whose machine code lies in the cache (kernels/object_cache.py) needs numpy and llvmlite; one that has to
compile imports numba. Threads are torch's where torch is loaded, a pool of Python's else: OpenMP comes with torch.
"""

import functools
import sys

import numpy as np

from triadbench.kernels.cpu import job as mel_job
from triadbench.kernels.cpu import threads as thread_runs
from triadbench.kernels.cpu.machine_code import host_lanes
from triadbench.kernels.spec import LOG_EPS, MelSpec

_POOL_SAMPLES = 1 << 20  # in frames; for fewer, waking the pool's threads takes longer than they save
_PREPARED_KEPT = 16  # specs that a process keeps ready, with scratch memory


def why_unavailable(spec: MelSpec) -> str | None:
    """None, or why there are no mel spectrograms of this spec here."""
    if spec.window == "custom":
        return 'window="custom" has no formula'
    return mel_job.why_not_planned(spec) or mel_job.why_no_compiler()


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
    run = thread_runs.run if torch_is_loaded or threads == 1 else thread_runs.run_on_pool
    job = prepared.take(threads)
    job.fill(time, n_frames, clips.ctypes.data, out.ctypes.data, LOG_EPS if log else None, total, threads)
    run(prepared.kernel, job.address, threads)
    prepared.jobs.append(job)
    return out


@functools.lru_cache(maxsize=_PREPARED_KEPT)
def _prepared(spec: MelSpec) -> mel_job.Prepared:
    # Rounded first: those are the arrays that the torch module computes with.
    window, filterbank = spec.window_array().astype(np.float32), spec.filterbank().astype(np.float32)
    return mel_job.prepare(spec, window, filterbank, "float32", host_lanes(4))
