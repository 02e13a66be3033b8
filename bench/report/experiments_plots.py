"""Pictures of the experiments: every trial as a mark, a line through the means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from triadbench.bench.analysis import pairing
from triadbench.bench.analysis.experiments import THEIRS
from triadbench.bench.analysis.summary import number
from triadbench.bench.report.sections import layout, rounded

if TYPE_CHECKING:
    import plotly.graph_objects as go

_LOOKS = {
    (THEIRS, "cpu"): ("#8a8f98", "circle", "dot"),
    (THEIRS, "gpu"): ("#8a8f98", "square", "dash"),
    ("original", "cpu"): ("#d55e00", "diamond", "solid"),
    ("original", "gpu"): ("#cc79a7", "triangle-up", "dash"),
    ("fast", "cpu"): ("#0072b2", "x", "solid"),
    ("fast", "gpu"): ("#009e73", "star", "dash"),
}
"""(pipeline, device) -> colour, symbol, line: any two of them tell it."""
_NAMES = {"batch_size": "clips a step (batch size)", "num_items": "clips in the set (70 % train, 30 % test)"}


def times(rows: Sequence[dict], variable: str) -> tuple[go.Figure, list[dict]]:
    """Epoch time over `variable` ("batch_size" or "num_items"), one network and phase at a time."""
    import plotly.graph_objects as go

    figure, owners = go.Figure(), []
    views = sorted(
        {(row["task"], row["phase"]) for row in rows}, key=lambda view: (view[1] != "train", view[0] != "type")
    )
    ticks = sorted({row[variable] for row in rows})
    series = [key for key in _LOOKS if any((row["pipeline"], row["device"]) == key for row in rows)]
    for view in views:
        for i, key in enumerate(series):
            mine = sorted(
                (r for r in rows if (r["task"], r["phase"]) == view and (r["pipeline"], r["device"]) == key),
                key=lambda row: row[variable],
            )
            if not mine:
                continue
            colour, symbol, dash = _LOOKS[key]
            # Categories stand at equal distances; who is shown stands a little beside the tick, so that none hides.
            shift = 0.5 * (i - (len(series) - 1) / 2) / max(len(series), 2)
            name = f"{'the original' if key[0] == THEIRS else 'ours, ' + key[0]}, {key[1].upper()}"
            places = [ticks.index(row[variable]) + shift for row in mine]
            short = _kinds(mine, variable)
            figure.add_scatter(
                x=places,
                y=rounded([row["mean_s"] for row in mine]),
                mode="lines",
                legendgroup=name,
                name=name,
                line={"color": colour, "dash": dash, "width": 1.5},
                showlegend=False,
                hoverinfo="skip",
                visible=view == views[0],
            )
            owners.append(view)
            figure.add_scatter(
                x=[x for x, row in zip(places, mine, strict=True) for _ in row["samples"]],
                y=rounded([value for row in mine for value in row["samples"]]),
                mode="markers",
                legendgroup=name,
                name=name + short,
                marker={"color": colour, "symbol": symbol, "size": 8, "opacity": 0.75},
                customdata=[
                    [f"{row[variable]:,}", row["badge"], _measured(row)] for row in mine for _ in row["samples"]
                ],
                hovertemplate="%{customdata[0]}: %{y:.4g} s %{customdata[1]}%{customdata[2]}"
                "<extra>%{fullData.name}</extra>",
                visible=view == views[0],
            )
            owners.append(view)
    figure.update_layout(
        **layout(480),
        xaxis={
            "title": {"text": _NAMES[variable]},
            "tickvals": list(range(len(ticks))),
            "ticktext": [f"{tick:,}" for tick in ticks],
            "range": [-0.5, len(ticks) - 0.5],
            "zeroline": False,
        },
        yaxis={"title": {"text": "seconds an epoch (log)"}, "type": "log", "automargin": True, "dtick": "D2"},
    )
    return figure, [
        {"label": f"{task} network, {phase}ing", "args": [{"visible": [owner == (task, phase) for owner in owners]}]}
        for task, phase in views
    ]


def _kinds(rows: Sequence[dict], variable: str) -> str:
    """ " (short run)", or " (some short runs)" where only some of the rows are; with the clips where these differ.

    Over batch sizes the published marks are of 8,192 clips, and seconds of fewer must not pass for faster.
    """
    kinds = list(dict.fromkeys(row["short"].split(":")[0] for row in rows if row["short"]))
    if not kinds:
        return ""
    every = len(kinds) == 1 and all(row["short"] for row in rows)
    clips = sorted({row["num_items"] for row in rows}) if variable == "batch_size" else []
    of = f" of {' and '.join(f'{count:,}' for count in clips)} clips" if clips not in ([], [8192]) else ""
    return f" ({kinds[0]} run{of})" if every else f" (some {' and '.join(kinds)} runs{of})"


def _measured(row: dict) -> str:
    """Threads and, of a run that is not the original's, how it differs; lines of a hover."""
    lines = [pairing.told_threads(row["threads"]), *row["short"].replace(": ", ":; ", 1).split("; ")]
    # A record's own text: plotly knows some tags.
    return "".join(f"<br>{line.replace('<', '&lt;')}" for line in lines if line)


