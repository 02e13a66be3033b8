"""The mel profile's records: made, looked up by a later run, and picked for a page.

Names: "mel" (a timing), "mel left out" (a reason, no samples), "mel roof", "mel warm start", "mel cuda static".
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from triadbench.bench import machine, records
from triadbench.core.errors import UserError

if TYPE_CHECKING:
    from triadbench.bench.mel.rivals import Rival

_CODE = ("kernels/**/*.py", "bench/mel/**/*.py", "core/timing.py", "bench/roofs.py", "bench/cases.py")
_SAME = "code triadbench python versions os cpu cores_usable omp_wait_policy gpu gpu_driver".split()


class Group(NamedTuple):
    """What takes turns: all contestants of one spec, batch size, thread count, device and sample format."""

    spec: str
    batch: int
    threads: int
    device: str
    dtype: str = "float32"  # or "int16"


class Contest(NamedTuple):
    """What is to be measured: names of specs, batch sizes, thread counts and devices, each without repeats."""

    specs: tuple[str, ...]
    batches: tuple[int, ...]
    threads: tuple[int, ...]
    devices: tuple[str, ...] = ("cpu",)

    def groups(self) -> list[Group]:
        """Small batches first: a short run has seen everything once, and large ones are predicted from small ones."""
        return [
            Group(spec, batch, threads, device)
            for batch, spec, device in itertools.product(self.batches, self.specs, self.devices)
            for threads in (self.threads if device == "cpu" else self.threads[-1:])
        ]


def environment(contestants: dict[str, Rival]) -> dict:
    """`machine.environment()` with every contestant's packages and `code`, a digest of what computes and measures."""
    block = machine.environment() | {"code": machine.source_digest(*_CODE)}
    for rival in contestants.values():
        block["versions"] |= rival.versions()
    return block


def dtype_of(parameters: dict) -> str:
    """The format of the samples: float32 unless a record says another."""
    return parameters.get("dtype", "float32")


class Store:
    """The record file as one run sees it: what it holds of the same environment and effort, and what is added.

    Raises UserError where the file is there and cannot be read.
    """

    def __init__(self, path: Path, environment: dict, effort: str, *, fresh: bool) -> None:
        self.environment = environment
        self._path, self._effort = Path(path), effort
        if self._path.is_dir():
            raise UserError(f"{path} is a folder; give the name of a record file")
        known = records.load(self._path)[0] if self._path.exists() and not fresh else []
        run = [effort, *map(environment.get, _SAME)]
        self._records = [r for r in known if [r.get("effort"), *map(r["environment"].get, _SAME)] == run]

    def find(self, name: str, **parameters: object) -> list[dict]:
        """The records of a name with these parameters, oldest first."""
        named = [record for record in self._records if record["name"] == name]
        known = [(record, {**record["parameters"], "dtype": dtype_of(record["parameters"])}) for record in named]
        return [record for record, fields in known if all(fields.get(k) == v for k, v in parameters.items())]

    def make(self, name: str, parameters: dict, samples: Iterable[float] = (), **more: Any) -> dict:
        """A record of this run, in milliseconds; not yet in the file."""
        run: dict[str, Any] = {"environment": self.environment, "effort": self._effort}
        return records.make(name, parameters=parameters, unit="ms", samples=samples, **run, **more)

    def add(self, *results: dict) -> None:
        """Append records, in one piece."""
        records.append_all(results, self._path)
        self._records += results

    def has_group(self, group: Group, contestants: Iterable[str]) -> bool:
        """True if every contestant has its timing or its reason in the file."""
        known = self.find("mel", **group._asdict()) + self.find("mel left out", **group._asdict())
        return set(contestants) <= {record["parameters"]["contestant"] for record in known}

    def predict_s(self, group: Group, contestant: str) -> float | None:
        """Seconds of a call at the fastest rate seen with smaller batches, any threads; None where none was timed.

        The fastest, so that a busy machine does not shut out a rival that would have been quick enough.
        """
        same = {"spec": group.spec, "device": group.device, "dtype": group.dtype}
        timed = self.find("mel", contestant=contestant, **same)
        sizes = [(record["parameters"]["batch"], record) for record in timed]
        clip_ms = [min(record["samples"]) / batch for batch, record in sizes if batch < group.batch]
        return 1e-3 * group.batch * min(clip_ms) if clip_ms else None

    def current(self, contest: Contest) -> list[dict]:
        """What a page of this contest shows: the latest record of each case."""
        choices = {"spec": contest.specs, "batch": contest.batches, "threads": contest.threads}
        choices["device"] = contest.devices
        latest: dict[tuple, dict] = {}
        for record in self._records:
            # A timing replaces an earlier reason of the same case, and the other way round.
            parameters, kind = record["parameters"], record["name"].removesuffix(" left out")
            chosen = all(parameters[key] in values for key, values in choices.items() if key in parameters)
            if chosen or kind not in ("mel", "mel roof"):
                fixed = {"ours", "seed", "dtype"}
                names = sorted(parameters.keys() - fixed)
                case = (kind, dtype_of(parameters), *((key, parameters[key]) for key in names))
                latest.pop(case, None)
                latest[case] = record
        return list(latest.values())
