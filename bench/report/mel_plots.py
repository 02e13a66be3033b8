"""The mel profile's pictures, from its records: plotly figures that work in a light and in a dark page."""

from __future__ import annotations

import json
import math
from html import escape
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from triadbench.bench.analysis import mel as mel_summary
from triadbench.bench.analysis.summary import badge, number

if TYPE_CHECKING:
    import plotly.graph_objects as go


class Picture(NamedTuple):
    """A figure, and what a reader may choose to see in it: `label` and `args` of Plotly.update."""

    figure: go.Figure
    choices: list[dict] = []


_SYMBOLS = (
    "circle",
    "square",
    "diamond",
    "triangle-up",
    "triangle-down",
    "cross",
    "x",
    "star",
    "pentagon",
    "hexagon",
    "bowtie",
    "hourglass",
    "star-diamond",
)
_INTENSITIES = (0.25, 250.0)
"""Operations a byte that the roofline shows: from where L1 still limits to well beyond any mel."""
_GREY = "#8a8f98"
_OURS, _EAGER = "#3b82f6", "#e8743b"
_RIVALS = ("#19a979", "#b566d9", "#d94a70", "#b8860b", "#0e8fa8", "#7a6ff0", "#a0522d", "#6b8e23")
# Instruction classes: blues compute, oranges move, greys steer. Their order is that of the bars.
_MIX = ("#1f5fbf", "#5b9bf0", "#a7c8f7", "#8a6fd1", "#c2570c", "#f2a65e", "#d94a70", "#6b7280", "#b6bcc6")


def styles(made: list[dict]) -> dict[str, dict]:
    """Contestant -> colour and symbol, the same in every picture: shape tells them apart without colour."""
    ours = dict.fromkeys(row["contestant"] for row in made if row["ours"])
    rivals = dict.fromkeys(row["contestant"] for row in made if not row["ours"])
    colours = {name: _OURS for name in ours} | {
        name: _EAGER if name == mel_summary.EAGER else _RIVALS[i % len(_RIVALS)] for i, name in enumerate(rivals)
    }
    return {
        name: {"color": colours[name], "symbol": _SYMBOLS[i % len(_SYMBOLS)]} for i, name in enumerate([*ours, *rivals])
    }


def roofline(made: list[dict], records: list[dict], device: str) -> Picture:
    """Achieved operations against operations a byte, under the roofs of the most threads; largest batch shown first."""
    import plotly.graph_objects as go

    mine = [row for row in made if row["device"] == device]
    cases = sorted({(row["threads"], row["batch"]) for row in mine}, key=lambda case: (-case[0], -case[1]))
    style, roofs, figure = styles(made), mel_summary.roofs(records), go.Figure()
    owners: list[tuple[int, int]] = []
    for threads, batch in cases:
        for x, y, name, label in _roof_lines(roofs, device, threads, mine):
            flat = y[0] == y[1]
            figure.add_scatter(
                x=x,
                y=y,
                mode="lines+text",
                text=["", label + " "] if flat else [" " + label, ""],
                textposition="top left" if flat else "bottom right",
                textfont={"size": 10},
                name=name,
                showlegend=False,
                line={"color": _GREY, "width": 2, "dash": "solid" if flat or name.startswith("memory") else "dot"},
                hovertemplate=f"{name}<extra></extra>",
                visible=(threads, batch) == cases[0],
            )
            owners.append((threads, batch))
        for name, look in style.items():
            here = [r for r in mine if (r["contestant"], r["threads"], r["batch"]) == (name, threads, batch)]
            if not here:
                continue
            figure.add_scatter(
                x=[row["intensity"] for row in here],
                y=[row["gflop_per_s"] for row in here],
                name=name,
                mode="markers",
                marker={"size": 11, "line": {"width": 1, "color": "rgba(128,128,128,.6)"}, **look},
                customdata=[[row["spec"], number(row["p50_ms"]), number(row["gb_per_s"]), badge(row)] for row in here],
                hovertemplate="%{customdata[0]}: %{y:.3g} GFLOP/s, %{customdata[2]} GB/s, %{customdata[1]} ms "
                "%{customdata[3]}<extra>%{fullData.name}</extra>",
                visible=(threads, batch) == cases[0],
            )
            owners.append((threads, batch))
    buttons = [
        {"label": _case_label(case, device), "args": [{"visible": [own == case for own in owners]}]} for case in cases
    ]
    ticks = {row["intensity"]: row["spec"] for row in mine}
    figure.update_layout(
        **_layout(height=560),
        xaxis={
            "type": "log",
            "title": {"text": "operations a byte (nominal work over least traffic)"},
            "range": [math.log10(value) for value in _INTENSITIES],
            "dtick": "D2",
        },
        yaxis={"type": "log", "title": {"text": "GFLOP/s"}, "automargin": True, "dtick": 1},
        annotations=[
            {
                "x": math.log10(x),
                "y": 0,
                "yref": "paper",
                "yanchor": "bottom",
                "text": name,
                "showarrow": False,
                "textangle": -90,
                "font": {"size": 10},
                "xshift": 9,
            }
            for x, name in ticks.items()
        ],
    )
    return Picture(figure, buttons)


