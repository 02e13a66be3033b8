"""Machine code for this processor: how wide its vectors are, and compiled functions loaded into the process.

Loading code from disk takes llvmlite alone. numba can keep its functions on disk too, but importing it and setting up
its compiler takes most of a second, ten times as long as loading the code.
"""

import functools
import threading
from collections.abc import Callable
from typing import Any

from triadbench.kernels.object_cache import ObjectCache

_loading = threading.Lock()
_engines: list = []  # they own the code


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