def ratios(found: Sequence[dict]) -> tuple[go.Figure, list[dict]]:
    """CPU time over GPU time of every setting: a mark a pair of trials, a bar at the ratio of means."""
    import plotly.graph_objects as go

    figure, owners = go.Figure(), []
    phases = [phase for phase in ("train", "test") if any(ratio["phase"] == phase for ratio in found)]
    label = lambda r: f"{r['task']}, batch {r['batch_size']}, {r['num_items']:,}"  # noqa: E731
    place = lambda r: (r["experiment"], r["task"], r["batch_size"], r["num_items"])  # noqa: E731
    order = list(dict.fromkeys(label(r) for r in sorted(found, key=place)))
    pipelines = [name for name in (THEIRS, "original", "fast") if any(r["pipeline"] == name for r in found)]
    for phase in phases:
        for i, pipeline in enumerate(pipelines):
            mine = [r for r in found if (r["phase"], r["pipeline"]) == (phase, pipeline)]
            colour, symbol, _ = _LOOKS[pipeline, "cpu"]
            shift = 0.26 * (i - (len(pipelines) - 1) / 2)
            name = pipeline if pipeline == THEIRS else f"ours, {pipeline} pipeline"
            places = [order.index(label(r)) + shift for r in mine]
            figure.add_scatter(
                y=[y for y, r in zip(places, mine, strict=True) for _ in r["each"]],
                x=rounded([value for r in mine for value in r["each"]]),
                mode="markers",
                name=name,
                legendgroup=name,
                marker={"color": colour, "symbol": symbol, "size": 8, "opacity": 0.7},
                visible=phase == phases[0],
                hovertemplate="%{x:.3g} times<extra>one pair of trials, %{fullData.name}</extra>",
            )
            figure.add_scatter(
                y=places,
                x=rounded([r["ratio"] for r in mine]),
                mode="markers",
                legendgroup=name,
                showlegend=False,
                name=name,
                marker={"symbol": "line-ns-open", "size": 16, "color": colour, "line": {"width": 3}},
                visible=phase == phases[0],
                customdata=[number(r["ratio"]) for r in mine],
                hovertemplate="%{customdata} times by means<extra>%{fullData.name}</extra>",
            )
            owners += [phase, phase]
    figure.add_vline(x=1, line={"color": "#8a8f98", "dash": "dot", "width": 1})
    figure.add_vline(x=5, line={"color": "#8a8f98", "dash": "dash", "width": 1})
    figure.add_annotation(
        x=math.log10(5),
        y=1,
        yref="paper",
        text="hoped for: 5",
        showarrow=False,
        xanchor="left",
        yanchor="top",
        font={"size": 10},
    )
    figure.update_layout(
        **layout(170 + 34 * len(order)),
        xaxis={"title": {"text": "CPU time over GPU time (log)"}, "type": "log", "dtick": "D2"},
        yaxis={
            "tickvals": list(range(len(order))),
            "ticktext": order,
            "automargin": True,
            "ticksuffix": "  ",
            "range": [len(order) - 0.4, -0.6],
            "zeroline": False,
        },
    )
    return figure, [
        {"label": f"{phase}ing", "args": [{"visible": [owner == phase for owner in owners]}]} for phase in phases
    ]
