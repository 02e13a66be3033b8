"""The command `plan-bulk`. Imports what it needs in its body."""

from pathlib import Path

import click

from triadbench.core.commands import console

_PATH = click.Path(path_type=Path)


@click.command("plan-bulk")
@click.argument("sources", nargs=-1, metavar="[SOURCE]...")
@click.option("--timeline", is_flag=True, help="Songs, as of `infer-bulk --timeline`.")
@click.option("--rounds", type=click.IntRange(1, 100), default=3, help="Rounds; each runs infer, then infer-bulk.")
@click.option("--songs", type=click.IntRange(1), default=1_000_000, help="How many to plan for.")
@click.option("--minutes", type=click.FloatRange(0.01, 1000), default=4.0, help="Length of a song.")
@click.option("--cores", type=click.IntRange(1, 1024), default=16, help="Cores of a machine.")
@click.option("--gbit", type=click.FloatRange(0.01, 10_000), default=10.0, help="Gbit/s of a machine's network.")
@click.option("--records", type=_PATH, default=Path("runs/bulk/records.jsonl"), help="JSON Lines file of measurements.")
@console.json_option
def plan_bulk(sources: tuple[str, ...], timeline: bool, rounds: int, records: Path, as_json: bool, **machine) -> None:
    """Measure infer-bulk beside infer on SOURCE, and say what a million such songs would cost on machines like this.

    Give some minutes of work: a few hundred songs, or some ten thousand clips. Without SOURCE nothing is measured: the
    plan is that of the last record in --records.

    \b
    Examples:
      python cli.py plan-bulk recordings
      python cli.py plan-bulk songs --timeline
      python cli.py plan-bulk --timeline --songs 30000000 --cores 64 --gbit 25
    """
    from triadbench.bench import bulk, outputs
    from triadbench.bench import records as record_files
    from triadbench.core.errors import UserError
    from triadbench.export.cluster.sources import list_files

    if sources:
        outputs.check_writable(records, "--records", appended=True)
        files = list_files(sources)
        with console.progress("plan-bulk", "runs") as progress:
            record = bulk.measure(files, timeline, rounds, progress)
        record_files.append(record, records)
    elif not records.is_file():
        raise UserError(f"{records} is not there; give SOURCE to measure, or --records")
    else:
        record = bulk.last_record(record_files.load(records)[0], timeline)
    plan = bulk.plan(record, **machine)
    if as_json:
        return console.print_json({"plan": plan, "findings": bulk.findings(record), "records": str(records)})
    click.echo("\n".join(f"- {line}" for line in bulk.findings(record)))
    songs, minutes, hours = machine["songs"], machine["minutes"], plan["core_hours"]
    what = "songs" if timeline else "files, named by one chord each,"
    click.echo(f"\n{songs:,} {what} of {minutes:g} minutes: {_say(hours)} core hours, {_say(plan['bytes'] / 1e9)} GB")
    rows = [[m["machines"], _say(m["hours"]), _say(m["gbit"]), m["limit"] or ""] for m in plan["machines"]]
    click.echo(console.table([f"machines of {machine['cores']} cores", "hours", "Gbit/s in all", "limited by"], rows))
    limits, gets = plan["limits"], f"{bulk.BUCKET_GETS:,}"
    click.echo("\nMore cores do not help, by the model of bench/bulk.py, beyond")
    click.echo(f"- {_say(limits['network'])} on one machine, by its network of {machine['gbit']:g} Gbit/s")
    click.echo(f"- {_say(limits['requests'])} in all, by a bucket that answers {gets} requests a second")
    dispatch_ms = _say(1e3 * record["dispatch_s"])
    click.echo(f"- {_say(limits['parts'])} in all, by Ray, which takes {dispatch_ms} ms to hand out a part")


def _say(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
