"""Loading the compiled kernel on a GPU and launching it, through CUDA's driver interface.

numba's own launcher would convert and type every argument at every call; here pointers and 32-bit scalars go straight
to the driver. Code is loaded in the device's primary context, the one torch works in.
"""

import ctypes
import dataclasses
import functools
from typing import Any

from triadbench.kernels.gpu import compile as gpu_compile
from triadbench.kernels.gpu.plan import Plan

KINDS = (  # of the kernel's parameters
    *(ctypes.c_void_p,) * 4,  # wave, out, tables, bands
    *(ctypes.c_uint32,) * 3,  # time, n_frames, n_tiles
    *(ctypes.c_int32,) * 3,  # hop, lead, pad
    ctypes.c_uint32,  # n_mels
    *(ctypes.c_float,) * 2,  # eps, half_power
)
_STATIC_SHARED_LIMIT = 48 * 1024  # bytes of shared memory that a block gets without asking


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A kernel loaded on one device: the driver's function and context handles, and how a block is made."""

    function: Any
    context: Any
    threads: int
    shared_bytes: int


def launch(kernel: Kernel, n_blocks: int, pointers: tuple, scalars: tuple, stream: int) -> None:
    """One launch on a stream handle; does not wait. Raises RuntimeError with the driver's name of an error."""
    driver = _driver()
    other_context = int(_checked(driver.cuCtxGetCurrent())) != int(kernel.context)
    if other_context:  # a thread that has not used this device yet, or works on another
        _checked(driver.cuCtxPushCurrent(kernel.context))
    try:
        grid, block = (n_blocks, 1, 1), (kernel.threads, 1, 1)
        parameters = ((*pointers, *scalars), KINDS)
        _checked(driver.cuLaunchKernel(kernel.function, *grid, *block, kernel.shared_bytes, stream, parameters, 0))
    finally:
        if other_context:
            _checked(driver.cuCtxPopCurrent())


@functools.cache
def kernel(plan: Plan, device: int) -> Kernel:  # pragma: no cover (needs a GPU)
    """The kernel on this device (torch's index), compiled or read from the disk once."""
    import torch

    driver = _driver()
    with torch.cuda.device(device):
        torch.empty(1, device="cuda")  # torch makes its context current in this thread
        context = _checked(driver.cuCtxGetCurrent())
        capability = torch.cuda.get_device_capability()
        if capability < gpu_compile.OLDEST:
            needed, present = (".".join(map(str, version)) for version in (gpu_compile.OLDEST, capability))
            raise RuntimeError(
                f"backend='cuda' needs compute capability {needed}, this GPU has {present}; use another backend"
            )
        code = gpu_compile.machine_code(plan, "sm_{}{}".format(*capability))
        module = _checked(driver.cuModuleLoadData(code))
        function = _checked(driver.cuModuleGetFunction(module, gpu_compile.ENTRY.encode()))
        if plan.shared_bytes > _STATIC_SHARED_LIMIT:
            attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            _checked(driver.cuFuncSetAttribute(function, attribute, plan.shared_bytes))
    return Kernel(function, context, plan.threads, plan.shared_bytes)


@functools.cache
def _driver() -> Any:
    from cuda.bindings import driver

    _checked(driver.cuInit(0))
    return driver


def _checked(status_and_result: tuple) -> Any:
    """The driver's result, without its error code; raises RuntimeError for an error."""
    error, *result = status_and_result
    if int(error):
        raise RuntimeError(f"CUDA driver: {error.name}; run with CUDA_LAUNCH_BLOCKING=1 to find an earlier cause")
    return result[0] if result else None