def _roof_lines(roofs: dict, device: str, threads: int, mine: list[dict]) -> list[tuple[list, list, str, str]]:
    """(x, y, name, label) of each roof: slopes up to the ridge, then flat."""
    top = roofs.get((device, threads, "arithmetic"))
    if top is None or not mine:
        return []
    low, high = _INTENSITIES
    flat = f"matrix product {number(top)} GFLOP/s"
    lines = [([low, high], [top, top], flat, flat)]
    slopes = sorted(
        (rate, name)
        for (where, count, name), rate in roofs.items()
        if (where, count) == (device, threads) and name != "arithmetic" and top / rate > low
    )
    for rate, name in slopes:
        # Caches can be equally fast: lines that lie together have one label, at the lowest.
        together = [(each, other) for each, other in slopes if rate / 1.25 <= each <= 1.25 * rate]
        label = ", ".join(f"{other} {number(each)}" for each, other in together) + " GB/s"
        end = min(top / rate, high)
        lines.append(
            (
                [low, end],
                [rate * low, rate * end],
                f"{name} {number(rate)} GB/s",
                label if rate == together[0][0] else "",
            )
        )
    return lines


def speed_ups(made: list[dict]) -> Picture:
    """Every contestant's speed over torchaudio eager's, one mark a case: a distribution for each contestant."""
    import plotly.graph_objects as go

    specs = list(dict.fromkeys(row["spec"] for row in made))
    shown = [row for row in made if row["against_eager"] is not None]
    order = sorted(dict.fromkeys(row["contestant"] for row in shown), key=lambda name: _middle(shown, name))
    style, figure = styles(made), go.Figure()
    offsets = dict(zip(specs, (0.22, 0.0, -0.22) if len(specs) > 1 else (0.0,), strict=False))
    for spec in specs:
        here = [row for row in shown if row["spec"] == spec]
        figure.add_scatter(
            x=[row["against_eager"] for row in here],
            y=[order.index(row["contestant"]) + offsets.get(spec, 0.0) for row in here],
            name=spec,
            mode="markers",
            marker={
                "size": [6 + 2.2 * math.log2(row["batch"]) ** 0.8 for row in here],
                "color": [style[row["contestant"]]["color"] for row in here],
                "opacity": 0.75,
                "symbol": _SYMBOLS[specs.index(spec)],
                "line": {"width": 1, "color": "rgba(128,128,128,.6)"},
            },
            customdata=[
                [
                    row["contestant"],
                    f"{row['spec']} x{row['batch']}, {mel_summary.threads_text((0, 0, row['threads'], row['device']))}",
                    number(row["p50_ms"]),
                    badge(row),
                ]
                for row in here
            ],
            hovertemplate="%{customdata[1]}: %{x:.3g} times, %{customdata[2]} ms %{customdata[3]}"
            "<extra>%{customdata[0]}</extra>",
        )
    figure.add_vline(x=1, line={"color": _GREY, "dash": "dot", "width": 1})
    figure.update_layout(
        **_layout(height=150 + 46 * len(order)),
        xaxis={"type": "log", "title": {"text": "times as fast as torchaudio eager"}, "dtick": "D2"},
        yaxis={
            "tickvals": list(range(len(order))),
            "ticktext": order,
            "automargin": True,
            "range": [-0.6, len(order) - 0.4],
        },
    )
    return Picture(figure)


