"""Blocks of the original's network for training on the CPU: convolution, its bias, 2 x 2 max-pool and ReLU.

    out = relu(max over 2 x 2 of conv(x) + bias),  the last odd row and column left out

ReLU and max commute, and a bias moves all four inputs alike, so both come after the maximum: a quarter of their work.
Forward reads each of the convolution's outputs once and writes each output with a one-byte code of which input won.

Of a block's gradient three in four values are zero, where another input won, and more where the ReLU was closed. A
library's convolution does not know, and multiplies them all; from the codes, backward here does the products that
count, for the weights' gradient and the inputs', and never writes the gradient of the convolution's output.

Blocks hand one another arrays with a border of zeros (`border_of`), so that no convolution looks outside its input, and
none computes what the pooling would leave over. `first_block` computes the convolution of a single input channel as
well, and never writes its output: that is the network's largest array.

float32 on the CPU, channels-last; gradients of first order; sums in a fixed order, so that the same input gives the
same bits on any number of threads. The compiled code: kernels/conv_pool/code.py.
"""

import functools

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from triadbench.kernels.conv_pool import FIELDS
from triadbench.kernels.cpu import machine_code
from triadbench.kernels.cpu.machine_code import host_lanes
from triadbench.kernels.object_cache import ObjectCache

PADDING = 2  # of the network's convolutions, at each side
_GROUPS = 16  # into which the clips of a batch are summed, whatever the number of threads
_LISTED = 32  # cells that `block_backward` lists at once, at least, where there are as many
_SOURCES = ("conv_pool/__init__.py", "conv_pool/code.py", "cpu/simd.py", "cpu/machine_code.py")
_CACHE = ObjectCache("conv_pool", _SOURCES, ("llvmlite",))


def border_of(size: int) -> tuple[int, int]:
    """(zeros before, zeros behind) a side of `size` elements, for the next block's convolution and pooling: two, and
    behind an odd side only one, since the pooling leaves over what the second would give."""
    return PADDING, PADDING - size % 2


def first_block(x: Tensor, weight: Tensor, bias: Tensor, border: bool = False) -> Tensor:
    """relu(max_pool2d(conv2d(x, weight, bias, padding=2), 2)), with gradients of weight and bias, not of x.

    Args:
        x: (batch, 1, height, width) float32. weight: (channels, 1, 3, 3). bias: (channels,).
        border: with the border that `block` wants.

    Returns:
        (batch, channels, (height + 2) // 2, (width + 2) // 2), channels-last; with a border, larger by `border_of`.

    Raises:
        ValueError: another dtype, device or shape, channels that do not fill the machine's vectors; or x needs a
            gradient.
    """
    _check(x, weight, bias, PADDING)
    if x.requires_grad or weight.shape[1] != 1:
        raise ValueError(
            f"x.requires_grad={x.requires_grad}, weight.shape={tuple(weight.shape)}: the first block takes weights of "
            "one channel and gives its input no gradient; use torch's own layers"
        )
    return _FirstBlock.apply(x, weight, bias, border)


def block(x: Tensor, weight: Tensor, bias: Tensor, border: bool = False) -> Tensor:
    """relu(max_pool2d(conv2d(x, weight, bias), 2)), with gradients of all three.

    Args:
        x: (batch, inputs, height, width) float32; its border is part of it. weight: (channels, inputs, 3, 3). bias:
            (channels,).
        border: with the border that another `block` wants.

    Returns:
        (batch, channels, (height - 2) // 2, (width - 2) // 2), channels-last; with a border, larger by `border_of`.

    Raises:
        ValueError: another dtype, device or shape, or inputs or channels that do not fill the machine's vectors.
    """
    _check(x, weight, bias, 0)
    if weight.shape[1] % host_lanes(4) or weight.shape[1] == 0:
        raise ValueError(f"inputs={weight.shape[1]} must be a multiple of {host_lanes(4)}; use torch's own layers")
    return _Block.apply(x, weight, bias, border)


