"""Blocks of the original's network for training on the CPU: bias, 2 x 2 max-pool and ReLU (first version: torch's)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def bias_pool_relu(x: Tensor, bias: Tensor) -> Tensor:
    """relu(max_pool2d(x + bias, 2)) of x (batch, channels, height, width)."""
    return F.relu(F.max_pool2d(x + bias.view(1, -1, 1, 1), 2))


def first_block(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """relu(max_pool2d(conv2d(x, weight, bias, padding=2), 2)) of x (batch, 1, height, width)."""
    return bias_pool_relu(F.conv2d(x, weight, None, padding=2), bias)
