"""Worker processes end when their parent is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_worker_does_not_outlive_its_parent(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent("""
        import concurrent.futures, multiprocessing, os, time
        from triadbench.core import workers

        def work(path):
            with open(path, "w") as file:
                file.write(str(os.getpid()))
            time.sleep(60)

        if __name__ == "__main__":
            context = multiprocessing.get_context("spawn")
            with concurrent.futures.ProcessPoolExecutor(1, context, workers.begin) as pool:
                pool.submit(work, "pid.part").result()
        """)
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    parent = subprocess.Popen([sys.executable, str(script)], cwd=tmp_path, env=environment)
    written = tmp_path / "pid.part"
    for _ in range(300):
        if written.exists() and written.read_text():
            break
        time.sleep(0.1)
    worker = int(written.read_text())
    parent.send_signal(signal.SIGKILL)
    parent.wait(10)
    for _ in range(100):
        if not _is_running(worker):
            return
        time.sleep(0.1)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the worker was still running ten seconds after its parent's death")


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/status")
    return not (status.exists() and "\nState:\tZ" in status.read_text())