def _middle(shown: list[dict], name: str) -> float:
    return median(row["against_eager"] for row in shown if row["contestant"] == name)


def error_and_speed(made: list[dict]) -> Picture:
    """Error against float64 and clips a second; the error shown is chosen by a button."""
    import plotly.graph_objects as go

    style, figure = styles(made), go.Figure()
    errors = {"RMS": "rms_relative", "peak": "peak_relative", "log, tilted tones": "tilted_log"}
    values: dict[str, list] = {label: [] for label in errors}
    for name, look in style.items():
        here = [row for row in made if row["contestant"] == name]
        for label, key in errors.items():
            values[label].append([row[key] or None for row in here])
        figure.add_scatter(
            x=[row["clips_per_s"] for row in here],
            y=values["RMS"][-1],
            name=name,
            mode="markers",
            marker={"size": 9, "opacity": 0.8, "line": {"width": 1, "color": "rgba(128,128,128,.6)"}, **look},
            customdata=[
                [f"{row['spec']} x{row['batch']}, {mel_summary.threads_text((0, 0, row['threads'], row['device']))}"]
                for row in here
            ],
            hovertemplate="%{customdata[0]}: %{x:.3g} clips/s, error %{y:.2g}<extra>%{fullData.name}</extra>",
        )
    titles = {
        "RMS": "relative RMS error",
        "peak": "error over the peak",
        "log, tilted tones": "worst error of log mel (natural)",
    }
    buttons = [
        {"label": label, "args": [{"y": values[label]}, {"yaxis.title.text": titles[label]}]} for label in errors
    ]
    figure.update_layout(
        **_layout(height=540),
        xaxis={"type": "log", "title": {"text": "clips a second"}, "dtick": "D2"},
        yaxis={"type": "log", "title": {"text": titles["RMS"]}, "automargin": True, "exponentformat": "power"},
    )
    return Picture(figure, buttons)


def times(made: list[dict], records: list[dict]) -> Picture:
    """Every sample and its box, a group at a time."""
    import plotly.graph_objects as go

    groups = list(dict.fromkeys((r["spec"], r["batch"], r["threads"], r["device"]) for r in made))
    first = max(groups, key=lambda group: (group[2], group[1] == 64, group[1]))
    groups = [first, *(group for group in groups if group != first)]
    style, figure, owners = styles(made), go.Figure(), []
    for record in mel_summary.select(records, "mel"):
        given = record["parameters"]
        group = (given["spec"], given["batch"], given["threads"], given["device"])
        figure.add_box(
            x=record["samples"],
            name=given["contestant"],
            boxpoints="all",
            jitter=0.6,
            pointpos=0,
            showlegend=False,
            marker={"size": 4, "opacity": 0.6, "color": style[given["contestant"]]["color"]},
            line={"width": 1.2},
            fillcolor="rgba(128,128,128,0.12)",
            hovertemplate="%{x:.4g} ms<extra>%{fullData.name}</extra>",
            visible=group == first,
        )
        owners.append(group)
    buttons = [
        {
            "label": f"{group[0]} x{group[1]}, {mel_summary.threads_text(group)}",
            "args": [{"visible": [own == group for own in owners]}],
        }
        for group in groups
    ]
    figure.update_layout(
        **_layout(height=120 + 36 * len(style)),
        xaxis={"type": "log", "title": {"text": "milliseconds a call"}, "dtick": "D2"},
        yaxis={"autorange": "reversed", "automargin": True},
    )
    return Picture(figure, buttons)


