"""The tests that need a GPU, each with its result, also of a run that was ended or crashed."""

import importlib.util
import os
import re
import sys

from triadbench.bench.gpu import tools
from triadbench.bench.gpu.context import Context
from triadbench.core.errors import UserError
from triadbench.core.files import PACKAGE

FOLDERS = ("kernels", "core", "export", "bench")
_OPTIONS = "-m gpu -W default -v -rfE --color=no --tb=short -p no:cacheprovider --continue-on-collection-errors".split()
_KINDS = {
    "PASSED": "passed",
    "XFAIL": "passed",
    "SKIPPED": "skipped",
    "FAILED": "failed",
    "XPASS": "failed",
    "ERROR": "errors",
}


def run(context: Context) -> str:
    """A record "gpu tests". Raises UserError naming the tests that failed, or that did not end."""
    marked = [
        str(path)
        for folder in FOLDERS
        for path in sorted((PACKAGE / "tests" / folder).rglob("test_*.py"))
        if "@pytest.mark.gpu" in path.read_text(encoding="utf-8")
    ]
    lacking = importlib.util.find_spec("pytest") is None
    if lacking or not marked:
        reason = "pytest is not installed" if lacking else "the tests are in a checkout, and this is an installed copy"
        context.add("gpu tests", {}, reason=reason)
        return f"not run: {reason}"
    path = context.scratch / "path"  # children of the tests import us from here
    path.mkdir()
    (path / "triadbench").symlink_to(PACKAGE, target_is_directory=True)
    # Plugins that happen to be installed may warn or change the run; a line of the summary ends where a terminal does.
    paths = os.pathsep.join(filter(None, (str(path), os.environ.get("PYTHONPATH"))))
    environment = {"PYTHONPATH": paths, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "COLUMNS": "300"}
    command = [sys.executable, "-m", "pytest", *_OPTIONS, "--basetemp", str(context.scratch / "pytest"), *marked]
    code, text = tools.run_tool(command, context.left_s() - 1, environment, PACKAGE)
    result = parse(text)
    ended = "" if code in (0, 1) else f"ended at the time limit{_during(result)}"
    if code is not None and ended:
        ended = f"exit code {code}{_during(result)}: {tools.last_line(text)}"
    if ended:
        result["reason"] = ended
    context.add("gpu tests", {}, exit_code=code, **result)
    total = sum(result[kind] for kind in ("passed", "failed", "skipped", "errors"))
    names = ", ".join(failure["name"].rpartition("::")[2] for failure in result["failures"][:5])
    bad = result["failed"] + result["errors"]
    lines = [f"{bad} of {total} failed: {names}"] * bool(bad) + [ended] * bool(ended)
    if lines:
        raise UserError("; ".join(lines))
    lacks = sorted({file["lacks"] for file in result["not_imported"]})
    more = f"; files not run without {', '.join(lacks)}: {len(result['not_imported'])}" if lacks else ""
    return f"{result['passed']} of {total} passed, {result['skipped']} skipped{more}"


def parse(text: str) -> dict:
    """What `pytest -v -rfE` printed, perhaps only in part: `passed`, `failed`, `skipped`, `errors` (counts), `failures`
    [{"name", "reason"}], `not_imported` [{"name", "lacks"}] (files that need a package which is not installed), and
    `running`: the test that had begun and not ended, or None."""
    result: dict = {"passed": 0, "failed": 0, "skipped": 0, "errors": 0, "failures": [], "running": None}
    result["not_imported"] = []
    progress = re.split(r"^=+ (?!test session starts)", text, maxsplit=1, flags=re.MULTILINE)[0]
    line = rf"^(tests/\S+?::.+?)(?: ({'|'.join(_KINDS)})\b.*| Fatal Python error.*)?\s*$"
    verdicts = re.findall(line, progress, re.MULTILINE)
    if verdicts and not verdicts[-1][1]:
        result["running"] = verdicts[-1][0]
    not_imported = re.findall(r"^ERROR (tests/[^:\n]+?)(?: - |$)", text, re.MULTILINE)
    for name in not_imported:
        report = re.search(
            rf"^_+ ERROR collecting {re.escape(name)} _+$(.*?)^[_=]{{3}}", text, re.MULTILINE | re.DOTALL
        )
        lack = re.search(r"ModuleNotFoundError: No module named '(\w+)", report[1]) if report else None
        if lack and lack[1] != "triadbench" and importlib.util.find_spec(lack[1]) is None:
            result["not_imported"].append({"name": name, "lacks": lack[1]})
        else:
            verdicts.append((name, "ERROR"))
    for name, verdict in verdicts:
        if verdict:
            result[_KINDS[verdict]] += 1
        if verdict in ("FAILED", "XPASS", "ERROR"):
            reason = re.search(rf"^(?:FAILED|ERROR) {re.escape(name)} - (.*)$", text, re.MULTILINE)
            result["failures"].append({"name": name, "reason": reason[1][:300] if reason else ""})
    return result


def _during(result: dict) -> str:
    return f" during {result['running']}" if result["running"] else ""
