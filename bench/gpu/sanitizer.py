"""Does the mel kernel access memory out of bounds, race, or misuse a barrier? One short clip a spec."""

import re
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from triadbench.bench.gpu import launches, tools
from triadbench.bench.gpu.context import Context
from triadbench.core.errors import UserError

CHECKS = ("memcheck", "racecheck", "synccheck")
SAMPLES = 8192
_LINES = 20  # of a report that are recorded
# API errors: libraries try calls that a driver may lack, and check them. Those of our launches raise in `launches`.
_OPTIONS = ("--report-api-errors", "no", "--error-exitcode", "86")


def run(context: Context) -> str:
    """A record "gpu sanitizer" {tool} each. Raises UserError for what a check finds, or where one could not run."""
    program = tools.find("compute-sanitizer")
    if context.rehearse:
        code, text = tools.run_tool(launches.command("cpu", 1, SAMPLES), context.left_s())
        if code != 0:
            raise UserError(f"the launches failed: {tools.last_line(text)}")
    if program is None or context.rehearse:
        reason = "rehearsal: there is no kernel on a GPU to check" if program else "compute-sanitizer is not installed"
        for check in CHECKS:
            context.add("gpu sanitizer", {"tool": check}, reason=reason)
        return f"not run: {reason}"
    limit_s = context.left_s() - 1
    failures = []
    with ThreadPoolExecutor(len(CHECKS)) as pool:
        waiting = {pool.submit(_check, program, check, limit_s): check for check in CHECKS}
        for future in as_completed(waiting):
            check, result = waiting[future], future.result()
            context.add("gpu sanitizer", {"tool": check}, samples=[result.pop("seconds")], **result)
            if result["errors"] or "reason" in result:
                failures.append(f"{check}: {result.get('reason') or str(result['errors']) + ' errors'}")
    if failures:
        raise UserError("; ".join(sorted(failures)))
    return f"{', '.join(CHECKS)}: no errors"


def _check(program: str, check: str, limit_s: float) -> dict:
    """`errors` (None where the tool gave no number), `lines` of the report, `seconds`, and a `reason` if it failed."""
    begun = time.perf_counter()
    command = [program, "--tool", check, *_OPTIONS, *launches.command("cuda", 1, SAMPLES)]
    # Every tensor gets memory of its own from the driver, so that a byte beyond it is out of bounds.
    code, text = tools.run_tool(command, limit_s, {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"})
    lines = [line for line in text.splitlines() if line.startswith("=========")]
    found = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: (\d+)", text)
    errors = sum(map(int, found)) if found else None
    result: dict[str, Any] = {"seconds": time.perf_counter() - begun, "errors": errors, "lines": lines[:_LINES]}
    if code is None:
        result["reason"] = f"not finished within {limit_s:.0f} s"
    elif errors is None or (code != 0 and errors == 0):
        said = [line for line in text.splitlines() if not line.startswith("=========")]
        refusals = [line.strip("= ") for line in lines if "Error:" in line]
        result["reason"] = f"exit code {code}: {(refusals or [tools.last_line(chr(10).join(said))])[0]}"
    return result
