"""The command `export`: which files, where to, and the table of what they are and cost. Imports in its body.

Timed are one clip of 4 s, and a batch of 32 (offline), all files in turns, on as many threads as torch uses, with
PyTorch's own predictor beside them. `benchmark` measures at length.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from triadbench.core.commands import console
from triadbench.core.constants import PRECISIONS
from triadbench.core.files import ModelFiles

if TYPE_CHECKING:
    from triadbench.export.formats.exporter import Row

_PATH = click.Path(path_type=Path)
_ROUNDS = {1: 20, 32: 4}  # by batch
_HEADERS = "file,format,precision,status,MB,network MB,type %,root %,worst difference,ms,clips/s".split(",")


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
@console.model_option("Checkpoint.  [default: the shipped model]")
@click.option("--out", type=_PATH, default=Path("runs/export"), help="Folder to write into.")
@click.option("--banks", type=_PATH, default=Path("data/banks"), help="Folder that keeps the recorded notes.")
@console.json_option
def export(
    onnx: bool,
    torchscript: bool,
    precisions: tuple[str, ...] | None,
    model: ModelFiles | None,
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
      python cli.py export --model type.pth --model root.pth --out runs/original
    """
    import torch  # noqa: F401 - before ONNX, so that it is PyTorch that is named where the extra is missing

    from triadbench.core.errors import UserError
    from triadbench.export.formats import exporter

    formats = [name for name, chosen in (("onnx", onnx), ("torchscript", torchscript)) if chosen] or exporter.FORMATS
    try:
        exporter.check(formats, precisions or exporter.PRECISIONS)
    except UserError as error:
        raise click.UsageError(str(error)) from error
    console.resume_hint(f"verified files are kept in {out}; the same command writes all of them anew")
    with _stages() as progress:
        rows = exporter.export_files(model, out, formats, precisions or exporter.PRECISIONS, banks, progress)
        times = time_files(rows, model, lambda *at: progress("time", *at))
    if None in (rows[0].type_accuracy, rows[0].root_accuracy):
        way_out = "with both checkpoints, --model TYPE --model ROOT, they name chords"
        console.note(f"{rows[0].file} answers for one task, and so do its files, which `infer` refuses; {way_out}")
    if as_json:
        console.print_json(table_json(rows, times, out))
    else:
        click.echo(table_text(rows, times))
    lost = [row for row in rows if row.path is None and (precisions is not None or row.status.startswith("failed"))]
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


def time_files(rows: Sequence[Row], model: ModelFiles | None, progress: Callable[[int, int], None]) -> dict[str, dict]:
    """{file: {"ms", "clips_per_s", "disturbed"}} of the files that are there: median time of a clip alone, clips a
    second in batches of 32, and whether other work wanted the same cores (see `core.timing`)."""
    import numpy as np
    import torch

    from triadbench.core import timing
    from triadbench.core.constants import CLIP_SAMPLES
    from triadbench.core.models.predictor import Predictor
    from triadbench.export.predict.models import TorchScriptModel
    from triadbench.export.predict.providers import OnnxModel

    predictor, threads = Predictor.load(model), torch.get_num_threads()
    runs: dict[str, Callable] = {}
    for row in rows:
        if row.format == "checkpoint":
            runs[row.file] = predictor
        elif row.path is not None:
            opener = OnnxModel if row.format == "onnx" else TorchScriptModel
            runs[row.file] = opener(Path(row.path), threads=threads).run
    times: dict[str, dict] = {name: {"disturbed": False} for name in runs}
    for done, (batch, rounds) in enumerate(_ROUNDS.items()):
        progress(done, len(_ROUNDS))
        waveforms = (0.1 * np.random.default_rng(0).standard_normal((batch, CLIP_SAMPLES))).astype(np.float32)
        with torch.inference_mode():
            mel = predictor.mel(torch.from_numpy(waveforms)).numpy()
        inputs = {row.file: mel if row.front_end == "none" else waveforms for row in rows}
        bound = {name: functools.partial(run, inputs[name]) for name, run in runs.items()}
        for name, measured in timing.measure(bound, rounds=rounds, min_time_s=0.0, warmup=3).items():
            cost = {"ms": measured.p50_ms} if batch == 1 else {"clips_per_s": 1e3 * batch / measured.p50_ms}
            times[name] |= cost | {"disturbed": times[name]["disturbed"] or measured.disturbed}
    progress(len(_ROUNDS), len(_ROUNDS))
    return times


def table_text(rows: Sequence[Row], times: dict[str, dict]) -> str:
    """The table, and what its columns mean."""
    notes = [f"{row.file}: {row.status}" for row in rows if row.path is None]
    if any(cost.get("disturbed") for cost in times.values()):
        notes.append("Other work kept the cores busy meanwhile: compare the times with one another at most.")
    return "\n".join([console.table(_HEADERS, [_line(row, times.get(row.file)) for row in rows]), *notes])


def table_json(rows: Sequence[Row], times: dict[str, dict], out: Path) -> dict:
    """The same for programs."""
    untimed: dict = dict.fromkeys(("ms", "clips_per_s", "disturbed"))
    return {"out": str(out), "files": [dataclasses.asdict(row) | untimed | times.get(row.file, {}) for row in rows]}


def _line(row: Row, cost: dict | None) -> list:
    return [
        *(row.file, row.format, row.precision, row.status.split(":")[0]),
        *(None if size is None else f"{size / 1e6:.2f}" for size in (row.bytes, row.network_bytes)),
        *(None if share is None else f"{100 * share:.2f}" for share in (row.type_accuracy, row.root_accuracy)),
        None if row.worst_difference is None else f"{row.worst_difference:.1e}",
        *((f"{cost['ms']:.2f}", round(cost["clips_per_s"])) if cost else (None, None)),
    ]
