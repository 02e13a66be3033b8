"""Several processes that train one network, as torchrun starts them: `torchrun --nproc-per-node=2 cli.py train ...`.

Every process takes its share of every batch; gradients are summed, each weighted by its share of the clips, so that the
step is the one that a single process would take with the whole batch. Batch normalisation takes its statistics from the
whole batch, and dropout and augmentation draw for it, on every process the same. The first process writes and reports.

The training of one process knows nothing of this: `SharedChordRun` and `SharedEpochs` override what differs.
torch's DistributedDataParallel averages the processes' gradients evenly, which is wrong for a last batch that does not
divide, and its SyncBatchNorm does not run on the CPU; hence the few functions here.
"""

import atexit
import contextlib
import functools
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from triadbench.core import system
from triadbench.core.device import torch_device
from triadbench.core.errors import UserError
from triadbench.core.models.networks import ChordNet
from triadbench.core.timing import NoClock
from triadbench.core.training import train as training
from triadbench.core.training.crops import Crops
from triadbench.core.training.epoch import EpochResult, Epochs, OriginalRun, TimeSource
from triadbench.core.training.settings import Report, ResolvedConfig, TrainConfig
from triadbench.core.training.step import OnStep
from triadbench.core.training.train import ChordRun

_TIMEOUT = timedelta(minutes=10)  # of one exchange; a process that dies is noticed at once, by its closed connection


def train(config: TrainConfig, *, resume: bool = False, progress: Report | None = None) -> dict:
    """`core.training.train.train`, by all the processes that torchrun started; without torchrun, just that.

    Raises:
        UserError: what one process raises, and an `out` that is not one folder for all.
    """
    config = config.resolved()
    world, last = join(config.device), Path(config.out) / training.LAST
    # Machines start and look at clocks at different times: what one of them finds holds for all.
    resume = resume or (world.restarted and world.any(of_this_launch(last)))
    if world.size == 1:
        return training.train(config, resume=resume, progress=progress)
    size = last.stat().st_size if last.exists() else 0
    world.agree(size, f"{config.out} must be one folder for all processes; share it, or copy it to each machine")
    if config.device == "cuda":
        config = replace(config, device=f"cuda:{world.local_rank}")
        if config.recipe == "original" and not any(text.startswith("cuda_graph=") for text in config.switches):
            config = replace(config, switches=(*config.switches, "cuda_graph=false"))  # it does not capture the sums
    run_types: dict[str, Callable[..., training.TrainingRun]] = {
        "original": functools.partial(OriginalRun, make_epochs=functools.partial(SharedEpochs, world)),
        "ours": functools.partial(SharedChordRun, world),
    }
    is_first = world.rank == 0
    progress = progress if is_first else None
    record = training.train(
        config, resume=resume, progress=progress, run_types=run_types, processes=world.size, writes=is_first
    )
    world.sum_numbers([0.0])  # all are here: what a process does next may read what the first one wrote
    return record


class World:
    """A training's processes, seen from number `rank` of `size`."""

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0, restarted: bool = False):
        self.rank, self.size, self.local_rank, self.restarted = rank, size, local_rank, restarted
        self.span, self.n = slice(0, 0), 0  # of the current batch: this process's clips, and the clips in all

    def part(self, rows: np.ndarray) -> np.ndarray:
        """This process's share of `rows`: consecutive ones, sizes differing by one at most."""
        return np.array_split(rows, self.size)[self.rank]

    @contextlib.contextmanager
    def batch(self, n: int) -> Iterator[None]:
        """While the block runs, `drawn` and shared batch normalisation work for a batch of `n` clips in all."""
        ends = np.cumsum([0, *map(len, np.array_split(np.arange(n), self.size))]).tolist()
        self.span, self.n = slice(ends[self.rank], ends[self.rank + 1]), n
        try:
            yield
        finally:
            self.n = 0

    def drawn(self, draw: Callable[..., Tensor], *shape: int) -> Tensor:
        """draw(n, *shape) for the `n` clips of the whole batch; of that, what belongs to this process's clips."""
        return draw(self.n, *shape)[self.span]

    def share(self, loss: Tensor, n: int, total: int) -> Tensor:
        """A mean loss over this process's `n` clips as its part of the mean over all `total`."""
        return loss * (n / total) if n else torch.nan_to_num(loss) * 0.0

    def sum_gradients(self, model: nn.Module, weight: float = 1.0) -> None:
        """Add up the processes' gradients, this one's times `weight`; a parameter without one counts as zero."""
        parameters = [p for p in model.parameters() if p.requires_grad]
        flat = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters])
        summed = _all_reduce(flat * weight).split([p.numel() for p in parameters])
        for p, values in zip(parameters, summed, strict=True):
            p.grad = torch.empty_like(p).copy_(values.view(p.shape))  # in the parameter's memory format

    def sum_numbers(self, values: list[float]) -> list[float]:
        """Sums of some numbers over the processes."""
        if self.size == 1:
            return values
        kind = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
        return _all_reduce(torch.tensor(values, dtype=torch.float64, device=kind)).tolist()

    def agree(self, value: int, otherwise: str) -> None:
        """Raises UserError(otherwise) unless `value` is the same on all processes."""
        if self.sum_numbers([value, value * value]) != [value * self.size, value * value * self.size]:
            raise UserError(otherwise)

    def any(self, flag: bool) -> bool:
        """True on all processes if `flag` is on one."""
        return self.sum_numbers([float(flag)])[0] > 0


