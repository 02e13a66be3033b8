"""The last chapters: on which machine and with which code, which files, and what in them could not be read."""

from collections.abc import Sequence
from statistics import median

from markupsafe import Markup

from triadbench.bench.analysis.gather import MAKERS, Gathered, Machine
from triadbench.bench.report.page import render

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


def chapter(machine: Machine) -> Markup:
    """The environments of one machine's records: what they share once, commits and times one by one."""
    environments = [record["environment"] for record in machine.records]
    fields = {
        label: "; ".join(dict.fromkeys(_words(environment.get(key)) for environment in environments))
        for label, key in _SHOWN.items()
    }
    versions: dict[str, dict[str, None]] = {}
    for environment in environments:
        for name, version in (environment.get("versions") or {}).items():
            if version:
                versions.setdefault(name, {})[str(version)] = None
    packages = ", ".join(f"{name} {' and '.join(known)}" for name, known in versions.items())
    times: dict[tuple[str, str], list[str]] = {}
    for record in machine.records:
        environment, commit = record["environment"], record["environment"].get("commit")
        changed = " (changed)" if environment.get("dirty") else ""
        code = f"{str(commit)[:12]}{changed}" if commit else "unknown"
        times.setdefault((record["name"], code), []).append(str(environment.get("time", "")))
    return render(
        "environment.html",
        has_gpu=machine.has_gpu,
        fields=fields | {"packages": packages or "—"},
        measured=[(*key, len(known), min(known), max(known)) for key, known in sorted(times.items())],
    )


def _words(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none known"
    return "none" if value is None else str(value)


def sources(gathered: Gathered) -> Markup:
    """The files read, lines that are no record, and how to make more."""
    return render("sources.html", files=gathered.files, problems=gathered.problems, commands=MAKERS)


def others(records: Sequence[dict]) -> Markup:
    """Records that no chapter knows: nothing that was measured is passed over in silence."""
    rows = []
    for record in records:
        parameters = ", ".join(f"{key} {value}" for key, value in record["parameters"].items())[:200]
        rows.append((record, parameters, median(record["samples"]) if record["samples"] else None))
    return render("others.html", rows=rows) if rows else Markup()
