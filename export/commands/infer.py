"""The command `infer`: which files, with what, printed how. Imports what it needs in its body."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import click

from triadbench.core.commands import console
from triadbench.core.constants import usable_cores
from triadbench.core.errors import UserError
from triadbench.export.commands.timeline import FORMATS

_PROVIDERS = ("cpu", "cuda", "tensorrt", "torchscript", "torch")
_PRECISIONS = ("fp32", "fp16", "int8")
_GPU_BATCH = 64
_SPOOL_BYTES = 1 << 20


def _refuse_device(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        way = "--provider cuda (ONNX Runtime)" if value.startswith("cuda") else "--provider cpu or --provider torch"
        raise click.UsageError(f"infer has no --device any more; what computes is its provider: give {way}")


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILES|DIRS...")
@click.option(
    "--provider",
    type=click.Choice(_PROVIDERS),
    help="What computes: ONNX Runtime on the CPU, with CUDA or with TensorRT; PyTorch on an exported or on a trained "
    "model.  [default: cpu; torch for a checkpoint]",
)
@click.option("--precision", type=click.Choice(_PRECISIONS), default="fp32", help="Of the network.")
@click.option(
    "--model", type=click.Path(path_type=Path), help="Exported model or checkpoint.  [default: the shipped model]"
)
@click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: one a core]")
@click.option(
    "--alternatives", type=click.IntRange(0, 47), help="Next likely chords to name.  [default: 3; 2 in the table]"
)
@click.option("--device", hidden=True, expose_value=False, callback=_refuse_device)
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values, each file's as soon as it is done.")
@click.option("--jsonl", "as_jsonl", is_flag=True, help="Print a JSON object a line, each as soon as it is done.")
@click.option("--timeline", is_flag=True, help="The chords over time of whole songs, with key and progressions.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    multiple=True,
    help="With --timeline: file to write (.lab, .json, .csv, .mid, .html), or a folder; may be repeated.",
)
@click.option(
    "--format",
    "formats",
    type=click.Choice(FORMATS),
    multiple=True,
    help="With --timeline and a folder: what is written there; may be repeated.  [default: lab]",
)
@console.json_option
def infer(
    files: tuple[str, ...],
    provider: str | None,
    precision: str,
    model: Path | None,
    threads: int | None,
    alternatives: int | None,
    as_csv: bool,
    as_jsonl: bool,
    timeline: bool,
    out: tuple[Path, ...],
    formats: tuple[str, ...],
    as_json: bool,
) -> None:
    """Name the chord in FILES: wav, flac, ogg or mp3 of any rate, length and channel count, folders with all below
    them, or - for standard input.

    A long file is heard in windows of 4 s; "agree" is the share of its sound that says the same chord. Silence is
    answered N, no chord. A file that cannot be read is reported, the rest goes on, and the exit code is 1.

    With --timeline, a song of any length is heard in windows of half a second, and each chord is told with its times.

    \b
    Examples:
      python cli.py infer chord.wav
      python cli.py infer recordings --jsonl > chords.jsonl
      python cli.py infer one.mp3 two.flac --json --alternatives 5
      ffmpeg -i film.mkv -f wav - | python cli.py infer -
      python cli.py infer recordings --provider cuda --csv
      python cli.py infer song.mp3 --timeline --out song.lab --out song.html
      python cli.py infer album --timeline --out chords --format lab --format mid
    """
    if as_csv + as_json + as_jsonl > 1:
        raise click.UsageError("choose --csv, --json or --jsonl")
    _check_timeline(timeline, out, formats, as_csv, alternatives)
    from triadbench.core.audio.io import find_files

    found = find_files(files)
    provider, note = (provider, None) if provider else _provider_of(model)
    if timeline:
        settings = {"model": model, "provider": provider, "precision": precision, "threads": threads or usable_cores()}
        _timelines(found, settings, out, formats, note, as_json, as_jsonl)
        return
    show: Callable[[Iterable[dict]], None]
    if as_json:
        show = _Object({"model": str(model or "shipped"), "provider": provider})
    elif as_jsonl:
        show = _each(lambda result: console.json_text(result) + "\n")
    elif as_csv:
        show = _each(_csv_line(with_alternatives=alternatives is not None))
    else:
        show = _each(_table_line(found, 2 if alternatives is None else alternatives))
    alternatives = 3 if alternatives is None else alternatives
    console.resume_hint(
        "nothing was printed" if as_json else "what was done by then is printed; give the other files to go on"
    )
    with contextlib.closing(_answers(found, provider, precision, model, threads, alternatives, note)) as results:
        failed = _Failed(results, len(found))
        try:
            show(failed)
        finally:
            failed.report()
    if failed.lines:
        raise UserError(f"{len(failed.lines)} of {failed.n} files failed")


def _check_timeline(
    timeline: bool, out: tuple[Path, ...], formats: tuple[str, ...], as_csv: bool, alternatives: int | None
) -> None:
    if not timeline and (out or formats):
        raise click.UsageError(f"{'--out' if out else '--format'} is for --timeline; without it, redirect the output")
    if timeline and as_csv:
        raise click.UsageError("a timeline as CSV is a file: give --out FILE.csv")
    if timeline and alternatives is not None:
        raise click.UsageError("--alternatives is of single chords; a timeline names one chord at a time")


def _timelines(
    found: list[str],
    settings: dict,
    out: tuple[Path, ...],
    formats: tuple[str, ...],
    note: str | None,
    as_json: bool,
    as_jsonl: bool,
) -> None:
    from triadbench.export.commands import timeline as timeline_command

    timeline_command.check(found, out, formats)
    console.resume_hint("finished recordings are printed and written; give the other files to go on")
    results = timeline_command.timelines(found, settings, out, formats, note)
    described = {"model": str(settings["model"] or "shipped"), "provider": settings["provider"]}
    failed = timeline_command.show(results, len(found), described, as_json, as_jsonl)
    for line in failed:
        console.note(f"failed: {line}")
    if failed:
        raise UserError(f"{len(failed)} of {len(found)} files failed")


def _provider_of(model: Path | None) -> tuple[str, str | None]:
    """By the kind of file; with what to tell the user where it is not the usual one."""
    name = "" if model is None else model.name.lower()
    if name.endswith(".torchscript.pt"):
        return "torchscript", f"{model} is TorchScript: answered by PyTorch (--provider torchscript)"
    if name.endswith((".safetensors", ".pt", ".pth")):
        return "torch", f"{model} is a checkpoint: answered by PyTorch (--provider torch); `export` makes it faster"
    return "cpu", None


def _answers(
    found: list[str],
    provider: str,
    precision: str,
    model: Path | None,
    threads: int | None,
    alternatives: int,
    note: str | None,
) -> Iterator[dict]:
    from triadbench.export.predict.bulk import BATCH, infer_files
    from triadbench.export.predict.predictor import ChordPredictor

    threads = threads or usable_cores()
    # On a CPU each thread answers for files of its own, all alone: that wastes less than several for one answer.
    at_once = provider == "cpu" and len(found) > 1
    predictor = ChordPredictor(model, provider, precision=precision, threads=1 if at_once else threads)
    results = infer_files(
        predictor,
        found,
        alternatives,
        workers=min(threads, len(found)),
        batch=_GPU_BATCH if provider in ("cuda", "tensorrt") else BATCH,
        at_once=at_once,
    )
    with contextlib.closing(results):
        for result in results:
            if note is not None:
                console.note(note)
                note = None
            yield result


class _Failed:
    """Results passed on as they are, with the failed ones' reasons kept and progress reported on stderr."""

    def __init__(self, results: Iterable[dict], total: int):
        self.lines: list[str] = []
        self.n = 0
        self._results, self._total = results, total

    def __iter__(self) -> Iterator[dict]:
        with console.progress("infer", "files") if self._total > 1 else contextlib.nullcontext() as progress:
            for result in self._results:
                self.n += 1
                if "error" in result:
                    self.lines.append(result["error"])
                yield result
                if progress is not None:
                    progress(self.n, self._total)

    def report(self) -> None:
        for line in self.lines:
            console.note(f"failed: {line}")


