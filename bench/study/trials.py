"""Finished trials, kept so that an interrupted study goes on where it was and counts no trial twice.

One line a finished trial is appended to `trials.jsonl` and flushed to the disk; a trial that was interrupted has no
line and starts anew. A line counts for a case only if its parameters, number and fingerprint are the same: machine,
code and clips. Of two lines for one trial (a folder that was copied and joined by hand) the first counts.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from triadbench.bench import machine, records
from triadbench.core.files import PACKAGE

FILE = "trials.jsonl"


def fingerprint(environment: dict, data: str) -> str:
    """What must not change between the trials of a figure, in 16 characters.

    Processor, cores, threads, GPU and driver, versions of torch and its like, the sources of core and kernels, and the
    clips. A changed report or command line leaves it as it is.

    Args:
        environment: `bench.machine.environment()`. data: a digest of the clips.
    """
    digest = hashlib.sha256()
    for path in sorted([*(PACKAGE / "core").rglob("*.py"), *(PACKAGE / "kernels").rglob("*.py")]):
        digest.update(str(path.relative_to(PACKAGE)).encode() + path.read_bytes())
    kept = ("cpu", "cores_usable", "torch_threads", "omp_wait_policy", "gpu", "gpu_driver", "python", "versions")
    machine_part = {name: environment.get(name) for name in kept}
    digest.update(json.dumps([machine_part, data], sort_keys=True).encode())
    return digest.hexdigest()[:16]


class TrialLog:
    """The finished trials of one folder.

    Args:
        folder: where `trials.jsonl` is or will be.
        fingerprint: see above.
        note: called with a line for the reader: half lines, trials of other code or another machine.
    """

    def __init__(self, folder: Path, fingerprint: str, note: Callable[[str], None] = lambda _: None):
        self.path, self.fingerprint = Path(folder) / FILE, fingerprint
        self._environment = machine.environment()
        self._found: dict[str, dict] = {}
        others = 0
        if self.path.exists():
            lines, problems = records.load(self.path)
            for problem in problems:
                note(f"{problem}; that trial starts anew")
            for line in lines:
                if line["parameters"].get("fingerprint") == fingerprint:
                    self._found.setdefault(_key(line["parameters"]), line)
                else:
                    others += 1
        if others:
            note(f"{self.path}: {others} trials of other code, clips or another machine are not counted")

    def find(self, parameters: dict) -> dict | None:
        """The line of a finished trial, or None."""
        return self._found.get(_key({**parameters, "fingerprint": self.fingerprint}))

    def add(self, parameters: dict, samples: list[float], **more: object) -> dict:
        """Keep a finished trial: `samples` in seconds. The line is on the disk when this returns.

        Raises:
            ValueError: a trial that is there already.
            UserError: the disk refuses.
        """
        parameters = {**parameters, "fingerprint": self.fingerprint}
        if _key(parameters) in self._found:
            raise ValueError(f"trial {parameters} is finished already")
        environment = {
            **self._environment,
            "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        }
        line = records.make("trial", parameters=parameters, unit="s", samples=samples, environment=environment, **more)
        records.append(line, self.path)
        self._found[_key(parameters)] = line
        return line


def append_once(record: dict, path: Path) -> bool:
    """Append a record unless the file has it: same name, parameters and samples. True if it was appended."""
    if path.exists():
        for known in records.load(path)[0]:
            if all(known[field] == record[field] for field in ("name", "parameters", "samples")):
                return False
    records.append(record, path)
    return True


def append_missing(made: Sequence[dict], path: Path) -> int:
    """Append, in one piece, the records whose `id` the file does not hold; how many those were."""
    there = records.load(path)[0] if path.exists() else []
    known = {str(record.get("id")) for record in there}
    missing = [record for record in made if record["id"] not in known]
    records.append_all(missing, path)
    return len(missing)


def _key(parameters: dict) -> str:
    return json.dumps(parameters, sort_keys=True)
