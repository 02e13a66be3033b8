"""Outputs of long measurements: checked before the first minute is spent, and held by one process at a time."""

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from triadbench.core import extras
from triadbench.core.errors import UserError
from triadbench.core.files import atomic_path


def check_writable(path: Path, option: str = "--out", *, appended: bool = False) -> None:
    """Check that a file can be written, and make its folder: better now than after hours of measuring.

    `option` is the way out that the UserError names. `appended`: the file itself is opened and added to, as records
    are; else a new file is renamed to its name.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise UserError(f"{path} is a folder, and a file is to be written there; name a file with {option}")
        if path.exists() and not path.is_file():
            raise UserError(f"{path} is no ordinary file; choose another {option}")
        if appended and path.exists():
            open(path, "r+b").close()
        else:
            place = Path(os.path.realpath(path)) if appended else path
            tempfile.NamedTemporaryFile(prefix=f".{path.stem}.", suffix=path.suffix, dir=place.parent).close()
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error}); choose another {option}") from error


def write_page(
    page: str | Callable[[], str], out: Path, records_path: Path, environment: dict, begun: float
) -> dict[str, Any]:
    """Write an HTML page, whole or not at all; `begun`: `time.perf_counter()` of the command's start.

    `page`: its text, or a function that makes it. Where that lacks a package (plotly), the measurements still count:
    no page is written, the result's `page` is None, and `why_no_page` is the line that names the package.

    Returns the beginning of the command's result: `page`, `records` (paths), `seconds` of everything, `environment`.
    """
    written: dict[str, Any] = {"page": str(out)}
    try:
        text = page if isinstance(page, str) else page()
        with atomic_path(Path(out)) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except ModuleNotFoundError as error:
        if (why := extras.missing(error, "the page")) is None:
            raise
        written = {"page": None, "why_no_page": why}
    seconds = round(time.perf_counter() - begun, 1)
    return {**written, "records": str(records_path), "seconds": seconds, "environment": environment}


def only_one(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Hold a folder of trials for this process alone, or raise UserError; a process that dies lets go of it."""
    busy = f"{folder}: another run is at work here"
    return _hold(folder / "lock", f"{folder}: cannot keep trials here", busy, "--run")


def only_writer(records_path: Path, option: str = "--records") -> contextlib.AbstractContextManager[None]:
    """Hold a record file for this process alone, by a file "NAME.lock" beside it; as `only_one`."""
    busy = f"{records_path}: another run is at work with these records"
    lock = records_path.with_name(f"{records_path.name}.lock")
    return _hold(lock, f"{records_path}: cannot be written", busy, option)


@contextlib.contextmanager
def _hold(lock: Path, refused: str, busy: str, option: str) -> Iterator[None]:
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = open(lock, "a")
    except OSError as error:
        raise UserError(f"{refused} ({error.strerror}); choose another {option}") from error
    with file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # Windows: two runs in one folder are the user's to avoid
            pass
        except OSError as error:
            raise UserError(f"{busy}; wait for it or choose another {option}") from error
        yield
