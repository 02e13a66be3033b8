"""Mel spectrogram on the CPU: SIMD over frames, fused from samples to (log) mel, compiled by numba.

    mel[m, t] = sum_k filterbank[m, k] |X[t, k]| ** power,  log mel = log(mel + eps)      (kernels/mel_reference.py)

(batch, time) float32, float64 or int16 -> (batch, n_mels, n_frames). W consecutive frames of a clip travel together,
one a lane: their samples are transposed once, go through the plan's FFT passes (kernels/cpu/plan.py), become powers,
are summed by the filters and stored, W neighbours at a time, in a scratch memory that fits L2. Groups of W frames are
handed out to the threads one chunk after the other, so a slow thread delays only its own chunk.

This file is torch's side. What is prepared, once and once a call, and the same on NumPy arrays, without torch:
kernels/cpu/numpy_entry.py; what is compiled: kernels/cpu/kernel.py.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from triadbench.kernels.cpu import machine_code, numpy_entry
from triadbench.kernels.cpu import plan as mel_plan
from triadbench.kernels.cpu.machine_code import host_lanes
from triadbench.kernels.spec import MelSpec
from triadbench.kernels.torch_operator import BoundedCache, identity, needs_operator, register_operator

if TYPE_CHECKING:
    import torch
    from torch import Tensor

COMPUTES_IN_FLOAT64 = False

_PREPARED_KEPT = 16  # settings that a process keeps ready, with scratch memory


@functools.cache
def why_unavailable() -> str | None:
    """None, or why numba cannot be imported."""
    reason = numpy_entry.why_no_compiler()
    if reason is None:
        register_operator("mel_numba", compute)
    return reason


def why_unsupported(spec: MelSpec, *, dtype: str, device: str, needs_gradient: bool) -> str | None:
    """What this backend lacks for such input, or None."""
    if device != "cpu":
        return f"it runs on the CPU and the input is on {device}"
    if needs_gradient:
        return "it has no gradient"
    return numpy_entry.why_not_planned(spec)


def plan_for(spec: MelSpec, lanes: int | None = None) -> mel_plan.Plan:
    """The passes that a float32 input takes with the spec's own window; `.path` is "fast" or "direct"."""
    window, float32 = spec.frame_window(spec.window_array()), np.dtype(np.float32)
    return mel_plan.make_plan(spec.n_fft, spec.hop_length, window, lanes or host_lanes(4), float32)


def forward(waveform: Tensor, spec: MelSpec, window: Tensor, filterbank: Tensor, log_eps: float | None) -> Tensor:
    """(batch, time) float32, float64 or int16 on the CPU -> (batch, n_mels, n_frames).

    window (win_length,) and filterbank (n_mels, n_freqs) in the dtype of the result. They are prepared once; a change
    in place is seen by torch's version counter, so one through `.data`, which hides from it, is not.
    """
    if needs_operator(waveform):
        import torch

        return torch.ops.triadbench.mel_numba(waveform, window, filterbank.mT, spec.text, log_eps)
    return compute(waveform, spec, window, filterbank, log_eps)


def compute(
    waveform: Tensor, spec: MelSpec, window: Tensor, filterbank: Tensor, log_eps: float | None, lanes: int | None = None
) -> Tensor:
    """`forward` outside torch.compile; `lanes` (W) defaults to the host's vector width."""
    import torch

    n_clips, time = waveform.shape
    lanes = lanes or host_lanes(window.dtype.itemsize)
    # By address: hashing a spec costs more than all other look-ups.
    key = (id(spec), identity(window), identity(filterbank), waveform.dtype, lanes)
    prepared = _prepared.get(key) or _prepared.put(key, _prepare(spec, window, filterbank, waveform.dtype, lanes))
    n_frames = prepared.n_frames(time)
    out = window.new_empty((n_clips, spec.n_mels, n_frames))  # not torch's default device
    if not n_clips:
        return out
    clips = waveform.contiguous()
    total = n_clips * -(-n_frames // lanes)
    # All of torch's threads or none: OpenMP ends and starts threads where their number changes.
    n_threads = prepared.threads(total, torch.get_num_threads())
    job = prepared.take(n_threads)
    job.fill(time, n_frames, clips.data_ptr(), out.data_ptr(), log_eps, total, n_threads)
    machine_code.run(prepared.kernel, job.address, n_threads)
    prepared.jobs.append(job)
    return out


_prepared: BoundedCache[numpy_entry.Prepared] = BoundedCache(_PREPARED_KEPT)


def _prepare(spec: MelSpec, window: Tensor, filterbank: Tensor, dtype: torch.dtype, lanes: int) -> numpy_entry.Prepared:
    if window.dtype != filterbank.dtype or str(window.dtype) not in ("torch.float32", "torch.float64"):
        raise TypeError(
            f"window dtype={window.dtype} and filterbank dtype={filterbank.dtype} must be the same, torch.float32 or "
            "torch.float64; convert them with .to()"
        )
    in_dtype = str(dtype).removeprefix("torch.")
    if in_dtype not in ("float32", "float64", "int16"):
        raise TypeError(f"waveform dtype={in_dtype} must be float32, float64 or int16; use waveform.float()")
    window, filterbank = window.detach(), filterbank.detach()  # of their own: `.data` may be set on the caller's
    return numpy_entry.prepare(spec, window.numpy(), filterbank.numpy(), in_dtype, lanes, keep=(window, filterbank))
