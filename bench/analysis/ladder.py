"""Figures of the ladder, computed from its records; the story, the chapter and the README's picture all read these."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from triadbench.bench.analysis import pairing
from triadbench.bench.report.sections import PARTS, spread_badge

PER_CLIP = ("reading", "resampling", "mel", "copy", "synchronisation", "idle")
"""What a faster network does not shorten."""
NETWORK = ("forward", "backward", "optimizer")
TRAIN_SHARE = 0.7
"""Of the clips, where a record does not say how many it trained on: the original's split."""


NAMES = ("ladder", "ladder left out")
"""A rung that was timed, and one that failed its check and was not."""


def ladders(records: Sequence[dict]) -> dict[tuple, list[dict]]:
    """(device, task, batch size, clips, threads) -> its rungs as rows, from the original up.

    CPU first, then the largest set, then most threads.

    Returns:
        rows of `rung`, `name`, `sentence`, `samples` (seconds an epoch; none for a rung that failed its check),
        `median_s`, `first_s` (first epoch, or None), `over_original`, `over_previous` (times as fast, by medians),
        `parts` (seconds of the instrumented epoch), `instrumented_s`, `clips` (of an epoch), `losses`,
        `losses_of_seeds` (of the original with other seeds), `tolerance`, `worst_difference` (from the original's
        losses), `passed` (None where that cannot be said), `badge`, `protocol`, `threads`, `code` (of `pairing.code`).
    """
    groups: dict[tuple, list[dict]] = {}
    for record in records:
        if record["name"] == "ladder left out" or (record["name"] == "ladder" and record["samples"]):
            given = record["parameters"]
            key = tuple(given.get(name) for name in ("device", "task", "batch_size", "num_items"))
            key += (pairing.threads(record),)
            groups.setdefault(key, []).append(record)
    order = sorted(groups, key=lambda key: (key[0] != "cpu", -(key[3] or 0), -(key[4] or 0), str(key)))
    return {key: _rows(sorted(groups[key], key=lambda record: record["parameters"]["rung"])) for key in order}


def timed(rows: Sequence[dict]) -> list[dict]:
    """The rungs that have times."""
    return [row for row in rows if row["samples"]]


def _rows(records: list[dict]) -> list[dict]:
    # Where the original itself is missing nothing can be said "over the original".
    first = records[0] if records[0]["parameters"]["rung"] == 0 and records[0]["samples"] else None
    reference = median(first["samples"]) if first else None
    made: list[dict] = []
    for record in records:
        given = record["parameters"]
        middle = median(record["samples"]) if record["samples"] else None
        previous = next((row["median_s"] for row in reversed(made) if row["samples"]), None)
        tolerance = record.get("tolerance", record.get("spread_of_seeds"))
        worst = None if first is None else _worst(record.get("losses") or [], first.get("losses") or [])
        passed = None if worst is None or tolerance is None else worst <= tolerance
        passed = record.get("passes", passed)
        made.append(
            {
                "rung": given["rung"],
                "name": given["name"],
                "sentence": record.get("sentence") or "",
                "protocol": given.get("protocol") or "",
                "threads": pairing.threads(record),
                "code": pairing.code(record),
                "samples": record["samples"],
                "median_s": middle,
                "first_s": record["first_call"],
                "over_original": reference / middle if reference and middle else None,
                "over_previous": previous / middle if previous and middle else None,
                "parts": {part: float(value) for part, value in (record.get("parts") or {}).items()},
                "instrumented_s": record.get("instrumented_s"),
                "clips": _clips(record),
                "losses": record.get("losses") or [],
                "losses_of_seeds": record.get("losses_of_seeds") or [],
                "tolerance": tolerance,
                "worst_difference": worst,
                # What was left out failed, whatever the curves look like.
                "passed": False if record["name"] == "ladder left out" else passed,
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
    for value in (record.get("n_clips"), given.get("n_clips")):
        if value:
            return int(value)
    return round(TRAIN_SHARE * given["num_items"])


def main_ladder(records: Sequence[dict], device: str) -> list[dict]:
    """The rungs of the largest ladder of a device ("cpu" or "cuda"), or nothing."""
    found = [rows for key, rows in ladders(records).items() if str(key[0]).split(":")[0] == device]
    complete = [rows for rows in found if rows[0]["rung"] == 0 and len(timed(rows)) > 1]
    return (complete or found or [[]])[0]


def parts_of(row: dict) -> dict[str, float]:
    """The parts of a rung in the order of `PARTS`, unknown ones after them."""
    names = [*PARTS, *(part for part in row["parts"] if part not in PARTS)]
    return {part: row["parts"][part] for part in names if part in row["parts"]}


def split_s(row: dict) -> dict[str, float]:
    """Seconds of each part: the instrumented epoch's shares of the median epoch, which has no instruments.

    The clock and its synchronisations make an epoch longer; only the shares are taken from it.
    """
    total = sum(row["parts"].values()) or 1.0
    return {part: row["median_s"] * value / total for part, value in parts_of(row).items()}


def per_clip_ms(row: dict) -> dict[str, float]:
    """Milliseconds that one clip costs in each part, by `split_s`."""
    return {part: 1e3 * value / row["clips"] for part, value in split_s(row).items()}


def share(row: dict, parts: Sequence[str]) -> float | None:
    """The share that these parts have in a rung's instrumented epoch."""
    total = sum(row["parts"].values())
    return sum(row["parts"].get(part, 0.0) for part in parts) / total if total > 0 else None
