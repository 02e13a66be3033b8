"""The original's two experiments as data: settings, number of trials, and the order in which contestants take turns."""

import itertools
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

from triadbench.core.constants import FULL_CLIPS
from triadbench.core.data.splits import split_sizes
from triadbench.core.errors import UserError

TRIALS, EPOCHS = 6, 5
"""The original's: six trials of five epochs, of which the first trial is dropped."""
BATCH_SIZES, CLIPS = (32, 64, 128, 256), (4096, 8192, 16384)
PIPELINES, DEVICES, TASKS = ("original", "fast"), ("cpu", "cuda"), ("type", "root")
SEED, SPLIT_SEED, LEARNING_RATE = 13, 13, 1e-5
TIMED_CLASSES = 12
"""Of the network that the original timed, for types as well: it gave their labels to the benchmark of roots."""


@dataclass(frozen=True)
class Case:
    """One figure of a table: what is trained, on how much, where and how."""

    experiment: str
    task: str
    batch_size: int
    num_items: int
    device: str
    pipeline: str
    n_classes: int = TIMED_CLASSES


class Turn(NamedTuple):
    """One trial of a case."""

    case: Case
    trial: int


@dataclass(frozen=True)
class Protocol:
    """What the experiment "batch-size" or "data-size" measures: its settings, contestants, how often and how long.

    Raises:
        UserError: a number below its least, an unknown name, or more batch than clips.
    """

    experiment: str
    batch_sizes: tuple[int, ...]
    clips: tuple[int, ...]
    tasks: tuple[str, ...]
    devices: tuple[str, ...]
    pipelines: tuple[str, ...]
    trials: int = TRIALS
    epochs: int = EPOCHS
    type_classes: int = TIMED_CLASSES

    def __post_init__(self) -> None:
        if self.trials < 2:
            raise UserError(
                f"trials={self.trials}: the first trial is dropped as warm-up, so nothing would be kept; at least 2"
            )
        if self.epochs < 1:
            raise UserError(f"epochs={self.epochs}: at least 1 is needed")
        for field, known in (("tasks", TASKS), ("devices", DEVICES), ("pipelines", PIPELINES)):
            for value in getattr(self, field):
                if value not in known:
                    raise UserError(f"unknown {field[:-1]} {value!r}; choose from {', '.join(known)}")
        for field in ("batch_sizes", "clips", "tasks", "devices", "pipelines"):
            values = getattr(self, field)
            if not values or len(set(values)) < len(values):
                raise UserError(f"{field}={values}: each value once, and at least one")
        fewest, largest = min(self.clips), max(self.batch_sizes)
        if min(self.batch_sizes) < 1 or fewest < 4:
            raise UserError(f"batch size {min(self.batch_sizes)}, {fewest} clips: at least 1 and 4 are needed")
        if largest > (n_train := split_sizes(fewest)[0]):
            raise UserError(
                f"batch size {largest}: of {fewest} clips only {n_train} train; give more clips or smaller batches"
            )

    def cases(self) -> list[Case]:
        """Every figure, in the tables' order."""
        fields = itertools.product(self.tasks, self.clips, self.batch_sizes, self.devices, self.pipelines)
        return [self._case(task, n, batch_size, device, pipeline) for task, n, batch_size, device, pipeline in fields]

    def _case(self, task: str, n: int, batch_size: int, device: str, pipeline: str) -> Case:
        n_classes = self.type_classes if task == "type" else TIMED_CLASSES
        return Case(self.experiment, task, batch_size, n, device, pipeline, n_classes)

    def settings(self) -> list[list[Turn]]:
        """Every trial in the order of measuring, setting by setting: always the same, so that a resumed run keeps it.

        A setting (clips, batch size) is finished before the next one begins. In it the pipelines alternate, and which
        is first changes from trial to trial; networks and devices are shuffled anew for each trial: figures which are
        divided by one another are measured next to one another.
        """
        shuffle, settings = random.Random(SEED).shuffle, []
        for n, batch_size in itertools.product(self.clips, self.batch_sizes):
            turns: list[Turn] = []
            for trial in range(self.trials):
                places = list(itertools.product(self.tasks, self.devices))
                shuffle(places)
                for (task, device), pipeline in itertools.product(places, self.pipelines[:: -1 if trial % 2 else 1]):
                    turns.append(Turn(self._case(task, n, batch_size, device, pipeline), trial))
            settings.append(turns)
        return settings

    def turns(self) -> list[Turn]:
        """Those of all settings."""
        return list(itertools.chain(*self.settings()))

    def label(self, num_items: int | None = None) -> str:
        """ "full" where trials, epochs and clips (of one figure, or all) are the original's; "short: ..." elsewhere."""
        known, sizes = (CLIPS, (32,)) if self.experiment == "data-size" else ((FULL_CLIPS,), BATCH_SIZES)
        clips = self.clips if num_items is None else (num_items,)
        other_clips = [count for count in clips if count not in known]
        differs, others = [], []  # `others` are as long as the original's
        if self.trials != TRIALS:
            differs.append(f"{self.trials} trials, not {TRIALS}")
        if self.epochs != EPOCHS:
            differs.append(f"{self.epochs} epoch{'s' * (self.epochs > 1)} a trial, not {EPOCHS}")
        if other_clips:
            differs.append(f"{_joined(other_clips, ' and ')} clips, not {_joined(known, ' or ')}")
        if other_sizes := [size for size in self.batch_sizes if size not in sizes]:
            others.append(f"batch size {_joined(other_sizes, ' and ')}, not {_joined(sizes, ' or ')}")
        if "type" in self.tasks and self.type_classes != TIMED_CLASSES:
            others.append(f"types learnt by {self.type_classes} classes, not {TIMED_CLASSES}")
        more = self.trials >= TRIALS and self.epochs >= EPOCHS and all(count >= min(known) for count in clips)
        kind = ("longer" if more else "short") if differs else "other"
        return f"{kind}: {'; '.join(differs + others)}" if differs or others else "full"


