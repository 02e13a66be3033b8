"""Mel spectrogram as matrix products: a four-step FFT in plain tensor operations, on any device, differentiable.

    frames (n_fft, t)  ->  first, second (kernels/matmul_plan.py)  ->  |X|^2  ->  filters  ->  (log) mel

(batch, time) float32, float64 or int16 -> (batch, n_mels, n_frames). The frames of all clips lie side by side in the
last dimension, so each constant matrix meets one long right-hand side, and mel comes out as it is stored.
Where no gradient is needed, frames go through in chunks that stay in the CPU's caches, or bound the memory of another
device, into memory that is used again. With a gradient, or while a graph is captured, all frames go through at once, by
operators that every graph format has: Reshape, Transpose, Slice, Concat (torch.compile, .export, .onnx: Gather),
MatMul, Mul, Add, Log, and for powers other than 2 Greater, Where, Sqrt and Pow.

The gradient of |X|^p, p other than 2, at a bin of exactly 0 is taken as 0, as torchaudio's is for p = 1; autograd alone
would give 0 times infinity.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from triadbench.kernels import matmul_plan
from triadbench.kernels.spec import INT16_FULL_SCALE, MelSpec
from triadbench.kernels.torch_operator import (
    BoundedCache,
    identity,
    is_captured,
    is_exported_to_onnx,
    needs_gradient,
    without_autocast,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

COMPUTES_IN_FLOAT64 = False
TRACEABLE = True  # torch.jit.trace sees all that it does

_CPU_CHUNK_BYTES = 1 << 22  # of a thread, all steps of a chunk together: shorter products are slower than L2 is faster
_CHUNK_BYTES = 1 << 28  # elsewhere: many times what fills a GPU
_SLICES = 32  # shifted copies that make frames out of hops; for more (tiny hops) the frames are one strided view
_KEPT = 32  # settings that a process keeps ready


def why_unavailable() -> str | None:
    """None: it needs torch alone."""
    return None


def why_unsupported(spec: MelSpec, *, dtype: str, device: str, needs_gradient: bool) -> str | None:
    """What this backend lacks for such input, or None."""
    return matmul_plan.why_not(spec.n_fft)


def forward(waveform: Tensor, spec: MelSpec, window: Tensor, filterbank: Tensor, log_eps: float | None) -> Tensor:
    """(batch, time) float32, float64 or int16 -> (batch, n_mels, n_frames) in the window's dtype.

    window (win_length,) and filterbank (n_mels, n_freqs) have the floating dtype and the device of the computation.
    What is made of them is kept; a change in place is seen by torch's version counter.
    """
    import torch

    with without_autocast(waveform.device.type), _full_precision():
        if is_captured() or needs_gradient(window) or needs_gradient(filterbank):
            return all_at_once(waveform, spec, _captured_constants(spec, window, filterbank), log_eps)
        constants = _kept_constants(spec, window, filterbank)
        if torch.jit.is_tracing() or needs_gradient(waveform):
            return all_at_once(waveform, spec, constants, log_eps)
        return in_chunks(waveform, spec, constants, log_eps)


class Constants(NamedTuple):
    """A plan's first, second and filters as tensors of the computation's dtype and device."""

    first: Tensor | None  # None where the transform is one matrix
    second: Tensor
    filters: Tensor


def constants_of(plan: matmul_plan.Plan, dtype: torch.dtype, device: torch.device) -> Constants:
    """The plan's arrays, rounded once."""
    import torch

    def tensor(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(dtype).to(device)

    return Constants(None if plan.first is None else tensor(plan.first), tensor(plan.second), tensor(plan.filters))


def all_at_once(waveform: Tensor, spec: MelSpec, constants: Constants, log_eps: float | None) -> Tensor:
    """`forward` with given constants in one go: differentiable (twice as well), traceable with any batch and time."""
    x = _padded(waveform, spec, constants.second.dtype)
    frames = _frames(x, spec)
    _, batch, n_frames = frames.shape
    mel = _mel(frames.reshape(spec.n_fft, batch * n_frames), spec.power, constants)
    if log_eps is not None:
        mel = (mel + log_eps).log()
    return mel.reshape(spec.n_mels, batch, n_frames).transpose(0, 1)


def _padded(waveform: Tensor, spec: MelSpec, dtype: torch.dtype) -> Tensor:
    """(batch, time) -> what the frames are cut from; zeros at the right fill the last frame's last hop."""
    import torch

    x = waveform.to(dtype)
    if not waveform.dtype.is_floating_point:
        x = x * (1.0 / INT16_FULL_SCALE)  # a power of two: exact
    batch, edge = x.shape[0], spec.n_fft // 2 if spec.center else 0
    parts = [x]
    if spec.pad:
        zeros = x.new_zeros((batch, spec.pad))
        parts = [zeros, x, zeros]
    if edge and spec.pad_mode != "constant" and spec.pad:
        x = torch.cat(parts, dim=1)
        parts = [x]
    if edge:
        parts = [_edge(x, edge, spec.pad_mode, 0), *parts, _edge(x, edge, spec.pad_mode, 1)]
    fill = _frame_span(spec) - spec.n_fft
    if fill:
        parts.append(x.new_zeros((batch, fill)))
    return torch.cat(parts, dim=1) if len(parts) > 1 else x


def _edge(x: Tensor, edge: int, pad_mode: str, right: int) -> Tensor:
    """`edge` samples for the left or the right of x (batch, samples)."""
    samples = x.shape[1]
    if pad_mode == "reflect":
        return x.narrow(1, samples - edge - 1 if right else 1, edge).flip(1)
    if pad_mode == "circular":
        return x.narrow(1, 0 if right else samples - edge, edge)
    if pad_mode == "replicate":
        return x.narrow(1, samples - 1 if right else 0, 1).expand(-1, edge)
    return x.new_zeros((x.shape[0], edge))


def _frame_span(spec: MelSpec) -> int:
    """Samples that a frame is cut from: whole hops, unless they are too many."""
    hops = math.ceil(spec.n_fft / spec.hop_length)
    return hops * spec.hop_length if hops <= _SLICES else spec.n_fft


def _frames(x: Tensor, spec: MelSpec) -> Tensor:
    """Padded clips (batch, samples) -> (n_fft, batch, n_frames), contiguous."""
    import torch

    n_fft, hop, hops = spec.n_fft, spec.hop_length, math.ceil(spec.n_fft / spec.hop_length)
    # A gather: hops as a view would tie an open length to a multiple of the hop, and torch.onnx cannot unfold one.
    if torch.compiler.is_compiling() or is_exported_to_onnx():
        n_frames = (x.shape[1] - _frame_span(spec)) // hop + 1
        starts, offsets = torch.arange(n_frames, device=x.device) * hop, torch.arange(n_fft, device=x.device)
        samples = x.index_select(1, (offsets[:, None] + starts).reshape(-1))
        return samples.reshape(x.shape[0], n_fft, n_frames).transpose(0, 1)
    if hops > _SLICES:
        return x.unfold(1, n_fft, hop).permute(2, 0, 1).contiguous()
    columns = x.unfold(1, hop, hop)  # whole hops; each sample is transposed once, and the frames are shifted copies
    rows = columns.permute(2, 0, 1).clone(memory_format=torch.contiguous_format)
    if hops == 1:
        return rows[:n_fft]
    n_frames = rows.shape[2] - hops + 1
    return torch.cat([rows[: min(hop, n_fft - i * hop), :, i : i + n_frames] for i in range(hops)])


def _mel(frames: Tensor, power: float, constants: Constants, memory: _Memory | None = None) -> Tensor:
    """(n_fft, t) -> (n_mels, t); with `memory`, which is used again, without a gradient."""
    import torch

    def product(step: str, a: Tensor, b: Tensor) -> Tensor:
        return a @ b if memory is None else torch.matmul(a, b, out=memory(step, a, *a.shape[:-1], t))

    t = frames.shape[1]
    y = frames[None]
    if constants.first is not None:
        n2, rows, n1 = constants.first.shape
        y = product("first", constants.first, frames.reshape(n1, n2, t).transpose(0, 1))
        y = y.reshape(2 * n2, rows // 2, t).transpose(0, 1)
    z = product("second", constants.second, y)
    slots = constants.second.size(1) // 2
    real, imaginary = z[:, :slots], z[:, slots:]
    if memory is None:
        squared = _powered(real * real + imaginary * imaginary, power)
    else:
        squared = torch.mul(real, real, out=memory("squared", z, *real.shape)).addcmul_(imaginary, imaginary)
        if power != 2.0:
            squared = squared.sqrt_() if power == 1.0 else squared.pow_(power / 2)
    return product("mel", constants.filters, squared.reshape(-1, t))


def _powered(squared: Tensor, power: float) -> Tensor:
    """|X| ** power of |X|^2; 0, and a gradient of 0, where that is 0."""
    import torch

    if power == 2.0:
        return squared
    positive = squared > 0
    base = torch.where(positive, squared, 1.0)
    return torch.where(positive, base.sqrt() if power == 1.0 else base ** (power / 2), 0.0)


def in_chunks(waveform: Tensor, spec: MelSpec, constants: Constants, log_eps: float | None) -> Tensor:
    """`forward` with given constants, chunk by chunk, without a gradient."""
    import torch

    batch, n_frames = waveform.shape[0], spec.n_frames(waveform.shape[1])
    out = constants.second.new_empty((batch, spec.n_mels, n_frames))
    at_once = _frames_at_once(spec, constants)
    clips = max(1, at_once // n_frames)
    clips = math.ceil(batch / math.ceil(batch / clips)) if batch else 1
    stretch = math.ceil(n_frames / math.ceil(n_frames / at_once))
    memory = _Memory()
    with torch.no_grad():
        for i in range(0, batch, clips):
            x = _padded(waveform[i : i + clips], spec, out.dtype)
            for t in range(0, n_frames, stretch):
                n = min(stretch, n_frames - t)
                start = t * spec.hop_length
                frames = _frames(x[:, start : start + (n - 1) * spec.hop_length + _frame_span(spec)], spec)
                mel = _mel(frames.view(spec.n_fft, -1), spec.power, constants, memory).view(spec.n_mels, -1, n)
                out[i : i + clips, :, t : t + n] = mel.transpose(0, 1)
        return out if log_eps is None else out.add_(log_eps).log_()


def _frames_at_once(spec: MelSpec, constants: Constants) -> int:
    import torch

    values = spec.n_fft + spec.n_mels + 3 * constants.filters.shape[1]
    if constants.first is not None:
        values += constants.first.shape[0] * constants.first.shape[1]
    on_cpu = constants.second.device.type == "cpu"
    n_bytes = _CPU_CHUNK_BYTES * torch.get_num_threads() if on_cpu else _CHUNK_BYTES
    return max(1, n_bytes // (values * constants.second.element_size()))


class _Memory(dict[tuple, Any]):
    """For the steps of one chunk, used again by the next one of the same shape."""

    def __call__(self, step: str, like: Tensor, *shape: int) -> Tensor:
        key = (step, shape)  # two steps may have one shape
        if key not in self:
            self[key] = like.new_empty(shape)
        return self[key]


@contextlib.contextmanager
def _full_precision() -> Iterator[None]:
    """No TF32 and no bfloat16 in float32 products: see `without_autocast`."""
    import torch

    with contextlib.ExitStack() as stack:
        if not torch.compiler.is_compiling() and (precision := torch.get_float32_matmul_precision()) != "highest":
            torch.set_float32_matmul_precision("highest")
            stack.callback(torch.set_float32_matmul_precision, precision)
        yield


_constants: BoundedCache[tuple] = BoundedCache(_KEPT)


def _kept_constants(spec: MelSpec, window: Tensor, filterbank: Tensor) -> Constants:
    import torch

    key = (spec, identity(window), identity(filterbank), window.dtype, window.device)
    entry = _constants.get(key)
    if entry is None:
        if torch.jit.is_tracing():  # a trace records its own thread, and this is no part of the graph
            with ThreadPoolExecutor(1) as aside:
                constants = aside.submit(_make_constants, spec, window, filterbank).result()
        else:
            constants = _make_constants(spec, window, filterbank)
        # The tensors stay alive, so that the addresses in the key are not reused.
        entry = _constants.put(key, (constants, (window, filterbank)))
    return entry[0]


def _captured_constants(spec: MelSpec, window: Tensor, filterbank: Tensor) -> Constants:
    """The constants while a graph is captured, under torch.func, and where window or filterbank are differentiated:
    they are folded in by the operations themselves, and every bin is computed."""
    import torch
    import torch.nn.functional as F

    if not torch.jit.is_tracing():  # there a size is a tensor
        spec.check_shapes(window.shape, filterbank.shape)
    first, second, bins, used = _template(spec.n_fft, window.dtype, window.device)
    left = (spec.n_fft - spec.win_length) // 2
    framed = F.pad(window, (left, spec.n_fft - spec.win_length - left))
    if spec.normalized in (True, "window"):
        framed = framed / (framed * framed).sum().sqrt()
    elif spec.normalized == "frame_length":
        framed = framed / math.sqrt(spec.n_fft)
    if first is None:
        second = second * framed
    else:
        n2, _, n1 = first.shape
        first = first * framed.reshape(n1, n2).t()[:, None, :]
    return Constants(first, second, torch.index_select(filterbank, 1, bins) * used)


def _template(n_fft: int, dtype: torch.dtype, device: torch.device) -> tuple:
    """First and second for a rectangular window, and for each slot its bin and whether (1 or 0) it has one."""
    import torch

    plan = _template_plan(n_fft)
    constants = constants_of(plan, dtype, device)
    bins = torch.from_numpy(plan.bins.clip(min=0)).to(device)
    used = torch.from_numpy(plan.bins >= 0).to(device, dtype)
    arrays: tuple[Any, ...] = (constants.first, constants.second, bins, used)
    for array in arrays:
        if array is not None:  # what torch._dynamo.mark_static sets: with dynamic=True their sizes would be open too
            array._dynamo_static_indices = set(range(array.ndim))
    return arrays


@functools.lru_cache(maxsize=8)
def _template_plan(n_fft: int) -> matmul_plan.Plan:
    spec = MelSpec(n_fft=n_fft, hop_length=n_fft, n_mels=1, window="rectangular")
    return matmul_plan.make_plan(spec, np.ones(n_fft), np.ones((1, spec.n_freqs)), all_bins=True)


# torch.compile then calls `_template` and keeps what it returns. This is torch.compiler.assume_constant_result without
# its import of the whole compiler, which takes seconds.
_template._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _make_constants(spec: MelSpec, window: Tensor, filterbank: Tensor) -> Constants:
    spec.check_shapes(window.shape, filterbank.shape)
    arrays = (tensor.detach().double().cpu().numpy() for tensor in (window, filterbank))
    return constants_of(matmul_plan.make_plan(spec, *arrays), window.dtype, window.device)
