"""Sounds of any name with chord labels: a `.lab` beside the sound, or a "label" in its folder's `clips.jsonl`.

A `.lab` has a line `start end label` for each stretch, in seconds and in Harte's syntax; what no stretch covers is no
chord. In the manifest, a sound may also have a "kind", by which results are grouped: `{"file": "hum.wav", "label": "N",
"kind": "hum"}`.
"""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from triadbench.core.audio.io import find_files
from triadbench.core.constants import CLIP_SECONDS
from triadbench.core.data.dataset import MANIFEST, read_entry
from triadbench.core.errors import UserError
from triadbench.core.models.chords import NO_CHORD
from triadbench.core.models.spelling import UNKNOWN, read_harte

Stretch = tuple[float, float, str]
"""Start and end in seconds (infinite: to the end of the sound), and a label in Harte's syntax."""
_SHARE_OF_CHORDS = 0.25


class LabelledSound(NamedTuple):
    """A sound file, what sounds in it from when to when, and what kind of sound it is."""

    path: Path
    stretches: list[Stretch]
    kind: str | None = None


def find_labelled(folder: Path) -> tuple[list[LabelledSound], list[dict]]:
    """The labelled sounds below a folder, sorted, and {"file", "reason"} of those without a label.

    Raises:
        UserError: a `.lab` or a manifest that cannot be read.
    """
    sounds: list[LabelledSound] = []
    skipped: list[dict] = []
    manifests: dict[Path, dict[str, dict]] = {}
    for path in map(Path, find_files([folder])):
        if path == folder:  # it is none, or nothing is in it
            break
        manifest, lab = path.parent / MANIFEST, path.with_suffix(".lab")
        if path.parent not in manifests:
            entries = (read_entry(*line) for line in (_lines(manifest) if manifest.exists() else []))
            manifests[path.parent] = {entry["file"]: entry for entry in entries}
        entry = manifests[path.parent].get(path.name, {})
        if lab.exists():
            stretches = read_lab(lab)
        elif "label" in entry:
            stretches = [(0.0, math.inf, _label(entry["label"], f"{manifest}, {path.name}"))]
        else:
            reason = f"no label: no {lab.name}, none in {MANIFEST}"
            skipped.append({"file": path.relative_to(folder).as_posix(), "reason": reason})
            continue
        sounds.append(LabelledSound(path, stretches, str(entry["kind"]) if "kind" in entry else None))
    return sounds, skipped


def read_lab(path: Path) -> list[Stretch]:
    """The stretches of a `.lab`, by time; UserError: none, one that is not as it should be, or two that overlap."""
    stretches: list[Stretch] = []
    for line, where in _lines(path):
        try:
            start, end, label = line.split()
            stretches.append((float(start), float(end), _label(label, where)))
            before = stretches[-2][1] if len(stretches) > 1 else 0.0
            if not before - 1e-6 <= float(start) < float(end):
                raise ValueError
        except ValueError:
            raise UserError(f"{where}: expected `start end label`, the start not before the last end") from None
    if not stretches:
        raise UserError(f"{path}: empty; expected lines `start end label`")
    return stretches


def main_label(stretches: Iterable[Stretch], seconds: float = CLIP_SECONDS) -> str:
    """The chord that lasts longest in the first seconds; "N" where chords fill less than a quarter of what is labelled
    there."""
    lasts: dict[str, float] = {}
    for start, end, label in stretches:
        lasts[label] = lasts.get(label, 0.0) + max(0.0, min(end, seconds) - start)
    none = lasts.pop(NO_CHORD, 0.0)
    chords = sum(lasts.values())
    return max(lasts, key=lasts.__getitem__) if chords and chords >= _SHARE_OF_CHORDS * (chords + none) else NO_CHORD


def _label(label: object, where: str) -> str:
    try:
        if label != UNKNOWN:
            read_harte(str(label))
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error
    return str(label)


def _lines(path: Path) -> list[tuple[str, str]]:
    """The lines of a text that are not empty, each with what messages call it."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    return [(line, f"{path}, line {n}") for n, line in enumerate(lines, 1) if line.strip()]
