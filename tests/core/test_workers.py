"""Processes of ours: a worker ends when its parent is killed, and a module runs from a checkout that is not installed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from triadbench.core.files import PACKAGE
from triadbench.core.workers import module_command

# Makes a checkout importable, as cli.py does; in spawned processes too.
PARENT = f"""
import concurrent.futures, multiprocessing, os, runpy, time

runpy.run_path({str(PACKAGE / "cli.py")!r}, run_name="checkout")
from triadbench.core import workers

def work(path):
    with open(path, "w") as file:
        file.write(str(os.getpid()))
    time.sleep(60)

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, context, workers.begin) as pool:
        pool.submit(work, "pid.part").result()
"""
PROBE = """
import sys
from triadbench.core import files
print(__name__, sys.argv[1:], files.PACKAGE)
"""
BARE = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_worker_does_not_outlive_its_parent(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen([sys.executable, str(script)], cwd=tmp_path, env=BARE)
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


def test_a_module_runs_from_a_checkout_that_is_not_installed(tmp_path):
    """Without PYTHONPATH nothing but the command line says where `triadbench` is."""
    (tmp_path / "probe.py").write_text(PROBE)
    command = module_command("probe", "--some", "argument")
    done = subprocess.run(command, cwd=tmp_path, env=BARE, capture_output=True, text=True, timeout=60)
    assert done.stdout == f"__main__ ['--some', 'argument'] {PACKAGE}\n", done.stderr
