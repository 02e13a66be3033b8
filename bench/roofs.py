"""The roofs of the machine, measured with a given number of threads: arithmetic, memory, and each level of cache.

A cache's rate is that of a compiled loop b[i] = a[i] + c (float32, bytes read plus bytes written) over arrays that
fill half of that cache, one pair of arrays a thread. Needs numba; without it only memory and arithmetic are measured.
"""

from __future__ import annotations

import contextlib
import functools
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from triadbench.bench import machine

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def measure(threads: int, min_time_s: float) -> dict[str, dict]:
    """Roofs of the CPU by name: `memory`, `arithmetic`, and `L1`, `L2`, `L3` where the system tells their sizes.

    Returns:
        for each: `samples_ms` and either `bytes_moved` or `flops` of one sample. The best sample is the roof.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        peaks = machine.measure_peaks(min_time_s)
    finally:
        torch.set_num_threads(before)
    roofs = {
        "memory": {"samples_ms": peaks["copy_ms"], "bytes_moved": peaks["copy_bytes"]},
        "arithmetic": {"samples_ms": peaks["matmul_ms"], "flops": peaks["matmul_flops"]},
    }
    with contextlib.suppress(ImportError):
        for name, size in cache_sizes(threads).items():
            roofs[name] = _cache_rate(size, threads, min_time_s)
    return roofs


def gpu(min_time_s: float) -> dict[str, dict]:
    """`memory` and `arithmetic` of the current CUDA device, float32 without TF32, as `measure` gives them."""
    import torch

    from triadbench.core.timing import measure as alternate

    source = torch.ones(256 * 1024 * 1024, device="cuda")
    target = torch.empty_like(source)
    n = 8192
    a, b, product = (torch.ones(n, n, device="cuda") for _ in range(3))
    timed = alternate(
        {"memory": lambda: target.copy_(source), "arithmetic": lambda: torch.matmul(a, b, out=product)},
        rounds=5,
        min_time_s=min_time_s,
        device="cuda",
    )
    return {
        "memory": {"samples_ms": list(timed["memory"].samples_ms), "bytes_moved": 8 * source.numel()},
        "arithmetic": {"samples_ms": list(timed["arithmetic"].samples_ms), "flops": 2 * n**3},
    }


def cache_sizes(threads: int) -> dict[str, int]:
    """Bytes of each data cache that one of `threads` threads may count on; empty where the system does not tell."""
    sizes = {}
    for folder in sorted(_CACHES.glob("index*")):
        try:
            kind, level = (folder / "type").read_text().strip(), int((folder / "level").read_text())
            text, shared = (folder / "size").read_text().strip(), (folder / "shared_cpu_list").read_text()
        except (OSError, ValueError):
            continue
        if kind in ("Data", "Unified") and text.endswith("K"):
            is_shared = any(mark in shared for mark in ",-")
            sizes[f"L{level}"] = int(text[:-1]) * 1024 // (threads if is_shared else 1)
    return sizes


@functools.cache
def _loop():
    import numba
    import numpy as np

    @numba.njit("void(float32[::1], float32[::1], int64)", nogil=True, fastmath=True)
    def sweep(source, target, times):
        for turn in range(times):
            add = np.float32(turn)
            for i in range(len(source)):
                target[i] = source[i] + add

    return sweep


def _cache_rate(size: int, threads: int, min_time_s: float) -> dict:
    import numpy as np

    sweep, length = _loop(), max(256, size // 2 // 8)  # two arrays of 4-byte values in half of the cache
    pairs = [(np.ones(length, np.float32), np.empty(length, np.float32)) for _ in range(threads)]
    times = max(1, 64 * 1024 * 1024 // (8 * length))  # about a millisecond or more a sample
    samples_ms, start = [], time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        while not samples_ms or time.perf_counter() - start < min_time_s:
            before = time.perf_counter()
            list(pool.map(lambda pair: sweep(*pair, times), pairs))
            samples_ms.append(1e3 * (time.perf_counter() - before))
    return {"samples_ms": samples_ms, "bytes_moved": 8 * length * times * threads}
