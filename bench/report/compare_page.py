"""The page of `report --compare`: two commits or machines side by side."""

from collections.abc import Sequence
from pathlib import Path

import plotly.graph_objects as go

from triadbench.bench.analysis import compare
from triadbench.bench.analysis.compare import ALIKE, FASTER, SLOWER, Row
from triadbench.bench.analysis.gather import Machine
from triadbench.bench.report.figures import Figure, layout
from triadbench.bench.report.opening import HEIGHT
from triadbench.bench.report.page import Chapter, Opening, environment, page, render
from triadbench.core.files import atomic_path

_COLOURS = {FASTER: "#0072b2", SLOWER: "#d55e00", ALIKE: "#8a8f98"}
_DRAWN = 14
"""Rows that an opening's picture has room for."""


def write(record_paths: Sequence[Path] | None, other: Path, out: Path) -> dict:
    """Write the page (arguments: as of `report.write_report`, and the files to compare with).

    Returns:
        `page`, `machines` (two labels), `sentences` and `rows` as of `bench.analysis.compare`.
    """
    both = compare.pair(record_paths, other)
    rows = compare.compare(both[0].records, both[1].records)
    sentences = compare.sentences(rows)
    groups = {title: [row for row in rows if row["verdict"] == title] for title in (FASTER, SLOWER, ALIKE)}
    figures = [
        (str(len(group)), title if title == ALIKE else f"{title}, beyond noise") for title, group in groups.items()
    ]
    drawn = groups[FASTER] + groups[SLOWER] or groups[ALIKE]
    opening = Opening(sentences[0], figures, picture(drawn) if drawn else None, "Times as fast, with intervals")
    groups["not compared"] = [row for row in rows if not row["ratio"]]
    chapters = [
        Chapter(f"rows{i}", f"{title.capitalize()}: {len(group)}", render("compare.html", rows=group))
        for i, (title, group) in enumerate(groups.items())
    ]
    sides = {side: f"{side}: {_label(machine)}" for side, machine in zip(("These", "The other"), both, strict=True)}
    for (side, title), machine in zip(sides.items(), both, strict=True):
        chapters.append(Chapter(side.replace(" ", "-"), title, environment(machine.records)))
    with atomic_path(out) as temporary:
        content = page("What changed", "", [(" · ".join(sides.values()), opening, chapters)])
        temporary.write_text(content, encoding="utf-8", errors="backslashreplace")
    return {"page": str(out), "machines": [*sides.values()], "sentences": sentences, "rows": rows}


def _label(machine: Machine) -> str:
    newest = max((record["environment"] for record in machine.records), key=lambda known: str(known.get("time", "")))
    return f"{machine.label}, last commit {str(newest.get('commit') or 'unknown')[:7]}"


def picture(rows: Sequence[Row]) -> Figure:
    """Ratio and interval of the most changed rows; right of 1 these records are faster."""
    rows = sorted(rows, key=lambda row: max(row["ratio"], 1 / row["ratio"]), reverse=True)[:_DRAWN]
    names = [f"{row['name'].removeprefix('benchmark ')}, {row['case']}".replace("<", "&lt;") for row in rows]
    above, below = ([abs(row[end] - row["ratio"]) for row in rows] for end in ("high", "low"))
    figure = go.Figure()
    figure.add_scatter(
        x=[row["ratio"] for row in rows],
        y=list(range(len(rows))),
        mode="markers",
        marker={"size": 9, "color": [_COLOURS[row["verdict"]] for row in rows]},
        error_x={"color": "#8a8f98", "symmetric": False, "array": above, "arrayminus": below},
        text=names,
        hovertemplate="%{text}<br>%{x:.3g} times as fast<extra></extra>",
    )
    figure.add_vline(x=1, line={"color": "#8a8f98", "dash": "dot", "width": 1})
    figure.update_layout(**layout(HEIGHT), showlegend=False)
    figure.update_xaxes(type="log", title_text="times as fast as the other", dtick="D2")
    short = [name if len(name) <= 40 else f"{name[:39]}…" for name in names]
    figure.update_yaxes(tickvals=list(range(len(rows))), ticktext=short, automargin=True, autorange="reversed")
    return figure, []
