"""The experiments' chapter: the original's tables and plots drawn again, our trials beside its 220 published ones."""

import itertools
import math
from collections.abc import Sequence
from statistics import median

import plotly.graph_objects as go
from markupsafe import Markup

from triadbench.bench.analysis import conclusions, experiments, pairing, published
from triadbench.bench.analysis.experiments import THEIRS, Row, who
from triadbench.bench.analysis.summary import DEVICES, number, span
from triadbench.bench.report.figures import Figure, layout, rounded, views
from triadbench.bench.report.page import render

TITLE = "The original's experiments, again"
_TITLES = {"batch-size": "Epoch time and batch size", "data-size": "Epoch time and number of clips"}
_LOOKS = {
    (THEIRS, "cpu"): ("#8a8f98", "circle", "dot"),
    (THEIRS, "cuda"): ("#8a8f98", "square", "dash"),
    ("original", "cpu"): ("#d55e00", "diamond", "solid"),
    ("original", "cuda"): ("#cc79a7", "triangle-up", "dash"),
    ("fast", "cpu"): ("#0072b2", "x", "solid"),
    ("fast", "cuda"): ("#009e73", "star", "dash"),
}
"""(pipeline, device) -> colour, symbol, line: any two of them tell it."""
_NAMES = {"batch_size": "clips a step (batch size)", "num_items": "clips in the set (70 % train, 30 % test)"}


def chapter(records: Sequence[dict]) -> Markup:
    """HTML of both experiments of one machine; the published figures are there without any record."""
    theirs, ours = experiments.published_rows(), experiments.ours(records)
    drawn, pairs = theirs + experiments.shown(ours), pairing.undisturbed(experiments.ratios(theirs + ours))
    charts = []
    for experiment, title in _TITLES.items():
        rows = [row for row in drawn if row["experiment"] == experiment]
        figure = times(rows, experiments.NAMES[f"experiment {experiment}"])
        charts.append({"id": f"experiment-{experiment}-times", "title": title, "rows": rows, "figure": figure})
    published_ratios = []
    for phase, words in (("train", "training"), ("test", "testing")):
        values = [row["ratio"] for row in pairs if (row["phase"], row["pipeline"]) == (phase, THEIRS)]
        published_ratios.append(f"{words} {span(values, 3)}, median {number(median(values))}")
    return render(
        "experiments.html",
        hint=published.hint(),
        conclusions=[sentence["text"] for sentence in conclusions.tell(records)],
        remarks=[*published.ERRORS, *_remarks(ours)]
        + [f"Missing of the original's protocol: {line}." for line in experiments.missing(records)],
        charts=charts,
        ours=ours,
        ratios=pairs,
        ratios_figure=ratios(pairs),
        published_ratios=published_ratios,
        gains=pairing.undisturbed(experiments.gains(ours)),
        devices=DEVICES,
        who=who,
    )


def _remarks(ours: list[Row]) -> list[str]:
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


def times(rows: Sequence[Row], variable: str) -> Figure:
    """Epoch time over `variable` ("batch_size" or "num_items"), one network and phase at a time."""
    figure, owners, ticks = go.Figure(), [], sorted({row[variable] for row in rows})
    (fixed,) = {*_NAMES} - {variable}
    cases = sorted({(row["phase"] != "train", row["task"] != "type", row["task"], row["phase"]) for row in rows})
    labels = {(task, phase): f"{task} network, {phase}ing" for *_, task, phase in cases}
    series = [key for key in _LOOKS if any((row["pipeline"], row["device"]) == key for row in rows)]
    for view in labels:
        for index, key in enumerate(series):
            mine = [row for row in rows if (row["task"], row["phase"], row["pipeline"], row["device"]) == (*view, *key)]
            if not mine:
                continue
            mine.sort(key=lambda row: (row[fixed], row[variable]))
            colour, symbol, dash = _LOOKS[key]
            # Categories stand at equal distances; who is shown stands a little beside the tick, so that none hides.
            shift = 0.5 * (index - (len(series) - 1) / 2) / max(len(series), 2)
            places = [ticks.index(row[variable]) + shift for row in mine]
            name = f"{'the original' if key[0] == THEIRS else 'ours, ' + key[0]}, {DEVICES[key[1]]}"
            marks = [(place, value, row) for place, row in zip(places, mine, strict=True) for value in row["samples"]]
            line = {"color": colour, "dash": dash, "width": 1.5}
            look = {"mode": "lines", "legendgroup": name, "name": name, "showlegend": False, "hoverinfo": "skip"}
            for _, group in itertools.groupby(zip(places, mine, strict=True), lambda pair: pair[1][fixed]):
                alike = list(group)  # no line joins sets of different sizes
                figure.add_scatter(
                    x=[place for place, _ in alike],
                    y=rounded([row["mean_s"] for _, row in alike]),
                    line=line,
                    **look,
                )
                owners.append(view)
            look = {"mode": "markers", "legendgroup": name, "name": name + _kinds(mine, variable)}
            figure.add_scatter(
                x=[place for place, _, _ in marks],
                y=rounded([value for _, value, _ in marks]),
                **look,
                marker={"color": colour, "symbol": symbol, "size": 8, "opacity": 0.75},
                customdata=[[f"{row[variable]:,}", row["badge"], _measured(row)] for *_, row in marks],
                hovertemplate="%{customdata[0]}: %{y:.4g} s %{customdata[1]}%{customdata[2]}"
                "<extra>%{fullData.name}</extra>",
            )
            owners.append(view)
    figure.update_layout(**layout(480))
    figure.update_xaxes(title_text=_NAMES[variable], tickvals=list(range(len(ticks))), zeroline=False)
    figure.update_xaxes(ticktext=[f"{tick:,}" for tick in ticks], range=[-0.5, len(ticks) - 0.5])
    figure.update_yaxes(title_text="seconds an epoch (log)", type="log", automargin=True, dtick="D2")
    return figure, views(figure, owners, labels)


