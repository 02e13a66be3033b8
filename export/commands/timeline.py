"""`infer --timeline`: which recordings, with what, written where."""

import contextlib
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path

import click

from triadbench.core.audio.io import STDIN
from triadbench.core.commands import console
from triadbench.core.errors import UserError
from triadbench.export.predict.bulk import source_of
from triadbench.export.predict.predictor import ChordPredictor
from triadbench.export.songs.files import format_of, text, write
from triadbench.export.songs.timeline import find_timeline


def check(files: Sequence[str], out: Sequence[Path], formats: Sequence[str]) -> None:
    """Raises click.UsageError where --out and --format do not go with these files, before any of them is read."""
    if formats and not out:
        raise click.UsageError("--format says what is written into a folder; give it with --out DIR")
    for path in filter(_is_file_name, out):
        if len(files) > 1:
            raise click.UsageError(
                f"--out {path}: {len(files)} recordings do not fit into one file; give a folder, as in --out chords "
                "--format lab"
            )
        if formats:
            raise click.UsageError(f"--out {path} names its format by itself; leave out --format, or give a folder")
        try:
            format_of(path)
        except UserError as error:
            raise click.UsageError(f"--out {error}, or give a folder") from error


def timelines(
    files: Sequence[str], predictor: ChordPredictor, out: Sequence[Path], formats: Sequence[str], as_text: bool
) -> Generator[dict, None, None]:
    """One result for each recording, in order, whose files are written by then: {"file", "segments", ...}, as text
    {"file", "text"}, or {"file", "error"}.

    Raises:
        UserError: the model cannot be used.
    """
    taken: set[Path] = set()
    for file in files:
        written = []
        try:
            source, name = source_of(file)
            with _progress(file, len(files)) as progress:
                timeline = find_timeline(source, predictor, name=name, progress=progress)
            for path, kind in _places(file, out, formats, taken):
                write(timeline, path, kind)
                written.append(str(path))
        except UserError as error:
            yield {"file": file, "error": " ".join(str(error).split())}
            continue
        for place in written:
            console.note(f"Wrote {place}")
        details = {"text": text(timeline)} if as_text else {**timeline.as_dict(), "written": written}
        yield {"file": file, **details}


@contextlib.contextmanager
def _progress(file: str, n: int) -> Iterator[Callable[[float, float | None], None]]:
    label = "timeline" if n == 1 else os.path.basename(file)
    with console.progress(label, "s of sound") as report:
        yield lambda done, total: report(int(done), None if total is None else int(total))


def _is_file_name(path: Path) -> bool:
    return bool(path.suffix) and not path.is_dir()


def _places(file: str, out: Sequence[Path], formats: Sequence[str], taken: set[Path]) -> Iterator[tuple[Path, str]]:
    """Where a recording's timeline is written, with the format; a name that is taken gets a number."""
    stem = "stdin" if file == STDIN else Path(file).stem
    for path in out:
        if _is_file_name(path):
            yield path, format_of(path)
            continue
        for kind in dict.fromkeys(formats or ("lab",)):
            place, number = path / f"{stem}.{kind}", 2
            while place in taken:
                place, number = path / f"{stem}-{number}.{kind}", number + 1
            taken.add(place)
            yield place, kind
