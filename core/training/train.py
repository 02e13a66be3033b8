"""Training: the original study's recipe, and ours. Interrupted at any moment, a run goes on from its last whole epoch.

All randomness of an epoch is seeded by (seed, epoch), so a resumed run takes the very steps that an uninterrupted one
would have taken. Several processes (triadbench.core.training.distributed) share every batch and take the steps that one would have taken.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from triadbench.core.constants import RECIPE_DEFAULTS
from triadbench.core.data.dataset import Dataset, open_dataset
from triadbench.core.data.splits import grouped_split, random_split
from triadbench.core.device import torch_device
from triadbench.core.errors import UserError
from triadbench.core.files import atomic_path
from triadbench.core.models import checkpoint as checkpoints
from triadbench.core.models.checkpoint import Checkpoint
from triadbench.core.models.networks import chord_loss
from triadbench.core.training import distributed
from triadbench.core.training.epoch import epoch_order, mix_seed
from triadbench.core.training.features import features_of
from triadbench.core.training.original_run import StudyRun
from triadbench.kernels.spec import CHORD, ORIGINAL, MelSpec

LAST, BEST, FINAL, HISTORY = "last.safetensors", "best.safetensors", "final.safetensors", "history.json"
Progress = Callable[[dict], None]


@dataclass(frozen=True)
class TrainConfig:
    """One network's training.

    Attributes:
        data: a data set (folder, zip or pack). out: folder of the run.
        recipe: "original" or "ours". task: "type" or "root" for the original's networks, "both" for ours.
        epochs, batch_size, learning_rate: None takes the recipe's.
        split: "random" as the original, or "grouped": no recording on both sides. test_fraction: size of the test side.
        seed: of weights, order and dropout. split_seed: of the split.
        device: "cpu", "cuda", "cuda:1", ...; of several processes (triadbench.core.training.distributed) each on a GPU takes its own.
        pipeline, switches: of the original recipe, by name and as "name=value" (triadbench.core.training.pipeline.pipeline).
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

    def resolved(self) -> TrainConfig:
        """With the recipe's values where None stood.

        Raises:
            UserError: an unknown recipe, task or split, or a number out of range.
        """
        if self.recipe not in RECIPES:
            raise UserError(f"unknown recipe {self.recipe!r}; choose from {', '.join(RECIPES)}")
        recipe = RECIPES[self.recipe]
        if self.task not in recipe.tasks:
            raise UserError(f"recipe {self.recipe!r} trains the task {' or '.join(recipe.tasks)}, not {self.task!r}")
        filled = {k: v for k, v in recipe.defaults.items() if getattr(self, k) is None}
        config = replace(self, **filled)
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
class Recipe:
    """What two trainings of a kind share: model, features, loss, optimizer and schedule."""

    architecture: str
    tasks: tuple[str, ...]
    spec: MelSpec
    log: bool
    defaults: dict

    def optimizer(self, model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
        """The optimizer of the recipe."""
        if self.architecture == "original":
            return torch.optim.Adam(model.parameters(), lr=learning_rate)
        decayed = [p for p in model.parameters() if p.ndim > 1]
        plain = [p for p in model.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": 0.02}, {"params": plain, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=learning_rate)

    def schedule(self, progress: float) -> float:
        """Factor on the learning rate at `progress` (0-1 of all steps): constant in the original; ours warms up for a
        twentieth of the steps and then falls along a half cosine to nothing."""
        if self.architecture == "original":
            return 1.0
        warm = 0.05
        if progress < warm:
            return max(progress, 1e-3) / warm
        return 0.5 * (1 + math.cos(math.pi * (progress - warm) / (1 - warm)))


LARGEST_SEED = 2**32 - 1
RECIPES = {
    "original": Recipe(
        "original",
        ("type", "root"),
        ORIGINAL,
        False,
        RECIPE_DEFAULTS["original"]._asdict(),
    ),
    "ours": Recipe(
        "chordnet",
        ("both",),
        CHORD,
        True,
        RECIPE_DEFAULTS["ours"]._asdict(),
    ),
}


def train(config: TrainConfig, *, resume: bool = False, progress: Progress | None = None) -> dict:
    """Train one network, or go on with an interrupted training.

    Writes into `config.out`: `last.safetensors` after every epoch (with what resuming needs), `best.safetensors` (the
    epoch of lowest test loss, without it), `history.json` and `curves.html`; and when all epochs are done
    `final.safetensors` (without it). The features in `cache/` may be deleted; they are made again when needed.

    Args:
        resume: go on from `last.safetensors`; without it, a folder that holds one is refused.
        progress: called with {"stage", "done", "total", "epoch", "epochs", "loss", ...} every few steps.

    Returns:
        The training record: configuration, curves, best epoch, seconds; and `resumed`, if the run went on in another
        way than it began (`core.models.checkpoint.resumed_record`).

    Raises:
        UserError: bad settings, data that cannot be read, a device that is not there, a run that is there already, or
            a loss that is no longer finite.
    """
    config = config.resolved()
    recipe = RECIPES[config.recipe]
    world = distributed.join(config.device)
    device = torch_device(world.device(config.device))
    out = Path(config.out)
    described = {**asdict(config), "data": str(config.data), "out": str(config.out), "switches": list(config.switches)}
    # Machines start and look at clocks at different times: what one of them finds holds for all.
    resume = resume or (world.restarted and world.any(distributed.of_this_launch(out / LAST)))
    last = _last_checkpoint(out, described, resume)
    report = progress if progress and world.is_main else (lambda _: None)
    report({"stage": "reading", "done": 0, "total": 1})
    dataset = open_dataset(config.data)
    train_rows, test_rows = _split(dataset, config)
    torch.manual_seed(config.seed)
    model = last.model if last else checkpoints.build_model(recipe.architecture, config.task, recipe.spec)
    make = _Run.make if config.recipe == "ours" else StudyRun.make
    run = make(config, recipe, model, dataset, (train_rows, test_rows), device, world, out, report)
    record = {
        "config": described,
        "n_train": len(train_rows),
        "n_test": len(test_rows),
        "n_left_out": len(dataset) - len(train_rows) - len(test_rows),
        "data_digest": dataset.digest(),
        "curves": [],
        "best_epoch": None,
        "seconds": 0.0,
        **run.described(),
    }
    if last:
        _restore_optimizer(run.optimizer, last.state)
        if last.training["data_digest"] != record["data_digest"]:
            raise UserError(f"{config.data} is not the data that {out} was trained on; train into another folder")
        record = last.training
        if len(record["curves"]) < config.epochs:
            record = checkpoints.resumed_record(record, {"device": config.device, **run.described()})
    world.agree(
        len(record["curves"]), f"{out} must be one folder for all processes; share it, or copy it to each machine"
    )
    for epoch in range(len(record["curves"]), config.epochs):
        started = time.perf_counter()
        total_loss = run.epoch(epoch, train_rows, report)
        point = {"epoch": epoch + 1, "train_loss": total_loss / len(train_rows), **run.test(test_rows)}
        if not math.isfinite(point["train_loss"]):
            raise _not_finite(point["train_loss"], epoch)
        if not math.isfinite(point["test_loss"]):
            raise UserError(
                f"the test loss is {point['test_loss']} in epoch {epoch + 1}; try a smaller --learning-rate"
            )
        point["seconds"] = round(time.perf_counter() - started, 2)
        record["curves"].append(point)
        record["seconds"] = round(record["seconds"] + point["seconds"], 2)
        report({"stage": "epoch", "epochs": config.epochs, **point})
        if world.is_main:
            _keep(run, record, out)
    if world.is_main and not (out / FINAL).exists():
        checkpoints.save(Checkpoint(model, recipe.architecture, config.task, recipe.spec, record), out / FINAL)
    world.wait()  # what a process does next may read what the first one wrote
    return record


def _not_finite(loss: float, epoch: int) -> UserError:
    return UserError(f"the loss is {loss} in epoch {epoch + 1}; a smaller --learning-rate may help")


class _Labels:
    """The labels of a data set as tensors."""

    def __init__(self, dataset: Dataset):
        types, roots = dataset.labels()
        self.types, self.roots = torch.from_numpy(types), torch.from_numpy(roots)
        self.root_defined = torch.tensor([clip.name.root_is_defined for clip in dataset.clips])


class _Run:
    """One model with its data: an epoch and a step of training, and a pass of testing. Our recipe's; `rows` are a whole
    batch's clips, of which a process takes its own."""

    def __init__(self, config, recipe, model, optimizer, features, labels, device, world=distributed.ALONE):
        self.config, self.recipe, self.model, self.optimizer = config, recipe, model, optimizer
        self.features, self.labels, self.device, self.world = features, labels, device, world

    @classmethod
    def make(cls, config, recipe, model, dataset, rows, device, world, out, report) -> _Run:
        """The run of a training; computes its features first, or finds them in `out`."""
        features = world.first_alone(
            lambda: features_of(
                dataset,
                recipe.spec,
                log=recipe.log,
                cache=out / "cache",
                progress=lambda done, total: report({"stage": "features", "done": done, "total": total}),
            )
        )
        model.to(device)
        if device.type == "cpu":
            model.to(
                memory_format=torch.channels_last
            )  # the same sums in another order: convolutions take half the time
        if world.size > 1:
            distributed.share_batches(model, world)
        return cls(
            config,
            recipe,
            model,
            recipe.optimizer(model, config.learning_rate),
            features,
            _Labels(dataset),
            device,
            world,
        )

    def described(self) -> dict:
        """What the training record says of the way it was computed."""
        return {"processes": self.world.size}

    def epoch(self, epoch: int, train_rows: np.ndarray, report: Progress) -> float:
        """Train for the epoch numbered `epoch` (from 0); the sum of the clips' losses."""
        config, size = self.config, self.config.batch_size
        steps = math.ceil(len(train_rows) / size)
        order = epoch_order(len(train_rows), config.seed, epoch)
        torch.manual_seed(mix_seed(config.seed, epoch) + 1)
        total_loss = torch.zeros((), device=self.device)
        self.model.train()
        for step in range(steps):
            rows = train_rows[order[step * size : (step + 1) * size].numpy()]
            if len(rows) < 2 and steps > 1:
                continue  # batch normalisation has no statistics of a single clip
            factor = self.recipe.schedule((epoch * steps + step) / (config.epochs * steps))
            for group in self.optimizer.param_groups:
                group["lr"] = config.learning_rate * factor
            total_loss += self.step(rows) * len(rows)
            if step % 10 == 9 or step == steps - 1:
                mean = float(total_loss) / min((step + 1) * size, len(train_rows))
                if not math.isfinite(mean):
                    raise _not_finite(mean, epoch)
                report(
                    {
                        "stage": "train",
                        "epoch": epoch + 1,
                        "epochs": config.epochs,
                        "done": step + 1,
                        "total": steps,
                        "loss": mean,
                    }
                )
        return float(total_loss)

    def _inputs(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(np.asarray(self.features[rows], dtype=np.float32)).to(self.device)

    def _loss(self, mel: Tensor, rows: np.ndarray) -> tuple[Tensor, dict[str, Tensor]]:
        index = torch.from_numpy(rows)
        types, roots = self.labels.types[index].to(self.device), self.labels.roots[index].to(self.device)
        joint = self.model.joint(mel)
        defined = self.labels.root_defined[index].to(self.device)
        right = {
            "type": torch.logsumexp(joint, dim=1).argmax(1) == types,
            "root": (torch.logsumexp(joint, dim=2).argmax(1) == roots) | ~defined,
        }
        return chord_loss(joint, types, roots, defined), right

    def step(self, rows: np.ndarray) -> Tensor:
        """One step of the optimizer; the loss before it, detached."""
        mine = self.world.part(rows)
        with self.world.batch(len(rows)):
            mel = augment(self._inputs(mine), self.world)
            loss, _ = self._loss(mel, mine)
        loss = self.world.share(loss, len(mine), len(rows))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.world.sum_gradients(self.model)
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return self.world.sum(loss.detach())

    @torch.inference_mode()
    def test(self, rows: np.ndarray) -> dict:
        """Loss and accuracies on clips that training does not see."""
        self.model.eval()
        loss, right = 0.0, dict.fromkeys(("type", "root"), 0)
        mine = self.world.part(rows)
        for start in range(0, len(mine), 128):
            part = mine[start : start + 128]
            batch_loss, batch_right = self._loss(self._inputs(part), part)
            loss += float(batch_loss) * len(part)
            for name, hits in batch_right.items():
                right[name] += int(hits.sum())
        loss, *right_counts = self.world.sum_numbers([loss, *right.values()])
        accuracies = {f"test_{name}_accuracy": n / len(rows) for name, n in zip(right, right_counts, strict=True)}
        return {"test_loss": loss / len(rows), **accuracies}


def augment(log_mel: Tensor, world: distributed.World = distributed.ALONE) -> Tensor:
    """Vary log mel spectrograms (batch, n_mels, n_frames): a random tone curve, and a random floor of even noise.

    Several processes draw for the whole batch, each the same, and take what belongs to their clips.
    """
    n, n_mels, _ = log_mel.shape
    x = torch.linspace(0, math.pi, n_mels, device=log_mel.device)
    waves = torch.cos(torch.arange(1, 6, device=log_mel.device).unsqueeze(1) * x)
    curve = (world.drawn(torch.randn, n, 5, device=log_mel.device) * 0.7) @ waves
    loudest = log_mel.amax(dim=(1, 2), keepdim=True)
    floor = loudest - 4 - 14 * world.drawn(torch.rand, n, 1, 1, device=log_mel.device)
    return torch.logaddexp(log_mel + curve.unsqueeze(2), floor)


def _keep(run: _Run | StudyRun, record: dict, out: Path) -> None:
    """Write the checkpoints and curves of a finished epoch; the checkpoint to resume from comes last."""
    curves, config = record["curves"], run.config
    # The loss, not the accuracy: on a small test side accuracies differ by a clip or two, which is chance.
    best = min(curves, key=lambda point: point["test_loss"])
    record["best_epoch"] = best["epoch"]
    made = Checkpoint(run.model, run.recipe.architecture, config.task, run.recipe.spec, record)
    if best is curves[-1]:
        checkpoints.save(made, out / BEST)
    with atomic_path(out / HISTORY) as path:
        path.write_text(json.dumps(record, indent=1) + "\n")
    _draw_curves(record, out / "curves.html")
    made.state = {
        f"{i}.{name}": torch.as_tensor(value)
        for i, state in run.optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }
    checkpoints.save(made, out / LAST)


def _restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Tensor]) -> None:
    saved = optimizer.state_dict()
    for key, tensor in state.items():
        index, name = key.split(".", 1)
        saved["state"].setdefault(int(index), {})[name] = tensor
    # Fused updates read weights and averages side by side: both must lie in memory alike.
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for index, of_one in saved["state"].items():
        for name, tensor in of_one.items():
            if tensor.ndim:
                of_one[name] = torch.empty_like(parameters[index], device="cpu").copy_(tensor)
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
    changed = [k for k in described if k not in movable and before.get(k) != described[k]]
    if changed:
        k = changed[0]
        raise UserError(f"{out} was trained with {k}={before.get(k)}, not {described[k]}; train into another folder")
    return last


def _split(dataset: Dataset, config: TrainConfig) -> tuple[np.ndarray, np.ndarray]:
    if config.split == "random":
        return random_split(len(dataset), config.test_fraction, config.split_seed)
    train_rows, test_rows, _ = grouped_split(dataset.clips, config.test_fraction, config.split_seed)
    return np.asarray(train_rows), np.asarray(test_rows)


def _draw_curves(record: dict, path: Path) -> None:
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    curves = record["curves"]
    figure = make_subplots(rows=1, cols=2, subplot_titles=("loss", "accuracy on the test side"))
    epochs = [point["epoch"] for point in curves]
    for key in (k for k in curves[-1] if k.endswith(("loss", "accuracy"))):
        trace = go.Scatter(
            x=epochs, y=[point[key] for point in curves], name=key.replace("_", " "), mode="lines+markers"
        )
        figure.add_trace(trace, row=1, col=2 if key.endswith("accuracy") else 1)
    figure.update_xaxes(title_text="epoch")
    config = record["config"]
    figure.update_layout(title=f"{config['recipe']} recipe, {config['task']}, seed {config['seed']}")
    with atomic_path(path) as temporary:
        figure.write_html(temporary, include_plotlyjs=True)
