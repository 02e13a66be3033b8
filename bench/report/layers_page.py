"""The chapter of layer profiles: time, work and memory of every layer of a training step, from records alone."""

from collections.abc import Callable
from statistics import median
from typing import Any

import plotly.graph_objects as go
from markupsafe import Markup

from triadbench.bench.analysis import pairing
from triadbench.bench.analysis.summary import DEVICES, OTHER_PROGRAMS, number, percent, select
from triadbench.bench.report.figures import LEGEND_ABOVE, Figure, layout, views
from triadbench.bench.report.page import render

_HATCHED = {"pattern": {"shape": "/", "size": 5, "solidity": 0.25}}
"""Told apart from the bar beside it without colour."""
_FORWARD, _BACKWARD = {"color": "#3b82f6"}, {"color": "#e8743b", **_HATCHED}
_SAVED, _OUTPUT, _WEIGHTS = {"color": "#b566d9"}, {"color": "#19a979", **_HATCHED}, {"color": "#8a8f98"}
_Bar = tuple[str, dict, Callable[[dict], Any]]


def chapter(records: list[dict]) -> Markup:
    """The layer profiles among the records; nothing if there are none.

    Of each network, device, batch and memory layout the last record is shown.
    """
    latest = {_case(record): record for record in select(records, "layers")}
    if not latest:
        return Markup()
    of_network: dict[str, list[dict]] = {}
    for record in latest.values():
        of_network.setdefault(record["parameters"]["network"], []).append(record)
    return render(
        "layers.html",
        findings=findings(list(latest.values())),
        networks={name: _network(variants) for name, variants in of_network.items()},
        **{"title": _title, "variant": _variant, "rate": _rate, "time": _time, "shape": _shape},
    )


def findings(records: list[dict]) -> list[str]:
    """What the layer profiles among the records say, a sentence each."""
    sentences = []
    for record in select(records, "layers"):
        rows, total = record["rows"], record["sum_ms"]
        if not total:
            continue
        by_kind: dict[str, float] = {}
        for row in rows:
            by_kind[row["kind"]] = by_kind.get(row["kind"], 0.0) + _time(row)
        kind = max(by_kind, key=lambda name: by_kind[name])
        slowest = max(rows, key=_time)
        coverage = (
            f"its layers sum to {percent(record['coverage'])} of a profiled step"
            if record["parameters"]["device"] == "cpu"
            else f"a kernel runs in {percent(record['coverage'])} of a profiled step"
        )
        step_ms = median(record["samples"])
        sentences.append(
            f"{record['parameters']['network']}, {_variant(record)}: a step takes {number(step_ms)} ms "
            f"({number(step_ms / record['clips'])} a clip); {percent(by_kind[kind] / total)} of it is {kind}, "
            f"{percent(sum(row['backward_ms'] for row in rows) / total)} the backward pass; the slowest layer is "
            f"{slowest['layer']} with {percent(_time(slowest) / total)}. "
            f"The step's memory rises by {_megabytes(record['peak_bytes'])} MB at most; {coverage}, and profiling "
            f"takes {_overhead(record)}." + (OTHER_PROGRAMS if record.get("disturbed") else "")
        )
    return sentences


def _network(records: list[dict]) -> dict:
    """What the template shows of one network; memory does not depend on the variant."""
    return {
        "slug": records[0]["parameters"]["network"].lower(),
        "times": _figure(records, "ms a step", _TIMES),
        "rates": _figure(records, "GFLOP/s", _RATES, lambda row: bool(row["flops"])),
        "memory": _figure(
            records[:1], "MB", _MEMORY, lambda row: row["activation_bytes"] or row["saved_bytes"] or row["params"]
        ),
        "records": records,
    }


def _rate(row: dict, work: str, time: str) -> float | None:
    return row[work] / row[time] / 1e6 if row[work] and row[time] > 0 else None


