"""The whole study in order: mel, experiments, ladder, line profiles, layers, report. Interrupted, it goes on.

Mel, experiments and ladder keep every finished part themselves. Line profiles and layers are a minute each; their
records are kept whole in `steps/trials.jsonl` before the first of them is appended, each with an id of its own. So what
is missing among the records, after an interruption or because they were deleted, is written again from there, none
twice; other code or another machine measures anew. The report is always written anew, from the records alone.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from triadbench.bench import machine, outputs
from triadbench.bench.study import experiments, ladder, protocol
from triadbench.bench.study.trials import FILE, TrialLog, append_missing, fingerprint
from triadbench.core.errors import UserError

STEPS = ("mel", "batch-size", "data-size", "ladder", "lines", "layers", "report")
QUICK = {
    "batch-size": {"trials": 2, "epochs": 1, "clips": (512,), "task": "type"},
    "data-size": {"trials": 2, "epochs": 1, "clips": (128, 256, 512)},
    "ladder": {"num_items": 256, "rounds": 2},
}
"""What a quick study asks of its steps; the largest setting is the size of the set that is rendered for it."""
_PAGES = {"mel": "mel.html", "report": "report.html"}
_WAY_OUT = "choose --quick, or the steps that fit with --step"
_TRIALS = {**{name: name for name in ("batch-size", "data-size", "ladder")}, "lines": "steps", "layers": "steps"}


@dataclass(frozen=True)
class Study:
    """What a study is run with.

    Attributes:
        folder: of everything it writes: `records.jsonl`, trials, pages.
        device: "cpu", "cuda" or "all". quick: few clips, trials and epochs, labelled as that.
        data: the user's clips, or None to render a set.
        progress: makes a context with a callback from a label. note: called with a line for the reader.
    """

    folder: Path
    device: str = "all"
    quick: bool = False
    data: Path | None = None
    progress: Callable = field(repr=False, default=None)
    note: Callable[[str], None] = field(repr=False, default=lambda _: None)

    @property
    def records(self) -> Path:
        """The record file of all steps."""
        return self.folder / "records.jsonl"

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices that are measured."""
        return protocol.choose_devices(self.device)


def run(study: Study, steps: tuple[str, ...] = STEPS, work: dict[str, Callable[[Study], object]] | None = None) -> dict:
    """Run the steps in order.

    Args:
        steps: some of `STEPS`, in the order to run them.
        work: step to function; None takes this module's.

    Returns:
        `records`, `page` (paths), `quick`, `seconds`, and `steps`: [{"step", "seconds"}].

    Raises:
        UserError: an unknown step, a folder in use or that cannot be written to, or what a step raises.
    """
    work = work or _WORK
    for step in steps:
        if step not in work:
            raise UserError(f"unknown step {step!r}; choose from {', '.join(work)}")
    study.devices  # noqa: B018 - an unknown device is said before hours of work
    started, done = time.perf_counter(), []
    _check(study, steps)
    only_reads = set(steps) == {"report"}  # even of a study at work
    with contextlib.nullcontext() if only_reads else outputs.only_writer(study.records, "--out"):
        for number, step in enumerate(steps, 1):
            study.note(f"step {number} of {len(steps)}: {step}")
            begun = time.perf_counter()
            work[step](study)
            done.append({"step": step, "seconds": round(time.perf_counter() - begun, 1)})
    return {
        "records": str(study.records),
        "page": str(study.folder / "report.html"),
        "quick": study.quick,
        "seconds": round(time.perf_counter() - started, 1),
        "steps": done,
    }


