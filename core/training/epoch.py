"""Epochs of the original study's training, in any pipeline: the same clips in the same order from the same weights."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from triadbench.core.data.dataset import Dataset
from triadbench.core.data.splits import SEED, TEST_FRACTION, random_split
from triadbench.core.device import torch_device
from triadbench.core.errors import UserError
from triadbench.core.models.chords import ROOTS, TYPES
from triadbench.core.models.networks import OriginalNet, original_loss
from triadbench.core.training import distributed
from triadbench.core.training.batches import in_batches, make_source
from triadbench.core.training.clock import NO_CLOCK, clock_for
from triadbench.core.training.pipeline import Switches
from triadbench.core.training.steps import TrainingStep


@dataclass(frozen=True)
class EpochResult:
    """What an epoch took and gave.

    Attributes:
        seconds: from the first batch asked for to the last result read; with a clock, more than without.
        n_clips: seen.
        losses: of every step, in order, each before its update (training; of every batch in testing).
        loss: mean over the clips. accuracy: share of clips named rightly (testing), or None.
        prepared_s: of `seconds`, what was paid once: computing features that later epochs find (mel="cached").
        parts: {part: seconds} summing to `seconds`, if a clock was given (`core.training.clock.PARTS`).
    """

    seconds: float
    n_clips: int
    losses: list[float]
    loss: float
    accuracy: float | None = None
    prepared_s: float = 0.0
    parts: dict[str, float] | None = None


def epoch_order(n: int, seed: int, epoch: int) -> torch.Tensor:
    """The order (n,) in which an epoch (from 0) takes its clips; every pipeline and every process takes this one."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(mix_seed(seed, epoch)))


