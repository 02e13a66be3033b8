"""How fast and how exact is every mel spectrogram that is installed here: our backends and their rivals?

Timed: one call on clips of four seconds, float32, ready on the device, to a mel on it; for each spec, batch size and
thread count all contestants alternate in one process. Each is first compared with float64 on the timed inputs; a wrong
one is named and not timed. Apart: the first call in the process, and of ours the start in a fresh process.
Not timed: copies between devices, log, reading files.

Every finished group of measurements is appended to the record file at once. A run with the same records, machine,
code and effort goes on after the groups it finds there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from triadbench.bench import record_fields as results
from triadbench.bench import roofs
from triadbench.bench.cases import make_waveform, tilted_tones
from triadbench.bench.mel import records as mel_records
from triadbench.bench.mel import rivals, warm_start
from triadbench.bench.mel import static_analysis as mel_static
from triadbench.bench.mel.records import Group
from triadbench.core import timing
from triadbench.core.constants import usable_cores
from triadbench.core.errors import UserError


@dataclasses.dataclass(frozen=True)
class Effort:
    """What to measure and how long.

    Attributes:
        name: recorded; records of another effort are not taken for this one's.
        budget_s: seconds that all groups together aim at, with preparing and checking; roofs and compilers on top.
        batches, rounds, peak_s: batch sizes, samples of each contestant at most, seconds a roof.
        slow_starts: also contestants that compile for seconds.
        warm_starts: fresh processes of each of our backends.
        static: (spec, arch) to compile the CUDA kernel for; "all" is three specs by three architectures.
        reference_batch: the float64 reference is timed up to this batch.
    """

    name: str
    budget_s: float
    batches: tuple[int, ...] = (1, 8, 64, 512)
    rounds: int = 40
    peak_s: float = 0.3
    slow_starts: bool = True
    warm_starts: int = 3
    static: tuple[tuple[str, str], ...] = mel_static.ALL
    reference_batch: int = 8


FULL = Effort("full", 420.0)
QUICK = Effort(
    "quick", 60.0, batches=(1, 64), rounds=15, slow_starts=False, warm_starts=1, static=mel_static.ORIGINAL_ONLY
)
SMOKE = Effort(
    "smoke", 0.0, batches=(1, 2), rounds=1, peak_s=0.0, slow_starts=False, warm_starts=0, static=(), reference_batch=1
)

_SETTLE_S = 5e-3  # OpenMP's threads spin for about this long after a parallel region
_WEIGHT = 0.25  # a group's share of the budget grows with batch ** this: large batches are slow, small ones noisy


class Contest(NamedTuple):
    """What is to be measured: names of specs, batch sizes and thread counts, each without repeats."""

    specs: tuple[str, ...]
    batches: tuple[int, ...]
    threads: tuple[int, ...]

    def groups(self, devices: Sequence[str]) -> list[Group]:
        """Small batches first: a short run has seen everything once, and large ones are predicted from small ones."""
        found = []
        for batch in self.batches:
            for spec in self.specs:
                for device in devices:
                    for threads in self.threads if device == "cpu" else self.threads[-1:]:
                        found.append(Group(spec, batch, threads, device))
        return found


def make_contest(
    effort: Effort,
    specs: Sequence[str] = (),
    batches: Sequence[int] = (),
    threads: Sequence[int] = (),
) -> Contest:
    """Fill in what was not asked for and check what was. Raises UserError naming the value and what is valid."""
    from triadbench.kernels import SPECS

    for name in specs:
        if name not in SPECS:
            raise UserError(f"spec {name!r} is unknown; choose of {', '.join(SPECS)}")
    cores = usable_cores()
    for name, values, most in (("batch", batches, 65_536), ("threads", threads, cores)):
        for value in values:
            if not 1 <= value <= most:
                rule = f"1 to {most:,}" + (", the cores of this machine" if name == "threads" else "")
                raise UserError(f"{name}={value} must be in {rule}")
    return Contest(
        tuple(dict.fromkeys(specs)) or tuple(SPECS),
        tuple(sorted(set(batches))) or effort.batches,
        tuple(sorted(set(threads))) or tuple(sorted({1, cores})),
    )


def run(
    out: Path,
    records_path: Path,
    contest: Contest,
    effort: Effort = FULL,
    *,
    fresh: bool = False,
    progress: Callable[[int, int | None], None] | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> dict:
    """Measure what the records lack, append it group by group, write the page.

    Args:
        out: HTML page to write, whole or not at all.
        records_path: JSON Lines file to read finished groups from and to append to.
        contest: from `make_contest`.
        effort: how long to measure.
        fresh: measure everything again.
        progress: called with (steps done, steps in all).
        note: called with a line about what is skipped.

    Returns:
        `page`, `records` (paths), `seconds`, `environment`, `skipped_groups`, `measurements`, `left_out`, `findings`.

    Raises:
        UserError: an output cannot be written, or the records cannot be read.
    """
    from triadbench.bench.analysis import mel as mel_summary
    from triadbench.bench.report import mel_page

    start = time.perf_counter()
    made, environment, skipped = measure(records_path, contest, effort, fresh=fresh, progress=progress, note=note)
    return {
        **results.write_page(mel_page.page(made), out, records_path, environment, start),
        "skipped_groups": skipped,
        "measurements": mel_summary.rows(made),
        "left_out": mel_summary.left_out(made),
        "findings": mel_summary.findings(made),
    }


def measure(
    records_path: Path,
    contest: Contest,
    effort: Effort = FULL,
    *,
    fresh: bool = False,
    progress: Callable[[int, int | None], None] | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> tuple[list[dict], dict, int]:
    """The records of `run`, its environment, and how many groups the file had already."""
    import torch

    known = rivals.all_rivals()
    environment = mel_records.environment(known)
    store = mel_records.Store(records_path, environment, effort.name, fresh=fresh)
    groups = contest.groups(["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
    todo = [group for group in groups if not store.has_group(group, known)]
    if len(todo) < len(groups):
        note(f"{len(groups) - len(todo)} of {len(groups)} groups are in {records_path} already; --fresh measures anew")
    todo_roofs = [at for at in _roofs_wanted(groups) if not store.has_roofs(*at)]
    extras = [*warm_start.wanted(store, effort.warm_starts), *mel_static.wanted(store, effort.static)]
    steps, done = len(todo_roofs) + len(todo) + len(extras), 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, steps)

    if progress is not None:
        progress(0, steps)
    for threads, device in todo_roofs:
        others = timing.OtherWork()
        found = roofs.gpu(effort.peak_s) if device == "cuda" else roofs.measure(threads, effort.peak_s)
        store.add_roofs(threads, device, found, others.cores())
        step()
    expected = _Expected()
    left_s, weights = effort.budget_s, [group.batch**_WEIGHT for group in todo]
    for number, group in enumerate(todo):
        # Compiling rivals may eat the budget; then a group still has half of what it was meant to have.
        planned_s = effort.budget_s * weights[number] / sum(weights)
        group_s = max(planned_s / 2, left_s * weights[number] / sum(weights[number:]))
        before = time.perf_counter()
        store.add_group(_measure(group, known, effort, group_s, expected, store))
        left_s = max(0.0, left_s - (time.perf_counter() - before))
        step()
    for extra in extras:
        extra()
        step()
    return store.current(contest), environment, len(groups) - len(todo)


def text(result: dict) -> str:
    """The terminal's version of `run`'s result."""
    from triadbench.bench.analysis import mel as mel_summary

    return mel_summary.text(result)


def _roofs_wanted(groups: Sequence[Group]) -> list[tuple[int, str]]:
    return list(dict.fromkeys((group.threads, group.device) for group in groups))


class _Expected:
    """The float64 mel of the first clips of one seeded set, kept for one spec at a time: (waveform, mel)."""

    def __init__(self) -> None:
        self._waveform, self._mels = None, {}

    def __call__(self, spec_name: str, batch: int):
        import numpy as np

        from triadbench.kernels import SPECS, mel_reference

        if self._waveform is None or len(self._waveform) < batch:
            self._waveform, self._mels = make_waveform(batch), {}
        if len(self._mels.get(spec_name, ())) < batch:
            clips = self._waveform[:batch].numpy()  # a few at a time, for the frames of many would fill the memory
            parts = [mel_reference.mel_spectrogram(clips[i : i + 8], SPECS[spec_name]) for i in range(0, batch, 8)]
            self._mels[spec_name] = np.concatenate(parts)
        return self._waveform[:batch], self._mels[spec_name][:batch]


def _measure(
    group: Group, known: dict[str, rivals.Rival], effort: Effort, group_s: float, expected: _Expected, store
) -> list[dict]:
    """The records of one group: a timing, or a reason, for every contestant that there is."""
    from triadbench.kernels import SPECS

    spec, made, ready = SPECS[group.spec], [], {}
    waveform, mel = expected(group.spec, group.batch)
    waveform = waveform.to(group.device)
    with _threads(group.threads), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other people's packages
        for name, rival in known.items():
            reason = rival.why_not(spec, group.device) or _why_skip(rival, group, effort, group_s, store)
            try:
                if reason is None:
                    found = _prepare(rival, spec, waveform, mel, group)
                    reason = _why_too_slow(rival, effort, 2 * group_s, found.second_call_s)
                    if reason is None:
                        ready[name] = found
            except Exception as error:  # whatever another package raises costs its own column alone
                reason = f"{'' if isinstance(error, _Wrong) else 'failed: '}{_one_line(error)}"
            if reason is not None:
                made.append(store.make_left_out(group, name, reason))
        timed = _times({name: found.compute for name, found in ready.items()}, ready, group, effort, group_s)
        for name, result in timed.items():
            log_error = _tilted_error(known[name], spec, group, store, made)
            made.append(store.make_mel(group, known[name], result, ready[name], log_error))
    return made


class _Wrong(Exception):
    """A result that is not the mel."""


class Ready(NamedTuple):
    """A contestant that is prepared and right on the timed inputs.

    Attributes:
        compute: the call to time.
        prepare_s, first_call_s, second_call_s: making it, its first call, and the next.
        error: comparison with float64, for the record.
    """

    compute: Callable[[], Any]
    prepare_s: float
    first_call_s: float
    second_call_s: float
    error: dict


def _prepare(rival: rivals.Rival, spec, waveform, mel, group: Group) -> Ready:
    """Raises _Wrong where the result is outside the rival's tolerance."""
    marks = [time.perf_counter()]
    compute = rival.prepare(spec, waveform, group.threads)
    marks.append(time.perf_counter())
    result = compute()
    _drain(group.device)
    marks.append(time.perf_counter())
    error = check(result, mel, rival)
    again = time.perf_counter()
    compute()
    _drain(group.device)
    return Ready(compute, marks[1] - marks[0], marks[2] - marks[1], time.perf_counter() - again, error)


