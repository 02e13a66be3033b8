"""The command `train`. Imports what it needs in its body."""

from pathlib import Path

import click

from triadbench.core.commands import console
from triadbench.core.constants import RECIPE_DEFAULTS

_PATH = click.Path(path_type=Path)
_FRACTION = click.FloatRange(0, 1, min_open=True, max_open=True)


def _defaults(name: str) -> str:
    """Each recipe's default of an option, for its help."""
    values = [f"{getattr(defaults, name)} {recipe}" for recipe, defaults in RECIPE_DEFAULTS.items()]
    return f"[default: {', '.join(values)}]"


@click.command()
@click.argument("source", type=_PATH, metavar="DATA")
@click.argument("out", type=_PATH)
@click.option("--recipe", type=click.Choice(list(RECIPE_DEFAULTS)), default="ours", help="The study's recipe, or ours.")
@click.option(
    "--task",
    type=click.Choice(["type", "root", "both"]),
    default="both",
    help="What to learn; both with the original recipe trains its two networks, into OUT/type and OUT/root.",
)
@click.option("--epochs", type=click.IntRange(1), help=_defaults("epochs"))
@click.option("--batch-size", type=click.IntRange(1), help=f"Clips a step.  {_defaults('batch_size')}")
@click.option("--learning-rate", type=click.FloatRange(0, min_open=True), help=_defaults("learning_rate"))
@click.option(
    "--split",
    type=click.Choice(["random", "grouped"]),
    help=f"Clips at random, or whole recordings.  {_defaults('split')}",
)
@click.option("--test-fraction", type=_FRACTION, help=f"Share kept for testing.  {_defaults('test_fraction')}")
@click.option("--seed", type=click.IntRange(0), default=0, help="Of weights, order and dropout.")
@click.option("--split-seed", type=click.IntRange(0), default=13, help="Of the split; the original's is 13.")
@click.option("--device", default="cpu", help="cpu or cuda.")
@click.option("--resume", is_flag=True, help="Go on with the training in OUT after its last whole epoch.")
@click.option(
    "--pipeline",
    type=click.Choice(["original", "fast"]),
    help="Of the original recipe: the study's own or ours; the same steps.  [default: fast]",
)
@click.option(
    "--switch",
    "switches",
    multiple=True,
    metavar="NAME=VALUE",
    help="Change one switch of the pipeline, such as mel=batch or prefetch=true; may be repeated.",
)
@console.json_option
def train(source: Path, out: Path, task: str, resume: bool, as_json: bool, **options) -> None:
    """Train on DATA (folder, zip or pack) into the folder OUT: best and last checkpoint, curves as JSON and HTML.

    \b
    Examples:
      python cli.py train data/train.pack runs/ours
      python cli.py train data/audio runs/original --recipe original --task type
      python cli.py train data/train.pack runs/ours --resume
      python cli.py train data/audio runs/slow --recipe original --task type --pipeline original
      torchrun --nproc-per-node=2 --max-restarts=3 cli.py train data/train.pack runs/ours

    torchrun (of torch) starts several processes that share every batch; several machines as its own help says, with
    DATA and OUT on a disk that they share. A training that it starts again goes on after its last whole epoch.
    """
    from triadbench.core.training import distributed
    from triadbench.core.training.train import train_tasks

    console.resume_hint(f"whole epochs are kept in {out}; the same command with --resume goes on from there")
    with console.training_progress() as progress:
        results = train_tasks({"data": source, "out": out, **options}, task, resume, progress, distributed.train)
    if not distributed.is_main():
        return
    if as_json:
        console.print_json(results)
        return
    click.echo(_table(results))
    click.echo(f"Checkpoints and curves in {out}")


def _table(records: dict[str, dict]) -> str:
    """The best epoch of every task's training record (`core.training.train.train`)."""
    rows = []
    for task, record in records.items():
        best = record["curves"][record["best_epoch"] - 1]
        shares = [f"{key[5:-9]} {100 * best[key]:.2f} %" for key in best if key.endswith("accuracy")]
        rows.append([task, record["best_epoch"], ", ".join(shares), best["test_loss"], record["seconds"]])
    return console.table(["task", "best epoch", "test accuracy", "test loss", "seconds"], rows)
