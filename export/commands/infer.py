"""The command `infer`: which files, with what, printed how. Imports what it needs in its body."""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import itertools
import json
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import click

from triadbench.core.commands import console
from triadbench.core.constants import ONNX_PROVIDERS, PRECISIONS, PROVIDERS, TIMELINE_FORMATS, usable_cores
from triadbench.core.errors import UserError
from triadbench.core.files import ModelFiles, model_paths

if TYPE_CHECKING:
    from triadbench.export.predict.predictor import ChordPredictor

_PATH = click.Path(path_type=Path)
_SPOOL_BYTES = 1 << 20
_COLUMNS = (
    "file chord type root confidence type_confidence root_confidence agreement duration_s windows"
    " name label bass label_confidence error"
).split()

_SHARES = "label_confidence", "type_confidence", "root_confidence", "agreement"  # in the table


def _refuse_device(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        way = "--provider cuda (ONNX Runtime)" if value.startswith("cuda") else "--provider cpu or --provider torch"
        raise click.UsageError(f"infer has no --device any more; what computes is its provider: give {way}")


@click.command()
@click.argument("files", nargs=-1, metavar="[FILES|DIRS...]")
@click.option(
    "--provider",
    type=click.Choice(PROVIDERS),
    help="What computes: ONNX Runtime on the CPU, with CUDA or with TensorRT; PyTorch on an exported or on a trained "
    "model.  [default: cpu; torch for a checkpoint]",
)
@click.option("--precision", type=click.Choice(PRECISIONS), default="fp32", help="Of the network.")
@console.model_option("Exported model or checkpoint.  [default: the shipped model]")
@click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: one a core]")
@click.option("--alternatives", type=click.IntRange(0, 204), help="Next likely chords.  [default: 3; 2 in the table]")
@click.option("--triads", is_flag=True, help="Triads alone: every chord is answered with one, and only silence with N.")
@click.option("--device", hidden=True, expose_value=False, callback=_refuse_device)
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values, each file's as soon as it is done.")
@click.option("--jsonl", "as_jsonl", is_flag=True, help="Print a JSON object a line, each as soon as it is done.")
@click.option("--timeline", is_flag=True, help="The chords over time of whole songs, with key, beats and progressions.")
@click.option(
    "--out",
    type=_PATH,
    multiple=True,
    help=f"With --timeline: folder or file (.{', .'.join(TIMELINE_FORMATS)}); repeatable.",
)
@click.option(
    "--format",
    "formats",
    type=click.Choice(TIMELINE_FORMATS),
    multiple=True,
    help="With --timeline and a folder: of the files there; may be repeated.  [default: lab]",
)
@console.json_option
def infer(
    files: tuple[str, ...],
    provider: str | None,
    precision: str,
    model: ModelFiles | None,
    threads: int | None,
    alternatives: int | None,
    triads: bool,
    as_csv: bool,
    as_jsonl: bool,
    timeline: bool,
    out: tuple[Path, ...],
    formats: tuple[str, ...],
    as_json: bool,
) -> None:
    """Name the chord in FILES: sound or film of any kind, rate, length and channel count, folders with all below them,
    or - for standard input.

    A chord has its full name ("Am7", "C/E") with how sure it is, and how sure type and root of its triad are. A long
    file is cut into windows of 4 s; "agree" is the share of its sound that says the same chord. Silence, and what is
    no chord, is answered N. A file that cannot be read is reported, the rest goes on, and the exit code is 1.

    With --timeline, a song of any length is cut into windows of half a second, and each chord is printed with its
    times. Without FILES, the chords of the shipped examples are named.

    \b
    Examples:
      python cli.py infer --provider cuda
      python cli.py infer chord.wav
      python cli.py infer recordings --jsonl > chords.jsonl
      python cli.py infer one.mp3 two.flac --json --alternatives 5
      ffmpeg -i film.mkv -f wav - | python cli.py infer -
      python cli.py infer recordings --provider cuda --csv
      python cli.py infer song.mp3 --timeline --out song.lab --out song.html
      python cli.py infer album --timeline --out chords --format lab --format mid
      python cli.py infer chord.wav --model type.pth --model root.pth
    """
    if as_csv + as_json + as_jsonl > 1:
        raise click.UsageError("choose --csv, --json or --jsonl")
    if not timeline and (out or formats):
        raise click.UsageError(f"{'--out' if out else '--format'} is for --timeline; without it, redirect the output")
    if timeline and as_csv:
        raise click.UsageError("a timeline as CSV is a file: give --out FILE.csv")
    if timeline and alternatives is not None:
        raise click.UsageError("--alternatives is of single chords; a timeline names one chord at a time")
    from triadbench.core.audio.io import find_files

    paths = find_files(files or _examples(timeline))
    if timeline:
        _check_outputs(paths, out, formats)
    from triadbench.export.predict.predictor import ChordPredictor

    provider, note = (provider, None) if provider else _provider_of(model)
    name = "shipped" if model is None else " + ".join(map(str, model_paths(model)))
    threads = threads or usable_cores()
    # On a CPU each thread answers for files of its own, all alone: that wastes less than several for one answer.
    alone = provider == "cpu" and len(paths) > 1 and not timeline
    predictor = ChordPredictor(model, provider, precision=precision, threads=1 if alone else threads, triads=triads)
    if note:
        console.note(note)
    if timeline:
        hint = "finished recordings are printed and written; give the other files to go on"
        results = _timelines(paths, predictor, out, formats, as_text=not (as_json or as_jsonl))
    else:
        hint = "nothing was printed" if as_json else "what was done by then is printed; give the other files to go on"
        results = _name_clips(predictor, paths, 3 if alternatives is None else alternatives, threads, alone)
    console.resume_hint(hint)
    texts: Callable[[Iterable[dict]], Iterator[str]]
    if as_json:
        texts = functools.partial(_object, described={"model": name, "provider": provider})
    elif as_jsonl:
        texts = functools.partial(map, lambda result: console.json_text(result) + "\n")
    elif timeline:
        texts = functools.partial(_timeline_texts, with_names=len(paths) > 1)
    elif as_csv:
        texts = functools.partial(_csv_lines, with_alternatives=alternatives is not None)
    else:
        texts = functools.partial(_table, files=paths, n_others=2 if alternatives is None else alternatives)
    failed: list[str] = []
    try:
        for text in texts(_noting_errors(results, failed)):
            console.write(text)
    finally:
        results.close()
        for line in failed:
            console.note(f"failed: {line}")
    if failed:
        raise UserError(f"{len(failed)} of {len(paths)} files failed")


