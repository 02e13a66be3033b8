"""What the compiled CUDA kernel takes and does, without a GPU: registers, spills, shared memory, instruction mix.

The kernel is compiled by numba-CUDA and assembled by NVIDIA's ptxas; nvdisasm lists its instructions. Both programs
come with triton (which torch brings on Linux), or are found on PATH. These are counts of the program text, each
instruction once whatever it is repeated, and say what limits a kernel, not how long it takes.
"""

import copy
import functools
import importlib.util
import re
import subprocess
import time
from pathlib import Path
from typing import Any

from triadbench.kernels.gpu import compile as gpu_compile
from triadbench.kernels.gpu import mel_cuda
from triadbench.kernels.scratch import scratch_folder
from triadbench.kernels.spec import MelSpec

# Of one multiprocessor, from the compute capabilities' table of the CUDA C++ programming guide.
LIMITS = {
    "sm_80": {"registers": 65536, "shared_bytes": 164 * 1024, "threads": 2048, "blocks": 32},
    "sm_90": {"registers": 65536, "shared_bytes": 228 * 1024, "threads": 2048, "blocks": 32},
    "sm_100": {"registers": 65536, "shared_bytes": 228 * 1024, "threads": 2048, "blocks": 32},
    "sm_120": {"registers": 65536, "shared_bytes": 100 * 1024, "threads": 1536, "blocks": 32},
}
_REGISTER_UNIT = 256  # registers are handed to warps in such portions
_SHARED_RESERVED = 1024  # bytes of shared memory that the system takes for each block

_CLASS_OF = {
    "FFMA": "FFMA",
    "FMUL": "FMUL",
    "FADD": "FADD",
    "integer": "IADD IADD3 IMAD IMUL ISETP LEA LOP LOP3 SHF SHL SHR SEL IMNMX VIADD VIADDMNMX IABS FLO POPC PRMT BFE "
    "BMSK SGXT USHF UIADD3 UIMAD ULEA ULOP3 USEL UISETP UMOV I2F F2I I2FP",
    "shared load/store": "LDS STS LDSM",
    "global load/store": "LDG STG LD ST",
    "special function": "MUFU",
    "branch/barrier": "BRA BSSY BSYNC BAR EXIT WARPSYNC BREAK RET CALL JMP BRX",
    "other": "",
}
CLASSES = tuple(_CLASS_OF)
_REPORTED = {  # by ptxas
    "registers": r"Used (\d+) registers",
    "spill_store_bytes": r"(\d+) bytes spill stores",
    "spill_load_bytes": r"(\d+) bytes spill loads",
    "shared_bytes": r"(\d+) bytes smem",
    "stack_bytes": r"(\d+) bytes stack frame",
}
_OPERATION = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*)", re.MULTILINE)
_ENOUGH_S = 120  # a compiler that takes longer hangs


def why_unavailable() -> str | None:
    """None, or what is missing for `analyse`."""
    if importlib.util.find_spec("numba_cuda") is None:
        return "numba-cuda is not installed; pip install 'numba-cuda[cu13]'"
    for program in ("ptxas", "nvdisasm"):
        if gpu_compile.tool(program) is None:
            return f"{program} is not found; pip install triton, or put the CUDA toolkit's bin folder on PATH"
    return None


def ptx(spec: MelSpec, in_dtype: str = "float32", log: bool = True) -> str:
    """The kernel as PTX text, the same for every GPU generation."""
    return gpu_compile.ptx(mel_cuda.plan_for(spec, in_dtype=in_dtype, log=log))