class SharedChordRun(ChordRun):
    """`ChordRun` of one of several processes; of a whole batch's crops it takes its own."""

    def __init__(self, world: World, config: ResolvedConfig, model: ChordNet, *arguments: Any):
        self.world = world
        super().__init__(config, model, *arguments)
        share_batches(model, world)

    def step(self, crops: Crops) -> Tensor:
        return _all_reduce(super().step(crops).clone())

    def _training_loss(self, crops: Crops, augmentation: tuple[Tensor, Tensor]) -> Tensor:
        mine, world, n = self._mine(crops), self.world, len(crops.rows)
        with world.batch(n):
            tone, floor = (drawn[world.span] for drawn in augmentation)
            return world.share(super()._training_loss(mine, (tone, floor)), len(mine.rows), n)

    def _mine(self, crops: Crops) -> Crops:
        part = self.world.part
        return Crops(part(crops.rows), part(crops.starts), part(crops.labels), crops.samples)

    def _update(self) -> None:
        self.world.sum_gradients(self.model)
        super()._update()

    def _test_totals(self, batches: Sequence[Crops]) -> list[float]:
        return self.world.sum_numbers(super()._test_totals([*map(self._mine, batches)]))


def share_batches(model: nn.Module, world: World) -> None:
    """Make a model's batch normalisation and dropout work on the whole shared batch; its state dict stays."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            vars(module)["forward"] = functools.partial(_normalise, module, world)
        elif isinstance(module, nn.Dropout):
            vars(module)["forward"] = functools.partial(_drop, module, world)


class _SumOverProcesses(torch.autograd.Function):
    """Sum over the processes; every process's loss depends on everybody's summand, so gradients are summed too."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return _all_reduce(value.clone())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _all_reduce(grad.clone())


def _normalise(module: Any, world: World, x: Tensor) -> Tensor:
    """The forward pass of a batch normalisation, over the whole batch."""
    if not module.training:
        return type(module).forward(module, x)
    over, shape = [0, *range(2, x.ndim)], [1, -1] + [1] * (x.ndim - 2)
    n = world.n * int(np.prod(x.shape[2:]))
    mean = _SumOverProcesses.apply(x.sum(over)) / n
    centred = x - mean.view(shape)
    variance = _SumOverProcesses.apply((centred * centred).sum(over)) / n
    with torch.no_grad():
        module.num_batches_tracked += 1
        module.running_mean.lerp_(mean, module.momentum)
        module.running_var.lerp_(variance * (n / (n - 1)), module.momentum)
    scale = module.weight * torch.rsqrt(variance + module.eps)
    return centred * scale.view(shape) + module.bias.view(shape)


def _drop(module: nn.Dropout, world: World, x: Tensor) -> Tensor:
    """The forward pass of a dropout, drawn for the whole batch."""
    if not (p := module.p) or not module.training:
        return x
    kept = world.drawn(lambda *shape: x.new_empty(shape).bernoulli_(1 - p), *x.shape[1:])
    return x * kept.div_(1 - p)


