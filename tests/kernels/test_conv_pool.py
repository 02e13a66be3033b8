"""The compiled blocks are torch's: the same values, winners and gradients, whatever the shape, layout and threads."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from kernels import conv_pool
from kernels.numba_cache import host_lanes

LANES = host_lanes(4)
SHAPES = {
    "the original's second block": (3, 32, 35, 66),
    "both sides odd": (2, 64, 19, 35),
    "one clip": (1, 128, 11, 19),
    "one cell": (2, 16, 2, 3),
    "even sides: nothing left over": (2, 32, 4, 6),
    "no clip": (0, 16, 4, 4),
}


def torch_block(x, bias):
    return F.max_pool2d(F.relu(x + bias.view(1, -1, 1, 1)), 2)


def close(found, wanted, steps=8):
    """Within `steps` roundings of float32, relative to the largest value."""
    scale = float(wanted.detach().abs().max()) if wanted.numel() else 0.0
    return torch.allclose(found.double(), wanted.double(), rtol=0, atol=steps * 2**-23 * scale)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_bias_pool_relu_is_torchs(shape, layout):
    torch.manual_seed(0)
    x = torch.randn(shape).contiguous(memory_format=layout).requires_grad_()
    bias = torch.randn(shape[1], requires_grad=True)
    out, wanted = conv_pool.bias_pool_relu(x, bias), torch_block(x, bias)
    assert torch.equal(out, wanted) and out.is_contiguous(memory_format=torch.channels_last)
    grad = torch.randn_like(wanted)
    grad_x, grad_bias = torch.autograd.grad(out, (x, bias), grad)
    exact = torch_block(x.double(), bias.double())
    wanted_x, wanted_bias = torch.autograd.grad(exact, (x, bias), grad.double())
    assert torch.equal(grad_x, wanted_x)
    assert close(grad_bias, wanted_bias, 64)  # sums of up to a thousand


@pytest.mark.parametrize("height", [17, 18])
def test_a_border_saves_the_next_convolution_what_is_dropped(height):
    torch.manual_seed(0)
    x = torch.randn(2, 32, 2 * height, 22, requires_grad=True)
    bias, weight = torch.randn(32, requires_grad=True), torch.randn(16, 32, 3, 3, requires_grad=True)
    out = F.conv2d(conv_pool.bias_pool_relu(x, bias, border=True), weight, padding=1)
    exact = F.conv2d(torch_block(x.double(), bias.double()), weight.double(), padding=2)[:, :, :-1, :-1]
    assert out.shape == exact.shape and close(out, exact, 64)
    grad = torch.randn_like(out)
    found = torch.autograd.grad(out, (x, bias, weight), grad)
    wanted = torch.autograd.grad(exact, (x, bias, weight), grad.double())
    assert all(close(a, b, 64) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("shape", [(3, 1, 64, 126), (1, 1, 5, 6), (2, 1, 2, 2)])
def test_the_first_block_is_torchs(shape):
    torch.manual_seed(0)
    x = torch.randn(shape)
    weight, bias = torch.randn(16, 1, 3, 3, requires_grad=True), torch.randn(16, requires_grad=True)
    out = conv_pool.first_block(x, weight, bias)
    exact = F.max_pool2d(F.relu(F.conv2d(x.double(), weight.double(), bias.double(), padding=2)), 2)
    assert out.shape == exact.shape and close(out, exact)
    grad = torch.randn_like(out)
    found = torch.autograd.grad(out, (weight, bias), grad)
    wanted = torch.autograd.grad(exact, (weight, bias), grad.double())
    assert all(close(a, b, 64) for a, b in zip(found, wanted, strict=True))


def test_of_equal_inputs_the_first_wins_and_a_closed_relu_passes_nothing():
    x = torch.ones(1, LANES, 2, 2).contiguous(memory_format=torch.channels_last).requires_grad_()
    bias = torch.zeros(LANES)
    bias[1], bias[2] = -1.0, -2.0  # the ReLU's edge, and below it
    conv_pool.bias_pool_relu(x, bias).sum().backward()
    assert x.grad[0, 0].flatten().tolist() == [1, 0, 0, 0]
    assert not x.grad[0, 1:3].any()


def test_what_is_no_number_stays_visible():
    x = torch.full((1, LANES, 4, 4), float("nan"))
    assert conv_pool.bias_pool_relu(x, torch.zeros(LANES)).isnan().all()
    mel = torch.zeros(1, 1, 8, 8)
    mel[0, 0, 4, 4] = float("inf")
    assert not conv_pool.first_block(mel, torch.ones(16, 1, 3, 3), torch.zeros(16)).isfinite().all()


def test_any_number_of_threads_gives_the_same_bits():
    torch.manual_seed(0)
    x, weight, bias = torch.randn(9, 1, 64, 126), torch.randn(16, 1, 3, 3, requires_grad=True), torch.randn(16)
    before, results = torch.get_num_threads(), []
    try:
        for n in (1, 2, 5):
            torch.set_num_threads(n)
            out = conv_pool.first_block(x, weight, bias)
            results.append(torch.autograd.grad(out.square().sum(), weight)[0])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_a_gradient_of_the_gradient_is_refused():
    x = torch.randn(1, 16, 4, 4, requires_grad=True)
    out = conv_pool.bias_pool_relu(x, torch.zeros(16)).square().sum()
    (grad,) = torch.autograd.grad(out, x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(1, 16, 4, 4, dtype=torch.float64), "float32 on cpu is wanted; use torch's own layers"),
        (torch.zeros(1, 12 + 1, 4, 4), f"channels=13 must be a multiple of {LANES}"),
    ],
)
def test_what_is_refused(x, message):
    with pytest.raises(ValueError, match=message):
        conv_pool.bias_pool_relu(x, torch.zeros(x.shape[1], dtype=x.dtype))


def test_the_first_block_gives_its_input_no_gradient():
    with pytest.raises(ValueError, match="gives its input no gradient"):
        conv_pool.first_block(torch.zeros(1, 1, 8, 8, requires_grad=True), torch.zeros(16, 1, 3, 3), torch.zeros(16))


def test_sizes_agree_with_the_original_network():
    """The four blocks, one after the other, end where OriginalNet's linear layer begins."""
    x = conv_pool.first_block(torch.zeros(1, 1, 64, 126), torch.zeros(16, 1, 3, 3), torch.zeros(16))
    for channels in (32, 64, 128):
        x = conv_pool.bias_pool_relu(
            F.conv2d(x, torch.zeros(channels, x.shape[1], 3, 3), padding=2), torch.zeros(channels)
        )
    assert tuple(x.shape) == (1, 128, 5, 9) and np.prod(x.shape) == 5760
