"""A trainer that trains nothing, in no time or in a stated time, and clips to give it."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path

from tests.core.toys import write_pack
from triadbench.bench.study import experiments, ladder, protocol, session
from triadbench.core.data.splits import split_sizes
from triadbench.core.training.epoch import EpochResult

CLIPS = 64


class FakeTrainer:
    """Its seconds say which trial this was: the n-th trainer made takes n seconds for an epoch, it says."""

    made: list[dict] = []

    def __init__(
        self, dataset, *, task, batch_size, device, switches, seed=13, learning_rate=1e-5, n_classes=None, sleep_s=0.0
    ):
        FakeTrainer.made.append(
            {
                "task": task,
                "batch_size": batch_size,
                "device": device,
                "n": len(dataset),
                "packed": switches.packed,
                "kind": dataset.kind,
                "n_classes": n_classes,
            }
        )
        assert switches.packed == (dataset.kind == "pack")
        self.seconds, self.seed, self.rate, self.sleep_s = float(len(FakeTrainer.made)), seed, learning_rate, sleep_s
        self.n_train, self.n_test = split_sizes(len(dataset))
        self.epochs = 0

    def train_epoch(self, clock=None):
        time.sleep(self.sleep_s)
        self.epochs += 1
        losses = [1.4 - 1e4 * self.rate * step / 10 + 0.05 * (self.seed - 13) for step in range(10)]
        parts = {"reading": 0.5 * self.seconds, "mel": 0.1 * self.seconds, "forward": 0.4 * self.seconds}
        return EpochResult(self.seconds, self.n_train, losses, 1.0, parts=parts if clock else None)

    def test_epoch(self, clock=None):
        return EpochResult(self.seconds / 2, self.n_test, [1.0], 1.0, accuracy=0.25)


class FakeMonitor:
    """Others used no processor time, or what `others` says of the next blocks: percent of a core."""

    others: list[float] = []

    def __init__(self, device):
        self.device = device

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.percent = self.others.pop(0) if self.others else 0.0

    def fields(self):
        return {"seconds": 1.0, "other_cpu_percent": self.percent, "steal_percent": 0.0, "cpu_mhz": None, "gpu": None}


def be_quiet(set_attribute) -> None:
    """Put the fake in the place of the monitor; `set_attribute` as `setattr`."""
    for module in (experiments, ladder):
        set_attribute(module, "Monitor", FakeMonitor)


def make_clips(folder: Path) -> Path:
    return write_pack(folder / "clips.pack", CLIPS)


@contextlib.contextmanager
def silent(label: str):
    yield lambda *arguments: None


def small(**changes) -> protocol.Protocol:
    given = {"batch_sizes": (4, 8), "clips": (CLIPS,), "device": "cpu", "trials": 3, "epochs": 2, **changes}
    return protocol.make("batch-size", **given)


def settings(folder: Path, clips: Path, **changes) -> session.Settings:
    options = {"maker": FakeTrainer, "data": clips, **changes}
    options.setdefault("data_folder", Path(clips or folder).parent / "made")
    return session.Settings(folder / "run", folder / "records.jsonl", silent, **options)


def run(folder: Path, clips: Path, figures: protocol.Protocol, maker=FakeTrainer, **changes) -> dict:
    return experiments.run(figures, settings(folder, clips, maker=maker, **changes))


def run_ladder(folder: Path, clips: Path, maker=FakeTrainer, rungs=None, rounds: int = 2, **changes) -> dict:
    cases = [ladder.LadderCase("cpu", num_items=CLIPS, batch_size=8, rounds=rounds)]
    return ladder.run(cases, settings(folder, clips, maker=maker, **changes), rungs)


if __name__ == "__main__":  # a process to be killed: what, where, clips, seconds an epoch sleeps
    be_quiet(setattr)
    what, place, clips, sleep_s = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4])
    slow = lambda dataset, **options: FakeTrainer(dataset, sleep_s=sleep_s, **options)  # noqa: E731
    run(place, clips, small(), slow) if what == "experiment" else run_ladder(place, clips, slow)
