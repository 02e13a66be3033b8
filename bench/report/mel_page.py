"""The chapter of mel spectrograms: ours beside their rivals, and the CUDA kernel as compiled, from records alone."""

import itertools
import math
from statistics import median

import plotly.graph_objects as go
from markupsafe import Markup

from triadbench.bench.analysis import mel as mel_summary
from triadbench.bench.analysis.mel import Case, case
from triadbench.bench.analysis.summary import number, percent, select
from triadbench.bench.report.figures import DASHES, LEGEND_ABOVE, SERIES, Figure, layout, samples_box, views
from triadbench.bench.report.page import render
from triadbench.core import timing
from triadbench.kernels.gpu import cost_model

_SYMBOLS = (
    "circle square diamond triangle-up triangle-down cross x star pentagon hexagon bowtie hourglass star-diamond"
).split()
_INTENSITIES = (0.25, 250.0)
"""Operations a byte that the roofline shows: from where L1 still limits to well beyond any mel."""
_GREY = "#8a8f98"
_EDGE = {"width": 1, "color": "rgba(128,128,128,.6)"}
_OURS, _EAGER = "#3b82f6", "#e8743b"
_RIVALS = ("#19a979", "#b566d9", "#d94a70", "#b8860b", "#0e8fa8", "#7a6ff0", "#a0522d", "#6b8e23")
# Instruction classes: blues compute, oranges move, greys steer. Their order is that of the bars.
_MIX = ("#1f5fbf", "#5b9bf0", "#a7c8f7", "#8a6fd1", "#c2570c", "#f2a65e", "#d94a70", "#6b7280", "#b6bcc6")


def chapter(records: list[dict]) -> Markup:
    """The mel records as a chapter; without any it says so."""
    rows = mel_summary.rows(records)
    devices = dict.fromkeys(row["device"] for row in rows)
    # Of a case that was analysed there is the analysis, of another the reason; a template takes either.
    static = [{"analysis": None, "reason": None} | record for record in select(records, "mel cuda static")]
    return render(
        "mel.html",
        findings=mel_summary.findings(records),
        rows=rows,
        case=mel_summary.case,
        duels=sorted(mel_summary.duels(rows), key=lambda duel: duel["case"]),
        on_gpu=sorted(mel_summary.on_gpu(rows), key=lambda entry: entry[0]),
        speed_ups=speed_ups(rows) if any(row["against_eager"] for row in rows) else None,
        rooflines={device: roofline(rows, records, device) for device in devices},
        errors=error_and_speed(rows) if rows else None,
        times=times(rows, records) if rows else None,
        starts=select(records, "mel warm start"),
        static=static,
        modelled=(models := mel_summary.modelled(records)),
        model=model(models),
        gpu=cost_model.H100,
        boosted=cost_model.H100_BOOSTED,
        waiting=cost_model.WAITING,
        instruction_mix=instruction_mix([record for record in static if record["analysis"]]),
        left_out=mel_summary.left_out(records),
        contestants={record["parameters"]["contestant"]: record for record in select(records, "mel")},
        fewest_samples=timing.FEWEST_SAMPLES,
        unstable_spread=percent(timing.UNSTABLE_SPREAD),
    )


def _log(title: str) -> dict:
    return {"type": "log", "title": {"text": title}, "dtick": "D2"}


def styles(rows: list[dict]) -> dict[str, dict]:
    """Contestant -> colour and symbol, the same in every figure: shape tells them apart without colour."""
    ours, rivals = (dict.fromkeys(row["contestant"] for row in rows if row["ours"] == mine) for mine in (True, False))
    colours = dict.fromkeys(ours, _OURS) | {name: _RIVALS[i % len(_RIVALS)] for i, name in enumerate(rivals)}
    if mel_summary.EAGER in rivals:
        colours[mel_summary.EAGER] = _EAGER
    return {
        name: {"color": colours[name], "symbol": _SYMBOLS[i % len(_SYMBOLS)]} for i, name in enumerate([*ours, *rivals])
    }


def _is_ours(row: dict) -> bool:
    """Whether it is a timing of our kernel that nothing disturbed."""
    return row["ours"] and row["contestant"] not in mel_summary.SLOW_BACKENDS and not row["disturbed"]


