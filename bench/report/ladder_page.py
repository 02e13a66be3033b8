"""The ladder's chapter: from the original pipeline to the fast one, a rung at a time, and the proof of each."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from triadbench.bench.analysis import ladder as ladder_numbers
from triadbench.bench.analysis import pairing
from triadbench.bench.analysis.summary import number
from triadbench.bench.report import ladder_plots
from triadbench.bench.report import sections as pieces
from triadbench.bench.report.sections import Html


def chapter(records: Sequence[dict]) -> str:
    """HTML of all ladders in the records of one machine; "" where there is none."""
    return _words(records) + "\n".join(
        _ladder(key, rows, f"ladder{index}")
        for index, (key, rows) in enumerate(ladder_numbers.ladders(records).items())
    )


def _ladder(key: tuple, rows: list[dict], prefix: str) -> str:
    device, task, batch_size, num_items, threads = key
    timed = ladder_numbers.timed(rows)
    where = "CPU" if device == "cpu" else "GPU"
    title = f"{where}: {task} network, batch {batch_size}, {_count(num_items)} clips"
    if threads is not None:
        title += f", {pairing.told_threads(threads)}"
    mixed = pairing.note(row["code"] for row in timed)
    short = next((row["protocol"] for row in rows if row["protocol"] not in ("", "full")), "")
    marks = Html(pieces.badge(short) if short else "")
    return "\n".join(
        [
            f"<h3>{pieces.text(title)}{marks}</h3>",
            _verdict(timed),
            f'<p class="soft">{pieces.text(mixed)}</p>' if mixed else "",
            _steps(rows),
            _waterfall(timed, prefix, where) if timed else "",
            _parts(timed, prefix, where),
            _losses(rows, prefix),
            _table(rows),
        ]
    )


def _words(records: Sequence[dict]) -> str:
    """The ladder's own sentences, of the largest ladder of each device."""
    from triadbench.bench.analysis import ladder_words as why
    from triadbench.bench.analysis import published

    chosen = {}
    for key in ladder_numbers.ladders(records):
        chosen.setdefault(key[0], key)
    names = ("device", "task", "batch_size", "num_items")
    mine = [
        record
        for record in records
        if record["name"] == "ladder"
        and record["samples"]
        and (*(record["parameters"].get(name) for name in names), pairing.threads(record)) in chosen.values()
    ]
    try:
        sentences = [sentence for sentence in why.why(mine) if sentence != published.hint()]
    except pieces.BROKEN:  # as of a ladder that is not complete: its pictures are shown without words
        sentences = []
    items = "".join(f"<li>{pieces.text(sentence)}</li>" for sentence in sentences)
    return pieces.card(f'<ul class="findings">{items}</ul>') if items else ""


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _verdict(rows: list[dict]) -> str:
    first, last = (rows[0], rows[-1]) if rows else (None, None)
    if last is first or last["over_original"] is None:
        return '<p class="soft">The ladder is not complete; the same command goes on from here.</p>'
    return (
        f"<p>An epoch of {first['clips']:,} training clips goes from <b>{number(first['median_s'])} s</b> to "
        f"<b>{number(last['median_s'])} s</b>: <b>{number(last['over_original'])} times</b> as fast.</p>"
    )


def _steps(rows: list[dict]) -> str:
    items = []
    for row in rows:
        gain = "" if row["over_previous"] is None else f" — {_times(row['over_previous'])}"
        items.append(
            f'<li value="{int(row["rung"])}"><b>{pieces.text(row["name"])}</b>{gain} {proof(row)}'
            f'{pieces.badge(row["badge"])}<br><span class="soft">{pieces.text(row["sentence"])}</span></li>'
        )
    return pieces.card(f'<ol class="rungs">{"".join(items)}</ol>')


def proof(row: dict) -> Html:
    """The badge that says whether a rung changed speed only."""
    if row["rung"] == 0:
        return pieces.badge("reference", "good")
    if row["passed"] is None:
        return pieces.badge("losses not compared")
    if row["worst_difference"] is None or row["tolerance"] is None:
        return pieces.badge("✗ failed its check, not timed", "bad")
    words = f"{row['worst_difference']:.1e} of {row['tolerance']:.1e}"
    return (
        pieces.badge(f"✓ same losses ({words})", "good")
        if row["passed"]
        else pieces.badge(f"✗ losses differ ({words})" + ("" if row["samples"] else ", not timed"), "bad")
    )


