"""The command `export`: which files, where to, and the table of what came of them. Imports in its body."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from triadbench.core.commands import console
from triadbench.core.constants import PRECISIONS

_PATH = click.Path(path_type=Path)


def _precisions(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[str, ...] | None:
    """ "fp32,int8" as ("fp32", "int8"), each once."""
    if text is None:
        return None
    names = [part.strip().lower() for part in text.split(",")]
    unknown = [f"{name!r} is no precision" for name in names if name not in PRECISIONS]
    if not all(names):
        unknown = [f"{text!r} has an empty name beside a comma" if any(names) else "no precision was named"]
    if unknown:
        raise click.BadParameter(f"{unknown[0]}; choose from {', '.join(PRECISIONS)}")
    return tuple(dict.fromkeys(names))


@click.command()
@click.option("--onnx", is_flag=True, help="ONNX files.  [default: both formats]")
@click.option("--torchscript", is_flag=True, help="A TorchScript file (fp32), for programs that have torch.")
@click.option(
    "--precision",
    "precisions",
    callback=_precisions,
    metavar="NAME,NAME",
    help=f"{', '.join(PRECISIONS)}. Those named must hold; otherwise those that hold are written.  [default: all]",
)
@click.option("--model", type=_PATH, help="Checkpoint.  [default: the shipped model]")
@click.option("--out", type=_PATH, default=Path("runs/export"), help="Folder to write into.")
@click.option("--banks", type=_PATH, default=Path("data/banks"), help="Folder that keeps the recorded notes.")
@console.json_option
def export(
    onnx: bool,
    torchscript: bool,
    precisions: tuple[str, ...] | None,
    model: Path | None,
    out: Path,
    banks: Path,
    as_json: bool,
) -> None:
    """Write a model as files that take raw audio (16 kHz, float32 in [-1, 1]) and answer with probabilities.

    NAME.onnx is for CPUs, NAME.batch.onnx for GPUs, NAME.mel.onnx (mel spectrogram in) for bulk work behind a mel
    kernel, NAME.torchscript.pt for programs that have torch. Labels, sample rate and accuracies are in the files.

    Each file is verified before it gets its name: in a fresh process, on 1,296 clips that are rendered for it, in other
    batches and lengths than it was traced with. fp32 must answer as PyTorch does (every label; probabilities to 1e-5);
    fp16 and int8 must agree with it on 99.5 % of the labels and lose at most 0.2 points of accuracy, or they are
    refused. Exit code 1 if a file fails, or if a precision that --precision names is refused.

    \b
    Examples:
      python cli.py export
      python cli.py export --onnx --precision fp32 --model runs/ours/best.safetensors --out runs/mine
      python cli.py export --onnx --torchscript --out core/pretrained
    """
    from triadbench.core.errors import UserError
    from triadbench.export.commands import export_table
    from triadbench.export.formats import exporter

    formats = [name for name, chosen in (("onnx", onnx), ("torchscript", torchscript)) if chosen] or exporter.FORMATS
    try:
        exporter.check(formats, precisions or exporter.PRECISIONS)
    except UserError as error:
        raise click.UsageError(str(error)) from error
    console.resume_hint(f"verified files are kept in {out}; the same command writes all of them anew")
    with _stages() as progress:
        rows = exporter.export_files(model, out, formats, precisions or exporter.PRECISIONS, banks, progress)
        times = export_table.time_files(rows, model, lambda *at: progress("time", *at))
    if as_json:
        console.print_json(export_table.as_json(rows, times, out))
    else:
        click.echo(export_table.text(rows, times))
    lost = [row for row in rows if not row.ok and (precisions is not None or row.status.startswith("failed"))]
    if lost:
        raise UserError("; ".join(f"{row.file} was not written, {row.status}" for row in lost))


@contextlib.contextmanager
def _stages() -> Iterator[Callable[[str, int, int], None]]:
    """One progress bar after another: a new stage closes the last one's."""
    with contextlib.ExitStack() as stack:
        bars: dict[str, Callable[[int, int], None]] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in bars:
                stack.close()
                bars.clear()
                bars[stage] = stack.enter_context(console.progress(f"export: {stage}"))
            bars[stage](done, total)

        yield report
