"""Training: the original study's recipe, and ours. An interrupted run goes on from its last whole epoch."""

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from triadbench.core.data.dataset import Dataset, open_dataset
from triadbench.core.data.splits import grouped_split, random_split
from triadbench.core.device import torch_device
from triadbench.core.errors import UserError
from triadbench.core.files import atomic_path
from triadbench.core.models import checkpoint as checkpoints
from triadbench.core.models.checkpoint import Checkpoint
from triadbench.core.training.chord_run import ChordRun
from triadbench.core.training.epoch import OriginalRun
from triadbench.core.training.recipes import RECIPES, Report, ResolvedConfig, TrainConfig, finite_loss

LAST, BEST, FINAL, HISTORY = "last.safetensors", "best.safetensors", "final.safetensors", "history.json"


class TrainingRun(Protocol):
    """One model with its data, in training.

    Attributes:
        optimizer: of the model's weights. described: part of the training record: how the training is computed.
    """

    optimizer: torch.optim.Optimizer
    described: dict

    def train_epoch(self, epoch: int, report: Report) -> float:
        """Train for the epoch numbered `epoch` (from 0); the clips' mean loss."""

    def test(self) -> Mapping[str, float | None]:
        """{"test_loss", "test_type_accuracy", ...} on clips that training does not see."""


RUN_TYPES: dict[str, Callable[..., TrainingRun]] = {"original": OriginalRun, "ours": ChordRun}
"""What makes the run of a recipe from (configuration, model, data set, (train, test) rows, device, report)."""


def train(
    config: TrainConfig,
    *,
    resume: bool = False,
    progress: Report | None = None,
    run_types: Mapping[str, Callable[..., TrainingRun]] = RUN_TYPES,
    processes: int = 1,
    writes: bool = True,
) -> dict:
    """Train one network, or go on with an interrupted training.

    Writes into `config.out`: `last.safetensors` after every epoch (with what resuming needs), `best.safetensors` (the
    epoch of lowest test loss, without it), `history.json` and `curves.html`; and when all epochs are done
    `final.safetensors` (without it). The features in `cache/` may be deleted; they are made again when needed.

    Args:
        resume: go on from `last.safetensors`; without it, a folder that holds one is refused.
        progress: called with {"stage", "done", "total", "epoch", "epochs", "loss", ...} every few steps.
        run_types: what makes the run, by recipe.
        processes: how many share the work, for the record. writes: False computes the same and leaves no checkpoint.

    Returns:
        The training record: configuration, curves, best epoch, seconds; and `resumed`, if the run went on in another
        way than it began (`core.models.checkpoint.resumed_record`).

    Raises:
        UserError: bad settings, data that cannot be read, a device that is not there, a run that is there already, or
            a loss that is no longer finite.
    """
    config = config.resolved()
    recipe, out, described = RECIPES[config.recipe], Path(config.out), config.described()
    device = torch_device(config.device)
    last = _last_checkpoint(out, described, resume)
    report = progress or (lambda event: None)
    report({"stage": "reading", "done": 0, "total": 1})
    dataset = open_dataset(config.data)
    train_rows, test_rows = _split(dataset, config)
    torch.manual_seed(config.seed)
    model = last.model if last else checkpoints.build_model(recipe.architecture, config.task, recipe.spec)
    run = run_types[config.recipe](config, model, dataset, (train_rows, test_rows), device, report)
    record: dict[str, Any] = {
        "config": described,
        "n_train": len(train_rows),
        "n_test": len(test_rows),
        "n_left_out": len(dataset) - len(train_rows) - len(test_rows),
        "data_digest": dataset.digest(),
        "curves": [],
        "best_epoch": None,
        "seconds": 0.0,
        **run.described,
        "processes": processes,
    }
    if last:
        _restore_optimizer(run.optimizer, last.state)
        if last.training["data_digest"] != record["data_digest"]:
            raise UserError(f"{config.data} is not the data that {out} was trained on; train into another folder")
        record = last.training
        if len(record["curves"]) < config.epochs:
            record = checkpoints.resumed_record(
                record, {"device": config.device, **run.described, "processes": processes}
            )
    for epoch in range(len(record["curves"]), config.epochs):
        started = time.perf_counter()
        point: dict[str, Any] = {"epoch": epoch + 1, "train_loss": finite_loss(run.train_epoch(epoch, report), epoch)}
        point |= run.test()
        if not math.isfinite(point["test_loss"]):
            raise UserError(
                f"the test loss is {point['test_loss']} in epoch {epoch + 1}; try a smaller --learning-rate"
            )
        point["seconds"] = round(time.perf_counter() - started, 2)
        record["curves"].append(point)
        record["seconds"] = round(record["seconds"] + point["seconds"], 2)
        # The loss, not the accuracy: on a small test side accuracies differ by a clip or two, which is chance.
        record["best_epoch"] = min(record["curves"], key=lambda point: point["test_loss"])["epoch"]
        report({"stage": "epoch", "epochs": config.epochs, **point})
        if writes:
            checkpoint = Checkpoint(model, recipe.architecture, config.task, recipe.spec, record)
            _write_epoch(checkpoint, run.optimizer, out)
    if writes and not (out / FINAL).exists():
        checkpoints.save(Checkpoint(model, recipe.architecture, config.task, recipe.spec, record), out / FINAL)
    return record


