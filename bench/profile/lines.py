"""Which lines of Python does a training step spend its time on, and how often does each run?

Timed: a piece of work given as a function, with line_profiler on the functions that are named, and the same work
without it, in turns: the ratio is what profiling adds. Not timed: threads other than the caller's, and on a GPU what
the device does, except where the host waits for it.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FunctionType

from triadbench.bench import records
from triadbench.core import timing
from triadbench.core.errors import UserError

_REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Target:
    """A piece of work and the functions whose lines are wanted.

    Attributes:
        name: as "original training step".
        functions: "module:qualified.name" of each; the first is the outermost, and shares are of its time. The
            functions that it calls are to follow in the order in which a reader should meet them.
        work: does the work once; on a GPU it ends with a synchronisation.
        clips: clips that `work` handles in one call.
        parameters: further parameters of the record (device, batch_size, ...).
        told: sentences for the reader: what the work is, and what the times mean.
    """

    name: str
    functions: tuple[str, ...]
    work: Callable[[], object]
    clips: int
    parameters: dict = field(default_factory=dict)
    told: str = ""


def run(
    targets: Sequence[Target],
    environment: dict,
    *,
    rounds: int = 5,
    max_time_s: float = 60.0,
    progress: Callable[[int, int | None], None] | None = None,
) -> list[dict]:
    """One record "lines" a target.

    Args:
        targets: what to profile, in order.
        environment: `bench.machine.environment()`.
        rounds: calls of each target's work with the profiler, and as many without.
        max_time_s: for each target's rounds; fewer are taken when it is over, but one of each at least.
        progress: called with (targets done, targets).

    Raises:
        UserError: a function that is not there, or that the work never called.
    """
    made = []
    for done, target in enumerate(targets):
        if progress is not None:
            progress(done, len(targets))
        made.append(profile(target, environment, rounds, max_time_s))
    if progress is not None:
        progress(len(targets), len(targets))
    return made


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
    functions = {name: resolve(name) for name in target.functions}
    target.work()  # whatever is compiled, imported or allocated once
    calls = _calls(target, functions)
    others = timing.OtherWork()
    stats, plain_s, profiled_s = _time_lines(target.work, list(functions.values()), rounds, max_time_s)
    rounds = len(profiled_s)
    other_cores = others.cores()
    listed = _listing(stats, functions, calls)
    total_s = sum(line["seconds"] for line in listed if line["function"] == target.functions[0])
    for line in listed:
        line["share"] = line["seconds"] / total_s if total_s > 0 else 0.0
    return records.make(
        "lines",
        parameters={"target": target.name, "rounds": rounds, **target.parameters},
        unit="s",
        samples=[total_s],
        environment=environment,
        lines=listed,
        functions=[_function(name, function, listed, calls, rounds) for name, function in functions.items()],
        plain_s=plain_s,
        profiled_s=profiled_s,
        overhead=min(profiled_s) / max(min(plain_s), 1e-12),
        clips=target.clips * rounds,
        told=target.told,
        other_cores=other_cores,
        disturbed=timing.is_disturbed(other_cores, timing.own_threads(), environment["cores_usable"]),
    )


def resolve(name: str) -> FunctionType:
    """The Python function "module:qualified.name", without the decorators around it.

    Raises:
        UserError: no such module or name, or something that has no lines of Python.
    """
    module_name, _, path = name.partition(":")
    try:
        found: object = importlib.import_module(module_name)
    except ImportError as error:
        raise UserError(f"line profile of {name!r}: no module {module_name!r} ({error})") from error
    for part in path.split("."):
        known = sorted(key for key, value in vars(found).items() if callable(value) and not key.startswith("__"))
        if not hasattr(found, part):
            raise UserError(f"line profile of {name!r}: there is no {part!r}; {module_name} has {', '.join(known)}")
        found = getattr(found, part)
    function = inspect.unwrap(found) if callable(found) else found
    function = getattr(function, "__func__", function)
    if not isinstance(function, FunctionType):
        raise UserError(f"line profile of {name!r}: a {type(function).__name__} and not a function written in Python")
    return function


# --- who calls whom --------------------------------------------------------------------------------------------------


def _calls(target: Target, functions: dict[str, FunctionType]) -> dict[tuple[str | None, int, str], list[float]]:
    """How often each listed line called each listed function in one round, and for how long:
    {(caller, line, callee): [calls, seconds]}. A generator is called each time that it goes on.

    What lies between them (a decorator, `nn.Module.__call__`) is passed over. The caller None is unlisted code.
    """
    names: dict[CodeType, str] = {function.__code__: name for name, function in functions.items()}
    found: dict[tuple[str | None, int, str], list[float]] = {}
    running: list[tuple[tuple[str | None, int, str], float]] = []

    def note(frame, event, argument) -> None:
        callee = names.get(frame.f_code)
        if callee is None or event not in ("call", "return"):
            return
        if event == "return":
            key, begun = running.pop()
            found[key][1] += time.perf_counter() - begun
            return
        frame = frame.f_back
        while frame is not None and frame.f_code not in names:
            frame = frame.f_back
        key = (None, 0, callee) if frame is None else (names[frame.f_code], frame.f_lineno, callee)
        found.setdefault(key, [0, 0.0])[0] += 1
        running.append((key, time.perf_counter()))

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        target.work()
    finally:
        sys.setprofile(before)
    unused = [name for name in functions if not any(callee == name for *_, callee in found)]
    if unused:
        raise UserError(f"line profile of {target.name!r}: the work never calls {', '.join(unused)}; name what it runs")
    return found


# --- time ------------------------------------------------------------------------------------------------------------


def _time_lines(work: Callable[[], object], functions: list[FunctionType], rounds: int, max_time_s: float):
    """(line_profiler's statistics, seconds of the plain rounds, seconds of the profiled rounds), taken in turns."""
    from line_profiler import LineProfiler

    profiler = LineProfiler(*functions)
    plain_s: list[float] = []
    profiled_s: list[float] = []
    started = time.perf_counter()
    for number in range(2 * rounds):
        if number and number % 2 == 0 and time.perf_counter() - started > max_time_s:
            break
        # Plain, profiled, profiled, plain, ...: neither is always the one that comes after the other.
        profiled = number % 4 in (1, 2)
        with profiler if profiled else contextlib.nullcontext():
            before = time.perf_counter()
            work()
            elapsed_s = time.perf_counter() - before
        (profiled_s if profiled else plain_s).append(elapsed_s)
    return profiler.get_stats(), plain_s, profiled_s


def _listing(stats, functions: dict[str, FunctionType], calls: dict) -> list[dict]:
    by_place = {}
    for (file, first, _), timings in stats.timings.items():
        by_place.setdefault((Path(file).resolve(), first), {}).update({line: rest for line, *rest in timings})
    made: list[dict] = []
    for name, function in functions.items():
        # line_profiler may have exchanged the code object for a copy; file and first line stay.
        code = function.__code__
        path, first = Path(code.co_filename).resolve(), code.co_firstlineno
        timings = by_place.get((path, first), {})
        source, start = inspect.getsourcelines(function)
        for number, text in enumerate(source, start):
            hits, ticks = timings.get(number, (0, 0))
            enters = {callee: s for (caller, line, callee), (_, s) in calls.items() if (caller, line) == (name, number)}
            made.append(
                {
                    "function": name,
                    "file": _relative(path),
                    "line": number,
                    "text": text.rstrip("\n"),
                    "hits": int(hits),
                    "seconds": ticks * stats.unit,
                    "own_seconds": ticks * stats.unit,
                    "share": 0.0,
                    "enters": list(enters),
                    "_enters": enters,
                }
            )
    totals = {name: sum(line["seconds"] for line in made if line["function"] == name) for name in functions}
    for line in made:
        for callee, seconds in line.pop("_enters").items():
            # Called from several lines: each had its part of the one round in which that was watched.
            all_s = sum(other for (_, _, called), (_, other) in calls.items() if called == callee)
            line["own_seconds"] -= totals[callee] * seconds / max(all_s, 1e-12)
        line["own_seconds"] = max(0.0, line["own_seconds"])
    return made


def _function(name: str, function: FunctionType, listed: list[dict], calls: dict, rounds: int) -> dict:
    mine = [line for line in listed if line["function"] == name]
    return {
        "function": name,
        "file": mine[0]["file"],
        "line": mine[0]["line"],
        "calls": rounds * sum(n for (_, _, callee), (n, _) in calls.items() if callee == name),
        "seconds": sum(line["seconds"] for line in mine),
    }


def _relative(path: Path) -> str:
    """As a reader of the repository knows it; of a file elsewhere the name alone: records are published."""
    return path.relative_to(_REPOSITORY).as_posix() if path.is_relative_to(_REPOSITORY) else path.name