def _examples(song: bool) -> list[str]:
    """The paths of the shipped sounds: a song, or clips of one chord each; with a line that says so."""
    folder = Path(str(resources.files("triadbench.export"))) / "app" / "examples"
    if folder.is_relative_to(Path.cwd()):
        folder = folder.relative_to(Path.cwd())
    names = sorted(entry.name for entry in folder.iterdir() if (entry.name == "progression-in-g-major.ogg") == song)
    console.note(f"No files were given: these are the shipped examples, in {folder}")
    return [str(folder / name) for name in names if name.endswith(".ogg")]


def _provider_of(model: ModelFiles | None) -> tuple[str, str | None]:
    """By the kind of file; with a line for the user where PyTorch answers."""
    from triadbench.export.predict.predictor import file_kind, provider_of

    if model is None or (provider := provider_of(model)) in ONNX_PROVIDERS:
        return provider_of(model), None
    faster = "; `export` makes it faster" if provider == "torch" else ""
    said = ", ".join(f"{path} is {file_kind(path)[0]}" for path in model_paths(model))
    return provider, f"{said}: answered by PyTorch (--provider {provider}){faster}"


def _name_clips(
    predictor: ChordPredictor, paths: Sequence[str], alternatives: int, threads: int, at_once: bool
) -> Generator[dict, None, None]:
    """Results of `infer_files`, with progress and the predictor's note on stderr."""
    from triadbench.export.predict.bulk import BATCH, infer_files

    batch = 64 if predictor.provider in ("cuda", "tensorrt") else BATCH
    workers, noted = min(threads, len(paths)), None
    results = infer_files(predictor, paths, alternatives, workers=workers, batch=batch, at_once=at_once)
    with contextlib.closing(results), contextlib.ExitStack() as stack:
        progress = stack.enter_context(console.progress("infer", "files")) if len(paths) > 1 else None
        for done, result in enumerate(results, 1):
            if predictor.note != noted:
                noted = predictor.note
                console.note(f"{noted}")
            yield result
            if progress is not None:
                progress(done, len(paths))


def _check_outputs(files: Sequence[str], out: Sequence[Path], formats: Sequence[str]) -> None:
    """Raises click.UsageError where --out and --format do not go with these files, before any of them is read."""
    from triadbench.export.songs.files import format_of

    if formats and not out:
        raise click.UsageError("--format says what is written into a folder; give it with --out DIR")
    for path in filter(_is_file_name, out):
        if len(files) > 1:
            way_out = "give a folder, as in --out chords --format lab"
            raise click.UsageError(f"--out {path}: {len(files)} recordings do not fit into one file; {way_out}")
        if formats:
            raise click.UsageError(f"--out {path} names its format by itself; leave out --format, or give a folder")
        try:
            format_of(path)
        except UserError as error:
            raise click.UsageError(f"--out {error}, or give a folder") from error