def train_tasks(
    settings: dict, task: str, resume: bool, progress: Report | None = None, train_one: Callable[..., dict] = train
) -> dict[str, dict]:
    """Train what `task` asks for; {task: training record}.

    The original has one network a task: "both" trains its two, into `out/type` and `out/root`, and with `resume` goes
    on with whichever is unfinished.

    Args:
        settings: fields of `TrainConfig`, without the task.
        train_one: `train`, or what does the same.
    """
    tasks = RECIPES[settings["recipe"]].tasks
    if task != "both" or "both" in tasks:
        return {task: train_one(TrainConfig(**settings, task=task), resume=resume, progress=progress)}
    folder = Path(settings["out"])
    configs = {name: TrainConfig(**{**settings, "out": folder / name}, task=name) for name in tasks}
    return {name: train_one(config, resume=resume, progress=progress) for name, config in configs.items()}


def _write_epoch(checkpoint: Checkpoint, optimizer: torch.optim.Optimizer, out: Path) -> None:
    """Write the checkpoints and curves of a finished epoch; the checkpoint to resume from comes last."""
    record = checkpoint.training
    if record["best_epoch"] == len(record["curves"]):
        checkpoints.save(checkpoint, out / BEST)
    with atomic_path(out / HISTORY) as path:
        path.write_text(json.dumps(record, indent=1) + "\n")
    _draw_curves(record, out / "curves.html")
    checkpoint.state = {
        f"{i}.{name}": torch.as_tensor(value)
        for i, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }
    checkpoints.save(checkpoint, out / LAST)


def _restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Tensor]) -> None:
    saved = optimizer.state_dict()
    # Fused updates read weights and averages side by side: both must lie in memory alike.
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for key, tensor in state.items():
        index, name = key.split(".", 1)
        if tensor.ndim:
            tensor = torch.empty_like(parameters[int(index)], device="cpu").copy_(tensor)
        saved["state"].setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict(saved)


def _last_checkpoint(out: Path, described: dict, resume: bool) -> Checkpoint | None:
    if not (out / LAST).exists():
        return None
    if not resume:
        raise UserError(f"{out} holds a training already; add --resume to go on with it, or choose another folder")
    last = checkpoints.load(out / LAST)
    before = last.training["config"]
    # A run may be moved, or go on on another device or in another pipeline; what decides its result may not change.
    movable = ("data", "out", "device", "pipeline", "switches")
    for key, value in described.items():
        if key not in movable and before.get(key) != value:
            raise UserError(f"{out} was trained with {key}={before.get(key)}, not {value}; train into another folder")
    return last


def _split(dataset: Dataset, config: ResolvedConfig) -> tuple[np.ndarray, np.ndarray]:
    if config.split == "random":
        return random_split(len(dataset), config.test_fraction, config.split_seed)
    train_rows, test_rows, _ = grouped_split(dataset.clips, config.test_fraction, config.split_seed)
    return np.asarray(train_rows), np.asarray(test_rows)


def _draw_curves(record: dict, path: Path) -> None:
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    curves, config = record["curves"], record["config"]
    figure = make_subplots(rows=1, cols=2, subplot_titles=("loss", "accuracy on the test side"))
    epochs = [point["epoch"] for point in curves]
    for key in (k for k in curves[-1] if k.endswith(("loss", "accuracy"))):
        values, name = [point[key] for point in curves], key.replace("_", " ")
        trace = go.Scatter(x=epochs, y=values, name=name, mode="lines+markers")
        figure.add_trace(trace, row=1, col=2 if key.endswith("accuracy") else 1)
    figure.update_xaxes(title_text="epoch")
    figure.update_layout(title=f"{config['recipe']} recipe, {config['task']}, seed {config['seed']}")
    with atomic_path(path) as temporary:
        figure.write_html(temporary, include_plotlyjs=True)
