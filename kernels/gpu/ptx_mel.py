"""Runs the mel kernel's PTX on the CPU (kernels/gpu/ptx_machine.py) with the launcher's tables and geometry."""

from collections.abc import Callable
from typing import Any

import numpy as np

from triadbench.kernels.gpu import compile as gpu_compile
from triadbench.kernels.gpu import mel_cuda
from triadbench.kernels.gpu.ptx_machine import Memory, Trace, execute
from triadbench.kernels.spec import LOG_EPS, MelSpec


def run(
    waveform: np.ndarray,
    spec: MelSpec,
    *,
    log: bool = False,
    window: np.ndarray | None = None,
    filterbank: np.ndarray | None = None,
    edit: Callable[[str], str] = lambda text: text,
    **options: Any,
) -> tuple[np.ndarray, Trace]:
    """The kernel's mel of clips, and what its execution did.

    Args:
        waveform: (batch, time) float32 or int16.
        window, filterbank: (win_length,), (n_mels, n_freqs) in place of the spec's.
        edit: applied to the PTX text first.
        options: of `execute`: blocks, order, trace.

    Returns:
        mel (batch, n_mels, n_frames) float32, NaN where nothing was written; the trace.

    Raises:
        PtxFault: see `execute`. RuntimeError: the kernel cannot be compiled here.
    """
    waveform, spec = mel_cuda.with_samples(waveform, spec)
    filters = (spec.filterbank() if filterbank is None else filterbank).astype(np.float32)
    window = (spec.window_array() if window is None else window).astype(np.float32)
    plan = mel_cuda.plan_for(spec, in_dtype=waveform.dtype.name, log=log, filterbank=filters)
    mel = np.full((len(waveform), spec.n_mels, spec.n_frames(waveform.shape[1])), np.nan, np.float32)
    inputs = (np.ascontiguousarray(waveform), *mel_cuda.tables_of(plan, spec, window, filters))
    bases = [number << 40 for number in range(1, 5)]  # far apart
    memories = [Memory(array, base) for array, base in zip(inputs, (bases[0], *bases[2:]), strict=True)]
    memories.append(Memory(mel, bases[1], read_only=False, written=False))
    n_blocks, scalars = mel_cuda.geometry(plan, spec, len(mel), waveform.shape[1], LOG_EPS if log else None)
    options |= {"n_blocks": n_blocks, "threads": plan.threads, "shared_bytes": plan.shared_bytes}
    return mel, execute(edit(gpu_compile.ptx(plan)), memories, (*bases, *scalars), **options)
