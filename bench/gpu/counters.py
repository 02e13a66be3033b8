"""What keeps the mel kernel busy: Nsight Compute's hardware counters of one launch a spec, at batch 512.

All of Nsight Compute's own set is read, whose names fit the GPU and the version; of its metrics those are recorded that
match `WANTED`. Named apart are two that some versions leave out of the set: where they are refused, the set alone is
read.
"""

import csv
import fnmatch

from triadbench.bench.gpu import launches, tools
from triadbench.bench.gpu.context import Context
from triadbench.core.constants import CLIP_SAMPLES
from triadbench.core.errors import UserError
from triadbench.kernels import SPECS
from triadbench.kernels.gpu.compile import ENTRY

BATCH = 512
NAMED = "l1tex__data_pipe_lsu_wavefronts_mem_shared.sum,l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum"
WANTED = {
    "time": ("gpu__time_duration*", "sm__cycles_elapsed*", "sm__throughput*", "*__throughput.avg.pct*"),
    "L1 wavefronts": ("l1tex__data_pipe_lsu_wavefronts*",),
    "bank conflicts": ("l1tex__data_bank_conflicts*",),
    "issue activity": ("sm*__inst_issued*", "sm*__inst_executed.*", "sm*__issue_active*", "sm*__inst_executed_pipe*"),
    "stall reasons": ("smsp__average_warp*_issue_stalled_*",),
    "DRAM bytes": ("dram__bytes*",),
    "occupancy": ("sm__warps_active*", "sm__maximum_warps*", "launch__*"),
}
_OPTIONS = ("--set", "full", "--csv", "--page", "raw", "--print-units", "base", "--clock-control", "none")


def run(context: Context) -> str:
    """A record "gpu counters" {spec, batch} each, or one with the reason. Raises UserError where ncu failed."""
    program = tools.find("ncu")
    if program is None or context.rehearse:
        reason = (
            "rehearsal: there is no kernel on a GPU to count" if program else "ncu (Nsight Compute) is not installed"
        )
        for spec in SPECS:
            context.add("gpu counters", {"spec": spec, "batch": BATCH}, reason=reason)
        return f"not run: {reason}"
    target = launches.command("cuda", BATCH, CLIP_SAMPLES)
    kernels: list[dict] = []
    for more in (("--metrics", NAMED), ()):
        command = [program, *_OPTIONS, *more, "--kernel-name", ENTRY, *target]
        code, text = tools.run_tool(command, context.left_s() - 1, {"LC_ALL": "C"})
        kernels = parse(text)
        if kernels or code is None:
            break
    for spec, metrics in zip(SPECS, kernels, strict=False):
        missing = [kind for kind, patterns in WANTED.items() if not any(fnmatch.filter(metrics, p) for p in patterns)]
        context.add("gpu counters", {"spec": spec, "batch": BATCH}, metrics=metrics, missing=missing)
    if len(kernels) < len(SPECS) or code != 0:
        errors = [line for line in text.splitlines() if "==ERROR==" in line]
        reason = "ended at the time limit" if code is None else (errors or [tools.last_line(text)])[0]
        for spec in list(SPECS)[len(kernels) :]:
            context.add("gpu counters", {"spec": spec, "batch": BATCH}, reason=reason)
        raise UserError(f"ncu read {len(kernels)} of {len(SPECS)} kernels: {reason}")
    return f"{len(kernels)} kernels, {len(kernels[0])} metrics each"


def parse(text: str) -> list[dict[str, dict]]:
    """{metric: {"value", "unit"}} of each kernel in ncu's CSV: one line a kernel, below one of names and one of units.

    Other lines (ncu's messages, the program's) begin without a quotation mark.
    """
    rows = list(csv.reader(line for line in text.splitlines() if line.startswith('"')))
    if len(rows) < 3 or "Kernel Name" not in rows[0]:
        return []
    kernels = []
    patterns = [pattern for kind in WANTED.values() for pattern in kind]
    for row in rows[2:]:
        metrics = {}
        for name, unit, value in zip(rows[0], rows[1], row, strict=False):
            try:
                if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
                    metrics[name] = {"value": float(value.replace(",", "")), "unit": unit}
            except ValueError:  # "n/a", or a name
                continue
        kernels.append(metrics)
    return kernels
