"""What chapters that are put together in Python are built of: the templates' macros, and the looks of figures.

Blocks are HTML as plain strings, and so are the arguments `body` and `data`; `text`, `badge` and `marked` are `Html`.
Every other value is text and is escaped, unless it is `Html`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from triadbench.bench.analysis import summary
from triadbench.bench.report.page import macro

if TYPE_CHECKING:
    import plotly.graph_objects as go

Html = Markup
"""Text that is HTML already."""

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

spread_badge = summary.badge

BROKEN = (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError, RecursionError)
"""What computing raises on records that lack a field or hold another kind of value: files come from anywhere."""


def text(value: object) -> Markup:
    """HTML of a value: `Html` as it is, None as a dash, the rest escaped."""
    return escape("—" if value is None else value)


def section(title: str, lead: str, *body: str) -> str:
    """A heading of the third level, a line about what is shown, and the rest."""
    return str(macro("section", title, lead, Markup("\n".join(body))))


def findings(sentences: Sequence[str]) -> str:
    """A box with a list of sentences; nothing for none."""
    return str(macro("findings", sentences)) if sentences else ""


def card(*body: str) -> str:
    """A framed box."""
    return f'<div class="card">{"".join(body)}</div>'


def table(head: Sequence[str], rows: Sequence[Sequence[object]], *, words: bool = False, caption: str = "") -> str:
    """A table in a box that scrolls sideways and that the keyboard reaches; `words` wrap and stand to the left."""
    return str(macro("table", head, rows, words=words, caption=caption))


def details(summary: str, body: str) -> str:
    """Something to unfold."""
    return f"<details><summary>{text(summary)}</summary>{body}</details>"


def badge(word: str, kind: str = "warn") -> Markup:
    """A word in a coloured pill: kind "warn", "good" or "bad"; nothing for no word."""
    return macro("badge", word, kind)


def plot(figure: go.Figure, plot_id: str, label: str, *, choices: Sequence[dict] = (), data: str = "") -> str:
    """A figure in a box.

    Args:
        figure: what to draw.
        plot_id: unique in the page.
        label: what a screen reader says.
        choices: `label` and `args` (of Plotly.update) of each way to see it.
        data: table of the numbers shown, to unfold below.
    """
    return str(macro("plot", figure, plot_id, label, choices=choices, numbers=Markup(data)))


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


def marked(name: object, word: str) -> Markup:
    """A name with a badge behind it."""
    return text(name) + badge(word)