_TIMES: list[_Bar] = [
    ("forward", _FORWARD, lambda row: row["forward_ms"]),
    ("backward", _BACKWARD, lambda row: row["backward_ms"]),
]
_RATES: list[_Bar] = [
    ("forward", _FORWARD, lambda row: _rate(row, "flops", "forward_ms")),
    ("backward", _BACKWARD, lambda row: _rate(row, "backward_flops", "backward_ms")),
]
# A layer's output is mostly what is kept, so of the output only the bytes beyond that are drawn.
_MEMORY: list[_Bar] = [
    ("kept for backward", _SAVED, lambda row: row["saved_bytes"] / 1e6),
    ("output beyond that", _OUTPUT, lambda row: max(0, row["activation_bytes"] - row["saved_bytes"]) / 1e6),
    ("weights", _WEIGHTS, lambda row: 4 * row["params"] / 1e6),
]


def _figure(
    records: list[dict], unit: str, bars: list[_Bar], is_shown: Callable[[dict], bool] = lambda row: True
) -> Figure:
    """Bars of every layer; where there are several records, the reader chooses one."""
    figure, owners = go.Figure(), []
    layers: dict[str, None] = {}
    for index, record in enumerate(records):
        rows = [row for row in record["rows"] if is_shown(row)]
        names = [row["layer"] for row in rows]
        layers |= dict.fromkeys(names)
        for bar, marker, value in bars:
            look = {"name": bar, "marker": marker, "orientation": "h"}
            look["customdata"] = [[row["kind"], _shape(row)] for row in rows]
            hover = f"%{{y}}: %{{x:.3~g}} {unit}<br>%{{customdata[0]}} %{{customdata[1]}}<extra>{bar}</extra>"
            figure.add_bar(x=[value(row) for row in rows], y=names, hovertemplate=hover, **look)
            owners.append(index)
        peak = record.get("peak_gflop_per_s")
        if bars is _RATES and peak and rows:
            look = {"mode": "lines", "line": {"color": "#8a8f98", "dash": "dot", "width": 2}, "hoverinfo": "name"}
            look["name"] = f"this machine's best matrix product, {number(peak)} GFLOP/s"
            figure.add_scatter(x=[peak, peak], y=[names[0], names[-1]], **look)
            owners.append(index)
    barmode = "group" if bars is _RATES else "stack"
    figure.update_layout(**layout(130 + 24 * len(layers)), barmode=barmode, bargap=0.25)
    figure.update_layout(legend=LEGEND_ABOVE, margin={"t": 40})
    figure.update_xaxes(title_text=unit, rangemode="tozero")
    figure.update_yaxes(autorange="reversed", automargin=True, ticksuffix="  ", type="category")
    return figure, views(figure, owners, dict(enumerate(map(_variant, records))))


def _title(record: dict) -> str:
    return (
        f"{_variant(record)}, batch {record['parameters']['batch']}: a step {number(median(record['samples']))} ms, "
        f"layers {number(record['sum_ms'])} ms ({percent(record['coverage'])} of a profiled step), profiling takes "
        f"{_overhead(record)}; weights and Adam's moments {_megabytes(record['held_bytes'])} MB, a step at most "
        f"{_megabytes(record['peak_bytes'])} MB above"
    )


def _case(record: dict) -> tuple:
    return tuple(record["parameters"].get(key) for key in ("network", "device", "batch", "memory_format", "dtype"))


def _variant(record: dict) -> str:
    parameters = record["parameters"]
    threads = pairing.threads_text(parameters.get("threads")) if parameters["device"] == "cpu" else ""
    where = DEVICES.get(parameters["device"], parameters["device"])
    return ", ".join(filter(None, (where, threads, parameters.get("memory_format"))))


def _time(row: dict) -> float:
    return row["forward_ms"] + row["backward_ms"]


def _shape(row: dict) -> str:
    return "×".join(map(str, row["output_shape"] or ())) or "—"


def _megabytes(n_bytes: float) -> str:
    return number(n_bytes / 1e6 or None)


def _overhead(record: dict) -> str:
    disturbed = ", with other programs at work" if record.get("disturbed") else ""
    return f"{record['overhead']:.2f} times as long{disturbed}"
