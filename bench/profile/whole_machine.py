"""The profile of this machine: kernels, layers, training step, pipeline and lines, as records.

Every part's records are appended as soon as they are made. The groups of the mel profile that the records hold already
are not measured again; the other parts take a minute or two together and are.
"""

import dataclasses
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from triadbench.bench import machine, records
from triadbench.bench.mel import measure as mel
from triadbench.bench.profile import layers, line_targets, networks, pipeline_parts
from triadbench.bench.profile import lines as line_profiles
from triadbench.core.constants import usable_cores

PARTS = ("mel", "layers", "step", "pipeline", "lines")
Progress = Callable[[int, int | None], None]


@dataclasses.dataclass(frozen=True)
class Effort:
    """How much to measure.

    Attributes:
        mel: of the mel profile. mel_specs: names of specs; () takes all. all_threads_only: no run with one thread.
        step: of networks and training steps.
        layer_steps, layouts, layer_time_s: of `bench.profile.layers.run`.
        part_clips, part_rounds, part_time_s: of `bench.profile.pipeline_parts.run`.
        clips, rounds, line_time_s: of `bench.profile.line_targets.make_targets` and `bench.profile.lines.run`.
    """

    mel: mel.Effort
    mel_specs: tuple[str, ...]
    all_threads_only: bool
    step: networks.Effort
    layer_steps: int
    layouts: tuple[str, ...]
    layer_time_s: float
    part_clips: int
    part_rounds: int
    part_time_s: float
    clips: int
    rounds: int
    line_time_s: float


_QUICK_MEL = dataclasses.replace(
    mel.QUICK,
    # Its own name: these samples are fewer than those of `profile --only mel --quick` and are not taken for them.
    name="part of the quick profile",
    budget_s=10.0,
    warm_starts=0,
)
FULL = Effort(mel.FULL, (), False, networks.FULL, 20, layers.LAYOUTS, 30.0, 368, 5, 60.0, 184, 7, 60.0)
QUICK = Effort(
    _QUICK_MEL, ("ORIGINAL", "CHORD"), True, networks.QUICK, 8, layers.LAYOUTS[:1], 2.0, 92, 3, 5.0, 46, 3, 3.0
)
SMOKE = Effort(mel.SMOKE, ("ORIGINAL",), True, networks.SMOKE, 1, layers.LAYOUTS[:1], 1.0, 12, 1, 1.0, 12, 1, 1.0)


def run(
    folder: Path,
    records_path: Path,
    effort: Effort,
    *,
    parts: Sequence[str] = PARTS,
    fresh: bool = False,
    progress: Callable[[str], Progress] = lambda part: lambda done, total: None,
    note: Callable[[str], None] = lambda text: None,
) -> dict[str, tuple[list[dict], float]]:
    """Measure the parts on the CPU, and on the GPU where there is one.

    Args:
        folder: gets the traces of the layers.
        records_path: JSON Lines file to append to.
        parts: of `PARTS`, in their order.
        fresh: the mel profile measures again what the records hold.
        progress: gives, for a part, a function called with (done, total).
        note: called with a line about what is skipped.

    Returns:
        {part: (its records, seconds)}.

    Raises:
        UserError: an output cannot be written.
        RuntimeError: a result is wrong; nothing slower or faster than right is reported.
    """
    import torch

    environment = machine.environment()
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    measured: dict[str, tuple[list[dict], float]] = {}
    for part in (part for part in PARTS if part in parts):
        begun, report = time.perf_counter(), progress(part)
        if part == "mel":
            threads = [usable_cores()] if effort.all_threads_only else ()
            contest = mel.make_contest(effort.mel, effort.mel_specs, threads=threads)
            part_records, _, _ = mel.measure(records_path, contest, effort.mel, fresh=fresh, progress=report, note=note)
        else:
            if part == "step":
                part_records = networks.run(environment, effort.step, report)
            else:
                measure = {"layers": _layers, "pipeline": _pipeline, "lines": _lines}[part]
                part_records = [
                    record for device in devices for record in measure(environment, folder, effort, device, report)
                ]
            records.append_all(part_records, records_path)
        measured[part] = part_records, round(time.perf_counter() - begun, 1)
    return measured


def _layers(environment: dict, folder: Path, effort: Effort, device: str, progress: Progress) -> list[dict]:
    return layers.run(
        environment,
        folder,
        device=device,
        steps=effort.layer_steps,
        layouts=effort.layouts,
        max_time_s=effort.layer_time_s,
        progress=progress,
    )


def _pipeline(environment: dict, folder: Path, effort: Effort, device: str, progress: Progress) -> list[dict]:
    with tempfile.TemporaryDirectory(prefix="triadbench-") as scratch:
        return pipeline_parts.run(
            Path(scratch),
            environment,
            device=device,
            clips=effort.part_clips,
            batch_size=min(32, effort.part_clips // 2),
            rounds=effort.part_rounds,
            max_time_s=effort.part_time_s,
            progress=progress,
        )


def _lines(environment: dict, folder: Path, effort: Effort, device: str, progress: Progress) -> list[dict]:
    with tempfile.TemporaryDirectory(prefix="triadbench-") as scratch:
        targets = line_targets.make_targets(Path(scratch), device=device, clips=effort.clips)
        return line_profiles.run(
            targets, environment, rounds=effort.rounds, max_time_s=effort.line_time_s, progress=progress
        )
