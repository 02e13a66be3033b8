"""What else a machine did during a measurement: work of others, clocks, temperatures, power and throttling.

A thread samples about every half second. Work of others is counted by the system from end to end, not sampled. Whether
a measurement was disturbed is judged by what others took, against fixed limits, never by its own duration.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import defaultdict
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
_PROCESSOR_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "acpitz")
_NO_SENSOR = "this system shows no sensor of the processor's temperature, as in most virtual machines"
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
        self._curves: dict[str, list[list[float]]] = defaultdict(list)

    def __enter__(self) -> Monitor:
        self._started, self._counters = time.perf_counter(), _counters()
        self._thread = threading.Thread(target=self._watch, name="monitor", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._seconds = time.perf_counter() - self._started
        self._busy, self._steal = (now - then for now, then in zip(_counters(), self._counters, strict=True))
        self._stop.set()
        self._thread.join(10)  # a driver that hangs must not hold up the measurement

    def _watch(self) -> None:
        gpu = gpu_reader() if self._on_gpu else dict
        while True:
            second = round(time.perf_counter() - self._started, 2)
            for name, value in {"cpu_mhz": cpu_mhz(), "cpu_temperature_c": cpu_temperature_c(), **gpu()}.items():
                if value is not None:
                    self._curves[name].append([second, value])
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
        temperature = self._curve("cpu_temperature_c")
        gpu: dict[str, Any] | None = None
        if reasons := self._curve("reasons"):
            gpu = {name: self._curve(name) for name in ("sm_mhz", "temperature_c", "power_w")}
            used = [value for _, value in self._curve("other_percent") or []]
            throttle = [word for bit, word in _THROTTLE.items() if any(int(bits) & bit for _, bits in reasons)]
            gpu |= {"other_percent": fmean(used) if used else None, "throttle": throttle}
        return {
            "seconds": self._seconds,
            "other_cpu_percent": 100 * max(0.0, self._busy) / self._seconds,
            "steal_percent": 100 * max(0.0, self._steal) / self._seconds / (os.cpu_count() or 1),
            "cpu_mhz": self._curve("cpu_mhz"),
            "cpu_temperature_c": temperature,
            **({} if temperature else {"cpu_temperature_reason": _NO_SENSOR}),
            "gpu": gpu,
        }

    def _curve(self, name: str) -> list[Any] | None:
        points = self._curves.get(name, [])
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
    """Mean clock of the cores now, in MHz, by Linux; None where it does not tell."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        if clocks := [float(line.split(":")[1]) for line in lines if line.startswith("cpu MHz")]:
            return fmean(clocks)
    return None


def cpu_temperature_c(root: Path = Path("/sys/class")) -> float | None:
    """The hottest of the processor's sensors now, in degrees Celsius, by Linux."""
    temperatures = []
    for file in root.glob("hwmon/hwmon*/name"):
        with contextlib.suppress(OSError, ValueError):
            if file.read_text().strip() in _PROCESSOR_SENSORS:
                temperatures += [int(value.read_text()) / 1e3 for value in file.parent.glob("temp*_input")]
    return max(temperatures, default=None)


def gpu_reader() -> Callable[[], dict[str, float]]:
    """What reads the state of GPU 0, by NVML: what it tells of `sm_mhz`, `temperature_c`, `power_w`, `reasons` (bits)
    and `other_percent`; nothing where it does not answer."""
    try:
        import pynvml as nvml

        nvml.nvmlInit()
        gpu = nvml.nvmlDeviceGetHandleByIndex(0)
    except Exception:  # not installed, or NVML's own errors
        return dict
    since = time.time_ns() // 1000

    def other_percent() -> float:
        nonlocal since
        try:
            users = nvml.nvmlDeviceGetProcessUtilization(gpu, since)
        except nvml.NVMLError_NotFound:  # nobody used it meanwhile
            return 0.0
        since = max([since, *(user.timeStamp for user in users)])
        return float(sum(user.smUtil for user in users if user.pid != os.getpid()))

    ask: dict[str, Callable[[], float]] = {
        "sm_mhz": lambda: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM),
        "temperature_c": lambda: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU),
        "power_w": lambda: nvml.nvmlDeviceGetPowerUsage(gpu) / 1e3,
        "reasons": lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu),
        "other_percent": other_percent,
    }

    def read() -> dict[str, float]:
        state = {}
        for name, value in ask.items():
            with contextlib.suppress(nvml.NVMLError):
                state[name] = value()
        return state

    return read
