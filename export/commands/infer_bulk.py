"""The command `infer-bulk`. Imports what it needs in its body."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from triadbench.core.commands import console


@click.command("infer-bulk")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("--out", required=True, metavar="DEST", help="Folder or bucket of the rows, in Parquet files.")
@click.option(
    "--address", metavar="ADDRESS", help="A running Ray: auto or ray://HOST:PORT.  [default: starts one here]"
)
@click.option("--timeline", is_flag=True, help="The chords over time of whole songs, not one chord a file.")
@click.option("--retry", is_flag=True, help="Try files again that failed before, with the rest of their parts.")
@click.option("--provider", type=click.Choice(["cpu", "cuda"]), default="cpu", help="Where to compute.")
@click.option("--model", type=click.Path(path_type=Path), help="Exported model (.onnx).  [default: the shipped model]")
@console.json_option
def infer_bulk(sources: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Name the chords in very many files, on this machine or on a Ray cluster, into Parquet files.

    SOURCE is a folder, a bucket (s3://, gs://) or a list of files: .txt with a path a line, .csv or .parquet with a
    column `path` and, if you like, `id`; also https://. DEST gets one row a file, with the columns of `infer --csv`,
    or with --timeline the segments of each song; a file that cannot be read is a row with an `error`, and the exit
    code is 1. The same command goes on after an interruption, and adds what is new in SOURCE. Do not start two
    commands at once into one bucket.

    \b
    Examples:
      python cli.py infer-bulk recordings --out chords
      python cli.py infer-bulk s3://music/2024 --out s3://results/chords --address auto
      python cli.py infer-bulk songs.csv --out timelines --timeline
      python -c "import duckdb; print(duckdb.sql(\"select id, name, error from 'chords/*.parquet'\"))"
    """
    from triadbench.core.errors import UserError
    from triadbench.export.cluster.run import recognise
    from triadbench.export.cluster.sources import list_files

    console.resume_hint(f"finished parts are kept in {options['out']}; the same command goes on from there")
    files = list_files(sources)
    with console.progress("infer-bulk", "files") as progress:
        result = recognise(files, **options, progress=progress, note=console.note)
    n, failed = result["files"], result["failed"]
    if as_json:
        console.print_json(result)
    else:
        click.echo(f"{n - failed:,} of {n:,} files recognised: {result['out']}/*.parquet")
        if seconds := result.get("seconds"):
            new = n - result["kept"]
            rate = f"{new / seconds:,.1f} files a second on {result['cores']} cores"
            click.echo(f"{new:,} in {seconds:.1f} s, {rate}, after {result['start_s']:.1f} s to start")
    if failed:
        raise UserError(f"{failed:,} of {n:,} files failed; see the column `error`")
