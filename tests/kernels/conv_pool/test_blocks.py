"""The compiled blocks are torch's: the same values, winners and gradients, whatever the shape, layout and threads."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.kernels.inputs import in_a_new_process
from triadbench.kernels.conv_pool import blocks as conv_pool
from triadbench.kernels.cpu.machine_code import host_lanes

LANES = host_lanes(4)
SHAPES = {  # of the input without its border, and channels
    "the original's second block": ((3, 16, 33, 64), 32),
    "its third": ((2, 32, 17, 33), 64),
    "its last": ((1, 64, 9, 17), 128),
    "one cell": ((2, 16, 1, 1), 16),
    "more clips than groups": ((37, 16, 3, 4), 16),
    "no clip": ((0, 16, 4, 4), 16),
}


def bordered(x):
    """With the zeros that `block` wants."""
    return F.pad(x, (*conv_pool.border_of(x.shape[3]), *conv_pool.border_of(x.shape[2])))


def inside(x, shape):
    """Without them, `shape` being that of the inside."""
    return x[:, :, 2 : 2 + shape[2], 2 : 2 + shape[3]]


def torch_block(x, weight, bias):
    return F.max_pool2d(F.relu(F.conv2d(x, weight, bias, padding=2)), 2)


def close(found, wanted, steps=8):
    """Within `steps` roundings of float32, relative to the largest value."""
    scale = float(wanted.detach().abs().max()) if wanted.numel() else 0.0
    return torch.allclose(found.double(), wanted.double(), rtol=0, atol=steps * 2**-23 * scale)


def some(shape, channels):
    """(x, weight, bias) that need gradients; with this seed rounding decides no winner."""
    torch.manual_seed(0)
    weight = torch.randn(channels, shape[1], 3, 3) / (9 * shape[1]) ** 0.5
    return torch.randn(shape).requires_grad_(), weight.requires_grad_(), torch.randn(channels).requires_grad_()


@pytest.mark.parametrize(("shape", "channels"), SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_a_block_is_torchs(shape, channels, layout):
    x, weight, bias = given = some(shape, channels)
    out = conv_pool.block(bordered(x).contiguous(memory_format=layout), weight, bias)
    exact = torch_block(*(each.double() for each in given))
    assert out.shape == exact.shape and close(out, exact) and out.is_contiguous(memory_format=torch.channels_last)
    grad = torch.randn_like(exact)
    found = torch.autograd.grad(out, given, grad.float())
    wanted = torch.autograd.grad(exact, given, grad.float().double())
    for a, b in zip(found, wanted, strict=True):
        assert a.shape == b.shape and close(a, b, 64)  # sums of up to thousands


@pytest.mark.parametrize("size", [1, 8, 9])
def test_a_border_leaves_nothing_over(size):
    before, behind = conv_pool.border_of(size)
    assert before == 2 and before + size + behind - 2 == 2 * ((size + 2) // 2), "the convolution's output, all pooled"


@pytest.mark.parametrize("height", [8, 9])
def test_a_border_is_what_the_next_block_wants(height):
    x, weight, bias = given = some((2, 16, height, 11), 32)
    after = (torch.randn(16, 32, 3, 3) / 17).requires_grad_()
    none = torch.zeros(16)
    out = conv_pool.block(conv_pool.block(bordered(x), weight, bias, border=True), after, none)
    exact = torch_block(torch_block(*(each.double() for each in given)), after.double(), none.double())
    assert out.shape == exact.shape and close(out, exact, 64)
    grad = torch.randn_like(out)
    found = torch.autograd.grad(out, (*given, after), grad)
    wanted = torch.autograd.grad(exact, (*given, after), grad.double())
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


def picks(x, bias):
    """A block whose convolution gives each channel's own input: (out, x's gradient for a gradient of ones)."""
    channels = x.shape[1]
    weight = torch.zeros(channels, channels, 3, 3)
    weight[range(channels), range(channels), 0, 0] = 1.0
    x = F.pad(x, (0, 2, 0, 2)).requires_grad_()
    out = conv_pool.block(x, weight, bias)
    return out, torch.autograd.grad(out.sum(), x)[0]


def test_of_equal_inputs_the_first_wins_and_a_closed_relu_passes_nothing():
    bias = torch.zeros(16)
    bias[1], bias[2] = -1.0, -2.0  # the ReLU's edge, and below it
    out, grad = picks(torch.ones(1, 16, 2, 2), bias)
    assert out[0, :3].flatten().tolist() == [1, 0, 0]
    assert grad[0, 0, :2, :2].flatten().tolist() == [1, 0, 0, 0]
    assert not grad[0, 1:3].any()


def test_what_is_no_number_stays_visible():
    weight, bias = torch.ones(16, 16, 3, 3), torch.zeros(16)
    assert conv_pool.block(torch.full((1, 16, 4, 4), float("nan")), weight, bias).isnan().all()
    mel = torch.zeros(1, 1, 8, 8)
    mel[0, 0, 4, 4] = float("inf")
    assert not conv_pool.first_block(mel, torch.ones(16, 1, 3, 3), torch.zeros(16)).isfinite().all()


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_one_that_is_no_number_comes_out_where_torchs_does(number):
    for at in range(4):
        x = torch.zeros(1, 16, 6, 6)
        x[0, 3, 2 + at // 2, 2 + at % 2] = number
        weight, bias = torch.randn(16, 16, 3, 3), torch.zeros(16)
        wanted = F.max_pool2d(F.relu(F.conv2d(x, weight)), 2)
        assert torch.equal(conv_pool.block(x, weight, bias).isnan(), wanted.isnan())
        mel = x[:, 3:4].contiguous()
        wanted = F.max_pool2d(F.relu(F.conv2d(mel, weight[:, :1], padding=2)), 2)
        assert torch.equal(conv_pool.first_block(mel, weight[:, :1].contiguous(), bias).isnan(), wanted.isnan())


def test_what_the_program_has_set_for_new_tensors_changes_nothing():
    x, weight, bias = some((2, 16, 8, 8), 16)
    mel, first = torch.randn(2, 1, 8, 8), torch.randn(16, 1, 3, 3)

    def answers():
        out = conv_pool.block(x, weight, bias)
        return out, *torch.autograd.grad(out.sum(), (x, weight, bias)), conv_pool.first_block(mel, first, bias)

    wanted = answers()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = [answers()]
    with torch.device("meta"):
        found.append(answers())
    torch.set_default_dtype(torch.bfloat16)
    try:
        found.append(answers())
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(a, b) for each in found for a, b in zip(each, wanted, strict=True))


def test_any_number_of_threads_gives_the_same_bits():
    torch.manual_seed(0)
    x, first, bias = torch.randn(9, 1, 64, 126), torch.randn(16, 1, 3, 3, requires_grad=True), torch.randn(16)
    _, second, second_bias = some((0, 16, 1, 1), 32)
    before, results = torch.get_num_threads(), []
    try:
        for n in (1, 2, 5):
            torch.set_num_threads(n)
            out = conv_pool.block(conv_pool.first_block(x, first, bias, border=True), second, second_bias)
            results.append(torch.autograd.grad(out.square().sum(), (first, second, second_bias)))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_a_gradient_of_the_gradient_is_refused():
    x, weight, bias = some((1, 16, 4, 4), 16)
    out = conv_pool.block(bordered(x), weight, bias).square().sum()
    (grad,) = torch.autograd.grad(out, x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


@pytest.mark.parametrize(
    ("x", "weight", "message"),
    [
        (torch.zeros(1, 16, 4, 4, dtype=torch.float64), (16, 16, 3, 3), "float32 on cpu is wanted; use torch's own"),
        (torch.zeros(1, 16, 4, 4), (13, 16, 3, 3), f"channels=13 must be a multiple of {LANES}"),
        (torch.zeros(1, 13, 4, 4), (16, 13, 3, 3), f"inputs=13 must be a multiple of {LANES}; use torch's own layers"),
        (torch.zeros(1, 16, 4, 4), (16, 32, 3, 3), "the inputs must be as many"),
        (torch.zeros(1, 16, 5, 5), (16, 16, 5, 5), "3 x 3 weights and a bias for each channel are wanted"),
        (torch.zeros(16, 4, 4), (16, 16, 3, 3), "a batch of pictures"),
        (torch.zeros(1, 16, 4, 3), (16, 16, 3, 3), "too small"),
        (torch.zeros(1, 16, 4, 4), (0, 16, 3, 3), "channels=0 must be"),
        (torch.zeros(1, 0, 4, 4), (16, 0, 3, 3), "inputs=0 must be"),
    ],
)
def test_what_is_refused(x, weight, message):
    with pytest.raises(ValueError, match=message):
        conv_pool.block(x, torch.zeros(weight, dtype=x.dtype), torch.zeros(weight[0], dtype=x.dtype))


@pytest.mark.parametrize("block", [conv_pool.block, conv_pool.first_block])
@pytest.mark.parametrize(
    ("bias", "message"),
    [
        (torch.zeros(15), r"bias.shape=\(15,\): .* a bias for each channel"),
        (torch.zeros(1), r"bias.shape=\(1,\)"),
        (torch.zeros(16, dtype=torch.float64), "bias is torch.float64 on cpu"),
    ],
)
def test_a_bias_that_would_be_read_beyond_its_end_is_refused(block, bias, message):
    inputs = 16 if block is conv_pool.block else 1
    with pytest.raises(ValueError, match=message):
        block(torch.zeros(1, inputs, 4, 4), torch.zeros(16, inputs, 3, 3), bias)


def test_the_first_block_gives_its_input_no_gradient():
    with pytest.raises(ValueError, match="gives its input no gradient"):
        conv_pool.first_block(torch.zeros(1, 1, 8, 8, requires_grad=True), torch.zeros(16, 1, 3, 3), torch.zeros(16))


def test_sizes_agree_with_the_original_network():
    """The four blocks, one after the other, end where OriginalNet's linear layer begins."""
    x = conv_pool.first_block(torch.zeros(1, 1, 64, 126), torch.zeros(16, 1, 3, 3), torch.zeros(16), border=True)
    for channels in (32, 64, 128):
        x = conv_pool.block(x, torch.zeros(channels, x.shape[1], 3, 3), torch.zeros(channels), border=channels < 128)
    assert tuple(x.shape) == (1, 128, 5, 9) and np.prod(x.shape) == 5760


def test_a_second_process_compiles_nothing(tmp_path):
    """It finds the code on disk: nothing that writes it is even imported."""
    code = (
        "import sys, torch\nfrom triadbench.kernels.conv_pool import blocks\n"
        "x = blocks.first_block(torch.ones(1, 1, 8, 8), torch.ones(16, 1, 3, 3), torch.ones(16))\n"
        "print('triadbench.kernels.conv_pool.code' in sys.modules, float(x.sum()))"
    )
    first, second = (in_a_new_process(code, NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(2))
    assert (first[0], second[0]) == ("True", "False") and first[1] == second[1]
    assert len(list(tmp_path.iterdir())) == 1
