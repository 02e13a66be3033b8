"""The chapter of an epoch's parts: one bar for the original pipeline and one for the fast, and every number below."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from triadbench.bench.analysis import ladder as ladder_numbers
from triadbench.bench.analysis import pairing
from triadbench.bench.analysis.summary import number
from triadbench.bench.report import ladder_plots
from triadbench.bench.report import sections as pieces
from triadbench.bench.report.sections import Html

NAME = "pipeline parts"
_ORDER = ("original", "fast")
_WHERE = {"cpu": "CPU", "cuda": "GPU"}


def chapter(records: Sequence[dict]) -> str:
    """HTML of the last record of each case; "" where there is none."""
    found = groups(records)
    if not found:
        return ""
    sentences = "".join(f"<li>{pieces.text(sentence)}</li>" for sentence in findings(records))
    parts = [
        pieces.card(f'<ul class="findings">{sentences}</ul>'),
        '<p class="soft">The shares come from epochs timed part by part; the whole is the median of epochs without '
        "that clock. Idle is what belongs to no part: drawing the order of clips, waiting, the loop itself.</p>",
    ]
    parts += [_group(key, rows, f"pipeline{index}") for index, (key, rows) in enumerate(found.items())]
    return "\n".join(parts)


def findings(records: Sequence[dict]) -> list[str]:
    """What the records say, in sentences."""
    told = []
    for (device, _, _, _, threads), rows in groups(records).items():
        where = _WHERE.get(device, device) + (f" with {pairing.told_threads(threads)}" if threads else "")
        for row in rows:
            costs = ladder_numbers.per_clip_ms(row)
            largest = sorted(costs, key=costs.get, reverse=True)[:3]
            listed = ", ".join(f"{part} {100 * costs[part] / sum(costs.values()):.0f} %" for part in largest)
            told.append(
                f"{where}, {row['name']} pipeline: {number(sum(costs.values()))} ms a training clip, most of it "
                f"{listed}" + (f" ({row['badge']})." if row["badge"] else ".")
            )
        by_name = {row["name"]: row for row in rows}
        if set(_ORDER) <= set(by_name):
            if any(by_name[name]["badge"] == "disturbed" for name in _ORDER):
                told.append(f"{where}: other programs wanted the cores meanwhile, so the two are not compared.")
                continue
            ratio = by_name["original"]["median_s"] / by_name["fast"]["median_s"]
            note = pairing.note(by_name[name]["code"] for name in _ORDER)
            told.append(f"{where}: the fast pipeline's epoch is {number(ratio)} times as fast. {note}".rstrip())
    return told


def groups(records: Sequence[dict]) -> dict[tuple, list[dict]]:
    """(device, task, batch size, clips, threads) -> rows as those of `ladder_numbers`, the original first."""
    latest: dict[tuple, dict] = {}
    for record in records:
        if record["name"] != NAME or not record["samples"] or not record.get("parts"):
            continue
        given = record["parameters"]
        key = tuple(given.get(name) for name in ("device", "task", "batch_size", "num_items"))
        latest[(*key, pairing.threads(record)), given["pipeline"]] = record
    found: dict[tuple, list[dict]] = {}
    for (key, _), record in latest.items():
        found.setdefault(key, []).append(_row(record))
    order = sorted(found, key=lambda key: (key[0] != "cpu", -(key[3] or 0), -(key[4] or 0), str(key)))
    rank = {name: index for index, name in enumerate(_ORDER)}
    return {key: sorted(found[key], key=lambda row: rank.get(row["name"], len(rank))) for key in order}


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
        "badge": pieces.spread_badge(record["samples"], bool(record.get("disturbed"))),
    }


def _group(key: tuple, rows: list[dict], prefix: str) -> str:
    device, task, batch_size, num_items, threads = key
    where = _WHERE.get(device, str(device))
    title = f"{where}: {task} network, batch {batch_size}, {rows[0]['clips']:,} training clips"
    if threads is not None:
        title += f", {pairing.told_threads(threads)}"
    figure, choices = ladder_plots.parts(rows, [row["name"] for row in rows])
    return (
        f"<h3>{pieces.text(title)}</h3>"
        + pieces.plot(
            figure,
            f"{prefix}-parts",
            f"Time of an epoch on the {where} by part, a bar for each pipeline",
            choices=choices,
        )
        + _table(rows)
        + _epochs(rows)
    )


def _table(rows: list[dict]) -> str:
    parts = list(dict.fromkeys(part for row in rows for part in ladder_numbers.parts_of(row)))
    head = ["part", *(title for row in rows for title in (f"{row['name']}, ms a clip", "share"))]
    cells = []
    for part in [*parts, "together"]:
        line: list[object] = [part if part != "together" else Html("<b>together</b>")]
        for row in rows:
            costs = ladder_numbers.per_clip_ms(row)
            total = sum(costs.values())
            value = total if part == "together" else costs.get(part, 0.0)
            line += [_ms(value), f"{100 * value / total:.1f} %"]
        cells.append(line)
    return pieces.table(head, cells, caption="Milliseconds a training clip")


def _ms(value: float) -> str:
    """Fixed places, so that a column reads from top to bottom; a part that does not occur is 0."""
    return "0" if value == 0 else "<0.001" if 0 < value < 0.001 else f"{value:.3f}"


def _epochs(rows: list[dict]) -> str:
    head = [
        "pipeline",
        "median s",
        "least s",
        "most s",
        "n",
        "first epoch s",
        "of it once",
        "the clock adds",
        "losses differ by",
    ]
    cells = [
        [
            Html(f"{pieces.text(row['name'])}{pieces.badge(row['badge'])}"),
            number(row["median_s"]),
            number(min(row["samples"])),
            number(max(row["samples"])),
            len(row["samples"]),
            number(row["first_s"]),
            number(row["prepared_s"]) if row["prepared_s"] else "0",
            f"{100 * (row['instrumented_s'] / row['median_s'] - 1):+.0f} %" if row["instrumented_s"] else None,
            "reference" if row["name"] == "original" else None if row["error"] is None else f"{row['error']:.1e}",
        ]
        for row in rows
    ]
    return pieces.table(head, cells, caption="Seconds of an epoch, without the clock")