def roofline(rows: list[dict], records: list[dict], device: str) -> Figure:
    """Achieved operations against operations a byte, under the roofs; first the largest batch of ours."""
    mine = [row for row in rows if row["device"] == device]
    ours = {(row["threads"], row["batch"]) for row in mine if _is_ours(row)}
    every = {(row["threads"], row["batch"]) for row in mine}
    cases = sorted(every, key=lambda key: (key not in ours, -key[0], -key[1]))
    style, roofs, figure, owners = styles(rows), mel_summary.roofs(records), go.Figure(), []
    for index, (threads, batch) in enumerate(cases):
        for (x, y, name), dash in zip(_roof_lines(roofs, device, threads), itertools.cycle(DASHES)):
            look = {"name": name, "mode": "lines", "hovertemplate": f"{name}<extra></extra>"}
            figure.add_scatter(x=x, y=y, line={"color": _GREY, "width": 2, "dash": dash}, **look)
            owners.append(index)
        for name, look in style.items():
            here = [row for row in mine if (row["contestant"], row["threads"], row["batch"]) == (name, threads, batch)]
            if not here:
                continue
            known = [[row["spec"], number(row["p50_ms"]), number(row["gb_per_s"]), row["badge"]] for row in here]
            figure.add_scatter(
                x=[row["intensity"] for row in here],
                y=[row["gflop_per_s"] for row in here],
                name=name,
                mode="markers",
                marker={"size": 11, "line": _EDGE, **look},
                customdata=known,
                hovertemplate="%{customdata[0]}: %{y:.3g} GFLOP/s, %{customdata[2]} GB/s, %{customdata[1]} ms "
                "%{customdata[3]}<extra>%{fullData.name}</extra>",
            )
            owners.append(index)
    operations_a_byte = _log("operations a byte (nominal work over least traffic)")
    operations_a_byte["range"] = [math.log10(value) for value in _INTENSITIES]
    # In rows of their own above the plot: specs can lie close together.
    specs = {row["spec"]: row["intensity"] for row in mine}
    above = {"y": 1, "yref": "paper", "yanchor": "bottom", "showarrow": False, "font": {"size": 10}}
    above |= {"xanchor": "right", "xshift": 5}
    figure.update_layout(
        **layout(560) | {"margin": {"l": 8, "r": 12, "t": 8 + 14 * len(specs), "b": 48}},
        xaxis=operations_a_byte,
        yaxis={"type": "log", "title": {"text": "GFLOP/s"}, "automargin": True, "dtick": 1},
        annotations=[
            {"x": math.log10(x), "text": f"{spec} ↓", "yshift": 14 * place, **above}
            for place, (spec, x) in enumerate(specs.items())
        ],
    )
    labels = [f"batch {batch}, {Case('', batch, threads, device).place}" for threads, batch in cases]
    return figure, views(figure, owners, dict(enumerate(labels)))


def _roof_lines(roofs: dict, device: str, threads: int) -> list[tuple[list, list, str]]:
    """(x, y, name) of each roof: the flat one, then slopes up to it."""
    top = roofs.get((device, threads, "arithmetic"))
    if top is None:
        return []
    low, high = _INTENSITIES
    lines = [([low, high], [top, top], f"matmul {number(top)} GFLOP/s")]
    slopes = sorted(
        (rate, name)
        for (where, count, name), rate in roofs.items()
        if (where, count) == (device, threads) and name != "arithmetic" and top / rate > low
    )
    for rate, name in slopes:
        end = min(top / rate, high)
        lines.append(([low, end], [rate * low, rate * end], f"{name} {number(rate)} GB/s"))
    return lines


def speed_ups(rows: list[dict]) -> Figure:
    """Every contestant's speed over torchaudio eager's, one mark a case: a distribution for each contestant."""
    specs = list(dict.fromkeys(row["spec"] for row in rows))
    ratios: dict[str, list[float]] = {}
    for row in rows:
        if row["against_eager"] is not None:
            ratios.setdefault(row["contestant"], []).append(row["against_eager"])
    order = sorted(ratios, key=lambda name: median(ratios[name]))
    style, figure = styles(rows), go.Figure()
    offsets = dict(zip(specs, (0.22, 0.0, -0.22) if len(specs) > 1 else (0.0,), strict=False))
    for spec, symbol in zip(specs, _SYMBOLS, strict=False):
        here = [row for row in rows if row["spec"] == spec and row["against_eager"] is not None]
        look = {"opacity": 0.75, "symbol": symbol, "line": _EDGE}
        look["size"] = [6 + 2.2 * math.log2(row["batch"]) ** 0.8 for row in here]
        look["color"] = [style[row["contestant"]]["color"] for row in here]
        figure.add_scatter(
            x=[row["against_eager"] for row in here],
            y=[order.index(row["contestant"]) + offsets.get(spec, 0.0) for row in here],
            name=spec,
            mode="markers",
            marker=look,
            customdata=[[row["contestant"], case(row).label, number(row["p50_ms"]), row["badge"]] for row in here],
            hovertemplate="%{customdata[1]}: %{x:.3g} times, %{customdata[2]} ms %{customdata[3]}"
            "<extra>%{customdata[0]}</extra>",
        )
    figure.add_vline(x=1, line={"color": _GREY, "dash": "dot", "width": 1})
    named = {"tickvals": list(range(len(order))), "ticktext": order, "range": [-0.6, len(order) - 0.4]}
    figure.update_layout(**layout(150 + 46 * len(order)), xaxis=_log("times as fast as torchaudio eager"))
    figure.update_yaxes(automargin=True, **named)
    return figure, []


