"""The chapter of `benchmark`: what a prediction costs in every format, on every provider, and how exact it is."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from markupsafe import Markup

from triadbench.bench.analysis import providers
from triadbench.bench.analysis.pairing import threads_text
from triadbench.bench.analysis.providers import Row
from triadbench.bench.report import opening
from triadbench.bench.report import page as pages
from triadbench.bench.report.figures import (
    DASHES,
    LEGEND_ABOVE,
    SERIES,
    SYMBOLS,
    Figure,
    layout,
    rounded,
    samples_box,
    thinned,
    views,
)
from triadbench.bench.report.page import Chapter, render

TITLE = "One clip in, one chord out: formats and providers"
_WAITS = {
    providers.FILES: (
        "A folder of wav files",
        "providers-files",
        "From wav files to chords with the model loaded, alternated. The eager loop is what one writes first: "
        "soundfile.read, torchaudio's mel, the model, one file after another. Both name the same chords.",
    ),
    providers.PROCESS: (
        "Whole commands",
        "providers-process",
        "From starting Python to its end, alternated; the first run of each is apart.",
    ),
}
"""Name of the records -> title, id and explanation."""
_ROW_OF_LEGEND_PX = 22
_LOG_MS = {"type": "log", "title": {"text": "milliseconds (log)"}, "dtick": "D2"}
_PERCENT = {"type": "linear", "title": {"text": "% of queries"}, "automargin": True, "range": [0, 101]}
_SLOWER = {"type": "log", "title": {"text": "one query in so many is slower (log)"}, "dtick": 1, "autorange": True}


def chapter(records: Sequence[dict]) -> Markup:
    """HTML of the records of one machine; "" where there is none of `benchmark`."""
    records = [record for record in records if record["name"] in providers.NAMES]
    if not records:
        return Markup()
    rows = providers.rows(records)
    single, offline = ([row for row in rows if row[kind]] for kind in ("single", "offline"))
    return render(
        "providers.html",
        sentences=providers.sentences(records),
        single=single,
        latencies=latencies(single) if single else None,
        statistics=["mean", *providers.PERCENTILES, "max", "min"],
        offline=offline,
        throughput=throughput(offline) if offline else None,
        batches=sorted({batch for row in offline for batch in row["offline"]}),
        joules=[(row["name"], batch, 1e3 * joules) for row in offline for batch, joules in row["joules"].items()],
        no_energy=next((row["energy_note"] for row in offline if row["energy_note"]), "not measured: there was no GPU"),
        loads=providers.loads(records),
        waits=[
            (*words, timed, waits(timed)) for name, words in _WAITS.items() if (timed := providers.waits(records, name))
        ],
        placements={row["name"]: row["placement"] for row in rows if row["placement"]},
        left_out=providers.left_out(records),
        over_eager=providers.over_eager,
    )


def page(records: Sequence[dict]) -> str:
    """The whole HTML page of one run."""
    body = chapter(records) or Markup('<div class="card"><p>Nothing was measured.</p></div>')
    first = opening.of_records(records)
    if single := [row for row in providers.rows(records) if row["single"]]:
        first = first._replace(picture=latencies(single), label="Distribution of latencies")
    chapters = [Chapter("providers", TITLE, body)]
    return pages.machine_page("What a prediction costs", "Benchmark", first, chapters, records)


def latencies(rows: Sequence[Row]) -> Figure:
    """Share of queries answered within a time, a line for each contestant; or the time at each percentile, where the
    slowest thousandth has as much room as the fastest half. One thread count at a time."""
    figure, curves, tails = _figure(rows), [], []
    for row in rows:
        ordered = sorted(row["samples"])
        n, steps = len(ordered), thinned(ordered)
        curves.append((rounded([ordered[i] for i in steps]), rounded([100 * (i + 1) / n for i in steps])))
        # 1 in 2, 1 in 4, ... of the queries is slower.
        slower = 2.0 ** np.arange(0, np.log2(max(n, 2)) + 1e-9, 0.25)
        tails.append((rounded(slower.tolist()), rounded(np.quantile(ordered, 1 - 1 / slower).tolist())))
        figure.add_scatter(
            x=curves[-1][0],
            y=curves[-1][1],
            mode="lines",
            **_look(rows, row, shape="hv"),
            hovertemplate="%{x:.3g}, %{y:.4g}<extra>%{fullData.name}</extra>",
        )
    figure.update_layout(xaxis=_LOG_MS, yaxis=_PERCENT)
    axes = {
        "answered within": (curves, {"xaxis": _LOG_MS | {"autorange": True}, "yaxis": _PERCENT}),
        "the slow tail": (tails, {"xaxis": _SLOWER, "yaxis": _LOG_MS | {"automargin": True, "autorange": True}}),
    }
    choices = []
    for choice in _by_threads(figure, rows, [row["threads"] for row in rows]):
        for words, (lines, layout_change) in axes.items():
            change = {"x": [x for x, _ in lines], "y": [y for _, y in lines]} | choice["args"][0]
            choices.append({"label": f"{choice['label']}: {words}", "args": [change, layout_change]})
    return figure, choices


def throughput(rows: Sequence[Row]) -> Figure:
    """Clips a second over the batch size, both logarithmic; a ring where a GPU passes every CPU contestant."""
    figure, owners = _figure(rows), [row["threads"] for row in rows]
    for row in rows:
        figure.add_scatter(
            x=list(row["offline"]),
            y=rounded(list(row["offline"].values())),
            mode="lines+markers",
            **_look(rows, row),
            customdata=[" (disturbed)" if row["disturbed"][batch] else "" for batch in row["offline"]],
            hovertemplate="batch %{x}: %{y:.4g} clips/s%{customdata}<extra>%{fullData.name}</extra>",
        )
    for crossing in providers.crossovers(rows):
        if crossing["batch"] is not None:
            row = crossing["row"]
            figure.add_scatter(
                x=[crossing["batch"]],
                y=[row["offline"][crossing["batch"]]],
                mode="markers",
                showlegend=False,
                name="faster than the CPU",
                marker={"symbol": "circle-open", "size": 22, "color": "#d55e00", "line": {"width": 2}},
                hovertemplate=f"from batch %{{x}} on {row['name']} is faster than every CPU contestant<extra></extra>",
            )
            owners.append(row["threads"])
    batches = sorted({batch for row in rows for batch in row["offline"]})
    figure.update_xaxes(type="log", title_text="clips a call (log)", tickvals=batches, ticktext=list(map(str, batches)))
    figure.update_yaxes(type="log", title_text="clips a second (log)", automargin=True, dtick="D2")
    return figure, _by_threads(figure, rows, owners)


def waits(rows: Sequence[Row]) -> go.Figure:
    """A box of each way's or command's seconds, and a mark for every one of them."""
    figure = go.Figure()
    for index, row in enumerate(rows):
        figure.add_box(**samples_box(rounded(row["samples"]), row["label"], SERIES[index % len(SERIES)], "s"))
    figure.update_layout(**layout(110 + 60 * len(rows)))
    figure.update_xaxes(title_text="seconds", rangemode="tozero")
    figure.update_yaxes(autorange="reversed", automargin=True, ticksuffix="  ")
    return figure


def _figure(rows: Sequence[Row]) -> go.Figure:
    """On a phone the legend, above the lines, has as many rows as there are contestants."""
    figure = go.Figure(layout=layout(420 + _ROW_OF_LEGEND_PX * len({row["name"] for row in rows})))
    return figure.update_layout(legend=LEGEND_ABOVE)


def _look(rows: Sequence[Row], row: Row, shape: str = "linear") -> dict:
    """A contestant has one colour, dash and symbol, with any number of threads."""
    index = list(dict.fromkeys(other["name"] for other in rows)).index(row["name"])
    line = {"color": SERIES[index % len(SERIES)], "dash": DASHES[index % len(DASHES)], "width": 2, "shape": shape}
    return {"name": row["name"], "line": line, "marker": {"symbol": SYMBOLS[index % len(SYMBOLS)], "size": 8}}


def _by_threads(figure: go.Figure, rows: Sequence[Row], owners: Sequence[int]) -> list[dict]:
    return views(figure, owners, {count: threads_text(count) for count in sorted({row["threads"] for row in rows})})