def check(result, expected, rival: rivals.Rival) -> dict:
    """The error of a float32 mel (tensor or array) for its record; raises where it is no rounding."""
    from triadbench.kernels.compare import compare

    array = result if not hasattr(result, "cpu") else result.detach().cpu().numpy()
    found = compare(array, expected, rtol_peak=rival.tolerance, rtol_rms=rival.tolerance, dtype="float32")
    if not found.passed:
        raise _Wrong(f"wrong: {found}")
    return {
        **results.error_fields(found),
        "tolerance": rival.tolerance,
        "tolerance_reason": rival.tolerance_reason,
    }


def _why_skip(rival: rivals.Rival, group: Group, effort: Effort, group_s: float, store) -> str | None:
    if rival.slow and group.batch > effort.reference_batch:
        return f"a definition, not a contestant: timed up to batch {effort.reference_batch}"
    if rival.slow_start and not effort.slow_starts:
        return "left out of the quick profile: it compiles for seconds before its first call"
    return _why_too_slow(rival, effort, group_s, store.predict_s(group, rival.name))


def _why_too_slow(rival: rivals.Rival, effort: Effort, most_s: float, call_s: float | None) -> str | None:
    """A contestant wants `FEWEST_SAMPLES` samples and two calls before them; the baseline may take what it wants."""
    too_slow = call_s is not None and (timing.FEWEST_SAMPLES + 2) * call_s > most_s
    if too_slow and not rival.baseline and effort.budget_s > 0:
        return f"one call would take about {call_s:.2g} s, too long for the time given"
    return None


