"""The report: everything that records hold in one HTML file that fetches nothing.

Chapters are functions of one machine's records. One that fails on records that are not as they should be is named in
the page and in the result, and the others stand.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from triadbench.bench.analysis import findings as story
from triadbench.bench.analysis import gather
from triadbench.bench.analysis import providers as providers_numbers
from triadbench.bench.report import accuracy_page, environment_page, experiments_page, frame, ladder_page
from triadbench.bench.report import sections as pieces
from triadbench.bench.report.frame import Chapter

TITLE = "Why was it only twice as fast?"
_QUICK = ("peak copy", "peak matmul", "mel", "forward", "training step")
_BY_NAME = {
    "pipeline": (
        "pipeline",
        "The pipelines: an epoch's parts",
        ("pipeline parts",),
        "python cli.py profile --only pipeline",
    ),
    "lines": ("lines", "Line by line", ("lines",), "python cli.py profile --only lines"),
    "providers": (
        "providers",
        "One clip in, one chord out: formats and providers",
        providers_numbers.NAMES,
        providers_numbers.COMMAND,
    ),
    "layers": ("layers", "Layer by layer", ("layers",), "python cli.py profile --only layers"),
}
"""Modules triadbench.bench.report.NAME_page with `chapter(records)`: id, title, names of their records, command."""


def write_report(record_paths: Sequence[Path] | None, out: Path) -> dict:
    """Write the page.

    Args:
        record_paths: record files, or folders of them; None takes `gather.default_paths`.
        out: HTML file to write, whole or not at all.

    Returns:
        `page`, `bytes`, `machines` (each `label`, `records`, `story`, `chapters`, `missing`), `accuracy` (number of
        evaluations and trainings), `files`, `problems`, `passed_over`.

    Raises:
        UserError: no record at all, a path that cannot be read, or an output that cannot be written.
    """
    from triadbench.core.files import atomic_path

    gathered = gather.gather(record_paths)
    problems = list(gathered.problems)
    machines, told, heads = [], [], {}
    # Without a timing there is still accuracy to show, and the original's published figures.
    for machine in gathered.machines or [gather.Machine(("no timing in these records", None, None))]:
        sentences = story.tell(machine.records, machine.has_gpu)
        chapters, missing = _chapters(machine, gathered, sentences, problems, heads)
        machines.append((_label(machine), chapters))
        told.append(
            {
                "label": machine.label,
                "records": len(machine.records),
                "story": sentences,
                "chapters": [chapter.id for chapter in chapters],
                "missing": missing,
            }
        )
    lead = "The training study, explained and beaten: " + (
        f"{sum(len(machine.records) for machine in gathered.machines):,} records of {len(gathered.machines)} "
        f"machine{'' if len(gathered.machines) == 1 else 's'}."
    )
    page = frame.page(TITLE, lead, machines, head="".join(heads))
    with atomic_path(Path(out)) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")  # half a character of a name
        size = temporary.stat().st_size
    return {
        "page": str(out),
        "bytes": size,
        "machines": told,
        "accuracy": len(gathered.accuracy),
        "files": gathered.files,
        "problems": problems,
        "passed_over": gathered.passed_over,
    }


def text(result: dict) -> str:
    """The terminal's version: the story of each machine, what is missing, where the page is."""
    lines = []
    for machine in result["machines"]:
        lines.append(f"{machine['label']} ({machine['records']} records)")
        for sentence in machine["story"]:
            command = f" (make it: {sentence['missing']})" if sentence["missing"] else ""
            lines.append(f"- {sentence['text']}{command}")
        lines += [f"- missing: {line}" for line in machine["missing"]]
    lines.append(f"Page: {result['page']} ({result['bytes'] / 1e6:.1f} MB)")
    return "\n".join(lines)


def _label(machine: gather.Machine) -> str:
    return machine.label if machine.records else "no machine: these records hold no timing"


