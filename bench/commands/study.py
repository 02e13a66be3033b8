"""The commands `study` (mel, experiments, ladder, lines, layers, report) and `experiment`.

Mel, experiments and ladder keep every finished part themselves. Line profiles and layers are a minute each; their
records are kept whole in `steps/trials.jsonl` before the first of them is appended, each with an id of its own. So what
is missing among the records, after an interruption or because they were deleted, is written again from there, none
twice; other code or another machine measures anew. The report is always written anew, from the records alone.
"""

from __future__ import annotations

import contextlib
import functools
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import click

from triadbench.bench import machine, outputs
from triadbench.bench.analysis import experiments as experiments_text
from triadbench.bench.analysis import final as final_text
from triadbench.bench.analysis import ladder as ladder_text
from triadbench.bench.study import experiments, protocol
from triadbench.bench.study import final as finals
from triadbench.bench.study import ladder as ladders
from triadbench.bench.study.protocol import BATCH_SIZES, CLIPS, EPOCHS, PIPELINES, TASKS, TIMED_CLASSES, TRIALS
from triadbench.bench.study.session import FILE, Settings, TrialLog, append_missing, fingerprint
from triadbench.core.commands import console
from triadbench.core.constants import ALL_CLIPS, FULL_CLIPS
from triadbench.core.errors import UserError
from triadbench.core.files import only_writer

PATH = click.Path(path_type=Path)
RECORDS = Path("runs/study/records.jsonl")
device_option = click.option("--device", default="all", help="cpu, cuda, or all that are here.")
data_option = click.option(
    "--data", type=PATH, help="Folder, zip or pack of clips.  [default: rendered once into data/study]"
)
records_option = click.option("--records", type=PATH, default=RECORDS, help="JSON Lines file to append to.")

QUICK: dict[str, dict[str, Any]] = {
    "batch-size": {"trials": 2, "epochs": 1, "clips": (512,), "task": "type"},
    "data-size": {"trials": 2, "epochs": 1, "clips": (128, 256, 512)},
    "ladder": {"num_items": 256, "rounds": 2},
}
"""What a quick study asks of its steps; the largest setting is the size of the set that is rendered for it."""
_WAY_OUT = "choose --quick, or the steps that fit with --step"


def progress(label: str) -> contextlib.AbstractContextManager:
    """A bar for a step of the study."""
    units = {"trials": "epochs", "rungs": "epochs"} | {f"{p} {task}": "steps" for p in PIPELINES for task in TASKS}
    return console.progress(label, units.get(label, "clips"))


class TimeOver(Exception):
    """A study's seconds are over."""


@dataclass(frozen=True)
class Study:
    """What a study is run with: `folder` is of everything it writes, the rest as `bench.study.session.Settings`.

    After `seconds` (None: no limit) since it was made nothing new begins.
    """

    folder: Path
    progress: Callable[[str], contextlib.AbstractContextManager]
    device: str = "all"
    quick: bool = False
    data: Path | None = None
    note: Callable[[str], None] = lambda text: None
    seconds: float | None = None
    begun: float = field(default_factory=time.monotonic)

    def proceed(self) -> None:
        """Raises TimeOver after the limit."""
        if self.seconds is not None and time.monotonic() - self.begun >= self.seconds:
            raise TimeOver

    @property
    def records(self) -> Path:
        """Of all steps."""
        return self.folder / "records.jsonl"

    def settings(self, step: str) -> Settings:
        """Of an experiment or the ladder."""
        where = (self.folder / step, self.records)
        return Settings(*where, self.progress, self.note, self.data, proceed=self.proceed)

    def protocol(self, step: str) -> protocol.Protocol:
        """Of an experiment."""
        return protocol.make(step, device=self.device, **(QUICK[step] if self.quick else {}))

    def ladder(self) -> list[ladders.LadderCase]:
        """One case a device."""
        size = QUICK["ladder"] if self.quick else {"num_items": FULL_CLIPS}
        return [ladders.LadderCase(device, **size) for device in protocol.choose_devices(self.device)]


