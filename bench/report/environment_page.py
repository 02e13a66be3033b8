"""The last chapters: on which machine and with which code, which files, and what in them could not be read."""

from __future__ import annotations

from collections.abc import Sequence

from triadbench.bench.analysis.gather import MAKERS, Gathered, Machine
from triadbench.bench.report import sections as pieces

_SHOWN = {
    "CPU": "cpu",
    "vector extensions": "cpu_features",
    "physical cores": "cores_physical",
    "logical cores": "cores_logical",
    "usable cores": "cores_usable",
    "torch threads": "torch_threads",
    "memory GB": "ram_gb",
    "GPU": "gpu",
    "GPU driver": "gpu_driver",
    "system": "os",
    "Python": "python",
}


def chapter(machine: Machine) -> str:
    """The environments of one machine's records: what they share once, commits and times one by one."""
    every = [record["environment"] for record in machine.records]
    shared = []
    for label, key in _SHOWN.items():
        values = list(dict.fromkeys(_words(environment.get(key)) for environment in every))
        shared.append(f"<dt>{pieces.text(label)}</dt><dd>{pieces.text('; '.join(values))}</dd>")
    versions: dict[str, dict] = {}
    for environment in every:
        for name, version in (environment.get("versions") or {}).items():
            if version:
                versions.setdefault(name, {})[str(version)] = None
    packages = ", ".join(f"{name} {' and '.join(found)}" for name, found in versions.items())
    shared.append(f"<dt>packages</dt><dd>{pieces.text(packages or '—')}</dd>")
    counted: dict[tuple, list] = {}
    for record in machine.records:
        environment = record["environment"]
        commit = environment.get("commit")
        key = f"{str(commit)[:12]}{' (changed)' if environment.get('dirty') else ''}" if commit else "unknown"
        counted.setdefault((record["name"], key), []).append(str(environment.get("time", "")))
    rows = [[name, len(times), commit, min(times), max(times)] for (name, commit), times in sorted(counted.items())]
    gpu = "" if machine.has_gpu else '<p class="soft">GPU: not measured: there was none in this machine.</p>'
    return (
        gpu
        + pieces.card(f"<dl>{''.join(shared)}</dl>")
        + pieces.table(["records", "number", "commit", "first", "last"], rows, caption="What was measured when")
    )


def _words(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none known"
    return "none" if value is None else str(value)


def sources(gathered: Gathered) -> str:
    """The files read, lines that are no record, and how to make more."""
    rows = [[name, count] for name, count in gathered.files.items()]
    body = pieces.table(["file", "records"], rows, caption="Files read")
    if gathered.problems:
        lines = "".join(f"<li>{pieces.text(problem)}</li>" for problem in gathered.problems[:50])
        more = len(gathered.problems) - 50
        body += pieces.section(
            f"{len(gathered.problems)} lines could not be read",
            "A run that is killed leaves half a line; everything else was read.",
            pieces.card(f"<ul>{lines}</ul>" + (f"<p>and {more} more</p>" if more > 0 else "")),
        )
    commands = "".join(f"<li><code>{pieces.text(command)}</code></li>" for command in MAKERS)
    return body + pieces.section("Commands that make records", "", pieces.card(f"<ul>{commands}</ul>"))


def others(records: Sequence[dict]) -> str:
    """Records that no chapter knows: nothing that was measured is passed over in silence."""
    from statistics import median

    from triadbench.bench.analysis.summary import number

    rows = [
        [
            record["name"],
            ", ".join(f"{key} {value}" for key, value in record["parameters"].items())[:200],
            number(median(record["samples"])) if record["samples"] else None,
            record["unit"],
            len(record["samples"]),
            number(record["first_call"]),
        ]
        for record in records
    ]
    return (
        pieces.table(
            ["record", "parameters", "median", "unit", "n", "first call"], rows, words=True, caption="Other records"
        )
        if rows
        else ""
    )
