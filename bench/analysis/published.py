"""The original study's 220 published figures (Intel i7-10750H and NVIDIA RTX 2070 Max-Q), and what follows from them.

`original_epoch_times.csv` beside this file holds one row a kept trial: mean seconds of an epoch's training or testing
part. Its devices "cpu" and "gpu" are called "cpu" and "cuda" here, as everywhere in this project.
"""

import csv
import functools
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from triadbench.core.constants import FULL_CLIPS
from triadbench.core.data.splits import split_sizes

FILE = Path(__file__).with_name("original_epoch_times.csv")
FINAL = Path(__file__).with_name("original_final_epochs.csv")
EXPERIMENTS = {1: "batch-size", 2: "data-size"}
ERRORS = (
    "The original's published times of types are those of the network for roots: it gave the labels of types to the "
    "benchmark with 12 classes. So do we by default; its own network for types has 4.",
    "One published row differs from what the original's notebook printed: batch 128, type, testing on the GPU, trials "
    "4 and 5: 3.6815 and 3.6770 s in the table, 3.6770 and 3.5788 s in the notebook (mean 3.6757 and 3.6551 s). We "
    "show the table's.",
)
"""What of the published times is not what it says."""


class Setting(NamedTuple):
    """One setting of the original's experiments.

    Attributes:
        experiment: "batch-size" or "data-size". task: "type" or "root". phase: "train" or "test".
        batch_size, num_items: clips a step, clips of which 70 % train and 30 % test.
    """

    experiment: str
    task: str
    batch_size: int
    num_items: int
    phase: str

    @property
    def clips(self) -> int:
        """Clips of its phase: 5,735 or 2,457 of 8,192."""
        return split_sizes(self.num_items)[self.phase == "test"]


@functools.cache
def load() -> dict[tuple[Setting, str], tuple[float, ...]]:
    """(setting, device "cpu" or "cuda") to the mean epoch seconds of its five kept trials, in order."""
    trials: dict[tuple[Setting, str], list[float]] = {}
    with open(FILE, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            experiment, batch_size, num_items = (int(row[name]) for name in ("experiment", "batch_size", "num_items"))
            setting = Setting(EXPERIMENTS[experiment], row["task"], batch_size, num_items, row["phase"])
            device = {"cpu": "cpu", "gpu": "cuda"}[row["device"]]
            trials.setdefault((setting, device), []).append(float(row["mean_epoch_seconds"]))
    return {key: tuple(values) for key, values in trials.items()}


def seconds(setting: Setting, device: str) -> float | None:
    """Mean seconds of the published trials, as the original's tables state it; None where it measured nothing."""
    trials = load().get((setting, device))
    return fmean(trials) if trials else None


def gpu_over_cpu(setting: Setting) -> float | None:
    """How many times as fast its GPU was as its CPU; None for a setting that the original did not measure."""
    cpu, gpu = seconds(setting, "cpu"), seconds(setting, "cuda")
    return cpu / gpu if cpu and gpu else None


def ratio_range(phase: str) -> tuple[float, float]:
    """Smallest and largest GPU over CPU of a phase, over all settings: 1.99 and 2.27 for training."""
    settings = dict.fromkeys(setting for setting, _ in load() if setting.phase == phase)
    ratios = [ratio for setting in settings if (ratio := gpu_over_cpu(setting))]
    return min(ratios), max(ratios)


def clip_ms(setting: Setting, device: str) -> float | None:
    """Milliseconds a clip of the phase: the seconds over the clips that train or test."""
    total = seconds(setting, device)
    return total and 1e3 * total / setting.clips


def nearest(setting: Setting) -> Setting:
    """The published setting of experiment 1 that is most like another: 8,192 clips, its batch size or the nearest."""
    sizes = {known.batch_size for known, _ in load() if known.experiment == "batch-size"}
    size = min(sizes, key=lambda size: abs(size - setting.batch_size))
    return setting._replace(experiment="batch-size", num_items=FULL_CLIPS, batch_size=size)


@functools.cache
def final_epochs(task: str) -> list[dict[str, float]]:
    """The original's 30 epochs of its final training of "type" or "root", in order.

    Each has `epoch`, `train_loss`, `train_accuracy`, `test_loss`, `test_accuracy` (0 to 1), and `elapsed_s` of training
    and testing.
    """
    with open(FINAL, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["task"] == task]
    return [{key: float(value) for key, value in row.items() if key != "task"} for row in rows]


def test_over_train(device: str) -> float:
    """Time of testing a clip over that of training on it: type network, batch 32, 8,192 clips.

    A test has no backward pass and no optimizer. Where it takes nearly as long a clip as training, these cost nearly
    nothing, and what both share (reading, resampling, mel, copying, waiting) costs nearly everything.
    """
    test, train = (clip_ms(Setting("batch-size", "type", 32, FULL_CLIPS, phase), device) for phase in ("test", "train"))
    assert test and train, "the table holds the setting that both experiments share"
    return test / train


def hint() -> str:
    """What the published figures alone say about the missing speed-up."""
    gpu, cpu = (f"{100 * test_over_train(device):.0f} %" for device in ("cuda", "cpu"))
    return (
        f"In the original's own figures (type network, batch 32), testing a clip on the GPU takes {gpu} of the time of "
        f"training on it, although backward pass and optimizer are missing (on the CPU {cpu}): what both share, "
        "preparing the clip, is nearly all of it."
    )