def _mel(study: Study) -> None:
    from triadbench.bench.commands import profile
    from triadbench.bench.mel import measure as mel

    effort = mel.QUICK if study.quick else mel.FULL
    with study.progress("mel") as progress:

        def report(done: int, total: int | None) -> None:
            progress(done, total)
            if done != total:  # a group of measurements comes next
                study.proceed()

        options = {"progress": report, "note": study.note}
        profile.run_mel(study.folder / "mel.html", study.records, mel.make_contest(effort), effort, **options)


def _ladder(study: Study) -> None:
    for record in ladders.run(study.ladder(), study.settings("ladder"))["failed"]:
        study.note(f"{record['parameters']['name']}: its loss is not the original's, so it is not timed")


def _check_ladder(study: Study) -> None:
    for case in study.ladder():
        ladders.check_memory(case, ladders.rungs_of(case.device), _WAY_OUT)


def _report(study: Study) -> None:
    from triadbench.bench.report.report import write_report

    write_report([study.records], study.folder / "report.html")


def _once(study: Study, step: str, measure: Callable[..., list[dict]], **options: Any) -> None:
    """A step whose records are made at once: for each device, unless this code has made them here before."""
    environment = machine.environment()
    log = TrialLog(study.folder / "steps", fingerprint(environment, "quick" if study.quick else "full"), study.note)
    for device in protocol.choose_devices(study.device):
        study.proceed()
        key = {"step": step, "device": device, "holds": "records"}
        line = log.find(key)
        if line is None:
            begun, run = time.perf_counter(), uuid.uuid4().hex
            with study.progress(step) as progress:
                results = measure(environment, device=device, progress=progress, **options)
            results = [{**record, "id": f"{run}-{number}"} for number, record in enumerate(results)]
            # Before the records: killed between the two, the next run finds here what it has to append.
            line = log.add(key, [time.perf_counter() - begun], records=results)
            append_missing(line["records"], study.records, ("id",))
        elif missing := append_missing(line["records"], study.records, ("id",)):
            study.note(f"{step} on {device}: measured already; records that were missing, written again: {missing}")
        else:
            study.note(f"{step} on {device}: done already")


class Step(NamedTuple):
    """A step: what does it, the page that it writes and the folder of its finished trials (both in the study's folder),
    and a check that raises UserError where its memory would not do."""

    run: Callable[[Study], object]
    page: str | None = None
    trials: str | None = None
    check: Callable[[Study], None] = lambda study: None


def _lines(study: Study) -> None:
    from triadbench.bench.profile import epochs  # imports PyTorch, which --help does not need

    _once(study, "lines", epochs.run_lines, rounds=2 if study.quick else 5)


def _layers(study: Study) -> None:
    from triadbench.bench.profile import layers

    _once(study, "layers", layers.run, folder=study.folder)


def _experiment_step(name: str) -> Step:
    return Step(
        lambda study: experiments.run(study.protocol(name), study.settings(name)),
        trials=name,
        check=lambda study: experiments.check_memory(study.protocol(name).cases(), _WAY_OUT),
    )


STEPS = {
    "mel": Step(_mel, page="mel.html"),
    "batch-size": _experiment_step("batch-size"),
    "data-size": _experiment_step("data-size"),
    "ladder": Step(_ladder, trials="ladder", check=_check_ladder),
    "lines": Step(_lines, trials="steps"),
    "layers": Step(_layers, trials="steps"),
    "report": Step(_report, page="report.html"),
}
"""In the order in which the whole study runs them."""


