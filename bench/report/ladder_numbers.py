"""Figures of the ladder, computed from its records; the story, the chapter and the README's picture all read these."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from bench.report.pieces import PARTS, spread_badge

PER_CLIP = ("reading", "resampling", "mel", "copy", "synchronisation", "idle")
"""What a faster network does not shorten."""
NETWORK = ("forward", "backward", "optimizer")
TRAIN_SHARE = 0.7
"""Of the clips, where a record does not say how many it trained on: the original's split."""


def ladders(records: Sequence[dict]) -> dict[tuple, list[dict]]:
    """(device, task, batch size, clips) -> its rungs as rows, from the original up; largest set first, CPU first.

    Returns:
        rows of `rung`, `name`, `sentence`, `samples` (seconds an epoch), `median_s`, `first_s` (first epoch, or None),
        `over_original`, `over_previous` (times as fast, by medians), `parts` (seconds of the instrumented epoch),
        `instrumented_s`, `clips` (of an epoch), `losses`, `tolerance`, `worst_difference` (from the original's losses),
        `passed` (None where that cannot be said), `badge`, `switches`, `protocol`.
    """
    groups: dict[tuple, list[dict]] = {}
    for record in records:
        if record["name"] == "ladder" and record["samples"]:
            given = record["parameters"]
            key = tuple(given.get(name) for name in ("device", "task", "batch_size", "num_items"))
            groups.setdefault(key, []).append(record)
    order = sorted(groups, key=lambda key: (key[0] != "cpu", -(key[3] or 0), str(key)))
    return {key: _rows(sorted(groups[key], key=lambda record: record["parameters"]["rung"])) for key in order}


def _rows(records: list[dict]) -> list[dict]:
    # Where the original itself is missing nothing can be said "over the original".
    first = records[0] if records[0]["parameters"]["rung"] == 0 else None
    reference = median(first["samples"]) if first else None
    made: list[dict] = []
    for record in records:
        given, middle = record["parameters"], median(record["samples"])
        previous = made[-1] if made and made[-1]["rung"] == given["rung"] - 1 else None
        tolerance = record.get("spread_of_seeds")
        worst = None if first is None else _worst(record.get("losses") or [], first.get("losses") or [])
        made.append(
            {
                "rung": given["rung"],
                "name": given["name"],
                "sentence": record.get("sentence") or "",
                "switches": given.get("switches"),
                "protocol": given.get("protocol") or "",
                "samples": record["samples"],
                "median_s": middle,
                "first_s": record["first_call"],
                "over_original": reference / middle if reference else None,
                "over_previous": previous["median_s"] / middle if previous else None,
                "parts": {part: float(value) for part, value in (record.get("parts") or {}).items()},
                "instrumented_s": record.get("instrumented_s"),
                "clips": _clips(record),
                "losses": record.get("losses") or [],
                "tolerance": tolerance,
                "worst_difference": worst,
                "passed": None if worst is None or tolerance is None else worst <= tolerance,
                "badge": spread_badge(record["samples"], bool(record.get("disturbed"))),
            }
        )
    return made


def _worst(losses: Sequence[float], reference: Sequence[float]) -> float | None:
    """The largest difference of two loss curves; None where they cannot be laid over each other."""
    if not losses or len(losses) != len(reference):
        return None
    return max(abs(a - b) for a, b in zip(losses, reference, strict=True))


def _clips(record: dict) -> int:
    given = record["parameters"]
    for value in (record.get("n_train"), given.get("n_train"), record.get("clips")):
        if value:
            return int(value)
    return round(TRAIN_SHARE * given["num_items"])


def main_ladder(records: Sequence[dict], device: str) -> list[dict]:
    """The rungs of the largest ladder of a device ("cpu" or "cuda"), or nothing."""
    found = [rows for key, rows in ladders(records).items() if str(key[0]).split(":")[0] == device]
    complete = [rows for rows in found if rows[0]["rung"] == 0 and len(rows) > 1]
    return (complete or found or [[]])[0]


def parts_of(row: dict) -> dict[str, float]:
    """The parts of a rung in the order of `PARTS`, unknown ones after them."""
    names = [*PARTS, *(part for part in row["parts"] if part not in PARTS)]
    return {part: row["parts"][part] for part in names if part in row["parts"]}


def per_clip_ms(row: dict) -> dict[str, float]:
    """Milliseconds that one clip costs in each part."""
    return {part: 1e3 * value / row["clips"] for part, value in parts_of(row).items()}


def share(row: dict, parts: Sequence[str]) -> float | None:
    """The share that these parts have in a rung's instrumented epoch."""
    total = sum(row["parts"].values())
    return sum(row["parts"].get(part, 0.0) for part in parts) / total if total > 0 else None
