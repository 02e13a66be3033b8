"""Training: the original study's recipe, and ours. An interrupted run goes on from its last whole epoch."""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from triadbench.core.data.dataset import Dataset, open_dataset
from triadbench.core.data.excerpts import Excerpts, is_excerpts, of_dataset, open_excerpts
from triadbench.core.data.splits import grouped_split, random_split, recording_split
from triadbench.core.device import torch_device
from triadbench.core.errors import UserError
from triadbench.core.extras import importable
from triadbench.core.files import atomic_path
from triadbench.core.models import checkpoint as checkpoints
from triadbench.core.models.checkpoint import Checkpoint
from triadbench.core.models.chords import TYPES, root_index
from triadbench.core.models.networks import ChordNet, chord_loss, triad_log_probabilities
from triadbench.core.models.prediction import NO_TRIAD, REDUCTION
from triadbench.core.models.targets import allowed_classes, parse_label, sounding
from triadbench.core.training.crops import CropDrawer, Crops
from triadbench.core.training.epoch import OriginalRun, draws_of
from triadbench.core.training.settings import RECIPES, Report, ResolvedConfig, TrainConfig, finite_loss, mix_seed
from triadbench.kernels import MelSpectrogram

LAST, BEST, FINAL, HISTORY = "last.safetensors", "best.safetensors", "final.safetensors", "history.json"
_REPORT_EVERY = 10  # steps
Targets = tuple[Tensor, Tensor, Tensor]
"""Of some clips: classes that are right, bass and notes, as `core.models.networks.chord_loss` takes them."""


class ChordRun:
    """Our recipe's `TrainingRun`: one network for all chords, on log mel spectrograms of crops, made step by step."""

    def __init__(
        self,
        config: ResolvedConfig,
        model: ChordNet,
        data: Excerpts | Dataset,
        rows: tuple[np.ndarray, np.ndarray],
        device: torch.device,
        report: Report,
    ):
        self.config, self.model, self.device = config, model, device
        self.excerpts = of_dataset(data) if isinstance(data, Dataset) else data
        self.crops = CropDrawer(self.excerpts.entries)
        self.train_rows, test_rows = (side[self.crops.usable[side]] for side in rows)
        self.test_crops = self.crops.whole(test_rows, config.split_seed)
        if not len(self.train_rows) or not self.test_crops:
            raise UserError(f"{config.data}: a side of the split has no row whose chord is known; render more of them")
        self.described: dict = {}
        self.mel = MelSpectrogram.from_spec(model.spec, log=True).to(device)
        model.to(device)
        if device.type == "cpu":  # the same sums in another order: convolutions take half the time
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs
        self.optimizer: torch.optim.Optimizer = make_optimizer(model, config.learning_rate)
        self.targets = targets_of(self.crops.labels)

    def train_epoch(self, epoch: int, report: Report) -> dict[str, float]:
        """Train for the epoch numbered `epoch` (from 0); the crops' mean loss."""
        config = self.config
        batches = self.crops.epoch(self.train_rows, config.batch_size, config.seed, epoch)
        steps, n = len(batches), 0
        torch.manual_seed(mix_seed(config.seed, epoch) + 1)
        total_loss = torch.zeros((), device=self.device)
        self.model.train()
        for step, crops in enumerate(batches):
            if len(crops.rows) < 2 and steps > 1:
                continue  # batch normalisation has no statistics of a single clip
            factor = schedule((epoch + step / steps) / config.epochs)
            for group in self.optimizer.param_groups:
                group["lr"] = config.learning_rate * factor
            n += len(crops.rows)
            total_loss += self.step(crops) * len(crops.rows)
            if step % _REPORT_EVERY == _REPORT_EVERY - 1 or step == steps - 1:
                mean = finite_loss(float(total_loss) / n, epoch)
                event = {"stage": "train", "epoch": epoch + 1, "epochs": config.epochs, "done": step + 1}
                report({**event, "total": steps, "loss": mean})
        return {"train_loss": float(total_loss) / n}

    def step(self, crops: Crops) -> Tensor:
        """One step of the optimizer with a batch of crops; the loss before it, detached."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._training_loss(crops, augmentation(len(crops.rows), self.device))
        loss.backward()
        self._update()
        return loss.detach()

    def _training_loss(self, crops: Crops, augmentation: tuple[Tensor, Tensor]) -> Tensor:
        return chord_loss(self.model.heads(augment(self._inputs(crops), *augmentation)), *self._targets_of(crops))

    def _update(self) -> None:
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()

    def _inputs(self, crops: Crops) -> Tensor:
        waveforms = self.excerpts.read_many(crops.rows, crops.starts, crops.samples)
        return self.mel(torch.from_numpy(waveforms).to(self.device))

    def _targets_of(self, crops: Crops) -> Targets:
        allowed, bass, notes = (target[torch.from_numpy(crops.labels)] for target in self.targets)
        notes[torch.from_numpy(self.crops.is_song[crops.rows])] = torch.nan  # a melody's notes are not the chord's
        return allowed.to(self.device), bass.to(self.device), notes.to(self.device)

    def test(self) -> dict[str, float]:
        """Loss and accuracies on rows that training does not see."""
        names, n = ("loss", "type_accuracy", "root_accuracy"), sum(len(crops.rows) for crops in self.test_crops)
        totals = self._test_totals(self.test_crops)
        return {f"test_{name}": total / n for name, total in zip(names, totals, strict=True)}

    @torch.inference_mode()
    def _test_totals(self, batches: Sequence[Crops]) -> list[float]:
        """Sum of the crops' losses, and how many types and roots are right."""
        self.model.eval()
        totals = np.zeros(3)
        for crops in (crops for crops in batches if len(crops.rows)):
            heads, targets = self.model.heads(self._inputs(crops)), self._targets_of(crops)
            hits = [float(right.sum()) for right in right_answers(heads.chords, targets[0])]
            totals += [float(chord_loss(heads, *targets)) * len(crops.rows), *hits]
        return totals.tolist()


