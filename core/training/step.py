"""One training step of the original's network, as the switches want it: forward, backward, update."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from triadbench.core.models.networks import OriginalNet, original_loss
from triadbench.core.training.clock import NO_CLOCK, NoClock
from triadbench.core.training.pipeline import Switches

OnStep = Callable[[int, int, Sequence | Tensor | None], None]
"""Called with (steps done, steps of the epoch, losses so far)."""


class TrainingStep:
    """Loss, gradient and update of one batch, as the switches want it.

    Attributes:
        model: the network, on the device, in the memory format that the switches want.
        optimizer: Adam over its weights.
    """

    def __init__(self, model: OriginalNet, learning_rate: float, switches: Switches, device: torch.device):
        if switches.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs
        self.model, self.switches, self.device = model, switches, device
        self.optimizer = torch.optim.Adam(
            model.parameters(),
            lr=learning_rate,
            fused=switches.fused_optimizer or None,
            capturable=switches.cuda_graph,  # the count of steps lives on the device
        )
        forward = _forward_of(model, switches)
        self._forward = torch.compile(forward) if switches.compile else forward

    def forward(self, mel: Tensor) -> Tensor:
        """Probabilities (batch, n_classes) of mel (batch, 1, 64, 126)."""
        if self.switches.precision != "bf16":
            return self._forward(mel)
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            return self._forward(mel).float()

    def __call__(self, mel: Tensor, labels: Tensor, clock: NoClock = NO_CLOCK) -> Tensor:
        """One update; the loss before it, a detached scalar on the device."""
        with clock.part("forward"):
            self.optimizer.zero_grad(set_to_none=True)
            loss = original_loss(self.forward(mel), labels)
        with clock.part("backward"):
            loss.backward()
        with clock.part("optimizer"):
            self.optimizer.step()
        return loss.detach()

    @contextlib.contextmanager
    def settings(self) -> Iterator[None]:
        """The process-wide settings that the switches stand for, while a block runs."""
        if self.device.type == "cpu":
            # Adam's averages of gradients that stay zero sink into numbers that the processor handles in microcode.
            flushes = self.switches.fused_blocks and torch.set_flush_denormal(True)
            try:
                yield
            finally:
                if flushes:
                    torch.set_flush_denormal(False)
            return
        tf32 = self.switches.precision == "tf32"
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        try:
            with torch.backends.cudnn.flags(
                enabled=True, benchmark=self.switches.cuda_graph, deterministic=False, allow_tf32=tf32
            ):
                yield
        finally:
            torch.set_float32_matmul_precision(before)


def _forward_of(model: OriginalNet, switches: Switches) -> Callable[[Tensor], Tensor]:
    if switches.fused_blocks:
        return lambda mel: _fused_forward(model, mel)
    if switches.pool_first:
        return lambda mel: _pool_first_forward(model, mel, switches.channels_last)
    if switches.channels_last:
        return lambda mel: model(mel.contiguous(memory_format=torch.channels_last))
    return model


def _head(model: OriginalNet, x: Tensor) -> Tensor:
    return model.softmax(model.linear(model.flatten(x)))


def _convolutions(model: OriginalNet) -> list[nn.Conv2d]:
    return [getattr(model, f"conv{i + 1}")[0] for i in range(4)]


def _pool_first_forward(model: OriginalNet, mel: Tensor, channels_last: bool) -> Tensor:
    x = mel.contiguous(memory_format=torch.channels_last) if channels_last else mel
    for convolution in _convolutions(model):
        x = F.relu(F.max_pool2d(convolution(x), 2))
    return _head(model, x)


def _fused_forward(model: OriginalNet, mel: Tensor) -> Tensor:
    from triadbench.kernels.conv_pool import blocks as conv_pool

    x = mel
    for i, convolution in enumerate(_convolutions(model)):
        weight, bias = convolution.parameters()
        block = conv_pool.block if i else conv_pool.first_block
        x = block(x, weight, bias, border=i < 3)
    return _head(model, x)
