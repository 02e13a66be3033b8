"""The command `study`. Imports what it needs in its body."""

from __future__ import annotations

from pathlib import Path

import click

from triadbench.bench.commands import study_options
from triadbench.core.commands import console


@click.command()
@click.option("--quick", is_flag=True, help="Few clips, trials and epochs: minutes, and labelled as short.")
@click.option("--step", "steps", multiple=True, metavar="STEP", help="One step alone; repeat for more.  [default: all]")
@study_options.device
@study_options.data
@click.option(
    "--out",
    "folder",
    type=study_options.PATH,
    default=study_options.RECORDS.parent,
    help="Folder of records, trials and report.",
)
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
    plan = study_steps.Study(folder, study_options.progress, device, quick, data, console.note)
    result = study_steps.run(plan, steps or tuple(study_steps.STEPS))
    if as_json:
        console.print_json(result)
    else:
        click.echo(console.table(["step", "seconds"], [[row["step"], row["seconds"]] for row in result["steps"]]))
        click.echo(f"Report: {result['page']}")
