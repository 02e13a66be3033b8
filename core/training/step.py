"""One training step of the original's network, as the switches want it: forward, backward, update.

On a GPU the whole step can be a CUDA graph: captured once, then replayed without Python, or any launch, in between.
Where the features lie on the device, the graph also picks its batch: the epoch's order is copied once, and a counter on
the device says which step it is. Otherwise batches are copied into the place that the graph reads.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from triadbench.core.models.networks import OriginalNet, original_loss
from triadbench.core.timing import NO_CLOCK, NoClock, synchronize
from triadbench.core.training.batches import CachedSource, Source, in_batches
from triadbench.core.training.settings import Switches

_WARM_UP = 3  # steps before a capture: libraries choose their kernels and allocate in the first ones
_STEPS_A_LAUNCH = 8
OnStep = Callable[[int, int, Sequence | Tensor | None], None]
"""Called with (steps done, steps of the epoch, losses so far)."""


class TrainingStep:
    """Loss, gradient and update of a batch: `model`, in the memory format that the switches want, and `optimizer`."""

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

    def __call__(self, mel: Tensor, labels: Tensor, clock: NoClock = NO_CLOCK) -> tuple[Any, Any]:
        """One update, in the original's order; what `judge` says, of the weights before it."""
        return self.judge(mel, labels, clock, self._update)

    def judge(
        self, mel: Tensor, labels: Tensor, clock: NoClock, then: Callable[[Tensor, NoClock], None] | None = None
    ) -> tuple[Any, Any]:
        """(loss, clips named rightly) of a batch: numbers where the switches say so, else scalars on the device.

        `then` is called with the loss between the two.
        """
        with clock.part("forward"):
            probabilities = self.forward(mel)
            loss = original_loss(probabilities, labels)
        read_loss = self.read(loss, clock)
        if then is not None:
            then(loss, clock)
        with clock.part("forward"):
            n_right = (probabilities.detach().argmax(1) == labels).sum()
        return read_loss, self.read(n_right, clock)

    def _update(self, loss: Tensor, clock: NoClock) -> None:
        with clock.part("backward"):
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
        with clock.part("optimizer"):
            self.optimizer.step()

    def read(self, value: Tensor, clock: NoClock) -> Any:
        """A scalar as a number, for which the GPU is waited for, if the switches want that in every step."""
        if not self.switches.sync_each_step or self.switches.cuda_graph:  # a graph's results are read by `StepGraph`
            return value.detach()
        with clock.part("synchronisation"):
            return value.item()

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


def _convolutions(model: OriginalNet) -> list[nn.Conv2d]:
    return [getattr(model, f"conv{i + 1}")[0] for i in range(4)]


def _pool_first_forward(model: OriginalNet, mel: Tensor, channels_last: bool) -> Tensor:
    x = mel.contiguous(memory_format=torch.channels_last) if channels_last else mel
    for convolution in _convolutions(model):
        x = F.relu(F.max_pool2d(convolution(x), 2))
    return model.softmax(model.linear(model.flatten(x)))


def _fused_forward(model: OriginalNet, mel: Tensor) -> Tensor:
    from triadbench.kernels.conv_pool import blocks as conv_pool

    x = mel
    for i, convolution in enumerate(_convolutions(model)):
        weight, bias = convolution.parameters()
        block = conv_pool.block if i else conv_pool.first_block
        x = block(x, weight, bias, border=i < 3)
    return model.softmax(model.linear(model.flatten(x)))


