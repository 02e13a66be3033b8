"""The mel profile's records: made, found again by a later run, and picked for a page.

Names: "mel" (a timing), "mel left out" (a reason, no samples), "mel roof", "mel warm start", "mel cuda static".
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import NamedTuple

from triadbench.bench import machine, records
from triadbench.bench import record_fields as results
from triadbench.bench.cases import SEED
from triadbench.core.constants import CLIP_SAMPLES
from triadbench.core.errors import UserError
from triadbench.core.files import PACKAGE

_CODE = ("kernels/**/*.py", "bench/mel/**/*.py", "core/timing.py", "bench/roofs.py", "bench/cases.py")
_SAME = (
    "code",
    "triadbench",
    "python",
    "versions",
    "os",
    "cpu",
    "cores_usable",
    "omp_wait_policy",
    "gpu",
    "gpu_driver",
)


class Group(NamedTuple):
    """What takes turns: all contestants of one spec, batch size, thread count and device."""

    spec: str
    batch: int
    threads: int
    device: str


def environment(known: dict) -> dict:
    """`machine.environment()` with every contestant's packages and `code`, a digest of what computes and measures."""
    found = machine.environment()
    versions = {name: version for rival in known.values() for name, version in rival.versions().items()}
    return {**found, "versions": {**found["versions"], **versions}, "code": code_digest()}


@functools.cache
def code_digest() -> str:
    """16 hex digits of the sources of kernels, contestants and protocol: the commit alone misses edits."""
    digest = hashlib.sha256()
    for pattern in _CODE:
        for path in sorted(PACKAGE.glob(pattern)):
            digest.update(str(path.relative_to(PACKAGE)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


class Store:
    """The record file, as one run sees it: what is there of the same environment and effort, and what is added."""

    def __init__(self, path: Path, environment: dict, effort: str, *, fresh: bool) -> None:
        """Raises UserError where the file is there and cannot be read."""
        self._path, self._environment, self._effort = Path(path), environment, effort
        if self._path.is_dir():
            raise UserError(f"{path} is a folder; give the name of a record file")
        found = records.load(self._path)[0] if self._path.exists() and not fresh else []
        self._records = [record for record in found if self._is_mine(record)]
        self._seen: set[tuple[str, str]] = set()

    def _is_mine(self, record: dict) -> bool:
        theirs = record["environment"]
        return record.get("effort") == self._effort and all(
            theirs.get(key) == self._environment.get(key) for key in _SAME
        )

    def _find(self, name: str, **parameters: object) -> list[dict]:
        return [
            record
            for record in self._records
            if record["name"] == name
            and all(record["parameters"].get(key) == value for key, value in parameters.items())
        ]

    def _add(self, made: list[dict]) -> None:
        records.append_all(made, self._path)
        self._records += made

    def _make(self, name: str, parameters: dict, samples=(), **more) -> dict:
        return records.make(
            name,
            parameters=parameters,
            unit="ms",
            samples=samples,
            environment=self._environment,
            effort=self._effort,
            **more,
        )

    # ---- groups

    def has_group(self, group: Group, known: dict) -> bool:
        """Whether every contestant has its timing or its reason there."""
        there = self._find("mel", **group._asdict()) + self._find("mel left out", **group._asdict())
        return set(known) <= {record["parameters"]["contestant"] for record in there}

    def add_group(self, made: list[dict]) -> None:
        """Append one group's records."""
        self._add(made)

    def make_left_out(self, group: Group, name: str, reason: str) -> dict:
        """Why a contestant was not timed."""
        return self._make("mel left out", {"contestant": name, **group._asdict()}, reason=reason)

    def make_mel(self, group: Group, rival, timed, ready, log_error: float | None) -> dict:
        """A contestant's timing with its work, errors and beginnings."""
        from triadbench.kernels import SPECS
        from triadbench.kernels import operation_count as work

        spec, key = SPECS[group.spec], (rival.name, group.device)
        first_in_process = key not in self._seen
        self._seen.add(key)
        return self._make(
            "mel",
            {"contestant": rival.name, "ours": rival.ours, **group._asdict(), "dtype": "float32", "seed": SEED},
            timed.samples_ms,
            prepare_ms=1e3 * ready.prepare_s,
            first_in_process=first_in_process,
            error={**ready.error, "tilted_log": log_error},
            what=rival.what,
            threads_by=rival.threads,
            versions=rival.versions(),
            **results.timing_fields(timed, group.batch),
            flops=work.flops(spec, group.batch, CLIP_SAMPLES),
            bytes_moved=work.fused_bytes(spec, group.batch, CLIP_SAMPLES),
        )

    def predict_s(self, group: Group, name: str) -> float | None:
        """Seconds of a call at the fastest rate seen with smaller batches, any threads; None where none was timed.

        The fastest, so that a busy machine does not shut out a rival that would have been quick enough.
        """
        given = {"contestant": name, "spec": group.spec, "device": group.device}
        smaller = [r for r in self._find("mel", **given) if r["parameters"]["batch"] < group.batch]
        a_clip_ms = [min(record["samples"]) / record["parameters"]["batch"] for record in smaller]
        return 1e-3 * group.batch * min(a_clip_ms) if smaller else None

    def tilted_error(self, group: Group, name: str, made: list[dict]) -> float | None:
        """The error on tilted tones of this contestant, spec and device, if it was measured."""
        given = {"contestant": name, "spec": group.spec, "device": group.device}
        found = [record["error"]["tilted_log"] for record in self._find("mel", **given)]
        return next((error for error in found if error is not None), None)

    # ---- the rest

    def has_roofs(self, threads: int, device: str) -> bool:
        """Whether the roofs for this many threads are there."""
        return bool(self._find("mel roof", threads=threads, device=device))

    def add_roofs(self, threads: int, device: str, found: dict, other_cores: float) -> None:
        """Append what `bench.roofs` measured."""
        from triadbench.core.timing import is_disturbed

        disturbed = is_disturbed(other_cores, threads, self._environment["cores_usable"])
        self._add(
            [
                self._make(
                    "mel roof",
                    {"roof": name, "threads": threads, "device": device, "dtype": "float32"},
                    roof.pop("samples_ms"),
                    **roof,
                    other_cores=other_cores,
                    disturbed=disturbed,
                )
                for name, roof in found.items()
            ]
        )

    def has(self, name: str, **parameters: object) -> bool:
        """Whether there is such a record."""
        return bool(self._find(name, **parameters))

    def add(self, name: str, parameters: dict, samples=(), **more) -> None:
        """Append one record of another name."""
        self._add([self._make(name, parameters, samples, **more)])

    def current(self, contest) -> list[dict]:
        """What a page of this contest shows: of each case the latest record."""
        latest = {}
        for record in self._records:
            given = record["parameters"]
            asked = (
                (("spec", contest.specs), ("batch", contest.batches), ("threads", contest.threads))
                if record["name"] in ("mel", "mel left out", "mel roof")
                else ()
            )
            if all(key not in given or given[key] in wanted for key, wanted in asked):
                # A timing replaces an earlier reason of the same case, and the other way round.
                kind = "mel" if record["name"] == "mel left out" else record["name"]
                case = (kind, *((k, given[k]) for k in sorted(given) if k not in ("ours", "seed", "dtype")))
                latest.pop(case, None)
                latest[case] = record
        return list(latest.values())
