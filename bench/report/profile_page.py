"""The profile's page: kernels, layers, training step, pipeline and lines of one machine, from records alone."""

from __future__ import annotations

import re
from html import escape

from triadbench.bench.analysis import mel as mel_summary
from triadbench.bench.analysis import summary
from triadbench.bench.report import frame, layers_page, lines_page, mel_page, pipeline_page, quick_page
from triadbench.bench.report.frame import Chapter

TITLES = {
    "mel": "Kernels: mel spectrograms",
    "layers": "Layer by layer",
    "step": "Networks and a training step",
    "pipeline": "The pipelines: an epoch's parts",
    "lines": "Line by line",
}


def page(parts: dict[str, list[dict]]) -> str:
    """The whole HTML page.

    Args:
        parts: {part: its records}; parts are the keys of `TITLES`.
    """
    chapters = [Chapter(part, TITLES[part], _body(part, found)) for part, found in parts.items() if found]
    environment = next((found[0]["environment"] for found in parts.values() if found), None)
    where = "nothing measured"
    if environment is not None:
        gpu = f" · {environment['gpu']}" if environment["gpu"] else " · no GPU: nothing was measured on one"
        where = f"{environment['cpu']}, {environment['cores_usable']} cores{gpu}"
        listed = quick_page.environment_list(environment)
        chapters.append(Chapter("environment", "Environment", f'<div class="card"><dl>{listed}</dl></div>'))
    lead = f"Profile of {environment['time']}" if environment else ""
    return frame.page("Where the time goes on this machine", lead, [(where, chapters)])


def findings(part: str, records: list[dict]) -> list[str]:
    """What a part's records say, in sentences."""
    found = {
        "mel": mel_summary.findings,
        "layers": layers_page.findings,
        "step": summary.findings,
        "pipeline": pipeline_page.findings,
        "lines": lines_page.findings,
    }
    return found[part](records)


def _body(part: str, records: list[dict]) -> str:
    if part == "mel":
        # Its own list of the environment is this page's last chapter.
        body = mel_page.sections(records).split("<h2>Environment</h2>")[0]
    elif part == "step":
        sentences = "".join(f"<li>{escape(sentence)}</li>" for sentence in summary.findings(records))
        body = f'<div class="card"><ul class="findings">{sentences}</ul></div>{quick_page.sections(records)}'
    else:
        chapters = {"layers": layers_page, "pipeline": pipeline_page, "lines": lines_page}
        body = chapters[part].chapter(records)
        body = body.replace(f"<h2>{TITLES[part]}</h2>", "", 1)
    # A chapter's headings of the third and second level stand one below its title. Its texts are escaped.
    return re.sub(r"(</?)h2\b", r"\1h3", re.sub(r"(</?)h3\b", r"\1h4", body))