def run(study: Study, names: tuple[str, ...] = tuple(STEPS), steps: Mapping[str, Step] = STEPS) -> dict:
    """Run steps in the order of their names.

    Returns:
        `records`, `page` (paths), `quick`, `seconds`, and `steps`: [{"step", "seconds"}].

    Raises:
        UserError: an unknown step, a folder in use or that cannot be written to, or what a step raises.
    """
    for name in names:
        if name not in steps:
            raise UserError(f"unknown step {name!r}; choose from {', '.join(steps)}")
    protocol.choose_devices(study.device)  # an unknown device is an error before hours of measuring
    started, done = time.perf_counter(), []
    for name in names:  # so is what a step could not write or keep
        step = steps[name]
        if step.page:
            outputs.check_writable(study.folder / step.page)
        if step.trials:
            outputs.check_writable(study.folder / step.trials / FILE, appended=True)
        if name != "report":
            outputs.check_writable(study.records, appended=True)
        step.check(study)
    only_reads = set(names) == {"report"}  # even while a study is running
    with contextlib.nullcontext() if only_reads else only_writer(study.records, "--out"):
        for number, name in enumerate(names, 1):
            begun = time.perf_counter()
            try:
                study.proceed()
                study.note(f"step {number} of {len(names)}: {name}")
                steps[name].run(study)
            except TimeOver:
                missing = f"--seconds {study.seconds:g} are over; not finished: {', '.join(names[number - 1 :])}"
                kept = f"what is finished is kept in {study.folder}, and the same command goes on from there"
                raise UserError(f"{missing}; {kept}") from None
            done.append({"step": name, "seconds": round(time.perf_counter() - begun, 1)})
    paths = {"records": str(study.records), "page": str(study.folder / "report.html")}
    return {**paths, "quick": study.quick, "seconds": round(time.perf_counter() - started, 1), "steps": done}


@click.command()
@click.option("--quick", is_flag=True, help="Few clips, trials and epochs: minutes, and labelled as short.")
@click.option("--gpu", is_flag=True, help="Everything that a GPU must show, in minutes, with a limit for every stage.")
@click.option("--rehearse", is_flag=True, help="With --gpu: every stage tiny, on the CPU.")
@click.option(
    "--seconds",
    type=click.FloatRange(10),
    callback=console.finite,
    help="No trial or step begins later.  [--gpu: of all, 480]",
)
@click.option("--step", "steps", multiple=True, metavar="STEP", help="One step alone; repeat for more.  [default: all]")
@device_option
@data_option
@click.option("--out", "folder", type=PATH, default=RECORDS.parent, help="Folder of all that is written.")
@console.json_option
@click.pass_context
def study(
    context: click.Context, quick: bool, gpu: bool, rehearse: bool, seconds: float | None, steps: tuple[str, ...],
    device: str, data: Path | None, folder: Path, as_json: bool,
) -> None:  # fmt: skip
    """The whole study: mel, batch-size, data-size, ladder, lines, layers, report. Hours on a CPU.

    What is finished is kept: after an interruption, however rude, or the last of --seconds, the same command goes on.

    With --gpu, in at most --seconds: environment, tests, sanitizer, mel, counters, training, inference. A stage that
    fails or hangs does not stop the next one. Each run is one whole, in a new folder.

    \b
    Examples:
      python cli.py study --quick
      python cli.py study --device cpu
      python cli.py study --step ladder --step report
      python cli.py study --gpu --seconds 480 --out runs/gpu
      python cli.py study --gpu --rehearse
    """
    given = {
        name for name in context.params if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    }
    if gpu:
        if wrong := sorted(given & {"quick", "device", "data"}):
            raise click.UsageError(f"--{wrong[0]} is of no use with --gpu")
        _study_gpu(context, folder if "folder" in given else None, seconds or 480, rehearse, steps, as_json)
        return
    if rehearse:
        raise click.UsageError("--rehearse goes with --gpu")
    console.resume_hint(f"everything finished is kept in {folder}; the same command goes on from there")
    result = run(Study(folder, progress, device, quick, data, console.note, seconds), steps or tuple(STEPS))
    if as_json:
        console.print_json(result)
    else:
        click.echo(console.table(["step", "seconds"], [[row["step"], row["seconds"]] for row in result["steps"]]))
        click.echo(f"Report: {result['page']}")


