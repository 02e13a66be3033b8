"""Finished trials, kept so that an interrupted study goes on where it was and counts no trial twice.

One line a finished trial is appended to `trials.jsonl` and flushed to the disk; a trial that was interrupted has no
line and starts anew. A line counts for a case only if its parameters, number and fingerprint are the same: machine,
code and clips. Of two lines for one trial (a folder that was copied and joined by hand) the first counts.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from triadbench.bench import machine, records
from triadbench.bench.study.protocol import Case

FILE = "trials.jsonl"
_MACHINE = ("cpu", "cores_usable", "torch_threads", "omp_wait_policy", "gpu", "gpu_driver", "python", "versions")


def fingerprint(environment: dict, data: str) -> str:
    """What must not change between the trials of a figure, in 16 characters.

    Processor, cores, threads, GPU and driver, versions of torch and its like, the sources of core and kernels, and the
    clips. A changed report or command line leaves it as it is.

    """
    parts = [
        machine.source_digest("core/**/*.py", "kernels/**/*.py"),
        {name: environment.get(name) for name in _MACHINE},
    ]
    return hashlib.sha256(json.dumps([*parts, data], sort_keys=True).encode()).hexdigest()[:16]


class TrialLog:
    """The finished trials of one folder; `note` is called with a line about half lines and what does not count."""

    def __init__(self, folder: Path, fingerprint: str, note: Callable[[str], None] = lambda _: None) -> None:
        self.path, self.fingerprint = Path(folder) / FILE, fingerprint
        self._environment = machine.environment()
        self._lines: dict[str, dict] = {}
        lines, problems = records.load(self.path) if self.path.exists() else ([], [])
        for problem in problems:
            note(f"{problem}; that trial starts anew")
        own = [line for line in lines if line["parameters"].get("fingerprint") == fingerprint]
        for line in own:
            self._lines.setdefault(_key(line["parameters"]), line)
        if len(own) < len(lines):
            others = len(lines) - len(own)
            note(f"{self.path}: {others} trials of other code, clips or another machine are not counted")

    def find(self, parameters: dict) -> dict | None:
        """The line of a finished trial, or None."""
        return self._lines.get(_key({**parameters, "fingerprint": self.fingerprint}))

    def __getitem__(self, parameters: dict) -> dict:
        """The line of a trial that is finished."""
        return self._lines[_key({**parameters, "fingerprint": self.fingerprint})]

    def add(self, parameters: dict, samples: list[float], **more: Any) -> dict:
        """Keep a finished trial: `samples` in seconds. The line is on the disk when this returns.

        Raises:
            ValueError: a trial that is there already.
            UserError: the disk refuses.
        """
        parameters = {**parameters, "fingerprint": self.fingerprint}
        if _key(parameters) in self._lines:
            raise ValueError(f"trial {parameters} is finished already")
        environment = {**self._environment, "time": machine.utc_now()}
        line = records.make("trial", parameters=parameters, unit="s", samples=samples, environment=environment, **more)
        records.append(line, self.path)
        self._lines[_key(parameters)] = line
        return line


def append_missing(
    results: Sequence[dict], path: Path, fields: Sequence[str] = ("name", "parameters", "samples")
) -> int:
    """Append, in one piece, the records that the file does not hold yet, by these fields; how many those were."""
    known = [[record.get(field) for field in fields] for record in (records.load(path)[0] if path.exists() else [])]
    missing = [record for record in results if [record[field] for field in fields] not in known]
    records.append_all(missing, path)
    return len(missing)


def _key(parameters: dict) -> str:
    return json.dumps(parameters, sort_keys=True)


class Remaining:
    """Seconds of trials to come: those of the same case, else of the nearest kind that was seen, by number of clips."""

    _KINDS: tuple[Callable[[Case], object], ...] = (
        lambda case: case,
        lambda case: (case.device, case.pipeline, case.task),
        lambda case: (case.device, case.pipeline),
        lambda case: case.device,
        lambda case: None,
    )

    def __init__(self) -> None:
        self._seen: list[tuple[Case, float]] = []

    def saw(self, case: Case, seconds: float) -> None:
        """A trial of `case` took this long."""
        self._seen.append((case, seconds))

    def seconds(self, cases: Sequence[Case]) -> float:
        """Of one trial of each of `cases`; 0 before anything was seen."""
        known: dict[Case, float] = {}
        for case in set(cases):
            for kind in self._KINDS if self._seen else ():
                clip_s = [seconds / seen.num_items for seen, seconds in self._seen if kind(seen) == kind(case)]
                if clip_s:
                    known[case] = median(clip_s) * case.num_items
                    break
        return sum(known.get(case, 0.0) for case in cases)

    def text(self, cases: Sequence[Case]) -> str:
        """As "about 3 h 10 min left"; empty before anything was seen."""
        return f"about {duration(self.seconds(cases))} left" if self._seen and cases else ""


def duration(seconds: float) -> str:
    """As "45 s", "12 min" or "3 h 10 min"."""
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
