"""The original recipe's side of `core.training.train`: its epochs, in the pipeline that was asked for."""

from __future__ import annotations

import math

import numpy as np
import torch

from triadbench.core.errors import UserError
from triadbench.core.training.batches import features_fit
from triadbench.core.training.epoch import Epochs, check_data
from triadbench.core.training.pipeline import pipeline

_TEST_BATCH = 128
_REPORT_EVERY = 10  # steps


class StudyRun:
    """What `core.training.train` needs of a run: model, optimizer, an epoch of training, a pass of testing."""

    def __init__(self, config, recipe, epochs: Epochs, world):
        self.config, self.recipe, self.epochs, self.world = config, recipe, epochs, world
        self.model, self.optimizer = epochs.step.model, epochs.step.optimizer

    @classmethod
    def make(cls, config, recipe, model, dataset, rows, device, world, out, report) -> StudyRun:
        """The run of a training; `features` are computed first where the pipeline keeps them.

        Raises:
            UserError: switches that do not go with the data or the device.
        """
        switches = pipeline(config.pipeline or "fast", device, config.switches)
        named = {text.partition("=")[0] for text in config.switches}
        if config.pipeline != "original" and "packed" not in named:
            switches = switches.with_(packed=dataset.kind == "pack")  # a set that is not packed trains as well
        if world.size > 1 and "cuda_graph" not in named:
            switches = switches.with_(cuda_graph=False)  # the processes' sum is not captured
        if "mel" not in named and switches.mel == "cached" and not features_fit(len(dataset), device):
            switches = switches.with_(mel="batch", cuda_graph=False)
        switches.check(device)
        check_data(dataset, switches)
        epochs = Epochs(
            dataset,
            model,
            rows,
            task=config.task,
            batch_size=config.batch_size,
            seed=config.seed,
            switches=switches,
            device=device,
            learning_rate=config.learning_rate,
            test_batch_size=_TEST_BATCH,
            world=world,
        )
        report({"stage": "features", "done": 0, "total": len(dataset)})
        epochs.source.prepare(lambda done, total: report({"stage": "features", "done": done, "total": total}))
        return cls(config, recipe, epochs, world)

    def described(self) -> dict:
        """What the training record says of the way it was computed."""
        return {"pipeline": self.epochs.switches.describe(), "processes": self.world.size}

    def epoch(self, epoch: int, train_rows: np.ndarray, report) -> float:
        """Train for the epoch numbered `epoch` (from 0); the sum of the clips' losses."""
        reads = self.epochs.switches.sync_each_step or self.epochs.device.type == "cpu"

        def on_step(done: int, total: int, losses) -> None:
            if done % _REPORT_EVERY and done != total:
                return
            event = {"stage": "train", "epoch": epoch + 1, "epochs": self.config.epochs, "done": done, "total": total}
            if reads and self.world.size == 1:  # elsewhere reading a loss would make everybody wait
                event["loss"] = float(torch.as_tensor(losses[:done]).mean())
                if not math.isfinite(event["loss"]):
                    raise UserError(
                        f"the loss is {event['loss']} in epoch {epoch + 1}; a smaller --learning-rate may help"
                    )
            report(event)

        self.epochs.epoch = epoch
        result = self.epochs.train(on_step=on_step)
        return result.loss * result.n_clips

    def test(self, rows: np.ndarray) -> dict:
        """Loss and accuracy on clips that training does not see."""
        result = self.epochs.test()
        return {"test_loss": result.loss, f"test_{self.config.task}_accuracy": result.accuracy}