class SharedEpochs(Epochs):
    """`Epochs` of one of several processes; losses and accuracy are those of all of them."""

    def __init__(self, world: World, *arguments: Any, **settings: Any):
        super().__init__(*arguments, **settings)
        self.world, self._weight = world, 1.0
        self.step.optimizer.register_step_pre_hook(lambda *_: world.sum_gradients(self.model, self._weight))

    def train_epoch(self, clock: TimeSource = None, on_step: OnStep | None = None) -> EpochResult:
        # A step's loss is a share of the batch's; to sum it at every step would make all processes wait.
        silent = None if on_step is None else lambda done, total, losses: on_step(done, total, None)
        return super().train_epoch(clock, silent)

    def _train_steps(
        self, order: np.ndarray, clock: NoClock, on_step: OnStep | None
    ) -> tuple[list[float], list[float]]:
        losses, n_right = (self.world.sum_numbers(values) for values in super()._train_steps(order, clock, on_step))
        return losses, n_right

    def _steps(self, batches: list[np.ndarray], clock: NoClock) -> Iterator[tuple[Any, Any]]:
        mine = [self.world.part(rows) for rows in batches]
        inputs = self.source.batches([rows for rows in mine if len(rows)], clock)
        for rows, part in zip(batches, mine, strict=True):
            self._weight = len(part) / len(rows)
            if len(part):
                loss, n_right = self.step(*next(inputs), clock)
                yield loss * self._weight, n_right
            else:  # the others have clips of this batch, and gradients
                self.step.optimizer.zero_grad(set_to_none=True)
                self.step.optimizer.step()
                nothing = self.step.read(torch.zeros((), device=self.device), clock)
                yield nothing, nothing

    def _test_batches(self, rows: np.ndarray, clock: NoClock) -> tuple[list[float], list[float], float, float]:
        losses, n_right, *totals = super()._test_batches(self.world.part(rows), clock)
        total, hits = self.world.sum_numbers(totals)
        return losses, n_right, total, hits


_joined: World | None = None


def join(device: str) -> World:
    """The world that torchrun's environment describes, talking by gloo ("cpu") or NCCL ("cuda"); one without it."""
    global _joined
    size = int(os.environ.get("WORLD_SIZE", 1))
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
    if size == 1 or "TORCHELASTIC_RUN_ID" not in os.environ:
        return World(restarted=restarts > 0)
    if _joined is None:
        rank, local_rank = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
        if device.startswith("cuda"):
            torch.cuda.set_device(torch_device(f"cuda:{local_rank}"))  # an error in one line where it is not there
        backend = "nccl" if device.startswith("cuda") else "gloo"
        # Where processes leave one another their addresses: torchrun's store, or one of the first process.
        hosted = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        address, port, serves = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), not hosted and rank == 0
        server = torch.distributed.TCPStore(address, port, size, serves, _TIMEOUT, multi_tenant=True)
        life = _meet(server, rank, size)
        store = torch.distributed.PrefixStore(f"triadbench/life {life}", server)
        torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_TIMEOUT)
        atexit.register(torch.distributed.destroy_process_group)
        _joined = World(rank, size, local_rank)
        _joined.restarted = _joined.any(restarts > 0 or life > 1)  # each machine counts its own restarts
    return _joined


def _meet(store: torch.distributed.Store, rank: int, size: int) -> int:
    """The number of this life of the processes, from 1: all `size` of them get the same, and no earlier ones had it.

    torchrun's store outlives a restart, so a process that is quick finds what one that died has left; and the machines
    count their restarts differently. So each says in the store that it is here, by a name that none had before; the
    first process tells that name the number of its life; and who has read it says so, which the dead do not. Raises
    UserError where not all have come within `_TIMEOUT`.
    """
    deadline = time.monotonic() + _TIMEOUT.total_seconds()

    def wait() -> None:
        if time.monotonic() > deadline:
            message = f"not all of the {size} processes have come within {_TIMEOUT}"
            raise UserError(f"{message}; torchrun must start them all")
        time.sleep(0.02)

    if rank == 0:
        life = store.add("triadbench/lives", 1)
        missing = set(range(1, size))
        while missing:
            for other in sorted(missing):
                if store.check([f"triadbench/{life}/{other}"]):
                    missing.remove(other)
                elif store.check([f"triadbench/here/{other}"]):
                    name = store.get(f"triadbench/here/{other}").decode()
                    store.set(f"triadbench/life of {name}", str(life))
            if missing:
                wait()
        return life
    name = uuid.uuid4().hex
    store.set(f"triadbench/here/{rank}", name)
    while not store.check([f"triadbench/life of {name}"]):
        wait()
    life = int(store.get(f"triadbench/life of {name}"))
    store.set(f"triadbench/{life}/{rank}", name)
    return life


def of_this_launch(file: Path) -> bool:
    """Whether a file is of this torchrun's trainings: started again, one goes on with its own, not with older files."""
    launched = system.started_at(os.getppid())
    return file.exists() and file.stat().st_mtime > launched - 1.0  # files' times may be rounded


def is_main() -> bool:
    """True unless torchrun started this process as another than the first."""
    return int(os.environ.get("RANK", 0)) == 0 or "TORCHELASTIC_RUN_ID" not in os.environ


def _all_reduce(tensor: Tensor) -> Tensor:
    torch.distributed.all_reduce(tensor)
    return tensor
