"""Record files as a report wants them: read line by line, sorted by machine, of each case the latest.

Numbers of two machines never meet in one ratio: everything that a chapter sees was measured on one machine. (The model
of the original's laptop scales two machines' parts to a third, and names both.)
"""

import itertools
import json
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from triadbench.bench import records
from triadbench.bench.analysis import pairing
from triadbench.core.errors import UserError
from triadbench.core.files import PACKAGE, pretrained_path

_EXPERIMENTS = ("experiment ladder", "experiment batch-size", "experiment data-size", "experiment final")
MAKERS = [f"python cli.py {name}" for name in ("profile", "profile --only mel", *_EXPERIMENTS, "study", "benchmark")]
"""Commands that make records."""

_EFFORTS = {"full": 2, "gpu": 2, "quick": 1}  # a full mel run is shown before a quick one, and either before any other
_NOT_THE_CASE = {
    "mel": ("ours", "seed"),
    # A ladder whose rungs were renamed replaces the one before, rung by rung.
    "ladder": ("name", "switches", "protocol"),
}
"""Parameters that do not tell one case from another."""
_BY_THREADS = ("ladder", "experiment batch-size", "experiment data-size", "final training", "pipeline parts")
"""Of these, what was measured with other threads is another case, though their parameters do not say them."""
_MEL_RUN = ("mel", "mel left out", "mel roof", "mel warm start", "mel cuda static")
_ORIGINAL_RECIPE = "original recipe"
_ACCURACIES = (_ORIGINAL_RECIPE, "songs")
"""Records of what is right, which depends on no machine."""


@dataclass
class Machine:
    """What was measured on one machine.

    Attributes:
        key: (CPU, usable cores, GPU).
        records: of each case the latest, in the order of the files.
        rehearsal: these records are of rehearsals, which stay apart: their figures say nothing.
    """

    key: tuple
    records: list[dict] = field(default_factory=list)
    rehearsal: bool = False

    @property
    def label(self) -> str:
        """As "AMD EPYC, 2 cores, no GPU"."""
        cpu, cores, gpu = self.key
        where = f"{cpu or 'unknown CPU'}, {cores or '?'} cores, {gpu or 'no GPU'}"
        return f"{where} (a rehearsal)" if self.rehearsal else where

    @property
    def has_gpu(self) -> bool:
        """Whether a GPU was there to be measured."""
        return bool(self.key[2])


@dataclass
class Gathered:
    """What record files hold.

    Attributes:
        machines: the one with most kinds of records first, rehearsals last.
        accuracy: results of trained networks, which depend on no machine.
        problems: lines that are no record, as "records.jsonl:7: not JSON (...)".
        files: name and number of records of each file that has some.
        passed_over: JSON Lines files, found and not named, that hold no record at all.
    """

    machines: list[Machine] = field(default_factory=list)
    accuracy: list[dict] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    files: dict[str, int] = field(default_factory=dict)
    passed_over: list[str] = field(default_factory=list)


def default_paths(root: Path = Path(".")) -> list[Path]:
    """All *.jsonl under bench/results and runs, and the shipped model's evaluations.

    A repository's own records come first, so that what was measured since replaces them.
    """
    shipped = [*_record_files(PACKAGE / "bench" / "results"), *sorted(pretrained_path().glob("*.jsonl"))]
    return shipped + _record_files(root / "runs")


def gather(paths: Sequence[Path] | None = None) -> Gathered:
    """Read record files.

    Args:
        paths: files, or folders of *.jsonl; None takes `default_paths`.

    Raises:
        UserError: a path is missing or unreadable, or nothing in them is a record.
    """
    files = default_paths() if paths is None else _files(paths)
    commands = f"these commands make some: {'; '.join(MAKERS)}"
    if not files:
        raise UserError(f"no record file to report on; {commands}")
    gathered, timings, accuracies = Gathered(), [], []
    for path in files:
        good, problems = records.load(path)
        results, problems = _accuracies(path, problems)
        if paths is None and not good and not results:
            gathered.passed_over.append(path.name)
            continue
        timings += [record for record in good if record["name"] not in _ACCURACIES]
        accuracies += [*results, *(record for record in good if record["name"] in _ACCURACIES)]
        gathered.problems += problems
        gathered.files[path.name] = gathered.files.get(path.name, 0) + len(good) + len(results)
    if not timings and not accuracies:
        reasons = f" ({'; '.join(gathered.problems[:3])})" if gathered.problems else ""
        raise UserError(f"no record in {', '.join(path.name for path in files[:5])}{reasons}; {commands}")
    gathered.machines = _by_machine(timings)
    names = ("name", "set", "model", "parameters")
    gathered.accuracy = _last_of_each(accuracies, lambda entry: _json([entry.get(name) for name in names]))
    return gathered


