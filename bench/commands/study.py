"""The command `study`. Imports what it needs in its body."""

from __future__ import annotations

from pathlib import Path

import click

from triadbench.core.commands import console

_PATH = click.Path(path_type=Path)
RECORDS = Path("runs/study/records.jsonl")


_device = click.option("--device", default="all", help="cpu, cuda, or all that are here.")
_data = click.option(
    "--data", type=_PATH, help="Folder, zip or pack of clips.  [default: rendered once into data/study]"
)


@click.command()
@click.option("--quick", is_flag=True, help="Few clips, trials and epochs: minutes, and labelled as short.")
@click.option("--step", "steps", multiple=True, metavar="STEP", help="One step alone; repeat for more.  [default: all]")
@_device
@_data
@click.option("--out", "folder", type=_PATH, default=RECORDS.parent, help="Folder of records, trials and report.")
@console.json_option
def study(quick: bool, steps: tuple[str, ...], device: str, data: Path | None, folder: Path, as_json: bool) -> None:
    """The whole study: mel, batch-size, data-size, ladder, lines, layers, report. Hours on a CPU.

    What is finished is kept: after an interruption, however rude, the same command goes on where it was.

    \b
    Examples:
      python cli.py study --quick
      python cli.py study --device cpu
      python cli.py study --step ladder --step report
    """
    from triadbench.bench.commands import study_steps as whole

    console.resume_hint(f"everything finished is kept in {folder}; the same command goes on from there")
    made = whole.Study(folder, device, quick, data, _progress, console.note)
    result = whole.run(made, steps or whole.STEPS)
    if as_json:
        console.print_json(result)
    else:
        click.echo(console.table(["step", "seconds"], [[each["step"], each["seconds"]] for each in result["steps"]]))
        click.echo(f"Report: {result['page']}")


def _progress(label: str):
    return console.progress(label, "epochs" if label in ("trials", "rungs") else "clips")
