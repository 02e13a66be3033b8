"""The profile of this machine: kernels, layers, training step, pipeline, lines and flame graphs, as records.

Every part's records are appended as soon as they are made. The groups of the mel profile that the records hold already
are not measured again; the other parts take a minute or two together and are.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from triadbench.bench import machine, records
from triadbench.bench.mel import measure as mel
from triadbench.bench.profile import epochs, flame, layers, networks
from triadbench.core.constants import usable_cores

PARTS = ("mel", "layers", "step", "pipeline", "lines", "flame")
Progress = Callable[[int, int | None], None]


class Effort(NamedTuple):
    """How much to measure.

    Attributes:
        mel: of the mel profile. mel_specs: names of specs; () takes all. all_threads_only: no run with one thread.
        step: of networks and training steps.
        layers, pipeline, lines, flame: options of `layers.run`, `epochs.run_parts`, `epochs.run_lines`, `flame.run`.
    """

    mel: mel.Effort
    mel_specs: tuple[str, ...]
    all_threads_only: bool
    step: networks.Effort
    layers: dict[str, Any]
    pipeline: dict[str, Any]
    lines: dict[str, Any]
    flame: dict[str, Any]


_QUICK_MEL = dataclasses.replace(
    mel.QUICK,
    # Its own name: these samples are fewer than those of `profile --only mel --quick` and are not taken for them.
    name="part of the quick profile",
    budget_s=10.0,
    warm_starts=0,
)
_LAYOUT = layers.LAYOUTS[:1]
FULL = Effort(mel.FULL, (), False, networks.FULL, {"steps": 20}, {}, {"clips": 184, "rounds": 7}, {})
QUICK = Effort(
    _QUICK_MEL,
    ("ORIGINAL", "CHORD"),
    True,
    networks.QUICK,
    {"steps": 8, "layouts": _LAYOUT, "max_time_s": 2.0},
    {"clips": 92, "rounds": 3, "max_time_s": 5.0},
    {"clips": 46, "rounds": 3, "max_time_s": 3.0},
    {"clips": 46},
)
_SMOKE = {"clips": 12, "rounds": 1, "max_time_s": 1.0}
_SMOKE_LAYERS = {"steps": 1, "layouts": _LAYOUT, "max_time_s": 1.0}
SMOKE = Effort(
    mel.SMOKE, ("ORIGINAL",), True, networks.SMOKE, _SMOKE_LAYERS, {"batch_size": 6, **_SMOKE}, _SMOKE, {"clips": 12}
)


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
        folder, records_path: for the traces of the layers, and the JSON Lines file to append to.
        fresh: the mel profile measures again what the records hold.
        progress, note: gives, for a part, a function called with (done, total); called with a line on what is skipped.

    Returns:
        {part: (its records, seconds)}, in the order of `PARTS`.

    Raises:
        UserError: an output cannot be written.
        RuntimeError: a result is wrong; nothing slower or faster than right is reported.
    """
    import torch

    environment = machine.environment()
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    measure: dict[str, Callable[..., list[dict]]] = {"pipeline": epochs.run_parts, "lines": epochs.run_lines}
    measure["flame"] = flame.run
    measure["layers"] = functools.partial(layers.run, folder=folder)
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
                options = {**getattr(effort, part), "progress": report}
                part_records = [r for device in devices for r in measure[part](environment, device=device, **options)]
            records.append_all(part_records, records_path)
        measured[part] = part_records, round(time.perf_counter() - begun, 1)
    return measured