def _times(contestants: dict, ready: dict, group: Group, effort: Effort, group_s: float) -> dict[str, timing.Timing]:
    if not contestants:
        return {}
    slowest_s = max(found.second_call_s for found in ready.values())
    timed = timing.measure(
        contestants,
        rounds=effort.rounds,
        min_time_s=0.0,
        max_time_s=group_s,
        warmup=2 if slowest_s < 0.05 else 0,
        device=group.device,
        settle_s=_SETTLE_S if effort.budget_s > 0 else 0.0,
        share_s=group_s / len(contestants),
    )
    return {name: dataclasses.replace(result, first_call_s=ready[name].first_call_s) for name, result in timed.items()}


def _tilted_error(rival: rivals.Rival, spec, group: Group, store, made: list[dict]) -> float | None:
    """The worst difference of natural logs on tones with an 80 dB tilt either way; measured once, then looked up."""
    known = store.tilted_error(group, rival.name, made)
    if known is not None:
        return known
    from triadbench.kernels import mel_reference
    from triadbench.kernels.compare import compare

    worst = 0.0
    for tilt_db in (80, -80):
        waveform, filters = tilted_tones(spec, tilt_db)
        expected = mel_reference.mel_spectrogram(waveform.numpy(), spec)[:, filters, 2:-3]  # where nothing reflects
        try:
            result = rival.prepare(spec, waveform.to(group.device), group.threads)()
        except Exception:  # it did the timed inputs; a length that it cannot do leaves the figure out
            return None
        array = result if not hasattr(result, "cpu") else result.detach().cpu().numpy()
        found = compare(array[:, filters, 2:-3], expected, atol_log=1e300, log_eps=1e-10, dtype="float32")
        if not found.passed:
            return None
        worst = max(worst, found.max_log_abs)
    return worst


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _drain(device: str) -> None:
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def _one_line(error: BaseException) -> str:
    line = " ".join(str(error).split()) or type(error).__name__
    return line if len(line) <= 300 else line[:297] + "..."
