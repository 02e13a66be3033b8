"""What every worker process does first, so that none outlives its parent nor answers Ctrl-C with a traceback."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading


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