def _timelines(
    files: Sequence[str], predictor: ChordPredictor, out: Sequence[Path], formats: Sequence[str], as_text: bool
) -> Generator[dict, None, None]:
    """One result for each recording, in order, whose files are written by then: {"file", "segments", ...}, as text
    {"file", "text"}, or {"file", "error"}."""
    from triadbench.export.predict.bulk import source_of
    from triadbench.export.songs.files import text, write
    from triadbench.export.songs.timeline import find_timeline

    taken: set[Path] = set()
    for file in files:
        written: list[str] = []
        notes: list[str] = []
        try:
            source, name = source_of(file)
            with console.progress("timeline" if len(files) == 1 else Path(file).name, "s of sound") as report:
                timeline = find_timeline(
                    source,
                    predictor,
                    name=name,
                    note=notes.append,
                    progress=lambda *at: report(*(t if t is None else int(t) for t in at)),
                )
            for path, kind in _places(file, out, formats, taken):
                write(timeline, path, kind)
                written.append(str(path))
        except UserError as error:
            yield {"file": file, "error": " ".join(str(error).split())}
            continue
        for place in written:
            console.note(f"Wrote {place}")
        details = {"text": text(timeline)} if as_text else {**timeline.as_dict(), "written": written}
        yield {"file": file, **({"note": "; ".join(notes)} if notes else {}), **details}


def _is_file_name(path: Path) -> bool:
    return bool(path.suffix) and not path.is_dir()


def _places(file: str, out: Sequence[Path], formats: Sequence[str], taken: set[Path]) -> Iterator[tuple[Path, str]]:
    """Where a recording's timeline is written, with the format; a name that is taken gets a number."""
    from triadbench.core.audio.io import STDIN
    from triadbench.export.songs.files import format_of

    stem = "stdin" if file == STDIN else Path(file).stem
    for path in out:
        if _is_file_name(path):
            yield path, format_of(path)
            continue
        for kind in dict.fromkeys(formats or ("lab",)):
            names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
            place = next(place for name in names if (place := path / f"{name}.{kind}") not in taken)
            taken.add(place)
            yield place, kind


def _noting_errors(results: Iterable[dict], failed: list[str]) -> Iterator[dict]:
    for result in results:
        if "note" in result:
            console.note(result["note"])
        if "error" in result:
            failed.append(result["error"])
        yield result


def _object(results: Iterable[dict], described: dict) -> Iterator[str]:
    """One JSON object at the end; until then results wait as text, beyond a megabyte in a file, not in memory."""
    n = failed = 0
    with tempfile.SpooledTemporaryFile(_SPOOL_BYTES, "w+", encoding="ascii") as kept:
        for result in results:
            kept.write((", " if n else "") + json.dumps(result, allow_nan=False))
            n += 1
            failed += "error" in result
        yield json.dumps(described | {"n": n, "failed": failed})[:-1] + ', "results": ['
        kept.seek(0)
        while part := kept.read(_SPOOL_BYTES):
            yield part
        yield "]}\n"


def _timeline_texts(results: Iterable[dict], with_names: bool) -> Iterator[str]:
    for result in results:
        if "text" in result:
            yield f"{result['file']}\n{result['text']}\n" if with_names else result["text"]


def _csv_lines(results: Iterable[dict], with_alternatives: bool) -> Iterator[str]:
    columns = [*_COLUMNS, "alternatives"] if with_alternatives else _COLUMNS
    for n, result in enumerate(results):
        if n == 0:
            yield _csv_row(columns)
        others = result.get("alternatives", [])
        row = result | {"alternatives": " ".join(f"{o['name'].replace(' ', '')}:{o['confidence']:.6f}" for o in others)}
        yield _csv_row(row.get(column) for column in columns)


def _csv_row(values: Iterable) -> str:
    # The writer quotes those line ends that it is told to write: both, so that a name that holds one stays whole.
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerow(values)
    return out.getvalue().removesuffix("\r\n") + "\n"


def _table(results: Iterable[dict], files: Sequence[str], n_others: int) -> Iterator[str]:
    """For reading: the columns' widths are known beforehand, and a file that failed has no line."""
    widths = [max(len("file"), *(len(console.printable(file)) for file in files)), 8, 7, 7, 7, 7, 7, 0]

    def row(texts: Sequence[str]) -> str:
        return "  ".join(map(str.ljust, texts, widths)).rstrip() + "\n"

    head = row(["file", "chord", "sure", "type", "root", "agree", "seconds", "or" if n_others else ""])
    head += row([*("-" * width for width in widths[:-1]), "-" * 12 * n_others])
    for result in results:
        if "error" not in result:
            others = [f"{other['name']} {_percent(other['confidence'])}" for other in result["alternatives"]]
            shares = [_percent(result[key]) for key in _SHARES]
            named = [console.printable(result["file"]), result["name"], *shares, f"{result['duration_s']:.2f}"]
            yield head + row([*named, ", ".join(others[:n_others])])
            head = ""


def _percent(share: float | None) -> str:
    return "—" if share is None else f"{100 * share:.1f} %"