def _chapters(
    machine: gather.Machine, gathered: gather.Gathered, sentences: list[dict], problems: list[str], heads: dict
) -> tuple[list[Chapter], list[str]]:
    """The chapters of one machine and lines about those that have no records."""
    records, made, missing = machine.records, [Chapter("story", "What was found", _story(sentences))], []

    def add(chapter_id: str, title: str, build: Callable[[], str], absent: str = "") -> None:
        try:
            body = build()
        # Records are files from anywhere: what a chapter stumbles over is said, and the others are still worth reading.
        except pieces.BROKEN as error:
            line = f"chapter “{title}”: its records are not as they should be ({type(error).__name__}: {error})"
            problems.append(f"{machine.label}: {line}")
            body = pieces.card(f"<p>{pieces.text(line)}.</p>")
        if not body and absent:
            missing.append(f"{title}: {absent}")
            body = pieces.card(
                f"<p>Not measured on this machine. <code>{pieces.text(absent)}</code> makes the records.</p>"
            )
        if body:
            made.append(Chapter(chapter_id, title, _one_level_down(body)))

    add("mel", "Mel spectrograms: ours and their rivals", lambda: _mel(records), story.MEL)
    add(
        "ladder",
        "The ladder: from the original pipeline to the fast one",
        lambda: ladder_page.chapter(records),
        story.LADDER,
    )
    add("experiments", "The original's experiments, again", lambda: experiments_page.chapter(records))
    missing += [
        f"{name}: python cli.py {name}"
        for name in experiments_page.experiment_numbers.NAMES
        if not any(record["name"] == name for record in records)
    ]
    for name, (chapter_id, title, _, command) in _BY_NAME.items():
        add(chapter_id, title, lambda name=name: _by_name(name, records, heads), command)
    add("quick", "Quick profile", lambda: _quick(records))
    add("accuracy", "What the networks know", lambda: accuracy_page.chapter(gathered.accuracy))
    add("other", "Other records", lambda: environment_page.others(_unknown(records)))
    if records:
        add("environment", "Environment", lambda: environment_page.chapter(machine))
    add("sources", "Records and how to make more", lambda: environment_page.sources(gathered))
    return made, missing


def _story(sentences: list[dict]) -> str:
    items = []
    for sentence in sentences:
        command = f" Make it: <code>{pieces.text(sentence['missing'])}</code>" if sentence["missing"] else ""
        kind = ' class="missing"' if sentence["missing"] else ""
        items.append(f"<li{kind}>{pieces.text(sentence['text'])}{command}</li>")
    return pieces.card(f'<ol class="story">{"".join(items)}</ol>')


def _mel(records: list[dict]) -> str:
    from triadbench.bench.report import mel_page

    found = [record for record in records if gather.is_mel(record)]
    # Its own list of the environment is the report's last chapter.
    return mel_page.sections(found).split("<h2>Environment</h2>")[0] if found else ""


def _by_name(name: str, records: list[dict], heads: dict) -> str:
    found = [record for record in records if record["name"] in _BY_NAME[name][2]]
    module_name = f"triadbench.bench.report.{name}_page"
    if not found or importlib.util.find_spec(module_name) is None:
        return ""
    module = importlib.import_module(module_name)
    body = module.chapter(found)
    # Its style and script stand in the head once, for they would be there again for every machine.
    for kind in ("style", "script"):
        shared = getattr(module, {"style": "CSS", "script": "SCRIPT"}[kind], "")
        if shared:
            body = body.replace(f"<{kind}>{shared}</{kind}>", "")
            heads[f"<{kind}>{shared}</{kind}>"] = None
    # The chapter's title is the report's to write.
    return body.replace(f"<h2>{_BY_NAME[name][1]}</h2>", "", 1)


def _quick(records: list[dict]) -> str:
    from triadbench.bench.report import quick_page

    found = [record for record in records if record["name"] in _QUICK and not gather.is_mel(record)]
    return quick_page.sections(found) if found else ""


def _unknown(records: list[dict]) -> list[dict]:
    known = {*ladder_page.ladder_numbers.NAMES, *_QUICK, *experiments_page.experiment_numbers.NAMES}
    # What has a chapter of its own, but whose code is not installed, is listed too.
    known |= {
        name
        for key, entry in _BY_NAME.items()
        if importlib.util.find_spec(f"triadbench.bench.report.{key}_page")
        for name in entry[2]
    }
    return [record for record in records if record["name"] not in known and not gather.is_mel(record)]


def _one_level_down(body: str) -> str:
    """A chapter's own headings of the second level stand below its title. Its texts are escaped and hold no tags."""
    return re.sub(r"(</?)h2\b", r"\1h3", body)
