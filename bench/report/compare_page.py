"""The page of `report --compare`: two commits or machines side by side."""

import itertools
from collections.abc import Sequence
from pathlib import Path

from triadbench.bench.analysis import compare, gather
from triadbench.bench.report.page import Chapter, Opening, environment, page, render
from triadbench.core.errors import UserError
from triadbench.core.files import atomic_path


def write(record_paths: Sequence[Path] | None, other: Path, out: Path) -> dict:
    """Write the page of what both measured on one machine, or else of the first machine of each.

    Args:
        record_paths, out: as of `report.write_report`. other: a file or folder of records to compare with.

    Returns:
        `page`, `machines` (two labels), `sentences` and `rows` as of `bench.analysis.compare`, `problems`.

    Raises:
        UserError: as `report.write_report`, or one of them holds no timing.
    """
    gathered = [gather.gather(paths) for paths in (record_paths, [other])]
    sides = [[machine for machine in side.machines if not machine.rehearsal] for side in gathered]
    pairs = list(itertools.product(*sides))
    if not pairs:
        raise UserError(f"{other}: nothing to compare; these records and those must both hold timings")
    both = next((pair for pair in pairs if pair[0].key == pair[1].key), pairs[0])
    rows = compare.compare(*(machine.records for machine in both))
    sentences = compare.sentences(rows)
    groups: dict[str, list[compare.Row]] = {verdict: [] for verdict in (compare.FASTER, compare.SLOWER, compare.ALIKE)}
    for row in rows:
        groups.setdefault(row["verdict"], []).append(row)
    opening = Opening(sentences[0], [(str(len(group)), verdict) for verdict, group in groups.items()][:3])
    chapters = [
        Chapter(f"rows{i}", f"{verdict.capitalize()}: {len(group)}", render("compare.html", rows=group))
        for i, (verdict, group) in enumerate(groups.items())
    ]
    labels = [f"{side}: {_label(machine)}" for side, machine in zip(("These", "The other"), both, strict=True)]
    chapters += [Chapter(f"side{i}", labels[i], environment(machine.records)) for i, machine in enumerate(both)]
    with atomic_path(out) as temporary:
        content = page("What changed", "", [(" · ".join(labels), opening, chapters)])
        temporary.write_text(content, encoding="utf-8", errors="backslashreplace")
    problems = [problem for side in gathered for problem in side.problems]
    return {"page": str(out), "machines": labels, "sentences": sentences, "rows": rows, "problems": problems}


def _label(machine: gather.Machine) -> str:
    newest = max((record["environment"] for record in machine.records), key=lambda known: str(known.get("time", "")))
    return f"{machine.label}, last commit {str(newest.get('commit') or 'unknown')[:7]}"
