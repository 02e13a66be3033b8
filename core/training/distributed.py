"""Several processes that train one network, as torchrun starts them: `torchrun --nproc-per-node=2 cli.py train ...`.

Every process takes its share of every batch; gradients are summed, each weighted by its share of the clips, so that the
step is the one that a single process would take with the whole batch. Batch normalisation takes its statistics from the
whole batch, and dropout and augmentation draw for it, on every process the same. The first process writes and reports.

torch's DistributedDataParallel averages the processes' gradients evenly, which is wrong for a last batch that does not
divide, and its SyncBatchNorm does not run on the CPU; hence the few functions here.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from triadbench.core.device import torch_device
from triadbench.core.errors import UserError

_TIMEOUT = timedelta(minutes=10)  # of one exchange; a process that dies is noticed at once, by its closed connection
_PATIENCE = timedelta(hours=12)  # of the others while the first computes features


class World:
    """The processes of a training, seen from one of them; alone, nothing is exchanged.

    Attributes:
        rank, size: which process of how many. restarted: torchrun started it again after a failure.
    """

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0, restarted: bool = False, store=None):
        self._store = store
        self.rank, self.size, self.local_rank, self.restarted = rank, size, local_rank, restarted
        self._begin = self._n = 0  # of the batch at work: clips before this process's, and clips in all
        self._gates = 0

    @property
    def is_main(self) -> bool:
        """True for the one that writes and reports."""
        return self.rank == 0

    def device(self, name: str) -> str:
        """The device of this process: of GPUs, each its own."""
        return f"cuda:{self.local_rank}" if self.size > 1 and name == "cuda" else name

    def part(self, rows: np.ndarray) -> np.ndarray:
        """This process's share of `rows`: consecutive ones, sizes differing by one at most."""
        return rows if self.size == 1 else np.array_split(rows, self.size)[self.rank]

    @contextlib.contextmanager
    def batch(self, n: int) -> Iterator[None]:
        """While the block runs, `drawn` and shared batch normalisation work for a batch of `n` clips in all."""
        shares = np.array_split(np.arange(n), self.size)
        self._begin, self._n = sum(map(len, shares[: self.rank])), n
        try:
            yield
        finally:
            self._n = 0

    def drawn(self, draw: Callable[..., Tensor], n: int, *shape: int, **options: Any) -> Tensor:
        """draw(n, *shape) for this process's clips, out of what is drawn for the whole batch."""
        if self.size == 1:
            return draw(n, *shape, **options)
        return draw(self._n, *shape, **options)[self._begin : self._begin + n]

    def share(self, loss: Tensor, n: int, total: int) -> Tensor:
        """A mean loss over this process's `n` clips as its part of the mean over all `total`."""
        if self.size == 1:
            return loss
        return loss * (n / total) if n else torch.nan_to_num(loss) * 0.0

    def sum_gradients(self, model: nn.Module) -> None:
        """Add up the processes' gradients; a weight without one counts as zero."""
        if self.size == 1:
            return
        parameters = [p for p in model.parameters() if p.requires_grad]
        for p in parameters:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        flat = torch.cat([p.grad.flatten() for p in parameters])
        _all_reduce(flat)
        for p, values in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            p.grad.copy_(values.view(p.shape))

    def sum(self, value: Tensor) -> Tensor:
        """Sum of a tensor over the processes."""
        return value if self.size == 1 else _all_reduce(value.clone())

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

    def first_alone(self, work: Callable[[], Any]) -> Any:
        """The result of `work`, which the first process does before the others; they find what it left on the disk."""
        if self.size == 1:
            return work()
        self._gates += 1
        gate = f"gate {self._gates}"
        if not self.is_main:
            self._store.wait([gate], _PATIENCE)
            return work()
        result = work()
        self._store.set(gate, "done")
        return result

    def wait(self) -> None:
        """Until all processes are here."""
        self.sum_numbers([0.0])


ALONE = World()
_joined: World | None = None


def join(device: str) -> World:
    """The world that torchrun's environment describes; `ALONE` without one.

    Args:
        device: "cpu": the processes talk by gloo; "cuda": by NCCL.
    """
    global _joined
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size == 1 or "TORCHELASTIC_RUN_ID" not in os.environ:
        restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
        return World(restarted=True) if restarts else ALONE
    if _joined is None:
        import atexit

        rank, local_rank = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
        if device.startswith("cuda"):
            torch.cuda.set_device(torch_device(f"cuda:{local_rank}"))  # an error in one line where it is not there
        backend = "nccl" if device.startswith("cuda") else "gloo"
        restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
        server = _server(rank, size)
        life = _meet(server, rank, size)
        store = torch.distributed.PrefixStore(f"triadbench/life {life}", server)
        torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_TIMEOUT)
        atexit.register(_leave)
        _joined = World(rank, size, local_rank, store=store)
        _joined.restarted = _joined.any(restarts > 0 or life > 1)  # each machine counts its own restarts
    return _joined