def make_optimizer(model: nn.Module, learning_rate: float) -> torch.optim.AdamW:
    """AdamW, with weight decay for all but biases and normalisation."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.02}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate)


def schedule(progress: float) -> float:
    """Factor on the learning rate at `progress` (0-1 of all steps): a twentieth of the steps warms up, the rest falls
    along a half cosine to nothing."""
    warm = 0.05
    if progress < warm:
        return max(progress, 1e-3) / warm
    return 0.5 * (1 + math.cos(math.pi * (progress - warm) / (1 - warm)))


def targets_of(labels: Sequence[str]) -> Targets:
    """What `chord_loss` needs to know of labels in Harte's syntax: bool (n, 205), int (n,), float (n, 12)."""
    rows = {label: k for k, label in enumerate(dict.fromkeys(labels))}
    distinct = [(allowed_classes(label), parse_label(label)[1], sounding(label)) for label in rows]
    allowed, basses, notes = zip(*distinct, strict=True)
    bass = torch.tensor([-1 if pitch_class is None else root_index(pitch_class) for pitch_class in basses])
    order = torch.tensor([rows[label] for label in labels])
    return torch.from_numpy(np.stack(allowed))[order], bass[order], torch.from_numpy(np.stack(notes))[order]


def right_answers(chords: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
    """(types, roots) that are right, bool (batch,), in logits `chords` (batch, 205): those of the likeliest triad, or
    none, are those of a class that is `allowed`."""
    answered = triad_log_probabilities(chords).argmax(1, keepdim=True)
    triads = torch.from_numpy(REDUCTION).to(chords.device)
    same_root = triads // len(TYPES) == answered // len(TYPES)
    same_type = (triads % len(TYPES) == answered % len(TYPES)) & ((triads == NO_TRIAD) == (answered == NO_TRIAD))
    return (same_type & allowed).any(1), (same_root & allowed).any(1)


def augmentation(n: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """What `augment` takes for `n` clips: random numbers, normal (n, 5) and even in 0-1 (n, 1, 1)."""
    return torch.randn(n, 5, device=device), torch.rand(n, 1, 1, device=device)


def augment(log_mel: Tensor, tone: Tensor, floor: Tensor) -> Tensor:
    """Vary log mel spectrograms (batch, n_mels, n_frames) by what `augmentation` drew: a tone curve, a noise floor."""
    x = torch.linspace(0, math.pi, log_mel.shape[1], device=log_mel.device)
    curve = (tone * 0.7) @ torch.cos(torch.arange(1, 6, device=log_mel.device).unsqueeze(1) * x)
    loudest = log_mel.amax(dim=(1, 2), keepdim=True)
    return torch.logaddexp(log_mel + curve.unsqueeze(2), loudest - 4 - 14 * floor)


TrainingRun = OriginalRun | ChordRun
"""One model with its data, in training; `described` says in the training record how it is computed."""
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
    dataset: Dataset | None = None,
) -> dict:
    """Train one network, or go on with an interrupted training.

    Writes into `config.out`: `last.safetensors` after every epoch (with what resuming needs), `best.safetensors` (the
    epoch of lowest test loss, without it), `history.json` and (by plotly) `curves.html`; and when all epochs are done
    `final.safetensors` (without it).

    Args:
        resume: go on from `last.safetensors`; without it, a folder that holds one is refused.
        progress: called with {"stage", "done", "total", "epoch", "epochs", "loss", ...} every few steps.
        run_types: what makes the run, by recipe.
        processes: how many share the work, for the record. writes: False computes the same and leaves no checkpoint.
        dataset: what `config.data` is to be opened as; None: all of it.

    Returns:
        The training record: configuration, curves, best epoch, seconds; and `resumed`, if the run went on in another
        way than it began (`core.models.checkpoint.resumed_record`).

    Raises:
        UserError: bad settings, data or device, a run that is there already, or a loss that is no longer finite.
    """
    config = config.resolved()
    recipe, out, described = RECIPES[config.recipe], Path(config.out), config.described()
    device = torch_device(config.device)
    last = _last_checkpoint(out, described, resume)
    report = progress or (lambda event: None)
    report({"stage": "reading", "done": 0, "total": 1})
    data, train_rows, test_rows = _opened(config, dataset)
    torch.manual_seed(config.seed)
    kind = recipe.architecture, config.task, recipe.spec
    first = draws_of(config, len(data)).model if config.recipe == "original" else checkpoints.build_model(*kind)
    model = last.model if last else first
    run = run_types[config.recipe](config, model, data, (train_rows, test_rows), device, report)
    record: dict[str, Any] = {
        "config": described,
        "n_train": len(train_rows),
        "n_test": len(test_rows),
        "n_left_out": len(data) - len(train_rows) - len(test_rows),
        "data_digest": data.digest(),
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
            means = {"device": config.device, **run.described, "processes": processes}
            record = checkpoints.resumed_record(record, means)
    for epoch in range(len(record["curves"]), config.epochs):
        started = time.perf_counter()
        point: dict[str, Any] = {"epoch": epoch + 1, **run.train_epoch(epoch, report)}
        finite_loss(point["train_loss"], epoch)
        point |= run.test()
        if not math.isfinite(loss := point["test_loss"]):
            raise UserError(f"the test loss is {loss} in epoch {epoch + 1}; try a smaller --learning-rate")
        point["seconds"] = round(time.perf_counter() - started, 2)
        record["curves"].append(point)
        record["seconds"] = round(record["seconds"] + point["seconds"], 2)
        # The loss, not the accuracy: on a small test side accuracies differ by a clip or two, which is chance.
        record["best_epoch"] = min(record["curves"], key=lambda point: point["test_loss"])["epoch"]
        report({"stage": "epoch", "epochs": config.epochs, **point})
        if writes:
            _write_epoch(Checkpoint(model, *kind, record), run.optimizer, out)
    if writes and not (out / FINAL).exists():
        checkpoints.save(Checkpoint(model, *kind, record), out / FINAL)
    return record


def _opened(config: ResolvedConfig, dataset: Dataset | None) -> tuple[Excerpts | Dataset, np.ndarray, np.ndarray]:
    """The set, and its rows to train on and to test with."""
    fraction, seed = config.test_fraction, config.split_seed
    is_excerpts_set = dataset is None and is_excerpts(Path(config.data))
    data = open_excerpts(Path(config.data)) if is_excerpts_set else dataset or open_dataset(config.data)
    if isinstance(data, Excerpts) and config.recipe == "original":
        raise UserError(f"recipe 'original' trains on clips named by type and root, which {config.data} does not have")
    if config.recipe == "original" and config.split == "random":
        return data, *draws_of(replace(config, seed=seed), len(data)).rows
    if config.split == "random":
        return data, *random_split(len(data), fraction, seed)
    if isinstance(data, Excerpts):
        return data, *recording_split([entry.recording for entry in data.entries], fraction, seed)
    return data, *grouped_split(data.clips, fraction, seed)[:2]


def train_tasks(
    settings: dict, task: str, resume: bool, progress: Report | None = None, train_one: Callable[..., dict] = train
) -> dict[str, dict]:
    """Train what `task` asks for; {task: training record}.

    The original has one network a task: "both" trains its two, into `out/type` and `out/root`, and with `resume` goes
    on with whichever is unfinished.

    Args:
        settings: fields of `TrainConfig`, without the task. train_one: `train`, or what does the same.
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
    if importable("plotly"):
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


def _draw_curves(record: dict, path: Path) -> None:
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    curves, config = record["curves"], record["config"]
    figure = make_subplots(rows=1, cols=2, subplot_titles=("loss", "accuracy"))
    epochs = [point["epoch"] for point in curves]
    for key in (k for k in curves[-1] if k.endswith(("loss", "accuracy"))):
        values, name = [point[key] for point in curves], key.replace("_", " ")
        trace = go.Scatter(x=epochs, y=values, name=name, mode="lines+markers")
        figure.add_trace(trace, row=1, col=2 if key.endswith("accuracy") else 1)
    figure.update_xaxes(title_text="epoch")
    figure.update_layout(title=f"{config['recipe']} recipe, {config['task']}, seed {config['seed']}")
    with atomic_path(path) as temporary:
        figure.write_html(temporary, include_plotlyjs=True)
