"""Machine code for this processor: how wide its vectors are, functions loaded into the process, and their threads.

Loading code from disk takes llvmlite alone. numba can keep its functions on disk too, but importing it and setting up
its compiler takes most of a second, ten times as long as loading the code.

A function runs on torch's own threads where possible: torch on Linux computes on the threads of GNU OpenMP, which a C
function starts. They stay awake for some milliseconds after any parallel operation, so that starting them then costs a
microsecond; a thread that sleeps costs thirty or more. Elsewhere a Python thread pool does it, and so it does in a
forked child, where OpenMP still counts on threads that were not inherited.
"""

import ctypes
import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from triadbench.kernels.object_cache import ObjectCache

_loading = threading.Lock()
_engines: list = []  # they own the code
_forked = False
entry = functools.cache(ctypes.CFUNCTYPE(None, ctypes.c_void_p))  # of the address of void f(int64 *job): f for Python


@functools.cache
def host_lanes(float_bytes: int) -> int:
    """Numbers of that size in a vector register of this machine, which holds at least 128 bits."""
    features = host_processor()[1]
    return (64 if "+avx512f" in features else 32 if "+avx" in features else 16) // float_bytes


@functools.cache
def host_processor() -> tuple[str, tuple[str, ...]]:
    """LLVM's name of this processor and its features."""
    llvm = _llvm()
    return llvm.get_host_cpu_name(), tuple(llvm.get_host_cpu_features().flatten().split(","))


def load(cache: ObjectCache, settings: tuple, symbol: str, compile_code: Callable[[], bytes]) -> int:
    """Address of a function of this processor's machine code.

    Args:
        cache: where the code is kept; settings: what tells it from the cache's other code.
        symbol: the function's name.
        compile_code: object code that defines it; called where the disk has none.
    """
    with _loading:
        llvm = _llvm()
        code = cache.code(f"{cache.key(settings, host_processor())}.o", compile_code)
        target = llvm.Target.from_default_triple().create_target_machine()
        engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target)
        engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        engine.finalize_object()
        _engines.append(engine)
        return engine.get_function_address(symbol)


def object_code(llvm_ir: str) -> bytes:
    """Object code for this processor of a module in LLVM's language."""
    llvm = _llvm()
    name, features = host_processor()
    target = llvm.Target.from_default_triple().create_target_machine(cpu=name, features=",".join(features), opt=3)
    return target.emit_object(llvm.parse_assembly(llvm_ir))


@functools.cache
def _llvm() -> Any:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm


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
