"""Options that `experiment` and `study` share."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from triadbench.core.commands import console

if TYPE_CHECKING:
    from triadbench.bench.study.session import Settings

PATH = click.Path(path_type=Path)
RECORDS = Path("runs/study/records.jsonl")
device = click.option("--device", default="all", help="cpu, cuda, or all that are here.")
data = click.option("--data", type=PATH, help="Folder, zip or pack of clips.  [default: rendered once into data/study]")
records = click.option("--records", type=PATH, default=RECORDS, help="JSON Lines file to append to.")


def progress(label: str) -> AbstractContextManager:
    """A bar for a step of the study."""
    return console.progress(label, "epochs" if label in ("trials", "rungs") else "clips")


def settings(folder: Path, records_path: Path, data_path: Path | None) -> Settings:
    """A run's settings, with progress and notes on stderr."""
    from triadbench.bench.study.session import Settings

    return Settings(folder, records_path, progress, console.note, data_path)
