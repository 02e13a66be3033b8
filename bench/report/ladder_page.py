"""The ladder's chapter: from the original pipeline to the fast one, a rung at a time, and the proof of each."""

import itertools
from collections.abc import Sequence

import plotly.graph_objects as go
from markupsafe import Markup

from triadbench.bench.analysis import ladder, pairing
from triadbench.bench.analysis.ladder import Case, Row
from triadbench.bench.analysis.summary import DEVICES, number
from triadbench.bench.report.figures import DASHES, LEGEND_ABOVE, PARTS, SERIES, Figure, layout, rounded, thinned
from triadbench.bench.report.page import render

TITLE = "The ladder: from the original pipeline to the fast one"
_KINDS = {"whole epoch": ("#7d8590", ""), "saved": ("#0072b2", "/"), "added": ("#d55e00", "x")}
"""Kind of a waterfall's bar -> colour and hatching."""
_ROOM = 1.6  # what the longest bar leaves for its label
_GREY = "rgba(128,128,128,.6)"


def chapter(records: Sequence[dict]) -> Markup:
    """HTML of all ladders in the records of one machine; "" where there is none."""
    ladders = [_ladder(case, rows) for case, rows in ladder.ladders(records).items()]
    values = {"sentences": ladder.sentences(records), "proof": proof, "ms": ladder.per_clip_ms}
    return render("ladder.html", ladders=ladders, **values) if ladders else Markup()


def _ladder(case: Case, rows: list[Row]) -> dict:
    timed = ladder.timed(rows)
    with_parts = [row for row in timed if row["parts"]]
    return {
        "title": ladder.case_title(case),
        "device": DEVICES.get(case[0], case[0]),
        "short": next((row["protocol"] for row in rows if row["protocol"] != "full"), ""),
        "note": pairing.note(row["code"] for row in timed),
        "complete": ladder.is_complete(rows),
        "rows": rows,
        "timed": timed,
        "with_parts": with_parts,
        "parts": list(dict.fromkeys(part for row in with_parts for part in row["parts"])),
        "waterfall": waterfall(timed) if timed else None,
        "parts_figure": parts(with_parts) if with_parts else None,
        "losses": losses(rows) if rows[0]["losses"] else None,
    }


def proof(row: Row) -> tuple[str, str]:
    """Words and kind of the badge that says whether a rung changed speed only."""
    if row["rung"] == 0:
        return "reference", "good"
    if row["passed"] is None:
        return "losses not compared", "warn"
    if row["worst_difference"] is None or row["tolerance"] is None:
        return "✗ failed its check, not timed", "bad"
    words = f"{row['worst_difference']:.1e} of {row['tolerance']:.1e}"
    if row["passed"]:
        return f"✓ same losses ({words})", "good"
    return f"✗ losses differ ({words}){'' if row['samples'] else ', not timed'}", "bad"


def labels(rows: Sequence[Row]) -> list[str]:
    """Short, and two of the same name stay apart."""
    return [f"{row['rung']} {row['name']}" for row in rows]


def _hatched(colour: str, shape: str, ink: str) -> dict:
    pattern = {"shape": shape, "fillmode": "overlay", "fgcolor": ink, "fgopacity": 1, "size": 6, "solidity": 0.25}
    return {"color": colour, "line": {"width": 1, "color": _GREY}, "pattern": pattern}


def waterfall(rows: Sequence[Row]) -> Figure:
    """A bar from the epoch before to the epoch after each rung; a mark for every epoch timed.

    Where the last epoch is far shorter than the first, a choice enlarges the short ones.
    """
    figure, names, medians = go.Figure(), [*labels(rows), "all together"], [row["median_s"] for row in rows]
    total = rows[-1]["over_original"]
    bars = [("whole epoch", 0.0, medians[0], "", f"{number(medians[0])} s")]
    for (old, new), row in zip(itertools.pairwise(medians), rows[1:], strict=True):
        kind = "saved" if new <= old else "added"
        ratio = f"÷{number(row['over_previous'])}" if row["over_previous"] else ""
        bars.append((kind, min(old, new), max(old, new), ratio, f"{number(new)} s" + (f" ({ratio})" if ratio else "")))
    end = f"{number(medians[-1])} s" + (f" (÷{number(total)})" if total else "")
    bars.append(("whole epoch", 0.0, medians[-1], "", end))
    for kind, (colour, shape) in _KINDS.items():
        if drawn := [(name, *bar) for name, bar in zip(names, bars, strict=True) if bar[0] == kind]:
            figure.add_bar(
                y=[name for name, *_ in drawn],
                base=[low for _, _, low, *_ in drawn],
                x=[high - low for _, _, low, high, *_ in drawn],
                orientation="h",
                name=kind,
                marker=_hatched(colour, shape, "rgba(255,255,255,.55)"),
                customdata=[[number(low), number(high), ratio] for _, _, low, high, ratio, _ in drawn],
                hovertemplate="%{customdata[0]} to %{customdata[1]} s %{customdata[2]}<extra>%{y}</extra>",
            )
    marks: dict[str, object] = {"mode": "markers", "name": "one epoch", "legendgroup": "epochs"}
    marks["marker"] = {"symbol": "line-ns-open", "size": 13, "color": "#e69f00", "line": {"width": 2}}
    marks["hovertemplate"] = "%{x:.4g} s<extra>one epoch</extra>"
    for name, row in zip(names, rows, strict=False):
        figure.add_scatter(
            x=rounded(row["samples"]), y=[name] * len(row["samples"]), showlegend=name == names[0], **marks
        )
    # A label stands beyond the marks of single epochs, which may lie right of the bar.
    ends = [
        max([high, *(row["samples"] if row else [])]) for (_, _, high, *_), row in zip(bars, [*rows, None], strict=True)
    ]
    for name, x, (*_, words) in zip(names, ends, bars, strict=True):
        figure.add_annotation(x=x, y=name, text=words, xanchor="left", showarrow=False, xshift=8, font_size=12)
    whole, most = [0, _ROOM * max(ends)], max(value for row in rows for value in row["samples"])
    figure.update_layout(**layout(160 + 40 * len(names)), barmode="overlay", bargap=0.3)
    figure.update_layout(legend=LEGEND_ABOVE)
    figure.update_xaxes(title_text="seconds an epoch", range=whole)
    figure.update_yaxes(autorange="reversed", automargin=True, ticksuffix="  ", categoryorder="array")
    figure.update_yaxes(categoryarray=names)
    choices = [{"label": "every rung", "args": [{}, {"xaxis.range": whole}]}]
    short = [value for row in rows for value in row["samples"] if value < 0.3 * most]
    if medians[-1] < 0.15 * most and short:
        choices.append({"label": "the fast end, enlarged", "args": [{}, {"xaxis.range": [0, _ROOM * max(short)]}]})
    return figure, choices


