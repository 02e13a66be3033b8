"""The original study's training in any pipeline: the same clips in the same order from the same weights.

Epochs, and their two users: `StudyTrainer` for experiments, `OriginalRun` for the command `train`.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from triadbench.core.constants import RECIPE_DEFAULTS
from triadbench.core.data.dataset import Dataset
from triadbench.core.data.splits import SEED
from triadbench.core.device import torch_device
from triadbench.core.errors import UserError
from triadbench.core.models.chords import ROOTS, TYPES
from triadbench.core.models.networks import OriginalNet
from triadbench.core.timing import Clock, NoClock, clock_for, synchronize
from triadbench.core.training.batches import features_fit, in_batches, make_source
from triadbench.core.training.draws import Draws
from triadbench.core.training.settings import Report, ResolvedConfig, Switches, finite_loss, pipeline
from triadbench.core.training.step import OnStep, StepGraph, TrainingStep

N_CLASSES = {"type": len(TYPES), "root": len(ROOTS)}
_REPORT_EVERY = 10  # steps
TimeSource = Clock | Callable[[], float] | None


@dataclass(frozen=True)
class EpochResult:
    """Time and results of an epoch.

    Attributes:
        seconds: from the first batch asked for to the last result read; with a clock, more than without.
        n_clips: seen. losses: of every step, in order, each before its update (training; of every batch in testing).
        loss: mean over the clips. accuracy: share of clips named rightly, in training each before its update. The
            original states means over batches, the same wherever all batches are full, as in its final training.
        prepared_s: of `seconds`, what was paid once: computing features that later epochs reuse (mel="cached").
        parts: {part: seconds} summing to `seconds`, if a clock was given (`core.constants.EPOCH_PARTS`).
        n_right: clips named rightly, of every batch.
        copies: `core.timing.NoClock.copies` of a training epoch with a clock.
    """

    seconds: float
    n_clips: int
    losses: list[float]
    loss: float
    accuracy: float | None = None
    prepared_s: float = 0.0
    parts: dict[str, float] | None = None
    n_right: list[float] = field(default_factory=list)
    copies: dict[str, Any] | None = None


class Epochs:
    """Epochs of training and testing of one network over a data set.

    Args:
        model: OriginalNet on the CPU or the device; moved and converted in place.
        rows: (train, test) indices of clips. draws: gives the order of every epoch.

    Attributes:
        model: the network, on the device. n_train, n_test: clips on the two sides.
        source: where batches come from. step: what is done with one. epoch: how many have been trained.

    Raises:
        UserError: switches, data and device that do not go together.
    """

    def __init__(
        self,
        dataset: Dataset,
        model: OriginalNet,
        rows: tuple[np.ndarray, np.ndarray],
        *,
        task: str,
        batch_size: int,
        draws: Draws,
        switches: Switches,
        device: torch.device,
        learning_rate: float,
    ):
        if switches.check(device).packed and dataset.kind != "pack":
            way_out = "switch packed=true reads a pack (make one with `data pack`)"
            raise UserError(f"{dataset.path} is a {dataset.kind}; {way_out}")
        if not switches.packed and dataset.kind == "pack":
            way_out = "switch packed=false opens a file for each clip: give the folder or zip that the pack was made of"
            raise UserError(f"{dataset.path} is a {dataset.kind}; {way_out}")
        self.switches, self.device, self.batch_size, self.draws = switches, device, batch_size, draws
        self.train_rows, self.test_rows = rows
        self.n_train, self.n_test = map(len, rows)
        self.source = make_source(dataset, task, switches, device)
        self.step = TrainingStep(model.to(device), learning_rate, switches, device)
        self.model, self.epoch = model, 0
        self._graph: StepGraph | None = None

    def train_epoch(self, clock: TimeSource = None, on_step: OnStep | None = None) -> EpochResult:
        """Train for the next epoch.

        Args:
            clock: see `core.timing.clock_for`; with one, the result has `parts`.
            on_step: called with (steps done, steps, losses so far) after each step (CUDA graph: some steps); None for
                losses that are not known before the epoch ends.
        """
        order = self.train_rows[self.draws.order(self.n_train, self.epoch)]
        self.step.model.train()
        synchronize(self.device)
        books, started = clock_for(clock, self.device), time.perf_counter()
        with self.step.settings():
            prepared_s = self._prepare(books, capture=self.switches.cuda_graph)
            run = self._graph.run if self._graph is not None else self._train_steps
            losses, n_right = run(order, books, on_step)
        seconds, n = time.perf_counter() - started, len(order)
        self.epoch += 1
        loss = float(np.dot(losses, [len(rows) for rows in in_batches(order, self.batch_size)])) / n
        instruments = books.parts(seconds), n_right, books.copies()
        return EpochResult(seconds, n, losses, loss, sum(n_right) / n, prepared_s, *instruments)

    def test_epoch(self, clock: TimeSource = None) -> EpochResult:
        """A pass over the test side, without updates."""
        self.step.model.eval()
        synchronize(self.device)
        books, started = clock_for(clock, self.device), time.perf_counter()
        with self.step.settings():
            prepared_s = self._prepare(books)
            with torch.inference_mode():
                losses, n_right, total, hits = self._test_batches(self.test_rows, books)
        seconds, n = time.perf_counter() - started, self.n_test
        return EpochResult(seconds, n, losses, total / n, hits / n, prepared_s, books.parts(seconds), n_right)

    def _prepare(self, clock: NoClock, capture: bool = False) -> float:
        """Work that is done once; its seconds. (The graph itself is captured in the first epoch's first step.)"""
        started = time.perf_counter()
        self.source.prepare(clock=clock)
        if capture and (self._graph is None or self._graph.timed != clock.active):
            # Instrumented epochs replay a graph of their own, which notes when its parts begin.
            reads = self.switches.sync_each_step
            self._graph = StepGraph(self.step, self.source, self.batch_size, self.n_train, reads, clock.active)
        synchronize(self.device)
        seconds = time.perf_counter() - started
        return seconds if seconds > 1e-3 else 0.0

    def _train_steps(
        self, order: np.ndarray, clock: NoClock, on_step: OnStep | None
    ) -> tuple[list[float], list[float]]:
        batches = in_batches(order, self.batch_size)
        losses: list[Any] = []
        hits: list[Any] = []
        for loss, n_right in self._steps(batches, clock):
            losses.append(loss)
            hits.append(n_right)
            if on_step is not None:
                on_step(len(losses), len(batches), losses)
        with clock.part("synchronisation"):
            return _numbers(losses), _numbers(hits)

    def _steps(self, batches: list[np.ndarray], clock: NoClock) -> Iterator[tuple[Any, Any]]:
        """Loss and right answers of every batch, each with its update."""
        for mel, labels in self.source.batches(batches, clock):
            yield self.step(mel, labels, clock)

    def _test_batches(self, rows: np.ndarray, clock: NoClock) -> tuple[list[float], list[float], float, float]:
        """(loss and right answers of every batch, sum of the clips' losses, clips named rightly)."""
        batches = in_batches(rows, self.batch_size)
        judged = [self.step.judge(*inputs, clock) for inputs in self.source.batches(batches, clock)]
        with clock.part("synchronisation"):
            losses, hits = (_numbers([pair[side] for pair in judged]) for side in (0, 1))
        return losses, hits, float(np.dot(losses, [len(rows) for rows in batches])), sum(hits)


def _numbers(values: list[Any]) -> list[float]:
    """Numbers as they are; tensors on a device in one transfer."""
    return torch.stack(values).tolist() if values and isinstance(values[0], Tensor) else values


class StudyTrainer(Epochs):
    """The original study's training of one network, for its experiments and for the ladder.

    Split, weights and order of clips depend on the seeds alone, whatever the switches; with both as they are by
    default they are the original's (`core.training.draws`).

    Args:
        dataset: from `core.data.dataset.open_dataset`; packed=True needs a pack, packed=False a folder or zip.
        task: "type" or "root". seed: of weights and order. split_seed: of the random split.
        n_classes: of the network; None takes the task's, 4 or 12. The original timed types with 12.
        settings: further arguments of `Epochs`, which raises as well.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        task: str,
        device: str | torch.device,
        seed: int = SEED,
        split_seed: int = SEED,
        n_classes: int | None = None,
        learning_rate: float = RECIPE_DEFAULTS["original"].learning_rate,
        **settings: Any,
    ):
        if task not in N_CLASSES:
            raise UserError(f"task {task!r}: the original's networks learn type or root")
        n, n_classes = len(dataset), n_classes or N_CLASSES[task]
        draws = Draws(n, n_classes, seed)
        settings |= {"task": task, "draws": draws, "learning_rate": learning_rate, "device": torch_device(str(device))}
        super().__init__(dataset, draws.model, Draws(n, n_classes, split_seed).rows, **settings)


def draws_of(config: ResolvedConfig, n: int) -> Draws:
    """The original's random numbers for a training on a whole set of n clips."""
    return Draws(n, N_CLASSES[config.task], config.seed, n_all=n, test_fraction=config.test_fraction)


class OriginalRun:
    """The original recipe's `core.training.train.TrainingRun`: `Epochs` in a pipeline, after the features it keeps."""

    def __init__(
        self,
        config: ResolvedConfig,
        model: OriginalNet,
        dataset: Dataset,
        rows: tuple[np.ndarray, np.ndarray],
        device: torch.device,
        report: Report,
        make_epochs: Callable[..., Epochs] = Epochs,
    ):
        switches = pipeline(str(config.pipeline), device, config.switches)
        names = {text.partition("=")[0] for text in config.switches}
        if config.pipeline != "original" and "packed" not in names:
            switches = switches.with_(packed=dataset.kind == "pack")  # a set that is not packed trains as well
        if "mel" not in names and switches.mel == "cached" and not features_fit(len(dataset), device):
            switches = switches.with_(mel="batch", cuda_graph=False)
        self.config = config
        settings = {name: getattr(config, name) for name in ("task", "batch_size", "learning_rate")}
        settings |= {"switches": switches, "device": device, "draws": draws_of(config, len(dataset))}
        self.epochs = make_epochs(dataset, model, rows, **settings)
        self.optimizer: torch.optim.Optimizer = self.epochs.step.optimizer
        self.described: dict = {"pipeline": switches.describe()}
        report({"stage": "features", "done": 0, "total": len(dataset)})
        self.epochs.source.prepare(lambda done, total: report({"stage": "features", "done": done, "total": total}))

    def train_epoch(self, epoch: int, report: Report) -> dict[str, float | None]:
        """Train for the epoch numbered `epoch` (from 0); the clips' mean loss, and accuracy before each update."""
        reads = self.epochs.switches.sync_each_step or self.epochs.device.type == "cpu"  # elsewhere reading waits

        def on_step(done: int, total: int, losses: Any) -> None:
            if done % _REPORT_EVERY and done != total:
                return
            event = {"stage": "train", "epoch": epoch + 1, "epochs": self.config.epochs, "done": done, "total": total}
            if reads and losses is not None:
                event["loss"] = finite_loss(float(torch.as_tensor(losses[:done]).mean()), epoch)
            report(event)

        self.epochs.epoch = epoch
        result = self.epochs.train_epoch(on_step=on_step)
        return {"train_loss": result.loss, f"train_{self.config.task}_accuracy": result.accuracy}

    def test(self) -> dict[str, float | None]:
        """Loss and accuracy on clips that training does not see."""
        result = self.epochs.test_epoch()
        return {"test_loss": result.loss, f"test_{self.config.task}_accuracy": result.accuracy}
