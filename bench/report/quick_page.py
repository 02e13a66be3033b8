"""The quick profile's page: one HTML file that reads records only and works without a network."""

from __future__ import annotations

import itertools
from html import escape
from statistics import median

from triadbench.bench.analysis import summary
from triadbench.bench.report import theme
from triadbench.core import timing

_SECTIONS = {
    "mel": (
        "Mel spectrogram",
        "One call on clips of four seconds, float32, on the CPU. Operations are counted from the spec: window, real "
        "FFT (2.5 n log₂ n), power, and a dense filterbank product, as torchaudio computes it.",
    ),
    "forward": (
        "Networks, forward",
        "From the mel to the answer, without gradients. Operations are those of convolutions and matrix products.",
    ),
    "training step": (
        "A training step",
        "One batch, split into its parts: mel of the waveforms, forward with loss, backward, Adam. The parts of a step "
        "follow one another and are timed within it.",
    ),
    "peak": (
        "Peaks of this machine",
        "Found by trying, with the thread count below: the yardstick for “% of peak”.",
    ),
}


def page(records: list[dict]) -> str:
    """The whole HTML page of one run's records."""
    from plotly.offline import get_plotlyjs

    environment = records[0]["environment"]
    sentences = "\n".join(f"<li>{escape(sentence)}</li>" for sentence in summary.findings(records))
    where = escape(f"{environment['cpu']}, {environment['cores_usable']} cores, {environment['torch_threads']} threads")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>triadbench: quick profile</title>
<style>{theme.CSS}</style>
<script>{get_plotlyjs()}</script>
</head>
<body>
<main>
<h1>What naming a chord costs on this machine</h1>
<p class="lead">Quick profile of {escape(environment["time"])} · {where}</p>
<div class="card"><ul class="findings">
{sentences}
</ul></div>
{sections(records)}
<h2>How it was measured</h2>
<div class="card"><p>Every result was first compared with float64 on the inputs that were then timed; a wrong answer
would have ended the run. Contestants took turns in one process. Times are medians; the spread is the range of the
middle half of the samples over the median; the first call is kept apart. A timing is marked disturbed when other
processes wanted the cores that it needed, and unstable when its spread is above
{100 * timing.UNSTABLE_SPREAD:.0f} %. “× real time” is seconds of audio a second of work. The error is the largest
difference over the reference's largest value. A training step has no reference: its loss must be finite and its
parameters must move.</p></div>
<h2>Environment</h2>
<div class="card"><dl>{environment_list(environment)}</dl></div>
</main>
<script>{theme.SCRIPT}</script>
</body>
</html>
"""


def sections(records: list[dict]) -> str:
    """Pictures and tables alone, for a page whose head holds plotly."""
    peak, made = summary.peak_gflop_per_s(records), []
    for number, (kind, (title, explanation)) in enumerate(_SECTIONS.items()):
        chosen = [record for record in records if record["name"].startswith(kind)]
        if chosen:
            made.append(_section(f"plot{number}", title, explanation, chosen, peak))
    return "".join(made)


def _section(plot_id: str, title: str, explanation: str, records: list[dict], peak: float | None) -> str:
    rows = [summary.row(record, peak) for record in records]
    return f"""
<h2>{escape(title)}</h2>
<p class="soft">{escape(explanation)}</p>
<div class="card">{_plot(plot_id, records)}</div>
<div class="card wide">{_table(rows)}</div>
"""


def _plot(plot_id: str, records: list[dict]) -> str:
    """Every sample and its box, in milliseconds or over the case's median, as the reader chooses."""
    import plotly.graph_objects as go

    figure = go.Figure()
    relative: list[list[float]] = []
    groups = dict.fromkeys(_group(record) for record in records)
    colours = dict(zip(groups, itertools.cycle(theme.COLOURS)))
    for record in records:
        middle = median(record["samples"])
        relative.append([value / middle for value in record["samples"]])
        figure.add_box(
            x=record["samples"],
            name=summary.case(record),
            boxpoints="all",
            jitter=0.6,
            pointpos=0,
            marker={"size": 4, "opacity": 0.55, "color": colours[_group(record)]},
            line={"width": 1.2},
            fillcolor="rgba(128,128,128,0.12)",
            hovertemplate="%{x:.4g}<extra>%{fullData.name}</extra>",
        )
    absolute = [record["samples"] for record in records]
    buttons = [
        _button("ms", absolute, "milliseconds a call (log scale)", "log"),
        _button("÷ median", relative, "each sample over its case's median", "linear"),
    ]
    figure.update_layout(
        height=110 + 34 * len(records),
        margin={"l": 8, "r": 12, "t": 44, "b": 48},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        showlegend=False,
        font={"size": 12},
        xaxis={"type": "log", "title": {"text": "milliseconds a call (log scale)"}, "dtick": "D2"},
        yaxis={"autorange": "reversed", "automargin": True},
        updatemenus=[
            {
                "type": "buttons",
                "direction": "right",
                "x": 0,
                "xanchor": "left",
                "y": 1,
                "yanchor": "bottom",
                "pad": {"b": 6},
                "showactive": False,
                "buttons": buttons,
            },
        ],
    )
    return figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=plot_id,
        config={"responsive": True, "displaylogo": False, "displayModeBar": False, "scrollZoom": False},
    )


