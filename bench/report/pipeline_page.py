"""The chapter of an epoch's parts: one bar for the original pipeline and one for the fast, and every number below."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from markupsafe import Markup

from triadbench.bench.analysis import ladder as ladder_numbers
from triadbench.bench.analysis import pairing
from triadbench.bench.analysis.summary import DEVICES, badge, number, percent
from triadbench.bench.report import ladder_plots
from triadbench.bench.report.page import render

NAME = "pipeline parts"
_ORDER = ("original", "fast")


def chapter(records: Sequence[dict]) -> Markup:
    """The last record of each case; nothing where there is none."""
    pipelines = groups(records)
    if not pipelines:
        return Markup()
    return render(
        "pipeline.html", findings=findings(records), groups=[_group(key, rows) for key, rows in pipelines.items()]
    )


def findings(records: Sequence[dict]) -> list[str]:
    """What the records say, in sentences."""
    sentences = []
    for (device, _, _, _, threads), rows in groups(records).items():
        where = DEVICES.get(device, device) + (f" with {pairing.threads_text(threads)}" if threads else "")
        for row in rows:
            costs = ladder_numbers.per_clip_ms(row)
            total = sum(costs.values())
            largest = sorted(costs, key=lambda part: -costs[part])[:3]
            sentences.append(
                f"{where}, {row['name']} pipeline: {number(total)} ms a training clip, most of it "
                f"{', '.join(f'{part} {percent(costs[part] / total)}' for part in largest)}"
                + (f" ({row['badge']})." if row["badge"] else ".")
            )
        by_name = {row["name"]: row for row in rows}
        if not set(_ORDER) <= set(by_name):
            continue
        original, fast = (by_name[name] for name in _ORDER)
        if "disturbed" in (original["badge"], fast["badge"]):
            sentences.append(f"{where}: other programs wanted the cores meanwhile, so the two are not compared.")
            continue
        ratio, note = original["median_s"] / fast["median_s"], pairing.note([original["code"], fast["code"]])
        sentences.append(f"{where}: the fast pipeline's epoch is {number(ratio)} times as fast. {note}".rstrip())
    return sentences


def groups(records: Sequence[dict]) -> dict[tuple, list[dict]]:
    """(device, task, batch size, clips, threads) -> rows as those of `analysis.ladder`, the original first."""
    latest: dict[tuple, dict[str, dict]] = {}
    for record in records:
        if record["name"] == NAME and record["samples"] and record.get("parts"):
            parameters = record["parameters"]
            key = tuple(parameters.get(name) for name in ("device", "task", "batch_size", "num_items"))
            latest.setdefault((*key, pairing.threads(record)), {})[parameters["pipeline"]] = _row(record)
    order = sorted(latest, key=lambda key: (key[0] != "cpu", -(key[3] or 0), -(key[4] or 0), str(key)))
    return {
        key: sorted(latest[key].values(), key=lambda row: (*_ORDER, row["name"]).index(row["name"])) for key in order
    }


def _row(record: dict) -> dict:
    return {
        "name": record["parameters"]["pipeline"],
        "samples": record["samples"],
        "median_s": median(record["samples"]),
        "first_s": record["first_call"],
        "prepared_s": record.get("prepared_s") or 0.0,
        "parts": {part: float(value) for part, value in record["parts"].items()},
        "instrumented_s": record.get("instrumented_s"),
        "clips": int(record["n_clips"]),
        "code": pairing.code(record),
        "error": (record["error"] or {}).get("max_difference"),
        "badge": badge(record["samples"], bool(record.get("disturbed"))),
    }


def _group(key: tuple, rows: list[dict]) -> dict:
    device, task, batch_size, _, threads = key
    where = DEVICES.get(device, str(device))
    title = f"{where}: {task} network, batch {batch_size}, {rows[0]['clips']:,} training clips"
    return {
        "where": where,
        "title": title if threads is None else f"{title}, {pairing.threads_text(threads)}",
        "figure": ladder_plots.parts(rows, [row["name"] for row in rows]),
        "parts": list(dict.fromkeys(part for row in rows for part in row["parts"])),
        "costs": {row["name"]: ladder_numbers.per_clip_ms(row) for row in rows},
        "epochs": rows,
    }
