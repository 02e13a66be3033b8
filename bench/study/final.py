"""The original's final training, again: 86,400 clips, batch 32, 30 epochs, both networks, by its recipe.

The fast pipeline trains to the end. The original pipeline trains for a few epochs from the same weights over the same
clips in the same order, and its whole time is extrapolated from their median, and labelled so. An epoch is training and
testing; what comes before the first (opening, mel spectrograms that are kept) is in `wall_s`, from packed audio to the
last checkpoint, and not in an epoch. Every epoch leaves a checkpoint, from which the same command goes on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

from triadbench.bench import records
from triadbench.bench.monitor import Monitor, disturbed
from triadbench.bench.study.protocol import PIPELINES, TASKS
from triadbench.bench.study.session import Session, Settings, open_session
from triadbench.core.constants import ALL_CLIPS, RECIPE_DEFAULTS
from triadbench.core.errors import UserError

NAME = "final training"
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
        `records`, `trials` (paths), `appended`, `seconds`, `environment`, `protocol`, `models` {"task pipeline device":
        folder of checkpoints} and `figures` (the records).

    Raises:
        UserError: as `open_session` and `core.training.train.train`.
    """
    if final.protocol() != "full":
        settings.note(f"protocol {final.protocol()}: not the original's figures")
    with open_session(settings, final.clips, needs_wavs=final.original_epochs > 0) as session:
        figures, models = [], {}
        for pipeline in reversed(PIPELINES):
            for task, device in ((task, device) for task in final.tasks for device in final.devices):
                if pipeline == "fast" or final.original_epochs:
                    training = _Training(final, session, task, pipeline, device)
                    figures.append(training.run())
                    models[f"{task} {pipeline} {device}"] = str(training.out)
                    session.append(figures[-1:])
        result = {"protocol": final.protocol(), "models": models, "figures": figures}
        return {**session.finish(figures), **result}


class _Training:
    """One network in one pipeline on one device."""

    def __init__(self, final: Final, session: Session, task: str, pipeline: str, device: str) -> None:
        self.final, self.session, self.task, self.pipeline, self.device = final, session, task, pipeline, device
        self.epochs = final.epochs if pipeline == "fast" else final.original_epochs
        self.out = session.settings.folder / f"{pipeline}-{device}" / task

    def run(self) -> dict:
        """Train on from the last whole epoch; the record."""
        from triadbench.core.training.settings import TrainConfig
        from triadbench.core.training.train import train

        session, name = self.session, f"{self.pipeline} {self.task}"
        dataset = session.clips.pack if self.pipeline == "fast" else session.clips.wavs
        assert dataset is not None, "the session prepared it"
        config = TrainConfig(
            dataset.path, self.out, "original", self.task, self.epochs, device=self.device, pipeline=self.pipeline
        )
        with session.settings.progress(name) as bar, contextlib.ExitStack() as stack:
            record = train(config, resume=True, progress=self._watch(bar, stack), dataset=dataset)
        curves, lines = record["curves"], [self._line(epoch) for epoch in range(1, self.epochs + 1)]
        curve = lambda key: [point[key] for point in curves]  # noqa: E731
        monitors = [line["monitor"] if line else {} for line in lines]
        parameters = {"task": self.task, "pipeline": self.pipeline, "device": self.device, "clips": self.final.clips}
        parameters |= {"epochs": self.epochs, "batch_size": BATCH_SIZE, "protocol": self.final.protocol()}
        fields: dict[str, Any] = {key: curve(key) for key in ("train_loss", "test_loss")}
        fields |= {f"{side}_accuracy": curve(f"{side}_{self.task}_accuracy") for side in ("train", "test")}
        fields |= {"n_clips": record["n_train"], "n_test": record["n_test"], "switches": record["pipeline"]}
        fields |= {"seed": record["config"]["seed"], "split_seed": record["config"]["split_seed"], "monitor": monitors}
        fields["wall_s"] = sum(monitor["seconds"] for monitor in monitors) if all(monitors) else None
        fields["extrapolated_s"] = (
            median(curve("seconds")) * self.final.epochs if self.epochs < self.final.epochs else None
        )
        fields["disturbed_epochs"] = [n for n, line in enumerate(lines, 1) if line and line["disturbed"]]
        fields["disturbed"] = next((line["disturbed"] for line in lines if line and line["disturbed"]), None)
        fields |= session.data_fields()
        environment = {**session.environment, "time": next((line["environment"]["time"] for line in lines if line), "")}
        samples = curve("seconds")
        return records.make(NAME, parameters=parameters, unit="s", samples=samples, environment=environment, **fields)

    def _key(self, epoch: int) -> dict:
        key = {"task": self.task, "pipeline": self.pipeline, "device": self.device, "clips": self.final.clips}
        return {"experiment": "final", **key, "epoch": epoch}

    def _line(self, epoch: int) -> dict | None:
        return self.session.log.find(self._key(epoch))

    def _watch(self, bar: Callable[..., None], stack: contextlib.ExitStack) -> Callable[[dict], None]:
        """What the training reports to: a bar, and a line for each epoch with what the monitor saw since the last."""
        monitor, begun = stack.enter_context(Monitor(self.device)), set()

        def report(event: dict) -> None:
            nonlocal monitor
            if event["stage"] == "train":
                if event["epoch"] not in begun:  # the one before has left its checkpoint
                    self.session.settings.proceed()
                begun.add(event["epoch"])
                bar((event["epoch"] - 1) * event["total"] + event["done"], event["epochs"] * event["total"])
            if event["stage"] != "epoch":
                return
            stack.close()
            fields, epoch = monitor.fields(), event["epoch"]
            if self._line(epoch) is None:  # a run that was killed before the checkpoint trains the epoch again
                more = {"monitor": fields, "disturbed": disturbed(fields, self.device)}
                self.session.log.add(self._key(epoch), [event["seconds"]], **more)
            accuracy = 100 * event[f"test_{self.task}_accuracy"]
            text = f"test accuracy {accuracy:.2f} %, loss {event['test_loss']:.4f}, {event['seconds']:.1f} s"
            self.session.settings.note(f"{self.pipeline} {self.task}, epoch {epoch} of {event['epochs']}: {text}")
            monitor = stack.enter_context(Monitor(self.device))

        return report
