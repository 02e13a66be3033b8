"""The profile's page: kernels, layers, step, pipeline, lines and flame graphs of one machine, from records alone."""

from pathlib import Path

from triadbench.bench import outputs
from triadbench.bench.analysis import mel as mel_summary
from triadbench.bench.report import (
    flame_page,
    layers_page,
    lines_page,
    mel_page,
    networks_page,
    opening,
    pipeline_page,
)
from triadbench.bench.report.page import Chapter, machine_page

TITLES = {
    "mel": "Kernels: mel spectrograms",
    "layers": "Layer by layer",
    "step": "Networks and a training step",
    "pipeline": "The pipelines: an epoch's parts",
    "lines": "Line by line",
    "flame": "Flame graphs: a training step and infer",
}
_MODULES = {"layers": layers_page, "step": networks_page, "pipeline": pipeline_page, "lines": lines_page}
_MODULES["flame"] = flame_page
CHAPTERS = {"mel": mel_page.chapter} | {part: module.chapter for part, module in _MODULES.items()}
FINDINGS = {"mel": mel_summary.findings} | {part: module.findings for part, module in _MODULES.items()}


def page(parts: dict[str, list[dict]]) -> str:
    """The whole HTML page of {part: its records}; parts are the keys of `TITLES`."""
    chapters = [Chapter(part, TITLES[part], CHAPTERS[part](records)) for part, records in parts.items()]
    shown = [chapter for chapter in chapters if chapter.body]
    records = [record for records in parts.values() for record in records]
    title = "Where the time goes on this machine"
    return machine_page(title, "Profile", opening.of_records(records), shown, records)


def write(parts: dict[str, tuple[list[dict], float]], out: Path, records_path: Path, begun: float) -> dict:
    """Write the page of one run.

    Args:
        parts: {part: (its records, seconds)}.
        out, records_path, begun: as of `bench.outputs.write_page`, which also raises.

    Returns:
        what that returns, with `parts` {part: {"records": n, "seconds", "findings"}} and `traces` (paths).
    """
    of_part = {part: records for part, (records, _) in parts.items()}
    environment: dict = next((records[-1]["environment"] for records in of_part.values() if records), {})
    summaries = {
        part: {"records": len(records), "seconds": seconds, "findings": FINDINGS[part](records)}
        for part, (records, seconds) in parts.items()
    }
    traces = [str(out.parent / record["trace"]) for record in of_part.get("layers", [])]
    result = outputs.write_page(page(of_part), out, records_path, environment, begun)
    if flames := of_part.get("flame"):
        result["speedscope"] = str(out.with_suffix(".speedscope.json"))
        flame_page.write_speedscope(flames, Path(result["speedscope"]))
    return result | {"parts": summaries, "traces": traces}


def text(result: dict) -> str:
    """The terminal's version of `write`'s result."""
    lines = []
    for part, entry in result["parts"].items():
        lines.append(f"{TITLES[part]} ({entry['records']} records, {entry['seconds']:.0f} s)")
        lines += [f"- {sentence}" for sentence in entry["findings"]]
    lines += [f"Trace for Perfetto: {path}" for path in result["traces"]]
    lines += [f"Flame graphs for speedscope: {result['speedscope']}"] if "speedscope" in result else []
    return "\n".join([*lines, f"Page: {result['page']}"])
