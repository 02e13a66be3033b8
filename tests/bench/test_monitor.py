"""What others took, clocks, temperatures and a GPU's state are seen; what was disturbed is said, by fixed limits."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import types

import pytest

from triadbench.bench import monitor
from triadbench.bench.monitor import Monitor
from triadbench.core import system


def spin(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def counters(monkeypatch, busy, steal, own):
    monkeypatch.setattr(system, "busy_s", lambda: next(busy))
    monkeypatch.setattr(system, "stolen_s", lambda: next(steal))
    monkeypatch.setattr(os, "times", lambda: next(own))


def test_work_of_others_is_what_is_neither_ours_nor_stolen(monkeypatch):
    counters(monkeypatch, iter([100.0, 107.0]), iter([5.0, 6.0]), iter([(1, 1, 0, 0, 0), (2, 1, 1, 0, 9)]))
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    with Monitor() as watched:
        time.sleep(0.02)
    fields = watched.fields()
    assert fields["other_cpu_percent"] * fields["seconds"] == pytest.approx(100 * (7 - 1 - 2))
    assert fields["steal_percent"] * fields["seconds"] == pytest.approx(100 * 1 / 4)
    assert fields["seconds"] >= 0.02 and fields["gpu"] is None


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's counters")
def test_another_process_is_seen_and_our_own_work_is_not():
    code = "import time; end = time.time() + 60\nwhile time.time() < end: pass"
    with Monitor() as quiet:
        spin(0.6)
    child = subprocess.Popen([sys.executable, "-c", code])  # not reaped before the end: it counts as another's
    try:
        time.sleep(0.3)
        with Monitor() as busy:
            time.sleep(1.2)
    finally:
        child.kill()
        child.wait()
    assert busy.fields()["other_cpu_percent"] > 30
    assert len(busy.fields()["cpu_mhz"] or [0, 0]) >= 2 and quiet.fields()["seconds"] > 0.5


@pytest.mark.parametrize(
    ("other", "steal", "device", "words"),
    [
        (9.0, 1.9, "cpu", None),
        (11.0, 0.0, "cpu", "other processes used 11 % of a core"),
        (105.0, 0.0, "cuda", None),
        (0.0, 2.1, "cpu", "2.1 % of the processor's time went to other machines of its host"),
    ],
)
def test_limits(other, steal, device, words, monkeypatch):
    monkeypatch.setattr(monitor.timing, "own_threads", lambda: 2)
    monkeypatch.setattr(monitor, "usable_cores", lambda: 2)
    fields = {"other_cpu_percent": other, "steal_percent": steal, "seconds": 1e9}
    assert monitor.disturbed(fields, device) == words


def test_the_processors_sensors(tmp_path):
    assert monitor.cpu_temperature_c(tmp_path) is None
    for number, name in enumerate(("nvme", "coretemp")):
        folder = tmp_path / "hwmon" / f"hwmon{number}"
        folder.mkdir(parents=True)
        (folder / "name").write_text(name + "\n")
        (folder / "temp1_input").write_text("99000\n" if name == "nvme" else "41000\n")
    (folder / "temp2_input").write_text("43500\n")
    assert monitor.cpu_temperature_c(tmp_path) == 43.5


def test_a_machine_without_sensors_says_so(monkeypatch):
    monkeypatch.setattr(monitor, "cpu_temperature_c", lambda: None)
    with Monitor() as watched:
        pass
    fields = watched.fields()
    assert fields["cpu_temperature_c"] is None and "no sensor" in fields["cpu_temperature_reason"]


def test_a_gpu_by_nvml(monkeypatch):
    error = type("NVMLError", (Exception,), {})
    nobody = type("NVMLError_NotFound", (error,), {})
    use = lambda pid, percent: types.SimpleNamespace(pid=pid, smUtil=percent, timeStamp=1)  # noqa: E731
    nvml = types.SimpleNamespace(
        NVMLError=error,
        NVMLError_NotFound=nobody,
        NVML_CLOCK_SM=1,
        NVML_TEMPERATURE_GPU=0,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda k: k,
        nvmlDeviceGetClockInfo=lambda handle, kind: 1980,
        nvmlDeviceGetTemperature=lambda handle, kind: 40,
        nvmlDeviceGetPowerUsage=lambda handle: 350_000,
        nvmlDeviceGetCurrentClocksThrottleReasons=lambda handle: 1,
        nvmlDeviceGetProcessUtilization=lambda handle, since: [use(os.getpid(), 80), use(1, 7)],
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    with Monitor("cuda") as watched:
        time.sleep(0.05)
    gpu = watched.fields()["gpu"]
    assert (gpu["other_percent"], gpu["sm_mhz"][0][1], gpu["power_w"][0][1], gpu["throttle"]) == (7, 1980, 350.0, [])


def test_a_machine_without_a_gpu_has_none(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with Monitor("cuda") as watched:
        pass
    assert watched.fields()["gpu"] is None