def analyse(spec: MelSpec, *, in_dtype: str = "float32", log: bool = True, arch: str = "sm_90") -> dict[str, Any]:
    """Counts of the kernel for one spec and GPU generation (of LIMITS); kept in the process.

    Returns:
        arch, registers (a thread), spill_store_bytes, spill_load_bytes, stack_bytes (a thread),
        shared_bytes (a block, static and dynamic), threads_per_block, frames_per_block,
        instructions (all machine instructions), mix (CLASSES -> count),
        limits (of a multiprocessor), blocks_per_sm_by (registers, shared, threads, blocks -> blocks that it allows),
        blocks_per_sm (the least of them), limited_by, occupancy (resident threads / the most there can be),
        radices (the real one first), seconds (to compile and assemble; little where the PTX was on disk).

    Raises:
        RuntimeError: `why_unavailable` has a reason. ValueError: an unknown arch, or an n_fft without kernel.
    """
    if reason := why_unavailable():
        raise RuntimeError(f"the CUDA kernel cannot be analysed: {reason}")
    return copy.deepcopy(_analysis(spec, in_dtype, log, arch))


@functools.lru_cache(maxsize=64)
def _analysis(spec: MelSpec, in_dtype: str, log: bool, arch: str) -> dict[str, Any]:
    limits, began = _limits(arch), time.perf_counter()
    plan = mel_cuda.plan_for(spec, in_dtype=in_dtype, log=log)
    report, listing = assemble(gpu_compile.ptx(plan), arch)
    seconds = time.perf_counter() - began

    counts = {}
    for name, pattern in _REPORTED.items():
        match = re.search(pattern, report)
        counts[name] = int(match[1]) if match else 0
    counts["shared_bytes"] += plan.shared_bytes
    mix = _mix(listing)
    blocks_by = occupancy(counts["registers"], counts["shared_bytes"], plan.threads, arch)
    limited_by = min(blocks_by, key=lambda limit: blocks_by[limit])
    blocks = {"blocks_per_sm": blocks_by[limited_by], "blocks_per_sm_by": blocks_by, "limited_by": limited_by}
    radices = [plan.real_radix, *plan.radices]
    shape = {"threads_per_block": plan.threads, "frames_per_block": plan.frames, "radices": radices}
    occupied = blocks_by[limited_by] * plan.threads / limits["threads"]
    code = {"arch": arch, "instructions": sum(mix.values()), "mix": mix, "limits": limits, "occupancy": occupied}
    return {**code, **counts, **shape, **blocks, "seconds": seconds}


def occupancy(registers: int, shared_bytes: int, threads: int, arch: str) -> dict[str, int]:
    """Blocks that fit one multiprocessor by each of its limits."""
    limits = _limits(arch)
    warps = -(-threads // 32)
    a_warp = -(-registers * 32 // _REGISTER_UNIT) * _REGISTER_UNIT
    return {
        "registers": limits["registers"] // max(1, a_warp) // warps,
        "shared": limits["shared_bytes"] // (shared_bytes + _SHARED_RESERVED),
        "threads": limits["threads"] // (warps * 32),
        "blocks": limits["blocks"],
    }


def _limits(arch: str) -> dict[str, int]:
    if arch not in LIMITS:
        raise ValueError(f"arch={arch!r} must be one of {', '.join(map(repr, LIMITS))}")
    return LIMITS[arch]


def _mix(listing: str) -> dict[str, int]:
    mix = dict.fromkeys(CLASSES, 0)
    class_of = {name: kind for kind, names in _CLASS_OF.items() for name in names.split()}
    for operation in _OPERATION.findall(listing):
        mix[operation if operation in mix else class_of.get(operation, "other")] += 1
    return mix


def assemble(text: str, arch: str) -> tuple[str, str]:
    """What ptxas reports, and the listing of the machine code, with a comment where another line of the PTX begins."""
    with scratch_folder() as folder:
        ptx_file, cubin = folder / "mel.ptx", folder / "mel.cubin"
        ptx_file.write_text(text)
        report = _run("ptxas", "-v", "-lineinfo", f"-arch={arch}", ptx_file, "-o", cubin).stderr
        return report, _run("nvdisasm", "-c", "-gp", cubin).stdout


def _run(program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [gpu_compile.tool(program) or program, *arguments]
    process = subprocess.run(command, capture_output=True, text=True, timeout=_ENOUGH_S)
    if process.returncode:
        raise RuntimeError(f"{program} failed ({process.returncode}): {process.stderr.strip()[-2000:]}")
    return process
