"""What the machine is, and how fast it copies and multiplies: the roofs that every other figure is held against.

Timed: a copy (bytes read plus bytes written) and products of square matrices (2 n^3 operations) in every precision.
The values are random, for zeros and ones take less power and run faster. A block of each product is first compared with
float64.
"""

import functools
import importlib.util
import re
from collections.abc import Callable
from typing import Any

import torch

from triadbench.bench import machine
from triadbench.bench.gpu import lacks, tools
from triadbench.bench.gpu.context import Context, gpu_state
from triadbench.core import timing
from triadbench.kernels.compare import assert_close
from triadbench.kernels.gpu import compile as gpu_compile

SMI = ("driver_version", "pstate", "clocks.max.sm", "clocks.max.mem", "power.limit", "memory.total")
PROGRAMS = ("nvcc", "ptxas", "nvdisasm", "g++", "ncu", "compute-sanitizer")
PACKAGES = ("numba-cuda", "cuda-bindings", "nvidia-nvvm", "nvidia-nvjitlink", "triton", "onnxruntime", "pytest")
LIMITS = {"float32": 1e-5, "tf32": 1e-3, "bfloat16": 5e-3}
"""Largest RMS error of a product; in a lower precision by mistake it is larger."""
_BLOCK = 64


def run(context: Context) -> str:
    """Records "gpu environment" and "gpu roof" {what, dtype}. Raises AssertionError for a wrong product."""
    context.add("gpu environment", {}, **_describe(context.device))
    rates = []
    for name, timed, work, error in _roofs(context):
        what, _, dtype = name.partition(" ")
        more = {"first_call": 1e3 * timed.first_call_s, "state": gpu_state(), "error": error, **work}
        context.add("gpu roof", {"what": what, "dtype": dtype}, timed.samples_ms, "ms", **more)
        (unit, amount), best_s = next(iter(work.items())), min(timed.samples_ms) / 1e3
        rates.append(f"{name} {amount / best_s / 1e12:.3g} {'TB/s' if unit == 'bytes_moved' else 'TFLOP/s'}")
    return f"{context.environment['gpu'] or context.environment['cpu']}: {', '.join(rates)}"


def _describe(device: str) -> dict:
    query = ("nvidia-smi", f"--query-gpu={','.join(SMI)}", "--format=csv,noheader,nounits", "--id=0")
    values = machine.line_of(*query)
    told = dict(zip(SMI, (value.strip() for value in values.split(",")), strict=False)) if values else None
    programs = {name: _version(name) for name in PROGRAMS}
    packages = {name: machine.version_of(name) for name in PACKAGES}
    card = {}
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        values_of = {name: getattr(properties, name) for name in dir(properties) if not name.startswith("_")}
        card = {name: value for name, value in values_of.items() if isinstance(value, int | float | str)}
    libraries = {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(), "nvjitlink": _nvjitlink()}
    found = {
        "programs": programs,
        "packages": packages,
        "libraries": libraries,
        "not_compiled": lacks.why_no_compiler(),
    }
    return {"nvidia_smi": told, "state": gpu_state(), "properties": card, **found}


def _version(name: str) -> str | None:
    """The line of a program's --version that tells it; None where it is not there or fails."""
    program = gpu_compile.tool(name) or tools.find(name)
    try:
        lines = machine.run_process([program, "--version"], timeout_s=10).splitlines() if program else []
    except machine.ProcessError:
        return None
    return next((line.strip() for line in lines if re.search(r"\d\.\d", line)), None)


def _nvjitlink() -> str | None:
    if importlib.util.find_spec("cuda") is None or importlib.util.find_spec("cuda.bindings") is None:
        return None
    try:
        from cuda.bindings import nvjitlink

        return ".".join(map(str, nvjitlink.version()))
    except Exception:  # no library to load; its kind of error differs between versions
        return None


def _roofs(context: Context) -> list[tuple[str, timing.Timing, dict[str, int], dict | None]]:
    """(name, its timing, its work, its error) of the copy and of every precision that the device has."""
    device = context.device
    n_values, n = (1 << 20, 256) if context.rehearse else (1 << 28, 8192) if device == "cuda" else (1 << 25, 1536)
    make = torch.Generator(device=device).manual_seed(0)
    random = functools.partial(torch.randn, generator=make, device=device)
    source = random(n_values)
    target = torch.full_like(source, float("nan"))
    contestants: dict[str, Callable[[], torch.Tensor]] = {"copy float32": lambda: target.copy_(source)}
    work = {"copy float32": {"bytes_moved": 8 * n_values}}
    errors: dict[str, dict | None] = {}
    pairs = {}
    for dtype in LIMITS if device == "cuda" else ("float32",):
        name, kind = f"matmul {dtype}", torch.bfloat16 if dtype == "bfloat16" else torch.float32
        pairs[name] = (random(n, n).to(kind), random(n, n).to(kind))
        contestants[name] = functools.partial(_multiply, *pairs[name], "high" if dtype == "tf32" else "highest")
        work[name] = {"flops": 2 * n**3}

    def check(name: str, result: torch.Tensor) -> None:
        if name not in pairs:
            assert torch.equal(result, source), "the copy differs from its source"
            errors[name] = None
            return
        left, right = (matrix.double() for matrix in (pairs[name][0][-_BLOCK:], pairs[name][1][:, -_BLOCK:]))
        expected, actual = (left @ right).cpu().numpy(), result[-_BLOCK:, -_BLOCK:].double().cpu().numpy()
        comparison = assert_close(actual, expected, context=name, rtol_rms=LIMITS[name.partition(" ")[2]])
        errors[name] = {"reference": "float64", "rms_relative": comparison.rms_relative}

    limits: dict[str, Any] = {
        "max_time_s": max(1.0, 0.4 * context.left_s()),
        "min_time_s": 0.0 if context.rehearse else 0.2,
    }
    timed = timing.measure(contestants, check=check, rounds=3 if context.rehearse else 20, device=device, **limits)
    return [(name, timed[name], work[name], errors[name]) for name in contestants]


def _multiply(a: torch.Tensor, b: torch.Tensor, precision: str) -> torch.Tensor:
    torch.set_float32_matmul_precision(precision)
    return a @ b
