"""Runs one compiled function on several threads at once.

On torch's own threads where possible: torch on Linux computes on the threads of GNU OpenMP, which a C function starts.
They stay awake for some milliseconds after any parallel operation, so that starting them then costs a microsecond; a
thread that sleeps costs thirty or more. Elsewhere a Python thread pool does it, and so it does in a forked child, where
OpenMP still counts on threads that were not inherited.
"""

import ctypes
import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

_ENTRY = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_forked = False


@functools.cache
def entry(address: int) -> Callable[[int], None]:
    """The compiled void f(int64 *job) at this address as a Python function of the job's address."""
    return _ENTRY(address)


def run(address: int, job: int, n_threads: int) -> str:
    """Call void f(void *job) at `address` on this thread and n_threads - 1 others, at the same time.

    One call of f must do all the work if the others come late, or not at all. Releases Python's lock meanwhile. Returns
    where it ran: "caller", "openmp" or "pool".
    """
    if n_threads == 1:
        entry(address)(job)
        return "caller"
    parallel = _openmp()
    if parallel is not None and not _forked:
        parallel(address, job, n_threads, 0)
        return "openmp"
    return run_on_pool(address, job, n_threads)


def run_on_pool(address: int, job: int, n_threads: int) -> str:
    """`run` without a search for OpenMP, which would be remembered as missing if torch is imported later."""
    work, pool = entry(address), _pool(n_threads - 1)
    helpers = [pool.submit(work, job) for _ in range(n_threads - 1)]
    try:
        work(job)
    finally:
        for helper in helpers:
            if not helper.cancel():  # cancelled: it had not begun, and by now nothing is left
                helper.result()
    return "pool"


@functools.cache
def _openmp() -> Any:
    """GOMP_parallel(function, argument, threads, flags) of the library that torch has loaded, or None."""
    try:
        parallel = ctypes.CDLL(None).GOMP_parallel
    except (AttributeError, OSError, TypeError):  # another OpenMP; no search of the process on Windows
        return None
    parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    parallel.restype = None
    return parallel


@functools.cache
def _pool(n_threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n_threads, thread_name_prefix="mel")


def _after_fork() -> None:
    global _forked
    _forked = True
    _pool.cache_clear()  # its threads stayed behind too


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
