"""Temperature and priors of a trained network, fitted on sound that it was not trained on."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from triadbench.core.audio.io import read_clip
from triadbench.core.constants import CLIP_SECONDS
from triadbench.core.data.chord_labels import find_labelled
from triadbench.core.data.dataset import open_dataset
from triadbench.core.data.excerpts import Entry, Excerpts, is_excerpts, of_dataset, open_excerpts
from triadbench.core.errors import UserError
from triadbench.core.models.networks import ChordNet
from triadbench.core.models.vocabulary import QUALITIES
from triadbench.core.training.crops import CropDrawer
from triadbench.core.training.train import targets_of
from triadbench.kernels import MelSpectrogram

_PENALTY = 30.0
"""Nats, of all sounds together, on a number's square: which qualities are frequent in the set says little of others."""


@torch.no_grad()
def calibrate(model: ChordNet, source: Path) -> dict:
    """Set a network's `temperature` and `prior` to the least negative log likelihood of labelled sounds: a set to train
    on, sounds as `find_labelled` finds them, or a data set. Clips count whole, songs in windows, "X" does not count.

    Returns:
        {"set", "n", "loss": before and after, nats a sound, "temperature", "prior": what is added to each logit}.

    Raises:
        UserError: nothing with a label, or a sound that cannot be read.
    """
    excerpts = _labelled(source)
    drawer = CropDrawer(excerpts.entries)
    mel, chords, labels = MelSpectrogram.from_spec(model.spec, log=True), [], []
    for crops in drawer.whole(np.flatnonzero(drawer.usable), seed=0):
        waveforms = torch.from_numpy(excerpts.read_many(crops.rows, crops.starts, crops.samples))
        chords.append(model.eval().heads(mel(waveforms)).chords.double())
        labels += [drawer.labels[label] for label in crops.labels]
    if not labels:
        raise UserError(f"{source}: no sound of which a label says what it is")
    loss = fit(model, torch.cat(chords), targets_of(labels)[0])
    prior = dict(zip([*(quality.harte for quality in QUALITIES), "N"], model.prior.tolist(), strict=True))
    temperature = float(model.temperature)
    return {"set": source.resolve().name, "n": len(labels), "loss": loss, "temperature": temperature, "prior": prior}


@torch.enable_grad()
def fit(model: ChordNet, chords: Tensor, allowed: Tensor) -> list[float]:
    """`calibrate` with logits (n, 205) float64 and the classes that are right, bool (n, 205); loss before and after."""
    numbers = torch.zeros(1 + len(model.prior), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([numbers], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        log_p = torch.log_softmax(model.calibrated(chords), dim=1)
        return -log_p.masked_fill(~allowed, -torch.inf).logsumexp(dim=1).mean()

    def closure() -> Tensor:
        optimizer.zero_grad()
        model.temperature, model.prior = numbers[0].exp(), numbers[1:]
        total = loss() + _PENALTY / len(chords) * numbers.square().sum()
        total.backward()
        return total

    before = float(loss())
    optimizer.step(closure)
    model.temperature, model.prior = numbers[0].detach().exp().float(), numbers[1:].detach().float()
    return [before, float(loss())]


def _labelled(source: Path) -> Excerpts:
    if is_excerpts(source):
        return open_excerpts(source)
    sounds, _ = find_labelled(source)
    if not sounds:
        return of_dataset(open_dataset(source))
    end, entries = CLIP_SECONDS, []
    for path, stretches, kind in sounds:
        heard = [(start, min(stop, end), label) for start, stop, label in stretches if start < end]
        entries.append(Entry(str(kind), path.name, heard))
    return Excerpts(source, entries, lambda row: read_clip(sounds[row].path), "")
