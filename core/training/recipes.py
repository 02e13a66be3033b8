"""The settings of a training, and what follows from them: network, features, order of the clips.

All randomness of an epoch is seeded by (seed, epoch), so that a resumed training takes the very steps that an
uninterrupted one would have taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from triadbench.core.constants import RECIPE_DEFAULTS
from triadbench.core.errors import UserError
from triadbench.kernels.spec import CHORD, ORIGINAL, MelSpec

LARGEST_SEED = 2**32 - 1
Report = Callable[[dict], None]


@dataclass(frozen=True)
class TrainConfig:
    """One network's training.

    Attributes:
        data: a data set (folder, zip or pack). out: folder of the run.
        recipe: "original" or "ours". task: "type" or "root" for the original's networks, "both" for ours.
        epochs, batch_size, learning_rate: None takes the recipe's.
        split: "random" as the original, or "grouped": no recording on both sides. test_fraction: size of the test side.
        seed: of weights, order and dropout. split_seed: of the split.
        device: "cpu", "cuda", "cuda:1", ...
        pipeline, switches: of the original recipe, by name and as "name=value" (`core.training.pipeline.pipeline`).
    """

    data: str | Path
    out: str | Path
    recipe: str = "ours"
    task: str = "both"
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    split: str | None = None
    test_fraction: float | None = None
    seed: int = 0
    split_seed: int = 13
    device: str = "cpu"
    pipeline: str | None = None
    switches: tuple[str, ...] = ()

    def resolved(self) -> ResolvedConfig:
        """With the recipe's values where None stood.

        Raises:
            UserError: an unknown recipe, task or split, or a number out of range.
        """
        if self.recipe not in RECIPES:
            raise UserError(f"unknown recipe {self.recipe!r}; choose from {', '.join(RECIPES)}")
        tasks = RECIPES[self.recipe].tasks
        if self.task not in tasks:
            raise UserError(f"recipe {self.recipe!r} trains the task {' or '.join(tasks)}, not {self.task!r}")
        defaults = RECIPE_DEFAULTS[self.recipe]._asdict()
        config = ResolvedConfig(**vars(self) | {k: v for k, v in defaults.items() if getattr(self, k) is None})
        if config.split not in ("random", "grouped"):
            raise UserError(f"unknown split {config.split!r}; choose random or grouped")
        if config.batch_size == 1 and config.recipe == "ours":
            raise UserError("batch_size=1: our network's batch normalisation needs at least 2 clips a step")
        if config.recipe == "ours" and (config.pipeline or config.switches):
            raise UserError("recipe 'ours' has one pipeline; leave out --pipeline and --switch")
        for name in ("epochs", "batch_size", "learning_rate"):
            if not 0 < getattr(config, name) < math.inf:
                raise UserError(f"{name}={getattr(config, name)}: must be finite and greater than 0")
        for name in ("seed", "split_seed"):
            if not 0 <= getattr(config, name) <= LARGEST_SEED:
                raise UserError(f"{name}={getattr(config, name)}: must be 0 to {LARGEST_SEED}")
        out, data = Path(config.out).resolve(), Path(config.data).resolve()
        if not str(config.out) or out == data or data in out.parents:
            raise UserError(f"the training would write into its own data, {config.data}; choose another folder")
        return config


@dataclass(frozen=True)
class ResolvedConfig(TrainConfig):
    """A `TrainConfig` that was checked and lacks nothing."""

    epochs: int = 0
    batch_size: int = 0
    learning_rate: float = 0.0
    split: str = ""
    test_fraction: float = 0.0

    def described(self) -> dict:
        """The settings as a training record holds them."""
        return {**asdict(self), "data": str(self.data), "out": str(self.out), "switches": list(self.switches)}


@dataclass(frozen=True)
class Recipe:
    """A kind of training: its network, its tasks, and its mel spectrograms (log or power)."""

    architecture: str
    tasks: tuple[str, ...]
    spec: MelSpec
    log: bool


RECIPES = {
    "original": Recipe("original", ("type", "root"), ORIGINAL, log=False),
    "ours": Recipe("chordnet", ("both",), CHORD, log=True),
}


def epoch_order(n: int, seed: int, epoch: int) -> Tensor:
    """The order (n,) in which an epoch (from 0) takes its clips, in every pipeline."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(mix_seed(seed, epoch)))


def mix_seed(seed: int, epoch: int) -> int:
    """A seed for one epoch."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])


def finite_loss(loss: float, epoch: int) -> float:
    """The training loss of an epoch (from 0) itself. Raises UserError where it is not finite."""
    if not math.isfinite(loss):
        raise UserError(f"the loss is {loss} in epoch {epoch + 1}; a smaller --learning-rate may help")
    return loss
