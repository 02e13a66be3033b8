"""How fast and how exact is every mel spectrogram that is installed here: our backends and their rivals?

Timed: one call on clips of four seconds, float32, ready on the device, to a mel on it; for each spec, batch size and
thread count all contestants alternate in one process. Each is first compared with float64 on the timed inputs; a wrong
one is named and not timed. Apart: the first call in the process, and of ours the start in a fresh process.
Not timed: copies between devices, log, reading files.

Every finished group of measurements is appended to the record file at once. A run with the same records, machine,
code and effort goes on after the groups that it holds.
"""

from __future__ import annotations

import dataclasses
import functools
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from triadbench.bench import machine, records, roofs
from triadbench.bench.cases import SEED, check_counts, make_waveform, tilted_tones
from triadbench.bench.mel import own_backends, rivals
from triadbench.bench.mel import records as mel_records
from triadbench.bench.mel.records import Contest, Group, Store
from triadbench.bench.mel.rivals import Rival
from triadbench.core import timing
from triadbench.core.constants import CLIP_SAMPLES
from triadbench.core.errors import UserError
from triadbench.kernels import SPECS, MelSpec, mel_reference, operation_count
from triadbench.kernels.compare import compare

Progress = Callable[[int, int | None], None]


@dataclasses.dataclass(frozen=True)
class Effort:
    """What to measure and how long."""

    name: str  # recorded; records of another effort are not taken for this one's
    budget_s: float  # that all groups together aim at, with preparing and checking; roofs and compilers on top
    batches: tuple[int, ...] = (1, 8, 64, 512)
    rounds: int = 40  # samples of each contestant at most
    peak_s: float = 0.3  # of measuring a roof
    slow_starts: bool = True  # also contestants that compile for seconds
    warm_starts: int = 3  # fresh processes of each of our backends
    static: tuple[tuple[str, str], ...] = own_backends.ALL_CASES  # (spec, arch) to compile the CUDA kernel for
    reference_batch: int = 8  # the float64 reference is timed up to this batch


FULL = Effort("full", 420.0)
QUICK = Effort("quick", 60.0, (1, 64), 15, slow_starts=False, warm_starts=1, static=own_backends.ORIGINAL_CASES)
SMOKE = Effort("smoke", 0.0, (1, 2), 1, 0.0, slow_starts=False, warm_starts=0, static=(), reference_batch=1)

_SETTLE_S = 5e-3  # OpenMP's threads spin for about this long after a parallel region
_WEIGHT = 0.25  # a group's share of the budget grows with batch ** this: large batches are slow, small ones noisy


def make_contest(
    effort: Effort, specs: Sequence[str] = (), batches: Sequence[int] = (), threads: Sequence[int] = ()
) -> Contest:
    """Fill in what was not asked for and check what was. Raises UserError naming the value and what is valid."""
    for name in specs:
        if name not in SPECS:
            raise UserError(f"spec {name!r} is unknown; choose of {', '.join(SPECS)}")
    threads = check_counts(batches, threads, most_batch=65_536)
    return Contest(tuple(dict.fromkeys(specs or SPECS)), tuple(sorted(set(batches or effort.batches))), threads)


