"""The commands `train` and `evaluate`. Each imports what it needs in its body."""

from __future__ import annotations

from pathlib import Path

import click

from bench import console, tables
from core.errors import UserError

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("source", type=_PATH, metavar="DATA")
@click.argument("out", type=_PATH)
@click.option("--recipe", type=click.Choice(["original", "ours"]), default="ours", help="The study's recipe, or ours.")
@click.option(
    "--task",
    type=click.Choice(["type", "root", "both"]),
    default="both",
    help="What to learn; both with the original recipe trains its two networks, into OUT/type and OUT/root.",
)
@click.option("--epochs", type=click.IntRange(1), help="[default: 30 original, 5 ours]")
@click.option("--batch-size", type=click.IntRange(1), help="Clips a step.  [default: 32 original, 64 ours]")
@click.option("--learning-rate", type=click.FloatRange(0, min_open=True), help="[default: 1e-5 original, 3e-3 ours]")
@click.option(
    "--split",
    type=click.Choice(["random", "grouped"]),
    help="Clips at random, or whole recordings.  [default: random original, grouped ours]",
)
@click.option(
    "--test-fraction",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share kept for testing.  [default: 0.3 original, 0.04 ours]",
)
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
def train(
    source: Path,
    out: Path,
    recipe: str,
    task: str,
    resume: bool,
    pipeline: str | None,
    switches: tuple[str, ...],
    as_json: bool,
    **options,
) -> None:
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
    from core.distributed import is_main
    from core.training_set import train_tasks

    if pipeline:
        options["pipeline"] = pipeline
    if switches:
        options["switches"] = switches

    console.resume_hint(f"whole epochs are kept in {out}; the same command with --resume goes on from there")
    with console.training_progress() as progress:
        results = train_tasks({"data": source, "out": out, "recipe": recipe, **options}, task, resume, progress)
    if not is_main():
        return
    if as_json:
        console.print_json(results)
        return
    click.echo(tables.training(results))
    click.echo(f"Checkpoints and curves in {out}")


@click.command()
@click.option("--data", "source", type=_PATH, required=True, help="Folder, zip or pack of labelled clips.")
@click.option("--model", type=_PATH, help="Checkpoint.  [default: the shipped model]")
@click.option("--out", type=_PATH, help="Page (.html) with the confusion matrices to write.")
@click.option("--device", default="cpu", help="cpu or cuda.")
@console.json_option
def evaluate(source: Path, model: Path | None, out: Path | None, device: str, as_json: bool) -> None:
    """Measure a model on labelled clips, with a chroma template that needs no training beside it.

    \b
    Examples:
      python cli.py evaluate --data data/audio
      python cli.py evaluate --data set.zip --model runs/ours/best.safetensors --out confusion.html --json
    """
    from core.dataset import open_dataset
    from core.evaluate import draw_confusions
    from core.evaluate import evaluate as measure
    from core.predict import Predictor

    if out is not None and out.suffix.lower() not in (".html", ".htm"):
        raise click.UsageError(f"--out {out}: the page is HTML; give a name that ends in .html")
    predictor = Predictor.load(model, device)
    with console.progress("check", "files") as checking, console.progress("evaluate", "clips") as progress:
        dataset = open_dataset(source, progress=checking)
        result = measure(dataset, predictor, progress)
    if out is not None:
        draw_confusions(result, out, f"{(model or Path('shipped model')).name} on {source.name}")
        console.note(f"Confusion matrices: {out}")
    if as_json:
        console.print_json(result)
    else:
        click.echo(tables.accuracies(result))
        console.list_skipped([(entry["file"], entry["reason"]) for entry in result["skipped"]])
    if result["failed"]:
        for entry in result["failed"]:
            console.note(f"failed: {entry['error']}")
        raise UserError(f"{len(result['failed'])} clips could not be read")