def _check(study: Study, steps: tuple[str, ...]) -> None:
    """Raises UserError where a step could not write or keep what it makes: now, not after the hours before it."""
    for step in steps:
        if step in _PAGES:
            outputs.check_writable(study.folder / _PAGES[step])
        if step in _TRIALS:
            outputs.check_writable(study.folder / _TRIALS[step] / FILE, appended=True)
        if step != "report":
            outputs.check_writable(study.records, appended=True)
        if step in ("batch-size", "data-size"):
            experiments.check_memory(_protocol(study, step).cases(), _WAY_OUT)
        if step == "ladder":
            for device in study.devices:
                ladder.check_memory(_climb(study, device), ladder.rungs_of(device), _WAY_OUT)


def _mel(study: Study) -> None:
    from triadbench.bench.mel import measure as mel

    effort = mel.QUICK if study.quick else mel.FULL
    with study.progress("mel") as progress:
        mel.run(
            study.folder / "mel.html",
            study.records,
            mel.make_contest(effort),
            effort,
            progress=progress,
            note=study.note,
        )


def _protocol(study: Study, name: str) -> protocol.Protocol:
    return protocol.make(name, device=study.device, **(QUICK[name] if study.quick else {}))


def _climb(study: Study, device: str) -> ladder.Climb:
    return ladder.Climb(device, **(QUICK["ladder"] if study.quick else {"num_items": ladder.FULL_CLIPS}))


def _experiment(name: str) -> Callable[[Study], None]:
    def work(study: Study) -> None:
        experiments.run(
            _protocol(study, name),
            folder=study.folder / name,
            records_path=study.records,
            data=study.data,
            progress=study.progress,
            note=study.note,
        )

    return work


def _ladder(study: Study) -> None:
    result = ladder.run(
        [_climb(study, device) for device in study.devices],
        folder=study.folder / "ladder",
        records_path=study.records,
        data=study.data,
        progress=study.progress,
        note=study.note,
    )
    for record in result["failed"]:
        study.note(f"{record['parameters']['name']}: its loss is not the original's, so it is not timed")


def _lines(study: Study) -> None:
    from triadbench.bench.profile import line_targets
    from triadbench.bench.profile import lines as line_profiles

    def measure(device: str, environment: dict, progress) -> list[dict]:
        with tempfile.TemporaryDirectory() as folder:
            targets = line_targets.make_targets(Path(folder), device=device)
            return line_profiles.run(targets, environment, rounds=2 if study.quick else 5, progress=progress)

    _once(study, "lines", measure)


def _layers(study: Study) -> None:
    from triadbench.bench.profile import layers

    def measure(device: str, environment: dict, progress) -> list[dict]:
        return layers.run(environment, study.folder, device=device, progress=progress)

    _once(study, "layers", measure)


def _report(study: Study) -> None:
    from triadbench.bench.report.report import write_report

    write_report([study.records], study.folder / "report.html")


def _once(study: Study, step: str, measure: Callable) -> None:
    """A step whose records are made at once: for each device, unless this code has made them here before."""
    environment = machine.environment()
    log = TrialLog(study.folder / "steps", fingerprint(environment, "quick" if study.quick else "full"), study.note)
    for device in study.devices:
        key = {"step": step, "device": device, "holds": "records"}
        line = log.find(key)
        if line is None:
            begun, run = time.perf_counter(), uuid.uuid4().hex
            with study.progress(step) as progress:
                made = measure(device, environment, progress)
            made = [{**record, "id": f"{run}-{number}"} for number, record in enumerate(made)]
            # Before the records: killed between the two, the next run finds here what it has to append.
            line = log.add(key, [time.perf_counter() - begun], records=made)
            append_missing(line["records"], study.records)
        elif missing := append_missing(line["records"], study.records):
            study.note(f"{step} on {device}: measured already; records that were missing, written again: {missing}")
        else:
            study.note(f"{step} on {device}: done already")


_WORK: dict[str, Callable[[Study], object]] = {
    "mel": _mel,
    "batch-size": _experiment("batch-size"),
    "data-size": _experiment("data-size"),
    "ladder": _ladder,
    "lines": _lines,
    "layers": _layers,
    "report": _report,
}
