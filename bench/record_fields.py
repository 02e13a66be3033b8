"""The parts that every profile's result and records have in common, written in one place."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from triadbench.core.constants import CLIP_SAMPLES, SAMPLE_RATE
from triadbench.core.timing import Timing


def write_page(page: str, out: Path, records_path: Path, environment: dict, begun: float) -> dict:
    """Write the HTML page, whole or not at all; the beginning of what a profile returns.

    Args:
        begun: `time.perf_counter()` of the profile's start, in seconds.

    Returns:
        `page`, `records` (paths), `seconds` (of all, with the page), `environment`.

    Raises:
        UserError: the page cannot be written.
    """
    from triadbench.core.files import atomic_path

    with atomic_path(Path(out)) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return {
        "page": str(out),
        "records": str(records_path),
        "seconds": round(time.perf_counter() - begun, 1),
        "environment": environment,
    }


def timing_fields(timed: Timing, clips: int) -> dict[str, Any]:
    """What a record holds of a timing of `clips` clips besides its samples; `first_call` in milliseconds."""
    return {
        "first_call": 1e3 * timed.first_call_s,
        "calls_per_sample": timed.calls_per_sample,
        "other_cores": timed.other_cores,
        "disturbed": timed.disturbed,
        "clips": clips,
        "audio_s": clips * CLIP_SAMPLES / SAMPLE_RATE,
    }


def error_fields(found) -> dict[str, Any]:
    """A record's `error`, of a `kernels.compare.Comparison` with the float64 reference."""
    return {"reference": "float64", "peak_relative": found.peak_relative, "rms_relative": found.rms_relative}