class StepGraph:
    """Epochs of a `TrainingStep` by replaying it.

    Args:
        n: clips of an epoch. Its last batch, if smaller, is computed without the graph.
        reads: read every step's loss. timed: note in the graph when its parts begin and end, for instrumented epochs.
    """

    def __init__(
        self, step: TrainingStep, source: Source, batch_size: int, n: int, reads: bool = False, timed: bool = False
    ):
        self.step, self.source, self.batch_size, self.reads, self.timed = step, source, batch_size, reads, timed
        self._rows = torch.zeros(n, dtype=torch.int64, device=step.device)
        self._position = torch.zeros(1, dtype=torch.int64, device=step.device)
        self._results = torch.zeros(2, -(-n // batch_size), device=step.device)  # losses, clips named rightly
        self._offsets = torch.arange(batch_size, device=step.device)
        self._batch: tuple[Tensor, Tensor] | None = None
        self._marks = _Marks() if timed else None
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}

    def run(self, order: np.ndarray, clock: NoClock, on_step: OnStep | None = None) -> tuple[list[float], list[float]]:
        """Train on the clips `order`; of all steps the losses, and how many clips were named rightly."""
        batches, whole = in_batches(order, self.batch_size), len(order) // self.batch_size
        cached = isinstance(self.source, CachedSource)
        self._rows.copy_(clock.copy(torch.from_numpy(order), self.step.device))
        self._position.zero_()
        inputs = self.source.batches(batches[whole:] if cached else batches, clock)
        done = 0
        while done < len(batches):
            if done == whole:
                count = 1
                self._results[:, whole] = torch.stack(self.step(*next(inputs), clock))
            else:
                # One launch for several steps where nobody looks in between.
                several = cached and not self.reads and not clock.active and whole - done >= _STEPS_A_LAUNCH
                count = _STEPS_A_LAUNCH if several else 1
                if not cached:
                    batch = next(inputs)
                    if self._batch is None:
                        self._batch = batch[0].clone(), batch[1].clone()
                    for place, values in zip(self._batch, batch, strict=True):
                        place.copy_(values)  # to where the graph reads it
                self._replay(count, clock)
            done += count
            if self.reads:
                with clock.part("synchronisation"):
                    self._results[:, done - 1].tolist()
            if on_step is not None:
                on_step(done, len(batches), self._results[0])
        with clock.part("synchronisation"):
            losses, n_right = self._results.tolist()
        return losses, n_right

    def _replay(self, count: int, clock: NoClock) -> None:
        if count not in self._graphs:
            self._graphs[count] = self._capture(count)
        self._graphs[count].replay()
        if self._marks is not None:
            synchronize(self.step.device)
            for name, begin, end in self._marks.parts_of_step:
                clock.book(name, begin.elapsed_time(end) / 1e3)

    def _steps(self, count: int) -> None:
        for _ in range(count):
            if isinstance(self.source, CachedSource):
                rows = self._rows.index_select(0, self._position * self.batch_size + self._offsets)
                mel, labels = self.source.pick(rows)
            else:
                assert self._batch is not None, "a batch is taken before the capture"
                mel, labels = self._batch
            result = torch.stack(self.step(mel, labels, self._marks or NO_CLOCK))
            self._results.index_copy_(1, self._position, result.view(2, 1))
            self._position.add_(1)

    def _capture(self, count: int) -> torch.cuda.CUDAGraph:
        """A graph of `count` steps; weights, averages and counters are left as they were."""
        marks, self._marks = self._marks, None
        side, here = torch.cuda.Stream(self.step.device), torch.cuda.current_stream(self.step.device)
        with self._kept():
            side.wait_stream(here)  # which has made the copies by then
            with torch.cuda.stream(side):
                for _ in range(_WARM_UP):
                    self._position.zero_()
                    self._steps(1)
            here.wait_stream(side)
        self._marks = marks
        graph = torch.cuda.CUDAGraph()
        # Records the work without doing it; the thread that reads ahead may allocate meanwhile.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._steps(count)
        return graph

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        """Put weights, optimizer and counters back, in their places in memory, when the block ends."""

        def tensors() -> list[Tensor]:
            averages = [value for state in self.step.optimizer.state.values() for value in state.values()]
            return [*self.step.model.parameters(), *averages, self._position, self._results]

        saved = {tensor: tensor.detach().clone() for tensor in tensors()}
        yield
        synchronize(self.step.device)
        with torch.no_grad():
            for tensor in tensors():
                # What the first step makes is zero before it.
                tensor.copy_(saved[tensor]) if tensor in saved else tensor.zero_()
        synchronize(self.step.device)


class _Marks(NoClock):
    """Takes a clock's place while a graph is captured: events at the parts' ends become part of the graph."""

    active = True

    def __init__(self) -> None:
        self.parts_of_step: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        begin, end = (torch.cuda.Event(enable_timing=True, external=True) for _ in range(2))
        begin.record()
        yield
        end.record()
        self.parts_of_step.append((name, begin, end))
