"""Processes of ours: how a worker begins, and the command line that starts one of our modules."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading

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
