"""The chapter of an epoch's parts: one bar for the original pipeline and one for the fast, and every number below."""

from collections.abc import Sequence

from markupsafe import Markup

from triadbench.bench.analysis import ladder, pairing
from triadbench.bench.analysis.summary import DEVICES, number, percent
from triadbench.bench.report import ladder_page
from triadbench.bench.report.page import render

NAME = "pipeline parts"
_ORDER = ("original", "fast")


def chapter(records: Sequence[dict]) -> Markup:
    """The last record of each case; nothing where there is none."""
    views = [_group(case, rows) for case, rows in groups(records).items()]
    return render("pipeline.html", findings=findings(records), groups=views) if views else Markup()


def findings(records: Sequence[dict]) -> list[str]:
    """What the records say, in sentences."""
    sentences = []
    for rows in groups(records).values():
        where = ladder.place(rows[0])
        for row in rows:
            costs = ladder.per_clip_ms(row)
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
    latest: dict[ladder.Case, dict[str, dict]] = {}
    for record in records:
        if record["name"] == NAME and record["samples"] and record.get("parts"):
            row = ladder.epoch_row(record) | {
                "name": record["parameters"]["pipeline"],
                "prepared_s": record.get("prepared_s") or 0.0,
                "error": (record["error"] or {}).get("max_difference"),
            }
            latest.setdefault(ladder.case_of(record), {})[row["name"]] = row
    return {
        case: sorted(latest[case].values(), key=lambda row: (*_ORDER, row["name"]).index(row["name"]))
        for case in sorted(latest, key=ladder.case_order)
    }


def _group(case: ladder.Case, rows: list[dict]) -> dict:
    return {
        "where": DEVICES.get(case[0], case[0]),
        "title": ladder.case_title((*case[:3], f"{rows[0]['clips']:,} training", case[4])),
        "figure": ladder_page.parts(rows, [row["name"] for row in rows]),
        "parts": list(dict.fromkeys(part for row in rows for part in row["parts"])),
        "costs": {row["name"]: ladder.per_clip_ms(row) for row in rows},
        "epochs": rows,
    }
