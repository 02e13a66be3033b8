"""Sounds of any name with chord labels: a `.lab` beside the sound, or a "label" in its folder's `clips.jsonl`.

A `.lab` has a line for each stretch, `start end label` in seconds and in Harte's syntax, or one label alone for the
whole sound. In the manifest, a sound may also have a "kind", by which results are grouped: `{"file": "hum.wav",
"label": "N", "kind": "hum"}`.
"""

import contextlib
import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from triadbench.core.audio.io import find_files
from triadbench.core.constants import CLIP_SECONDS
from triadbench.core.data.dataset import MANIFEST, parse_member, read_entry
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


def find_labelled(folder: Path) -> tuple[list[LabelledSound], list[tuple[str, str]]]:
    """The labelled sounds below a folder, sorted, and (name, reason) of those without a label.

    None of either in what is no folder, or where a clip is named as the data set's are and has no label beside it:
    then names alone tell.

    Raises:
        UserError: a `.lab` or a manifest that cannot be read.
    """
    sounds: list[LabelledSound] = []
    skipped: list[tuple[str, str]] = []
    manifests: dict[Path, dict[str, dict]] = {}
    for path in map(Path, find_files([folder]) if folder.is_dir() else []):
        if path == folder:  # nothing is in it
            break
        if path.parent not in manifests:
            lines = _lines(path.parent / MANIFEST) if (path.parent / MANIFEST).exists() else []
            entries = (read_entry(line, where) for line, where in lines)
            manifests[path.parent] = {entry["file"]: entry for entry in entries}
        entry, lab = manifests[path.parent].get(path.name, {}), path.with_suffix(".lab")
        if lab.exists():
            sounds.append(LabelledSound(path, read_lab(lab), entry.get("kind")))
        elif "label" in entry:
            where = f"{path.parent / MANIFEST}, {path.name}"
            sounds.append(LabelledSound(path, [_stretch([entry["label"]], where)], entry.get("kind")))
        elif _is_named(path):
            return [], []
        else:
            skipped.append((path.relative_to(folder).as_posix(), f"no label: no {lab.name}, none in {MANIFEST}"))
    return sounds, skipped


def read_lab(path: Path) -> list[Stretch]:
    """The stretches of a `.lab`, by time; UserError: none, one that is not as it should be, or two that overlap."""
    stretches = [_stretch(line.split(), where) for line, where in _lines(path)]
    if not stretches or any(a[1] > b[0] + 1e-6 for a, b in zip(stretches, stretches[1:], strict=False)):
        raise UserError(
            f"{path}: {'its stretches overlap' if stretches else 'empty'}; expected lines `start end label`"
        )
    return stretches


def main_label(stretches: Iterable[Stretch], seconds: float = CLIP_SECONDS) -> str:
    """The chord that lasts longest in the first seconds; "N" where chords fill less than a quarter of them."""
    lasts: dict[str, float] = {}
    for start, end, label in stretches:
        lasts[label] = lasts.get(label, 0.0) + max(0.0, min(end, seconds) - start)
    chords = {label: length for label, length in lasts.items() if label != NO_CHORD}
    is_chord = sum(chords.values()) >= _SHARE_OF_CHORDS * sum(lasts.values())
    return max(chords, key=chords.__getitem__) if chords and is_chord else NO_CHORD


def _is_named(path: Path) -> bool:
    with contextlib.suppress(UserError):
        return bool(parse_member(path.name))
    return False


def _stretch(parts: list[str], where: str) -> Stretch:
    try:
        start, end = map(float, parts[:-1]) if len(parts) == 3 else (0.0, math.inf)
        if len(parts) not in (1, 3) or not 0 <= start < end:
            raise ValueError("expected `start end label`, or a label alone")
        if parts[-1] != UNKNOWN:
            read_harte(parts[-1])
    except (ValueError, TypeError) as error:
        raise UserError(f"{where}: {error}") from error
    return start, end, parts[-1]


def _lines(path: Path) -> list[tuple[str, str]]:
    """The lines of a text that are not empty, each with what messages call it."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    return [(line, f"{path}, line {n}") for n, line in enumerate(lines, 1) if line.strip()]
