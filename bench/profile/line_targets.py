"""What line profiles look into: a training epoch of the original and of the fast pipeline, and the original dataset.

Clips are made for it: sixteen-bit files of four seconds with the data set's names, and a pack of the same. The system's
cache holds files that were just written, so reading them is cheaper than from a disk at rest.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triadbench.bench.cases import SEED, make_waveform
from triadbench.bench.machine import drain
from triadbench.bench.profile.lines import Target
from triadbench.core.constants import SAMPLE_RATE

if TYPE_CHECKING:
    from triadbench.core.data.dataset import Dataset
    from triadbench.core.training.epoch import StudyTrainer

TASK = "type"
_DATASET = (
    "triadbench.core.training.batches:TriadClips.__getitem__",
    "triadbench.core.training.batches:TriadClips._load",
    "triadbench.core.training.batches:TriadClips._resample",
    "triadbench.core.training.batches:TriadClips._mix",
    "triadbench.core.training.batches:TriadClips._cut_or_pad",
)
_STEP = (
    "triadbench.core.training.epoch:Epochs._train_steps",
    "triadbench.core.training.step:TrainingStep.__call__",
    "triadbench.core.training.step:TrainingStep.forward",
)
_ORIGINAL = (
    *_STEP,
    "triadbench.core.models.networks:OriginalNet.forward",
    "triadbench.core.training.batches:_ClipSource.batches",
    *_DATASET,
)
_FAST = {
    "cpu": (
        *_STEP,
        "triadbench.core.training.step:_fused_forward",
        "triadbench.kernels.conv_pool.blocks:_FirstBlock.forward",
        "triadbench.kernels.conv_pool.blocks:_FirstBlock.backward",
        "triadbench.kernels.conv_pool.blocks:_Block.forward",
        "triadbench.kernels.conv_pool.blocks:_Block.backward",
        "triadbench.core.training.batches:CachedSource.batches",
    ),
    # The whole step is captured once and replayed: of the step itself no line of Python runs any more.
    "cuda": ("triadbench.core.training.step:StepGraph.run",),
}
_HOST = (
    " Times are the host's: a line that gives the GPU work is charged for asking, and a line that waits for an answer "
    "for all that was asked before. Each round ends with a synchronisation."
)


def make_targets(folder: Path, *, device: str = "cpu", clips: int = 92, batch_size: int = 32) -> list[Target]:
    """The targets "original training step", "fast training step" and "original dataset".

    Args:
        folder: empty; gets `clips` files and a pack of them.
        device: "cpu" or "cuda".
        clips: of the data set; the original's split trains on 70 % of them.
        batch_size: clips a step.
    """
    import torch

    from triadbench.core.training.batches import TriadClips

    files, original, fast = make_trainers(folder, device=device, clips=clips, batch_size=batch_size)
    dataset = TriadClips(files, torch.from_numpy(files.labels()[0]), torch.device(device))
    host = _HOST if device == "cuda" else ""
    common = {"device": device, "threads": torch.get_num_threads()}

    def read_all() -> None:
        for index in range(len(dataset)):
            dataset[index]
        drain(device)

    def epoch(pipeline: str, trainer: StudyTrainer, functions: tuple[str, ...], note: str) -> Target:
        def work() -> None:
            trainer.train_epoch()
            drain(device)

        n, parameters = trainer.n_train, {**common, "pipeline": pipeline, "batch_size": batch_size}
        explanation = f"Epochs of {n} clips in steps of {batch_size}, from the first batch to the last loss.{note}"
        return Target(f"{pipeline} training step", functions, work, n, parameters, explanation)

    prepared = " The mel spectrograms were computed before, in the first epoch."
    alone = (
        "The original's dataset alone: every clip once, opened, decoded and transformed by itself. The files are "
        "16 kHz mono as the original's, so that resampling and mixing have nothing to do."
    )
    parameters = {**common, "pipeline": "original"}
    return [
        epoch("original", original, _ORIGINAL, host),
        epoch("fast", fast, _FAST[device], prepared + host),
        Target("original dataset", _DATASET, read_all, len(dataset), parameters, alone + host),
    ]


def make_trainers(
    folder: Path, *, device: str, clips: int, batch_size: int
) -> tuple[Dataset, StudyTrainer, StudyTrainer]:
    """(files, original, fast): clips as files, and trainers of both pipelines over them from the same weights.

    Args: as `make_targets`.
    """
    from triadbench.core.data.dataset import open_dataset
    from triadbench.core.data.pack import pack
    from triadbench.core.training.epoch import StudyTrainer
    from triadbench.core.training.settings import ORIGINAL_PIPELINE, fast_pipeline

    _write_clips(folder / "wav", clips)
    files = open_dataset(folder / "wav")
    pack(files, folder / "clips.pack")
    common: dict[str, Any] = {"task": TASK, "batch_size": batch_size, "seed": SEED, "device": device}
    original = StudyTrainer(files, switches=ORIGINAL_PIPELINE, **common)
    fast = StudyTrainer(open_dataset(folder / "clips.pack"), switches=fast_pipeline(device), **common)
    return files, original, fast


def _write_clips(folder: Path, clips: int) -> None:
    """16 kHz mono files of every root and type in turn."""
    import soundfile

    from triadbench.core.models.chords import ROOT_CODES, TYPE_CODES

    folder.mkdir()
    labels = itertools.cycle(itertools.product(ROOT_CODES, TYPE_CODES))
    for number, (waveform, (root, kind)) in enumerate(zip(make_waveform(clips).numpy(), labels, strict=False)):
        file = folder / f"piano_{3 + number % 3}_{root}_{kind}_m_{number:04d}.wav"
        soundfile.write(file, waveform.clip(-1, 1), SAMPLE_RATE, subtype="PCM_16")
