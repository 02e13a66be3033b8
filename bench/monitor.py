"""What else a machine did during a measurement: work of others, clocks, temperatures, power and throttling.

A thread samples about every half second. Work of others is counted by the system from end to end, not sampled. The GPU
is asked by NVML where pynvml (package nvidia-ml-py) is installed, else by one nvidia-smi that stays and repeats itself.
Whether a measurement was disturbed is judged by what others took, against fixed limits, never by its own duration.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

from triadbench.core import system, timing
from triadbench.core.constants import usable_cores

STEAL_LIMIT_PERCENT = 2.0
"""Of the machine's CPU time; beyond it a measurement is disturbed. For other processes: `core.timing.is_disturbed`."""
_EVERY_S = 0.5
_POINTS = 120  # of a curve at most: a trial may take minutes
_PROCESSOR_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "x86_pkg_temp", "acpitz")
_QUERY = "--query-gpu=clocks.sm,temperature.gpu,power.draw,clocks_throttle_reasons.active"
_THROTTLE = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "software temperature limit",
    0x40: "hardware temperature limit",
    0x80: "power brake",
}
"""NVML's reasons for which a GPU runs slower than it would; idling and settings of a user are none."""


class Monitor:
    """Watches while its block runs; then `fields()` is what a record says of it. For device "cuda" GPU 0 is asked."""

    def __init__(self, device: str = "cpu"):
        self._on_gpu, self._stop = device.startswith("cuda"), threading.Event()
        self._samples: list[tuple[float, dict[str, float]]] = []

    def __enter__(self) -> Monitor:
        self._started, self._counters = time.perf_counter(), _counters()
        self._thread = threading.Thread(target=self._watch, name="monitor", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._seconds = time.perf_counter() - self._started
        self._busy, self._steal = (now - then for now, then in zip(_counters(), self._counters, strict=True))
        self._stop.set()
        self._thread.join(10)  # an nvidia-smi that hangs must not hold up the measurement

    def _watch(self) -> None:
        with contextlib.ExitStack() as stack:
            gpu = _gpu_reader(stack) if self._on_gpu else dict
            while True:
                values = {"cpu_mhz": cpu_mhz(), "cpu_temperature_c": cpu_temperature_c(), **gpu()}
                known = {name: value for name, value in values.items() if value is not None}
                self._samples.append((round(time.perf_counter() - self._started, 2), known))
                if self._stop.wait(_EVERY_S):
                    return

    def fields(self) -> dict[str, Any]:
        """Plain values; a curve is [[seconds since the start, value], ...], None where the machine does not tell.

        Returns:
            `seconds`; `other_cpu_percent` (of one core, mean; ours and our finished children's work is not in it);
            `steal_percent` (of the machine's CPU time); curves `cpu_mhz` and `cpu_temperature_c`, and why there is no
            temperature; `gpu`: None, or `other_percent` and curves `sm_mhz`, `temperature_c`, `power_w`, and the
            reasons of `throttle`.
        """
        gpu: dict[str, Any] | None = None
        if reasons := self._values("reasons"):
            gpu = {name: self._curve(name) for name in ("sm_mhz", "temperature_c", "power_w")}
            gpu["other_percent"] = fmean(used) if (used := self._values("other_percent")) else None
            gpu["throttle"] = [word for bit, word in _THROTTLE.items() if any(int(bits) & bit for bits in reasons)]
        temperature = self._curve("cpu_temperature_c")
        reason = "this system shows no sensor of the processor's temperature, as in most virtual machines"
        return {
            "seconds": self._seconds,
            "other_cpu_percent": 100 * max(0.0, self._busy) / self._seconds,
            "steal_percent": 100 * max(0.0, self._steal) / self._seconds / (os.cpu_count() or 1),
            "cpu_mhz": self._curve("cpu_mhz"),
            "cpu_temperature_c": temperature,
            **({} if temperature else {"cpu_temperature_reason": reason}),
            "gpu": gpu,
        }

    def _values(self, name: str) -> list[float]:
        return [values[name] for _, values in self._samples if name in values]

    def _curve(self, name: str) -> list[list[float]] | None:
        points = [[at, values[name]] for at, values in self._samples if name in values]
        return points[:: -(-len(points) // _POINTS)] if points else None


def disturbed(monitor: dict[str, Any], device: str = "cpu") -> str | None:
    """Why a measurement with these `Monitor.fields` does not count, in words, or None: on a CPU our threads are
    `core.timing.own_threads()`; a GPU is given its work by one."""
    other, steal = monitor["other_cpu_percent"], monitor["steal_percent"]
    if timing.is_disturbed(other / 100, 1 if device == "cuda" else timing.own_threads(), usable_cores()):
        return f"other processes used {other:.0f} % of a core"
    if steal > STEAL_LIMIT_PERCENT:
        return f"{steal:.1f} % of the processor's time went to other machines of its host"
    return None


def _counters() -> tuple[float, float]:
    """Processor seconds so far of other processes, and those taken away by a hypervisor."""
    steal, own = system.stolen_s(), os.times()
    return system.busy_s() - steal - sum(own[:4]), steal


def cpu_mhz() -> float | None:
    """Mean clock of the cores now, in MHz."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        files = Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq")
        if clocks := [int(file.read_text()) / 1e3 for file in files]:
            return fmean(clocks)
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        if clocks := [float(line.split(":")[1]) for line in lines if line.startswith("cpu MHz")]:
            return fmean(clocks)
    return None


def cpu_temperature_c(root: Path = Path("/sys/class")) -> float | None:
    """The hottest of the processor's sensors now, in degrees Celsius, by Linux."""
    temperatures = []
    for names, values in (("hwmon/hwmon*/name", "temp*_input"), ("thermal/thermal_zone*/type", "temp")):
        for file in root.glob(names):
            with contextlib.suppress(OSError, ValueError):
                if file.read_text().strip() in _PROCESSOR_SENSORS:
                    temperatures += [int(value.read_text()) / 1e3 for value in file.parent.glob(values)]
    return max(temperatures, default=None)


def _gpu_reader(stack: contextlib.ExitStack) -> Callable[[], dict[str, Any]]:
    """What reads the state of GPU 0, by NVML or nvidia-smi; both are ended by `stack`."""
    try:
        import pynvml as nvml

        nvml.nvmlInit()
        stack.callback(nvml.nvmlShutdown)
        gpu = nvml.nvmlDeviceGetHandleByIndex(0)
    except Exception:  # not installed, or NVML's own errors
        return _smi_reader(stack)
    since = time.time_ns() // 1000

    def read() -> dict[str, Any]:
        nonlocal since
        state: dict[str, Any] = {}
        with contextlib.suppress(nvml.NVMLError):
            state["sm_mhz"] = nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM)
            state["temperature_c"] = nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU)
            state["power_w"] = nvml.nvmlDeviceGetPowerUsage(gpu) / 1e3
            state["reasons"] = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu)
            state["other_percent"] = 0.0
            users = nvml.nvmlDeviceGetProcessUtilization(gpu, since)  # an error where nobody used it meanwhile
            since = max([since, *(user.timeStamp for user in users)])
            state["other_percent"] = float(sum(user.smUtil for user in users if user.pid != os.getpid()))
        return state

    return read


def _smi_reader(stack: contextlib.ExitStack) -> Callable[[], dict[str, Any]]:
    command = ("nvidia-smi", _QUERY, "--format=csv,noheader,nounits", "--id=0", f"--loop-ms={1000 * _EVERY_S:.0f}")
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    except OSError:
        return dict
    stack.enter_context(process)
    stack.callback(process.kill)

    def read() -> dict[str, Any]:  # waits for its next line
        *values, reasons = (value.strip() for value in process.stdout.readline().split(","))  # type: ignore[union-attr]
        with contextlib.suppress(ValueError):
            told = [None if value.startswith("[") else float(value) for value in values]
            state = dict(zip(("sm_mhz", "temperature_c", "power_w"), told, strict=True))
            return {**state, "reasons": int(reasons, 16)}
        return {}

    return read
