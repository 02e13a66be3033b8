"""Machine code of the CPU kernel on disk, so that a second process starts at once: it needs llvmlite alone.

numba can keep its own functions on disk, but importing numba and making its compiler ready takes most of a second,
which is ten times what loading the code takes. So the compiled object goes into a file of ours, and numba is imported
only where there is none for this processor, these sources and this version of numba.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import os
import pathlib
import sys
import tempfile
import threading

import llvmlite.binding as llvm

_FOLDER = pathlib.Path(__file__).parent
_SOURCES = ("cpu/kernel.py", "cpu/codelets.py", "cpu/simd.py", "cpu/dft.py", "cpu/plan.py", "spec.py")

_loading = threading.Lock()
_engines: list = []  # they own the code


@functools.cache
def host_lanes(float_bytes: int) -> int:
    """Lanes that fill this machine's vector registers (at least 128 bits) with numbers of that size."""
    features = _host_features()
    return (64 if "+avx512f" in features else 32 if "+avx" in features else 16) // float_bytes


@functools.cache
def kernel(lanes: int, in_dtype: str, dtype: str) -> int:
    """Address of the compiled loop, void f(int64 *job), for a job as kernels/cpu/plan.py lays it out."""
    with _loading:
        key = _key(lanes, in_dtype, dtype)
        address = _load(*_read(key))
        if address is None:
            from triadbench.kernels.cpu import kernel as numba_kernel

            name, code = numba_kernel.compile_kernel(lanes, in_dtype, dtype)
            _write(key, name, code)
            address = _load(name, code)
    return address


def _key(*settings) -> str:
    """File name: everything that the machine code depends on."""
    digest = hashlib.sha256()
    for name in _SOURCES:
        digest.update((_FOLDER / name).read_bytes())
    versions = [importlib.metadata.version(name) for name in ("numba", "llvmlite")]
    digest.update(repr([settings, versions, sys.version_info[:2], llvm.get_host_cpu_name(), _host_features()]).encode())
    return f"mel-{digest.hexdigest()[:32]}.o"


@functools.cache
def _host_features() -> tuple[str, ...]:
    return tuple(llvm.get_host_cpu_features().flatten().split(","))


def _folders() -> list[pathlib.Path]:
    """Where the files may lie, best first: beside the sources, else in the user's cache."""
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return [pathlib.Path(chosen)] if chosen else [_FOLDER / "__pycache__", pathlib.Path(home) / "triadbench"]


def _read(key: str) -> tuple[str, bytes]:
    """Name and code, both empty where there is no whole file: its digest, the function's name and the code."""
    for folder in _folders():
        try:
            digest, name, code = (folder / key).read_bytes().split(b"\n", 2)
        except (OSError, ValueError):
            continue
        if hashlib.sha256(name + code).hexdigest().encode() == digest:
            return name.decode(), code
    return "", b""


def _write(key: str, name: str, code: bytes) -> None:
    """Into the first folder that takes it; none is no error, the next process compiles again."""
    digest = hashlib.sha256(name.encode() + code).hexdigest()
    for folder in _folders():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = tempfile.NamedTemporaryFile(dir=folder, delete=False)
        except OSError:
            continue
        try:
            with file:
                file.write(f"{digest}\n{name}\n".encode() + code)
            os.chmod(file.name, 0o644)
            os.replace(file.name, folder / key)  # whole or not at all, whoever else writes
            return
        except OSError:
            with contextlib.suppress(OSError):
                os.remove(file.name)


def _load(name: str, code: bytes) -> int | None:
    """The address of the function in this process; None for no code."""
    if not name:
        return None
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple().create_target_machine()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _engines.append(engine)
    return engine.get_function_address(name)
