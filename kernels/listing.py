"""The generated kernels of a spec as text: what is compiled for the GPU and for the CPU. Needs neither a GPU nor numba.

kernels/gpu/original.listing.txt and kernels/cpu/original.listing.txt hold those of ORIGINAL:
`python -m triadbench.kernels.listing` writes them anew.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path

from triadbench.kernels.cpu import dft
from triadbench.kernels.cpu import plan as cpu_plan
from triadbench.kernels.cpu.mel_numba import plan_for as cpu_plan_for
from triadbench.kernels.gpu.mel_cuda import plan_for as gpu_plan_for
from triadbench.kernels.gpu.source import program
from triadbench.kernels.spec import ORIGINAL, MelSpec

FILES = {
    "cpu": Path(__file__).parent / "cpu" / "original.listing.txt",
    "cuda": Path(__file__).parent / "gpu" / "original.listing.txt",
}
_WIDTH = 118
_OPERATIONS = {  # name and fields of a step, by its number in the plan; _ for a field that is not used
    cpu_plan.FIRST: "first radix count table sources source_step zero blocks apart middle middle_step row_size",
    cpu_plan.PASS: "pass radix sub_blocks base table count",
    cpu_plan.LAST: "last radix count base targets",
    cpu_plan.TWIDDLE: "twiddle _ count base table",
    cpu_plan.POWERS: "powers _ count base targets",
    cpu_plan.SQUARES: "squares _ count base targets",
    cpu_plan.DIRECT_FIRST: "direct_first radix count table sources source_step zero blocks apart _ _ row_size",
    cpu_plan.DIRECT_PASS: "direct_pass radix sub_blocks base table count",
}


def kernel_listing(spec: MelSpec, target: str = "cpu", *, log: bool = True, lanes: int = 8) -> str:
    """The kernel that float32 clips of this spec take, with its own window and filterbank.

    Args:
        target: "cuda" for the GPU's program, "cpu" for the CPU's plan and butterflies.
        log: log mel (in the GPU's program; the CPU's takes it as an argument).
        lanes: frames that travel together on the CPU, one a lane of a vector.

    Raises:
        ValueError: another target, or an n_fft that the target has no kernel for.
    """
    if target not in FILES:
        raise ValueError(f"target={target!r} must be one of {', '.join(map(repr, FILES))}")
    return _cuda(spec, log) if target == "cuda" else _cpu(spec, lanes)


def _cuda(spec: MelSpec, log: bool) -> str:
    plan = gpu_plan_for(spec, log=log)
    text, constants = program(plan)
    block = f"{plan.frames} frames, {plan.threads} threads, {plan.shared_bytes} bytes of shared memory"
    head = [
        f"# The mel kernel for CUDA of {spec}",
        f"# Transform: real radix {plan.real_radix}, then {plan.radices}. A block: {block}.",
        "# What it calls stands in kernels/gpu/memory.py. Statements of one block share a line here.",
    ]
    named = [f"{name} = float32({float(value)!r})" for name, value in constants.items()]
    return "\n".join([*head, *_joined(named), "", *_joined(text.strip("\n").splitlines())]) + "\n"


def _joined(lines: Iterable[str]) -> list[str]:
    """Neighbouring statements of one depth, as many to a line as fit."""
    joined: list[str] = []
    last_depth = -1  # that of the last line, if it takes another statement
    for line in lines:
        text = line.lstrip()
        depth = -1 if text.endswith(":") else len(line) - len(text)
        if depth >= 0 and depth == last_depth and len(joined[-1]) + len(text) + 2 <= _WIDTH:
            joined[-1] += f"; {text}"
        else:
            joined.append(line)
        last_depth = depth
    return joined


def _cpu(spec: MelSpec, lanes: int) -> str:
    plan = cpu_plan_for(spec, lanes)
    lines = [
        f"The mel kernel for the CPU of {spec}",
        f"Every value is a vector of {lanes} frames of float32. Scratch memory: {plan.work_size} elements; "
        f"{plan.rows} rows of samples {plan.row_stride} apart, {plan.columns} columns.",
        "Tables and offsets: kernels/cpu/plan.py. The loop around the steps: kernels/cpu/kernel.py.",
        "",
        "for each group of frames: transpose the samples to rows; then",
    ]
    sizes: dict[str, set[int]] = {"real": set(), "complex": set()}
    for operation, *values in plan.program.tolist():
        name, *fields = _OPERATIONS[operation].split()
        shown = [f"{field}={value}" for field, value in zip(fields, values, strict=False) if field != "_"]
        lines.append(f"    {name}({', '.join(shown)})")
        if name in ("first", "pass", "last"):
            sizes["real" if name == "first" else "complex"].add(values[0])
    lines.append("then the power, and for each filter the sum of its bins times its weights, its log, one store")
    for kind, radices in sizes.items():
        for radix in sorted(radices):
            lines += ["", f"{kind} butterfly of {radix}:", *_joined(f"    {line}" for line in _butterfly(kind, radix))]
    return "\n".join(lines) + "\n"


def _butterfly(kind: str, size: int) -> list[str]:
    """The statements of a transform from x (and y, for complex input) to re and im."""
    lines: list[str] = []
    x, y = ([_Symbol(f"{name}{n}", lines) for n in range(size)] for name in "xy")
    outputs = dft.real_dft(x) if kind == "real" else dft.complex_dft(list(zip(x, y, strict=True)))
    for k, (re, im) in enumerate(outputs):
        lines += [f"{part}{k} = {value.name}" for part, value in (("re", re), ("im", im)) if value is not None]
    return lines


class _Symbol:
    """The name of a vector; arithmetic on it adds a statement to `lines`."""

    def __init__(self, name: str, lines: list[str]) -> None:
        self.name, self.lines = name, lines

    def _result(self, form: str, *operands: _Symbol | float) -> _Symbol:
        names = (x.name if isinstance(x, _Symbol) else f"{x:.9g}" for x in (self, *operands))
        result = _Symbol(f"t{len(self.lines)}", self.lines)
        self.lines.append(f"{result.name} = {form.format(*names)}")
        return result

    __add__ = functools.partialmethod(_result, "{} + {}")
    __sub__ = functools.partialmethod(_result, "{} - {}")
    __mul__ = functools.partialmethod(_result, "{} * {}")
    __neg__ = functools.partialmethod(_result, "-{}")
    fma = functools.partialmethod(_result, "fma({}, {}, {})")  # self * factor + addend


if __name__ == "__main__":
    for target, file in FILES.items():
        file.write_text(kernel_listing(ORIGINAL, target), encoding="utf-8")
