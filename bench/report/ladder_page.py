"""The ladder's chapter: from the original pipeline to the fast one, a rung at a time, and the proof of each."""

from collections.abc import Sequence

from markupsafe import Markup

from triadbench.bench.analysis import ladder, pairing
from triadbench.bench.analysis.ladder import Case, Row
from triadbench.bench.analysis.summary import DEVICES
from triadbench.bench.report import ladder_plots
from triadbench.bench.report.page import render


def chapter(records: Sequence[dict]) -> Markup:
    """HTML of all ladders in the records of one machine; "" where there is none."""
    ladders = [_ladder(case, rows) for case, rows in ladder.ladders(records).items()]
    if not ladders:
        return Markup()
    return render(
        "ladder.html", sentences=ladder.sentences(records), ladders=ladders, proof=proof, ms=ladder.per_clip_ms
    )


def _ladder(case: Case, rows: list[Row]) -> dict:
    timed = ladder.timed(rows)
    with_parts = [row for row in timed if row["parts"]]
    return {
        "title": ladder.case_title(case),
        "device": DEVICES.get(case[0], case[0]),
        "short": next((row["protocol"] for row in rows if row["protocol"] != "full"), ""),
        "note": pairing.note(row["code"] for row in timed),
        "complete": ladder.is_complete(rows),
        "rows": rows,
        "timed": timed,
        "with_parts": with_parts,
        "parts": list(dict.fromkeys(part for row in with_parts for part in row["parts"])),
        "waterfall": ladder_plots.waterfall(timed) if timed else None,
        "parts_figure": ladder_plots.parts(with_parts) if with_parts else None,
        "losses": ladder_plots.losses(rows) if rows[0]["losses"] else None,
    }


def proof(row: Row) -> tuple[str, str]:
    """Words and kind of the badge that says whether a rung changed speed only."""
    if row["rung"] == 0:
        return "reference", "good"
    if row["passed"] is None:
        return "losses not compared", "warn"
    if row["worst_difference"] is None or row["tolerance"] is None:
        return "✗ failed its check, not timed", "bad"
    words = f"{row['worst_difference']:.1e} of {row['tolerance']:.1e}"
    if row["passed"]:
        return f"✓ same losses ({words})", "good"
    return f"✗ losses differ ({words}){'' if row['samples'] else ', not timed'}", "bad"