# --- ways to print ---------------------------------------------------------------------------------------------------


def _each(text: Callable[[dict], str]) -> Callable[[Iterable[dict]], None]:
    """Print every result as soon as it comes."""

    def show(results: Iterable[dict]) -> None:
        for result in results:
            if line := text(result):
                console.write(line)

    return show


def _table_line(found: list[str], others: int) -> Callable[[dict], str]:
    from triadbench.core.commands.tables import ChordTable

    return ChordTable(found, others).line


def _csv_line(with_alternatives: bool) -> Callable[[dict], str]:
    columns = [
        "file",
        "chord",
        "type",
        "root",
        "confidence",
        "type_confidence",
        "root_confidence",
        "agreement",
        "duration_s",
        "windows",
        "error",
    ]
    columns += ["alternatives"] if with_alternatives else []
    first = True

    def line(result: dict) -> str:
        nonlocal first
        others = result.get("alternatives", [])
        row = result | {"alternatives": " ".join(f"{o['chord']}:{o['confidence']:.6f}" for o in others)}
        text = _csv_row(row.get(column) for column in columns)
        if first:
            text, first = _csv_row(columns) + text, False
        return text

    return line


def _csv_row(values: Iterable) -> str:
    # The writer quotes those line ends that it is told to write: both, so that a name that holds one stays whole.
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerow(values)
    return out.getvalue().removesuffix("\r\n") + "\n"


class _Object:
    """One JSON object at the end; until then results wait as text, beyond a megabyte in a file, not in memory."""

    def __init__(self, described: dict):
        self._described = described

    def __call__(self, results: Iterable[dict]) -> None:
        n = failed = 0
        with tempfile.SpooledTemporaryFile(_SPOOL_BYTES, "w+", encoding="ascii") as kept:
            for result in results:
                kept.write((", " if n else "") + json.dumps(result, allow_nan=False))
                n += 1
                failed += "error" in result
            described = json.dumps(self._described | {"n": n, "failed": failed})
            console.write(described[:-1] + ', "results": [')
            kept.seek(0)
            while part := kept.read(_SPOOL_BYTES):
                console.write(part)
            console.write("]}\n")
