"""What machine a number came from: the environment block of every record, and fresh processes to measure in.

No host names, user names or paths: records are published.
"""

import contextlib
import datetime
import functools
import hashlib
import os
import platform
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from triadbench.core import system
from triadbench.core.constants import VERSION, usable_cores
from triadbench.core.files import PACKAGE

_PACKAGES = (
    "numpy",
    "torch",
    "torchaudio",
    "scipy",
    "numba",
    "soundfile",
    "av",
    "soxr",
    "plotly",
    "onnxruntime-gpu",
    "onnxruntime",
)
_FEATURES = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_tile", "asimd", "sve")


class ProcessError(Exception):
    """A process failed; the last line of its complaint."""


REHEARSAL = "TRIADBENCH_REHEARSAL"
"""Environment variable: where it is set, every record says that it is of a rehearsal."""


def environment() -> dict:
    """The environment block of a record: plain JSON values, None where a thing is absent or cannot be known.

    `time` is UTC (ISO 8601), `cores_physical` and `cores_logical` are the machine's, `cores_usable` this process's.
    """
    import torch

    name, features = _cpu()
    has_gpu = torch.cuda.is_available()
    return {
        "time": utc_now(),
        **_commit(),
        "triadbench": VERSION,
        "python": platform.python_version(),
        "versions": {package: version_of(package) for package in _PACKAGES},
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": name,
        "cpu_features": features,
        "cores_physical": system.physical_cores(),
        "cores_logical": os.cpu_count(),
        "cores_usable": usable_cores(),
        "ram_gb": round(system.memory_bytes()[0] / 1e9, 1),
        "torch_threads": torch.get_num_threads(),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY"),
        "gpu": torch.cuda.get_device_name(0) if has_gpu else None,
        "gpu_driver": _gpu_driver() if has_gpu else None,
        **({"rehearsal": True} if REHEARSAL in os.environ else {}),
    }


@functools.cache
def source_digest(*patterns: str) -> str:
    """16 hex digits of our sources that match: the commit alone misses edits."""
    digest = hashlib.sha256()
    for path in sorted({path for pattern in patterns for path in PACKAGE.glob(pattern)}):
        digest.update(str(path.relative_to(PACKAGE)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def utc_now() -> str:
    """Now, as records state it."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def drain(device: str) -> None:
    """Wait until the GPU has done all that it was asked; on "cpu" nothing is ever waiting."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def run_process(command: Sequence[str], timeout_s: float = 300) -> str:
    """What a process prints on stdout. Raises ProcessError where it fails, is not there or does not end in time."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired as error:
        raise ProcessError(f"did not end within {timeout_s} s") from error
    except OSError as error:
        raise ProcessError(str(error)) from error
    if done.returncode != 0:
        raise ProcessError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    return done.stdout


def line_of(*command: str) -> str | None:
    """The first line that a quick command prints (perhaps empty); None where it fails."""
    with contextlib.suppress(ProcessError):
        return run_process(command, timeout_s=10).partition("\n")[0].strip()
    return None


def _commit() -> dict:
    """The commit of the code that runs, and whether tracked files differ from it. None without git or a clone."""
    # An installed copy inside some other repository must not report that one's commit.
    git = ("git", "-C", str(PACKAGE))
    commit = line_of(*git, "rev-parse", "--verify", "HEAD") if (PACKAGE / ".git").exists() else None
    status = line_of(*git, "status", "--porcelain", "--untracked-files=no") if commit else None
    return {"commit": commit, "dirty": None if status is None else bool(status)}


def version_of(package: str) -> str | None:
    """The version of an installed package; None without it."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return None


def _cpu() -> tuple[str | None, list[str]]:
    """Model name and those of `_FEATURES` that it has, from /proc/cpuinfo; elsewhere what Python knows."""
    path = Path("/proc/cpuinfo")
    lines = [line.partition(":") for line in path.read_text().splitlines()] if path.is_file() else []
    fields = {key.strip(): value.strip() for key, _, value in reversed(lines)}  # of the first core
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    return fields.get("model name") or platform.processor() or None, [name for name in _FEATURES if name in flags]


def _gpu_driver() -> str | None:
    path = Path("/sys/module/nvidia/version")
    if path.is_file():
        return path.read_text().strip()
    return line_of("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader") or None
