"""The experiments' chapter: the original's tables and plots drawn again, our trials beside its 220 published ones."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from triadbench.bench.analysis import experiments as experiment_numbers
from triadbench.bench.analysis.experiments import THEIRS
from triadbench.bench.analysis.summary import number
from triadbench.bench.report import experiments_plots
from triadbench.bench.report import sections as pieces
from triadbench.bench.report.sections import Html

_PHASES = {"train": "training", "test": "testing"}


def chapter(records: Sequence[dict]) -> str:
    """HTML of both experiments of one machine; the published figures are there without any record."""
    from triadbench.bench.analysis import published

    theirs, mine = experiment_numbers.published(), experiment_numbers.ours(records)
    parts = [
        '<p class="soft">Each mark is one trial: the mean time of its epochs. The original ran on an Intel i7-10750H '
        "and an NVIDIA RTX 2070 Max-Q; times of two machines are shown side by side and never divided by each other."
        "</p>",
        f"<p>{pieces.text(published.hint())}</p>",
        _missing(mine),
    ]
    titles = {1: "Epoch time and batch size", 2: "Epoch time and number of clips"}
    drawn = theirs + experiment_numbers.shown(mine)
    for experiment, title in titles.items():
        parts.append(_times(experiment, title, [row for row in drawn if row["experiment"] == experiment]))
    parts.append(_ratios(experiment_numbers.ratios(theirs + mine)))
    if mine:
        parts += [_gains(mine), _table(mine)]
    return "\n".join(parts)


def _missing(mine: list[dict]) -> str:
    lines = []
    for name, experiment in experiment_numbers.NAMES.items():
        if not any(row["experiment"] == experiment for row in mine):
            lines.append(f"{name}: not measured on this machine; python cli.py {name} makes the records.")
    if mine and not any(row["device"] == "gpu" for row in mine):
        lines.append("GPU: not measured on this machine.")
    shorts = sorted({row["short"] for row in mine if row["short"]})
    if shorts:
        lines += [f"Not the original's protocol: {short}." for short in shorts]
    lines += experiment_numbers.apart(mine)
    return pieces.card("".join(f"<p>{pieces.text(line)}</p>" for line in lines)) if lines else ""


def _times(experiment: int, title: str, rows: list[dict]) -> str:
    variable = "batch_size" if experiment == 1 else "num_items"
    figure, choices = experiments_plots.times(rows, variable)
    data = pieces.table(
        ["who", "network", "phase", "batch", "clips", "device", "threads", "mean s", "every trial s"],
        [
            [
                _who(row),
                row["task"],
                row["phase"],
                row["batch_size"],
                f"{row['num_items']:,}",
                row["device"].upper(),
                row["threads"],
                number(row["mean_s"]),
                ", ".join(number(value, 4) for value in row["samples"]),
            ]
            for row in rows
        ],
        caption=title,
    )
    return f"<h3>{title}</h3>" + pieces.plot(
        figure,
        f"experiment{experiment}-times",
        f"{title}: every trial, the original's and ours",
        choices=choices,
        data=data,
    )


def _who(row: dict) -> str:
    return THEIRS if row["pipeline"] == THEIRS else f"ours, {row['pipeline']} pipeline"


def _ratios(ratios: list[dict]) -> str:
    figure, choices = experiments_plots.ratios(ratios)
    head = ["who", "network", "phase", "batch", "clips", "threads", "CPU time over GPU time", "trial by trial"]
    cells = [
        [
            _who(ratio),
            ratio["task"],
            ratio["phase"],
            ratio["batch_size"],
            f"{ratio['num_items']:,}",
            ratio["threads"],
            number(ratio["ratio"]),
            ", ".join(number(value) for value in ratio["each"]),
        ]
        for ratio in ratios
    ]
    spans = {
        phase: [r["ratio"] for r in ratios if r["phase"] == phase and r["pipeline"] == THEIRS] for phase in _PHASES
    }
    told = "; ".join(
        f"{_PHASES[phase]} {number(min(found))} to {number(max(found))}, median {number(median(found))}"
        for phase, found in spans.items()
        if found
    )
    return pieces.section(
        "GPU over CPU",
        f"The original expected 5 and measured (by means of trials): {told}.",
        pieces.plot(
            figure,
            "experiment-ratios",
            "CPU time over GPU time for every setting",
            choices=choices,
            data=pieces.table(head, cells, caption="CPU time over GPU time"),
        ),
        _notes(ratios),
    )


def _gains(mine: list[dict]) -> str:
    gains = experiment_numbers.gains(mine)
    if not gains:
        return ""
    cells = [
        [
            Html(
                f"{gain['task']}, batch {gain['batch_size']}, {gain['num_items']:,} clips, {gain['phase']}"
                f"{_short(gain['short'])}"
            ),
            gain["device"].upper(),
            gain["threads"],
            number(gain["original_s"]),
            number(gain["fast_s"]),
            Html(f"<b>{number(gain['ratio'])}</b>"),
        ]
        for gain in gains
    ]
    return pieces.section(
        "What the fast pipeline gains in the original's protocol",
        "Means of the kept trials, as the original states them; both pipelines on this machine, with the same threads, "
        "by the same protocol.",
        pieces.table(
            ["setting", "device", "threads", "original s", "fast s", "times as fast"],
            cells,
            caption="Fast over original",
        ),
        _notes(gains),
    )


def _notes(pairs: list[dict]) -> str:
    """What must be known of pairs whose two sides were not measured with the same code."""
    return "".join(
        f'<p class="soft">{pieces.text(note)}</p>' for note in dict.fromkeys(pair["note"] for pair in pairs) if note
    )


def _short(words: str) -> str:
    """ "short run" or "longer run", as the protocol says."""
    return pieces.badge(f"{words.split(':')[0]} run") if words else ""


def _table(mine: list[dict]) -> str:
    cells = [
        [
            Html(
                f"{row['task']}, batch {row['batch_size']}, {row['num_items']:,} clips, {row['phase']}"
                f"{pieces.badge(row['badge'])}{_short(row['short'])}"
            ),
            row["pipeline"],
            row["device"].upper(),
            row["threads"],
            number(row["mean_s"]),
            number(min(row["samples"])),
            number(max(row["samples"])),
            len(row["samples"]),
            number(row["first_s"]),
        ]
        for row in mine
    ]
    head = ["setting", "pipeline", "device", "threads", "mean s", "least", "most", "trials", "dropped first trial s"]
    return pieces.section(
        "Our trials", "", pieces.details(f"{len(mine)} settings", pieces.table(head, cells, caption="Seconds an epoch"))
    )
