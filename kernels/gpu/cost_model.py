"""What the compiled mel kernel asks of a GPU, and from that the least time of a clip; no GPU is needed.

The kernel's PTX is executed (kernels/gpu/ptx_mel.py) for a block in the middle of a clip, times the blocks of a clip:
    issue slots   one for a warp and machine instruction. The assembler says which PTX instruction each comes from; a
                  run of PTX between labels is executed as often as its warps came by, divided by the copies that the
                  assembler made of it when it unrolled a loop (machine accesses to memory over those of the PTX)
    L1 + shared   128 bytes for each pass through the banks, and for each 128-byte line of global memory
    HBM           each sample once and each mel value once; tables stay in a cache
The slowest of the three bounds the time from below: latencies, launches and the edges of clips are not in it. A time
to expect is that bound and what the warps wait, which those that a multiprocessor holds at once do together.
"""

import bisect
import dataclasses
import math
import re
from typing import Any

import numpy as np

from triadbench.kernels.gpu import mel_cuda, ptx_mel, static_analysis
from triadbench.kernels.gpu.ptx_machine import LINE, Program, Trace
from triadbench.kernels.operation_count import fused_bytes
from triadbench.kernels.spec import MelSpec

_LINE_OR_OPERATION = re.compile(
    r'//## File "\.nv_debug_ptx_txt", line (\d+)|^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9]*)',
    re.MULTILINE,
)
_MEMORY = {"LDG", "STG", "LDS", "STS"}


@dataclasses.dataclass(frozen=True)
class Gpu:
    """What the model knows of a GPU. hbm_gb_per_s: of its memory; an SM issues 4 instructions a clock."""

    name: str
    sms: int
    clock_ghz: float
    hbm_gb_per_s: float


H100 = Gpu("H100 SXM", 132, 1.755, 3000.0)
H100_BOOSTED = dataclasses.replace(H100, clock_ghz=1.95)  # as one ran these kernels
WAITING = 3.4
"""Clocks that a warp waits for each of its instructions, for results, memory and barriers: the mean of what the three
specs' former kernels took on an H100 beyond their bound (3.3, 3.4, 3.5), and checked on those that followed."""


def count(spec: MelSpec, *, log: bool = False, n_samples: int = 64000, arch: str = "sm_90") -> dict[str, Any]:
    """Work of one float32 clip of `n_samples` samples.

    Returns:
        phases: of each, in order, its `phase` (see kernels/gpu/source.py), `issue_slots`, `l1_bytes`, `shared_bytes`
        and `conflicts` (passes through the banks over the least, None without an access to shared memory);
        hbm_bytes; worst_conflicts (of a single instruction).

    Raises:
        RuntimeError, ValueError: see `static_analysis.analyse`.
    """
    if reason := static_analysis.why_unavailable():
        raise RuntimeError(f"the CUDA kernel cannot be analysed: {reason}")
    plan = mel_cuda.plan_for(spec, log=log)
    n_blocks = spec.n_frames(n_samples) / plan.frames
    samples = np.random.default_rng(0).standard_normal((1, n_samples)).astype(np.float32)
    _, trace = ptx_mel.run(samples, spec, log=log, trace=True, blocks=[int(n_blocks) // 2])
    slots = _issue_slots(trace, static_analysis.assemble(static_analysis.ptx(spec, log=log), arch)[1])
    instructions = trace.program.instructions
    phase_of = np.cumsum([i.opcode[0] == "bar" for i in instructions])
    names = ["real", *["middle"] * (len(plan.radices) - 1), "last", "powers", "filters", "output"]
    phases = []
    for number, name in enumerate(names):
        mine = [(instructions[i].opcode[1], a) for i, a in trace.accesses.items() if phase_of[i] == number]
        passes = {space: sum(a.passes for where, a in mine if where == space) for space in ("global", "shared")}
        ideal = sum(a.ideal for _, a in mine)
        work = {"phase": name, "issue_slots": n_blocks * float(slots[phase_of == number].sum())}
        work |= {"l1_bytes": n_blocks * LINE * passes["global"], "shared_bytes": n_blocks * LINE * passes["shared"]}
        phases.append({**work, "conflicts": passes["shared"] / ideal if ideal else None})
    worst = max(a.passes / a.ideal for a in trace.accesses.values() if a.ideal)
    return {"phases": phases, "hbm_bytes": fused_bytes(spec, 1, n_samples), "worst_conflicts": worst}


def predict(work: dict[str, Any], gpu: Gpu = H100, warps: float = math.inf) -> dict[str, Any]:
    """Nanoseconds a clip from `count`'s work, with so many warps on a multiprocessor at once.

    Returns:
        phases: of each `phase`, `issue`, `l1`, `shared`; issue, l1_shared, hbm: of the whole; bound: the name of the
        largest of these, and ns: its value; expected: ns and the waiting.
    """
    clocks_a_ns = gpu.sms * gpu.clock_ghz
    ns = {"issue": 1 / (4 * clocks_a_ns), "l1": 1 / (LINE * clocks_a_ns), "shared": 1 / (LINE * clocks_a_ns)}
    fields = {"issue": "issue_slots", "l1": "l1_bytes", "shared": "shared_bytes"}
    phases = [{name: phase[field] * ns[name] for name, field in fields.items()} for phase in work["phases"]]
    total = {name: sum(phase[name] for phase in phases) for name in fields}
    times = {"issue": total["issue"], "l1_shared": total["l1"] + total["shared"]}
    times["hbm"] = work["hbm_bytes"] / gpu.hbm_gb_per_s
    bound = max(times, key=lambda name: times[name])
    named = [{"phase": phase["phase"], **times} for phase, times in zip(work["phases"], phases, strict=True)]
    waiting = WAITING * sum(phase["issue_slots"] for phase in work["phases"]) / warps / clocks_a_ns
    return {"phases": named, **times, "bound": bound, "ns": times[bound], "expected": times[bound] + waiting}


def _issue_slots(trace: Trace, listing: str) -> np.ndarray:
    """Machine instructions that the warps of an execution issue, by PTX instruction: float64."""
    program = trace.program
    runs, lines = _runs(program), [i.line for i in program.instructions]
    machine, accesses = np.zeros(len(lines)), np.zeros(len(lines))
    at = 0
    for line, operation in _LINE_OR_OPERATION.findall(listing):
        if line:
            at = max(0, bisect.bisect_right(lines, int(line)) - 1)
        elif operation != "NOP":
            machine[at] += 1
            accesses[at] += operation in _MEMORY
    written = [i.opcode[0] in ("ld", "st") and i.opcode[1] != "param" for i in program.instructions]
    copies = np.maximum(1.0, np.bincount(runs, accesses) / np.maximum(1, np.bincount(runs, written)))
    return machine * trace.warps[np.searchsorted(runs, runs)] / copies[runs]  # of a run's first


def _runs(program: Program) -> np.ndarray:
    """Of each instruction the number of its run: without a label inside, nor a branch or barrier but at its end."""
    ends = np.array([i.opcode[0] in ("bra", "bar", "ret") for i in program.instructions])
    begins = np.concatenate(([False], ends[:-1]))
    begins[[i for i in program.labels.values() if i < len(begins)]] = True
    return np.cumsum(begins)
