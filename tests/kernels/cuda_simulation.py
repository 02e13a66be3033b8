"""Runs the CUDA kernel in numba's simulator: `python cuda_simulation.py REQUEST.npz ANSWER.npz`, in its own process
because NUMBA_ENABLE_CUDASIM=1 must be set before numba is imported. The GPU is the only part that is replaced: plan,
tables, program text and geometry are those of the backend.

The names that the program text calls (kernels/gpu/memory.py) have twins in plain Python here: every access is checked
against the ends of its array, and a group of floats must be aligned. Shared memory begins as NaN in every block, the
output too, and half of the output's memory lies behind it untouched.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ["NUMBA_ENABLE_CUDASIM"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from triadbench.kernels import LOG_EPS, MelSpec
from triadbench.kernels.gpu import compile as cuda_compile
from triadbench.kernels.gpu import mel_cuda
from triadbench.kernels.gpu.source import program
from triadbench.kernels.spec import PAD_MODES


class SimulatedPointer:
    """An element of a flat numpy array; every access is checked."""

    def __init__(self, array: np.ndarray, start: int = 0) -> None:
        self.array, self.start = array, start

    def span(self, index: int, count: int = 1) -> int:
        first = self.start + index
        if not 0 <= first <= len(self.array) - count:
            raise IndexError(f"element {first} of an array of {len(self.array)} is out of bounds")
        if first % count:
            raise IndexError(f"element {first} does not begin a group of {count}")
        return first


def simulator_names() -> dict[str, Any]:
    """The names in plain Python."""
    from numba import cuda

    def advance(pointer, count):
        return SimulatedPointer(pointer.array, pointer.start + count)

    def load(pointer, index):
        return pointer.array[pointer.span(index)]

    def load_group(count):
        def load_some(pointer, index):
            first = pointer.span(index, count)
            return tuple(pointer.array[first : first + count])

        return load_some

    def store_group(pointer, index, values):
        first = pointer.span(index, len(values))
        pointer.array[first : first + len(values)] = values

    def read(pointer, index):
        value = load(pointer, index)
        return int(value) if pointer.array.dtype == np.int32 else np.float32(value)

    def store(pointer, index, value):
        pointer.array[pointer.span(index)] = value

    def pointer_to(array):
        return SimulatedPointer(np.asarray(getattr(array, "_item", array)))

    def sample(edge):
        def read_sample(wave, at, length, pad, time):
            if edge == "reflect":
                at = -at if at < 0 else 2 * length - 2 - at if at >= length else at
            elif edge == "replicate":
                at = min(max(at, 0), length - 1)
            elif edge == "circular":
                at = at + length if at < 0 else at - length if at >= length else at
            place = at - pad
            return read(wave, place) if 0 <= place < time else np.float32(0.0)

        return read_sample

    names = {f"sample_{edge}": sample(edge) for edge in PAD_MODES}
    names |= {"cuda": cuda, "u": int, "i32": int, "i64": int, "f32": np.dtype(np.float32)}
    names |= {f"load{count}": load_group(count) for count in (2, 4)} | {"read4": load_group(4)}
    names |= {"store2": store_group, "store4": store_group, "opaque": int}
    functions = (advance, read, load, store, pointer_to)
    return names | {f.__name__: f for f in functions} | {"log": np.log, "sqrt": np.sqrt, "power_of": np.power}


_SHARED = "    shared = pointer_to(cuda.shared.array(0, f32))\n"
_SPOILED = (_SHARED, f"{_SHARED}    if cuda.threadIdx.x == 0:\n        spoil(shared)\n    cuda.syncthreads()\n")
# Wrong kernels on purpose: what is replaced in the program text
ALTERATIONS = {
    "truncated_transform": ("(p1_0_1, ", "(zero, "),
    "shifted_frame": ("read(samples, ", "read(samples, 1 + "),
    "mirrored_bin": ("store4(high, ", "store4(low, "),
    "untwiddled": ("re0_0_1 * s0_1 + im0_0_1 * c0_1", "im0_0_1 * c0_1"),
    "half_precision_sums": ("rise0 += p2_0 * up0", "rise0 = half(rise0) + p2_0 * up0"),
    "half_precision_powers": ("p1_0_2 = re1_0_2 * re1_0_2", "p1_0_2 = half(re1_0_2) * re1_0_2"),
    "packed_bins_not_taken_apart": (
        "re1_0_s1 * re1_0_s1 + im1_0_s1 * im1_0_s1",
        "re1_0_0 * re1_0_0 + im1_0_0 * im1_0_0",
    ),
    "packed_residues_alone": (" * quarter)", " * zero)"),
    "lost_frames": ("if t < n_frames:", "if t + 1 < n_frames:"),
    "no_barriers": ("cuda.syncthreads()", "pass"),
    "lost_falls": ("total = load(sums, 0) + load(sums, ", "total = load(sums, 0) + zero * load(sums, "),
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
    pointers = [SimulatedPointer(array) for array in arrays]
    names = simulator_names() | {"half": lambda x: np.float32(np.float16(x)), "spoil": _spoil}
    text, constants = program(plan)
    for old, new in (*edits, _SPOILED):
        assert old in text, f"{old!r} does not occur in the program text"
        text = text.replace(old, new)
    kernel = names["cuda"].jit(cuda_compile.function(text, names | constants))
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
