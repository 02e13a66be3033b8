"""Our recipe's training: one network for type and root, on augmented log mel spectrograms that were computed once."""

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from triadbench.core.data.dataset import Dataset
from triadbench.core.models.networks import ChordNet, chord_loss
from triadbench.core.training.batches import in_batches
from triadbench.core.training.features import features_of
from triadbench.core.training.recipes import RECIPES, Report, ResolvedConfig, epoch_order, finite_loss, mix_seed

_TEST_BATCH = 128
_REPORT_EVERY = 10  # steps
_RECIPE = RECIPES["ours"]
Labels = tuple[Tensor, Tensor, Tensor]
"""Types, roots, and whether the root is defined, of some clips."""


class ChordRun:
    """Our recipe's `core.training.train.TrainingRun`.

    Features are computed first, or read from the cache in the run's folder.
    """

    def __init__(
        self,
        config: ResolvedConfig,
        model: ChordNet,
        dataset: Dataset,
        rows: tuple[np.ndarray, np.ndarray],
        device: torch.device,
        report: Report,
    ):
        self.config, self.model, self.device = config, model, device
        self.train_rows, self.test_rows = rows
        self.described: dict = {}
        self.features = self._features_of(dataset, report)
        model.to(device)
        if device.type == "cpu":  # the same sums in another order: convolutions take half the time
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs
        self.optimizer: torch.optim.Optimizer = make_optimizer(model, config.learning_rate)
        types, roots = map(torch.from_numpy, dataset.labels())
        self.labels = types, roots, torch.tensor([clip.name.root_is_defined for clip in dataset.clips])

    def _features_of(self, dataset: Dataset, report: Report) -> np.ndarray:
        def progress(done: int, total: int) -> None:
            report({"stage": "features", "done": done, "total": total})

        cache = Path(self.config.out) / "cache"
        return features_of(dataset, _RECIPE.spec, log=_RECIPE.log, cache=cache, progress=progress)

    def train_epoch(self, epoch: int, report: Report) -> float:
        """Train for the epoch numbered `epoch` (from 0); the clips' mean loss."""
        config, n = self.config, len(self.train_rows)
        batches = in_batches(self.train_rows[epoch_order(n, config.seed, epoch).numpy()], config.batch_size)
        steps = len(batches)
        torch.manual_seed(mix_seed(config.seed, epoch) + 1)
        total_loss = torch.zeros((), device=self.device)
        self.model.train()
        for step, rows in enumerate(batches):
            if len(rows) < 2 and steps > 1:
                continue  # batch normalisation has no statistics of a single clip
            factor = schedule((epoch * steps + step) / (config.epochs * steps))
            for group in self.optimizer.param_groups:
                group["lr"] = config.learning_rate * factor
            total_loss += self.step(rows) * len(rows)
            if step % _REPORT_EVERY == _REPORT_EVERY - 1 or step == steps - 1:
                mean = finite_loss(float(total_loss) / min((step + 1) * config.batch_size, n), epoch)
                event = {"stage": "train", "epoch": epoch + 1, "epochs": config.epochs, "done": step + 1}
                report({**event, "total": steps, "loss": mean})
        return float(total_loss) / n

    def step(self, rows: np.ndarray) -> Tensor:
        """One step of the optimizer with a batch of clips; the loss before it, detached."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._training_loss(rows, augmentation(len(rows), self.device))
        loss.backward()
        self._update()
        return loss.detach()

    def _training_loss(self, rows: np.ndarray, augmentation: tuple[Tensor, Tensor]) -> Tensor:
        return chord_loss(self.model.joint(augment(self._inputs(rows), *augmentation)), *self._labels_of(rows))

    def _update(self) -> None:
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()

    def _inputs(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(np.asarray(self.features[rows], dtype=np.float32)).to(self.device)

    def _labels_of(self, rows: np.ndarray) -> Labels:
        types, roots, defined = (labels[torch.from_numpy(rows)].to(self.device) for labels in self.labels)
        return types, roots, defined

    def test(self) -> dict[str, float]:
        """Loss and accuracies on clips that training does not see."""
        names, n = ("loss", "type_accuracy", "root_accuracy"), len(self.test_rows)
        return {f"test_{name}": total / n for name, total in zip(names, self._test_totals(self.test_rows), strict=True)}

    @torch.inference_mode()
    def _test_totals(self, rows: np.ndarray) -> list[float]:
        """Sum of the clips' losses, and how many types and roots are right."""
        self.model.eval()
        totals = np.zeros(3)
        for batch in in_batches(rows, _TEST_BATCH):
            joint, labels = self.model.joint(self._inputs(batch)), self._labels_of(batch)
            hits = [float(right.sum()) for right in right_answers(joint, *labels)]
            totals += [float(chord_loss(joint, *labels)) * len(batch), *hits]
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


def right_answers(joint: Tensor, types: Tensor, roots: Tensor, defined: Tensor) -> tuple[Tensor, Tensor]:
    """(types, roots) that are right, of each clip; where the root is undefined, any is.

    Args:
        joint: logits (batch, types, roots) of `ChordNet.joint`.
    """
    right_types = torch.logsumexp(joint, dim=1).argmax(1) == types
    return right_types, (torch.logsumexp(joint, dim=2).argmax(1) == roots) | ~defined


def augmentation(n: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """What `augment` takes for `n` clips: random numbers, normal (n, 5) and even in 0-1 (n, 1, 1)."""
    return torch.randn(n, 5, device=device), torch.rand(n, 1, 1, device=device)


def augment(log_mel: Tensor, tone: Tensor, floor: Tensor) -> Tensor:
    """Vary log mel spectrograms (batch, n_mels, n_frames): a random tone curve, and a random floor of even noise.

    Args:
        tone, floor: from `augmentation`.
    """
    x = torch.linspace(0, math.pi, log_mel.shape[1], device=log_mel.device)
    curve = (tone * 0.7) @ torch.cos(torch.arange(1, 6, device=log_mel.device).unsqueeze(1) * x)
    loudest = log_mel.amax(dim=(1, 2), keepdim=True)
    return torch.logaddexp(log_mel + curve.unsqueeze(2), loudest - 4 - 14 * floor)
