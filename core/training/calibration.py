"""Temperature and priors of a trained network, fitted on sound that it was not trained on."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from triadbench.core.audio.io import read_clip
from triadbench.core.constants import CLIP_SECONDS
from triadbench.core.data.chord_labels import find_labelled, main_label
from triadbench.core.data.dataset import open_dataset
from triadbench.core.data.excerpts import Entry, Excerpts, is_excerpts, of_dataset, open_excerpts
from triadbench.core.errors import UserError
from triadbench.core.models.networks import ChordNet
from triadbench.core.models.vocabulary import QUALITIES
from triadbench.core.training.crops import CropDrawer
from triadbench.core.training.train import targets_of
from triadbench.kernels import MelSpectrogram

_PENALTY = 2.0  # nats, of all sounds together, on a number's square: few sounds of a quality change its prior little
_STEPS = 200


def calibrate(model: ChordNet, source: Path, progress: Callable[[int, int], None] | None = None) -> dict:
    """Set a network's `temperature` and `prior` to the least negative log likelihood of labelled sounds.

    Clips count whole, songs in windows as the timeline hears them; sounds labelled "X" are left out.

    Args:
        source: a set to train on, sounds with labels (`core.data.chord_labels`), or a data set of named clips.
        progress: called with (sounds heard, sounds).

    Returns:
        {"set", "data_digest", "n", "loss": before and after, in nats a sound, "temperature", "prior": {quality: what
        is added to its logits}}.

    Raises:
        UserError: nothing with a label, or a sound that cannot be read.
    """
    excerpts = _labelled(source)
    drawer = CropDrawer(excerpts.entries)
    batches = drawer.whole(np.flatnonzero(drawer.usable), seed=0)
    if not batches:
        raise UserError(f"{source}: no sound with a label of what sounds")
    mel, heard, done = MelSpectrogram.from_spec(model.spec, log=True), [], 0
    with torch.no_grad():
        for crops in batches:
            waveforms = torch.from_numpy(excerpts.read_many(crops.rows, crops.starts, crops.samples))
            heard.append(model.eval().heads(mel(waveforms)).chords.double())
            done += len(crops.rows)
            if progress is not None:
                progress(done, int(drawer.usable.sum()))
    labels = [drawer.labels[k] for crops in batches for k in crops.labels]
    before, after = fit(model, torch.cat(heard), targets_of(labels)[0])
    return {
        "set": source.resolve().name,
        "data_digest": excerpts.digest(),
        "n": len(labels),
        "loss": [before, after],
        "temperature": float(model.temperature),
        "prior": dict(zip([*(quality.harte for quality in QUALITIES), "N"], model.prior.tolist(), strict=True)),
    }


def fit(model: ChordNet, chords: Tensor, allowed: Tensor) -> tuple[float, float]:
    """`calibrate` with logits (n, 205) float64 and the classes that are right, bool (n, 205); the losses before and
    after."""
    numbers = torch.zeros(1 + len(model.prior), dtype=torch.float64, requires_grad=True)

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
    optimizer = torch.optim.LBFGS([numbers], max_iter=_STEPS, line_search_fn="strong_wolfe")
    optimizer.step(closure)
    model.temperature, model.prior = numbers[0].detach().exp().float(), numbers[1:].detach().float()
    return before, float(loss())


def _labelled(source: Path) -> Excerpts:
    if is_excerpts(source):
        return open_excerpts(source)
    sounds, _ = find_labelled(source)
    if not sounds:
        return of_dataset(open_dataset(source))
    entries = []
    for sound in sounds:
        kind, chords = str(sound.kind), sound.stretches
        if not kind.startswith("song"):
            chords = [(0.0, CLIP_SECONDS, main_label(chords))]
        entries.append(Entry(kind, sound.path.name, chords))
    return Excerpts(source, entries, lambda row: read_clip(sounds[row].path), "")
