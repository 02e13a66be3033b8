"""Mel spectrogram on an NVIDIA GPU: one launch from samples to (log) mel, compiled by numba-CUDA.

    mel[m, t] = sum_k filterbank[m, k] |X[t, k]| ** power,  log mel = log(mel + eps)      (kernels/mel_reference.py)

(batch, time) float32 or int16 on the device -> (batch, n_mels, n_frames) float32 on it. A block takes a few consecutive
frames of a clip through a mixed-radix transform in shared memory to the sums of the filters (kernels/gpu/source.py);
n_fft is a product of 2, 3 and 5 whose frame fits shared memory (kernels/gpu/plan.py).

This file is the launcher: what is prepared once, the geometry, torch's side. A call reads torch's current stream,
allocates its output from torch, waits for nothing, and can be captured in a CUDA graph once the same settings have run
before on that device (the first call compiles and copies tables; during a capture it is refused). Tables that a
capture has used stay for good, since its graph holds their address; of others torch's allocator takes care, which is
told of every stream that reads them. Code is loaded in the device's primary context, the one torch works in. numba's
own launcher would convert and type every argument at every call; here pointers and 32-bit scalars go straight to the
driver.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import importlib.util
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from triadbench.kernels.gpu import compile as gpu_compile
from triadbench.kernels.gpu import plan as gpu_plan
from triadbench.kernels.gpu.memory import PARAMETERS
from triadbench.kernels.spec import INT16_FULL_SCALE, MelSpec
from triadbench.kernels.torch_operator import BoundedCache, identity, needs_operator, register_operator

if TYPE_CHECKING:
    import torch
    from torch import Tensor

COMPUTES_IN_FLOAT64 = False

LONGEST = 2**30  # samples of a clip, zeros and padding included: positions are 32-bit
_PREPARED_KEPT = 64  # settings that a process keeps ready
_C_TYPES = {"uint32": ctypes.c_uint32, "int32": ctypes.c_int32, "float32": ctypes.c_float}
KINDS = tuple(_C_TYPES.get(kind, ctypes.c_void_p) for kind in PARAMETERS.values())
_STATIC_SHARED_LIMIT = 48 * 1024  # bytes of shared memory that a block gets without asking


@functools.cache
def why_unavailable() -> str | None:
    """None, or why no kernel can run here. Loads neither numba nor a driver where torch sees no GPU."""
    import torch

    if torch.version.cuda is None:
        return "this torch is built without CUDA; install a CUDA build of torch"
    if not torch.cuda.is_available():
        return "torch finds no NVIDIA GPU; check the driver with nvidia-smi, or compute on the CPU"
    packages = {"numba_cuda": "numba-cuda[cu13]", "cuda": "cuda-bindings", "cuda.bindings": "cuda-bindings"}
    for module, package in packages.items():  # a parent first: without it there is no looking for its child
        if importlib.util.find_spec(module) is None:
            return f"{package} is not installed; pip install 'numba-cuda[cu13]'"
    register_operator("mel_cuda", compute, device_types="cuda")
    return None


def why_unsupported(spec: MelSpec, *, dtype: str, device: str, needs_gradient: bool) -> str | None:
    """What this backend lacks for such input, or None."""
    if reason := gpu_plan.why_not(spec.n_fft, spec.n_mels):  # first: it holds on every device
        return reason
    if device != "cuda":
        return f"it runs on an NVIDIA GPU and the input is on {device}"
    if needs_gradient:
        return "it has no gradient"
    return "it computes in float32 and the input is float64" if dtype == "float64" else None


def plan_for(
    spec: MelSpec, *, in_dtype: str = "float32", log: bool = False, filterbank: np.ndarray | None = None
) -> gpu_plan.Plan:
    """The kernel that such input takes; filterbank (n_mels, n_freqs), default the spec's own."""
    filters = spec.filterbank() if filterbank is None else filterbank
    # Without padding of either kind every frame lies inside its clip; `pad` alone puts zeros around.
    edge = spec.pad_mode if spec.center else "constant"
    power = {2.0: "power", 1.0: "magnitude"}.get(spec.power, "other")
    n_bins = 1 + int(max(np.flatnonzero(filters.any(axis=0)), default=0))  # up to the last with a weight
    return gpu_plan.make_plan(spec.n_fft, spec.hop_length, spec.n_mels, n_bins, in_dtype, edge, power, log)