def _server(rank: int, size: int) -> torch.distributed.Store:
    """Where processes leave one another their addresses: torchrun's store, or one of the first process."""
    hosted = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # by torchrun
    return torch.distributed.TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        size,
        is_master=not hosted and rank == 0,
        timeout=_TIMEOUT,
        multi_tenant=True,
    )


def _meet(store: torch.distributed.Store, rank: int, size: int) -> int:
    """The number of this life of the processes, from 1: all `size` of them get the same, and no earlier ones had it.

    torchrun's store outlives a restart, so a process that is quick finds what one that died has left; and the machines
    count their restarts differently. So each says in the store that it is here, by a name that none had before; the
    first process tells that name the number of its life; and who has read it says so, which the dead do not.

    Raises:
        UserError: not all have come within `_TIMEOUT`.
    """
    deadline = time.monotonic() + _TIMEOUT.total_seconds()

    def wait() -> None:
        if time.monotonic() > deadline:
            raise UserError(
                f"not all of the {size} processes have come within {_TIMEOUT}; torchrun must start them all"
            )
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
    """Whether a file was written since torchrun, which started this process, was itself started.

    A training that torchrun starts again goes on with what its first life wrote, and not with what lay there before.
    """
    import psutil

    launched = psutil.Process(os.getppid()).create_time()
    return file.exists() and file.stat().st_mtime > launched - 1.0  # files' times may be rounded


def is_main() -> bool:
    """True unless torchrun started this process as another than the first."""
    return int(os.environ.get("RANK", 0)) == 0 or "TORCHELASTIC_RUN_ID" not in os.environ


def _leave() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _all_reduce(tensor: Tensor) -> Tensor:
    torch.distributed.all_reduce(tensor)
    return tensor


class _SumOverProcesses(torch.autograd.Function):
    """Sum over the processes; every process's loss depends on everybody's summand, so gradients are summed too."""

    @staticmethod
    def forward(ctx, value):
        return _all_reduce(value.clone())

    @staticmethod
    def backward(ctx, grad):
        return _all_reduce(grad.clone())


def share_batches(model: nn.Module, world: World) -> None:
    """Make batch normalisation and dropout of a model work on the whole batch that the processes share, in place.

    Names and shapes of the state dict stay as they are.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.forward = _Normalise(module, world)
        elif isinstance(module, nn.Dropout):
            module.forward = _Drop(module, world)


class _Normalise:
    """`module.forward` of batch normalisation over the whole batch."""

    def __init__(self, module: nn.modules.batchnorm._BatchNorm, world: World):
        self.module, self.world, self.alone = module, world, module.forward

    def __call__(self, x: Tensor) -> Tensor:
        m = self.module
        if not m.training:
            return self.alone(x)
        over, shape = [0, *range(2, x.ndim)], [1, -1] + [1] * (x.ndim - 2)
        n = self.world._n * x[0:1, 0].numel() if len(x) else self.world._n * int(np.prod(x.shape[2:]))
        mean = _SumOverProcesses.apply(x.sum(over)) / n
        centred = x - mean.view(shape)
        variance = _SumOverProcesses.apply((centred * centred).sum(over)) / n
        with torch.no_grad():
            m.num_batches_tracked += 1
            m.running_mean.lerp_(mean, m.momentum)
            m.running_var.lerp_(variance * (n / (n - 1)), m.momentum)
        scale = m.weight * torch.rsqrt(variance + m.eps)
        return centred * scale.view(shape) + m.bias.view(shape)


class _Drop:
    """`module.forward` of dropout, drawn for the whole batch."""

    def __init__(self, module: nn.Dropout, world: World):
        self.module, self.world = module, world

    def __call__(self, x: Tensor) -> Tensor:
        p = self.module.p
        if not self.module.training or not p:
            return x
        kept = self.world.drawn(lambda *shape, **_: x.new_empty(shape).bernoulli_(1 - p), *x.shape)
        return x * kept.div_(1 - p)
