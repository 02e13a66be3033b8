"""The commands `experiment batch-size`, `data-size` and `ladder`."""

import functools
from pathlib import Path

import click

from triadbench.bench.commands.study import PATH, data_option, device_option, progress, records_option
from triadbench.bench.study import experiments, protocol
from triadbench.bench.study import ladder as ladders
from triadbench.bench.study.protocol import BATCH_SIZES, CLIPS, EPOCHS, PIPELINES, TASKS, TRIALS
from triadbench.bench.study.session import Settings
from triadbench.core.commands import console
from triadbench.core.constants import FULL_CLIPS
from triadbench.core.errors import UserError

_task = functools.partial(click.option, "--task", help="Which network.", show_default=True)
_BOTH = click.Choice([*TASKS, "both"])
_SIZES, _COUNTS = (f"[default: {','.join(map(str, values))}]" for values in (BATCH_SIZES, CLIPS))


def _common(function):
    """The options of both experiments."""
    pipelines = click.Choice([*PIPELINES, "both"])
    for option in (
        console.json_option,
        records_option,
        click.option("--run", "folder", type=PATH, help="Folder of finished trials.  [default: runs/EXPERIMENT]"),
        data_option,
        click.option("--epochs", type=click.IntRange(1), default=EPOCHS, help="Epochs a trial."),
        click.option(
            "--trials", type=click.IntRange(1), default=TRIALS, help="Trials of each figure; the first is dropped."
        ),
        device_option,
        click.option("--pipeline", type=pipelines, default="both", help="Which to measure."),
    ):
        function = option(function)
    return function


@click.group()
def experiment() -> None:
    """How long training takes: the original study's experiments, with its pipeline and with ours.

    \b
    Examples:
      python cli.py experiment batch-size --device cpu
      python cli.py experiment ladder
    """


@experiment.command("batch-size")
@click.option("--batch-sizes", callback=console.integers, metavar="N,N", help=_SIZES)
@click.option("--clips", callback=console.integers, metavar="N", help="[default: 8192]")
@_task(type=_BOTH, default="both")
@_common
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
@click.option("--clips", callback=console.integers, metavar="N,N", help=_COUNTS)
@click.option("--batch-sizes", callback=console.integers, metavar="N", help="[default: 32]")
@_task(type=_BOTH, default="type")
@_common
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
    from triadbench.bench.analysis import experiments as analysis

    figures = protocol.make(name, **{key: value for key, value in options.items() if value != ()})
    result = experiments.run(figures, Settings(folder, records, progress, console.note, data))
    if as_json:
        console.print_json(result)
    else:
        click.echo(analysis.text(result["figures"]))
        click.echo(f"Records: {records} ({result['appended']} new)")


@experiment.command()
@click.option("--clips", type=click.IntRange(4), default=1024, help="Clips, of which 70 % train; figures a clip.")
@click.option("--full", is_flag=True, help="The original's 8,192 clips.")
@click.option("--batch-size", type=click.IntRange(1), default=32, help="Clips a step.")
@_task(type=click.Choice(TASKS), default="type")
@click.option("--rounds", type=click.IntRange(1), default=3, help="Timed epochs of each rung.")
@device_option
@data_option
@click.option("--run", "folder", type=PATH, default=Path("runs/ladder"), help="Folder of finished epochs.")
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
    from triadbench.bench.analysis import ladder as analysis

    source = click.get_current_context().get_parameter_source("clips")
    if full and source is click.core.ParameterSource.COMMANDLINE:
        raise click.UsageError("choose --full or --clips")
    options["num_items"] = FULL_CLIPS if full else clips
    cases = [ladders.LadderCase(name, **options) for name in protocol.choose_devices(device)]
    result = ladders.run(cases, Settings(folder, records, progress, console.note, data))
    if as_json and not result["failed"]:
        console.print_json({**result, "why": analysis.explain(result["rungs"])})
    elif not as_json:
        click.echo(analysis.text([*result["rungs"], *result["failed"]]))
        click.echo(f"Records: {records} ({result['appended']} new)")
    if result["failed"]:
        names = ", ".join(record["parameters"]["name"] for record in result["failed"])
        raise UserError(f"{names}: the loss is not the original's, so the rung is not timed; see {records}")