def _joined(numbers: Sequence[int], word: str) -> str:
    return word.join(f"{number:,}" for number in numbers)


def choose_devices(name: str) -> tuple[str, ...]:
    """The devices that "cpu", "cuda" or "all" means here. Raises UserError for another name or an absent GPU."""
    from triadbench.core.device import torch_device

    if name == "all":
        import torch

        return DEVICES if torch.cuda.is_available() else ("cpu",)
    if name not in DEVICES:
        raise UserError(f"unknown device {name!r}; choose cpu, cuda or all")
    return (torch_device(name).type,)


def make(
    experiment: str,
    *,
    batch_sizes: Sequence[int] | None = None,
    clips: Sequence[int] | None = None,
    task: str | None = None,
    device: str = "all",
    pipeline: str = "both",
    trials: int = TRIALS,
    epochs: int = EPOCHS,
    type_classes: int = TIMED_CLASSES,
) -> Protocol:
    """The original's protocol of an experiment, with what is given changed.

    Args:
        task: "type", "root" or "both"; None is the original's: both for batch sizes, the type for data sizes.
        pipeline: "original", "fast" or "both". type_classes: of the network that learns the type, 12 or its own 4.
    """
    by_batch = experiment == "batch-size"
    task = task or ("both" if by_batch else "type")
    return Protocol(
        experiment,
        tuple(batch_sizes or (BATCH_SIZES if by_batch else (32,))),
        tuple(clips or ((FULL_CLIPS,) if by_batch else CLIPS)),
        TASKS if task == "both" else (task,),
        choose_devices(device),
        PIPELINES if pipeline == "both" else (pipeline,),
        trials,
        epochs,
        type_classes,
    )


def parameters(case: Case, protocol: Protocol, **more: object) -> dict:
    """A figure's parameters as its record states them."""
    run = {"epochs": protocol.epochs, "trials": protocol.trials, "protocol": protocol.label(case.num_items)}
    return {**asdict(case), **run, **more}
