"""The environment block is JSON, complete, and free of names and paths; peaks are measured."""

from __future__ import annotations

import getpass
import json
import os
import platform

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


def test_peaks_are_positive_and_agree_with_their_samples():
    peaks = machine.measure_peaks(min_time_s=0.0)
    assert peaks["copy_gb_per_s"] == peaks["copy_bytes"] / min(peaks["copy_ms"]) / 1e6 > 0
    assert peaks["float32_gflop_per_s"] == peaks["matmul_flops"] / min(peaks["matmul_ms"]) / 1e6 > 0
