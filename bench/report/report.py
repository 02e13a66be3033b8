"""The report: everything that records hold in one HTML file that fetches nothing.

Chapters are functions of one machine's records. One that fails on records that are not as they should be is named in
the page and in the result, and the others stand.
"""

import contextlib
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from triadbench.bench.analysis import conclusions, final, gather
from triadbench.bench.analysis import experiments as experiment_numbers
from triadbench.bench.analysis import findings as story
from triadbench.bench.analysis import ladder as ladder_numbers
from triadbench.bench.analysis import providers as providers_numbers
from triadbench.bench.report import (
    accuracy_page,
    experiments_page,
    final_page,
    flame_page,
    gpu_page,
    ladder_page,
    mel_page,
    networks_page,
    opening,
    pipeline_page,
    profile_page,
    providers_page,
    reasons_page,
)
from triadbench.bench.report.page import Chapter, Opening, environment, page, render

_CARD = Markup('<div class="card"><p>{}</p></div>')
TITLE = "Why was it only twice as fast?"
_OURS = experiment_numbers.PIPELINES
_REHEARSAL = "A rehearsal: it shows that every stage of the GPU run works, and its figures say nothing."


class _Part(NamedTuple):
    """A chapter of one machine.

    Attributes:
        id, title: of the chapter.
        names: of its records; the mel profile's are told apart by `gather.is_mel`.
        build: HTML of its records, "" where they show nothing.
        command: makes its records; "" where the chapter needs none, or is left out without them.
    """

    id: str
    title: str
    names: Sequence[str]
    build: Callable[[list[dict]], str]
    command: str

    def owns(self, record: dict) -> bool:
        """Whether the chapter shows this record."""
        return gather.is_mel(record) if self.id == "mel" else record["name"] in self.names


def _profiled(part: str, names: Sequence[str]) -> _Part:
    """A part of `profile`, under the same title."""
    command = f"python cli.py profile --only {part}"
    return _Part(part, profile_page.TITLES[part], names, profile_page.CHAPTERS[part], command)


_PARTS = (
    _Part("mel", "Mel spectrograms: ours and their rivals", (), mel_page.chapter, story.MEL),
    _Part("ladder", ladder_page.TITLE, ladder_numbers.NAMES, ladder_page.chapter, story.LADDER),
    _Part("experiments", experiments_page.TITLE, [*experiment_numbers.NAMES, final.NAME], experiments_page.chapter, ""),
    _Part("final", final_page.TITLE, [final.NAME], final_page.chapter, final.COMMAND),
    _profiled("pipeline", [pipeline_page.NAME]),
    _profiled("lines", ["lines"]),
    _profiled("flame", [flame_page.NAME])._replace(command=""),
    _Part(
        "providers", providers_page.TITLE, providers_numbers.NAMES, providers_page.chapter, providers_numbers.COMMAND
    ),
    _Part("gpu", gpu_page.TITLE, gpu_page.NAMES, gpu_page.chapter, "python cli.py study --gpu"),
    _profiled("layers", ["layers"]),
    _profiled("step", networks_page.NAMES)._replace(command=""),
)


def write_report(record_paths: Sequence[Path] | None, out: Path) -> dict:
    """Write the page.

    Args:
        record_paths: record files, or folders of them; None takes `gather.default_paths`.
        out: HTML file to write, whole or not at all.

    Returns:
        `page`, `bytes`, `machines` (each `label`, `records`, `story`, `conclusions`, `chapters`, `missing`), `accuracy`
        (number of evaluations and trainings), `files`, `problems`, `passed_over`.

    Raises:
        UserError: no record at all, a path that cannot be read, or an output that cannot be written.
    """
    from triadbench.core.files import atomic_path

    gathered = gather.gather(record_paths)
    problems = list(gathered.problems)
    pages, machines = [], []
    # Without a timing there is still accuracy to show, and the original's published figures.
    for machine in gathered.machines or [gather.Machine(("no timing in these records", None, None))]:
        sentences = story.tell(machine.records, machine.has_gpu)
        if machine.rehearsal:
            sentences = [{"key": "rehearsal", "text": _REHEARSAL, "numbers": {}, "missing": None}]
        chapters, missing = _chapters(machine, gathered, sentences, problems)
        label = machine.label if machine.records else "no machine: these records hold no timing"
        first = Opening(_REHEARSAL) if machine.rehearsal else opening.of_records(machine.records)
        pages.append((label, first, chapters))
        entry = {"label": machine.label, "records": len(machine.records), "story": sentences}
        entry["conclusions"] = _conclusions(machine.records)
        machines.append(entry | {"chapters": [chapter.id for chapter in chapters], "missing": missing})
    counts = [len(machine.records) for machine in gathered.machines if not machine.rehearsal]
    lead = f"{sum(counts):,} records of {len(counts)} machine{'s' * (len(counts) != 1)}."
    with atomic_path(Path(out)) as temporary:
        # A name may hold half a character, which UTF-8 cannot write.
        temporary.write_text(page(TITLE, lead, pages), encoding="utf-8", errors="backslashreplace")
        size = temporary.stat().st_size
    result = {"page": str(out), "bytes": size, "machines": machines, "accuracy": len(gathered.accuracy)}
    return result | {"files": gathered.files, "problems": problems, "passed_over": gathered.passed_over}


