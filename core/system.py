"""What the operating system tells about the whole machine: cores, memory, processor time, when a process began.

On Linux its own files are read, so that measuring and training need no package for it; elsewhere psutil is asked.
"""

import os
import sys
from pathlib import Path

_LINUX = sys.platform == "linux"
_PROC, _CPUS = Path("/proc"), Path("/sys/devices/system/cpu")


def physical_cores() -> int | None:
    """The machine's cores, each counted once however many threads it runs; None where the system does not tell."""
    if not _LINUX:
        import psutil

        return psutil.cpu_count(logical=False)
    return len({path.read_text() for path in _CPUS.glob("cpu[0-9]*/topology/thread_siblings_list")}) or None


def memory_bytes() -> tuple[int, int]:
    """(all, to be had without swapping) of the machine's memory, whatever confines this process."""
    if not _LINUX:
        import psutil

        memory = psutil.virtual_memory()
        return memory.total, memory.available
    lines = (_PROC / "meminfo").read_text().splitlines()
    kib = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return 1024 * kib["MemTotal"], 1024 * kib["MemAvailable"]


def peak_memory_bytes() -> int:
    """The most memory that this process has held so far."""
    if _LINUX:  # some containers do not tell, and ru_maxrss may be the parent's
        for line in (_PROC / "self" / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def busy_s() -> float:
    """Seconds of processor time that all processes have taken since the start, with what a hypervisor took away."""
    if not _LINUX:
        import psutil

        times = psutil.cpu_times()
        return times.user + times.system + getattr(times, "nice", 0.0)
    # user, nice, system, idle, iowait, irq, softirq, steal; guests are in user.
    ticks = [int(field) for field in _stat("cpu ").split()]
    return (ticks[0] + ticks[1] + ticks[2] + ticks[7]) / os.sysconf("SC_CLK_TCK")


def stolen_s() -> float:
    """Seconds of processor time that a hypervisor has taken away since the start; they are in `busy_s` on Linux."""
    return int(_stat("cpu ").split()[7]) / os.sysconf("SC_CLK_TCK") if _LINUX else 0.0


def started_at(process: int) -> float:
    """When a process began, in seconds since 1970."""
    if not _LINUX:
        import psutil

        return psutil.Process(process).create_time()
    fields = (_PROC / str(process) / "stat").read_text().rpartition(")")[2].split()  # the name before may hold anything
    return float(_stat("btime ")) + int(fields[19]) / os.sysconf("SC_CLK_TCK")


def _stat(start: str) -> str:
    lines = (_PROC / "stat").read_text().splitlines()
    return next(line for line in lines if line.startswith(start)).removeprefix(start)
