"""The mel profile as a command runs it: measure what the records lack, write the page, summarise."""

import time
from pathlib import Path
from typing import Any

from triadbench.bench import outputs
from triadbench.bench.analysis import mel as mel_summary
from triadbench.bench.mel import measure as mel
from triadbench.bench.mel.records import Contest

text = mel_summary.text
"""The terminal's version of `run`'s result."""


def run(out: Path, records_path: Path, contest: Contest, effort: mel.Effort = mel.FULL, **options: Any) -> dict:
    """Measure and write the page.

    Args:
        out: HTML page to write, whole or not at all.
        records_path, contest, effort, options: as `bench.mel.measure.measure`.

    Returns:
        `page`, `records` (paths), `seconds`, `environment`, `skipped_groups`, `measurements`, `left_out`, `findings`.

    Raises:
        UserError: an output cannot be written, or the records cannot be read.
    """
    from triadbench.bench.report import profile_page

    start = time.perf_counter()
    results, environment, skipped = mel.measure(records_path, contest, effort, **options)
    return {
        **outputs.write_page(profile_page.page({"mel": results}), out, records_path, environment, start),
        "skipped_groups": skipped,
        "measurements": mel_summary.rows(results),
        "left_out": mel_summary.left_out(results),
        "findings": mel_summary.findings(results),
    }
