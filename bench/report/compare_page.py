"""The page of `report --compare`: two commits or machines side by side."""

from collections.abc import Sequence
from pathlib import Path

import plotly.graph_objects as go

from triadbench.bench.analysis import compare
from triadbench.bench.analysis.compare import ALIKE, FASTER, SLOWER, Row
from triadbench.bench.report.figures import Figure, layout
from triadbench.bench.report.opening import HEIGHT
from triadbench.bench.report.page import Chapter, Opening, environment, page, render
from triadbench.core.files import atomic_path

_COLOURS = {FASTER: "#0072b2", SLOWER: "#d55e00", ALIKE: "#8a8f98"}
_DRAWN = 14
"""Rows that an opening's picture has room for."""


def write(record_paths: Sequence[Path] | None, other: Path, out: Path) -> tuple[dict, str]:
    """Write the page (arguments: as `report.write_report`, and the files to compare with).

    Returns:
        `page`, `this`, `other` (labels of machines), `verdict`, `alone`, `rows`; and the terminal's version.
    """
    found = compare.read(record_paths, other)
    both = {"These": found.this, "Other": found.other}
    sides = {f"{side}: {machine.label}, {_commits(machine.records)}": machine.records for side, machine in both.items()}
    figures = [(str(len(found.of(verdict))), f"{verdict} than the other, beyond noise") for verdict in (FASTER, SLOWER)]
    figures.append((str(len(found.of(ALIKE))), "within noise"))
    changed = [row for row in found.rows if row["verdict"] in (FASTER, SLOWER)]
    drawn = picture(changed or found.of(ALIKE)) if changed or found.of(ALIKE) else None
    label = "Times as fast as the other, with intervals"
    opening = Opening(compare.verdict(found), figures, drawn, label)
    rest = [row for row in found.rows if not row["ratio"]]
    chapters = [
        Chapter(key, f"{title}: {len(rows)}", render("compare.html", rows=rows))
        for key, title, rows in (
            ("changed", "Changed beyond noise", changed),
            ("alike", "Within noise", found.of(ALIKE)),
        )
    ]
    chapters.append(Chapter("rest", f"Not compared: {len(rest)}", render("compare.html", rows=rest)))
    chapters += [Chapter(f"side{i}", title, environment(records)) for i, (title, records) in enumerate(sides.items())]
    lead = f"{found.alone:,} timings are on one side alone."
    with atomic_path(out) as temporary:
        content = page("What changed", lead, [(" · ".join(sides), opening, chapters)])
        temporary.write_text(content, encoding="utf-8", errors="backslashreplace")
    result = {"page": str(out), "this": found.this.label, "other": found.other.label, "alone": found.alone}
    result |= {"verdict": compare.verdict(found), "rows": found.rows}
    return result, f"{compare.text(found)}\nPage: {out}"


def _commits(records: Sequence[dict]) -> str:
    commits = list(dict.fromkeys(str(record["environment"].get("commit") or "unknown")[:7] for record in records))
    return f"commit{'s' * (len(commits) > 1)} {', '.join(commits[:3])}{' and others' * (len(commits) > 3)}"


def picture(rows: Sequence[Row]) -> Figure:
    """Ratio and interval of the most changed rows; right of 1 these records are faster."""
    rows, figure = rows[:_DRAWN], go.Figure()
    names = [f"{row['name'].removeprefix('benchmark ')}, {row['case']}".replace("<", "&lt;") for row in rows]
    figure.add_scatter(
        x=[row["ratio"] for row in rows],
        y=list(range(len(rows))),
        mode="markers",
        marker={"size": 9, "color": [_COLOURS[row["verdict"]] for row in rows]},
        error_x={
            "color": "#8a8f98",
            "symmetric": False,
            "array": [row["high"] - row["ratio"] for row in rows],
            "arrayminus": [row["ratio"] - row["low"] for row in rows],
        },
        text=names,
        hovertemplate="%{text}<br>%{x:.3g} times as fast<extra></extra>",
    )
    figure.add_vline(x=1, line={"color": "#8a8f98", "dash": "dot", "width": 1})
    figure.update_layout(**layout(HEIGHT), showlegend=False)
    figure.update_xaxes(type="log", title_text="times as fast as the other", dtick="D2")
    short = [name if len(name) <= 40 else f"{name[:39]}…" for name in names]
    figure.update_yaxes(tickvals=list(range(len(rows))), ticktext=short, automargin=True, autorange="reversed")
    return figure, []
