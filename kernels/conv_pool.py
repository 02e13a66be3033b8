"""Blocks of the original's network for training on the CPU: convolution's bias, 2 x 2 max-pool and ReLU in one pass.

    out = relu(max over 2 x 2 of (x + bias)),  the last odd row and column left out

ReLU and max commute, and a bias moves all four inputs alike, so both come after the maximum: a quarter of their work.
Forward reads each input once and writes each output with a one-byte code of which input won; backward writes each
element of the gradient once, from the code. `first_block` computes the convolution of a single input channel as well,
and never writes its output: that is the network's largest array, and its gradient, which only a quarter of the products
need, is summed straight into the weights'.

float32 on the CPU, channels-last; gradients of first order; sums in a fixed order, so that the same input gives the
same bits on any number of threads. The compiled code: kernels/conv_pool_code.py.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

import kernels.numba_threads as threads
from kernels.numba_cache import host_lanes

_PADDING = 2  # of the first block


def bias_pool_relu(x: Tensor, bias: Tensor, border: bool = False) -> Tensor:
    """relu(max_pool2d(x + bias, 2)).

    Args:
        x: (batch, channels, height, width) float32, channels-last. bias: (channels,).
        border: with a row of zeros above and a column at the left. A convolution with padding=1 then gives what one
            with padding=2 gives without the border, less its last row and column.

    Returns:
        (batch, channels, height // 2, width // 2), channels-last; with a border, one more of each.

    Raises:
        ValueError: another dtype, device or layout, or channels that do not fill the machine's vectors.
    """
    _check(x, x.shape[1])
    return _BiasPoolRelu.apply(x, bias, border)


def first_block(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """relu(max_pool2d(conv2d(x, weight, bias, padding=2), 2)), with gradients of weight and bias, not of x.

    Args:
        x: (batch, 1, height, width) float32. weight: (channels, 1, 3, 3). bias: (channels,).

    Returns:
        (batch, channels, (height + 2) // 2, (width + 2) // 2), channels-last.

    Raises:
        ValueError: as `bias_pool_relu`; or x needs a gradient.
    """
    _check(x, weight.shape[0])
    if x.requires_grad or tuple(weight.shape[1:]) != (1, 3, 3):
        raise ValueError(
            f"x.requires_grad={x.requires_grad}, weight.shape={tuple(weight.shape)}: the first block takes 3 x 3 "
            "weights of one channel and gives its input no gradient; use torch's own layers"
        )
    return _FirstBlock.apply(x, weight, bias)


def _check(x: Tensor, channels: int) -> None:
    lanes = host_lanes(4)
    if x.dtype != torch.float32 or x.device.type != "cpu":
        raise ValueError(f"x is {x.dtype} on {x.device}: float32 on cpu is wanted; use torch's own layers")
    if channels % lanes:
        raise ValueError(f"channels={channels} must be a multiple of {lanes}; use torch's own layers")


class _BiasPoolRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, bias, border):
        x = x.contiguous(memory_format=torch.channels_last)
        batch, channels, height, width = x.shape
        out, code = _outputs(batch, channels, height // 2 + border, width // 2 + border)
        if border:
            out[:, :, 0] = 0.0
            out[:, :, :, 0] = 0.0
        bias = bias.contiguous()
        ctx.shape, ctx.border = x.shape, border
        ctx.save_for_backward(code)
        _run("pool_forward", channels, batch, x=x, bias=bias, height=height, width=width,
             out_height=height // 2, out_width=width // 2, **_places(out, border, out=out, code=code))  # fmt: skip
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        (code,) = ctx.saved_tensors
        batch, channels, height, width = ctx.shape
        grad = grad.contiguous(memory_format=torch.channels_last)
        grad_x = torch.empty(ctx.shape, memory_format=torch.channels_last)
        grad_bias = torch.empty(batch, channels)
        _run("pool_backward", channels, batch, grad_x=grad_x, grad_bias=grad_bias, height=height, width=width,
             out_height=height // 2, out_width=width // 2,
             **_places(grad, ctx.border, grad=grad, code=code))  # fmt: skip
        return grad_x, grad_bias.sum(0), None


class _FirstBlock(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias):
        padded = F.pad(x.detach(), (_PADDING,) * 4)
        batch, _, height, width = padded.shape
        channels, size = weight.shape[0], ((height - 2) // 2, (width - 2) // 2)
        out, code = _outputs(batch, channels, *size)
        taps, bias = weight.reshape(channels, 9).t().contiguous(), bias.contiguous()
        ctx.weight = weight
        ctx.save_for_backward(padded, code)
        _run("first_forward", channels, batch, x=padded, weight=taps, bias=bias, x_row=width, x_clip=height * width,
             out_height=size[0], out_width=size[1], **_places(out, False, out=out, code=code))  # fmt: skip
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        padded, code = ctx.saved_tensors
        batch, channels, out_height, out_width = grad.shape
        _, _, height, width = padded.shape
        grad = grad.contiguous(memory_format=torch.channels_last)
        grad_weight, grad_bias = torch.empty(batch, 9, channels), torch.empty(batch, channels)
        _run("first_backward", channels, batch, x=padded, grad_weight=grad_weight, grad_bias=grad_bias, x_row=width,
             x_clip=height * width, out_height=out_height, out_width=out_width,
             **_places(grad, False, grad=grad, code=code))  # fmt: skip
        summed = torch.empty_like(ctx.weight)
        summed.copy_(grad_weight.sum(0).t().reshape(ctx.weight.shape))
        return None, summed, grad_bias.sum(0)


def _outputs(batch: int, channels: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    shape = (batch, channels, height, width)
    out = torch.empty(shape, memory_format=torch.channels_last)
    return out, torch.empty(shape, dtype=torch.uint8, memory_format=torch.channels_last)


def _places(like: Tensor, border: bool, **arrays: Tensor) -> dict[str, int]:
    """Fields that say where cells lie in arrays of one shape: behind a row and a column of border, if they have one."""
    _, channels, height, width = like.shape
    first = (width + 1) * channels if border else 0
    begin = {name: array.data_ptr() + first * array.element_size() for name, array in arrays.items()}
    return {"place_height": height, "place_width": width, **begin}


def _run(name: str, channels: int, batch: int, **fields: Tensor | int) -> None:
    """Run one of the compiled functions on torch's threads."""
    from kernels.conv_pool_code import FIELDS, functions

    lanes = host_lanes(4)
    job = np.zeros(len(FIELDS), dtype=np.int64)
    for key, value in {"clips": batch, "channels": channels, **fields}.items():
        job[FIELDS.index(key)] = value.data_ptr() if isinstance(value, Tensor) else value
    # Only the first block's functions depend on its width; 16 channels are the original's.
    vectors = channels // lanes if name.startswith("first") else max(16 // lanes, 1)
    threads.run(functions(lanes, vectors)[name], job.ctypes.data, min(torch.get_num_threads(), batch) or 1)
