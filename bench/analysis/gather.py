"""Record files as a report wants them: found, read line by line, sorted by machine, of each case the latest.

Numbers of two machines never meet in one ratio: everything that a chapter sees was measured on one machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from triadbench.bench import records
from triadbench.bench.analysis import pairing
from triadbench.core.errors import UserError
from triadbench.core.files import PACKAGE, pretrained_path

MAKERS = (
    "python cli.py profile",
    "python cli.py profile --only mel",
    "python cli.py experiment ladder",
    "python cli.py experiment batch-size",
    "python cli.py experiment data-size",
    "python cli.py study",
    "python cli.py benchmark",
)
"""Commands that make records."""

_EFFORTS = ("full", "quick")  # a full mel run is shown before a quick one, and either before any other
_NOT_THE_CASE = {
    "mel": ("ours", "seed", "dtype"),
    "mel left out": ("ours", "seed", "dtype"),
    # A ladder whose rungs were renamed replaces the one before, rung by rung.
    "ladder": ("name", "switches", "protocol"),
    "ladder left out": ("name", "switches", "protocol"),
}
"""Parameters that do not tell one case from another."""
_BY_THREADS = ("ladder", "experiment batch-size", "experiment data-size", "pipeline parts")
"""Of these, what was measured with other threads is another case, though their parameters do not say them."""
_MEL_RUN = ("mel", "mel left out", "mel roof", "mel warm start", "mel cuda static")


@dataclass
class Machine:
    """What was measured on one machine.

    Attributes:
        key: (CPU, usable cores, GPU).
        records: of each case the latest, in the order of the files.
        counted: records read, with the ones that a later one replaced.
    """

    key: tuple
    records: list[dict] = field(default_factory=list)
    counted: int = 0

    @property
    def label(self) -> str:
        """As "AMD EPYC, 2 cores, no GPU"."""
        cpu, cores, gpu = self.key
        return f"{cpu or 'unknown CPU'}, {cores or '?'} cores, {gpu or 'no GPU'}"

    @property
    def has_gpu(self) -> bool:
        """Whether a GPU was there to be measured."""
        return bool(self.key[2])


@dataclass
class Gathered:
    """What record files hold.

    Attributes:
        machines: the one with most kinds of records first.
        accuracy: results of trained networks, which depend on no machine.
        problems: lines that are no record, as "records.jsonl:7: not JSON (...)".
        files: name and number of records of each file that has some.
        passed_over: JSON Lines files, found and not named, that hold no record at all.
    """

    machines: list[Machine]
    accuracy: list[dict]
    problems: list[str]
    files: dict[str, int]
    passed_over: list[str]


def default_paths(root: Path = Path(".")) -> list[Path]:
    """All *.jsonl under bench/records and runs, and the shipped model's evaluations.

    A repository's own records come first, so that what was measured since replaces them.
    """
    own = [*_record_files(PACKAGE / "bench" / "results"), *sorted(pretrained_path().glob("*.jsonl"))]
    return own + _record_files(root / "runs")


def _record_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.jsonl") if path.name != "trials.jsonl" and path.is_file())


def gather(paths: Sequence[Path] | None = None) -> Gathered:
    """Read record files.

    Args:
        paths: files, or folders of *.jsonl; None takes `default_paths`.

    Raises:
        UserError: a path is missing or unreadable, or nothing in them is a record.
    """
    named = paths is not None
    files = _files(paths) if named else default_paths()
    if not files:
        raise UserError(f"no record file to report on; these commands make some: {'; '.join(MAKERS)}")
    found, accuracy, problems, counts, passed_over = [], [], [], {}, []
    for path in files:
        good, wrong = records.load(path)
        others, wrong = _accuracies(path, wrong)
        if not named and not good and not others:
            passed_over.append(path.name)
            continue
        found += good
        accuracy += others
        problems += wrong
        counts[path.name] = counts.get(path.name, 0) + len(good) + len(others)
    if not found and not accuracy:
        told = f" ({'; '.join(problems[:3])})" if problems else ""
        raise UserError(
            f"no record in {', '.join(path.name for path in files[:5])}{told}; these commands make some: "
            f"{'; '.join(MAKERS)}"
        )
    accuracy += [record for record in found if record["name"] == "original recipe"]
    found = [record for record in found if record["name"] != "original recipe"]
    return Gathered(_by_machine(found), _latest_accuracies(accuracy), problems, counts, passed_over)


def _files(paths: Iterable[Path]) -> list[Path]:
    found = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = _record_files(path)
            if not inside:
                raise UserError(f"{path} holds no *.jsonl file; give record files, or folders that hold some")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise UserError(f"{path} does not exist; give record files, or folders of *.jsonl")
    return list(dict.fromkeys(found))


def _accuracies(path: Path, problems: list[str]) -> tuple[list[dict], list[str]]:
    """Results of training and evaluation are older than the record format: their lines are told by their fields."""
    if not problems:
        return [], []
    numbers = {int(problem[len(path.name) + 1 :].split(":")[0]): problem for problem in problems}
    found, left = [], []
    lines = path.read_bytes().split(b"\n")
    for number, problem in numbers.items():
        try:
            entry = json.loads(lines[number - 1])
        except (ValueError, RecursionError):
            entry = None
        if isinstance(entry, dict) and ("type_accuracy" in entry or entry.get("name") == "original recipe"):
            found.append(entry)
        else:
            left.append(problem)
    return found, left


def _by_machine(found: list[dict]) -> list[Machine]:
    machines: dict[tuple, Machine] = {}
    for record in found:
        given = record["environment"]
        key = tuple(_plain(given.get(name)) for name in ("cpu", "cores_usable", "gpu"))
        machines.setdefault(key, Machine(key)).records.append(record)
    for machine in machines.values():
        machine.counted = len(machine.records)
        machine.records = latest(machine.records)
    kinds = {key: len({record["name"] for record in machine.records}) for key, machine in machines.items()}
    return sorted(machines.values(), key=lambda m: (not m.has_gpu, -kinds[m.key], -m.counted, m.label))


def _plain(value: object) -> object:
    """What may be part of a key; a broken record may hold anything."""
    return value if isinstance(value, str | int | float | type(None)) else str(value)


def latest(found: list[dict]) -> list[dict]:
    """Of each case the last record; of the mel contests one run, since only there the contestants took turns."""
    mel = [record for record in found if is_mel(record)]
    kept = [record for record in found if not is_mel(record)]
    runs: dict[tuple, list[dict]] = {}
    for record in mel:
        key = (record.get("effort"), record["environment"].get("code"), record["environment"].get("commit"))
        runs.setdefault(tuple(map(_plain, key)), []).append(record)
    if runs:
        kept += max(runs.values(), key=_preference)
    cases: dict[tuple, dict] = {}
    for record in kept:
        given = {k: v for k, v in record["parameters"].items() if k not in _NOT_THE_CASE.get(record["name"], ())}
        # A timing replaces an earlier reason why there was none, and the other way round.
        kind = record["name"].removesuffix(" left out")
        if kind == "ladder" and given.get("rung") == 0:  # a new climb begins: nothing of an older one stays beside it
            cases = {key: old for key, old in cases.items() if _climb(old) != _climb(record)}
        threads = pairing.threads(record) if kind in _BY_THREADS else None
        case = (kind, is_mel(record), threads, json.dumps(given, sort_keys=True, default=str))
        cases.pop(case, None)
        cases[case] = record
    return list(cases.values())


def _climb(record: dict) -> tuple:
    given = record["parameters"]
    return record["name"].removesuffix(" left out"), given.get("device"), given.get("task"), pairing.threads(record)


def is_mel(record: dict) -> bool:
    """Whether a record is of the mel contest; the quick profile has records named "mel" too, without contestants."""
    return record["name"] in _MEL_RUN and (record["name"] != "mel" or "contestant" in record["parameters"])


def _preference(run: list[dict]) -> tuple:
    effort = run[0].get("effort")
    rank = len(_EFFORTS) - _EFFORTS.index(effort) if effort in _EFFORTS else 0
    timed = any(record["name"] == "mel" for record in run)
    return timed, rank, max(str(record["environment"].get("time", "")) for record in run)


def _latest_accuracies(found: list[dict]) -> list[dict]:
    cases: dict[str, dict] = {}
    for entry in found:
        key = json.dumps(
            [entry.get("name"), entry.get("set"), entry.get("model"), entry.get("parameters")], default=str
        )
        cases.pop(key, None)
        cases[key] = entry
    return list(cases.values())
