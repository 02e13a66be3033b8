"""What a fresh process waits for and holds: loading, the first call, the second, and memory at two batch sizes.

The clock starts when Python and NumPy are there, so that loading holds everything else that a contestant imports.
"""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from triadbench.bench.providers.contestants import Contestant
from triadbench.core.workers import module_command

_TIMEOUT_S = 300


class FreshError(Exception):
    """The process failed; the last line of its complaint."""


def measure(contestant: Contestant, threads: int, clips: Path, batch: int) -> tuple[dict, dict[str, np.ndarray]]:
    """One fresh process.

    Args:
        clips: .npy file of waveforms (n, samples) float32, at least `batch` of them.
        batch: the larger batch size for the memory.

    Returns:
        `load_ms`, `first_call_ms`, `second_call_ms` (of one clip), `memory_mb` (growth of the process by loading and
        one clip), `batch_memory_mb` (the same, after `batch` clips), `gpu_memory_mb` (None on a CPU); and the outputs
        of the first call.

    Raises:
        FreshError: with the reason.
    """
    given = json.dumps([dataclasses.asdict(contestant), threads, str(clips), batch])
    try:
        done = subprocess.run(
            module_command("triadbench.bench.providers.fresh", given),
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise FreshError(f"did not end within {_TIMEOUT_S} s") from error
    if done.returncode != 0:
        raise FreshError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    result = json.loads(done.stdout.splitlines()[-1])
    outputs = {name: np.asarray(values) for name, values in result.pop("outputs").items()}
    return result, outputs


def main(given: str) -> None:
    """The fresh process's side."""
    import time

    fields, threads, clips, batch = json.loads(given)
    contestant = Contestant(**fields)
    waveforms = np.load(clips)[:batch]
    before_mb, free_mb = peak_mb(), gpu_free_mb(contestant)
    marks = [time.perf_counter()]
    from triadbench.bench.providers.runners import Opened

    opened = Opened(contestant, threads)
    marks.append(time.perf_counter())
    outputs = opened(waveforms[:1])
    marks.append(time.perf_counter())
    opened(waveforms[:1])
    marks.append(time.perf_counter())
    one_mb = peak_mb() - before_mb
    opened(waveforms)
    gpu_mb = None if free_mb is None else free_mb - gpu_free_mb(contestant)
    load_ms, first_ms, second_ms = (1e3 * (b - a) for a, b in zip(marks, marks[1:], strict=False))
    print(
        json.dumps(
            {
                "load_ms": load_ms,
                "first_call_ms": first_ms,
                "second_call_ms": second_ms,
                "memory_mb": one_mb,
                "batch_memory_mb": peak_mb() - before_mb,
                "gpu_memory_mb": gpu_mb,
                "outputs": {name: values.astype(float).tolist() for name, values in outputs.items()},
            }
        )
    )


def peak_mb() -> float:
    """The most memory that this process has held so far, 10^6 bytes."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(re.search(r"VmHWM:\s*(\d+) kB", status).group(1)) * 1024 / 1e6
    except (OSError, AttributeError):  # not Linux, whose ru_maxrss would be the parent's as well
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def gpu_free_mb(contestant: Contestant) -> float | None:
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
