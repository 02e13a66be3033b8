"""The chapter of layer profiles: time, work and memory of every layer of a training step, from records alone."""

from __future__ import annotations

from html import escape
from statistics import median
from typing import TYPE_CHECKING

from triadbench.bench.analysis.summary import number, select
from triadbench.bench.report import mel_plots
from triadbench.bench.report.mel_plots import Picture

if TYPE_CHECKING:
    import plotly.graph_objects as go

_FORWARD, _BACKWARD, _OTHER = "#3b82f6", "#e8743b", "#8a8f98"
_SAVED, _OUTPUT, _WEIGHTS = "#b566d9", "#19a979", "#8a8f98"
_BACKWARD_PATTERN = {"shape": "/", "size": 5, "solidity": 0.25}
"""Hatched: told apart from the forward pass without colour."""


def chapter(records: list[dict]) -> str:
    """The layer profiles among the records as a fragment of a page that has plotly, the theme's style and
    `mel_plots.SCRIPT` and `.CSS` in its head; nothing if there are none.

    Of each network, device, batch and memory layout the last record is shown.
    """
    latest = {_case(record): record for record in select(records, "layers")}
    if not latest:
        return ""
    sentences = "".join(f"<li>{escape(sentence)}</li>" for sentence in findings(list(latest.values())))
    networks = dict.fromkeys(record["parameters"]["network"] for record in latest.values())
    sections = "".join(
        _network(name, [r for r in latest.values() if r["parameters"]["network"] == name]) for name in networks
    )
    return f"""<h2>Layer by layer</h2>
<div class="card"><ul class="findings">{sentences}</ul></div>
<p class="soft">A whole training step on one batch that lies ready, float32. Named ranges lie around every layer's
forward; a backward function belongs to the layer whose operation has the same number in autograd's books. Operations
are those of convolutions and matrix products, in the forward pass and in the backward pass. On a CPU times are the
ranges' lengths, on a GPU those of the kernels launched in them. Layers are named as in the checkpoint.</p>
{sections}"""


def findings(records: list[dict]) -> list[str]:
    """What the layer profiles among the records say, a sentence each."""
    made = []
    for record in select(records, "layers"):
        rows, total = record["rows"], record["sum_ms"]
        if not total:
            continue
        by_kind: dict[str, float] = {}
        for row in rows:
            by_kind[row["kind"]] = by_kind.get(row["kind"], 0.0) + _time(row)
        kind = max(by_kind, key=by_kind.get)
        slowest = max(rows, key=_time)
        backward = sum(row["backward_ms"] for row in rows)
        sums_to = (
            f"its layers sum to {100 * record['coverage']:.0f} % of a profiled step"
            if record["parameters"]["device"] == "cpu"
            else f"a kernel runs in {100 * record['coverage']:.0f} % of a profiled step"
        )
        step_ms = median(record["samples"])
        made.append(
            f"{_title(record)}: a step takes {number(step_ms)} ms ({number(step_ms / record['clips'])} a clip); "
            f"{100 * by_kind[kind] / total:.0f} % of it is {kind}, {100 * backward / total:.0f} % the backward pass; "
            f"the slowest layer is {slowest['layer']} with {100 * _time(slowest) / total:.0f} %. "
            f"The step's memory rises by {_megabytes(record['peak_bytes'])} MB at most; {sums_to}, "
            f"and profiling takes {_overhead(record)}."
            + (" Other programs wanted the cores meanwhile, so times may be off." if record.get("disturbed") else "")
        )
    return made


def _network(name: str, records: list[dict]) -> str:
    slug = name.lower()
    times = _choices([(record, _times(record)) for record in records])
    memory = _choices([(record, _memory(record)) for record in records[:1]])
    rates = _choices([(record, _rates(record)) for record in records])
    traces = " · ".join(
        f'<a href="{escape(r["trace"], quote=True)}" download>{escape(_variant(r))}</a>'
        for r in records
        if r.get("trace")
    )
    tables = "".join(_table(record, is_open=i == 0) for i, record in enumerate(records))
    return f"""
<h3>{escape(name)}</h3>
<div class="card">{mel_plots.html(times, f"layers-time-{slug}", f"Milliseconds of each layer of {name}")}</div>
<div class="card"><b>Operations a second</b>
{mel_plots.html(rates, f"layers-rate-{slug}", f"GFLOP a second of each layer of {name} that multiplies")}</div>
<div class="card"><b>Memory</b>
{mel_plots.html(memory, f"layers-memory-{slug}", f"Megabytes of each layer of {name}")}</div>
{tables}
<p class="soft">One step as a trace, beside the profile's page, for Perfetto (ui.perfetto.dev, “Open trace file”) or a
browser's about:tracing: {traces}.</p>"""