def error_and_speed(rows: list[dict]) -> Figure:
    """Error against float64 and clips a second; the reader chooses which error."""
    figure, names = go.Figure(), styles(rows)
    errors = {
        "RMS": ("rms_relative", "relative RMS error"),
        "peak": ("peak_relative", "error over the peak"),
        "log, tilted tones": ("tilted_log", "worst error of log mel (natural)"),
    }
    of_contestant = {name: [row for row in rows if row["contestant"] == name] for name in names}
    for name, here in of_contestant.items():
        figure.add_scatter(
            x=[row["clips_per_s"] for row in here],
            y=[row["rms_relative"] or None for row in here],
            name=name,
            mode="markers",
            marker={"size": 9, "opacity": 0.8, "line": _EDGE, **names[name]},
            customdata=[[case(row).label] for row in here],
            hovertemplate="%{customdata[0]}: %{x:.3g} clips/s, error %{y:.2g}<extra>%{fullData.name}</extra>",
        )
    choices = []
    for label, (field, title) in errors.items():
        values = [[row[field] or None for row in here] for here in of_contestant.values()]
        choices.append({"label": label, "args": [{"y": values}, {"yaxis.title.text": title}]})
    error_axis = {"title": {"text": errors["RMS"][1]}, "automargin": True, "exponentformat": "power"}
    figure.update_layout(**layout(540), xaxis=_log("clips a second"), yaxis={"type": "log", **error_axis})
    return figure, choices


def times(rows: list[dict], records: list[dict]) -> Figure:
    """Every sample and its box, a case at a time; first one of ours: most threads, batch 64 or the largest."""
    cases, ours = list(dict.fromkeys(map(case, rows))), {case(row) for row in rows if _is_ours(row)}
    first = max(cases, key=lambda one: (one in ours, one.threads, one.batch == 64, one.batch))
    cases.sort(key=lambda one: one != first)
    style, figure, owners = styles(rows), go.Figure(), []
    for record in select(records, "mel"):
        name = record["parameters"]["contestant"]
        figure.add_box(**samples_box(record["samples"], name, style[name]["color"], "ms"))
        owners.append(case(record["parameters"]))
    figure.update_layout(**layout(120 + 36 * len(style)), xaxis=_log("milliseconds a call"))
    figure.update_yaxes(autorange="reversed", automargin=True)
    return figure, views(figure, owners, {one: one.label for one in cases})


def model(models: list[dict]) -> Figure | None:
    """Bars: nanoseconds a clip of the CUDA kernel by limit, what is expected of it and what was measured, by spec."""
    if not models:
        return None
    figure, specs = go.Figure(), [row["spec"] for row in models]
    names = {"issue": "issue", "l1_shared": "L1 + shared", "hbm": "HBM", "expected": "expected"}
    for (field, name), colour in zip({**names, "measured_ns": "measured"}.items(), SERIES, strict=False):
        if any(row[field] for row in models):
            look = {"name": name, "orientation": "h", "marker": {"color": colour, "line": _EDGE}}
            template = f"%{{x:.3g}} ns {name}<extra>%{{y}}</extra>"
            figure.add_bar(y=specs, x=[row[field] for row in models], hovertemplate=template, **look)
    figure.update_layout(**layout(160 + 110 * len(models)))
    figure.update_layout(legend=LEGEND_ABOVE, margin={"t": 40}, xaxis_title_text="nanoseconds a clip")
    figure.update_yaxes(autorange="reversed", automargin=True)
    return figure, []


def instruction_mix(records: list[dict]) -> Figure | None:
    """Stacked bars: instructions of the compiled CUDA kernel by class, one bar a spec and architecture."""
    if not records:
        return None
    figure = go.Figure()
    mixes = {f"{r['parameters']['spec']} {r['parameters']['arch']}": r["analysis"]["mix"] for r in records}
    classes = dict.fromkeys(name for mix in mixes.values() for name in mix)
    for index, name in enumerate(classes):
        look = {"name": name, "orientation": "h", "marker": {"color": _MIX[index % len(_MIX)], "line": _EDGE}}
        counts = [mix.get(name, 0) for mix in mixes.values()]
        figure.add_bar(y=list(mixes), x=counts, hovertemplate=f"%{{x}} {name}<extra>%{{y}}</extra>", **look)
    figure.update_layout(**layout(250 + 34 * len(mixes)), barmode="stack")
    figure.update_layout(legend=LEGEND_ABOVE, margin={"t": 40}, xaxis_title_text="instructions in the program")
    figure.update_yaxes(autorange="reversed", automargin=True, ticksuffix="  ")
    return figure, []