def latest(timings: list[dict]) -> list[dict]:
    """Of each case the last record; of the mel contests one run, since only there the contestants took turns."""
    kept = [record for record in timings if not is_mel(record)]
    runs: dict[tuple, list[dict]] = {}
    for record in filter(is_mel, timings):
        environment = record["environment"]
        key = (record.get("effort"), environment.get("code"), environment.get("commit"))
        runs.setdefault(tuple(map(_hashable, key)), []).append(record)
    if runs:
        preferred = max(runs.values(), key=_preference)
        kept += preferred
    climbs: dict[tuple, list[dict]] = {}
    for record in kept:
        if _kind(record) == "ladder":
            # With the original's rung a new climb begins: nothing of an older one stays beside it.
            parameters = record["parameters"]
            climb = (*(_hashable(parameters.get(name)) for name in ("device", "task")), pairing.threads(record))
            climbs[climb] = [*([] if parameters.get("rung") == 0 else climbs.get(climb, [])), record]
    others = [record for record in kept if _kind(record) != "ladder"]
    return _last_of_each([*others, *itertools.chain(*climbs.values())], case_of)


def is_mel(record: dict) -> bool:
    """Whether a record is of the mel contest: an earlier quick profile made records named "mel" without contestants."""
    return record["name"] in _MEL_RUN and (record["name"] != "mel" or "contestant" in record["parameters"])


def _record_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.jsonl") if path.name != "trials.jsonl" and path.is_file())


def _files(paths: Iterable[Path]) -> list[Path]:
    files: dict[Path, None] = {}
    for path in map(Path, paths):
        inside = _record_files(path) if path.is_dir() else [path]
        if not path.exists():
            raise UserError(f"{path} does not exist; give record files, or folders of *.jsonl")
        if not inside:
            raise UserError(f"{path} holds no *.jsonl file; give record files, or folders that hold some")
        files |= dict.fromkeys(inside)
    return list(files)


def _accuracies(path: Path, problems: list[str]) -> tuple[list[dict], list[str]]:
    """Results among the lines that are no record, and the remaining problems.

    Results of training and evaluation are older than the record format: their lines are told by their fields.
    """
    results, remaining = [], []
    lines = path.read_bytes().split(b"\n") if problems else []
    for problem in problems:
        number = int(problem.removeprefix(f"{path.name}:").split(":")[0])
        try:
            entry = json.loads(lines[number - 1])
        except (ValueError, RecursionError):
            entry = None
        is_evaluation = isinstance(entry, dict) and ("type_accuracy" in entry or "by_quality" in entry)
        if is_evaluation or (isinstance(entry, dict) and entry.get("name") == _ORIGINAL_RECIPE):
            results.append(entry)
        else:
            remaining.append(problem)
    return results, remaining


def _by_machine(timings: list[dict]) -> list[Machine]:
    of_machine: dict[tuple, list[dict]] = {}
    for record in timings:
        environment = record["environment"]
        key = tuple(_hashable(environment.get(name)) for name in ("cpu", "cores_usable", "gpu"))
        of_machine.setdefault((key, environment.get("rehearsal") is True), []).append(record)
    machines = [Machine(key, latest(read), rehearsal) for (key, rehearsal), read in of_machine.items()]

    def order(machine: Machine) -> tuple:
        kinds = len({record["name"] for record in machine.records})
        n_read = len(of_machine[machine.key, machine.rehearsal])
        return machine.rehearsal, not machine.has_gpu, -kinds, -n_read, machine.label

    return sorted(machines, key=order)


def _last_of_each(entries: Iterable[dict], case: Callable[[dict], Hashable]) -> list[dict]:
    """The last record of each case, in the order of those."""
    cases: dict[Hashable, dict] = {}
    for entry in entries:
        cases.pop(case(entry), None)
        cases[case(entry)] = entry
    return list(cases.values())


def _kind(record: dict) -> str:
    """A timing replaces an earlier reason why there was none, and the other way round."""
    return record["name"].removesuffix(" left out")


def case_of(record: dict) -> tuple:
    """What tells one case from another: (kind of record, threads or None, its parameters as JSON)."""
    kind = _kind(record)
    parameters = {k: v for k, v in record["parameters"].items() if k not in _NOT_THE_CASE.get(kind, ())}
    if parameters.get("dtype") == "float32":  # older records of a case do not say it
        del parameters["dtype"]
    threads = pairing.threads(record) if kind in _BY_THREADS else None
    return kind, threads, _json(parameters)


def _preference(run: list[dict]) -> tuple:
    timed = any(record["name"] == "mel" for record in run)
    effort = _EFFORTS.get(str(run[0].get("effort")), 0)
    return timed, effort, max(str(record["environment"].get("time", "")) for record in run)


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _hashable(value: object) -> Hashable:
    """What may be part of a key; a broken record may hold anything."""
    return value if isinstance(value, str | int | float | type(None)) else str(value)
