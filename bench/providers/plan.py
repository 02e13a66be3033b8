"""What `benchmark` measures and for how long: efforts as data, and the options filled in and checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from triadbench.bench.providers import contestants
from triadbench.bench.providers.contestants import Contestant
from triadbench.core.constants import usable_cores
from triadbench.core.errors import UserError

PARTS = ("load", "single", "offline", "files", "process")


@dataclasses.dataclass(frozen=True)
class Effort:
    """How long to measure.

    Attributes:
        name: recorded. batches: sizes for offline.
        queries, blocks, pool: of the single stream, the rounds they are spread over, and its distinct clips.
        most_s: of one contestant's calls in a group; beyond it has fewer.
        offline_s, offline_blocks, offline_clips: seconds of each contestant and batch size, in so many rounds, and
            clips at least.
        fresh: processes for each load time. fresh_batch: the larger batch for the memory.
        files, rounds: of the folder of wav files. processes: of each command.
    """

    name: str
    batches: tuple[int, ...] = tuple(2**i for i in range(10))
    queries: int = 1024
    pool: int = 64
    blocks: int = 16
    most_s: float = 40.0
    offline_s: float = 2.0
    offline_blocks: int = 3
    offline_clips: int = 0
    fresh: int = 5
    fresh_batch: int = 64
    files: int = 512
    rounds: int = 7
    processes: int = 11


NORMAL = Effort("normal")
FULL = Effort("full", most_s=float("inf"), offline_clips=24_576, fresh=9, files=2048)
QUICK = Effort(
    "quick",
    batches=(1, 32),
    pool=16,
    blocks=4,
    most_s=0.7,
    offline_s=0.2,
    offline_blocks=2,
    fresh=1,
    fresh_batch=16,
    files=48,
    rounds=3,
    processes=7,
)
SMOKE = Effort(
    "smoke",
    batches=(1, 2),
    queries=4,
    pool=4,
    blocks=2,
    offline_s=0.0,
    offline_blocks=1,
    fresh=1,
    fresh_batch=2,
    files=3,
    rounds=1,
    processes=1,
)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be measured, checked by `make_plan`."""

    checkpoint: Path
    folder: Path
    contestants: tuple[Contestant, ...]
    absent: tuple[tuple[Contestant, str], ...]
    threads: tuple[int, ...]
    batches: tuple[int, ...]
    parts: tuple[str, ...]


def make_plan(
    effort: Effort,
    checkpoint: Path | None = None,
    folder: Path | None = None,
    providers: Sequence[str] = (),
    precisions: Sequence[str] = (),
    threads: Sequence[int] = (),
    batches: Sequence[int] = (),
    parts: Sequence[str] = PARTS,
) -> Plan:
    """Fill in what was not asked for and check what was.

    Raises:
        UserError: an unknown name, a number out of range, a provider that was asked for and cannot be had.
    """
    from triadbench.core.models.predictor import SHIPPED

    checkpoint = Path(checkpoint or SHIPPED)
    if not checkpoint.is_file():
        raise UserError(f"{checkpoint}: no such model file; give a checkpoint with --model")
    folder = Path(folder or checkpoint.parent)
    cores = usable_cores()
    for name, values, most in (("batch", batches, 4096), ("threads", threads, cores)):
        for value in values:
            if not 1 <= value <= most:
                rule = f"1 to {most:,}" + (", the cores of this machine" if name == "threads" else "")
                raise UserError(f"{name}={value} must be in {rule}")
    found, absent = contestants.grid(checkpoint, folder, providers, precisions)
    if not found:
        raise UserError("no contestant is left: " + "; ".join(f"{one.name}: {why}" for one, why in absent[:3]))
    return Plan(
        checkpoint,
        folder,
        tuple(found),
        tuple(absent),
        tuple(sorted(set(threads))) or tuple(sorted({1, cores})),
        tuple(sorted(set(batches))) or effort.batches,
        tuple(parts),
    )
