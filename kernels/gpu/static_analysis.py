"""What the compiled CUDA kernel takes and does, told without a GPU: registers, spills, shared memory, instruction mix.

The kernel is compiled by numba-CUDA and assembled by NVIDIA's ptxas; nvdisasm lists its instructions. Both programs
come with triton (which torch brings on Linux), or are found on PATH. These are counts of the program text, each
instruction once whatever it is repeated, and say what limits a kernel, not how long it takes.
"""

from __future__ import annotations

import functools
import importlib.util
import re
import subprocess
import tempfile
import time
from pathlib import Path

from triadbench.kernels.gpu import compile as cuda_compile
from triadbench.kernels.gpu import mel_cuda
from triadbench.kernels.gpu.plan import Plan
from triadbench.kernels.spec import MelSpec

# Of one multiprocessor, from the compute capabilities' table of the CUDA C++ programming guide.
LIMITS = {
    "sm_80": {"registers": 65536, "shared_bytes": 164 * 1024, "threads": 2048, "blocks": 32},
    "sm_90": {"registers": 65536, "shared_bytes": 228 * 1024, "threads": 2048, "blocks": 32},
    "sm_120": {"registers": 65536, "shared_bytes": 100 * 1024, "threads": 1536, "blocks": 32},
}
_REGISTER_UNIT = 256  # registers are handed to warps in such portions
_SHARED_RESERVED = 1024  # bytes of shared memory that the system takes for each block

CLASSES = (
    "FFMA",
    "FMUL",
    "FADD",
    "integer",
    "shared load/store",
    "global load/store",
    "special function",
    "branch/barrier",
    "other",
)
_CLASS_OF = {
    "integer": "IADD IADD3 IMAD IMUL ISETP LEA LOP LOP3 SHF SHL SHR SEL IMNMX VIADD VIADDMNMX IABS FLO POPC PRMT BFE "
    "BMSK SGXT USHF UIADD3 UIMAD ULEA ULOP3 USEL UISETP UMOV I2F F2I I2FP",
    "shared load/store": "LDS STS LDSM",
    "global load/store": "LDG STG LD ST",
    "special function": "MUFU",
    "branch/barrier": "BRA BSSY BSYNC BAR EXIT WARPSYNC BREAK RET CALL JMP BRX",
}
_OPERATION = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*)", re.MULTILINE)
_ENOUGH_S = 120  # a compiler that takes longer hangs


def why_unavailable() -> str | None:
    """None, or what is missing for `analyse`."""
    if importlib.util.find_spec("numba_cuda") is None:
        return "numba-cuda is not installed; pip install 'numba-cuda[cu13]'"
    for program in ("ptxas", "nvdisasm"):
        if _program(program) is None:
            return f"{program} is not found; pip install triton, or put the CUDA toolkit's bin folder on PATH"
    return None


def plan(spec: MelSpec, in_dtype: str = "float32", log: bool = True) -> Plan:
    """The kernel's plan for this spec with its own filterbank."""
    return mel_cuda.plan_for(spec, in_dtype=in_dtype, log=log)


def ptx(spec: MelSpec, in_dtype: str = "float32", log: bool = True, arch: str = "sm_90") -> str:
    """The kernel as PTX text. It is the same for every arch: the assembler makes it particular."""
    _limits(arch)
    return cuda_compile.ptx(plan(spec, in_dtype, log))


@functools.lru_cache(maxsize=64)
def _analysed(spec: MelSpec, in_dtype: str, log: bool, arch: str) -> dict:
    began = time.perf_counter()
    made, text = plan(spec, in_dtype, log), ptx(spec, in_dtype, log, arch)
    report, listing = _assemble(text, arch)
    seconds = time.perf_counter() - began
    found = lambda pattern: int(match.group(1)) if (match := re.search(pattern, report)) else 0  # noqa: E731
    mix = _mix(listing)
    result = {
        "arch": arch,
        "registers": found(r"Used (\d+) registers"),
        "spill_store_bytes": found(r"(\d+) bytes spill stores"),
        "spill_load_bytes": found(r"(\d+) bytes spill loads"),
        "shared_bytes": found(r"(\d+) bytes smem") + made.shared_bytes,
        "stack_bytes": found(r"(\d+) bytes stack frame"),
        "threads_per_block": made.threads,
        "frames_per_block": made.frames,
        "instructions": sum(mix.values()),
        "mix": mix,
    }
    limits = _limits(arch)
    by = occupancy(result["registers"], result["shared_bytes"], made.threads, arch)
    blocks = min(by.values())
    result["limits"] = dict(limits)
    result["blocks_per_sm"] = blocks
    result["blocks_per_sm_by"] = by
    result["limited_by"] = min(by, key=by.get)
    result["occupancy"] = blocks * made.threads / limits["threads"]
    result["radices"] = [made.real_radix, *made.radices]
    result["seconds"] = seconds
    return result


def analyse(spec: MelSpec, *, in_dtype: str = "float32", log: bool = True, arch: str = "sm_90") -> dict:
    """Counts of the kernel for one spec and GPU generation ("sm_80", "sm_90" or "sm_120"); kept in the process.

    arch, registers (a thread), spill_store_bytes, spill_load_bytes, stack_bytes (a thread),
    shared_bytes (a block, static and dynamic), threads_per_block, frames_per_block,
    instructions (all machine instructions), mix (CLASSES -> count),
    limits (of a multiprocessor), blocks_per_sm_by (registers, shared, threads, blocks -> blocks that it allows),
    blocks_per_sm (the least of them), limited_by, occupancy (resident threads / the most there can be),
    radices (the real one first), seconds (to compile and assemble; little where the PTX was on disk)
    Raises RuntimeError where `why_unavailable` has a reason, ValueError for an unknown arch or an n_fft without kernel.
    """
    if reason := why_unavailable():
        raise RuntimeError(f"the CUDA kernel cannot be analysed: {reason}")
    _limits(arch)
    result = _analysed(spec, in_dtype, log, arch)
    return {name: dict(value) if isinstance(value, dict) else value for name, value in result.items()}


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


def _assemble(text: str, arch: str) -> tuple[str, str]:
    """What ptxas reports, and the listing of the machine code."""
    with tempfile.TemporaryDirectory() as folder:
        source, code = Path(folder, "mel.ptx"), Path(folder, "mel.cubin")
        source.write_text(text)
        report = _run("ptxas", "-v", f"-arch={arch}", str(source), "-o", str(code)).stderr
        return report, _run("nvdisasm", "-c", str(code)).stdout


def _run(program: str, *arguments: str) -> subprocess.CompletedProcess:
    done = subprocess.run([_program(program), *arguments], capture_output=True, text=True, timeout=_ENOUGH_S)
    if done.returncode:
        raise RuntimeError(f"{program} failed ({done.returncode}): {done.stderr.strip()[-2000:]}")
    return done


def _program(name: str) -> str | None:
    return cuda_compile.tool(name)
