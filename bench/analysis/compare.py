"""Two sets of records side by side: which timings changed beyond their noise.

A timing's noise is the interval that holds 90 % of its samples (5th to 95th percentile). A ratio of two medians has the
interval of the least over the most and the most over the least; only where that lies on one side of 1 is it called a
change. The two sets were not measured in turns, so what all cases share may be the machine's and not the code's.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from triadbench.bench.analysis import gather
from triadbench.bench.analysis.summary import badge, number
from triadbench.core.errors import UserError

Row = dict[str, Any]
FEWEST = 3
"""Samples below which a timing has no interval."""
FASTER, SLOWER, ALIKE = "faster", "slower", "within noise"


class Comparison(NamedTuple):
    """`this` and `other`: what was compared; `rows` as of `compare`; `alone`: timings that only one side has."""

    this: gather.Machine
    other: gather.Machine
    rows: list[Row]
    alone: int

    def of(self, verdict: str) -> list[Row]:
        """The rows with this verdict."""
        return [row for row in self.rows if row["verdict"] == verdict]


def read(record_paths: Sequence[Path] | None, other: Path) -> Comparison:
    """The comparison of two sets of record files: of the same machine where both have one, else of their first.

    Raises:
        UserError: no record, or no timing that both have.
    """
    ours, theirs = (
        [machine for machine in gather.gather(paths).machines if not machine.rehearsal]
        for paths in (record_paths, [other])
    )
    pairs = [(one, another) for one in ours for another in theirs]
    pair = next((pair for pair in pairs if pair[0].key == pair[1].key), pairs[0] if pairs else None)
    rows, alone = compare(pair[0].records, pair[1].records) if pair else ([], 0)
    if pair is None or not rows:
        raise UserError(f"{other}: no timing in common with these records; both must have measured the same cases")
    return Comparison(*pair, rows, alone)


def compare(records: Sequence[dict], others: Sequence[dict]) -> tuple[list[Row], int]:
    """Rows of the timings that both have, most changed first, and the number of those that only one has.

    Returns:
        rows of `name`, `case`, `unit`, `median`, `other_median`, `ratio` (times as fast as the other), `low`, `high`
        (its interval), `verdict`: one of `FASTER`, `SLOWER`, `ALIKE`, or why there is no ratio (then None, as `low` and
        `high` are).
    """
    ours, theirs = (
        {_case(r): r for r in side if r["samples"] and r["unit"] in ("s", "ms")} for side in (records, others)
    )
    rows = [_row(case, ours[case], theirs[case]) for case in ours if case in theirs]
    rows.sort(key=lambda row: -abs(np.log(row["ratio"] or 1.0)))
    return rows, len(ours.keys() ^ theirs.keys())


def _case(record: dict) -> tuple[str, str, str]:
    """What both sides must share; of threads, all cores of two machines are the same case."""
    kind, threads, parameters = gather.case_of(record)
    cores, named = record["environment"].get("cores_usable"), json.loads(parameters)
    if (count := named.get("threads", threads)) is not None:
        named["threads"] = "all threads" if count == cores else count
    # Names first, then numbers with what they count.
    words = [value for value in named.values() if isinstance(value, str)]
    words += [f"{key} {value}" for key, value in named.items() if isinstance(value, int | float)]
    return kind, json.dumps(named, sort_keys=True), ", ".join(words)


def _row(case: tuple[str, str, str], record: dict, other: dict) -> Row:
    row = {"name": case[0], "case": case[2], "unit": record["unit"], "ratio": None, "low": None, "high": None}
    row |= {"median": median(record["samples"]), "other_median": median(other["samples"])}
    if "disturbed" in (badge(record), badge(other)):
        return row | {"verdict": "disturbed"}
    if record["unit"] != other["unit"] or min(len(record["samples"]), len(other["samples"])) < FEWEST:
        return row | {"verdict": f"fewer than {FEWEST} samples"}
    (least, most), (other_least, other_most) = (np.percentile(r["samples"], [5, 95]) for r in (record, other))
    row |= {"ratio": row["other_median"] / row["median"]}
    row |= {"low": float(other_least / most), "high": float(other_most / least)}
    return row | {"verdict": FASTER if row["low"] > 1 else SLOWER if row["high"] < 1 else ALIKE}


def verdict(comparison: Comparison) -> str:
    """One sentence."""
    judged = [row for row in comparison.rows if row["ratio"]]
    if not judged:
        return f"Nothing is concluded: none of {len(comparison.rows)} common timings is undisturbed on both sides."
    faster, slower = len(comparison.of(FASTER)), len(comparison.of(SLOWER))
    return f"Of {len(judged)} timings {faster} became faster and {slower} slower, beyond noise."


def text(comparison: Comparison) -> str:
    """The terminal's version."""
    changed = [row for row in comparison.rows if row["verdict"] in (FASTER, SLOWER)]
    lines = [
        f"- {row['name']}, {row['case']}: {number(row['ratio'])} times as fast ({number(row['low'])} to "
        f"{number(row['high'])}), {number(row['other_median'])} to {number(row['median'])} {row['unit']}"
        for row in changed[:20]
    ]
    lines += [f"- and {len(changed) - 20} more, in the page"] if len(changed) > 20 else []
    return "\n".join([verdict(comparison), *lines])
