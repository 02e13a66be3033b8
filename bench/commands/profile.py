"""The command `profile`: which part is measured, with what, into which files. Imports what it needs in its body."""

import contextlib
import dataclasses
import math
import time
from pathlib import Path
from typing import Any

import click

from triadbench.bench import outputs
from triadbench.core.commands import console
from triadbench.core.files import only_writer

_PATH = click.Path(path_type=Path)
_FOLDER = Path("runs/profile")
PARTS = ("mel", "layers", "pipeline", "lines", "flame")


@click.command()
@click.option("--quick", is_flag=True, help="Less of everything, in under two minutes.")
@click.option(
    "--only",
    type=click.Choice(PARTS),
    help="One part alone: mel spectrograms and rivals, network layers, an epoch's parts, lines, or flame graphs.",
)
@click.option("--spec", "specs", multiple=True, metavar="NAME", help="ORIGINAL, CHORD or WHISPER; repeat for more.")
@click.option(
    "--batch", "batches", callback=console.integers, metavar="N,N", help="Batch sizes.  [default: 1,8,64,512]"
)
@click.option("--threads", callback=console.integers, metavar="N,N", help="Thread counts.  [default: 1 and all cores]")
@click.option("--device", type=click.Choice(["cpu", "cuda", "all"]), help="Of the mel groups.  [default: all]")
@click.option(
    "--budget",
    type=click.FloatRange(1, 86_400),
    callback=console.finite,
    metavar="SECONDS",
    help="Time to aim at for the mel groups.",
)
@click.option("--fresh", is_flag=True, help="Measure again what the records hold already.")
@click.option("--out", type=_PATH, help="HTML page to write.  [default: runs/profile/profile.html, or PART.html]")
@click.option("--records", type=_PATH, default=_FOLDER / "records.jsonl", help="JSON Lines file to append to.")
@console.json_option
def profile(quick: bool, only: str | None, out: Path | None, records: Path, as_json: bool, **options) -> None:
    """Measure this machine and write one interactive page.

    All of it: mel spectrograms with every rival that is installed, the networks' layers, a training step, an epoch's
    parts, and the lines and flame graphs of the original and the fast pipeline; about fifteen minutes on two cores,
    --quick under two. On a machine with a GPU both are measured. Mel groups that were measured before with the same
    code are not measured again. Beside the page lie the layers' traces for Perfetto and a file for speedscope.

    \b
    Examples:
      python cli.py profile --quick
      python cli.py profile --only lines
      python cli.py profile --only mel --device cuda
      python cli.py profile --only mel --quick --spec ORIGINAL --batch 1,64 --threads 1 --json
    """
    budget = options["budget"]
    if budget is not None and math.isnan(budget):
        raise click.UsageError("--budget nan: must be a number of seconds")
    name = "mel.html" if only == "mel" else f"{only or 'profile'}{'-quick' if quick else ''}.html"
    out = out or _FOLDER / name
    outputs.check_page(out)
    outputs.check_writable(records, "--records", appended=True)
    with only_writer(records):
        if only == "mel":
            result, text = _mel(quick, out, records, **options)
        else:
            result, text = _parts(quick, only, out, records, **options)
    if as_json:
        console.print_json(result)
    else:
        click.echo(text(result))


def _parts(quick: bool, only: str | None, out: Path, records: Path, fresh: bool, **options):
    misplaced = [name for name, value in options.items() if value] + (["fresh"] if fresh and only else [])
    if misplaced:
        names = ", ".join({"specs": "--spec", "batches": "--batch"}.get(name, f"--{name}") for name in misplaced)
        raise click.UsageError(f"{names} belongs to --only mel; add that")
    from triadbench.bench.profile import whole_machine
    from triadbench.bench.report import profile_page

    begun = time.perf_counter()
    with contextlib.ExitStack() as bar:

        def progress(part: str):
            bar.close()
            if records.exists():  # a part is done, or was before
                console.resume_hint(f"finished measurements are kept in {records}; mel groups are not measured again")
            return bar.enter_context(console.progress(f"profile: {part}"))

        effort = whole_machine.QUICK if quick else whole_machine.FULL
        selected = (only,) if only else whole_machine.PARTS
        reports: dict[str, Any] = {"progress": progress, "note": console.note}
        parts = whole_machine.run(out.parent, records, effort, parts=selected, fresh=fresh, **reports)
    return profile_page.write(parts, out, records, begun), profile_page.text


def _mel(quick: bool, out: Path, records: Path, specs, batches, threads, device, budget: float | None, fresh: bool):
    from triadbench.bench.analysis import mel as mel_summary
    from triadbench.bench.mel import measure as mel
    from triadbench.core.errors import UserError

    effort = mel.QUICK if quick else mel.FULL
    if budget is not None:
        effort = dataclasses.replace(effort, budget_s=budget)
    try:
        contest = mel.make_contest(effort, specs, batches, threads, device or "all")
    except UserError as error:
        raise click.UsageError(str(error)) from error
    console.resume_hint(f"whole groups are kept in {records}; the same command goes on from there")
    with console.progress("profile", "groups") as progress:
        result = run_mel(out, records, contest, effort, fresh=fresh, progress=progress, note=console.note)
    return result, mel_summary.text


def run_mel(out: Path, records_path: Path, contest, effort, **options: Any) -> dict:
    """Measure mel spectrograms (arguments: as `bench.mel.measure.measure`) and write their page.

    Returns:
        `page`, `records` (paths), `seconds`, `environment`, `skipped_groups`, `measurements`, `left_out`, `findings`.
    """
    from triadbench.bench.analysis import mel as mel_summary
    from triadbench.bench.mel import measure as mel
    from triadbench.bench.report import profile_page

    start = time.perf_counter()
    results, environment, skipped = mel.measure(records_path, contest, effort, **options)
    result = outputs.write_page(profile_page.page({"mel": results}), out, records_path, environment, start)
    result |= {"skipped_groups": skipped, "measurements": mel_summary.rows(results)}
    return result | {"left_out": mel_summary.left_out(results), "findings": mel_summary.findings(results)}
