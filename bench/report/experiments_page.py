"""The experiments' chapter: the original's tables and plots drawn again, our trials beside its 220 published ones."""

from collections.abc import Sequence
from statistics import median

from markupsafe import Markup

from triadbench.bench.analysis import experiments, published
from triadbench.bench.analysis.summary import DEVICES, number, span
from triadbench.bench.report import experiments_plots
from triadbench.bench.report.page import render

_TITLES = {"batch-size": "Epoch time and batch size", "data-size": "Epoch time and number of clips"}


def chapter(records: Sequence[dict]) -> Markup:
    """HTML of both experiments of one machine; the published figures are there without any record."""
    theirs, ours = experiments.published_rows(), experiments.ours(records)
    drawn, ratios = theirs + experiments.shown(ours), experiments.ratios(theirs + ours)
    charts = []
    for experiment, title in _TITLES.items():
        rows = [row for row in drawn if row["experiment"] == experiment]
        figure = experiments_plots.times(rows, experiments.NAMES[f"experiment {experiment}"])
        charts.append({"id": f"experiment-{experiment}-times", "title": title, "rows": rows, "figure": figure})
    published_ratios = []
    for phase, words in (("train", "training"), ("test", "testing")):
        values = [row["ratio"] for row in ratios if (row["phase"], row["pipeline"]) == (phase, experiments.THEIRS)]
        published_ratios.append(f"{words} {span(values, 3)}, median {number(median(values))}")
    return render(
        "experiments.html",
        hint=published.hint(),
        remarks=_remarks(ours),
        charts=charts,
        ours=ours,
        ratios=ratios,
        ratios_figure=experiments_plots.ratios(ratios),
        published_ratios=published_ratios,
        gains=experiments.gains(ours),
        devices=DEVICES,
        who=experiments.who,
    )


def _remarks(ours: list[experiments.Row]) -> list[str]:
    """What of the experiments is not measured on this machine, or not as the original did."""
    remarks = [
        f"{name}: not measured on this machine; python cli.py {name} makes the records."
        for name in experiments.NAMES
        if not any(name == f"experiment {row['experiment']}" for row in ours)
    ]
    if ours and not any(row["device"] == "cuda" for row in ours):
        remarks.append("GPU: not measured on this machine.")
    remarks += [f"Not the original's protocol: {short}." for short in sorted({row["short"] for row in ours} - {""})]
    return remarks + experiments.unpaired(ours)
