"""What a fresh process waits for and holds: loading, the first call, the second, and memory at two batch sizes.

The clock starts when Python and NumPy are imported, so that loading holds everything else that a contestant imports.
"""

import dataclasses
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from triadbench.bench import machine
from triadbench.bench.providers.contestants import Contestant, Opened, Outputs
from triadbench.core.workers import module_command


def measure(contestant: Contestant, threads: int, clips: Path, batch: int) -> tuple[dict, Outputs]:
    """One fresh process.

    Args:
        clips: .npy file of waveforms (n, samples) float32, at least `batch` of them.
        batch: the larger batch size for the memory.

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
    before_mb, free_mb = _peak_mb(), _gpu_free_mb(contestant)
    marks = [time.perf_counter()]
    opened = Opened(contestant, threads)
    marks.append(time.perf_counter())
    outputs = opened(waveforms[:1])
    marks.append(time.perf_counter())
    opened(waveforms[:1])
    marks.append(time.perf_counter())
    one_mb = _peak_mb() - before_mb
    opened(waveforms)
    after_mb = _gpu_free_mb(contestant)
    times_ms = [1e3 * (end - start) for start, end in zip(marks, marks[1:], strict=False)]
    result: dict[str, Any] = dict(zip(("load_ms", "first_call_ms", "second_call_ms"), times_ms, strict=True))
    result |= {"memory_mb": one_mb, "batch_memory_mb": _peak_mb() - before_mb}
    result["gpu_memory_mb"] = None if free_mb is None or after_mb is None else free_mb - after_mb
    result["outputs"] = {name: values.astype(float).tolist() for name, values in outputs.items()}
    print(json.dumps(result))


def _peak_mb() -> float:
    """The most memory that this process has held so far, 10^6 bytes."""
    try:
        peak = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        peak = None
    if peak is not None:
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
