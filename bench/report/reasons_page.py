"""The chapter on the original's four guesses, and on what it was."""

from collections.abc import Sequence

import plotly.graph_objects as go
from markupsafe import Markup

from triadbench.bench.analysis import reasons
from triadbench.bench.analysis.findings import LADDER
from triadbench.bench.analysis.reasons import CURVES, EPOCH, HOPED, Model
from triadbench.bench.analysis.summary import DEVICES, number, percent
from triadbench.bench.report.figures import DASHES, LEGEND_ABOVE, PARTS, SERIES, Figure, layout, rounded, views
from triadbench.bench.report.page import render

TITLE = "The four reasons: what the original guessed, and what it was"
_LOOKS = {"preparing clips": "mel", "the network": "forward", "reading files": "reading", "launching mel": "mel"}
_LOOKS |= {"copies": "copy", "launching the network": "backward", "waiting for the loss": "synchronisation"}
_LOOKS |= {"computing the network": "forward"}
"""Cause -> part of an epoch whose colour it takes."""


def chapter(records: Sequence[dict], others: Sequence[tuple[str, Sequence[dict]]]) -> Markup:
    """HTML for one machine's records; "" where its CPU's ladder is missing.

    Args:
        others: (label, records) of other machines: the first with a GPU's ladder stands in where this one has none.
    """
    cpu = reasons.costs(records, "cpu")
    if cpu is None:
        return Markup()
    gpus = (reasons.costs(of_machine, "cuda", label) for label, of_machine in [("", records), *others])
    model, watched = reasons.fit(cpu, next(filter(None, gpus), None)), reasons.trials(records)
    values = {name: getattr(reasons, name)(model) for name in ("verdict", "story", "errors")}
    values |= {name: getattr(reasons, name)(records) for name in ("devices", "transfers")}
    values |= {"model": model, "guesses": reasons.guesses(model, watched), "command": LADDER}
    return render("reasons.html", causes=causes(model), curves=curves(watched), **values)


def causes(model: Model) -> go.Figure:
    """The modelled epochs on the original's CPU and GPU, stacked by cause, beside the published and the hoped ones."""
    figure = go.Figure()
    for device in DEVICES if model.gpu else ("cpu",):
        by = model.causes(EPOCH, device)
        for cause, seconds in by.items():
            colour, shape = PARTS[_LOOKS[cause]]
            figure.add_bar(
                y=[DEVICES[device]],
                x=rounded([seconds]),
                orientation="h",
                name=f"{DEVICES[device]}: {cause} {percent(seconds / sum(by.values()))}",
                marker={"color": colour, "pattern": {"shape": shape, "size": 6, "solidity": 0.25}},
                hovertemplate=f"{number(seconds, 2)} s {cause}<extra></extra>",
            )
    seen = {DEVICES[device]: reasons.seen_s(device) for device in DEVICES}
    mark = {"symbol": "diamond", "size": 11, "color": "#d55e00"}
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
    for quantity, curve_of in CURVES.items():
        for index, trial in enumerate(watched):
            if curve := curve_of(trial):
                t, values = zip(*curve, strict=True)
                line = {"color": SERIES[index % len(SERIES)], "dash": DASHES[index // len(SERIES) % len(DASHES)]}
                figure.add_scatter(x=rounded(t), y=rounded(values), name=trial["name"], mode="lines", line=line)
                owners.append(quantity)
    figure.update_layout(**layout(420), showlegend=False, xaxis_title_text="seconds of the trial")
    figure.update_yaxes(automargin=True, rangemode="tozero")
    return (figure, views(figure, owners, {name: name for name in dict.fromkeys(owners)})) if owners else None
