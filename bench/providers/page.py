"""One run of the benchmark from its options to its page."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from triadbench.bench.providers import plan as plans
from triadbench.bench.providers import run as benchmark

_EFFORTS = {effort.name: effort for effort in (plans.NORMAL, plans.FULL, plans.QUICK, plans.SMOKE)}


def run(
    out: Path,
    records_path: Path,
    effort: str,
    model: Path | None,
    folder: Path | None,
    *,
    parts: tuple[str, ...] = (),
    progress: Callable[[int, int | None], None] = lambda done, total: None,
    note: Callable[[str], None] = lambda text: None,
    **options,
) -> dict:
    """Measure, append the records, write the page of this run.

    Args:
        effort: "normal", "quick", "full" or "smoke".
        model, folder, options: as `bench.providers.plan.make_plan`.
        parts: of `bench.providers.plan.PARTS`; none: all.

    Returns:
        `page`, `records` (paths), `seconds`, `environment`, `measurements`, `loads`, `files`, `processes`, `left_out`
        and `failed` (checks, in words).

    Raises:
        UserError: as `make_plan` and `measure`; or the page cannot be written.
    """
    from triadbench.bench import record_fields as results
    from triadbench.bench.analysis import providers as providers_numbers
    from triadbench.bench.report import providers_page

    begun = time.perf_counter()
    chosen = _EFFORTS[effort]
    plan = plans.make_plan(chosen, model, folder, parts=parts or plans.PARTS, **options)
    made, failed = benchmark.measure(records_path, plan, chosen, progress=progress, note=note)
    environment = made[0]["environment"] if made else {}
    plain = [
        {key: value for key, value in row.items() if key not in ("samples", "single_run", "offline_runs")}
        for row in providers_numbers.rows(made)
    ]
    return {
        **results.write_page(providers_page.page(made), out, records_path, environment, begun),
        "measurements": plain,
        "loads": providers_numbers.loads(made),
        "files": providers_numbers.waits(made, providers_numbers.FILES),
        "processes": providers_numbers.waits(made, providers_numbers.PROCESS),
        "left_out": [list(entry) for entry in providers_numbers.left_out(made)],
        "failed": failed,
        "text": providers_numbers.text(made),
    }


def text(result: dict) -> str:
    """The terminal's version of `run`'s result."""
    return f"{result['text']}\nPage: {result['page']} ({result['seconds']:.0f} s)"
