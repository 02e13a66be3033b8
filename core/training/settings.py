"""The settings of a training: its recipe, and its pipeline, which are switches from the original's way to the fast one.

A switch changes how fast an epoch runs, not what it computes: order of clips, initial weights, loss and updates are the
same up to rounding, whatever the switches. All randomness of an epoch follows from the seed and the epoch's number, so
that a resumed training takes the very steps that an uninterrupted one would have taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_type_hints

import numpy as np
import torch
from torch import Tensor

from triadbench.core.constants import RECIPE_DEFAULTS
from triadbench.core.errors import UserError
from triadbench.kernels.spec import CHORD, ORIGINAL, MelSpec

LARGEST_SEED = 2**32 - 1
Report = Callable[[dict], None]
Mel = Literal["clip", "batch", "cached"]
Precision = Literal["fp32", "tf32", "bf16"]


@dataclass(frozen=True)
class TrainConfig:
    """One network's training.

    Attributes:
        data: a data set (folder, zip or pack), or for ours a set of excerpts. out: folder of the run.
        recipe: "original" or "ours". task: "type" or "root" for the original's networks, "both" for ours.
        epochs, batch_size, learning_rate: None takes the recipe's.
        split: "random" as the original, or "grouped": no recording on both sides. test_fraction: size of the test side.
        seed: of weights, order and dropout; None takes the recipe's. split_seed: of the split.
        device: "cpu", "cuda", "cuda:1", ...
        pipeline, switches: of the original recipe, by name and as "name=value" (`pipeline`).
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
    seed: int | None = None
    split_seed: int = 13
    device: str = "cpu"
    pipeline: str | None = None
    switches: tuple[str, ...] = ()

    def resolved(self) -> ResolvedConfig:
        """With the recipe's values for None; raises UserError for an unknown name or a number out of range."""
        if self.recipe not in RECIPES:
            raise UserError(f"unknown recipe {self.recipe!r}; choose from {', '.join(RECIPES)}")
        tasks = RECIPES[self.recipe].tasks
        if self.task not in tasks:
            raise UserError(f"recipe {self.recipe!r} trains the task {' or '.join(tasks)}, not {self.task!r}")
        defaults = RECIPE_DEFAULTS[self.recipe]._asdict()
        if self.recipe == "original":
            defaults["pipeline"] = "fast"
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
    seed: int = 0

    def described(self) -> dict:
        """The settings as a training record holds them."""
        return {**asdict(self), "data": str(self.data), "out": str(self.out), "switches": list(self.switches)}


class Recipe(NamedTuple):
    """A kind of training: its network, its tasks, and its mel spectrograms."""

    architecture: str
    tasks: tuple[str, ...]
    spec: MelSpec


RECIPES = {
    "original": Recipe("original", ("type", "root"), ORIGINAL),
    "ours": Recipe("chordnet", ("both",), CHORD),
}


def epoch_order(n: int, seed: int, epoch: int) -> Tensor:
    """The order (n,) in which an epoch (from 0) of our recipe takes its rows."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(mix_seed(seed, epoch)))


def mix_seed(seed: int, epoch: int) -> int:
    """A seed for one epoch."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])


def finite_loss(loss: float, epoch: int) -> float:
    """The training loss of an epoch (from 0) itself. Raises UserError where it is not finite."""
    if not math.isfinite(loss):
        raise UserError(f"the loss is {loss} in epoch {epoch + 1}; a smaller --learning-rate may help")
    return loss


@dataclass(frozen=True)
class Switches:
    """How the one trainer trains; the defaults are the original pipeline.

    Attributes:
        packed: clips come from a pack's memory map; False: each file is opened, decoded, resampled, mixed to mono.
        mel: "clip": per clip inside the dataset by torchaudio; "batch": once per batch by kernels.MelSpectrogram;
            "cached": computed once, then kept on the device.
        prefetch: batches are read (on a GPU: into pinned memory, and copied on a stream of their own) by a thread ahead
            of the step.
        channels_last: network and input in channels-last memory format.
        pool_first: max-pool before ReLU: the same function, for both are monotone, with a quarter of the ReLU's work.
        fused_blocks: a block's bias, max-pool and ReLU in one pass of our compiled code, the first block whole, no
            convolution of what the pooling drops, and backward only where a gradient comes through pooling and ReLU
            (kernels/conv_pool/blocks.py); numbers too small for float32's full precision become zero. CPU, float32;
            needs channels_last and pool_first.
        fused_optimizer: Adam(fused=True): one pass over the weights.
        sync_each_step: of every batch the loss is read before the backward pass, and the right answers are counted and
            read after the update, as the original does; False: they stay on the device until the epoch ends.
        precision: of convolutions and products: "fp32", "tf32" (GPU) or "bf16" (autocast).
        compile: torch.compile of the step's network.
        cuda_graph: the whole training step is captured once and replayed, and cuDNN tries its algorithms for the
            fastest; the loss is then read after the update (GPU; needs fused_optimizer).
    """

    packed: bool = False
    mel: Mel = "clip"
    prefetch: bool = False
    channels_last: bool = False
    pool_first: bool = False
    fused_blocks: bool = False
    fused_optimizer: bool = False
    sync_each_step: bool = True
    precision: Precision = "fp32"
    compile: bool = False
    cuda_graph: bool = False

    def describe(self) -> dict[str, bool | str]:
        """The switches as a record holds them."""
        return asdict(self)

    def with_(self, **changes: Any) -> Switches:
        """These switches with some changed."""
        return replace(self, **changes)

    def check(self, device: torch.device | str) -> Switches:
        """The switches themselves; raises UserError unless they go together and with the device."""
        kind = str(device).partition(":")[0]
        for name, kinds in _KINDS.items():
            value = getattr(self, name)
            if value not in kinds:
                raise UserError(f"switch {name}={_text(value)}: choose {', '.join(map(_text, kinds))}")
        for name, value in (("cuda_graph", True), ("precision", "tf32")):
            if kind == "cpu" and getattr(self, name) == value:
                raise UserError(f"switch {name}={_text(value)} needs a GPU and the device is {kind}; leave it out")
        if self.fused_blocks and kind != "cpu":
            raise UserError(f"switch fused_blocks=true runs on the CPU and the device is {kind}; leave it out")
        for name, needed in _NEEDS.items():
            for other, value in needed.items() if getattr(self, name) else ():
                if getattr(self, other) != value:
                    raise UserError(f"switch {name}=true needs {other}={_text(value)}; set both or neither")
        return self


