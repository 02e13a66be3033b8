"""Where does an epoch of training go, in the original and in the fast pipeline?

Timed: whole epochs without instruments, the pipelines alternating, and as many with a clock in them, which splits them
into reading, resampling, mel, copy, forward, backward, optimizer, synchronisation and idle. The clock makes an epoch
longer (by how much is stated), so only its shares are used. Not timed: testing, and what the first epoch alone does
(features that later epochs find ready); that is stated apart. On a GPU the clock waits for the device after every part.

Checked first: both pipelines start from the same weights and take the same clips in the same order, so the losses of
their first epochs must agree.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from triadbench.bench import records
from triadbench.bench.profile import line_targets
from triadbench.bench.study.ladder import largest_difference, part_fields, run_epoch
from triadbench.core import timing

if TYPE_CHECKING:
    from triadbench.core.training.epoch import EpochResult

NAME = "pipeline parts"
LOSS_TOLERANCE = 0.02
"""Largest difference of two losses at a step. The study's ladder allows half of what a doubled learning rate changes,
and found that to be 0.02; rounding to half precision changes less, an untrained or wrongly fed network more."""


def run(
    folder: Path,
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
        folder: empty; gets the clips.
        clips: of the set; 70 % of them train.
        rounds: epochs of each pipeline without the clock, and as many with it.
        max_time_s: for the rounds; fewer are run when it is over, but one of either kind.
        progress: called with (epochs done, epochs in all).

    Returns:
        records: `samples` (seconds of the epochs without the clock), `first_call` (seconds of the first epoch), `parts`
        {part: seconds} and `instrumented_s` of the median epoch with the clock, `overhead` (its time over the median of
        `samples`), `prepared_s` (of the first epoch, paid once), `n_clips` (of an epoch), `error` (of the losses).

    Raises:
        RuntimeError: the losses of the two pipelines differ; nothing is timed then.
    """
    from triadbench.core.training.settings import ORIGINAL_PIPELINE, fast_pipeline

    _, original, fast = line_targets.make_trainers(folder, device=device, clips=clips, batch_size=batch_size)
    trainers = {"original": original, "fast": fast}
    switches = {"original": ORIGINAL_PIPELINE, "fast": fast_pipeline(device)}
    counter, total = itertools.count(1), len(trainers) * (1 + 2 * rounds)
    firsts: dict[str, EpochResult] = {}
    for name, trainer in trainers.items():
        firsts[name] = trainer.train_epoch()
        progress(next(counter), total)
    worst = check_losses(firsts["original"].losses, firsts["fast"].losses)
    epochs: dict[tuple[str, bool], list[EpochResult]] = {
        (name, kind): [] for name in trainers for kind in (False, True)
    }
    busy: dict[str, list[float]] = {name: [] for name in trainers}
    for with_clock in (False, True):
        for _, name in timing.alternate(trainers, rounds, max_time_s=max_time_s / 2):
            others = timing.OtherWork()
            epochs[name, with_clock].append(run_epoch(trainers[name], with_clock=with_clock))
            busy[name].append(others.cores())
            progress(next(counter), total)
    case = {"device": device, "task": line_targets.TASK, "batch_size": batch_size, "num_items": clips}
    case |= {"threads": timing.own_threads(), "seed": line_targets.SEED}
    error = {"reference": "the original pipeline's losses", "max_difference": worst, "allowed": LOSS_TOLERANCE}
    results = []
    for name, first in firsts.items():
        samples = [epoch.seconds for epoch in epochs[name, False]]
        results.append(
            records.make(
                NAME,
                parameters={"pipeline": name, **case, "switches": switches[name].describe()},
                unit="s",
                samples=samples,
                first_call=first.seconds,
                environment=environment,
                error=error,
                n_clips=first.n_clips,
                prepared_s=first.prepared_s,
                **part_fields(samples, [(epoch.seconds, epoch.parts) for epoch in epochs[name, True]]),
                **timing.load_fields(median(busy[name])),
            )
        )
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