# --- pictures --------------------------------------------------------------------------------------------------------


def _choices(figures: list[tuple[dict, list[dict]]]) -> Picture:
    """One picture of stacked bars; where there are several records, the reader chooses."""
    import plotly.graph_objects as go

    figure, owners = go.Figure(), []
    for number_of_record, (_, bars) in enumerate(figures):
        for bar in bars:
            figure.add_trace({**bar, "visible": number_of_record == 0})
            owners.append(number_of_record)
    choices = [
        {"label": _variant(record), "args": [{"visible": [owner == i for owner in owners]}]}
        for i, (record, _) in enumerate(figures)
    ]
    _lay_out(figure, figures[0][1])
    return Picture(figure, choices)


def _lay_out(figure: go.Figure, bars: list[dict]) -> None:
    layers = dict.fromkeys(layer for bar in bars for layer in bar["y"])
    lines = [bar for bar in bars if bar["type"] == "scatter"]
    figure.update_layout(
        height=130 + 24 * len(layers),
        margin={"l": 8, "r": 12, "t": 40, "b": 48},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"size": 12},
        barmode="group" if lines or bars[0]["meta"] == "GFLOP/s" else "stack",
        bargap=0.25,
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0, "traceorder": "normal"},
        xaxis={"title": {"text": bars[0]["meta"]}, "rangemode": "tozero"},
        yaxis={"autorange": "reversed", "automargin": True, "ticksuffix": "  ", "type": "category"},
    )


def _bar(record: dict, rows: list[dict], values: list[float], name: str, unit: str, colour: str, **look) -> dict:
    return {
        "type": "bar",
        "orientation": "h",
        "x": values,
        "y": [row["layer"] for row in rows],
        "name": name,
        "meta": unit,
        "marker": {"color": colour, **look},
        "customdata": [[row["kind"], _shape(row)] for row in rows],
        "hovertemplate": f"%{{y}}: %{{x:.3~g}} {unit}<br>%{{customdata[0]}} %{{customdata[1]}}<extra>{name}</extra>",
    }


def _times(record: dict) -> list[dict]:
    rows = record["rows"]
    return [
        _bar(record, rows, [row["forward_ms"] for row in rows], "forward", "ms a step", _FORWARD),
        _bar(
            record,
            rows,
            [row["backward_ms"] for row in rows],
            "backward",
            "ms a step",
            _BACKWARD,
            pattern=_BACKWARD_PATTERN,
        ),
    ]


def _memory(record: dict) -> list[dict]:
    rows = [row for row in record["rows"] if row["activation_bytes"] or row["saved_bytes"] or row["params"]]
    # A layer's output is mostly what is kept, so of the output only the bytes beyond that are drawn.
    return [
        _bar(record, rows, [row["saved_bytes"] / 1e6 for row in rows], "kept for backward", "MB", _SAVED),
        _bar(
            record,
            rows,
            [max(0, row["activation_bytes"] - row["saved_bytes"]) / 1e6 for row in rows],
            "output beyond that",
            "MB",
            _OUTPUT,
            pattern=_BACKWARD_PATTERN,
        ),
        _bar(record, rows, [4 * row["params"] / 1e6 for row in rows], "weights", "MB", _WEIGHTS),
    ]


