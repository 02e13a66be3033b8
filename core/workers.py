"""Processes of ours: how a worker begins, and the command line that starts one of our modules."""

import concurrent.futures
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from triadbench.core.files import PACKAGE

_RUN = """
import runpy, sys
cli, module = sys.argv[1:3]
runpy.run_path(cli, run_name="checkout")
sys.argv[1:3] = []
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def module_command(module: str, *arguments: str) -> list[str]:
    """The command line that runs our `module` in a new Python, from a checkout that is not installed as well."""
    return [sys.executable, "-c", _RUN, str(PACKAGE / "cli.py"), module, *arguments]


def begin() -> None:
    """Leave Ctrl-C to the parent, and end when the parent has ended, killed or not. In the main process: nothing."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


_Task = TypeVar("_Task")
_Result = TypeVar("_Result")
_function: Callable[[Any], Any]


def run_all(
    make: Callable[..., Callable[[_Task], _Result]],
    arguments: tuple[Any, ...],
    tasks: Sequence[_Task],
    processes: int,
    *,
    chunk: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[_Result]:
    """Results of all tasks, in order; computed in this process where one is enough.

    Args:
        make: called with `arguments` once in each process, returns the function that does a task.
        chunk: tasks handed to a process at a time. progress: called with (tasks done, tasks), in order.
    """
    results: list[_Result] = []

    def collect(finished: Iterable[_Result]) -> list[_Result]:
        for result in finished:
            results.append(result)
            if progress is not None:
                progress(len(results), len(tasks))
        return results

    processes = min(processes, -(-len(tasks) // chunk))
    if processes <= 1:
        return collect(map(make(*arguments), tasks))
    # spawn: a fork of a process with running threads may hang, and Python 3.12 warns of it.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(processes, context, _start, (make, arguments)) as pool:
        try:
            return collect(pool.map(_do, tasks, chunksize=chunk))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _start(make: Callable[..., Callable[[Any], Any]], arguments: tuple[Any, ...]) -> None:
    global _function
    begin()
    _function = make(*arguments)


def _do(task: Any) -> Any:
    return _function(task)