def _study_gpu(
    context: click.Context, folder: Path | None, seconds: float, rehearse: bool, names: tuple[str, ...], as_json: bool
) -> None:
    from triadbench.bench.gpu import run as gpu

    if unknown := set(names) - set(gpu.STAGES):
        raise click.UsageError(f"unknown stage {min(unknown)!r}; choose from {', '.join(gpu.STAGES)}")
    folder = folder or Path("runs/gpu") / time.strftime("%Y%m%d-%H%M%S")
    console.resume_hint(f"what was measured is in {folder}; a new run takes a new folder")
    stages = {name: stage for name, stage in gpu.STAGES.items() if not names or name in names}
    result = gpu.run(folder, seconds, rehearse, stages, gpu.PREPARE)
    if as_json:
        console.print_json(result)
    else:
        click.echo(result["summary"])
        click.echo(result["unwritten"] or f"Everything is in {folder}")
    context.exit(int(bool(result["unwritten"]) or any(stage["status"] != "done" for stage in result["stages"])))


_COUNT, _BOTH = click.IntRange(1), click.Choice([*TASKS, "both"])
_task = functools.partial(click.option, "--task", help="Which network.", show_default=True)
_run_option = functools.partial(click.option, "--run", "folder", type=PATH)


def _common(task: str, batch_sizes: str, clips: str):
    """The options of both experiments, with the defaults that differ."""
    options = (
        click.option("--batch-sizes", callback=console.integers, metavar="N,N", help=f"[default: {batch_sizes}]"),
        click.option("--clips", callback=console.integers, metavar="N,N", help=f"[default: {clips}]"),
        _task(type=_BOTH, default=task),
        click.option("--pipeline", type=click.Choice([*PIPELINES, "both"]), default="both", help="Which to measure."),
        device_option,
        click.option("--trials", type=_COUNT, default=TRIALS, help="Trials of each figure; the first is dropped."),
        click.option("--epochs", type=_COUNT, default=EPOCHS, help="Epochs a trial."),
        click.option(
            "--type-classes",
            type=click.Choice(["12", "4"]),
            default=str(TIMED_CLASSES),
            show_default=True,
            callback=lambda context, option, value: int(value),
            help="Of the network that learns types: 12 as the original timed, or its own 4.",
        ),
        data_option,
        _run_option(help="Folder of finished trials.  [default: runs/EXPERIMENT]"),
        records_option,
        console.json_option,
    )
    return lambda function: functools.reduce(lambda command, option: option(command), reversed(options), function)


@click.group()
def experiment() -> None:
    """How long training takes: the original study's experiments, with its pipeline and with ours.

    \b
    Examples:
      python cli.py experiment batch-size --device cpu
      python cli.py experiment ladder
    """


@experiment.command("batch-size")
@_common("both", ",".join(map(str, BATCH_SIZES)), str(FULL_CLIPS))
def batch_size(**options) -> None:
    """Experiment 1: seconds of an epoch by batch size, the original's published figures beside ours.

    Six trials of five epochs each take hours on a CPU. Every finished trial is kept: the same command goes on after an
    interruption. Fewer trials, epochs or clips are labelled as a short run wherever the figures are shown.

    \b
    Examples:
      python cli.py experiment batch-size
      python cli.py experiment batch-size --trials 2 --epochs 1 --clips 512 --batch-sizes 32 --task type
      python cli.py experiment batch-size --pipeline fast --device cuda --json
    """
    _experiment("batch-size", **options)


@experiment.command("data-size")
@_common("type", "32", ",".join(map(str, CLIPS)))
def data_size(**options) -> None:
    """Experiment 2: seconds of an epoch by number of clips, the original's published figures beside ours.

    Interruptions and short runs are as in experiment batch-size.

    \b
    Examples:
      python cli.py experiment data-size
      python cli.py experiment data-size --clips 256,512 --trials 2 --epochs 1 --device cpu
    """
    _experiment("data-size", **options)


def _experiment(name: str, folder: Path | None, records: Path, data: Path | None, as_json: bool, **options) -> None:
    folder = folder or Path("runs") / name
    console.resume_hint(f"finished trials are kept in {folder}; the same command goes on from there")
    figures = protocol.make(name, **{key: value for key, value in options.items() if value != ()})
    result = experiments.run(figures, Settings(folder, records, progress, console.note, data))
    if as_json:
        console.print_json(result)
    else:
        click.echo(experiments_text.text(result["figures"]))
        click.echo(f"Records: {records} ({result['appended']} new)")