def _rates(record: dict) -> list[dict]:
    peak = record.get("peak_gflop_per_s")
    rows = [row for row in record["rows"] if row["flops"]]
    bars = [
        _bar(record, rows, [_rate(row, "flops", "forward_ms") for row in rows], "forward", "GFLOP/s", _FORWARD),
        _bar(
            record,
            rows,
            [_rate(row, "backward_flops", "backward_ms") for row in rows],
            "backward",
            "GFLOP/s",
            _BACKWARD,
            pattern=_BACKWARD_PATTERN,
        ),
    ]
    if peak and rows:
        ends = [rows[0]["layer"], rows[-1]["layer"]]
        bars.append(
            {
                "type": "scatter",
                "x": [peak, peak],
                "y": ends,
                "mode": "lines",
                "meta": "GFLOP/s",
                "line": {"color": _OTHER, "dash": "dot", "width": 2},
                "name": f"this machine's best matrix product, {number(peak)} GFLOP/s",
                "hoverinfo": "name",
            }
        )
    return bars


# --- table -----------------------------------------------------------------------------------------------------------


def _table(record: dict, is_open: bool) -> str:
    peak = record.get("peak_gflop_per_s")
    head = [
        "layer",
        "kind",
        "forward ms",
        "backward ms",
        "% of step",
        "output",
        "weights",
        "kept MB",
        "output MB",
        "MFLOP forward",
        "MFLOP backward",
        "GFLOP/s forward",
        "GFLOP/s backward",
    ]
    if peak:
        head.append("% of peak")
    body = []
    total = record["sum_ms"] or 1.0
    for row in record["rows"]:
        rates = [_rate(row, "flops", "forward_ms"), _rate(row, "backward_flops", "backward_ms")]
        cells = [
            row["layer"],
            row["kind"],
            number(row["forward_ms"]),
            number(row["backward_ms"]),
            f"{100 * _time(row) / total:.1f}",
            _shape(row),
            f"{row['params']:,}" if row["params"] else "—",
            _megabytes(row["saved_bytes"]),
            _megabytes(row["activation_bytes"]),
            number(row["flops"] / 1e6 or None),
            number(row["backward_flops"] / 1e6 or None),
            number(rates[0]),
            number(rates[1]),
        ]
        if peak:
            work = row["flops"] + row["backward_flops"]
            cells.append(number(100 * work / _time(row) / 1e6 / peak) if work and _time(row) else "—")
        body.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    given = record["parameters"]
    top = "".join(f'<th scope="col">{escape(text)}</th>' for text in head)
    told = (
        f"{_variant(record)}, batch {given['batch']}: a step {number(median(record['samples']))} ms, layers "
        f"{number(record['sum_ms'])} ms ({100 * record['coverage']:.0f} % of a profiled step), profiling takes "
        f"{_overhead(record)}; weights and Adam's moments {_megabytes(record['held_bytes'])} MB, a step at most "
        f"{_megabytes(record['peak_bytes'])} MB above"
    )
    badge = '<span class="badge">disturbed</span>' if record.get("disturbed") else ""
    return (
        f"<details{' open' if is_open else ''}><summary>{escape(told)}{badge}</summary>"
        f'<div class="card wide" tabindex="0"><table><thead><tr>{top}</tr></thead><tbody>{"".join(body)}</tbody>'
        "</table></div></details>"
    )


def _case(record: dict) -> tuple:
    given = record["parameters"]
    return tuple(given.get(key) for key in ("network", "device", "batch", "memory_format", "dtype"))


def _title(record: dict) -> str:
    return f"{record['parameters']['network']}, {_variant(record)}"


def _variant(record: dict) -> str:
    given = record["parameters"]
    where = {"cuda": "GPU", "cpu": f"CPU, {given.get('threads')} threads"}.get(given["device"], given["device"])
    return ", ".join(part for part in (where.replace(" 1 threads", " 1 thread"), given.get("memory_format")) if part)


def _time(row: dict) -> float:
    return row["forward_ms"] + row["backward_ms"]


def _rate(row: dict, work: str, time: str) -> float | None:
    return row[work] / row[time] / 1e6 if row[work] and row[time] > 0 else None


def _shape(row: dict) -> str:
    return "×".join(str(size) for size in row["output_shape"]) if row["output_shape"] else "—"


def _megabytes(n_bytes: float) -> str:
    return number(n_bytes / 1e6) if n_bytes else "—"


def _overhead(record: dict) -> str:
    disturbed = ", with other programs at work" if record.get("disturbed") else ""
    return f"{record['overhead']:.2f} times as long{disturbed}"
