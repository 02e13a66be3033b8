"""Two sets of records side by side: which timings changed beyond their noise.

A timing's noise is the interval that holds 90 % of its samples (5th to 95th percentile). A ratio of two medians has the
interval of the least over the most and the most over the least; only where that lies on one side of 1 is it called a
change. The two sets were not measured in turns, so what all cases share may be the machine's and not the code's.
"""

import json
from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np

from triadbench.bench.analysis import gather
from triadbench.bench.analysis.summary import badge, number

Row = dict[str, Any]
FEWEST = 3
"""Samples below which a timing has no interval."""
FASTER, SLOWER, ALIKE = "faster", "slower", "within noise"


def compare(records: Sequence[dict], others: Sequence[dict]) -> list[Row]:
    """Rows of the timings that both have, most changed first.

    Returns:
        rows of `name`, `case`, `unit`, `median`, `other_median`, `ratio` (times as fast as the other), `low`, `high`
        (its interval), `verdict`: `FASTER`, `SLOWER`, `ALIKE`, or why there is no ratio (None, and no interval).
    """
    ours, theirs = (
        {_case(r): r for r in side if r["unit"] in ("s", "ms") and min(r["samples"], default=0) > 0}
        for side in (records, others)
    )
    rows = [_row(case, ours[case], theirs[case]) for case in ours if case in theirs]
    return sorted(rows, key=lambda row: -abs(np.log(row["ratio"] or 1.0)))


def _case(record: dict) -> tuple[str, str]:
    """What both sides must share, and a reader is told; all cores of two machines are the same number of threads."""
    kind, threads, parameters = gather.case_of(record)
    named = json.loads(parameters)
    if (count := named.get("threads", threads)) is not None:
        named["threads"] = "all threads" if count == record["environment"].get("cores_usable") else count
    return kind, ", ".join(value if isinstance(value, str) else f"{key} {value}" for key, value in named.items())


def _row(case: tuple[str, str], record: dict, other: dict) -> Row:
    row = {"name": case[0], "case": case[1], "unit": record["unit"], "ratio": None, "low": None, "high": None}
    row |= {"median": median(record["samples"]), "other_median": median(other["samples"])}
    if "disturbed" in (badge(record), badge(other)):
        return row | {"verdict": "disturbed"}
    if record["unit"] != other["unit"] or min(len(record["samples"]), len(other["samples"])) < FEWEST:
        return row | {"verdict": f"fewer than {FEWEST} samples"}
    (least, most), (other_least, other_most) = (np.percentile(r["samples"], [5, 95]).tolist() for r in (record, other))
    row |= {"ratio": row["other_median"] / row["median"], "low": other_least / most, "high": other_most / least}
    return row | {"verdict": FASTER if row["low"] > 1 else SLOWER if row["high"] < 1 else ALIKE}


def sentences(rows: Sequence[Row]) -> list[str]:
    """How many changed, and then each that did."""
    compared = sum(row["ratio"] is not None for row in rows)
    if not rows:
        return ["Nothing is concluded: the two have no timing in common."]
    if not compared:
        enough = f"undisturbed and of {FEWEST} samples"
        return [f"Nothing is concluded: of {len(rows)} common timings none is {enough} on both sides."]
    changed = [row for row in rows if row["verdict"] in (FASTER, SLOWER)]
    faster = sum(row["verdict"] == FASTER for row in changed)
    return [f"Of {compared} timings {faster} are faster and {len(changed) - faster} slower, beyond noise."] + [
        f"{row['name']}, {row['case']}: {number(row['ratio'])} times as fast ({number(row['low'])} to "
        f"{number(row['high'])}), {number(row['other_median'])} to {number(row['median'])} {row['unit']}"
        for row in changed
    ]