def forward(waveform: Tensor, spec: MelSpec, window: Tensor, filterbank: Tensor, log_eps: float | None) -> Tensor:
    """(batch, time) float32 or int16 on a CUDA device -> (batch, n_mels, n_frames) float32 on it.

    window (win_length,) and filterbank (n_mels, n_freqs) float32 on the same device. They are prepared once; a change
    in place is seen by torch's version counter, so one through `.data`, which hides from it, is not.
    Raises ValueError for clips or outputs whose positions do not fit 32 bits.
    """
    if needs_operator(waveform):
        import torch

        return torch.ops.triadbench.mel_cuda(waveform, window, filterbank.mT, spec.text, log_eps)
    return compute(waveform, spec, window, filterbank, log_eps)


def compute(waveform: Tensor, spec: MelSpec, window: Tensor, filterbank: Tensor, log_eps: float | None) -> Tensor:
    """`forward` outside torch.compile."""
    import torch

    clips, spec = with_samples(waveform.contiguous(), spec)
    n_clips, time = clips.shape
    with torch.cuda.device(clips.device):
        out = torch.empty((n_clips, spec.n_mels, spec.n_frames(time)), dtype=torch.float32, device=clips.device)
        if not n_clips:
            return out
        log = log_eps is not None
        key = (spec, identity(window), identity(filterbank), clips.dtype, clips.device, log)
        stream = torch.cuda.current_stream()  # read at every call: a graph's capture has its own
        captured = torch.cuda.is_current_stream_capturing()
        prepared = _prepared.get(key)
        if prepared is None and captured:
            raise RuntimeError(
                f"{spec} with {clips.dtype} input is not prepared on {clips.device}, and cannot be while a CUDA graph "
                "is captured; call once with the same settings, dtype, window and filterbank before capturing"
            )
        if prepared is None:
            prepared = _prepare_once(key, spec, window, filterbank, clips, log)
        if captured:
            _captured[id(prepared)] = prepared
        n_blocks, scalars = geometry(prepared.kernel.plan, spec, n_clips, time, log_eps)
        pointers = (clips.data_ptr(), out.data_ptr(), *prepared.tables)
        launch(prepared.kernel, n_blocks, pointers, scalars, stream.cuda_stream)
        if not captured:
            prepared.memory.record_stream(stream)  # dropped or not, the tables stay until this launch has read them
    return out


