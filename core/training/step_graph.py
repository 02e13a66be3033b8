"""The whole training step as a CUDA graph: captured once, then replayed without Python, or any launch, in between.

Where the features lie on the device, the graph also picks its batch: the epoch's order is copied once, and a counter on
the device says which step it is. Otherwise batches are copied into the place that the graph reads.
"""

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from triadbench.core.training.batches import CachedSource, Source, in_batches
from triadbench.core.training.clock import NO_CLOCK, NoClock, synchronize
from triadbench.core.training.step import OnStep, TrainingStep

_WARM_UP = 3  # steps before a capture: libraries choose their kernels and allocate in the first ones
_STEPS_A_LAUNCH = 8


class StepGraph:
    """Epochs of a `TrainingStep` by replaying it.

    Args:
        n: clips of an epoch. Its last batch, if smaller, is computed without the graph.
        reads: read the loss after every step.
        timed: note inside the graph when its parts begin and end, for an instrumented epoch.
    """

    def __init__(
        self, step: TrainingStep, source: Source, batch_size: int, n: int, reads: bool = False, timed: bool = False
    ):
        self.step, self.source, self.batch_size, self.reads, self.timed = step, source, batch_size, reads, timed
        self._rows = torch.zeros(n, dtype=torch.int64, device=step.device)
        self._position = torch.zeros(1, dtype=torch.int64, device=step.device)
        self._losses = torch.zeros(-(-n // batch_size), device=step.device)
        self._offsets = torch.arange(batch_size, device=step.device)
        self._batch: tuple[Tensor, Tensor] | None = None
        self._marks = _Marks() if timed else None
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}

    def run(self, order: np.ndarray, clock: NoClock, on_step: OnStep | None = None) -> list[float]:
        """Train on the clips `order`; the losses of all steps."""
        batches = in_batches(order, self.batch_size)
        whole = len(order) // self.batch_size
        cached = isinstance(self.source, CachedSource)
        self._rows.copy_(torch.from_numpy(order))
        self._position.zero_()
        inputs = self.source.batches(batches[whole:] if cached else batches, clock)
        done = 0
        while done < len(batches):
            if done == whole:
                count = 1
                self._losses[whole] = self.step(*next(inputs), clock)
            else:
                # One launch for several steps where nobody looks in between.
                several = cached and not self.reads and not clock.active and whole - done >= _STEPS_A_LAUNCH
                count = _STEPS_A_LAUNCH if several else 1
                if not cached:
                    self._take(*next(inputs))
                self._replay(count, clock)
            done += count
            if self.reads:
                with clock.part("synchronisation"):
                    self._losses[done - 1].item()
            if on_step is not None:
                on_step(done, len(batches), self._losses)
        with clock.part("synchronisation"):
            return self._losses.tolist()

    def _take(self, mel: Tensor, labels: Tensor) -> None:
        """Copy a batch to where the graph reads it."""
        if self._batch is None:
            self._batch = mel.clone(), labels.clone()
        for place, values in zip(self._batch, (mel, labels), strict=True):
            place.copy_(values)

    def _replay(self, count: int, clock: NoClock) -> None:
        if count not in self._graphs:
            self._graphs[count] = self._capture(count)
        self._graphs[count].replay()
        if self._marks is not None:
            synchronize(self.step.device)
            for name, seconds in self._marks.elapsed():
                clock.book(name, seconds)

    def _steps(self, count: int) -> None:
        for _ in range(count):
            if isinstance(self.source, CachedSource):
                rows = self._rows.index_select(0, self._position * self.batch_size + self._offsets)
                mel, labels = self.source.pick(rows)
            else:
                assert self._batch is not None, "a batch is taken before the capture"
                mel, labels = self._batch
            loss = self.step(mel, labels, self._marks or NO_CLOCK)
            self._losses.index_copy_(0, self._position, loss.view(1))
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
            return [*self.step.model.parameters(), *averages, self._position, self._losses]

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
        self._parts: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        begin, end = (torch.cuda.Event(enable_timing=True, external=True) for _ in range(2))
        begin.record()
        yield
        end.record()
        self._parts.append((name, begin, end))

    def elapsed(self) -> list[tuple[str, float]]:
        """(part, seconds) of the latest replay, which has to be over."""
        return [(name, begin.elapsed_time(end) / 1e3) for name, begin, end in self._parts]
