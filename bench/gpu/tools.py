"""Programs that a stage runs: found, given a time limit, and their output kept as far as it is read."""

import contextlib
import glob
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_FAREWELL_S = 2.0
_PLACES = ("/usr/local/cuda/bin", "/opt/nvidia/nsight-compute/*", "/usr/local/nvidia/bin")


def find(name: str) -> str | None:
    """Path of a program, on PATH or where CUDA is installed; None where it is not."""
    places = [*os.get_exec_path(), *(path for place in _PLACES for path in sorted(glob.glob(place), reverse=True))]
    return shutil.which(name, path=os.pathsep.join(places))


def run_tool(
    command: Sequence[str], limit_s: float, environment: Mapping[str, str] | None = None, folder: Path | None = None
) -> tuple[int | None, str]:
    """Run a program, with `environment` added to ours, in `folder`, and print what it printed.

    Returns (its exit code, None where it was ended after `limit_s` seconds; the last 2 MB that it printed).
    """
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.Popen(command, **pipes, env={**os.environ, **(environment or {})}, cwd=folder)
    kept = bytearray()
    reader = threading.Thread(target=keep_end, args=(process.stdout, kept, 2_000_000), daemon=True)
    reader.start()
    farewell_s = min(_FAREWELL_S, 0.2 * limit_s)
    try:
        code = process.wait(max(0.0, limit_s - farewell_s))
    except subprocess.TimeoutExpired:
        code = None
        process.send_signal(signal.SIGINT)  # pytest, for one, then tells what has failed until here
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(farewell_s)
        process.kill()
        process.wait()
    reader.join(1)  # what it started itself may hold the pipe open
    text = bytes(kept).decode(errors="replace")
    print(text, flush=True)
    return code, text


def keep_end(stream: Any, kept: bytearray, most: int) -> None:
    """Read a stream to its end, of which the last `most` bytes stay in `kept`."""
    with stream:
        while block := stream.read1(1 << 16):
            kept += block
            del kept[: max(0, len(kept) - most)]


def last_line(text: str) -> str:
    """The last line that says something, at most 300 characters of it."""
    lines = (" ".join(line.split()) for line in reversed(text.splitlines()))
    return next((line[:300] for line in lines if line), "it printed nothing")
