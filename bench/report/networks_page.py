"""The chapter of the networks: their forward passes and the parts of a training step, from records alone."""

from statistics import median

import plotly.graph_objects as go
from markupsafe import Markup

from triadbench.bench.analysis.summary import badge, disturbance, number, percent, select, steadiness
from triadbench.bench.report.figures import SERIES, Figure, layout, samples_box
from triadbench.bench.report.page import render
from triadbench.core import timing

NAMES = ("forward", "training step")


def chapter(records: list[dict]) -> Markup:
    """Figures and tables of the records named in `NAMES`; nothing where there is none."""
    parts = {name: rows for name in NAMES if (rows := [row(record) for record in select(records, name)])}
    if not parts:
        return Markup()
    return render(
        "networks.html",
        findings=findings(records),
        parts={name.replace(" ", "-"): (rows, *_figure(rows)) for name, rows in parts.items()},
        unstable_spread=percent(timing.UNSTABLE_SPREAD),
    )


def row(record: dict) -> dict:
    """A record's figures; None where one does not apply."""
    timed, parameters = timing.Timing.from_samples(0.0, record["samples"]), record["parameters"]
    part = parameters.get("part")
    gflop_per_s = record["flops"] / timed.p50_ms / 1e6 if record.get("flops") else None
    peak = record.get("peak_gflop_per_s")
    return {key: getattr(timed, key) for key in ("samples_ms", "p50_ms", "p90_ms", "p99_ms", "n", "spread")} | {
        "case": f"{parameters['network']} x{parameters['batch']}" + (f" {part}" if part else ""),
        "badge": badge(record),
        "error": (record["error"] or {}).get("peak_relative"),
        "first_call_ms": record["first_call"],
        "clips_per_s": 1e3 * record["clips"] / timed.p50_ms,
        "gflop_per_s": gflop_per_s,
        "share_of_peak": gflop_per_s / peak if gflop_per_s and peak else None,
    }


def findings(records: list[dict]) -> list[str]:
    """What the numbers say, in sentences. Nothing is concluded from a disturbed timing; that it was, is said."""
    mine = [record for record in records if record["name"] in NAMES]
    if not mine:
        return ["Nothing is measured yet."]
    quiet = [record for record in mine if not record.get("disturbed")]
    shares = [share for record in select(quiet, "forward") if (share := row(record)["share_of_peak"])]
    sentences = disturbance(mine)
    if shares:
        sentences.append(
            f"The networks' forward passes reach {percent(min(shares))} to {percent(max(shares))} of the matrix "
            "product's rate."
        )
    for network in dict.fromkeys(record["parameters"]["network"] for record in select(quiet, "training step")):
        steps = select(quiet, "training step", network=network)
        parts = {step["parameters"]["part"]: median(step["samples"]) for step in steps}
        total = sum(parts.values())
        listed = ", ".join(f"{part} {percent(value / total)}" for part, value in parts.items())
        sentences.append(
            f"A training step of {network} on {steps[0]['parameters']['batch']} clips takes {number(total)} ms "
            f"({listed}); the most is {max(parts, key=lambda part: parts[part])}."
        )
    return [*sentences, *steadiness(quiet)]


def _figure(rows: list[dict]) -> Figure:
    """Every sample and its box, in milliseconds or over the case's median, as the reader chooses."""
    figure = go.Figure()
    for index, figures in enumerate(rows):
        figure.add_box(**samples_box(figures["samples_ms"], figures["case"], SERIES[index % len(SERIES)], ""))
    log = {"xaxis.type": "log", "xaxis.title.text": "milliseconds a call (log scale)", "xaxis.dtick": "D2"}
    linear = {"xaxis.type": "linear", "xaxis.title.text": "each sample over its case's median", "xaxis.dtick": None}
    absolute = [figures["samples_ms"] for figures in rows]
    relative = [[sample / figures["p50_ms"] for sample in figures["samples_ms"]] for figures in rows]
    figure.update_layout(**layout(110 + 34 * len(rows)))
    figure.update_xaxes(type="log", title_text=log["xaxis.title.text"], dtick="D2")
    figure.update_yaxes(autorange="reversed", automargin=True)
    return figure, [
        {"label": "milliseconds", "args": [{"x": absolute}, log | {"xaxis.autorange": True}]},
        {"label": "over the median", "args": [{"x": relative}, linear | {"xaxis.autorange": True}]},
    ]
