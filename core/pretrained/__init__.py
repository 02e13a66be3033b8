"""The model that is shipped: weights, exported files and their card (README.md), as package data."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

MODEL = "chordnet"


def pretrained_path(name: str = "") -> Path:
    """Path of the shipped file `name`, whether it is there or not; of their folder without a name."""
    folder = Path(str(resources.files(__name__)))
    return folder / name if name else folder
