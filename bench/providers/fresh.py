"""What a fresh process waits for and holds: loading, the first call, the second, and memory at two batch sizes.

The clock starts when Python and NumPy are imported, so that loading holds everything else that a contestant imports.
"""

import contextlib
import dataclasses
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from triadbench.bench import machine
from triadbench.bench.providers.contestants import Contestant, Opened, Outputs
from triadbench.core.workers import module_command


def measure(contestant: Contestant, threads: int, clips: Path, batch: int) -> tuple[dict, Outputs]:
    """One fresh process on the first `batch` clips of an .npy file of waveforms (n, samples) float32.

    Returns:
        `load_ms`, `first_call_ms`, `second_call_ms` (of one clip), `memory_mb` (growth of the process by loading and
        one clip), `batch_memory_mb` (the same, after `batch` clips), `gpu_memory_mb` (None on a CPU); and the outputs
        of the first call.

    Raises:
        ProcessError: with the reason.
    """
    job = json.dumps([dataclasses.asdict(contestant), threads, str(clips), batch])
    printed = machine.run_process(module_command("triadbench.bench.providers.fresh", job))
    result = json.loads(printed.splitlines()[-1])
    return result, {name: np.asarray(values) for name, values in result.pop("outputs").items()}


def main(job: str) -> None:
    """The fresh process's side."""
    fields, threads, clips, batch = json.loads(job)
    contestant = Contestant(**fields)
    waveforms = np.load(clips)[:batch]
    before_mb, free_mb, result = _peak_mb(), _gpu_free_mb(contestant), {}

    def timed(name: str, function: Callable, *arguments: Any) -> Any:
        start = time.perf_counter()
        value = function(*arguments)
        result[name] = 1e3 * (time.perf_counter() - start)
        return value

    opened = timed("load_ms", Opened, contestant, threads)
    outputs = timed("first_call_ms", opened, waveforms[:1])
    timed("second_call_ms", opened, waveforms[:1])
    result["memory_mb"] = _peak_mb() - before_mb
    opened(waveforms)
    after_mb = _gpu_free_mb(contestant)
    result["batch_memory_mb"] = _peak_mb() - before_mb
    result["gpu_memory_mb"] = None if free_mb is None or after_mb is None else free_mb - after_mb
    result["outputs"] = {name: values.astype(float).tolist() for name, values in outputs.items()}
    print(json.dumps(result))


def _peak_mb() -> float:
    """The most memory that this process has held so far, 10^6 bytes."""
    with contextlib.suppress(OSError):
        if peak := re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text()):
            return int(peak[1]) * 1024 / 1e6
    import resource  # not Linux, whose ru_maxrss would be the parent's as well

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def _gpu_free_mb(contestant: Contestant) -> float | None:
    """Free memory of the GPU, 10^6 bytes, by NVML; None on a CPU, or without it."""
    if contestant.device == "cpu":
        return None
    try:
        import pynvml

        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(0)).free / 1e6
    except Exception:  # without the package, or its driver, there is no figure
        return None


if __name__ == "__main__":
    main(sys.argv[1])
