"""Epochs of the original and of the fast pipeline on clips made for them: how long is each part, and each line?

`run_parts` times whole epochs without instruments, the pipelines alternating, and as many with a clock in them, which
splits them into reading, resampling, mel, copy, forward, backward, optimizer, synchronisation and idle. The clock makes
an epoch longer (by how much is stated), so only its shares are used. Not timed: testing, and what the first epoch alone
does (features that later epochs find ready); that is stated apart. On a GPU the clock waits for the device after every
part. Checked first: both pipelines start from the same weights and take the same clips in the same order, so the losses
of their first epochs must agree.

`run_lines` profiles the lines of both, and of the original's dataset alone. The system's cache holds files that were
just written, so reading them is cheaper than from a disk at rest.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from statistics import median
from typing import TYPE_CHECKING, Any

from triadbench.bench import records
from triadbench.bench.cases import SEED, make_waveform
from triadbench.bench.machine import drain
from triadbench.bench.profile import lines
from triadbench.bench.study.ladder import largest_difference, part_fields, run_epoch
from triadbench.core import timing
from triadbench.kernels.scratch import scratch_folder

if TYPE_CHECKING:
    from triadbench.core.data.dataset import Dataset
    from triadbench.core.training.epoch import EpochResult, StudyTrainer

NAME = "pipeline parts"
LOSS_TOLERANCE = 0.02
"""Largest difference of two losses at a step. The study's ladder allows half of what a doubled learning rate changes,
and found that to be 0.02; rounding to half precision changes less, an untrained or wrongly fed network more."""
_TASK = "type"
_DATASET = tuple(
    f"triadbench.core.training.batches:TriadClips.{method}"
    for method in ("__getitem__", "_load", "_resample", "_mix", "_cut_or_pad")
)
_STEP = (
    "triadbench.core.training.epoch:Epochs._train_steps",
    *(f"triadbench.core.training.step:TrainingStep.{part}" for part in ("judge", "_update", "read", "forward")),
)
_ORIGINAL = (
    *_STEP,
    "triadbench.core.models.networks:OriginalNet.forward",
    "triadbench.core.training.batches:_ClipSource.batches",
    *_DATASET,
)
_BLOCKS = ("_FirstBlock.forward", "_FirstBlock.backward", "_Block.forward", "_Block.backward")
_FAST = {
    "cpu": (
        *_STEP,
        "triadbench.core.training.step:_fused_forward",
        *(f"triadbench.kernels.conv_pool.blocks:{block}" for block in _BLOCKS),
        "triadbench.core.training.batches:CachedSource.batches",
    ),
    # The whole step is captured once and replayed: of the step itself no line of Python runs any more.
    "cuda": ("triadbench.core.training.step:StepGraph.run",),
}
_HOST = (
    " Times are the host's: a line that gives the GPU work is charged for asking, and a line that waits for an answer "
    "for all that was asked before. Each round ends with a synchronisation."
)


@contextlib.contextmanager
def both_trainers(device: str, clips: int, batch_size: int) -> Iterator[tuple[Dataset, StudyTrainer, StudyTrainer]]:
    """(files, original, fast): clips as files, and trainers of both pipelines over them from the same weights.

    The files, deleted at the end, are 16 kHz mono of every root and type in turn; the fast pipeline has a pack of them.
    """
    from triadbench.core.audio.io import write_wav
    from triadbench.core.data.dataset import open_dataset
    from triadbench.core.data.pack import pack
    from triadbench.core.models.chords import ROOT_CODES, TYPE_CODES
    from triadbench.core.training.epoch import StudyTrainer
    from triadbench.core.training.settings import ORIGINAL_PIPELINE, fast_pipeline

    labels = itertools.cycle(itertools.product(ROOT_CODES, TYPE_CODES))
    with scratch_folder() as folder:
        for number, (waveform, (root, kind)) in enumerate(zip(make_waveform(clips).numpy(), labels, strict=False)):
            file = folder / f"piano_{3 + number % 3}_{root}_{kind}_m_{number:04d}.wav"
            write_wav(file, waveform)
        files = open_dataset(folder)
        pack(files, folder / "clips.pack")
        common: dict[str, Any] = {"task": _TASK, "batch_size": batch_size, "seed": SEED, "device": device}
        original = StudyTrainer(files, switches=ORIGINAL_PIPELINE, **common)
        fast = StudyTrainer(open_dataset(folder / "clips.pack"), switches=fast_pipeline(device), **common)
        yield files, original, fast


def run_parts(
    environment: dict,
    *,
    device: str = "cpu",
    clips: int = 368,
    batch_size: int = 32,
    rounds: int = 5,
    max_time_s: float = 60.0,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> list[dict]:
    """One record "pipeline parts" for the original pipeline and one for the fast one.

    Args:
        clips: of the set; 70 % of them train.
        rounds: epochs of each pipeline without the clock, and as many with it; of either kind fewer, but at least one,
            when `max_time_s` is over.
        progress: called with (epochs done, epochs in all).

    Returns:
        records: `samples` (seconds of the epochs without the clock), `first_call` (seconds of the first epoch), `parts`
        {part: seconds} and `instrumented_s` of the median epoch with the clock, `overhead` (its time over the median of
        `samples`), `prepared_s` (of the first epoch, paid once), `n_clips` (of an epoch), `error` (of the losses).

    Raises:
        RuntimeError: the losses of the two pipelines differ; nothing is timed then.
    """
    from triadbench.core.training.settings import ORIGINAL_PIPELINE, fast_pipeline

    switches = {"original": ORIGINAL_PIPELINE, "fast": fast_pipeline(device)}
    counter, total = itertools.count(1), len(switches) * (1 + 2 * rounds)
    firsts: dict[str, EpochResult] = {}
    epochs: dict[tuple[str, bool], list[EpochResult]] = {
        (name, kind): [] for name in switches for kind in (False, True)
    }
    busy: dict[str, list[float]] = {name: [] for name in switches}
    with both_trainers(device, clips, batch_size) as (_, *both):
        trainers = dict(zip(switches, both, strict=True))
        for name, trainer in trainers.items():
            firsts[name] = trainer.train_epoch()
            progress(next(counter), total)
        worst = check_losses(firsts["original"].losses, firsts["fast"].losses)
        for with_clock in (False, True):
            for _, name in timing.alternate(trainers, rounds, max_time_s=max_time_s / 2):
                others = timing.OtherWork()
                epochs[name, with_clock].append(run_epoch(trainers[name], with_clock=with_clock))
                busy[name].append(others.cores())
                progress(next(counter), total)
    case = {"device": device, "task": _TASK, "batch_size": batch_size, "num_items": clips}
    case |= {"threads": timing.own_threads(), "seed": SEED}
    error = {"reference": "the original pipeline's losses", "max_difference": worst, "allowed": LOSS_TOLERANCE}
    results = []
    for name, first in firsts.items():
        samples = [epoch.seconds for epoch in epochs[name, False]]
        fields: dict[str, Any] = {"environment": environment, "error": error, "first_call": first.seconds}
        fields |= {"parameters": {"pipeline": name, **case, "switches": switches[name].describe()}}
        fields |= part_fields(samples, [(epoch.seconds, epoch.parts, epoch.copies) for epoch in epochs[name, True]])
        fields |= {"n_clips": first.n_clips, "prepared_s": first.prepared_s, **timing.load_fields(median(busy[name]))}
        results.append(records.make(NAME, unit="s", samples=samples, **fields))
    return results


def check_losses(original: list[float], fast: list[float]) -> float:
    """The largest difference of the losses of two epochs. Raises RuntimeError where it is no rounding."""
    worst = largest_difference(fast, original)
    if not worst <= LOSS_TOLERANCE:
        raise RuntimeError(
            f"the fast pipeline's losses differ by {worst:.2g} from the original's, so neither is timed; at most "
            f"{LOSS_TOLERANCE} is rounding"
        )
    return worst


def run_lines(
    environment: dict, *, device: str = "cpu", clips: int = 92, batch_size: int = 32, **options: Any
) -> list[dict]:
    """The records "lines" of "original training step", "fast training step" and "original dataset".

    Args: `clips` of the set, of which 70 % train; `batch_size` of a step; `options` of `bench.profile.lines.run`.
    """
    import torch

    from triadbench.core.training.batches import TriadClips

    host = _HOST if device == "cuda" else ""
    common = {"device": device, "threads": torch.get_num_threads()}
    with both_trainers(device, clips, batch_size) as (files, original, fast):
        dataset = TriadClips(files, torch.from_numpy(files.labels()[0]), torch.device(device))

        def read_all() -> None:
            for index in range(len(dataset)):
                dataset[index]
            drain(device)

        def epoch(pipeline: str, trainer: StudyTrainer, functions: tuple[str, ...], note: str) -> lines.Target:
            def work() -> None:
                trainer.train_epoch()
                drain(device)

            n, parameters = trainer.n_train, {**common, "pipeline": pipeline, "batch_size": batch_size}
            explanation = f"Epochs of {n} clips in steps of {batch_size}, from the first batch to the last loss.{note}"
            return lines.Target(f"{pipeline} training step", functions, work, n, parameters, explanation)

        prepared = " The mel spectrograms were computed before, in the first epoch."
        alone = (
            "The original's dataset alone: every clip once, opened, decoded and transformed by itself. The files are "
            "16 kHz mono as the original's, so that resampling and mixing have nothing to do."
        )
        parameters = {**common, "pipeline": "original"}
        targets = [
            epoch("original", original, _ORIGINAL, host),
            epoch("fast", fast, _FAST[device], prepared + host),
            lines.Target("original dataset", _DATASET, read_all, len(dataset), parameters, alone + host),
        ]
        return lines.run(targets, environment, **options)