def _kinds(rows: Sequence[Row], variable: str) -> str:
    """ " (short run)", or " (some short runs)" where only some of the rows are; with the clips where these differ.

    Over batch sizes the published marks are of 8,192 clips, and seconds of fewer must not pass for faster.
    """
    kinds = list(dict.fromkeys(row["short"].split(":")[0] for row in rows if row["short"]))
    if not kinds:
        return ""
    every = len(kinds) == 1 and all(row["short"] for row in rows)
    clips = sorted({row["num_items"] for row in rows if row["short"]}) if variable == "batch_size" else []
    of = f" of {' and '.join(f'{count:,}' for count in clips)} clips" if clips not in ([], [8192]) else ""
    return f" ({kinds[0]} run{of})" if every else f" (some {' and '.join(kinds)} runs{of})"


def _measured(row: Row) -> str:
    """Threads and, of a run that is not the original's, how it differs; lines of a hover."""
    lines = [pairing.threads_text(row["threads"]), *row["short"].replace(": ", ":; ", 1).split("; ")]
    # A record's own text: plotly knows some tags.
    return "".join(f"<br>{line.replace('<', '&lt;')}" for line in lines if line)


def ratios(pairs: Sequence[Row]) -> Figure:
    """CPU time over GPU time of every setting: a mark a pair of trials, a bar at the ratio of means."""
    figure, owners = go.Figure(), []
    phases = [phase for phase in ("train", "test") if any(pair["phase"] == phase for pair in pairs)]
    settings = sorted({(pair["experiment"], pair["task"], pair["batch_size"], pair["num_items"]) for pair in pairs})
    order = list(dict.fromkeys(f"{task}, batch {batch}, {clips:,}" for _, task, batch, clips in settings))
    pipelines = [name for name in (THEIRS, "original", "fast") if any(pair["pipeline"] == name for pair in pairs)]
    for phase in phases:
        for index, pipeline in enumerate(pipelines):
            mine = [pair for pair in pairs if (pair["phase"], pair["pipeline"]) == (phase, pipeline)]
            colour, symbol, _ = _LOOKS[pipeline, "cpu"]
            shift = 0.26 * (index - (len(pipelines) - 1) / 2)
            rows = [f"{pair['task']}, batch {pair['batch_size']}, {pair['num_items']:,}" for pair in mine]
            places = [order.index(row) + shift for row in rows]
            shared = {"mode": "markers", "name": who(pipeline), "legendgroup": who(pipeline)}
            figure.add_scatter(
                y=[place for place, pair in zip(places, mine, strict=True) for _ in pair["each"]],
                x=rounded([value for pair in mine for value in pair["each"]]),
                marker={"color": colour, "symbol": symbol, "size": 8, "opacity": 0.7},
                hovertemplate="%{x:.3g} times<extra>one pair of trials, %{fullData.name}</extra>",
                **shared,
            )
            figure.add_scatter(
                y=places,
                x=rounded([pair["ratio"] for pair in mine]),
                showlegend=False,
                marker={"symbol": "line-ns-open", "size": 16, "color": colour, "line": {"width": 3}},
                customdata=[number(pair["ratio"]) for pair in mine],
                hovertemplate="%{customdata} times by means<extra>%{fullData.name}</extra>",
                **shared,
            )
            owners += [phase, phase]
    for x, dash in ((1, "dot"), (5, "dash")):
        figure.add_vline(x=x, line={"color": "#8a8f98", "dash": dash, "width": 1})
    hope = {"text": "hoped for: 5", "showarrow": False, "xanchor": "left", "yanchor": "top", "font_size": 10}
    figure.add_annotation(x=math.log10(5), y=1, yref="paper", **hope)
    figure.update_layout(**layout(170 + 34 * len(order)))
    figure.update_xaxes(title_text="CPU time over GPU time (log)", type="log", dtick="D2")
    figure.update_yaxes(tickvals=list(range(len(order))), ticktext=order, ticksuffix="  ", automargin=True)
    figure.update_yaxes(range=[len(order) - 0.4, -0.6], zeroline=False)
    return figure, views(figure, owners, {phase: f"{phase}ing" for phase in phases})