def parts(rows: Sequence[Row], names: Sequence[str] | None = None) -> Figure:
    """Stacked bars of the parts of every `ladder.epoch_row`: milliseconds a clip, seconds an epoch, or shares."""
    figure, names = go.Figure(), labels(rows) if names is None else list(names)
    splits, kinds = [ladder.split_s(row) for row in rows], dict.fromkeys(part for row in rows for part in row["parts"])
    factors = {
        "milliseconds a training clip": [1e3 / row["clips"] for row in rows],
        "seconds an epoch": [1.0 for _ in rows],
        "share in percent": [100 / row["median_s"] for row in rows],
    }
    values = {
        unit: [rounded([s.get(part, 0.0) * f for s, f in zip(splits, scales, strict=True)]) for part in kinds]
        for unit, scales in factors.items()
    }
    unit = next(iter(values))
    for part, clip_ms in zip(kinds, values[unit], strict=True):
        look = _hatched(*PARTS.get(part, ("#8a8f98", "")), "rgba(0,0,0,.35)")
        hover = f"%{{x:.3g}} {part}<extra>%{{y}}</extra>"
        figure.add_bar(y=names, x=clip_ms, orientation="h", name=part, marker=look, hovertemplate=hover)
    figure.update_layout(**layout(220 + 34 * len(rows)), barmode="stack", bargap=0.3)
    figure.update_layout(legend=LEGEND_ABOVE)
    figure.update_xaxes(title_text=unit)
    figure.update_yaxes(autorange="reversed", automargin=True, ticksuffix="  ")
    return figure, [{"label": unit, "args": [{"x": x}, {"xaxis.title.text": unit}]} for unit, x in values.items()]


def losses(rows: Sequence[Row]) -> Figure:
    """Loss of every step of each rung over the original's, in a band of the tolerance; or the differences from it."""
    figure, reference = go.Figure(), rows[0]["losses"]
    tolerance = next((row["tolerance"] for row in rows if row["tolerance"] is not None), None)
    curves: list[list] = []
    differences: list[list] = []

    def add(steps: list[int], curve: list, difference: list, **look) -> None:
        curves.append(curve)
        differences.append(difference)
        figure.add_scatter(x=[step + 1 for step in steps], y=curve, mode="lines", **look)

    if tolerance is not None:
        steps = thinned(reference)
        band = {"name": "tolerance", "legendgroup": "tolerance", "hoverinfo": "skip", "line_width": 0.5}
        for edge in (tolerance, -tolerance):
            fill = {"fill": "tonexty", "fillcolor": "rgba(128,128,128,.22)"} if edge < 0 else {"showlegend": False}
            curve = rounded([reference[step] + edge for step in steps])
            add(steps, curve, [edge] * len(steps), line_color=_GREY, **band, **fill)
    thin = {"name": "other seeds", "legendgroup": "seeds", "line": {"width": 1, "color": _GREY, "dash": "dot"}}
    thin["hovertemplate"] = "step %{x}: %{y:.6g}<extra>original, another seed</extra>"
    for index, losses in enumerate(rows[0]["losses_of_seeds"]):
        steps = thinned(losses)
        add(steps, _finite([losses[step] for step in steps]), [None] * len(steps), showlegend=index == 0, **thin)
    for index, (name, row) in enumerate(zip(labels(rows), rows, strict=True)):
        losses, steps = row["losses"], thinned(row["losses"])
        comparable = len(losses) == len(reference)
        difference = _finite([losses[step] - reference[step] for step in steps]) if comparable else []
        line = {
            "color": SERIES[index % len(SERIES)],
            "dash": DASHES[index % len(DASHES)],
            "width": 1.5 if index else 3.5,
        }
        hover = "step %{x}: %{y:.6g}<extra>%{fullData.name}</extra>"
        add(steps, _finite([losses[step] for step in steps]), difference, name=name, line=line, hovertemplate=hover)
    figure.update_layout(**layout(460), xaxis_title_text="step")
    figure.update_yaxes(title_text="loss", automargin=True, exponentformat="power")
    views = {"losses": ("loss", curves), "difference from the original": ("loss minus the original's", differences)}
    return figure, [
        {"label": label, "args": [{"y": y}, {"yaxis.title.text": title, "yaxis.autorange": True}]}
        for label, (title, y) in views.items()
    ]


def _finite(values: Sequence[float]) -> list[float | None]:
    """Six digits; a loss that was not a number is recorded as 1e308 and is a gap in the curve."""
    return [None if abs(value) > 1e100 else value for value in rounded(values, 6)]