def mix_seed(seed: int, epoch: int) -> int:
    """A seed for one epoch."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])


class Epochs:
    """Runs epochs of training and testing of one network over a data set.

    Args:
        model: OriginalNet on the CPU or the device; moved and converted in place.
        rows: (train, test) indices of clips.
        test_batch_size: None: the training's.
        world: the processes that share every batch; losses and accuracy are those of all of them.

    Attributes:
        source: where batches come from. step: what is done with one. epoch: how many have been trained.
    """

    def __init__(
        self,
        dataset: Dataset,
        model: OriginalNet,
        rows: tuple[np.ndarray, np.ndarray],
        *,
        task: str,
        batch_size: int,
        seed: int,
        switches: Switches,
        device: torch.device,
        learning_rate: float,
        test_batch_size: int | None = None,
        world: distributed.World = distributed.ALONE,
    ):
        self.switches, self.device, self.batch_size, self.seed = switches.check(device), device, batch_size, seed
        self.test_batch_size = test_batch_size or batch_size
        self.train_rows, self.test_rows = rows
        self.source = make_source(dataset, task, switches, device)
        self.step = TrainingStep(model.to(device), learning_rate, switches, device)
        self.world = world
        if world.size > 1:
            self.step.world = world
        self.epoch = 0
        self._graph = None

    def train(self, clock=None, on_step=None) -> EpochResult:
        """The next epoch.

        Args:
            clock: see `core.training.clock.clock_for`; with one, the result has `parts`.
            on_step: called with (steps done, steps, losses so far) after each step (CUDA graph: some steps), the losses
                a tensor on the device or, where they are read at every step, a list.
        """
        clock = clock_for(clock, str(self.device))
        order = self.train_rows[epoch_order(len(self.train_rows), self.seed, self.epoch).numpy()]
        self.step.model.train()
        self._synchronise()
        started = time.perf_counter()
        with self.step.settings():
            prepared = self._prepare(clock)
            run = self._train_graph if self._graph is not None else self._train_steps
            losses = run(order, clock, on_step)
        seconds = time.perf_counter() - started
        self.epoch += 1
        sizes = [len(rows) for rows in in_batches(order, self.batch_size)]
        loss = float(np.dot(losses, sizes) / len(order))
        return self._result(seconds, losses, loss, len(order), prepared, clock)

    def test(self, clock=None) -> EpochResult:
        """A pass over the test side, without updates."""
        clock = clock_for(clock, str(self.device))
        self.step.model.eval()
        self._synchronise()
        started = time.perf_counter()
        losses, right = [], []
        with self.step.settings(), torch.no_grad():
            prepared = self._prepare(clock, capture=False)
            batches = in_batches(self.world.part(self.test_rows), self.test_batch_size)
            for mel, labels in self.source.batches(batches, clock):
                with clock.part("forward"):
                    probabilities = self.step.forward(mel)
                    losses.append(original_loss(probabilities, labels))
                    right.append((probabilities.argmax(1) == labels).sum())
                if self.switches.sync_each_step:
                    with clock.part("synchronisation"):
                        losses[-1], right[-1] = losses[-1].item(), right[-1].item()
            with clock.part("synchronisation"):
                losses = losses if self.switches.sync_each_step or not losses else torch.stack(losses).tolist()
                n_right = int(sum(right))
            total = float(np.dot(losses, [len(rows) for rows in batches]))
            total, n_right = self.world.sum_numbers([total, n_right])
        seconds = time.perf_counter() - started
        n = len(self.test_rows)
        return self._result(seconds, losses, total / n, n, prepared, clock, n_right / n)

    def _prepare(self, clock, capture: bool = True) -> float:
        """What is done once; its seconds. (The graph itself is captured in the first epoch's first step.)"""
        started = time.perf_counter()
        self.source.prepare(clock=clock)
        if capture and self.switches.cuda_graph and (self._graph is None or self._graph.timed != clock.active):
            from triadbench.core.training.step_graph import StepGraph

            # Instrumented epochs replay a graph of their own, which notes when its parts begin.
            self._graph = StepGraph(self.step, self.source, self.batch_size, len(self.train_rows), clock.active)
        self._synchronise()
        return time.perf_counter() - started

    def _train_steps(self, order: np.ndarray, clock, on_step) -> list[float]:
        whole = in_batches(order, self.batch_size)
        mine = [self.world.part(rows) for rows in whole]
        found = self.source.batches([rows for rows in mine if len(rows)], clock)
        reads = self.switches.sync_each_step
        losses = [] if reads else torch.zeros(len(whole), device=self.device)
        for done, (rows, part) in enumerate(zip(whole, mine, strict=True)):
            if len(part):
                loss = self.step(*next(found), clock, share=len(part) / len(rows))
            else:  # the others have clips of this batch
                loss = self.step.without_clips()
            if reads:
                with clock.part("synchronisation"):
                    losses.append(loss.item())
            else:
                losses[done] = loss
            if on_step is not None:
                on_step(done + 1, len(whole), losses)
        with clock.part("synchronisation"):
            return self.world.sum_numbers(losses if reads else losses.tolist())

    def _train_graph(self, order: np.ndarray, clock, on_step) -> list[float]:
        return self._graph.run(order, self.switches.sync_each_step, clock, on_step)

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _result(self, seconds, losses, loss, n, prepared, clock, accuracy=None) -> EpochResult:
        return EpochResult(
            seconds=seconds,
            n_clips=n,
            losses=losses,
            loss=loss,
            accuracy=accuracy,
            prepared_s=prepared if prepared > 1e-3 else 0.0,
            parts=clock.parts(seconds) if clock is not NO_CLOCK else None,
        )


class StudyTrainer:
    """The original study's training of one network, for its experiments and for the ladder.

    Order of clips and initial weights depend on the seeds alone, whatever the switches.

    Args:
        dataset: from `core.data.dataset.open_dataset`; packed=True wants a pack, packed=False a folder or zip.
        task: "type" or "root".
        seed: of weights and order. split_seed: of the random split.

    Attributes:
        model: OriginalNet on the device. n_train, n_test: clips on the two sides.

    Raises:
        UserError: switches, data and device that do not go together.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        task: str,
        batch_size: int,
        seed: int,
        switches: Switches,
        device: str | torch.device,
        split_seed: int = SEED,
        learning_rate: float = 1e-5,
        test_fraction: float = TEST_FRACTION,
    ):
        n_classes = {"type": len(TYPES), "root": len(ROOTS)}
        if task not in n_classes:
            raise UserError(f"task {task!r}: the original's networks learn type or root")
        check_data(dataset, switches)
        rows = random_split(len(dataset), test_fraction, split_seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = OriginalNet(n_classes[task])
        self._epochs = Epochs(
            dataset,
            self.model,
            rows,
            task=task,
            batch_size=batch_size,
            seed=seed,
            switches=switches,
            device=torch_device(str(device)),
            learning_rate=learning_rate,
        )
        self.n_train, self.n_test = (len(side) for side in rows)

    def train_epoch(self, clock=None) -> EpochResult:
        """The next epoch of training; `clock` (a `core.training.clock.Clock` or `time.perf_counter`) asks for its parts."""
        return self._epochs.train(clock)

    def test_epoch(self, clock=None) -> EpochResult:
        """A pass over the test side."""
        return self._epochs.test(clock)


def check_data(dataset: Dataset, switches: Switches) -> None:
    """Raises UserError unless the set is of the kind that the switch `packed` wants."""
    if switches.packed and dataset.kind != "pack":
        raise UserError(
            f"{dataset.path} is a {dataset.kind}; switch packed=true reads a pack (make one with `data pack`)"
        )
    if not switches.packed and dataset.kind == "pack":
        raise UserError(
            f"{dataset.path} is a pack; switch packed=false opens a file for each clip: give the folder or zip that "
            "the pack was made of"
        )
