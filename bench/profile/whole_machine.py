"""The whole profile of this machine: kernels, layers, training step, pipeline, lines, each part's records in one page.

Every record is appended as soon as it is made. The groups of the mel profile that the records hold already are not
measured again; the other parts take a minute or two together and are.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from triadbench.bench import machine, outputs, records
from triadbench.bench.mel import measure as mel
from triadbench.bench.profile import layers, line_targets, pipeline_parts, quick
from triadbench.bench.profile import lines as line_profiles
from triadbench.core.constants import usable_cores

PARTS = ("mel", "layers", "step", "pipeline", "lines")
Progress = Callable[[int, int | None], None]


@dataclasses.dataclass(frozen=True)
class Effort:
    """How much to measure.

    Attributes:
        mel: of the mel profile. mel_specs, mel_threads: names and thread counts; () takes all.
        step: of peaks, networks and training steps.
        layer_steps, layouts, layer_time_s: of `bench.profile.layers.run`.
        part_clips, part_rounds, part_time_s: of `bench.profile.pipeline_parts.run`.
        clips, rounds, line_time_s: of `bench.profile.line_targets.make_targets` and `bench.profile.lines.run`.
    """

    mel: mel.Effort
    mel_specs: tuple[str, ...]
    all_threads_only: bool
    step: quick.Effort
    layer_steps: int
    layouts: tuple[str, ...]
    layer_time_s: float
    part_clips: int
    part_rounds: int
    part_time_s: float
    clips: int
    rounds: int
    line_time_s: float


FULL = Effort(mel.FULL, (), False, quick.FULL, 20, layers.LAYOUTS, 30.0, 368, 5, 60.0, 184, 7, 60.0)
QUICK = Effort(
    mel.PART,
    ("ORIGINAL", "CHORD"),
    True,
    quick.FULL._replace(rounds=8, min_time_s=0.2, max_time_s=2.0, steps=8, peak_s=0.3),
    8,
    layers.LAYOUTS[:1],
    2.0,
    92,
    3,
    5.0,
    46,
    3,
    3.0,
)
SMOKE = Effort(
    mel.SMOKE,
    ("ORIGINAL",),
    True,
    quick.SMOKE,
    1,
    layers.LAYOUTS[:1],
    1.0,
    12,
    1,
    1.0,
    12,
    1,
    1.0,
)


def run(
    out: Path,
    records_path: Path,
    effort: Effort,
    *,
    parts: Sequence[str] = PARTS,
    fresh: bool = False,
    progress: Callable[[str], Progress] = lambda part: lambda done, total: None,
    note: Callable[[str], None] = lambda text: None,
) -> dict:
    """Measure the parts on the CPU, and on the GPU where there is one, and write one page.

    Args:
        out: HTML page, written whole or not at all; the traces of the layers go beside it.
        records_path: JSON Lines file to append to.
        parts: of `PARTS`, in their order.
        fresh: the mel profile measures again what the records hold.
        progress: gives, for a part, a function called with (done, total).
        note: called with a line about what is skipped.

    Returns:
        `page`, `records` (paths), `seconds`, `environment`, `parts` {part: {"records": n, "seconds", "findings"}},
        `traces` (paths).

    Raises:
        UserError: an output cannot be written.
        RuntimeError: a result is wrong; nothing slower or faster than right is reported.
    """
    import torch

    from triadbench.bench.report import profile_page

    start = time.perf_counter()
    environment = machine.environment()
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    made: dict[str, list[dict]] = {}
    seconds: dict[str, float] = {}
    for part in PARTS:
        if part not in parts:
            continue
        before = time.perf_counter()
        report = progress(part)
        if part == "mel":
            threads = [usable_cores()] if effort.all_threads_only else []
            contest = mel.make_contest(effort.mel, effort.mel_specs, (), threads)
            made[part], _, _ = mel.measure(records_path, contest, effort.mel, fresh=fresh, progress=report, note=note)
        elif part == "step":
            made[part] = quick.measure(environment, records_path, report, effort.step)
        else:
            make = {"layers": _layers, "pipeline": _pipeline, "lines": _lines}[part]
            made[part] = [
                record for device in devices for record in make(environment, Path(out), effort, device, report)
            ]
            records.append_all(made[part], records_path)
        seconds[part] = round(time.perf_counter() - before, 1)
    return {
        **outputs.write_page(profile_page.page(made), out, records_path, environment, start),
        "parts": {
            part: {"records": len(found), "seconds": seconds[part], "findings": profile_page.findings(part, found)}
            for part, found in made.items()
        },
        "traces": [str(Path(out).parent / record["trace"]) for record in made.get("layers", [])],
    }


def text(result: dict) -> str:
    """The terminal's version of `run`'s result."""
    from triadbench.bench.report import profile_page

    lines = []
    for part, found in result["parts"].items():
        lines += [f"{profile_page.TITLES[part]} ({found['records']} records, {found['seconds']:.0f} s)"]
        lines += [f"- {sentence}" for sentence in found["findings"]]
    lines += [f"Trace for Perfetto: {path}" for path in result["traces"]]
    return "\n".join([*lines, f"Page: {result['page']}"])


def _layers(environment: dict, out: Path, effort: Effort, device: str, progress: Progress) -> list[dict]:
    return layers.run(
        environment,
        out.parent,
        device=device,
        steps=effort.layer_steps,
        layouts=effort.layouts,
        max_time_s=effort.layer_time_s,
        progress=progress,
    )


def _pipeline(environment: dict, out: Path, effort: Effort, device: str, progress: Progress) -> list[dict]:
    batch_size = min(32, effort.part_clips // 2)
    with tempfile.TemporaryDirectory(prefix="triadbench-") as folder:
        return pipeline_parts.run(
            Path(folder),
            environment,
            device=device,
            clips=effort.part_clips,
            batch_size=batch_size,
            rounds=effort.part_rounds,
            max_time_s=effort.part_time_s,
            progress=progress,
        )


def _lines(environment: dict, out: Path, effort: Effort, device: str, progress: Progress) -> list[dict]:
    with tempfile.TemporaryDirectory(prefix="triadbench-") as folder:
        targets = line_targets.make_targets(Path(folder), device=device, clips=effort.clips)
        return line_profiles.run(
            targets, environment, rounds=effort.rounds, max_time_s=effort.line_time_s, progress=progress
        )
