"""From a plan to machine code: program text -> numba -> PTX -> machine code for one GPU, each kept on disk.

The PTX is made for the oldest GPU that the plans fit and serves every later one: nothing in it depends on the GPU. A
process that finds the machine code on disk loads neither numba nor a compiler. The files lie in kernels/__pycache__,
or where that cannot be written in ~/.cache/triadbench, or in NUMBA_CACHE_DIR where it is set; their names cover
the program text and the compilers' versions, so an edit never meets old code.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
import threading
import warnings
from pathlib import Path

from triadbench.kernels.gpu import memory as cuda_memory
from triadbench.kernels.gpu import source as cuda_source
from triadbench.kernels.gpu.plan import Plan

ENTRY = "mel"  # the kernel's name in PTX and machine code
OLDEST = (8, 0)  # compute capability
# NVVM stamps its own PTX version, which older assemblers and drivers refuse; what the kernels use is in this one.
_PTX_VERSION = "8.0"
_compiling = threading.RLock()  # numba's compiler takes one at a time


def ptx(plan: Plan) -> str:
    """The kernel `mel` as PTX text, from the disk where it is there. Raises ImportError without numba-cuda."""
    return _kept(f"{_key(plan)}.ptx", lambda: compile_ptx(plan).encode()).decode()


def machine_code(plan: Plan, arch: str) -> bytes:
    """The kernel assembled for e.g. "sm_90", from the disk where it is there."""
    return _kept(f"{_key(plan)}.{arch}.cubin", lambda: _assemble(ptx(plan), arch))


def function(plan: Plan, names: dict, edits: tuple[tuple[str, str], ...] = ()):
    """The program text as a Python function over `names`, before any compiling.

    edits   (old, new) texts, for tests. Raises ValueError where an old one does not occur.
    """
    text, constants = cuda_source.program(plan)
    for old, new in edits:
        if old not in text:
            raise ValueError(f"edits: {old!r} does not occur in the program text; see cuda_source.program")
        text = text.replace(old, new)
    scope = dict(names) | constants
    exec(compile(text, f"<mel kernel for n_fft={plan.n_fft}>", "exec"), scope)
    return scope["kernel"]


def compile_ptx(plan: Plan) -> str:
    """`ptx` without the disk; takes seconds."""
    with _compiling, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numba's, of what it is: no advice to the caller
        from numba import cuda

        kernel = function(plan, cuda_memory.device_names())
        signature = cuda_memory.signature(plan.in_dtype)
        text, _ = cuda.compile(
            kernel, signature, device=False, abi="numba", cc=OLDEST, launch_bounds=plan.threads, output="ptx"
        )
    name = re.search(r"\.entry\s+([\w$]+)\(", text).group(1)
    text = re.sub(r"^\.version .*$", f".version {_PTX_VERSION}", text.replace(name, ENTRY), flags=re.MULTILINE)
    # Pairs are read 8 bytes at a time; numba declares the alignment of one float.
    return re.sub(r"(\.extern \.shared) \.align 4 ", r"\1 .align 16 ", text)


def tool(name: str) -> str | None:
    """Path of ptxas, nvdisasm and such: in triton, which torch brings on Linux, or on PATH; None where it is not."""
    found = importlib.util.find_spec("triton")
    for folder in found.submodule_search_locations if found else ():
        program = Path(folder, "backends", "nvidia", "bin", name)
        if program.is_file():
            return str(program)
    return shutil.which(name)


def _assemble(text: str, arch: str) -> bytes:
    """By ptxas, whose code is what cuda_static describes. The linker's newer assembler, for GPUs that this ptxas does
    not know, takes a quarter to a half more registers (CUDA 13.0 against 12.8), and fewer blocks fit."""
    if program := tool("ptxas"):
        with tempfile.TemporaryDirectory() as folder:
            source, code = Path(folder, "mel.ptx"), Path(folder, "mel.cubin")
            source.write_text(text)
            done = subprocess.run([program, f"-arch={arch}", str(source), "-o", str(code)], capture_output=True)
            if done.returncode == 0:
                return code.read_bytes()
    return _link(text, arch)


def _link(text: str, arch: str) -> bytes:
    from cuda.bindings import nvjitlink

    handle = nvjitlink.create(2, [f"-arch={arch}", "-O3"])
    try:
        code = text.encode()
        try:
            nvjitlink.add_data(handle, nvjitlink.InputType.PTX, code, len(code), ENTRY)
            nvjitlink.complete(handle)
        except nvjitlink.nvJitLinkError as error:
            log = bytearray(nvjitlink.get_error_log_size(handle))
            nvjitlink.get_error_log(handle, log)
            raise RuntimeError(f"the mel kernel cannot be assembled for {arch}: {error}; {log.decode()}") from error
        result = bytearray(nvjitlink.get_linked_cubin_size(handle))
        nvjitlink.get_linked_cubin(handle, result)
        return bytes(result)
    finally:
        nvjitlink.destroy(handle)


# ---- the disk


def _key(plan: Plan) -> str:
    text, constants = cuda_source.program(plan)
    covers = [text, repr(sorted(constants.items())), repr(plan), _sources(), _PTX_VERSION]
    return f"mel_cuda.{plan.n_fft}.{hashlib.sha256(chr(0).join(covers).encode()).hexdigest()[:24]}"


@functools.cache
def _sources() -> str:
    here = Path(__file__)
    texts = [path.read_text() for path in (here, here.with_name("memory.py"))]
    for package in ("numba-cuda", "numba", "nvidia-nvvm", "nvidia-nvjitlink", "triton"):
        try:
            texts.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            texts.append(f"{package} missing")
    return "\n".join(texts)


def _kept(name: str, make) -> bytes:
    folders = _folders()
    for folder in folders:
        try:
            return (folder / name).read_bytes()
        except OSError:
            continue
    made = make()
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
                file.write(made)
            os.replace(file.name, folder / name)  # another process may be writing the same: either is whole
            break
        except OSError:
            continue
    return made


def _folders() -> list[Path]:
    if chosen := os.environ.get("NUMBA_CACHE_DIR"):
        return [Path(chosen)]
    return [Path(__file__).with_name("__pycache__"), Path.home() / ".cache" / "triadbench"]
