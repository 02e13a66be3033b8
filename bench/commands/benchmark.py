"""The command `benchmark`: what is measured, on what, into which files. Imports what it needs in its body."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path

import click

from triadbench.core.commands import console
from triadbench.core.constants import ONNX_PROVIDERS, PRECISIONS

_PATH = click.Path(path_type=Path)
_FOLDER = Path("runs/benchmark")
_PARTS = ("load", "single", "offline", "files", "process")


def _words(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[str, ...]:
    """ "cpu,cuda" as ("cpu", "cuda")."""
    return tuple(filter(None, map(str.strip, (text or "").split(","))))


def _names(option: str, choices: Iterable[str]) -> Callable:
    """An option with names out of `choices`."""
    text = f"Of {', '.join(choices)}; commas between.  [default: all that are there]"
    return click.option(f"--{option}", f"{option}s", callback=_words, metavar="LIST", help=text)


@click.command()
@click.option("--quick", is_flag=True, help="Less of everything, in about two minutes on two cores.")
@click.option("--full", is_flag=True, help="24,576 clips for every figure of clips a second; hours.")
@click.option(
    "--only",
    "parts",
    multiple=True,
    type=click.Choice(_PARTS),
    help="One part; repeat for more: fresh processes, one clip a call, clips a second, a folder, whole commands.",
)
@_names("provider", ONNX_PROVIDERS)
@_names("precision", PRECISIONS)
@click.option("--threads", callback=console.integers, metavar="LIST", help="Thread counts.  [default: 1 and all cores]")
@click.option(
    "--batch", "batches", callback=console.integers, metavar="LIST", help="Batch sizes.  [default: 1,2,4, to 512]"
)
@console.model_option("Checkpoint that the exported files were made of.  [default: the shipped]")
@click.option("--files", "folder", type=_PATH, help="Folder of the exported files.  [default: the checkpoint's]")
@click.option("--out", type=_PATH, default=_FOLDER / "report.html", help="HTML page to write.")
@click.option("--records", type=_PATH, default=_FOLDER / "records.jsonl", help="JSON Lines file to append to.")
@console.json_option
def benchmark(quick: bool, full: bool, out: Path, records: Path, as_json: bool, **options) -> None:
    """Time the model in every format, precision, provider, thread count and batch size, and write a page.

    One clip a call (1,024 queries: mean, p50 to p99.9), clips a second for each batch size, loading and first call and
    memory in fresh processes, a folder of wav files against a plain PyTorch loop, and whole commands. Contestants
    alternate. Each one's answers to the very clips are compared with the PyTorch model's first: a wrong one is not
    timed, and the exit code is 1. About fifteen minutes on two cores.

    \b
    Examples:
      python cli.py benchmark --quick
      python cli.py benchmark --provider cuda,cpu --batch 1,8,64
      python cli.py benchmark --only single --only offline --threads 1 --json
    """
    if quick and full:
        raise click.UsageError("choose --quick or --full")
    from triadbench.bench import outputs
    from triadbench.bench.analysis import providers as numbers
    from triadbench.bench.providers import plan as plans
    from triadbench.bench.providers import run
    from triadbench.bench.report import providers_page
    from triadbench.core.errors import UserError
    from triadbench.core.files import only_writer
    from triadbench.kernels.scratch import scratch_folder

    outputs.check_page(out)
    outputs.check_writable(records, "--records", appended=True)
    console.resume_hint(f"finished groups are kept in {records}; --only, --batch and --threads measure the others")
    begun, effort = time.perf_counter(), plans.EFFORTS["quick" if quick else "full" if full else "normal"]
    with only_writer(records), scratch_folder() as scratch, console.progress("benchmark", "blocks") as progress:
        plan = plans.make_plan(effort, **options, scratch=scratch)
        results, failed = run.measure(records, plan, effort, progress=progress, note=console.note)
        environment = results[0]["environment"] if results else {}
        result = outputs.write_page(providers_page.page(results), out, records, environment, begun)
    text, raw = numbers.text(results), ("samples", "single_run", "offline_runs")
    if as_json and not failed:
        result["measurements"] = [{k: v for k, v in row.items() if k not in raw} for row in numbers.rows(results)]
        result |= {"loads": numbers.loads(results), "files": numbers.waits(results, numbers.FILES)}
        result |= {"processes": numbers.waits(results, numbers.PROCESS), "left_out": list(numbers.left_out(results))}
        console.print_json({**result, "failed": failed, "text": text})
    elif not as_json:
        click.echo(f"{text}\nPage: {result['page']} ({result['seconds']:.0f} s)")
    if failed:
        raise UserError(f"{len(failed)} checks failed: {'; '.join(failed[:3])}")
