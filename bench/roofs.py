"""The roofs of the machine, measured, not read from a data sheet: arithmetic, memory, and each level of cache.

Memory is a float32 copy (bytes read plus bytes written), arithmetic a float32 matrix product (2 n^3 operations).
A cache's rate is that of a compiled loop b[i] = a[i] + c (float32, bytes read plus bytes written) over arrays that
fill half of that cache, one pair of arrays a thread. Needs numba; without it only memory and arithmetic are measured.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from triadbench.core import timing

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_SIZES = {"cpu": (32 << 20, 1536), "cuda": (256 << 20, 8192)}
"""Values of the copy, beyond every cache, and side of the matrices: large enough to hide the call, small enough for
many samples."""


def measure(threads: int, min_time_s: float, device: str = "cpu") -> dict[str, dict]:
    """Roofs by name: `memory`, `arithmetic`, and on a CPU `L1`, `L2`, `L3` where the system tells their sizes.

    Of each: `samples_ms` and either `bytes_moved` or `flops` of one sample. The best sample, undisturbed, is the roof.
    """
    n_values, n = _SIZES[device]
    source = torch.ones(n_values, device=device)
    target = torch.empty_like(source)
    a, b, product = (torch.ones(n, n, device=device) for _ in range(3))
    contestants: dict[str, Callable[[], object]] = {"memory": lambda: target.copy_(source)}
    contestants["arithmetic"] = lambda: torch.matmul(a, b, out=product)
    work = {"memory": {"bytes_moved": 8 * n_values}, "arithmetic": {"flops": 2 * n**3}}
    with torch_threads(threads), ThreadPoolExecutor(threads) as pool:
        with contextlib.suppress(ImportError):
            for name, size in cache_sizes(threads).items() if device == "cpu" else ():
                contestants[name], work[name] = _cache_sweep(size, threads, pool)
        # Whoever has run for `min_time_s` sits out, so that a matrix product does not run as often as a cache's loop.
        limits: dict[str, Any] = {"share_s": min_time_s, "min_time_s": min_time_s, "max_time_s": float("inf")}
        timed = timing.measure(contestants, rounds=1, min_sample_s=0.0, warmup=0, device=device, **limits)
    return {name: {"samples_ms": list(timed[name].samples_ms), **work[name]} for name in timed}


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """So many threads for torch while this is open."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def cache_sizes(threads: int) -> dict[str, int]:
    """Bytes of each data cache that one of `threads` threads may count on; empty where the system does not tell."""
    sizes = {}
    for folder in sorted(_CACHES.glob("index*")):
        with contextlib.suppress(OSError):
            names = ("type", "level", "size", "shared_cpu_list")
            kind, level, size, cpus = ((folder / name).read_text().strip() for name in names)
            if kind in ("Data", "Unified") and size.endswith("K"):
                is_shared = "," in cpus or "-" in cpus
                sizes[f"L{level}"] = int(size[:-1]) * 1024 // (threads if is_shared else 1)
    return sizes


@functools.cache
def _loop():  # pragma: no cover (numba compiles the body)
    import numba

    @numba.njit("void(float32[::1], float32[::1], int64)", nogil=True, fastmath=True)
    def sweep(source, target, times):
        for turn in range(times):
            add = np.float32(turn)
            for i in range(len(source)):
                target[i] = source[i] + add

    return sweep


def _cache_sweep(size: int, threads: int, pool: ThreadPoolExecutor) -> tuple[Callable[[], object], dict[str, int]]:
    """(a millisecond or more of sweeps in a cache of `size` bytes, their work)."""
    sweep, length = _loop(), max(256, size // 2 // 8)  # two arrays of 4-byte values in half of the cache
    pairs = [(np.ones(length, np.float32), np.empty(length, np.float32)) for _ in range(threads)]
    times = max(1, 64 * 1024 * 1024 // (8 * length))
    work = {"bytes_moved": 8 * length * times * threads}
    return lambda: list(pool.map(lambda pair: sweep(*pair, times), pairs)), work