def _check(x: Tensor, weight: Tensor, bias: Tensor, padding: int) -> None:
    """The compiled code looks at nothing but addresses and sizes."""
    lanes, way_out = host_lanes(4), "use torch's own layers"
    for name, tensor in {"x": x, "weight": weight, "bias": bias}.items():
        if tensor.dtype != torch.float32 or tensor.device.type != "cpu":
            raise ValueError(f"{name} is {tensor.dtype} on {tensor.device}: float32 on cpu is wanted; {way_out}")
    shapes = f"x.shape={tuple(x.shape)}, weight.shape={tuple(weight.shape)}, bias.shape={tuple(bias.shape)}"
    if x.dim() != 4 or weight.dim() != 4 or tuple(weight.shape[2:]) != (3, 3) or bias.shape != weight.shape[:1]:
        raise ValueError(
            f"{shapes}: a batch of pictures, 3 x 3 weights and a bias for each channel are wanted; {way_out}"
        )
    if x.shape[1] != weight.shape[1]:
        raise ValueError(f"{shapes}: the inputs must be as many in x as in weight")
    if weight.shape[0] % lanes or weight.shape[0] == 0:
        raise ValueError(f"channels={weight.shape[0]} must be a multiple of {lanes}; {way_out}")
    if min(x.shape[2:]) == 0 or min(x.shape[2:]) + 2 * padding < 4:
        raise ValueError(f"{shapes}: x is too small for a convolution and a pooling")


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, border):
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", enabled=False):  # in whose type the compiled code could not read it
            convolved = F.conv2d(x, weight).contiguous(memory_format=torch.channels_last)
        batch, channels, height, width = convolved.shape
        cells = (height // 2, width // 2)
        out, code = _outputs(batch, channels, *cells, border)
        ctx.cells, ctx.border = cells, border
        ctx.save_for_backward(x, weight, code)
        sizes = {"height": height, "width": width, **_places(out, cells, border, out=out, code=code)}
        _run("pool_forward", 0, batch, x=convolved, bias=bias.contiguous(), **sizes)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        x, weight, code = ctx.saved_tensors
        batch, (channels, inputs) = len(x), weight.shape[:2]
        grad = grad.contiguous(memory_format=torch.channels_last)
        weight = weight.permute(0, 2, 3, 1).contiguous()
        group_clips = max(1, -(-batch // _GROUPS))
        groups, rows = -(-batch // group_clips), -(-_LISTED // ctx.cells[1])
        list_at = _empty(groups, rows * ctx.cells[1], dtype=torch.int64)
        list_grad = _empty(groups, rows * ctx.cells[1])
        grad_x = torch.empty_like(x, memory_format=torch.channels_last)
        grad_weight, grad_bias = _empty(groups, *weight.shape), _empty(groups, channels)
        lists = {"list_at": list_at, "list_grad": list_grad, "list_rows": rows}
        grads = {"grad_x": grad_x, "grad_weight": grad_weight, "grad_bias": grad_bias}
        sizes = {"groups": groups, "group_clips": group_clips, **_input_sizes(x)}
        places = _places(grad, ctx.cells, ctx.border, grad=grad, code=code)
        _run("block_backward", inputs, batch, x=x, weight=weight, **sizes, **lists, **grads, **places)
        return grad_x, grad_weight.sum(0).permute(0, 3, 1, 2), grad_bias.sum(0), None


class _FirstBlock(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, border):
        padded = F.pad(x.detach(), (PADDING,) * 4)
        batch, _, height, width = padded.shape
        channels, cells = weight.shape[0], ((height - 2) // 2, (width - 2) // 2)
        out, code = _outputs(batch, channels, *cells, border)
        taps = weight.reshape(channels, 9).t().contiguous()
        ctx.weight, ctx.cells, ctx.border = weight, cells, border
        ctx.save_for_backward(padded, code)
        sizes = {**_input_sizes(padded), **_places(out, cells, border, out=out, code=code)}
        _run("first_forward", channels, batch, x=padded, weight=taps, bias=bias.contiguous(), **sizes)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        padded, code = ctx.saved_tensors
        batch, channels = grad.shape[:2]
        grad = grad.contiguous(memory_format=torch.channels_last)
        grad_weight, grad_bias = _empty(batch, 9, channels), _empty(batch, channels)
        sizes = {**_input_sizes(padded), **_places(grad, ctx.cells, ctx.border, grad=grad, code=code)}
        _run("first_backward", 0, batch, x=padded, grad_weight=grad_weight, grad_bias=grad_bias, **sizes)
        summed = torch.empty_like(ctx.weight)
        summed.copy_(grad_weight.sum(0).t().reshape(ctx.weight.shape))
        return None, summed, grad_bias.sum(0), None


def _empty(*shape: int, dtype: torch.dtype = torch.float32, **more) -> Tensor:
    """Whatever the program's default dtype and device are."""
    return torch.empty(*shape, dtype=dtype, device="cpu", **more)


def _outputs(batch: int, channels: int, height: int, width: int, border: bool) -> tuple[Tensor, Tensor]:
    """(outputs, codes), not yet written but for the border of the outputs."""
    (above, below), (left, right) = (border_of(n) if border else (0, 0) for n in (height, width))
    shape = (batch, channels, above + height + below, left + width + right)
    out = _empty(*shape, memory_format=torch.channels_last)
    if border:
        out[:, :, :above] = out[:, :, above + height :] = 0.0
        out[:, :, :, :left] = out[:, :, :, left + width :] = 0.0
    return out, _empty(*shape, dtype=torch.uint8, memory_format=torch.channels_last)


def _input_sizes(x: Tensor) -> dict[str, int]:
    """Elements of a row and of a clip of the convolution's input."""
    _, channels, height, width = x.shape
    return {"x_row": width * channels, "x_clip": height * width * channels}


def _places(like: Tensor, cells: tuple[int, int], border: bool, **arrays: Tensor) -> dict[str, int]:
    """Where the cells lie in arrays of one shape, inside their border if they have one."""
    _, channels, height, width = like.shape
    first = (width + 1) * PADDING * channels if border else 0
    addresses = {name: array.data_ptr() + first * array.element_size() for name, array in arrays.items()}
    sizes = {"channels": channels, "place_height": height, "place_width": width}
    return {**sizes, "out_height": cells[0], "out_width": cells[1], **addresses}


def _run(name: str, unrolled: int, batch: int, **fields: Tensor | int) -> None:
    """Run one of the compiled functions on torch's threads."""
    job = np.zeros(len(FIELDS), dtype=np.int64)
    for key, value in {"clips": batch, **fields}.items():
        job[FIELDS.index(key)] = value.data_ptr() if isinstance(value, Tensor) else value
    address = _function(name, host_lanes(4), unrolled)
    machine_code.run(address, job.ctypes.data, min(torch.get_num_threads(), batch) or 1)


@functools.cache
def _function(name: str, lanes: int, unrolled: int) -> int:
    """Address of one of the functions of kernels/conv_pool/code.py."""

    def compile_code() -> bytes:
        from triadbench.kernels.conv_pool import code

        return machine_code.object_code(code.llvm_ir(name, lanes, unrolled))

    return machine_code.load(_CACHE, (name, lanes, unrolled), name, compile_code)
