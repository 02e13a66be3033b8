"""The ladder's pictures: plotly figures that work in a light and in a dark page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from triadbench.bench.analysis import ladder as ladder_numbers
from triadbench.bench.analysis.summary import number
from triadbench.bench.report.sections import DASHES, PARTS, SERIES, layout, rounded, thinned

if TYPE_CHECKING:
    import plotly.graph_objects as go

_TOTAL, _FASTER, _SLOWER = "#7d8590", "#0072b2", "#d55e00"
_ROOM = 1.45  # what the longest bar leaves for its label
_GREY = "rgba(128,128,128,.6)"


def labels(rows: Sequence[dict]) -> list[str]:
    """Short, and two of the same name stay apart."""
    return [f"{row['rung']} {row['name']}" for row in rows]


def waterfall(rows: Sequence[dict]) -> tuple[go.Figure, list[dict]]:
    """A bar from the epoch before to the epoch after each rung; a mark for every epoch timed.

    Where the last epoch is far shorter than the first, a choice enlarges the short ones.
    """
    import plotly.graph_objects as go

    names = [*labels(rows), "all together"]
    last = rows[-1]["median_s"]
    figure = go.Figure()
    before = [row["median_s"] for row in rows[:-1]]
    after = [row["median_s"] for row in rows[1:]]
    bars = {
        "whole epoch": (_TOTAL, "", [(names[0], 0.0, rows[0]["median_s"], ""), (names[-1], 0.0, last, "")]),
        "saved": (_FASTER, "/", []),
        "added": (_SLOWER, "x", []),
    }
    for name, old, new in zip(names[1:-1], before, after, strict=True):
        bars["saved" if new <= old else "added"][2].append(
            (name, min(old, new), max(old, new), f"÷{number(old / new)}")
        )
    for kind, (colour, hatching, drawn) in bars.items():
        if not drawn:
            continue
        figure.add_bar(
            y=[name for name, *_ in drawn],
            base=[low for _, low, _, _ in drawn],
            x=[high - low for _, low, high, _ in drawn],
            orientation="h",
            name=kind,
            marker={
                "color": colour,
                "line": {"width": 1, "color": _GREY},
                "pattern": {
                    "shape": hatching,
                    "fillmode": "overlay",
                    "fgcolor": "rgba(255,255,255,.55)",
                    "fgopacity": 1,
                    "size": 7,
                    "solidity": 0.25,
                },
            },
            customdata=[[number(low), number(high), word] for _, low, high, word in drawn],
            hovertemplate="%{customdata[0]} to %{customdata[1]} s %{customdata[2]}<extra>%{y}</extra>",
        )
    for i, row in enumerate(rows):
        figure.add_scatter(
            x=rounded(row["samples"]),
            y=[names[i]] * len(row["samples"]),
            mode="markers",
            name="one epoch",
            legendgroup="epochs",
            showlegend=i == 0,
            marker={"symbol": "line-ns-open", "size": 13, "color": "#e69f00", "line": {"width": 2}},
            hovertemplate="%{x:.4g} s<extra>one epoch</extra>",
        )
    ends = [rows[0]["median_s"], *(max(pair) for pair in zip(before, after, strict=True)), last]
    words = [
        f"{number(rows[0]['median_s'])} s",
        *(f"{number(new)} s (÷{number(old / new)})" for old, new in zip(before, after, strict=True)),
        f"{number(last)} s" + (f" (÷{number(rows[-1]['over_original'])})" if rows[-1]["over_original"] else ""),
    ]
    most = max(value for row in rows for value in row["samples"])
    figure.update_layout(
        **layout(160 + 40 * len(names)),
        barmode="overlay",
        bargap=0.3,
        xaxis={"title": {"text": "seconds an epoch"}, "range": [0, _ROOM * max(most, *ends)]},
        yaxis={
            "autorange": "reversed",
            "automargin": True,
            "ticksuffix": "  ",
            "categoryorder": "array",
            "categoryarray": names,
        },
        annotations=[
            # Beyond the marks of single epochs, which may lie right of the bar.
            {
                "x": max([end, *(rows[i]["samples"] if i < len(rows) else [])]),
                "y": name,
                "text": word,
                "xanchor": "left",
                "showarrow": False,
                "xshift": 8,
                "font": {"size": 12},
            }
            for i, (name, end, word) in enumerate(zip(names, ends, words, strict=True))
        ],
    )
    choices = [{"label": "every rung", "args": [{}, {"xaxis.range": [0, _ROOM * max(most, *ends)]}]}]
    short = [value for row in rows for value in row["samples"] if value < 0.3 * most]
    if last < 0.15 * most and short:
        choices.append({"label": "the fast end, enlarged", "args": [{}, {"xaxis.range": [0, _ROOM * max(short)]}]})
    return figure, choices


def parts(rows: Sequence[dict], names: Sequence[str] | None = None) -> tuple[go.Figure, list[dict]]:
    """Stacked bars of the parts of every rung: milliseconds a clip, seconds an epoch, or shares.

    Args:
        names: of the bars; None takes `labels`.
    """
    import plotly.graph_objects as go

    figure, values = go.Figure(), {"milliseconds a training clip": [], "seconds an epoch": [], "share in percent": []}
    names = labels(rows) if names is None else list(names)
    for part in dict.fromkeys(part for row in rows for part in ladder_numbers.parts_of(row)):
        seconds = [ladder_numbers.split_s(row).get(part, 0.0) for row in rows]
        clip_ms = rounded([1e3 * value / row["clips"] for value, row in zip(seconds, rows, strict=True)])
        totals = [row["median_s"] for row in rows]
        values["milliseconds a training clip"].append(clip_ms)
        values["seconds an epoch"].append(rounded(seconds))
        values["share in percent"].append(rounded([100 * v / t for v, t in zip(seconds, totals, strict=True)]))
        colour, hatching = PARTS.get(part, ("#8a8f98", ""))
        figure.add_bar(
            y=names,
            x=clip_ms,
            orientation="h",
            name=part,
            marker={
                "color": colour,
                "line": {"width": 1, "color": _GREY},
                "pattern": {
                    "shape": hatching,
                    "fillmode": "overlay",
                    "fgcolor": "rgba(0,0,0,.35)",
                    "fgopacity": 1,
                    "size": 6,
                    "solidity": 0.25,
                },
            },
            hovertemplate="%{x:.3g} " + part + "<extra>%{y}</extra>",
        )
    first = next(iter(values))
    figure.update_layout(
        **layout(220 + 34 * len(rows)),
        barmode="stack",
        bargap=0.3,
        xaxis={"title": {"text": first}},
        yaxis={"autorange": "reversed", "automargin": True, "ticksuffix": "  "},
    )
    # Above the bars: below them its lines, many on a phone, would lie on the axis title.
    figure.update_layout(legend={"traceorder": "normal", "y": 1.02, "yanchor": "bottom"})
    choices = [{"label": title, "args": [{"x": found}, {"xaxis.title.text": title}]} for title, found in values.items()]
    return figure, choices


def losses(rows: Sequence[dict]) -> tuple[go.Figure, list[dict]]:
    """Loss of every step of each rung over the original's, in a band of the tolerance; or the differences from it."""
    import plotly.graph_objects as go

    figure = go.Figure()
    reference = rows[0]["losses"]
    tolerance = next((row["tolerance"] for row in rows if row["tolerance"] is not None), None)
    shown: dict[str, list] = {"losses": [], "difference from the original": []}
    at = thinned(reference)
    if tolerance is not None:
        for sign, fill in ((1, None), (-1, "tonexty")):
            edge = rounded([reference[i] + sign * tolerance for i in at])
            shown["losses"].append(edge)
            shown["difference from the original"].append([sign * tolerance] * len(at))
            figure.add_scatter(
                x=[i + 1 for i in at],
                y=edge,
                mode="lines",
                line={"width": 0.5, "color": _GREY},
                fill=fill,
                fillcolor="rgba(128,128,128,.22)",
                name="tolerance",
                legendgroup="tolerance",
                showlegend=sign < 0,
                hoverinfo="skip",
            )
    for k, curve in enumerate(rows[0]["losses_of_seeds"]):
        steps = thinned(curve)
        y = _finite([curve[i] for i in steps])
        shown["losses"].append(y)
        shown["difference from the original"].append([None] * len(y))
        figure.add_scatter(
            x=[i + 1 for i in steps],
            y=y,
            mode="lines",
            line={"width": 1, "color": _GREY, "dash": "dot"},
            name="other seeds",
            legendgroup="seeds",
            showlegend=k == 0,
            hovertemplate="step %{x}: %{y:.6g}<extra>original, another seed</extra>",
        )
    for i, row in enumerate(rows):
        same = len(row["losses"]) == len(reference)
        steps = thinned(row["losses"])
        y = _finite([row["losses"][k] for k in steps])
        shown["losses"].append(y)
        shown["difference from the original"].append(
            _finite([row["losses"][k] - reference[k] for k in steps]) if same else []
        )
        figure.add_scatter(
            x=[k + 1 for k in steps],
            y=y,
            mode="lines",
            name=f"{row['rung']} {row['name']}",
            line={"color": SERIES[i % len(SERIES)], "dash": DASHES[i % len(DASHES)], "width": 3.5 if i == 0 else 1.5},
            hovertemplate="step %{x}: %{y:.6g}<extra>%{fullData.name}</extra>",
        )
    figure.update_layout(
        **layout(460),
        xaxis={"title": {"text": "step"}},
        yaxis={"title": {"text": "loss"}, "automargin": True, "exponentformat": "power"},
    )
    titles = {"losses": "loss", "difference from the original": "loss minus the original's"}
    choices = [
        {"label": label, "args": [{"y": values}, {"yaxis.title.text": titles[label], "yaxis.autorange": True}]}
        for label, values in shown.items()
    ]
    return figure, choices


def _finite(values: Sequence[float]) -> list[float | None]:
    """Six digits; a loss that was not a number is recorded as 1e308 and is a gap in the curve."""
    return [None if abs(value) > 1e100 else value for value in rounded(values, 6)]