def _conclusions(records: list[dict]) -> list[dict]:
    """`conclusions.tell`, where there is something of our own to tell, and records as they should be."""
    with contextlib.suppress(*story.MALFORMED):
        return [one for one in conclusions.tell(records) if any(one["holds"].get(who) is not None for who in _OURS)]
    return []


def text(result: dict) -> str:
    """The terminal's version: the story of each machine, what is missing, where the page is."""
    lines = []
    for machine in result["machines"]:
        lines.append(f"{machine['label']} ({machine['records']} records)")
        for sentence in machine["story"]:
            command = f" (make it: {sentence['missing']})" if sentence["missing"] else ""
            lines.append(f"- {sentence['text']}{command}")
        lines += [f"- {sentence['text']}" for sentence in machine["conclusions"]]
        lines += [f"- missing: {line}" for line in machine["missing"]]
    lines.append(f"Page: {result['page']} ({result['bytes'] / 1e6:.1f} MB)")
    return "\n".join(lines)


def _chapters(
    machine: gather.Machine, gathered: gather.Gathered, sentences: list[dict], problems: list[str]
) -> tuple[list[Chapter], list[str]]:
    """The chapters of one machine and lines about those that have no records."""
    chapters = [Chapter("story", "What was found", render("story.html", sentences=sentences))]
    missing = []

    def add(chapter_id: str, title: str, build: Callable[[], str], command: str = "") -> None:
        try:
            body = build()
        # Records are files from anywhere: what a chapter stumbles over is said, and the others are still worth reading.
        except story.MALFORMED as error:
            line = f"chapter “{title}”: its records are not as they should be ({type(error).__name__}: {error})"
            problems.append(f"{machine.label}: {line}")
            body = _CARD.format(f"{line}.")
        if not body and command and not machine.rehearsal:
            missing.append(f"{title}: {command}")
            words = Markup("Not measured on this machine. <code>{}</code> makes the records.")
            body = _CARD.format(words.format(command))
        if body and machine.rehearsal:
            body = _CARD.format(_REHEARSAL) + body
        if body:
            chapters.append(Chapter(chapter_id, title, body))

    elsewhere = [(m.label, m.records) for m in gathered.machines if m is not machine and not m.rehearsal]
    if not machine.rehearsal:
        add("reasons", reasons_page.TITLE, lambda: reasons_page.chapter(machine.records, elsewhere))
    others = machine.records
    for part in _PARTS:
        records = [record for record in machine.records if part.owns(record)]
        others = [record for record in others if not part.owns(record)]
        # The experiments' chapter has the published figures to show even without records.
        shown = bool(records) or part.id == "experiments"
        add(part.id, part.title, functools.partial(part.build, records) if shown else str, part.command)
    if not machine.rehearsal:
        known = {record["name"] for record in machine.records}
        missing += [f"{name}: python cli.py {name}" for name in experiment_numbers.NAMES if name not in known]
        missing += experiment_numbers.missing(machine.records)
    add("accuracy", "What the networks know", lambda: accuracy_page.chapter(gathered.accuracy))
    add("other", "Other records", lambda: render("others.html", records=others) if others else "")
    if machine.records:
        add("environment", "Environment", lambda: environment(machine.records))
    files = {"files": gathered.files, "problems": gathered.problems, "commands": gather.MAKERS}
    add("sources", "Records and how to make more", lambda: render("sources.html", **files))
    return chapters, missing
