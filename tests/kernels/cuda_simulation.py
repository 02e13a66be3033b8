"""Runs the CUDA kernel in numba's simulator: `python cuda_simulation.py REQUEST.npz ANSWER.npz`, in its own process
because NUMBA_ENABLE_CUDASIM=1 must be set before numba is imported. The GPU is the only part that is replaced: plan,
tables, program text and geometry are those of the backend.

Shared memory begins as NaN in every block and the output too, every access is checked against the ends of its array,
and half of the output's memory lies behind it untouched.
"""

import json
import os
import sys
from pathlib import Path

os.environ["NUMBA_ENABLE_CUDASIM"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from triadbench.kernels import LOG_EPS, MelSpec
from triadbench.kernels.gpu import compile as cuda_compile
from triadbench.kernels.gpu import mel_cuda
from triadbench.kernels.gpu import memory as cuda_memory

_SHARED = "    shared = pointer_to(cuda.shared.array(0, f32))\n"
_SPOILED = (_SHARED, f"{_SHARED}    if cuda.threadIdx.x == 0:\n        spoil(shared)\n    cuda.syncthreads()\n")
# Wrong kernels on purpose: what is replaced in the program text
ALTERATIONS = {
    "truncated_transform": (", p1)", ", zero)"),
    "shifted_frame": ("read(samples, ", "read(samples, 1 + "),
    "mirrored_bin": ("store(high, ", "store(low, "),
    "untwiddled": ("re1 * s1 + im1 * c1", "im1 * c1"),
    "half_precision_sums": ("total += load(powers, 0)", "total = half(total) + load(powers, 0)"),
    "half_precision_powers": ("p2 = re2 * re2", "p2 = half(re2) * re2"),
    "lost_frames": ("if t < n_frames:", "if t + 1 < n_frames:"),
    "no_barriers": ("cuda.syncthreads()", "pass"),
}


def _spoil(pointer):
    pointer.array[:] = np.nan


def simulate(waveform, spec, log, edits=(), window=None, filterbank=None):
    """(batch, time) numpy -> (batch, n_mels, n_frames) float32."""
    waveform, spec = mel_cuda.with_samples(waveform, spec)
    filters = (spec.filterbank() if filterbank is None else filterbank).astype(np.float32)
    window = (spec.window_array() if window is None else window).astype(np.float32)
    plan = mel_cuda.plan_for(spec, in_dtype=waveform.dtype.name, log=log, filterbank=filters)
    tables, bands = mel_cuda.tables_of(plan, spec, window, filters)
    out = np.full((len(waveform), spec.n_mels, spec.n_frames(waveform.shape[1])), np.nan, np.float32)
    n_blocks, scalars = mel_cuda.geometry(plan, spec, *waveform.shape, LOG_EPS if log else None)
    *counts, eps, half_power = scalars
    arrays = (np.ascontiguousarray(waveform).ravel(), out.reshape(-1), tables, bands.ravel())
    pointers = [cuda_memory.SimulatedPointer(array) for array in arrays]
    names = cuda_memory.simulator_names() | {"half": lambda x: np.float32(np.float16(x)), "spoil": _spoil}
    kernel = names["cuda"].jit(cuda_compile.function(plan, names, (*edits, _SPOILED)))
    kernel[n_blocks, plan.threads, 0, plan.shared_bytes](*pointers, *counts, np.float32(eps), np.float32(half_power))
    return out


def main(request, answer):
    given = np.load(request)
    made = {}
    for name, case in json.loads(str(given["cases"])).items():
        arrays = {key: given[f"{name}/{key}"] for key in ("window", "filterbank") if f"{name}/{key}" in given}
        edits = [ALTERATIONS[case["alteration"]]] if case["alteration"] else []
        made[name] = simulate(given[name], MelSpec.from_dict(case["spec"]), case["log"], edits, **arrays)
    np.savez(answer, **made)


if __name__ == "__main__":
    main(*sys.argv[1:])
