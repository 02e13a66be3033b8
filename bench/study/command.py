"""The commands `experiment batch-size`, `data-size`, `ladder`, and `study`; each imports what it needs in its body."""

from __future__ import annotations

import functools
from pathlib import Path

import click

from bench import console

_PATH = click.Path(path_type=Path)
RECORDS = Path("runs/study/records.jsonl")


def _integers(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    """ "32,64" as (32, 64)."""
    try:
        return tuple(int(part) for part in text.split(",")) if text else None
    except ValueError:
        raise click.BadParameter(f"{text!r} must be whole numbers with commas between, as 32,64") from None


def _options(*options):
    """Several options as one decorator."""
    return lambda function: functools.reduce(lambda f, option: option(f), reversed(options), function)


_device = click.option("--device", default="all", help="cpu, cuda, or all that are here.")
_data = click.option(
    "--data", type=_PATH, help="Folder, zip or pack of clips.  [default: rendered once into data/study]"
)
_records = click.option("--records", type=_PATH, default=RECORDS, help="JSON Lines file to append to.")
_common = _options(
    click.option(
        "--pipeline", type=click.Choice(["original", "fast", "both"]), default="both", help="Which to measure."
    ),
    _device,
    click.option("--trials", type=click.IntRange(1), default=6, help="Trials of each figure; the first is dropped."),
    click.option("--epochs", type=click.IntRange(1), default=5, help="Epochs a trial."),
    _data,
    click.option("--run", "folder", type=_PATH, help="Folder of finished trials.  [default: runs/EXPERIMENT]"),
    _records,
    console.json_option,
)


@click.group()
def experiment() -> None:
    """How long training takes: the original study's experiments, with its pipeline and with ours.

    \b
    Examples:
      python cli.py experiment batch-size --device cpu
      python cli.py experiment ladder
    """


@experiment.command("batch-size")
@click.option("--batch-sizes", callback=_integers, metavar="N,N", help="[default: 32,64,128,256]")
@click.option("--clips", callback=_integers, metavar="N", help="[default: 8192]")
@click.option("--task", type=click.Choice(["type", "root", "both"]), default="both", help="Which network.")
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
@click.option("--clips", callback=_integers, metavar="N,N", help="[default: 4096,8192,16384]")
@click.option("--batch-sizes", callback=_integers, metavar="N", help="[default: 32]")
@click.option("--task", type=click.Choice(["type", "root", "both"]), default="type", help="Which network.")
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
    from bench.study import compare, experiments, protocol

    folder = folder or experiments.RUNS / name
    made = protocol.make(name, **options)
    console.resume_hint(f"finished trials are kept in {folder}; the same command goes on from there")
    result = experiments.run(
        made, folder=folder, records_path=records, data=data, progress=_progress, note=console.note
    )  # fmt: skip
    if as_json:
        console.print_json(result)
    else:
        click.echo(compare.text(result["figures"]))
        click.echo(f"Records: {records} ({result['appended']} new)")


def _progress(label: str):
    return console.progress(label, "epochs" if label in ("trials", "rungs") else "clips")
