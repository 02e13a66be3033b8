"""From a plan to machine code: program text -> numba -> PTX -> machine code for one GPU, each kept on disk.

The PTX is made for the oldest GPU that the plans fit and serves every later one: nothing in it depends on the GPU. A
process that finds the machine code on disk (kernels/object_cache.py) loads neither numba nor a compiler. Prebuilt code
may be carried to a machine without compilers; its files are named by what decides the code, not by any tool's version.
"""

import hashlib
import importlib.util
import re
import shutil
import subprocess
import threading
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from triadbench.kernels.gpu import memory as gpu_memory
from triadbench.kernels.gpu import source
from triadbench.kernels.gpu.plan import Plan
from triadbench.kernels.object_cache import ObjectCache, write
from triadbench.kernels.scratch import scratch_folder

ENTRY = "mel"  # the kernel's name in PTX and machine code
OLDEST = (8, 0)  # compute capability
# NVVM stamps its own PTX version, which older assemblers and drivers refuse; what the kernels use is in this one.
_PTX_VERSION = "8.0"
_SOURCES = ("gpu/compile.py", "gpu/memory.py")  # the program text that they compile is part of the key
PREBUILT = Path(__file__).parent / "prebuilt"  # filled by `prebuild` alone, otherwise only read
_CACHE = ObjectCache("mel_cuda", _SOURCES, ("numba-cuda", "numba", "nvidia-nvvm", "nvidia-nvjitlink", "triton"))
_compiling = threading.RLock()  # numba's compiler takes one at a time


def ptx(plan: Plan) -> str:
    """The kernel `mel` as PTX text, from the disk where it is there. Raises RuntimeError where it has to be compiled
    and cannot be."""

    def compiled() -> bytes:
        try:
            return compile_ptx(plan).encode()
        except Exception as error:  # whatever a missing NVVM or unlike versions of numba and numpy break
            raise RuntimeError(
                f"the mel kernel for n_fft={plan.n_fft} is not prebuilt, and cannot be compiled here: {error!r}; "
                "run `python cli.py kernel --prebuild` where numba-cuda[cu13] works, and copy the folder "
                "kernels/gpu/prebuilt to this machine"
            ) from error

    return _CACHE.code(f"{_key(plan)}.ptx", compiled, _prebuilt(plan, "ptx")).decode()


def machine_code(plan: Plan, arch: str) -> bytes:
    """The kernel assembled for e.g. "sm_90", from the disk where it is there. Raises RuntimeError as `ptx`."""
    file = _prebuilt(plan, f"{arch}.cubin")
    return _CACHE.code(f"{_key(plan)}.{arch}.cubin", lambda: _assemble(ptx(plan), arch), file)


def prebuild(plan: Plan, archs: Iterable[str]) -> list[Path]:
    """Write the PTX, and the machine code for each of `archs`, into the folder PREBUILT; returns the files."""
    codes = {"ptx": ptx(plan).encode()} | {f"{arch}.cubin": machine_code(plan, arch) for arch in archs}
    files = {_prebuilt(plan, suffix): code for suffix, code in codes.items()}
    for file, code in files.items():
        write(file, code)
    return list(files)


def _key(plan: Plan) -> str:
    return _CACHE.key(plan, source.program(plan))


def _prebuilt(plan: Plan, suffix: str) -> Path:
    text, constants = source.program(plan)
    numbers = [(name, float(value)) for name, value in constants.items()]  # numpy's versions show theirs differently
    decides = [text, numbers, plan.threads, plan.in_dtype, _CACHE.sources_digest]
    return PREBUILT / f"{hashlib.sha256(repr(decides).encode()).hexdigest()[:32]}.{suffix}"


def function(text: str, names: dict[str, Any]) -> Callable:
    """The function that a program text defines, over `names`."""
    scope = dict(names)
    exec(compile(text, "<mel kernel>", "exec"), scope)
    return scope["kernel"]


def compile_ptx(plan: Plan) -> str:
    """`ptx` without the disk; takes seconds."""
    with _compiling, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numba's, of what it is: no advice to the caller
        from numba import cuda

        text, constants = source.program(plan)
        kernel = function(text, gpu_memory.device_names() | constants)
        signature = gpu_memory.signature(plan.in_dtype)
        options: dict[str, Any] = {"device": False, "abi": "numba", "cc": OLDEST, "output": "ptx"}
        text, _ = cuda.compile(kernel, signature, launch_bounds=plan.threads, **options)
    (name,) = re.findall(r"\.entry\s+([\w$]+)\(", text)
    text = re.sub(r"^\.version .*$", f".version {_PTX_VERSION}", text.replace(name, ENTRY), flags=re.MULTILINE)
    # Most loops run a few times: what the assembler would make of them is longer than what it saves.
    for label in set(re.findall(r"bra(?:\.uni)? \t?(\$\w+);", text)):
        before, after = text.split(f"\n{label}:", 1)
        if re.search(rf"bra(?:\.uni)? \t?{re.escape(label)};", after):
            text = f'{before}\n{label}:\n\t.pragma "nounroll";{after}'
    # Groups are read 16 bytes at a time; numba declares the alignment of one float.
    return re.sub(r"(\.extern \.shared) \.align 4 ", r"\1 .align 16 ", text)


def tool(name: str) -> str | None:
    """Path of ptxas, nvdisasm and such: in triton, which torch brings on Linux, or on PATH; None where it is not."""
    triton = importlib.util.find_spec("triton")
    for folder in (triton and triton.submodule_search_locations) or ():
        program = Path(folder, "backends", "nvidia", "bin", name)
        if program.is_file():
            return str(program)
    return shutil.which(name)


def _assemble(text: str, arch: str) -> bytes:
    """By ptxas, whose code static_analysis.py describes, or for GPUs that it does not know by the linker's assembler.

    That one is newer, and takes a quarter to a half more registers (CUDA 13.0 against 12.8): fewer blocks fit.
    """
    if program := tool("ptxas"):
        with scratch_folder() as folder:
            ptx_file, cubin = folder / "mel.ptx", folder / "mel.cubin"
            ptx_file.write_text(text)
            command = [program, f"-arch={arch}", str(ptx_file), "-o", str(cubin)]
            if subprocess.run(command, capture_output=True).returncode == 0:
                return cubin.read_bytes()
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