def geometry(plan: gpu_plan.Plan, spec: MelSpec, n_clips: int, time: int, log_eps: float | None) -> tuple[int, tuple]:
    """Blocks, and the scalars of the kernel in order. Tiles of frames do not cross clips, so no frame needs a division.

    Raises ValueError where a position does not fit 32 bits.
    """
    n_frames = spec.n_frames(time)
    n_tiles = -(-n_frames // plan.frames)
    longest = max(time + 2 * spec.pad + 2 * spec.n_fft + plan.frames * spec.hop_length, spec.n_mels * n_frames)
    if longest > LONGEST or n_clips * n_tiles >= 2**31:
        raise ValueError(
            f"waveform shape=({n_clips}, {time}) gives positions above {LONGEST} or more than 2**31 blocks; "
            "compute it in shorter pieces or smaller batches"
        )
    lead = spec.n_fft // 2 if spec.center else 0
    eps = 0.0 if log_eps is None else log_eps
    counts = (time, n_frames, n_tiles, spec.hop_length, lead, spec.pad)
    return n_clips * n_tiles, (*counts, eps, spec.power / 2)


def with_samples(clips: Any, spec: MelSpec) -> tuple[Any, MelSpec]:
    """Empty clips that `pad` makes long enough become clips of zeros: the kernel reads sample 0 before it discards.

    clips: (batch, time), a torch tensor or a numpy array.
    """
    if clips.shape[1] or not spec.pad:
        return clips, spec
    zeros = clips.new_zeros if hasattr(clips, "new_zeros") else functools.partial(np.zeros, dtype=clips.dtype)
    return zeros((clips.shape[0], 2 * spec.pad)), dataclasses.replace(spec, pad=0)


def tables_of(
    plan: gpu_plan.Plan, spec: MelSpec, window: np.ndarray, filterbank: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(tables float32, bands int32) of a kernel: window, twiddles and weights one after the other; see gpu/plan.py."""
    frame_window = spec.frame_window(window.astype(np.float64))
    if plan.in_dtype == "int16":
        frame_window = frame_window / INT16_FULL_SCALE  # a power of two: exact
    bands, weights = gpu_plan.make_bands(plan, filterbank)
    return np.concatenate((gpu_plan.make_tables(plan, frame_window), weights)), bands


class _Prepared(NamedTuple):
    """`memory` holds both tables, whose addresses are `tables`.

    `keep`: the tensors that the key names by their address, kept alive so that it is not reused.
    """

    kernel: Kernel
    memory: Tensor
    tables: tuple[int, int]
    keep: tuple


_prepared: BoundedCache[_Prepared] = BoundedCache(_PREPARED_KEPT)
_captured: dict[int, _Prepared] = {}  # by id: what a captured graph points at, for good
_preparing = threading.Lock()


def _prepare_once(key: tuple, spec: MelSpec, window: Tensor, filterbank: Tensor, clips: Tensor, log: bool) -> _Prepared:
    """Prepare and keep, unless another thread has meanwhile.

    In a thread of its own, which has neither the caller's memory pool (torch.compile with CUDA graphs lets nothing
    stay in one), nor its inference mode, nor its rule for what may happen while another thread captures a graph.
    """
    import torch

    stream = torch.cuda.current_stream(clips.device)
    with _preparing:
        if (prepared := _prepared.get(key)) is None:
            with ThreadPoolExecutor(1) as aside:
                prepared = aside.submit(_prepare, spec, window, filterbank, clips, log, stream).result()
            _prepared.put(key, prepared)
    return prepared


def _prepare(
    spec: MelSpec, window: Tensor, filterbank: Tensor, clips: Tensor, log: bool, stream: torch.cuda.Stream
) -> _Prepared:
    """stream: the caller's, on which window and filterbank may still be written."""
    import torch

    driver, device = _driver(), clips.device
    _checked(driver.cuThreadExchangeStreamCaptureMode(driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED))
    _checked(driver.cuCtxSetCurrent(_context(device.index)))
    spec.check_shapes(window.shape, filterbank.shape)  # the compiled code trusts them
    own = _own_stream(device.index)
    own.wait_stream(stream)
    with torch.cuda.stream(own):
        window_array, filters = (tensor.detach().cpu().numpy() for tensor in (window, filterbank))
        plan = plan_for(spec, in_dtype=str(clips.dtype).removeprefix("torch."), log=log, filterbank=filters)
        tables, bands = tables_of(plan, spec, window_array, filters)
        memory = torch.from_numpy(np.concatenate((tables.view(np.int32), bands.ravel()))).to(device)
    own.synchronize()  # once: the streams that use the tables know nothing of this copy
    begin = memory.data_ptr()
    return _Prepared(_kernel(plan, device.index), memory, (begin, begin + tables.nbytes), (window, filterbank))


class Kernel(NamedTuple):
    """A plan's kernel loaded on one device: the driver's function and context handles."""

    plan: gpu_plan.Plan
    function: Any
    context: Any


def launch(kernel: Kernel, n_blocks: int, pointers: tuple, scalars: tuple, stream: int) -> None:
    """One launch on a stream handle; does not wait. Raises RuntimeError with the driver's name of an error."""
    driver = _driver()
    other_context = int(_checked(driver.cuCtxGetCurrent())) != int(kernel.context)
    if other_context:  # a thread that has not used this device yet, or works on another
        _checked(driver.cuCtxPushCurrent(kernel.context))
    try:
        sizes = (n_blocks, 1, 1, kernel.plan.threads, 1, 1, kernel.plan.shared_bytes)  # grid, block, memory
        _checked(driver.cuLaunchKernel(kernel.function, *sizes, stream, ((*pointers, *scalars), KINDS), 0))
    finally:
        if other_context:
            _checked(driver.cuCtxPopCurrent())


@functools.cache
def _context(device: int) -> Any:
    """The primary context of a device (torch's index), held for good."""
    driver = _driver()
    return _checked(driver.cuDevicePrimaryCtxRetain(_checked(driver.cuDeviceGet(device))))


@functools.cache
def _own_stream(device: int) -> torch.cuda.Stream:
    """A stream, in the current context, that nobody captures: those of torch's pool are handed to others as well."""
    import torch

    driver = _driver()
    stream = _checked(driver.cuStreamCreate(int(driver.CUstream_flags.CU_STREAM_NON_BLOCKING)))
    return torch.cuda.ExternalStream(int(stream), device)


@functools.cache
def _kernel(plan: gpu_plan.Plan, device: int) -> Kernel:
    """The kernel on this device, in the current context; compiled or read from the disk once."""
    import torch

    capability = torch.cuda.get_device_capability(device)
    if capability < gpu_compile.OLDEST:
        needed, present = (".".join(map(str, version)) for version in (gpu_compile.OLDEST, capability))
        raise RuntimeError(
            f"backend='cuda' needs compute capability {needed}, this GPU has {present}; use another backend"
        )
    code, driver = gpu_compile.machine_code(plan, "sm_{}{}".format(*capability)), _driver()
    module = _checked(driver.cuModuleLoadData(code))
    function = _checked(driver.cuModuleGetFunction(module, gpu_compile.ENTRY.encode()))
    if plan.shared_bytes > _STATIC_SHARED_LIMIT:
        attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        _checked(driver.cuFuncSetAttribute(function, attribute, plan.shared_bytes))
    return Kernel(plan, function, _context(device))


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
