"""The command `evaluate-songs`. Imports what it needs in its body."""

from pathlib import Path

import click

from triadbench.core.commands import console
from triadbench.core.errors import UserError

_PATH = click.Path(path_type=Path)


@click.command("evaluate-songs")
@click.option(
    "-i",
    "--instrument",
    "sources",
    multiple=True,
    default=("font:FluidR3_GM.sf2:0",),
    metavar="SOURCE",
    show_default=True,
    help="synth:SEED, font:FILE:PROGRAM, font:FILE:BANK:PROGRAM or notes:FOLDER; repeat for more.",
)
@click.option("-n", "--songs", type=click.IntRange(1, 10_000), default=24, help="Songs of each instrument.")
@click.option("--bars", type=click.IntRange(2, 1000), default=16, help="Length of a song.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Of the first song; same seed, same songs.")
@click.option(
    "--degraded/--no-degraded", default=None, help="A room and noise as in data degrade.  [default: both ways]"
)
@click.option("--model", type=_PATH, help="Exported model.  [default: the shipped model]")
@click.option("--banks", type=_PATH, default=Path("data/banks"), help="Folder that keeps the recorded notes.")
@click.option("--records", "records_path", type=_PATH, help="JSON Lines file to append to.")
@console.json_option
def evaluate_songs(
    sources: tuple[str, ...],
    degraded: bool | None,
    model: Path | None,
    banks: Path,
    records_path: Path | None,
    as_json: bool,
    **plan: int,
) -> None:
    """Score `infer --timeline` with mir_eval on songs rendered with known chords.

    Songs are common progressions and random triads with inversions, 60 to 140 beats a minute, half a bar to two bars a
    chord, struck or broken, with silence at both ends.

    \b
    Examples:
      python cli.py evaluate-songs
      python cli.py evaluate-songs -i synth:3 --songs 4 --no-degraded --json
      python cli.py evaluate-songs -i font:FluidR3_GM.sf2:0 --records runs/songs.jsonl
    """
    from triadbench.bench import outputs, records, songs
    from triadbench.export.predict.predictor import ChordPredictor

    if model is not None and model.suffix != ".onnx":
        raise UserError(f"--model {model}: give an exported model (.onnx); make it with `export`")
    if records_path is not None:
        outputs.check_writable(records_path, "--records", appended=True)
    predictor = ChordPredictor(model)
    rows = []
    for degrade in (False, True) if degraded is None else (degraded,):
        with console.progress("degraded songs" if degrade else "songs", "songs") as progress:
            rows += songs.score_songs(sources, predictor, **plan, degraded=degrade, cache=banks, progress=progress)
    if records_path is not None:
        settings = {**plan, "model": model.name if model else "shipped"}
        records.append_all(songs.to_records(rows, settings), records_path)
        console.note(f"Records: {records_path}")
    if as_json:
        console.print_json({"rows": rows, **plan})
    else:
        click.echo(console.table(songs.HEADERS, songs.table(rows)))