@experiment.command()
@click.option("--clips", type=click.IntRange(4), default=ALL_CLIPS, help="Clips, of which 70 % train.")
@click.option("--epochs", type=_COUNT, default=finals.EPOCHS, help="Epochs of the fast pipeline.")
@click.option("--original-epochs", type=click.IntRange(0), default=2, help="Of the original pipeline, extrapolated.")
@_task(type=_BOTH, default="both")
@device_option
@data_option
@_run_option(default=Path("runs/final"), help="Folder of checkpoints and finished epochs.")
@click.option("--records", type=PATH, help="JSON Lines file to append to.  [default: RUN/records.jsonl]")
@console.json_option
def final(task: str, device: str, folder: Path, records: Path | None, data, as_json: bool, **options) -> None:
    """The original's final training: 86,400 clips, 30 epochs, both networks; beside it the original's 60 epochs.

    The fast pipeline trains to the end; the original pipeline for --original-epochs, from which its whole time is
    extrapolated. Without --data 43,200 clips are rendered, and as many amplifier copies made, into 11 GB; the original
    pipeline takes as much again. Every epoch leaves a checkpoint: after an interruption the same command goes on.

    \b
    Examples:
      python cli.py experiment final
      python cli.py experiment final --clips 256 --epochs 2 --original-epochs 1 --device cpu
      python cli.py report runs/final
    """
    console.resume_hint(f"whole epochs are kept in {folder}; the same command goes on from there")
    records = records or folder / "records.jsonl"
    plan = finals.Final(**options, tasks=TASKS if task == "both" else (task,), devices=protocol.choose_devices(device))
    result = finals.run(plan, Settings(folder, records, progress, console.note, data))
    if as_json:
        console.print_json(result)
    else:
        click.echo(final_text.text(result["figures"]))
        click.echo(f"Records: {records} ({result['appended']} new); checkpoints: {folder}")


@experiment.command()
@click.option("--clips", type=click.IntRange(4), default=1024, help="Clips, of which 70 % train; figures a clip.")
@click.option("--full", is_flag=True, help="The original's 8,192 clips.")
@click.option("--batch-size", type=_COUNT, default=32, help="Clips a step.")
@_task(type=click.Choice(TASKS), default="type")
@click.option("--rounds", type=_COUNT, default=3, help="Timed epochs of each rung.")
@device_option
@data_option
@_run_option(default=Path("runs/ladder"), help="Folder of finished epochs.")
@records_option
@console.json_option
def ladder(clips: int, full: bool, device: str, folder: Path, records: Path, data, as_json: bool, **options) -> None:
    """From the original pipeline to the fast one, a rung at a time: what each saves, and that it changes speed only.

    Every rung trains from the same weights over the same clips; its losses must stay within the spread of three seeds
    of the original's, or it is not timed and the exit code is 1. As many epochs more are split into their parts by a
    clock, whose cost is stated. Every finished epoch is kept; the same command goes on after an interruption.

    \b
    Examples:
      python cli.py experiment ladder
      python cli.py experiment ladder --full --device cpu
      python cli.py experiment ladder --clips 128 --rounds 1 --json
    """
    console.resume_hint(f"finished epochs are kept in {folder}; the same command goes on from there")
    source = click.get_current_context().get_parameter_source("clips")
    if full and source is click.core.ParameterSource.COMMANDLINE:
        raise click.UsageError("choose --full or --clips")
    options["num_items"] = FULL_CLIPS if full else clips
    cases = [ladders.LadderCase(name, **options) for name in protocol.choose_devices(device)]
    result = ladders.run(cases, Settings(folder, records, progress, console.note, data))
    if as_json and not result["failed"]:
        console.print_json({**result, "why": ladder_text.explain(result["rungs"])})
    elif not as_json:
        click.echo(ladder_text.text([*result["rungs"], *result["failed"]]))
        click.echo(f"Records: {records} ({result['appended']} new)")
    if result["failed"]:
        names = ", ".join(record["parameters"]["name"] for record in result["failed"])
        raise UserError(f"{names}: the loss is not the original's, so the rung is not timed; see {records}")
