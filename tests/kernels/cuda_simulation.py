"""Runs the CUDA kernel in numba's simulator: `python cuda_simulation.py REQUEST.npz ANSWER.npz`, in its own process
because NUMBA_ENABLE_CUDASIM=1 must be set before numba is imported. The GPU is the only part that is replaced: plan,
tables, program text and geometry are those of the backend.
"""

import json
import os
import sys
from pathlib import Path

os.environ["NUMBA_ENABLE_CUDASIM"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np  # noqa: E402

from kernels import LOG_EPS, MelSpec, cuda_compile, cuda_memory, mel_cuda  # noqa: E402

ALTERATIONS = {  # wrong kernels on purpose: what is replaced in the program text
    "shifted_frame": ("read(samples, ", "read(samples, 1 + "),
    "mirrored_bin": ("store(low, ", "store(low, 1 + "),
    "half_precision": ("total += load(powers, 0)", "total = half(total) + load(powers, 0)"),
    "truncated_transform": ("re1 * s + im1 * c", "re1 * s"),
}


def simulate(waveform, spec, log, alteration=None, edit=None, window=None, filterbank=None):
    """(batch, time) -> (batch, n_mels, n_frames) float32."""
    waveform, spec = _with_samples(waveform, spec)
    filters = (spec.filterbank() if filterbank is None else filterbank).astype(np.float32)
    window = (spec.window_array() if window is None else window).astype(np.float32)
    plan = mel_cuda.plan_for(spec, in_dtype=waveform.dtype.name, log=log, filterbank=filters)
    tables, bands = mel_cuda.tables_of(plan, spec, window, filters)
    out = np.full((len(waveform), spec.n_mels, spec.n_frames(waveform.shape[1])), np.nan, np.float32)
    n_blocks, scalars = mel_cuda.geometry(plan, spec, *waveform.shape, LOG_EPS if log else None)
    arrays = (np.ascontiguousarray(waveform).ravel(), out.reshape(-1), tables, bands.ravel())
    pointers = [cuda_memory.SimulatedPointer(array) for array in arrays]
    *counts, eps, half_power = scalars
    names = cuda_memory.simulator_names() | {"half": lambda x: np.float32(np.float16(x))}
    kernel = names["cuda"].jit(cuda_compile.function(plan, names, edit))
    kernel[n_blocks, plan.threads, 0, plan.shared_bytes](*pointers, *counts, np.float32(eps), np.float32(half_power))
    return out


def _with_samples(waveform, spec):
    import dataclasses

    if waveform.shape[1] or not spec.pad:
        return waveform, spec
    return np.zeros((len(waveform), 2 * spec.pad), waveform.dtype), dataclasses.replace(spec, pad=0)


def main(request, answer):
    given = np.load(request)
    cases = json.loads(str(given["cases"]))
    made = {}
    for name, case in cases.items():
        spec = MelSpec.from_dict(case["spec"])
        arrays = {key: given[f"{name}.{key}"] for key in ("window", "filterbank") if f"{name}.{key}" in given}
        edit = ALTERATIONS[case["alteration"]] if case.get("alteration") else None
        made[name] = simulate(given[name], spec, case["log"], edit=edit, **arrays)
    np.savez(answer, **made)


if __name__ == "__main__":
    main(*sys.argv[1:])
