"""The command `report`. Imports what it needs in its body."""

from collections.abc import Sequence
from pathlib import Path

import click

from triadbench.core.commands import console

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("records", type=_PATH, nargs=-1)
@click.option("--out", type=_PATH, default=Path("runs/report.html"), help="HTML page to write.")
@click.option(
    "--pictures",
    type=_PATH,
    metavar="DIR",
    help="Also write the README's pictures there as PNG; needs a Chromium or Chrome on the PATH.",
)
@click.option(
    "--compare", "other", type=_PATH, metavar="OTHER", help="Compare RECORDS with these, of another commit or machine."
)
@console.json_option
def report(records: tuple[Path, ...], out: Path, pictures: Path | None, other: Path | None, as_json: bool) -> None:
    """Write everything that RECORDS hold into one HTML file that needs no network.

    RECORDS are files of JSON Lines or folders of them; without any, all under bench/results and runs. What several
    machines measured stays apart: the page has a menu, and no ratio mixes two. With --compare the page shows which
    timings changed beyond noise instead.

    \b
    Examples:
      python cli.py report
      python cli.py report runs/profile/records.jsonl --out report.html
      python cli.py report bench/results --pictures pictures --json
      python cli.py report new.jsonl --compare old.jsonl --out changes.html
    """
    from triadbench.bench import outputs
    from triadbench.bench.report import report as page

    outputs.check_page(out)
    if other is not None:
        if pictures is not None:
            raise click.UsageError("--pictures is of the report; leave it out with --compare")
        from triadbench.bench.report import compare_page

        changes = compare_page.write(list(records) or None, other, out)
        _note(changes["problems"])
        lines = [*changes["machines"], *changes["sentences"][:21], f"Page: {out}"]
        return console.print_json(changes) if as_json else click.echo("\n".join(lines))
    result = page.write_report(list(records) or None, out)
    if pictures is not None:
        from triadbench.bench.report.pictures import write_pictures

        result["pictures"] = write_pictures(list(records) or None, pictures)
    _note(result["problems"], " (the page lists them)")
    if as_json:
        console.print_json(result)
    else:
        click.echo(page.text(result))


def _note(problems: Sequence[str], where: str = "") -> None:
    for problem in problems[:10]:
        console.note(f"passed over {problem}")
    if len(problems) > 10:
        console.note(f"... and {len(problems) - 10} more{where}")
