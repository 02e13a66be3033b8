"""torch.profiler on machines with and without a GPU: quiet, and with traces that anyone may read.

A build of torch for CUDA complains on stderr where it finds no GPU, and writes that complaint and the path of a
temporary file into its traces.
"""

from __future__ import annotations

import contextlib
import gc
import gzip
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triadbench.bench.machine import drain
from triadbench.core.errors import UserError
from triadbench.core.files import atomic_path

if TYPE_CHECKING:
    import torch

_LOG_LEVEL = "KINETO_LOG_LEVEL"
"""The library reads it when a process profiles for the first time."""
_PRIVATE = ("ERROR", "WARNING", "traceName", "hostname")


@contextlib.contextmanager
def profiler(device: str, **options: Any) -> Iterator[torch.profiler.profile]:
    """A running torch.profiler: of the CPU, and on "cuda" of the kernels as well.

    Args:
        options: of `torch.profiler.profile`, as record_shapes and profile_memory.
    """
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
    is_set = _LOG_LEVEL in os.environ
    os.environ.setdefault(_LOG_LEVEL, "5")  # above its fatal errors
    try:
        # acc_events: without it torch warns that a second cycle would clear the events of the first.
        with profile(activities=activities, acc_events=True, **options) as running:
            yield running
    finally:
        if not is_set:
            os.environ.pop(_LOG_LEVEL, None)


def trace_memory(step: Callable[[], None], device: str, out: Path | None = None) -> int:
    """Run a step with its memory watched: the most bytes of torch's allocator above what was held before.

    Args:
        out: file for Perfetto or chrome://tracing (gzipped JSON), written whole or not at all; None writes none.

    Raises:
        UserError: `out` cannot be written.
    """
    import torch

    drain(device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
    gc.collect()  # torch warns where a step frees what was allocated before the watch began
    with profiler(device, record_shapes=True, profile_memory=True) as running:
        step()
        drain(device)
    trace = _read_trace(running)
    if out is not None:
        try:
            with atomic_path(out) as temporary, open(temporary, "wb") as file:
                # No name and no time in the header: the same trace gives the same bytes.
                with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:
                    packed.write(json.dumps(trace).encode())
        except OSError as error:
            raise UserError(f"{out}: cannot write the trace ({error.strerror or error})") from error
    return torch.cuda.max_memory_allocated() - held if device == "cuda" else peak_of(trace["traceEvents"])


def peak_of(events: list[dict]) -> int:
    """The highest sum of what a trace's memory events on the CPU allocate and free, in bytes, from 0 at its start."""
    changes = [
        (event["ts"], event["args"]["Bytes"])
        for event in events
        if event.get("name") == "[memory]" and event["args"].get("Device Type") == 0
    ]
    total = peak = 0
    for _, change in sorted(changes, key=lambda change: change[0]):
        total += change
        peak = max(peak, total)
    return peak


def _read_trace(running: torch.profiler.profile) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        running.export_chrome_trace(str(path))
        trace = json.loads(path.read_text(encoding="utf-8"))
    return {key: value for key, value in trace.items() if key not in _PRIVATE}
