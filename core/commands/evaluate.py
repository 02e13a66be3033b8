"""The command `evaluate`. Imports what it needs in its body."""

from pathlib import Path

import click

from triadbench.core.commands import console
from triadbench.core.errors import UserError

_PATH = click.Path(path_type=Path)


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
    from triadbench.core.data.dataset import open_dataset
    from triadbench.core.models.predictor import Predictor
    from triadbench.core.training.evaluation import draw_confusions
    from triadbench.core.training.evaluation import evaluate as measure

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
        click.echo(_table(result))
        console.list_skipped([(entry["file"], entry["reason"]) for entry in result["skipped"]])
    if result["failed"]:
        for entry in result["failed"]:
            console.note(f"failed: {entry['error']}")
        raise UserError(f"{len(result['failed'])} clips could not be read")


def _table(result: dict) -> str:
    """Accuracies in percent: of all clips, of each group, and of the chroma template."""
    groups = {"all": result}
    for key in ("octave", "volume", "voicing"):
        groups |= {f"{key} {name}": group for name, group in result[f"by_{key}"].items()}
    groups["chroma template, all"] = result["baseline"]
    keys = ("type_accuracy", "root_accuracy", "both_accuracy")
    rows = [
        [name, group["n"], *(None if group[key] is None else f"{100 * group[key]:.2f}" for key in keys)]
        for name, group in groups.items()
    ]
    return console.table(["clips", "n", "type %", "root %", "both %"], rows)