_KINDS = {name: get_args(hint) or (True, False) for name, hint in get_type_hints(Switches).items()}
_NEEDS: dict[str, dict[str, bool | str]] = {
    "fused_blocks": {"channels_last": True, "pool_first": True, "precision": "fp32", "compile": False},
    "cuda_graph": {"fused_optimizer": True},
}

ORIGINAL_PIPELINE = Switches()
# torch.compile is left off: its compiler takes longer than a whole training takes with the graph alone.
_FAST = Switches(True, "cached", channels_last=True, pool_first=True, fused_optimizer=True, sync_each_step=False)


def fast_pipeline(device: torch.device | str) -> Switches:
    """The fast pipeline of a device ("cpu", "cuda", "cuda:1", ...)."""
    if str(device).startswith("cpu"):
        return replace(_FAST, fused_blocks=True)
    return replace(_FAST, prefetch=True, precision="tf32", cuda_graph=True)


PIPELINES = {"original": lambda device: ORIGINAL_PIPELINE, "fast": fast_pipeline}


def pipeline(name: str, device: torch.device | str, changes: Iterable[str] = ()) -> Switches:
    """A pipeline by name, with switches "name=value" changed; raises UserError for unknown or clashing ones."""
    if name not in PIPELINES:
        raise UserError(f"unknown pipeline {name!r}; choose {' or '.join(PIPELINES)}")
    switches = PIPELINES[name](device)
    for text in changes:
        key, equals, value = text.partition("=")
        if not equals or key not in _KINDS:
            raise UserError(f"switch {text!r} must be name=value, the name one of {', '.join(_KINDS)}")
        values = {_text(kind): kind for kind in _KINDS[key]}
        if True in _KINDS[key]:
            values |= {"on": True, "off": False, "1": True, "0": False}
        if value.lower() not in values:
            raise UserError(f"switch {key}={value}: choose {', '.join(map(_text, _KINDS[key]))}")
        switches = switches.with_(**{key: values[value.lower()]})
    return switches.check(device)


def _text(value: bool | str) -> str:
    return str(value).lower()


# (name, the switch that takes its value in the fast pipeline, sentence)
_RUNGS = [
    ("packed", "packed", "Clips come from one memory-mapped array: no file is opened, no header read, none decoded."),
    ("mel per batch", "mel", "Our kernel computes mel spectrograms for a whole batch, not torchaudio clip by clip."),
    ("prefetch", "prefetch", "A thread reads batches ahead into pinned memory and copies them while the GPU computes."),
    ("cached mel", "mel", "The mel spectrograms, the same in every epoch, are computed once and kept on the device."),
    ("losses stay on the device", "sync_each_step", "The loss is read once an epoch, not after every batch: no wait."),
    ("channels-last", "channels_last", "A pixel's channels lie side by side, as the convolutions want: none converts."),
    ("pool before ReLU", "pool_first", "Max-pool before ReLU: the same function with a quarter of the ReLU's work."),
    (
        "fused blocks",
        "fused_blocks",
        "Bias, max-pool and ReLU of a block run in one pass of our compiled code, the first block never writes its "
        "largest array, what the pooling would drop is not computed, and backward multiplies only the gradients that "
        "pooling and ReLU let through: fewer than one in four.",
    ),
    ("fused Adam", "fused_optimizer", "The optimizer updates all weights in one pass, and not in a dozen passes."),
    ("TF32", "precision", "Convolutions and products run on tensor cores: inputs of 10 bits' precision, float32 sums."),
    ("CUDA graph", "cuda_graph", "The whole step, from picking clips to new weights, is captured once and replayed."),
]


def LADDER(device: torch.device | str) -> list[tuple[str, Switches, str]]:
    """(name, switches, what changes and why) of the rungs from the original pipeline to a device's fast one."""
    fast, switches = fast_pipeline(device), ORIGINAL_PIPELINE
    rungs = [("original", switches, "The original: every clip is read, decoded and transformed by itself, in turn.")]
    for name, switch, sentence in _RUNGS:
        value = "batch" if name == "mel per batch" else getattr(fast, switch)
        if value != getattr(switches, switch):
            switches = switches.with_(**{switch: value})
            rungs.append((name, switches, sentence))
    return rungs
