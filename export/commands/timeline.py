"""`infer --timeline`: which recordings, with what, written where. Imports what it needs in its functions."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from triadbench.core.commands import console
from triadbench.core.errors import UserError

FORMATS = ("lab", "json", "csv", "mid", "html")
_STDIN = "-"


def check(found: Sequence[str], out: Sequence[Path], formats: Sequence[str]) -> None:
    """What is wrong with --out and --format for these files, before any of them is heard."""
    if formats and not out:
        raise click.UsageError("--format says what is written into a folder; give it with --out DIR")
    named = [path for path in out if path.suffix and not path.is_dir()]
    if len(found) > 1 and named:
        raise click.UsageError(
            f"--out {named[0]}: {len(found)} recordings do not fit into one file; give a folder, as in --out chords "
            "--format lab"
        )
    if formats and named:
        raise click.UsageError(f"--out {named[0]} names its format by itself; leave out --format, or give a folder")
    for path in named:
        suffix = path.suffix.lower().lstrip(".")
        if suffix not in (*FORMATS, "midi", "htm"):
            raise click.UsageError(
                f"--out {path}: give a name that ends in {', '.join('.' + name for name in FORMATS)}, or a folder"
            )


def timelines(
    found: list[str],
    predictor_settings: dict,
    out: Sequence[Path],
    formats: Sequence[str],
    note: str | None,
) -> Iterator[tuple[dict, str]]:
    """(result, table) of each recording, in order: {"file", "segments", ...} or {"file", "error"}; files are written.

    Raises:
        UserError: the model cannot be used.
    """
    from triadbench.export.predict.predictor import ChordPredictor
    from triadbench.export.songs.files import text, write
    from triadbench.export.songs.timeline import find_timeline

    predictor = ChordPredictor(**predictor_settings)
    if note is not None:
        console.note(note)
    taken: set[Path] = set()
    for file in found:
        written = []
        try:
            with _progress(file, len(found)) as progress:
                timeline = find_timeline(
                    _source(file), predictor, name="standard input" if file == _STDIN else None, progress=progress
                )
            for path, kind in _places(file, out, formats, taken):
                write(timeline, path, kind)
                written.append(str(path))
        except UserError as error:
            yield {"file": file, "error": " ".join(str(error).split())}, ""
            continue
        for path in written:
            console.note(f"Wrote {path}")
        yield {"file": file, **timeline.as_dict(), "written": written}, text(timeline)


@contextlib.contextmanager
def _progress(file: str, n: int):
    label = "timeline" if n == 1 else os.path.basename(file)
    with console.progress(label, "s of sound") as report:
        yield lambda done, total: report(int(done), None if total is None else int(total))


def _source(file: str):
    if file != _STDIN:
        if os.path.isdir(file):
            raise UserError(f"{file}: no audio file in this folder")
        return file
    source = getattr(sys.stdin, "buffer", None)
    if source is None or sys.stdin.isatty():
        raise UserError("standard input: no sound comes from there; pipe a file into it, as in `infer - < song.mp3`")
    return source


def _places(file: str, out: Sequence[Path], formats: Sequence[str], taken: set[Path]) -> list[tuple[Path, str | None]]:
    """Where a recording's timeline is written, with the format; a name that is taken gets a number."""
    places: list[tuple[Path, str | None]] = []
    for path in out:
        if path.suffix and not path.is_dir():
            places.append((path, None))
            continue
        stem = "stdin" if file == _STDIN else Path(file).stem
        for kind in dict.fromkeys(formats or ("lab",)):
            place, number = path / f"{stem}.{kind}", 2
            while place in taken:
                place, number = path / f"{stem}-{number}.{kind}", number + 1
            taken.add(place)
            places.append((place, kind))
    return places


def show(results: Iterator[tuple[dict, str]], n: int, described: dict, as_json: bool, as_jsonl: bool) -> list[str]:
    """Print what comes; the errors' lines are returned."""
    failed: list[str] = []
    kept = []
    for result, table in results:
        if "error" in result:
            failed.append(result["error"])
        if as_json:
            kept.append(json.dumps(result, allow_nan=False))
        elif as_jsonl:
            console.write(console.json_text(result) + "\n")
        elif table:
            console.write((f"{result['file']}\n" if n > 1 else "") + table + ("\n" if n > 1 else ""))
    if as_json:
        head = json.dumps(described | {"n": n, "failed": len(failed)})
        console.write(f'{head[:-1]}, "results": [{", ".join(kept)}]}}\n')
    return failed
