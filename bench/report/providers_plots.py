"""The pictures of `benchmark`: plotly figures that work in a light and in a dark page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from triadbench.bench.analysis import providers as providers_numbers
from triadbench.bench.report.sections import DASHES, SERIES, SYMBOLS, layout, rounded, thinned

if TYPE_CHECKING:
    import plotly.graph_objects as go

_ROWS_OF_LEGEND_PX = 22
_GREY = "rgba(128,128,128,.6)"


def latencies(rows: Sequence[dict]) -> tuple[go.Figure, list[dict]]:
    """Share of queries answered within a time, a line for each contestant; or the time at each percentile, where the
    slowest thousandth has as much room as the fastest half. One thread count at a time."""
    import numpy as np
    import plotly.graph_objects as go

    rows = [row for row in rows if row["single"]]
    figure, curves, tails = go.Figure(), [], []
    for row in rows:
        ordered = sorted(row["samples"])
        n = len(ordered)
        at = thinned(ordered)
        shares = [100 * (i + 1) / n for i in at]
        curves.append((rounded([ordered[i] for i in at]), rounded(shares)))
        # 1 in 2, 1 in 4, ... of the queries is slower.
        slower = [2.0**-k for k in np.arange(0, np.log2(max(n, 2)) + 1e-9, 0.25)]
        times = np.quantile(ordered, [1 - share for share in slower]).tolist()
        tails.append((rounded([1 / share for share in slower]), rounded(times)))
        figure.add_scatter(
            x=curves[-1][0],
            y=curves[-1][1],
            mode="lines",
            **_look(rows, row, shape="hv"),
            hovertemplate="%{x:.3g}, %{y:.4g}<extra>%{fullData.name}</extra>",
        )
    percent = {"type": "linear", "title": {"text": "% of queries"}, "automargin": True, "range": [0, 101]}
    time_ms = {"type": "log", "title": {"text": "milliseconds (log)"}, "dtick": "D2"}
    figure.update_layout(**_layout(rows, 420), xaxis=time_ms, yaxis=percent)
    choices = []
    for threads in _threads(rows):
        shown = [row["threads"] == threads for row in rows]
        for words, drawn, x, y in (
            ("answered within", curves, time_ms, percent),
            (
                "the slow tail",
                tails,
                {"type": "log", "title": {"text": "one query in so many is slower (log)"}, "dtick": 1},
                {"type": "log", "title": {"text": "milliseconds (log)"}, "dtick": "D2", "automargin": True},
            ),
        ):
            axes = {"xaxis": x | {"autorange": True}, "yaxis": y | ({} if "range" in y else {"autorange": True})}
            data = {"x": [line[0] for line in drawn], "y": [line[1] for line in drawn], "visible": shown}
            choices.append({"label": f"{_plural(threads)}: {words}", "args": [data, axes]})
    for trace, shown in zip(figure.data, choices[0]["args"][0]["visible"] if choices else [], strict=True):
        trace.visible = shown
    return figure, choices


def throughput(rows: Sequence[dict]) -> tuple[go.Figure, list[dict]]:
    """Clips a second over the batch size, both logarithmic; a ring where a GPU passes every CPU contestant."""
    import plotly.graph_objects as go

    rows = [row for row in rows if row["offline"]]
    figure, owners = go.Figure(), []
    for row in rows:
        figure.add_scatter(
            x=list(row["offline"]),
            y=rounded(list(row["offline"].values())),
            mode="lines+markers",
            **_look(rows, row, marker=True),
            customdata=[" (disturbed)" if row["disturbed"][batch] else "" for batch in row["offline"]],
            hovertemplate="batch %{x}: %{y:.4g} clips/s%{customdata}<extra>%{fullData.name}</extra>",
        )
        owners.append(row["threads"])
    for crossing in providers_numbers.crossovers(rows):
        if crossing["batch"] is not None:
            row = crossing["row"]
            figure.add_scatter(
                x=[crossing["batch"]],
                y=[row["offline"][crossing["batch"]]],
                mode="markers",
                showlegend=False,
                name="faster than the CPU",
                marker={"symbol": "circle-open", "size": 22, "color": "#d55e00", "line": {"width": 2}},
                hovertemplate=f"from batch %{{x}} on {row['name']} is faster than every CPU contestant<extra></extra>",
            )
            owners.append(row["threads"])
    batches = sorted({batch for row in rows for batch in row["offline"]})
    figure.update_layout(
        **_layout(rows, 420),
        xaxis={
            "type": "log",
            "title": {"text": "clips a call (log)"},
            "tickvals": batches,
            "ticktext": [str(batch) for batch in batches],
        },
        yaxis={"type": "log", "title": {"text": "clips a second (log)"}, "automargin": True, "dtick": "D2"},
    )
    choices = [
        {"label": _plural(threads), "args": [{"visible": [owner == threads for owner in owners]}, {}]}
        for threads in _threads(rows)
    ]
    for trace, shown in zip(figure.data, choices[0]["args"][0]["visible"] if choices else [], strict=True):
        trace.visible = shown
    return figure, choices


def waits(rows: Sequence[dict]) -> go.Figure:
    """A box of each way's or command's seconds, and a mark for every one of them."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for i, row in enumerate(rows):
        figure.add_box(
            x=rounded(row["samples"]),
            y=[row["label"]] * len(row["samples"]),
            orientation="h",
            name=row["label"],
            boxpoints="all",
            jitter=0.5,
            pointpos=0,
            line={"color": SERIES[i % len(SERIES)], "width": 1.5},
            marker={"size": 5, "opacity": 0.7},
            fillcolor="rgba(128,128,128,0.12)",
            hovertemplate="%{x:.4g} s<extra>%{fullData.name}</extra>",
        )
    figure.update_layout(
        **layout(110 + 60 * len(rows), showlegend=False),
        xaxis={"title": {"text": "seconds"}, "rangemode": "tozero"},
        yaxis={"autorange": "reversed", "automargin": True, "ticksuffix": "  "},
    )
    return figure


def _look(rows: Sequence[dict], row: dict, *, shape: str = "linear", marker: bool = False) -> dict:
    """A contestant has one colour, dash and symbol, with any number of threads."""
    names = list(dict.fromkeys(other["name"] for other in rows))
    i = names.index(row["name"])
    look = {
        "name": row["name"],
        "line": {"color": SERIES[i % len(SERIES)], "dash": DASHES[i % len(DASHES)], "width": 2, "shape": shape},
    }
    return look | ({"marker": {"symbol": SYMBOLS[i % len(SYMBOLS)], "size": 8}} if marker else {})


def _layout(rows: Sequence[dict], height: int) -> dict:
    """The legend stands above the lines: on a phone it has as many rows as there are contestants."""
    names = {row["name"] for row in rows}
    found = layout(height + _ROWS_OF_LEGEND_PX * len(names))
    found["legend"] |= {"y": 1.02, "yanchor": "bottom", "traceorder": "normal"}
    return found


def _threads(rows: Sequence[dict]) -> list[int]:
    return sorted({row["threads"] for row in rows})


def _plural(threads: int) -> str:
    return f"{threads} thread{'' if threads == 1 else 's'}"
