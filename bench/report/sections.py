"""What chapters are built of: sections, tables, badges, and pictures that have their numbers as a table behind them.

Every text is escaped here; a cell that is HTML already says so by being `Html`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import plotly.graph_objects as go

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


BROKEN = (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError, RecursionError)
"""What computing raises on records that lack a field or hold another kind of value: files come from anywhere."""


class Html(str):
    """Text that is HTML already."""


def text(value: object) -> str:
    """HTML of a value: `Html` as it is, None as a dash, the rest escaped."""
    if isinstance(value, Html):
        return value
    return "—" if value is None else escape(str(value))


def section(title: str, told: str, *body: str) -> str:
    """A heading of the third level, a line about what is shown, and the rest."""
    line = f'<p class="soft">{text(told)}</p>' if told else ""
    return f"<h3>{text(title)}</h3>\n{line}\n" + "\n".join(body)


def card(*body: str) -> str:
    """A framed box."""
    return '<div class="card">' + "\n".join(body) + "</div>"


def table(head: Sequence[str], rows: Sequence[Sequence[object]], *, words: bool = False, caption: str = "") -> str:
    """A table in a box that scrolls sideways and that the keyboard reaches; `words` wrap and stand to the left."""
    top = "".join(f'<th scope="col">{text(cell)}</th>' for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    kind = ' class="words"' if words else ""
    told = f"<caption>{text(caption)}</caption>" if caption else ""
    label = escape(caption or "table")
    return (
        f'<div class="card wide" tabindex="0" role="region" aria-label="{label}"><table{kind}>{told}'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def details(summary: str, body: str) -> str:
    """Something to unfold."""
    return f"<details><summary>{text(summary)}</summary>{body}</details>"


def badge(word: str, kind: str = "warn") -> Html:
    """A word in a coloured pill: kind "warn", "good" or "bad"; nothing for no word."""
    return Html(f'<span class="badge {kind}">{escape(word)}</span>' if word else "")


def layout(height: int, **more: object) -> dict:
    """The layout that all pictures share: no background of their own, legend below."""
    return {
        "height": height,
        "margin": {"l": 8, "r": 12, "t": 14, "b": 48},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"size": 12},
        "template": "none",
        "legend": {"orientation": "h", "y": -0.2, "yanchor": "top", "x": 0, "font": {"size": 11}},
        **more,
    }


def plot(
    figure: go.Figure,
    plot_id: str,
    label: str,
    *,
    choices: Sequence[dict] = (),
    data: str = "",
) -> str:
    """A picture in a box, for a page whose head holds plotly and `frame.SCRIPT`.

    Args:
        figure: what to draw.
        plot_id: unique in the page.
        label: what a screen reader says.
        choices: `label` and `args` (of Plotly.update) of each way to see it.
        data: table of the numbers shown, to unfold below.
    """
    # Written out here and not by plotly's to_html, whose default template is 7 kB a figure.
    drawn = json.dumps(figure.to_plotly_json(), cls=_encoder(), separators=(",", ":")).replace("<", "\\u003c")
    select = ""
    if len(choices) > 1:
        options = "".join(f"<option>{text(choice['label'])}</option>" for choice in choices)
        select = f'<label class="choice">Show <select id="{plot_id}-choice">{options}</select></label>'
    height = figure.layout.height or 450
    changes = json.dumps([choice["args"] for choice in choices], cls=_encoder()).replace("<", "\\u003c")
    script = f'draw("{plot_id}", {drawn}, {changes if len(choices) > 1 else "[]"});'
    behind = details("The numbers behind this picture", data) if data else ""
    return card(
        select,
        f'<div role="img" aria-label="{escape(label)}"><div id="{plot_id}" style="height:{height}px"></div></div>',
        f"<script>{script}</script>",
        behind,
    )


def _encoder() -> type[json.JSONEncoder]:
    from plotly.utils import PlotlyJSONEncoder

    return PlotlyJSONEncoder


def rounded(values: Sequence[float], digits: int = 5) -> list[float]:
    """Values with so many significant digits: a picture needs no more, and a page gets lighter."""
    return [float(f"{value:.{digits}g}") for value in values]


def thinned(values: Sequence[float], most: int = 400) -> list[int]:
    """Indices of at most `most` values, first and last among them."""
    if len(values) <= most:
        return list(range(len(values)))
    return sorted({round(i * (len(values) - 1) / (most - 1)) for i in range(most)})


def spread_badge(samples: Sequence[float], disturbed: bool = False) -> str:
    """ "disturbed", "unstable" or nothing, by the rules of `core.timing`; three samples are too few for a spread."""
    from triadbench.core.timing import Timing

    if disturbed:
        return "disturbed"
    return "unstable" if len(samples) > 2 and Timing.from_samples(0.0, list(samples)).unstable else ""
