"""Outputs of long measurements: checked before the first minute is spent, and pages from them."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from triadbench.core import extras
from triadbench.core.errors import UserError
from triadbench.core.files import atomic_path
from triadbench.kernels.scratch import scratch_folder


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
            with scratch_folder(place.parent):
                pass
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error}); choose another {option}") from error


def check_page(path: Path) -> None:
    """As `check_writable`, of an HTML page, which its name must say."""
    if path.suffix.lower() not in (".html", ".htm") and not path.is_dir():
        raise click.UsageError(f"--out {path}: the page is HTML; give a name that ends in .html")
    check_writable(path)


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
