"""What the report's figures share: colours, layout, how many points they draw, and views of some traces at a time."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

Figure = tuple[go.Figure, list[dict]]
"""A figure, and the choices of its reader: `label` and `args` of Plotly's update."""

PARTS = {
    "reading": ("#0072b2", ""),
    "resampling": ("#56b4e9", "/"),
    "mel": ("#e69f00", "x"),
    "copy": ("#f0e442", "."),
    "forward": ("#009e73", ""),
    "backward": ("#66c2a4", "\\"),
    "optimizer": ("#cc79a7", "+"),
    "synchronisation": ("#d55e00", "-"),
    "idle": ("#9aa0a8", "|"),
}
"""Part of a step -> colour (Okabe and Ito's, told apart by the colour-blind) and hatching."""

SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f6bd0", "#8a8f98")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "star", "triangle-down", "cross")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")

LEGEND_ABOVE = {"traceorder": "normal", "y": 1.02, "yanchor": "bottom"}
"""Below the bars a legend of many lines, as on a phone, would lie on the axis title."""


def layout(height: int, **more: object) -> dict:
    """The layout that all figures share: no background of their own, legend below."""
    return {
        "height": height,
        "margin": {"l": 8, "r": 12, "t": 14, "b": 48},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"size": 12},
        "template": "none",  # the default one is 7 kB a figure
        "legend": {"orientation": "h", "y": -0.2, "yanchor": "top", "x": 0, "font": {"size": 11}},
        **more,
    }


def rounded(values: Sequence[float], digits: int = 5) -> list[float]:
    """Values with so many significant digits: a figure needs no more, and a page gets lighter."""
    return [float(f"{value:.{digits}g}") for value in values]


def thinned(values: Sequence[float], most: int = 400) -> list[int]:
    """Indices of at most `most` values, first and last among them."""
    if len(values) <= most:
        return list(range(len(values)))
    return sorted({round(i * (len(values) - 1) / (most - 1)) for i in range(most)})


def samples_box(samples: Sequence[float], name: str, colour: str, unit: str) -> dict:
    """A box with a mark for every sample."""
    return {
        "x": samples,
        "name": name,
        "boxpoints": "all",
        "jitter": 0.6,
        "pointpos": 0,
        "showlegend": False,
        "marker": {"size": 4, "opacity": 0.6, "color": colour},
        "line": {"width": 1.2},
        "fillcolor": "rgba(128,128,128,0.12)",
        "hovertemplate": f"%{{x:.4g}} {unit}<extra>%{{fullData.name}}</extra>",
    }


def views(figure: go.Figure, owners: Sequence[Hashable], labels: Mapping[Any, str]) -> list[dict]:
    """Choices that show the traces of one owner at a time; the first is shown at first.

    Args:
        owners: of each trace, in the figure's order.
        labels: owner -> what the reader chooses by.
    """
    visible = {key: [owner == key for owner in owners] for key in labels}
    for trace, shown in zip(figure.data, next(iter(visible.values()), []), strict=False):
        trace.visible = shown
    return [{"label": label, "args": [{"visible": visible[key]}]} for key, label in labels.items()]