def _group(record: dict) -> str:
    given = record["parameters"]
    return str(given.get("part") or given.get("backend") or given.get("network") or record["name"])


def _button(label: str, values: list[list[float]], title: str, scale: str) -> dict:
    axis = {"xaxis.type": scale, "xaxis.title.text": title, "xaxis.dtick": "D2" if scale == "log" else None}
    return {"label": label, "method": "update", "args": [{"x": values}, {**axis, "xaxis.autorange": True}]}


def _table(rows: list[dict]) -> str:
    """The figures of a section; columns that no row fills are left out."""
    columns = {
        "median ms": lambda r: summary.number(r["p50_ms"]),
        "spread": lambda r: f"{100 * r['spread']:.0f} %",
        "error": lambda r: _scientific(r["peak_relative_error"]),
        "first call ms": lambda r: summary.number(r["first_call_ms"]),
        "clips/s": lambda r: summary.number(r["throughput_clips_per_s"]),
        "× real time": lambda r: summary.number(r["real_time_factor"]),
        "GFLOP/s": lambda r: summary.number(r["gflop_per_s"]),
        "% of peak": lambda r: "—" if r["share_of_peak"] is None else f"{100 * r['share_of_peak']:.1f}",
        "RMS error": lambda r: _scientific(r["rms_relative_error"]),
        "p90": lambda r: summary.number(r["p90_ms"]),
        "p99": lambda r: summary.number(r["p99_ms"]),
        "n": lambda r: str(r["n"]),
    }
    cells = [[column(r) for column in columns.values()] for r in rows]
    kept = [i for i in range(len(columns)) if any(row[i] != "—" for row in cells)]
    head = "".join(f"<th>{escape(list(columns)[i])}</th>" for i in kept)
    body = "".join(
        f"<tr{' class=dim' if r['disturbed'] else ''}><td>{escape(r['case'])}{_badge(r)}</td>"
        + "".join(f"<td>{escape(row[i])}</td>" for i in kept)
        + "</tr>"
        for r, row in zip(rows, cells, strict=True)
    )
    return f"<table><thead><tr><th>case</th>{head}</tr></thead><tbody>{body}</tbody></table>"


def _badge(row: dict) -> str:
    word = summary.badge(row)
    return f'<span class="badge">{word}</span>' if word else ""


def _scientific(value: float | None) -> str:
    return "—" if value is None else f"{value:.1e}"


def environment_list(environment: dict) -> str:
    """The environment block of a record as the inside of a dl."""
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items() if version)
    commit = environment["commit"] and environment["commit"][:12] + (" (changed)" if environment["dirty"] else "")
    shown = {
        "triadbench": f"{environment['triadbench']}, commit {commit or 'unknown'}",
        "CPU": f"{environment['cpu']} ({', '.join(environment['cpu_features']) or 'no vector extension known'})",
        "Cores": f"{environment['cores_physical']} physical, {environment['cores_logical']} logical, "
        f"{environment['cores_usable']} usable here; torch uses {environment['torch_threads']} threads",
        "Memory": f"{environment['ram_gb']} GB",
        "GPU": environment["gpu"] and f"{environment['gpu']}, driver {environment['gpu_driver']}" or "none",
        "System": environment["os"],
        "Python": environment["python"],
        "Packages": versions,
        "Time": environment["time"],
    }
    return "".join(f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in shown.items())