def measure(
    records_path: Path,
    contest: Contest,
    effort: Effort = FULL,
    *,
    fresh: bool = False,
    progress: Progress = lambda done, total: None,
    note: Callable[[str], None] = lambda text: None,
) -> tuple[list[dict], dict, int]:
    """Measure what the records lack, and append it group by group to the JSON Lines file; `fresh`: everything again.

    `progress` is called with (steps done, steps in all), `note` with a line about what is skipped.
    Returns (the contest's records, the environment, how many groups the file had already).
    """
    contestants = rivals.all_rivals()
    environment = mel_records.environment(contestants)
    store = Store(records_path, environment, effort.name, fresh=fresh)
    groups = contest.groups(["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
    missing = [group for group in groups if not store.has_group(group, contestants)]
    skipped = len(groups) - len(missing)
    if skipped:
        note(f"{skipped} of {len(groups)} groups are in {records_path} already; --fresh measures anew")
    run = _Run(store, contestants, effort, missing)
    places = dict.fromkeys((group.threads, group.device) for group in groups)
    tasks: list[Callable[[], None]] = [
        functools.partial(run.add_roofs, threads, device)
        for threads, device in places
        if not store.find("mel roof", threads=threads, device=device)
    ]
    tasks += [functools.partial(run.add_group, group) for group in missing]
    tasks += own_backends.warm_start_tasks(store, effort.warm_starts)
    tasks += own_backends.static_tasks(store, effort.static)
    for done, task in enumerate(tasks):
        progress(done, len(tasks))
        task()
    progress(len(tasks), len(tasks))
    return store.current(contest), environment, skipped


class WrongResult(Exception):
    """A result that is not the mel."""


class Ready(NamedTuple):
    """A contestant that is prepared and right on the timed inputs: the call to time, and what it took before."""

    compute: Callable[[], Any]
    prepare_s: float
    first_call_s: float
    second_call_s: float
    error: dict


class _Run:
    """One run of a contest: the inputs that its groups share, and the budget that is left."""

    def __init__(self, store: Store, contestants: dict[str, Rival], effort: Effort, groups: list[Group]) -> None:
        self._store, self._contestants, self._effort = store, contestants, effort
        self._waiting, self._left_s = list(groups), effort.budget_s
        self._unit_s = effort.budget_s / max(1.0, sum(group.batch**_WEIGHT for group in groups))
        self._waveform = make_waveform(0)
        self._mels: dict[str, np.ndarray] = {}
        self._seen: set[tuple[str, str]] = set()

    def add_roofs(self, threads: int, device: str) -> None:
        """Append the roofs of the machine."""
        others = timing.OtherWork()
        measured = roofs.measure(threads, self._effort.peak_s, device)
        load, results = others.fields(threads), []
        for name, roof in measured.items():
            case = {"roof": name, "threads": threads, "device": device, "dtype": "float32"}
            results.append(self._store.make("mel roof", case, roof.pop("samples_ms"), **roof, **load))
        self._store.add(*results)

    def add_group(self, group: Group) -> None:
        """Append one group's records, in its share of the budget."""
        begun, weight = time.perf_counter(), group.batch**_WEIGHT
        share = weight / sum(later.batch**_WEIGHT for later in self._waiting)
        self._waiting.remove(group)
        # Compiling rivals may use up the budget; then a group still has half of what it was meant to have.
        results = self.measure_group(group, max(self._unit_s * weight / 2, self._left_s * share))
        self._store.add(*results)
        self._left_s = max(0.0, self._left_s - (time.perf_counter() - begun))

    def measure_group(self, group: Group, group_s: float) -> list[dict]:
        """The records of one group: a timing, or a reason, for every contestant."""
        spec, effort, results = SPECS[group.spec], self._effort, []
        ready: dict[str, Ready] = {}
        waveform, mel = self._inputs(group)
        with roofs.torch_threads(group.threads), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other people's packages
            for name, rival in self._contestants.items():
                reason = rival.why_not(spec, group.device) or _why_skip(rival, group, effort, group_s, self._store)
                try:
                    if reason is None:
                        ready[name] = _prepare(rival, spec, waveform, mel, group)
                        reason = _why_too_slow(rival, effort, 2 * group_s, ready[name].second_call_s)
                except Exception as error:  # whatever another package raises costs its own column alone
                    reason = f"{'' if isinstance(error, WrongResult) else 'failed: '}{records.reason_of(error)}"
                if reason is not None:
                    ready.pop(name, None)
                    case = {"contestant": name, **group._asdict()}
                    results.append(self._store.make("mel left out", case, reason=reason))
            for name, timed in _time(ready, group, effort, group_s).items():
                results.append(self._record(self._contestants[name], group, timed, ready[name]))
        return results

    def _inputs(self, group: Group) -> tuple[torch.Tensor, np.ndarray]:
        """The first clips of one seeded set, on the device, and their float64 mels."""
        if len(self._waveform) < group.batch:
            self._waveform, self._mels = make_waveform(group.batch), {}
        waveform = self._waveform[: group.batch]
        if len(self._mels.get(group.spec, ())) < group.batch:  # a few at a time: the frames of many fill the memory
            parts = [mel_reference.mel_spectrogram(clips.numpy(), SPECS[group.spec]) for clips in waveform.split(8)]
            self._mels[group.spec] = np.concatenate(parts)
        return waveform.to(group.device), self._mels[group.spec][: group.batch]

    def _record(self, rival: Rival, group: Group, timed: timing.Timing, ready: Ready) -> dict:
        """A contestant's timing with its work, errors and start."""
        key, work = (rival.name, group.device), (SPECS[group.spec], group.batch, CLIP_SAMPLES)
        first_in_process = key not in self._seen
        self._seen.add(key)
        case = {"contestant": rival.name, "ours": rival.ours, **group._asdict(), "dtype": "float32", "seed": SEED}
        fields = records.timing_fields(timed, group.batch) | {"first_call": 1e3 * ready.first_call_s}
        fields |= {"error": {**ready.error, "tilted_log": self._tilted_error(rival, group)}}
        fields |= {"prepare_ms": 1e3 * ready.prepare_s, "first_in_process": first_in_process}
        fields |= {"what": rival.what, "threads_by": rival.threads, "versions": rival.versions()}
        fields |= {"flops": operation_count.flops(*work), "bytes_moved": operation_count.fused_bytes(*work)}
        return self._store.make("mel", case, timed.samples_ms, **fields)

    def _tilted_error(self, rival: Rival, group: Group) -> float | None:
        """The worst difference of natural logs on tones with an 80 dB tilt either way; measured once, then looked up.

        None for a rival that cannot do these tones' length.
        """
        for record in self._store.find("mel", contestant=rival.name, spec=group.spec, device=group.device):
            if record["error"]["tilted_log"] is not None:
                return record["error"]["tilted_log"]
        spec, worst = SPECS[group.spec], 0.0
        for tilt_db in (80, -80):
            waveform, filters = tilted_tones(spec, tilt_db)
            expected = mel_reference.mel_spectrogram(waveform.numpy(), spec)[:, filters, 2:-3]  # where nothing reflects
            try:
                mel = _array(rival.prepare(spec, waveform.to(group.device), group.threads)())[:, filters, 2:-3]
            except Exception:  # it did the timed inputs
                return None
            comparison = compare(mel, expected, atol_log=1e300, log_eps=1e-10, dtype="float32")
            if not comparison.passed:
                return None
            worst = max(worst, comparison.max_log_abs)
        return worst


def _prepare(rival: Rival, spec: MelSpec, waveform: torch.Tensor, mel: np.ndarray, group: Group) -> Ready:
    """Raises WrongResult where the result is outside the rival's tolerance."""

    def timed(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
        start = time.perf_counter()
        result = function(*arguments)
        machine.drain(group.device)
        return result, time.perf_counter() - start

    compute, prepare_s = timed(rival.prepare, spec, waveform, group.threads)
    result, first_call_s = timed(compute)
    error = check(result, mel, rival)
    return Ready(compute, prepare_s, first_call_s, timed(compute)[1], error)


def check(result: Any, expected: np.ndarray, rival: Rival) -> dict:
    """The error of a float32 mel (tensor or array) for its record; raises WrongResult where it is no rounding."""
    limit = rival.tolerance
    comparison = compare(_array(result), expected, rtol_peak=limit, rtol_rms=limit, dtype="float32")
    if not comparison.passed:
        raise WrongResult(f"wrong: {comparison}")
    return {**records.error_fields(comparison), "tolerance": limit, "tolerance_reason": rival.tolerance_reason}


def _array(mel: Any) -> np.ndarray:
    return mel.detach().cpu().numpy() if hasattr(mel, "cpu") else mel


def _why_skip(rival: Rival, group: Group, effort: Effort, group_s: float, store: Store) -> str | None:
    if rival.slow and group.batch > effort.reference_batch:
        return f"a definition, not a contestant: timed up to batch {effort.reference_batch}"
    if rival.slow_start and not effort.slow_starts:
        return "left out of the quick profile: it compiles for seconds before its first call"
    return _why_too_slow(rival, effort, group_s, store.predict_s(group, rival.name))


def _why_too_slow(rival: Rival, effort: Effort, most_s: float, call_s: float | None) -> str | None:
    """A contestant needs `FEWEST_SAMPLES` samples and two calls before them; the baseline may take what it needs."""
    too_slow = call_s is not None and (timing.FEWEST_SAMPLES + 2) * call_s > most_s
    if too_slow and not rival.baseline and effort.budget_s > 0:
        return f"one call would take about {call_s:.2g} s, too long for the time given"
    return None


def _time(ready: dict[str, Ready], group: Group, effort: Effort, group_s: float) -> dict[str, timing.Timing]:
    if not ready:
        return {}
    contestants = {name: contestant.compute for name, contestant in ready.items()}
    options: dict[str, Any] = {"min_time_s": 0.0, "max_time_s": group_s, "share_s": group_s / len(ready)}
    options["warmup"] = 2 if max(contestant.second_call_s for contestant in ready.values()) < 0.05 else 0
    options["settle_s"] = _SETTLE_S if effort.budget_s > 0 else 0.0
    return timing.measure(contestants, rounds=effort.rounds, device=group.device, **options)
