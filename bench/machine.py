"""What machine a number came from: the environment block of every record, and the machine's own measured peaks.

No host names, user names or paths: records are published.
"""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from triadbench.core.constants import VERSION, usable_cores
from triadbench.core.files import PACKAGE

_PACKAGES = ("numpy", "torch", "torchaudio", "scipy", "numba", "soundfile", "soxr", "plotly", "onnxruntime-gpu")
_FEATURES = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_tile", "asimd", "sve")


def environment() -> dict:
    """The environment block of a record: plain JSON values, None where a thing is absent or cannot be known.

    Returns:
        `time` (UTC, ISO 8601), `commit`, `dirty`, `triadbench`, `python`, `versions`, `os`, `cpu`, `cpu_features`,
        `cores_physical`, `cores_logical` (of the machine), `cores_usable` (by this process), `ram_gb`,
        `torch_threads`, `omp_wait_policy`, `gpu` and `gpu_driver`.
    """
    import psutil
    import torch

    name, features = _cpu()
    return {
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        **_commit(),
        "triadbench": VERSION,
        "python": platform.python_version(),
        "versions": _versions(),
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": name,
        "cpu_features": features,
        "cores_physical": psutil.cpu_count(logical=False),
        "cores_logical": psutil.cpu_count(logical=True),
        "cores_usable": usable_cores(),
        "ram_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "torch_threads": torch.get_num_threads(),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY"),
        **_gpu(),
    }


def measure_peaks(min_time_s: float = 0.3) -> dict:
    """What this machine reaches at best with torch's present thread count, by trying, not by data sheet.

    Returns:
        `copy_gb_per_s`: the fastest float32 copy, bytes read plus bytes written, 10^9 bytes a second.
        `copy_ms`: every copy's time in milliseconds.
        `copy_bytes`: bytes moved by one copy.
        `float32_gflop_per_s`: the fastest float32 matrix product, 2 n^3 operations, 10^9 a second.
        `matmul_ms`: every product's time in milliseconds.
        `matmul_flops`: operations of one product.
    """
    import torch

    source = torch.ones(32 * 1024 * 1024, dtype=torch.float32)  # 128 MB: memory, not a cache, on most machines
    target = torch.empty_like(source)
    copy_ms = _times_ms(lambda: target.copy_(source), min_time_s)
    copy_bytes = 2 * source.numel() * source.element_size()
    n = 1536  # large enough to hide the call, small enough for many samples
    a, b = torch.randn(2, n, n, generator=torch.Generator().manual_seed(0))
    product = torch.empty(n, n)
    matmul_ms = _times_ms(lambda: torch.matmul(a, b, out=product), min_time_s)
    # The minimum, not the median: a peak is what the machine can do when nothing disturbs it.
    return {
        "copy_gb_per_s": copy_bytes / min(copy_ms) / 1e6,
        "copy_ms": copy_ms,
        "copy_bytes": copy_bytes,
        "float32_gflop_per_s": 2 * n**3 / min(matmul_ms) / 1e6,
        "matmul_ms": matmul_ms,
        "matmul_flops": 2 * n**3,
    }


def _times_ms(function: Callable[[], object], min_time_s: float) -> list[float]:
    function()
    samples, start = [], time.perf_counter()
    while not samples or time.perf_counter() - start < min_time_s:
        before = time.perf_counter()
        function()
        samples.append(1e3 * (time.perf_counter() - before))
    return samples


def _commit() -> dict:
    """The commit of the code that runs, and whether tracked files differ from it. None without git or a clone."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(PACKAGE), *arguments],
                capture_output=True,
                text=True,
                timeout=10,
                stdin=subprocess.DEVNULL,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # An installed copy inside some other repository must not report that one's commit.
    if not (PACKAGE / ".git").exists():
        return {"commit": None, "dirty": None}
    commit = git("rev-parse", "--verify", "HEAD")
    status = git("status", "--porcelain", "--untracked-files=no") if commit else None
    return {"commit": commit, "dirty": None if status is None else bool(status)}


def _versions() -> dict[str, str | None]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def _cpu() -> tuple[str | None, list[str]]:
    """Model name and those of `_FEATURES` that it has, from /proc/cpuinfo; elsewhere what Python knows."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or None, []
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    return fields.get("model name") or platform.processor() or None, [name for name in _FEATURES if name in flags]


def _gpu() -> dict:
    import torch

    if not torch.cuda.is_available():
        return {"gpu": None, "gpu_driver": None}
    return {"gpu": torch.cuda.get_device_name(0), "gpu_driver": _gpu_driver()}


def _gpu_driver() -> str | None:
    try:
        return Path("/sys/module/nvidia/version").read_text().strip()
    except OSError:
        pass
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=10,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.splitlines()[0].strip() if done.returncode == 0 and done.stdout.strip() else None