def instruction_mix(analyses: list[tuple[str, dict]]) -> Picture:
    """Stacked bars: instructions of the compiled CUDA kernel by class, one bar a spec and architecture."""
    import plotly.graph_objects as go

    figure = go.Figure()
    kinds = dict.fromkeys(kind for _, found in analyses for kind in found["mix"])
    for number_of_kind, kind in enumerate(kinds):
        figure.add_bar(
            y=[label for label, _ in analyses],
            x=[found["mix"].get(kind, 0) for _, found in analyses],
            name=kind,
            orientation="h",
            marker={"color": _MIX[number_of_kind % len(_MIX)], "line": {"width": 1, "color": "rgba(128,128,128,.5)"}},
            hovertemplate="%{x} " + kind + "<extra>%{y}</extra>",
        )
    figure.update_layout(
        **_layout(height=190 + 34 * len(analyses)),
        barmode="stack",
        xaxis={"title": {"text": "instructions in the program"}},
        yaxis={"autorange": "reversed", "automargin": True, "ticksuffix": "  "},
    )
    return Picture(figure)


def html(picture: Picture, div_id: str, label: str) -> str:
    """The figure as a part of a page that has plotly in it, its choices as a select that a keyboard reaches.

    `label` is what a screen reader says; the numbers themselves stand in the page's tables.
    """
    plot = picture.figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=div_id,
        config={"responsive": True, "displaylogo": False, "displayModeBar": False, "scrollZoom": False},
    )
    shown = f'<div role="img" aria-label="{escape(label)}">{plot}</div>'
    if len(picture.choices) < 2:
        return shown
    options = "".join(f"<option>{escape(choice['label'])}</option>" for choice in picture.choices)
    changes = json.dumps([choice["args"] for choice in picture.choices]).replace("<", "\\u003c")
    return (
        f'<label class="choice">Show <select id="{div_id}-choice">{options}</select></label>{shown}'
        f"<script>choose({json.dumps(div_id)}, {changes});</script>"
    )


SCRIPT = """
// A picture measures its place before the page's width is final.
window.addEventListener("load", () => {
  for (const plot of document.querySelectorAll(".js-plotly-plot")) Plotly.Plots.resize(plot);
});
function choose(id, changes) {
  const select = document.getElementById(id + "-choice");
  select.addEventListener("change", () => Plotly.update(id, ...changes[select.selectedIndex]));
}
"""
"""Goes into the page's head, before the pictures."""

CSS = """
.choice { display: inline-block; color: var(--soft); font-size: .9rem; }
.choice select { font: inherit; color: var(--ink); background: var(--page); border: 1px solid var(--line);
  border-radius: 6px; padding: .3rem .5rem; max-width: 100%; }
select:focus-visible, .wide:focus-visible, summary:focus-visible { outline: 2px solid var(--accent); }
table.words td, table.words th { text-align: left; white-space: normal; min-width: 7rem; vertical-align: top; }
summary { cursor: pointer; color: var(--accent); }
"""


def _layout(height: int) -> dict:
    return {
        "height": height,
        "margin": {"l": 8, "r": 12, "t": 14, "b": 48},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"size": 12},
        "legend": {"orientation": "h", "y": -0.2, "yanchor": "top", "x": 0, "font": {"size": 11}},
    }


def _case_label(case: tuple[int, int], device: str) -> str:
    return f"batch {case[1]}, {mel_summary.threads_text((0, 0, case[0], device))}"
