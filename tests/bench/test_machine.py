"""The environment block is JSON, complete, and free of names and paths; a failed process says why."""

from __future__ import annotations

import getpass
import json
import os
import platform
import sys

import pytest

from triadbench.bench import machine


def test_environment_is_json_and_complete():
    environment = machine.environment()
    assert json.loads(json.dumps(environment, allow_nan=False)) == environment
    wanted = {"time", "commit", "dirty", "python", "versions", "os", "cpu", "cpu_features", "cores_usable", "ram_gb"}
    assert wanted | {"torch_threads", "omp_wait_policy", "gpu", "gpu_driver"} <= set(environment)
    assert environment["time"].endswith("+00:00")
    assert environment["versions"]["torch"] and environment["cores_usable"] >= 1


def test_environment_has_no_host_name_and_no_path():
    text = json.dumps(machine.environment())
    assert os.getcwd() not in text and os.path.expanduser("~") + "/" not in text
    if len(platform.node()) > 3:
        assert platform.node() not in text
    if getpass.getuser() != "root" and len(getpass.getuser()) > 3:
        assert getpass.getuser() not in text


def test_without_git_the_commit_is_none(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert machine._commit() == {"commit": None, "dirty": None}


def test_a_process_that_fails_gives_its_last_line():
    assert machine.run_process([sys.executable, "-c", "print(3)"]) == "3\n"
    with pytest.raises(machine.ProcessError, match="^no$"):
        machine.run_process([sys.executable, "-c", "import sys; sys.exit('first\\nno')"])
    with pytest.raises(machine.ProcessError, match="exit code 3"):
        machine.run_process([sys.executable, "-c", "import sys; sys.exit(3)"])
    with pytest.raises(machine.ProcessError, match="did not end within 0.5 s"):
        machine.run_process([sys.executable, "-c", "import time; time.sleep(60)"], timeout_s=0.5)
    with pytest.raises(machine.ProcessError, match="No such file"):
        machine.run_process(["no-such-program-at-all"])
