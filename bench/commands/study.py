"""The command `study`, and the options that it shares with `experiment`. Imports what it needs in its body."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from triadbench.core.commands import console

if TYPE_CHECKING:
    from triadbench.bench.study.session import Settings

PATH = click.Path(path_type=Path)
RECORDS = Path("runs/study/records.jsonl")
device_option = click.option("--device", default="all", help="cpu, cuda, or all that are here.")
data_option = click.option(
    "--data", type=PATH, help="Folder, zip or pack of clips.  [default: rendered once into data/study]"
)
records_option = click.option("--records", type=PATH, default=RECORDS, help="JSON Lines file to append to.")


def progress(label: str) -> AbstractContextManager:
    """A bar for a step of the study."""
    return console.progress(label, "epochs" if label in ("trials", "rungs") else "clips")


def settings(folder: Path, records_path: Path, data_path: Path | None) -> Settings:
    """A run's settings, with progress and notes on stderr."""
    from triadbench.bench.study.session import Settings

    return Settings(folder, records_path, progress, console.note, data_path)


@click.command()
@click.option("--quick", is_flag=True, help="Few clips, trials and epochs: minutes, and labelled as short.")
@click.option("--step", "steps", multiple=True, metavar="STEP", help="One step alone; repeat for more.  [default: all]")
@device_option
@data_option
@click.option("--out", "folder", type=PATH, default=RECORDS.parent, help="Folder of records, trials and report.")
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
    from triadbench.bench.commands import study_steps

    console.resume_hint(f"everything finished is kept in {folder}; the same command goes on from there")
    plan = study_steps.Study(folder, progress, device, quick, data, console.note)
    result = study_steps.run(plan, steps or tuple(study_steps.STEPS))
    if as_json:
        console.print_json(result)
    else:
        click.echo(console.table(["step", "seconds"], [[row["step"], row["seconds"]] for row in result["steps"]]))
        click.echo(f"Report: {result['page']}")
