"""Which lines of Python does a training step spend its time on, and how often does each run?

Timed: a piece of work given as a function, with line_profiler on the functions that are named, and the same work
without it, alternated: the ratio is what profiling adds. Not timed: threads other than the caller's, and on a GPU what
the device does, except where the host waits for it.
"""

import contextlib
import importlib
import inspect
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, NamedTuple

from triadbench.bench import records
from triadbench.core import timing
from triadbench.core.errors import UserError
from triadbench.core.files import PACKAGE

Calls = dict[tuple[str | None, int, str], list[float]]
"""{(caller, line, callee): [calls, seconds]} of one round."""


class Target(NamedTuple):
    """A piece of work and the functions whose lines are listed.

    Attributes:
        name: as "original training step".
        functions: "module:qualified.name" of each; the first is the outermost, and shares are of its time. The
            functions that it calls follow in the order in which a reader should meet them.
        work: does the work once, on `clips` clips; on a GPU it ends with a synchronisation.
        parameters: further parameters of the record (device, batch_size, ...).
        explanation: sentences for the reader: what the work is, and what the times mean.
    """

    name: str
    functions: tuple[str, ...]
    work: Callable[[], object]
    clips: int
    parameters: dict[str, Any]
    explanation: str = ""


def run(
    targets: Sequence[Target],
    environment: dict,
    *,
    rounds: int = 5,
    max_time_s: float = 60.0,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> list[dict]:
    """One record "lines" a target.

    Args:
        rounds: calls of each target's work with the profiler, and as many without; of each fewer, but at least one,
            when the target's `max_time_s` is over.
        progress: called with (targets done, targets).
    """
    results: list[dict] = []
    for target in targets:
        progress(len(results), len(targets))
        results.append(profile(target, environment, rounds, max_time_s))
    progress(len(results), len(targets))
    return results


def profile(target: Target, environment: dict, rounds: int, max_time_s: float = 60.0) -> dict:
    """The record "lines" of one target.

    Returns:
        A record of unit "s" whose samples hold one figure, the seconds of all profiled rounds in the outermost
        function. `lines`: {"function", "file", "line", "text", "hits", "seconds", "own_seconds", "share", "enters"} of
        every source line, whether it ran or not: `seconds` with all that the line calls, `own_seconds` without what
        is listed elsewhere, `share` of the outermost function's `seconds`, `enters` the listed functions that it calls.
        `functions`: {"function", "file", "line", "calls", "seconds"}. `plain_s` and `profiled_s`: seconds of each round
        without and with the profiler; `overhead`: the ratio of the fastest of each, which other programs disturb
        least; `clips`: of all profiled rounds.

    Raises:
        UserError: a function that is not there, or that the work never called.
    """
    from line_profiler import LineProfiler

    functions = {name: resolve(name) for name in target.functions}
    target.work()  # whatever is compiled, imported or allocated once
    calls = _count_calls(target, functions)
    others, profiler = timing.OtherWork(), LineProfiler(*functions.values())
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _, profiled in timing.alternate(seconds, rounds, max_time_s=max_time_s):
        with profiler if profiled else contextlib.nullcontext():
            seconds[profiled] += [ms / 1e3 for ms in timing.call_times_ms(lambda _: target.work(), [0])]
    load, (plain_s, profiled_s) = others.fields(), seconds.values()
    rounds = len(profiled_s)
    lines = _list_lines(profiler.get_stats(), functions, calls)
    totals = {name: sum(line["seconds"] for line in lines if line["function"] == name) for name in functions}
    total_s = totals[target.functions[0]]
    for line in lines:
        line["share"] = line["seconds"] / total_s if total_s > 0 else 0.0
    for callee in functions:
        _subtract_callee(callee, totals[callee], lines, calls)
    for line in lines:
        del line["entered_s"]
    starts = {line["function"]: {key: line[key] for key in ("function", "file", "line")} for line in reversed(lines)}
    n_calls = {name: sum(int(n) for (_, _, callee), (n, _) in calls.items() if callee == name) for name in functions}
    fields: dict[str, Any] = {"environment": environment, "lines": lines, "told": target.explanation, **load}
    fields["parameters"] = {"target": target.name, "rounds": rounds, **target.parameters}
    fields["functions"] = [
        {**starts[name], "calls": rounds * n_calls[name], "seconds": totals[name]} for name in functions
    ]
    fields |= {"plain_s": plain_s, "profiled_s": profiled_s, "clips": target.clips * rounds}
    fields["overhead"] = min(profiled_s) / max(min(plain_s), 1e-12)
    return records.make("lines", unit="s", samples=[total_s], **fields)


def _subtract_callee(callee: str, total_s: float, lines: list[dict], calls: Calls) -> None:
    """Take a function's seconds out of the own seconds of the lines that call it.

    Each line has its part of the one round in which that was measured, but never more than the line itself took: what
    is left then belongs to the other lines.
    """
    callers = [(line, line["entered_s"][callee]) for line in lines if callee in line["entered_s"]]
    waiting_s = sum(seconds for (_, _, called), (_, seconds) in calls.items() if called == callee)
    for line, seconds in sorted(callers, key=lambda caller: caller[0]["own_seconds"] / max(caller[1], 1e-12)):
        part_s = min(line["own_seconds"], total_s * seconds / max(waiting_s, 1e-12))
        line["own_seconds"] -= part_s
        total_s, waiting_s = total_s - part_s, waiting_s - seconds


def resolve(name: str) -> FunctionType:
    """The Python function "module:qualified.name", without the decorators around it.

    Raises:
        UserError: no such module or name, or something that has no lines of Python.
    """
    module_name, _, path = name.partition(":")
    try:
        value: object = importlib.import_module(module_name)
    except ImportError as error:
        raise UserError(f"line profile of {name!r}: no module {module_name!r} ({error})") from error
    for part in path.split("."):
        known = sorted(key for key, member in vars(value).items() if callable(member) and not key.startswith("__"))
        if not hasattr(value, part):
            raise UserError(f"line profile of {name!r}: there is no {part!r}; {module_name} has {', '.join(known)}")
        value = getattr(value, part)
    function: object = inspect.unwrap(value) if callable(value) else value
    function = getattr(function, "__func__", function)
    if not isinstance(function, FunctionType):
        raise UserError(f"line profile of {name!r}: a {type(function).__name__} and not a function written in Python")
    return function


def _count_calls(target: Target, functions: dict[str, FunctionType]) -> Calls:
    """How often each listed line called each listed function in one round, and for how long.

    A generator is called each time that it goes on. What lies between a line and a function (a decorator,
    `nn.Module.__call__`) is passed over. The caller None is unlisted code.
    """
    names: dict[CodeType, str] = {function.__code__: name for name, function in functions.items()}
    calls: Calls = {}
    running: list[tuple[tuple[str | None, int, str], float]] = []

    def note(frame, event, argument) -> None:
        callee = names.get(frame.f_code)
        if callee is None or event not in ("call", "return"):
            return
        if event == "return":
            key, begun = running.pop()
            calls[key][1] += time.perf_counter() - begun
            return
        frame = frame.f_back
        while frame is not None and frame.f_code not in names:
            frame = frame.f_back
        key = (None, 0, callee) if frame is None else (names[frame.f_code], frame.f_lineno, callee)
        calls.setdefault(key, [0, 0.0])[0] += 1
        running.append((key, time.perf_counter()))

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        target.work()
    finally:
        sys.setprofile(before)
    unused = [name for name in functions if not any(callee == name for *_, callee in calls)]
    if unused:
        raise UserError(f"line profile of {target.name!r}: the work never calls {', '.join(unused)}; name what it runs")
    return calls


def _list_lines(stats, functions: dict[str, FunctionType], calls: Calls) -> list[dict[str, Any]]:
    """Every source line; `entered_s` is {listed function that it calls: seconds of one round}."""
    by_place: dict[tuple[Path, int], dict[int, tuple[int, int]]] = {}
    for (source_file, first, _), timings in stats.timings.items():
        by_place.setdefault((Path(source_file).resolve(), first), {}).update({line: rest for line, *rest in timings})
    lines = []
    for name, function in functions.items():
        # line_profiler may have exchanged the code object for a copy; file and first line stay.
        path, first = Path(function.__code__.co_filename).resolve(), function.__code__.co_firstlineno
        # As a reader of the repository knows it; of a file elsewhere the name alone: records are published.
        file = path.relative_to(PACKAGE).as_posix() if path.is_relative_to(PACKAGE) else path.name
        source, start = inspect.getsourcelines(function)
        for number, text in enumerate(source, start):
            hits, ticks = by_place.get((path, first), {}).get(number, (0, 0))
            entered_s = {called: s for (caller, at, called), (_, s) in calls.items() if (caller, at) == (name, number)}
            line = {"function": name, "file": file, "line": number, "text": text.rstrip("\n")}
            line |= {"hits": int(hits), "seconds": ticks * stats.unit, "own_seconds": ticks * stats.unit, "share": 0.0}
            lines.append({**line, "enters": list(entered_s), "entered_s": entered_s})
    return lines
