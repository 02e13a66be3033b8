"""The mel profile's page: one HTML file that reads records only and works without a network.

`sections` gives its body alone, as a chapter of a larger report.
"""

from __future__ import annotations

from html import escape
from statistics import median

from triadbench.bench.analysis import mel as mel_summary
from triadbench.bench.analysis.summary import badge, number
from triadbench.bench.report import mel_plots, theme
from triadbench.bench.report.quick_page import environment_list
from triadbench.core import timing

_STATIC_COLUMNS = {
    "registers": "registers",
    "spill stores B": "spill_store_bytes",
    "spill loads B": "spill_load_bytes",
    "shared B": "shared_bytes",
    "stack B": "stack_bytes",
    "threads a block": "threads_per_block",
    "frames a block": "frames_per_block",
    "blocks an SM": "blocks_per_sm",
    "instructions": "instructions",
}


def page(records: list[dict]) -> str:
    """The whole HTML page of one run's records."""
    from plotly.offline import get_plotlyjs

    environment = records[0]["environment"] if records else None
    where = (
        ""
        if environment is None
        else (
            f"{environment['time']} · {environment['cpu']}, {environment['cores_usable']} cores"
            + (f" · {environment['gpu']}" if environment["gpu"] else "")
        )
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>triadbench: mel spectrograms</title>
<style>{theme.CSS}{mel_plots.CSS}</style>
<script>{get_plotlyjs()}</script>
<script>{mel_plots.SCRIPT}</script>
</head>
<body>
<main>
<h1>Mel spectrograms on this machine: ours and their rivals</h1>
<p class="lead">{escape(where)}</p>
{sections(records)}
</main>
<script>{theme.SCRIPT}</script>
</body>
</html>
"""


def sections(records: list[dict]) -> str:
    """Findings, pictures and tables, for a page whose head holds plotly and `mel_plots.SCRIPT` and `.CSS`."""
    sentences = "\n".join(f"<li>{escape(sentence)}</li>" for sentence in mel_summary.findings(records))
    parts = [f'<div class="card"><ul class="findings">\n{sentences}\n</ul></div>']
    made = mel_summary.rows(records)
    if made:
        parts += [
            _duels(made),
            _speed_ups(made),
            *_rooflines(made, records),
            _errors(made),
            _times(made, records),
            _first_calls(made, records),
        ]
    parts += [_static(records), _left_out(records)]
    if made:
        parts += [_all(made), _contestants(records)]
    parts.append(_method())
    if records:
        listed = environment_list(records[0]["environment"])
        parts.append(f'<h2>Environment</h2>\n<div class="card"><dl>{listed}</dl></div>')
    return "\n".join(part for part in parts if part)


# --- pictures --------------------------------------------------------------------------------------------------------


def _duels(made: list[dict]) -> str:
    rows = []
    for duel in mel_summary.duels(made):
        rows.append(
            [
                f"{duel['case'][0]} x{duel['case'][1]}, {mel_summary.threads_text(duel['case'])}",
                _named(duel["ours"]),
                number(duel["ours"]["p50_ms"]),
                _times_as_fast(duel["against_eager"]),
                _times_as_fast(duel["against_rival"]),
                _named(duel["rival"]),
            ]
        )
    head = ["case", "our fastest", "median ms", "times torchaudio eager", "times the best rival", "best rival"]
    return _section(
        "Our fastest against torchaudio and against the best rival",
        "How many times as fast, by medians of samples taken in turns. The best rival is whoever was fastest in that "
        "case.",
        _table(head, rows, raw=True),
    )


def _speed_ups(made: list[dict]) -> str:
    if not any(row["against_eager"] for row in made):
        return ""
    picture = mel_plots.html(
        mel_plots.speed_ups(made), "mel-speed-ups", "Speed of each contestant over torchaudio eager, one mark a case"
    )
    return _section(
        "Speed over torchaudio eager",
        "One mark is one case: shape and line are the spec, size is the batch, and the two marks of one size are the "
        "thread counts. A contestant's marks spread as its advantage does.",
        f'<div class="card">{picture}</div>',
    )


def _rooflines(made: list[dict], records: list[dict]) -> list[str]:
    parts = []
    for device in dict.fromkeys(row["device"] for row in made):
        picture = mel_plots.html(
            mel_plots.roofline(made, records, device),
            f"mel-roofline-{device}",
            "Achieved operations a second under the measured roofs of the machine",
        )
        parts.append(
            _section(
                f"Under the machine's roofs ({'GPU' if device == 'cuda' else 'CPU'})",
                "The roofs are measured here: the best copy in memory, the same in each cache where its size is known, "
                "and the best float32 matrix product. Work is nominal and the same for all, so that every contestant "
                "of a spec stands on one line: operations by formula, and the least bytes, each sample read once and "
                "each mel value written once.",
                f'<div class="card">{picture}</div>',
            )
        )
    return parts


def _errors(made: list[dict]) -> str:
    picture = mel_plots.html(
        mel_plots.error_and_speed(made), "mel-errors", "Error against float64 and clips a second of each contestant"
    )
    return _section(
        "Error beside speed",
        "Down and to the right is better. RMS and peak are of the timed clips. The error on tilted tones is the worst "
        "log mel (natural logarithm) of tones whose loudness falls or rises by 80 dB: it shows what quiet bins suffer.",
        f'<div class="card">{picture}</div>',
    )


def _times(made: list[dict], records: list[dict]) -> str:
    picture = mel_plots.html(mel_plots.times(made, records), "mel-times", "Every sample of a case, with its box")
    return _section("Every sample", "", f'<div class="card">{picture}</div>')


# --- tables ----------------------------------------------------------------------------------------------------------


def _first_calls(made: list[dict], records: list[dict]) -> str:
    rows = []
    for row in made:
        if row["first_in_process"]:
            rows.append(
                [
                    escape(row["contestant"]),
                    f"{row['spec']} x{row['batch']}, {_threads(row)}",
                    number(row["first_call_ms"]),
                    number(row["p50_ms"]),
                    number(row["first_call_ms"] / row["p50_ms"], 2),
                ]
            )
    rows.sort(key=lambda row: float(row[2].replace(",", "")))
    starts = [
        [
            escape(f"ours: {r['parameters']['backend']}"),
            number(median(r["samples"])) if r["samples"] else escape(r["reason"]),
            ", ".join(number(value) for value in r["samples"]) or "—",
        ]
        for r in mel_summary.select(records, "mel warm start")
    ]
    parts = _table(["contestant", "case", "first call ms", "median ms", "times the median"], rows, raw=True)
    if starts:
        parts += (
            '<p class="soft">A fresh process, compiled code already on disk: from after <code>import torch</code> to '
            "the first mel of one ORIGINAL clip.</p>" + _table(["backend", "median ms", "each"], starts, raw=True)
        )
    return _section(
        "First calls",
        "In the measuring process: importing, making and the first call together, where torch was already there. What "
        "an earlier contestant imported or a disk cache holds is not paid again.",
        parts,
    )


def _static(records: list[dict]) -> str:
    found = mel_summary.select(records, "mel cuda static")
    if not found:
        return ""
    analyses = [
        (f"{r['parameters']['spec']} {r['parameters']['arch']}", r["analysis"]) for r in found if r.get("analysis")
    ]
    reasons = [
        f"<p>{escape(' '.join(filter(None, (r['parameters'].get('spec'), r['parameters'].get('arch')))))} not "
        f"analysed: {escape(r['reason'])}.</p>"
        for r in found
        if r.get("reason")
    ]
    body = "".join(f'<div class="card">{reason}</div>' for reason in reasons)
    if analyses:
        picture = mel_plots.html(
            mel_plots.instruction_mix(analyses), "mel-mix", "Instructions of the compiled CUDA kernel by class"
        )
        rows = [
            [
                label,
                *(_plain(got.get(key)) for key in _STATIC_COLUMNS.values()),
                _percent(got.get("occupancy")),
                _plain(got.get("limited_by")),
            ]
            for label, got in analyses
        ]
        body += f'<div class="card">{picture}</div>' + _table(
            ["kernel", *_STATIC_COLUMNS, "occupancy", "limited by"], rows
        )
    return _section(
        "The CUDA kernel as the compiler leaves it",
        "float32 to log mel, compiled and assembled on this machine, with or without a GPU. Instructions are counted "
        "in the program's text, each once however often it runs; occupancy is by the architecture's limits.",
        body,
    )


def _left_out(records: list[dict]) -> str:
    rows = [[gap["contestant"], gap["device"], gap["cases"], gap["reason"]] for gap in mel_summary.left_out(records)]
    if not rows:
        return ""
    return _section("Not timed, and why", "", _table(["contestant", "device", "cases", "reason"], rows, words=True))


def _all(made: list[dict]) -> str:
    head = [
        "case",
        "contestant",
        "median ms",
        "spread",
        "clips/s",
        "× real time",
        "GB/s",
        "% memory",
        "GFLOP/s",
        "% arithmetic",
        "times eager",
        "RMS error",
        "peak error",
        "log error, tilted",
        "p90",
        "p99",
        "n",
    ]
    rows = [
        [
            f"{row['spec']} x{row['batch']}, {_threads(row)}",
            _named(row),
            number(row["p50_ms"]),
            f"{100 * row['spread']:.0f} %",
            number(row["clips_per_s"]),
            number(row["real_time_factor"]),
            number(row["gb_per_s"]),
            _percent(row["share_of_memory"]),
            number(row["gflop_per_s"]),
            _percent(row["share_of_arithmetic"]),
            number(row["against_eager"]),
            _error(row["rms_relative"]),
            _error(row["peak_relative"]),
            _error(row["tilted_log"]),
            number(row["p90_ms"]),
            number(row["p99_ms"]),
            str(row["n"]),
        ]
        for row in made
    ]
    return _section(
        "Every figure", "", f"<details><summary>{len(rows)} timings</summary>{_table(head, rows, raw=True)}</details>"
    )


def _contestants(records: list[dict]) -> str:
    latest = {record["parameters"]["contestant"]: record for record in mel_summary.select(records, "mel")}
    rows = [
        [
            name,
            record["what"],
            ", ".join(f"{p} {v}" for p, v in record["versions"].items()) or "—",
            record["threads_by"],
            f"{record['error']['tolerance']:.0e}",
            record["error"]["tolerance_reason"],
        ]
        for name, record in latest.items()
    ]
    head = ["contestant", "what it is", "versions", "threads", "tolerance", "why that much"]
    return _section("Contestants", "", _table(head, rows, words=True))


def _method() -> str:
    return f"""<h2>How it was measured</h2>
<div class="card"><p>One call on clips of four seconds, float32, ready on the device; nothing is copied and no log
taken. Every result was first compared with float64 on the inputs that were then timed; one outside its tolerance is
named and has no time. Contestants took turns in one process, each sample after a pause in which the waiting threads of
the one before go to sleep. Times are medians; the spread is the range of the middle half of the samples over the
median. A slow contestant with {timing.FEWEST_SAMPLES} samples sits out further rounds when its share of the time is
spent. A timing is marked disturbed when other processes wanted the cores that it needed, and unstable when its spread
is above {100 * timing.UNSTABLE_SPREAD:.0f} %. Operations: window n, real FFT 2.5 n log₂ n, power 3 a bin, 2 for every
filter weight that is not zero. Bytes: 4 for each sample and each mel value.</p></div>"""


# --- pieces ----------------------------------------------------------------------------------------------------------


def _section(title: str, explanation: str, body: str) -> str:
    told = f'<p class="soft">{escape(explanation)}</p>' if explanation else ""
    return f"<h2>{escape(title)}</h2>\n{told}\n{body}"


def _table(head: list[str], rows: list[list[str]], *, raw: bool = False, words: bool = False) -> str:
    """A table in a card that scrolls sideways; `raw` cells are HTML already, `words` wrap and stand to the left."""
    cell = (lambda text: text) if raw else lambda text: escape(str(text))
    top = "".join(f'<th scope="col">{escape(text)}</th>' for text in head)
    body = "".join("<tr>" + "".join(f"<td>{cell(text)}</td>" for text in row) + "</tr>" for row in rows)
    kind = ' class="words"' if words else ""
    return (
        f'<div class="card wide" tabindex="0"><table{kind}><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _named(row: dict) -> str:
    word = badge(row)
    return escape(row["contestant"]) + (f'<span class="badge">{word}</span>' if word else "")


def _threads(row: dict) -> str:
    return mel_summary.threads_text((0, 0, row["threads"], row["device"]))


def _times_as_fast(ratio: float | None) -> str:
    return "—" if ratio is None else f"<b>{number(ratio)}</b>"


def _plain(value: object) -> str:
    return "—" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _percent(share: float | None) -> str:
    return "—" if share is None else f"{100 * share:.0f} %"


def _error(value: float | None) -> str:
    return "—" if value is None else f"{value:.1e}"
