"""The chapter of mel spectrograms: ours beside their rivals, and the CUDA kernel as compiled, from records alone."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

from markupsafe import Markup

from triadbench.bench.analysis import mel as mel_summary
from triadbench.bench.analysis.mel import case
from triadbench.bench.analysis.summary import number, percent, scientific, select
from triadbench.bench.report import mel_plots
from triadbench.bench.report.page import marked, render
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
_COLUMNS: dict[str, Callable[[dict], object]] = {
    "case": lambda row: case(row).label,
    "contestant": lambda row: marked(row["contestant"], row["badge"]),
    "median ms": lambda row: number(row["p50_ms"]),
    "spread": lambda row: percent(row["spread"]),
    "clips/s": lambda row: number(row["clips_per_s"]),
    "× real time": lambda row: number(row["real_time_factor"]),
    "GB/s": lambda row: number(row["gb_per_s"]),
    "% memory": lambda row: percent(row["share_of_memory"]),
    "GFLOP/s": lambda row: number(row["gflop_per_s"]),
    "% arithmetic": lambda row: percent(row["share_of_arithmetic"]),
    "times eager": lambda row: number(row["against_eager"]),
    "RMS error": lambda row: scientific(row["rms_relative"]),
    "peak error": lambda row: scientific(row["peak_relative"]),
    "log error, tilted": lambda row: scientific(row["tilted_log"]),
    "p90": lambda row: number(row["p90_ms"]),
    "p99": lambda row: number(row["p99_ms"]),
    "n": lambda row: row["n"],
}


def chapter(records: list[dict]) -> Markup:
    """The mel records as a chapter; without any it says so."""
    rows = mel_summary.rows(records)
    devices = dict.fromkeys(row["device"] for row in rows)
    return render(
        "mel.html",
        findings=mel_summary.findings(records),
        duels=[_duel(duel) for duel in mel_summary.duels(rows)],
        speed_ups=mel_plots.speed_ups(rows) if any(row["against_eager"] for row in rows) else None,
        rooflines={device: mel_plots.roofline(rows, records, device) for device in devices},
        errors=mel_plots.error_and_speed(rows) if rows else None,
        times=mel_plots.times(rows, records) if rows else None,
        first_calls=_first_calls(rows),
        starts=[_start(record) for record in select(records, "mel warm start")],
        static=_static(select(records, "mel cuda static")),
        left_out=[
            [gap["contestant"], gap["device"], gap["cases"], gap["reason"]] for gap in mel_summary.left_out(records)
        ],
        columns=list(_COLUMNS),
        cells=[[column(row) for column in _COLUMNS.values()] for row in rows],
        contestants=[_contestant(*entry) for entry in _latest_of_contestants(records).items()],
        fewest_samples=timing.FEWEST_SAMPLES,
        unstable_spread=percent(timing.UNSTABLE_SPREAD),
    )


def _duel(duel: dict) -> list[object]:
    ours, rival = duel["ours"], duel["rival"]
    ratios = [duel["against_eager"], duel["against_rival"]]
    return [
        duel["case"].label,
        marked(ours["contestant"], ours["badge"]),
        number(ours["p50_ms"]),
        *(None if ratio is None else Markup("<b>{}</b>").format(number(ratio)) for ratio in ratios),
        marked(rival["contestant"], rival["badge"]),
    ]


def _first_calls(rows: list[dict]) -> list[list[str]]:
    first = sorted((row for row in rows if row["first_in_process"]), key=lambda row: row["first_call_ms"])
    return [
        [
            row["contestant"],
            case(row).label,
            number(row["first_call_ms"]),
            number(row["p50_ms"]),
            number(row["first_call_ms"] / row["p50_ms"], 2),
        ]
        for row in first
    ]


def _start(record: dict) -> list[str | None]:
    samples = record["samples"]
    middle = number(median(samples)) if samples else record["reason"]
    return [f"ours: {record['parameters']['backend']}", middle, ", ".join(map(number, samples)) or None]


def _static(records: list[dict]) -> dict | None:
    """The static analyses as a figure and a table, and why others are absent."""
    if not records:
        return None
    analyses, reasons = [], []
    for record in records:
        kernel = " ".join(filter(None, (record["parameters"].get("spec"), record["parameters"].get("arch"))))
        if record.get("analysis"):
            analyses.append((kernel, record["analysis"]))
        if record.get("reason"):
            reasons.append(f"{kernel} not analysed: {record['reason']}.".strip())
    rows = [
        [
            kernel,
            *(_with_commas(analysis.get(field)) for field in _STATIC_COLUMNS.values()),
            percent(analysis.get("occupancy")),
            _with_commas(analysis.get("limited_by")),
        ]
        for kernel, analysis in analyses
    ]
    head = ["kernel", *_STATIC_COLUMNS, "occupancy", "limited by"]
    return {
        "figure": mel_plots.instruction_mix(analyses)[0] if analyses else None,
        "head": head,
        "rows": rows,
        "reasons": reasons,
    }


def _with_commas(value: object) -> object:
    return f"{value:,}" if isinstance(value, int) else value


def _latest_of_contestants(records: list[dict]) -> dict[str, dict]:
    return {record["parameters"]["contestant"]: record for record in select(records, "mel")}


def _contestant(name: str, record: dict) -> list[str | None]:
    versions = ", ".join(f"{package} {version}" for package, version in record["versions"].items())
    error = record["error"]
    tolerance = f"{error['tolerance']:.0e}"
    return [name, record["what"], versions or None, record["threads_by"], tolerance, error["tolerance_reason"]]
