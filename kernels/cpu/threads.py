"""Runs one compiled function on several threads at once, for kernels/cpu/mel_numba.py and numpy_mel.py.

torch's own threads where they can be had: torch on Linux computes on the threads of GNU OpenMP, and what starts them is
a C function that takes another. They wait awake for some milliseconds after any parallel operation of torch's, ours
included, so that starting them then costs a microsecond; a thread that sleeps costs thirty or more. Elsewhere, and in
a forked child, which has inherited none of OpenMP's threads but its belief in them, a pool of Python's.
"""

from __future__ import annotations

import ctypes
import functools
import os
from concurrent.futures import ThreadPoolExecutor

_ENTRY = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_forked = False


@functools.cache
def entry(address: int):
    """The compiled void f(int64 *job) at this address as a Python function of the job's address."""
    return _ENTRY(address)


def run(address: int, job: int, n_threads: int) -> str:
    """Call void f(void *job) at `address` on this thread and n_threads - 1 others, at the same time.

    f must be such that one call does all the work where the others come late, or not at all. Returns who ran:
    "caller", "openmp" or "pool". Gives up Python's lock meanwhile.
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
    """`run` where no OpenMP is to be looked for: what loads one, torch, may yet come."""
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
def _openmp():
    """GOMP_parallel(function, argument, threads, flags) of the library that torch has loaded, or None."""
    try:
        found = ctypes.CDLL(None).GOMP_parallel
    except (AttributeError, OSError, TypeError):  # another OpenMP; no search of the process on Windows
        return None
    found.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    found.restype = None
    return found


@functools.cache
def _pool(n_threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n_threads, thread_name_prefix="mel")


def _after_fork() -> None:
    global _forked
    _forked = True
    _pool.cache_clear()  # its threads stayed behind too


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
