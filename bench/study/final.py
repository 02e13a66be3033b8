"""The original's final training, again: 86,400 clips, batch 32, 30 epochs, both networks, by its recipe.

The fast pipeline trains to the end. The original pipeline trains for a few epochs from the same weights over the same
clips in the same order, and its whole time is extrapolated from their median, and labelled so. An epoch is training and
testing; what comes before the first (opening, mel spectrograms that are kept) is in `wall_s`, from packed audio to the
last checkpoint, and not in an epoch. Every epoch leaves a checkpoint, from which the same command goes on.
"""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import dataclass
from statistics import median
from typing import Any

from triadbench.bench import records
from triadbench.bench.monitor import Monitor, disturbed
from triadbench.bench.study.protocol import TASKS
from triadbench.bench.study.session import Session, Settings, open_session
from triadbench.core.constants import ALL_CLIPS, RECIPE_DEFAULTS
from triadbench.core.errors import UserError

NAME = "final training"
UNWATCHED = "other code, or another machine, timed it"
"""Of an epoch that the checkpoint holds and the trials of this code on this machine do not."""
EPOCHS, BATCH_SIZE = RECIPE_DEFAULTS["original"].epochs, RECIPE_DEFAULTS["original"].batch_size


@dataclass(frozen=True)
class Final:
    """What is trained: clips, epochs of the fast and of the original pipeline (0: not at all), networks, devices."""

    clips: int = ALL_CLIPS
    epochs: int = EPOCHS
    original_epochs: int = 2
    tasks: tuple[str, ...] = TASKS
    devices: tuple[str, ...] = ("cpu",)

    def __post_init__(self) -> None:
        if not 0 <= self.original_epochs <= self.epochs:
            raise UserError(f"{self.original_epochs} epochs of the original pipeline of {self.epochs}: give fewer")

    def protocol(self) -> str:
        """ "full", or "short: ..." with what is not the original's."""
        differs = [f"{self.clips:,} clips, not {ALL_CLIPS:,}"] if self.clips != ALL_CLIPS else []
        differs += [f"{self.epochs} epochs, not {EPOCHS}"] if self.epochs != EPOCHS else []
        return f"short: {'; '.join(differs)}" if differs else "full"


def run(final: Final, settings: Settings) -> dict:
    """Train what is missing; a record for each network, pipeline and device is appended when it is done.

    Returns:
        `records`, `trials` (paths), `appended`, `seconds`, `environment`, `protocol` and `figures` (the records). The
        checkpoints are in the folder, under "PIPELINE-DEVICE/TASK".

    Raises:
        UserError: as `open_session` and `core.training.train.train`.
    """
    if final.protocol() != "full":
        settings.note(f"protocol {final.protocol()}: not the original's figures")
    pipelines, figures = ("fast", "original") if final.original_epochs else ("fast",), []
    with open_session(settings, final.clips, needs_wavs=final.original_epochs > 0) as session:
        for case in itertools.product(pipelines, final.tasks, final.devices):
            figures.append(_train(final, session, *case))
            session.append(figures[-1:])
        return {**session.finish(figures), "protocol": final.protocol(), "figures": figures}


def _train(final: Final, session: Session, pipeline: str, task: str, device: str) -> dict:
    """Train one network on from its last whole epoch; the record."""
    from triadbench.core.training.settings import TrainConfig
    from triadbench.core.training.train import train

    epochs, dataset = final.original_epochs, session.clips.wavs
    if pipeline == "fast":
        epochs, dataset = final.epochs, session.clips.pack
    assert dataset is not None, "the session prepared it"
    parameters = {"task": task, "pipeline": pipeline, "device": device, "clips": final.clips}
    keys = [{"experiment": "final", **parameters, "epoch": epoch + 1} for epoch in range(epochs)]
    out = session.settings.folder / f"{pipeline}-{device}" / task
    config = TrainConfig(dataset.path, out, "original", task, epochs, device=device, pipeline=pipeline)
    with session.settings.progress(f"{pipeline} {task}") as bar, contextlib.ExitStack() as stack:
        monitor = stack.enter_context(Monitor(device))

        def report(event: dict) -> None:
            nonlocal monitor
            if event["stage"] == "train":
                bar((event["epoch"] - 1) * event["total"] + event["done"], event["epochs"] * event["total"])
            if event["stage"] != "epoch":
                return
            stack.close()
            seen, key = monitor.fields(), keys[event["epoch"] - 1]
            if session.log.find(key) is None:  # a run that was killed before the checkpoint trains the epoch again
                session.log.add(key, [event["seconds"]], monitor=seen, disturbed=disturbed(seen, device))
            score = f"test accuracy {100 * event[f'test_{task}_accuracy']:.2f} %, loss {event['test_loss']:.4f}"
            where = f"{pipeline} {task}, epoch {event['epoch']} of {epochs}"
            session.settings.note(f"{where}: {score}, {event['seconds']:.1f} s")
            monitor = stack.enter_context(Monitor(device))

        trained = train(config, resume=True, progress=report, dataset=dataset)
    lines = [session.log.find(key) or {"monitor": {}, "disturbed": UNWATCHED} for key in keys]
    monitors, late = [line["monitor"] for line in lines], [n for n, line in enumerate(lines, 1) if line["disturbed"]]
    names = {name: name for name in ("train_loss", "test_loss")}
    names |= {f"{side}_accuracy": f"{side}_{task}_accuracy" for side in ("train", "test")}
    fields: dict[str, Any] = {name: [point[key] for point in trained["curves"]] for name, key in names.items()}
    samples = [point["seconds"] for point in trained["curves"]]
    fields |= {"n_clips": trained["n_train"], "n_test": trained["n_test"], "switches": trained["pipeline"]}
    fields |= {"monitor": monitors, "wall_s": sum(one["seconds"] for one in monitors) if all(monitors) else None}
    fields["extrapolated_s"] = median(samples) * final.epochs if epochs < final.epochs else None
    fields |= {"disturbed_epochs": late, "disturbed": lines[late[0] - 1]["disturbed"] if late else None}
    environment = lines[-1].get("environment", session.environment)
    parameters |= {"epochs": epochs, "batch_size": BATCH_SIZE, "protocol": final.protocol()}
    fields |= {"parameters": parameters, "environment": environment, **session.data_fields()}
    return records.make(NAME, unit="s", samples=samples, **fields)