def _times(ratio: float) -> str:
    return f"{number(ratio)} times as fast"


def _waterfall(rows: list[dict], prefix: str, where: str) -> str:
    changes = ["—", *(f"{b['median_s'] - a['median_s']:+.3g}" for a, b in itertools.pairwise(rows))]
    data = pieces.table(
        ["rung", "median s", "change s", "every epoch s"],
        [
            [row["name"], number(row["median_s"]), change, ", ".join(number(value) for value in row["samples"])]
            for row, change in zip(rows, changes, strict=True)
        ],
        caption="Seconds of an epoch",
    )
    figure, choices = ladder_plots.waterfall(rows)
    return "<h4>What each rung takes away</h4>" + pieces.plot(
        figure,
        f"{prefix}-waterfall",
        f"Waterfall of the time of an epoch on the {where}, from the original pipeline to the fast one",
        choices=choices,
        data=data,
    )


def _parts(rows: list[dict], prefix: str, where: str) -> str:
    rows = [row for row in rows if row["parts"]]
    if not rows:
        return '<p class="soft">No rung has an instrumented epoch.</p>'
    figure, choices = ladder_plots.parts(rows)
    names = list(dict.fromkeys(part for row in rows for part in ladder_numbers.parts_of(row)))
    data = pieces.table(
        ["rung", *names],
        [[row["name"], *(number(ladder_numbers.per_clip_ms(row).get(name)) for name in names)] for row in rows],
        caption="Milliseconds a training clip",
    )
    overheads = [
        f"{row['name']} {100 * (row['instrumented_s'] / row['median_s'] - 1):+.0f} %"
        for row in rows
        if row["instrumented_s"]
    ]
    told = (
        "The shares come from an epoch of its own, timed part by part; the whole is the median epoch, which has no "
        "instruments."
    )
    if overheads:
        told += f" The instruments changed the time of an epoch by: {', '.join(overheads)}."
    return f'<h4>Where the time goes</h4><p class="soft">{pieces.text(told)}</p>' + pieces.plot(
        figure,
        f"{prefix}-parts",
        f"Time of an epoch on the {where} by part, one bar a rung",
        choices=choices,
        data=data,
    )


def _losses(rows: list[dict], prefix: str) -> str:
    if not rows[0]["losses"]:
        return '<p class="soft">The records hold no losses to lay over each other.</p>'
    figure, choices = ladder_plots.losses(rows)
    data = pieces.table(
        ["rung", "steps", "first loss", "last loss", "largest difference", "tolerance", "proof"],
        [
            [
                row["name"],
                len(row["losses"]),
                *(f"{loss:.5f}" for loss in row["losses"][:1] + row["losses"][-1:]),
                _error(row["worst_difference"]),
                _error(row["tolerance"]),
                proof(row),
            ]
            for row in rows
            if row["losses"]
        ],
        caption="Loss of every step of the first epoch",
    )
    return (
        '<h4>The same training, faster</h4><p class="soft">Losses of the first epoch, same seed, same order of clips. '
        "The band is the tolerance: how far apart losses lie when only the seed differs (thin grey lines: other seeds)."
        "</p>"
        + pieces.plot(
            figure, f"{prefix}-losses", "Loss curves of all rungs laid over each other", choices=choices, data=data
        )
    )


def _table(rows: list[dict]) -> str:
    head = [
        "rung",
        "median s",
        "least s",
        "most s",
        "first epoch s",
        "over the rung before",
        "over the original",
        "n",
        "largest loss difference",
        "proof",
    ]
    cells = [
        [
            Html(f"{row['rung']}. {pieces.text(row['name'])}{pieces.badge(row['badge'])}"),
            number(row["median_s"]),
            number(min(row["samples"], default=None)),
            number(max(row["samples"], default=None)),
            number(row["first_s"]),
            number(row["over_previous"]),
            number(row["over_original"]),
            len(row["samples"]),
            _error(row["worst_difference"]),
            proof(row),
        ]
        for row in rows
    ]
    return "<h4>Every figure</h4>" + pieces.table(head, cells, caption="The ladder")


def _error(value: float | None) -> str:
    return "—" if value is None else f"{value:.1e}"
