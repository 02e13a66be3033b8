"""The chapter on the original's four guesses, and on what it was."""

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from markupsafe import Markup

from triadbench.bench.analysis import reasons
from triadbench.bench.analysis.findings import LADDER
from triadbench.bench.analysis.reasons import CURVES, EPOCH, HOPED, Model
from triadbench.bench.analysis.summary import DEVICES, number, percent, span
from triadbench.bench.report.figures import DASHES, LEGEND_ABOVE, SERIES, Figure, layout, rounded, views
from triadbench.bench.report.page import render

TITLE = "The four reasons: what the original guessed, and what it was"


def chapter(records: Sequence[dict], others: Sequence[tuple[str, Sequence[dict]]]) -> Markup:
    """HTML for one machine's records; "" where there is neither a ladder nor a trial that was watched.

    Args:
        others: (label, records) of other machines: the first with a device's ladder stands in where this one has none.
    """
    watched, machines = reasons.trials(records), [("", records), *others]
    if not (watched or any(reasons.costs(records, device) for device in DEVICES)):
        return Markup()
    found = [[reasons.costs(of, device, label) for label, of in machines] for device in DEVICES]
    cpu, gpu = (next(filter(None, costs), None) for costs in found)
    model = reasons.fit(cpu, gpu) if cpu and gpu else None
    load, warmth = reasons.watched_here(watched)
    values: dict[str, Any] = {"load": load, "warmth": warmth, "command": LADDER, "span": span}
    values |= {"devices": reasons.devices(records), "transfers": reasons.transfers(records), "curves": curves(watched)}
    return render("reasons.html", reasons=reasons, model=model, picture=model and causes(model), **values)


def causes(model: Model) -> go.Figure:
    """The modelled epochs on the original's CPU and GPU, stacked by cause, beside the published and the hoped ones."""
    figure, colours = go.Figure(), iter(SERIES)
    seen = {name: reasons.seen_s(device) for device, name in DEVICES.items()}
    for device, name in DEVICES.items():
        by = model.causes(EPOCH, device)
        for cause, seconds in by.items():
            figure.add_bar(
                y=[name],
                x=rounded([seconds]),
                orientation="h",
                name=f"{name}: {cause} {percent(seconds / sum(by.values()))}",
                marker_color=next(colours),
                hovertemplate=f"{number(seconds, 2)} s {cause}<extra></extra>",
            )
    mark = {"symbol": "diamond", "size": 11, "color": "#000000"}
    figure.add_scatter(
        y=[*seen], x=rounded([*seen.values()]), name="published", mode="markers", marker=mark, hovertemplate="%{x} s"
    )
    hoped = seen["CPU"] / HOPED
    figure.add_vline(x=hoped, line={"dash": "dash", "color": "#d55e00"})
    text = f" hoped for on the GPU: {number(hoped, 2)} s"
    figure.add_annotation(x=hoped, y=1, yref="paper", text=text, xanchor="left", yanchor="bottom", showarrow=False)
    figure.update_layout(**layout(430), barmode="stack", bargap=0.35)
    figure.update_layout(legend=LEGEND_ABOVE | {"y": 1.12})
    figure.update_xaxes(title_text="seconds of an epoch", rangemode="tozero")
    figure.update_yaxes(autorange="reversed", automargin=True, ticksuffix="  ")
    return figure


def curves(watched: Sequence[dict]) -> Figure | None:
    """Clocks, temperatures and power over every watched trial, one quantity at a time; None where there is none."""
    figure, owners = go.Figure(), []
    for quantity, field in CURVES.items():
        for index, trial in enumerate(watched):
            if curve := trial.get(field):
                t, values = zip(*curve, strict=True)
                line = {"color": SERIES[index % len(SERIES)], "dash": DASHES[index // len(SERIES) % len(DASHES)]}
                figure.add_scatter(x=rounded(t), y=rounded(values), name=trial["name"], mode="lines", line=line)
                owners.append(quantity)
    figure.update_layout(**layout(420), showlegend=False, xaxis_title_text="seconds of the trial")
    figure.update_yaxes(automargin=True, rangemode="tozero")
    return (figure, views(figure, owners, {name: name for name in dict.fromkeys(owners)})) if owners else None
