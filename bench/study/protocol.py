"""The original's two experiments as data: settings, number of trials, and the order in which contestants take turns."""

import itertools
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

from triadbench.core.constants import FULL_CLIPS
from triadbench.core.errors import UserError

TRIALS, EPOCHS = 6, 5
"""The original's: six trials of five epochs, of which the first trial is dropped."""
BATCH_SIZES, CLIPS = (32, 64, 128, 256), (4096, 8192, 16384)
PIPELINES, DEVICES, TASKS = ("original", "fast"), ("cpu", "cuda"), ("type", "root")
SEED, SPLIT_SEED, LEARNING_RATE = 0, 13, 1e-5


@dataclass(frozen=True)
class Case:
    """One figure of a table: what is trained, on how much, where and how."""

    experiment: str
    task: str
    batch_size: int
    num_items: int
    device: str
    pipeline: str


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
        fewest, n_train, largest = min(self.clips), int(0.7 * min(self.clips)), max(self.batch_sizes)
        if min(self.batch_sizes) < 1 or fewest < 4:
            raise UserError(f"batch size {min(self.batch_sizes)}, {fewest} clips: at least 1 and 4 are needed")
        if largest > n_train:
            raise UserError(
                f"batch size {largest}: of {fewest} clips only {n_train} train; give more clips or smaller batches"
            )

    def cases(self) -> list[Case]:
        """Every figure, in the tables' order."""
        fields = itertools.product(self.tasks, self.clips, self.batch_sizes, self.devices, self.pipelines)
        return [
            Case(self.experiment, task, batch_size, n, device, pipeline)
            for task, n, batch_size, device, pipeline in fields
        ]

    def turns(self) -> list[Turn]:
        """Every trial in the order of measuring: always the same, so that a resumed run goes on in it.

        One trial of everything, then the second of everything: a machine that slows down meets all figures alike.
        Within a setting the contestants (task, device, pipeline) follow one another, shuffled anew each time, so that
        figures which are divided by one another are measured next to one another.
        """
        shuffle = random.Random(SEED).shuffle
        turns = []
        for trial in range(self.trials):
            for setting in itertools.product(self.clips, self.batch_sizes):
                group = [case for case in self.cases() if (case.num_items, case.batch_size) == setting]
                shuffle(group)
                turns += [Turn(case, trial) for case in group]
        return turns

    def label(self, num_items: int | None = None) -> str:
        """ "full" where trials, epochs and clips (of one figure, or all) are the original's; "short: ..." elsewhere."""
        known, sizes = (CLIPS, (32,)) if self.experiment == "data-size" else ((FULL_CLIPS,), BATCH_SIZES)
        clips = self.clips if num_items is None else (num_items,)
        other_clips = [count for count in clips if count not in known]
        other_sizes = [size for size in self.batch_sizes if size not in sizes]
        differs = []
        if self.trials != TRIALS:
            differs.append(f"{self.trials} trials, not {TRIALS}")
        if self.epochs != EPOCHS:
            differs.append(f"{self.epochs} epoch{'s' * (self.epochs > 1)} a trial, not {EPOCHS}")
        if other_clips:
            differs.append(f"{_joined(other_clips, ' and ')} clips, not {_joined(known, ' or ')}")
        if other_sizes:
            differs.append(f"batch size {_joined(other_sizes, ' and ')}, not {_joined(sizes, ' or ')}")
        if not differs:
            return "full"
        if len(differs) == 1 and other_sizes:
            return f"other: {differs[0]}"
        more = self.trials >= TRIALS and self.epochs >= EPOCHS and all(count >= min(known) for count in clips)
        return ("longer: " if more else "short: ") + "; ".join(differs)


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
) -> Protocol:
    """The original's protocol of an experiment, with what is given changed.

    Args:
        task: "type", "root" or "both"; None is the original's: both for batch sizes, the type for data sizes.
        pipeline: "original", "fast" or "both".
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
    )


def parameters(case: Case, protocol: Protocol, **more: object) -> dict:
    """A figure's parameters as its record states them."""
    run = {"epochs": protocol.epochs, "trials": protocol.trials, "protocol": protocol.label(case.num_items)}
    return {**asdict(case), **run, **more}
