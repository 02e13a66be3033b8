"""The chapter of mel spectrograms: ours beside their rivals, and the CUDA kernel as compiled, from records alone."""

from statistics import median

from markupsafe import Markup

from triadbench.bench.analysis import mel as mel_summary
from triadbench.bench.analysis.summary import percent, select
from triadbench.bench.report import mel_plots
from triadbench.bench.report.page import render
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
        median=median,
        duels=mel_summary.duels(rows),
        speed_ups=mel_plots.speed_ups(rows) if any(row["against_eager"] for row in rows) else None,
        rooflines={device: mel_plots.roofline(rows, records, device) for device in devices},
        errors=mel_plots.error_and_speed(rows) if rows else None,
        times=mel_plots.times(rows, records) if rows else None,
        starts=select(records, "mel warm start"),
        static=static,
        static_columns=_STATIC_COLUMNS,
        instruction_mix=mel_plots.instruction_mix([record for record in static if record["analysis"]]),
        left_out=mel_summary.left_out(records),
        contestants={record["parameters"]["contestant"]: record for record in select(records, "mel")},
        fewest_samples=timing.FEWEST_SAMPLES,
        unstable_spread=percent(timing.UNSTABLE_SPREAD),
    )
