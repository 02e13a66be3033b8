"""How fast and how exact is every mel spectrogram that is installed here: our backends and their rivals?

Timed: one call on clips of four seconds, float32 or int16, ready on the device, to a mel on it; for each spec, batch
size and thread count all contestants alternate in one process. Each is first compared with float64 on the timed inputs;
a wrong one is named and not timed. Apart: the first call in the process, and of ours the start in a fresh process.
Not timed: copies between devices, log, reading files.

On a GPU the calls go round a ring of inputs that together exceed the second-level cache, so that every call reads
memory. A contestant in a CUDA graph replays a call on each of them: a sample is a replay over the number of calls, the
device's time of one.

Every finished group of measurements is appended to the record file at once. A run with the same records, machine,
code and effort goes on after the groups that it holds.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
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
from triadbench.core.device import torch_device
from triadbench.core.errors import UserError
from triadbench.kernels import SPECS, MelSpec, MelSpectrogram, mel_reference, operation_count
from triadbench.kernels.compare import assert_close, compare
from triadbench.kernels.spec import INT16_FULL_SCALE

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
    clips_compared: int | None = None  # of a batch those that differ most; None: all


FULL = Effort("full", 420.0)
QUICK = Effort("quick", 60.0, (1, 64), 15, slow_starts=False, warm_starts=1, static=own_backends.ORIGINAL_CASES)
SMOKE = Effort("smoke", 0.0, (1, 2), 1, 0.0, slow_starts=False, warm_starts=0, static=(), reference_batch=1)

_SETTLE_S = 5e-3  # OpenMP's threads spin for about this long after a parallel region
_DIFFERENT_CLIPS = 512  # a larger batch repeats them
_FEWEST_INPUTS, _MOST_INPUTS = 4, 512  # of the ring: several calls a graph, and a graph that is soon captured
_WEIGHT = 0.25  # a group's share of the budget grows with batch ** this: large batches are slow, small ones noisy


def make_contest(
    effort: Effort,
    specs: Sequence[str] = (),
    batches: Sequence[int] = (),
    threads: Sequence[int] = (),
    device: str = "all",
) -> Contest:
    """Fill in what was not asked for and check what was. Raises UserError naming the value and what is valid.

    `device`: "cpu", "cuda", or "all" for the CPU and, where there is one, the GPU.
    """
    for name in specs:
        if name not in SPECS:
            raise UserError(f"spec {name!r} is unknown; choose of {', '.join(SPECS)}")
    threads = check_counts(batches, threads, most_batch=65_536)
    devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    devices = devices if device == "all" else (torch_device(device).type,)
    batches = tuple(sorted(set(batches or effort.batches)))
    return Contest(tuple(dict.fromkeys(specs or SPECS)), batches, threads, devices)


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
    groups = contest.groups()
    missing = [group for group in groups if not store.has_group(group, contestants)]
    skipped = len(groups) - len(missing)
    if skipped:
        note(f"{skipped} of {len(groups)} groups are in {records_path} already; --fresh measures anew")
    run = Run(store, contestants, effort, missing)
    places = dict.fromkeys((group.threads, group.device) for group in groups)
    tasks: list[Callable[[], None]] = [
        functools.partial(run.add_roofs, threads, device)
        for threads, device in places
        if not store.find("mel roof", threads=threads, device=device)
    ]
    tasks += [functools.partial(run.add_group, group) for group in missing]
    tasks += own_backends.warm_start_tasks(store, effort.warm_starts, contest.devices)
    tasks += own_backends.static_tasks(store, effort.static if "cpu" in contest.devices else ())
    for done, task in enumerate(tasks):
        progress(done, len(tasks))
        task()
    progress(len(tasks), len(tasks))
    return store.current(contest), environment, skipped


class WrongResult(Exception):
    """A result that is not the mel."""


class Ready(NamedTuple):
    """A contestant that is prepared and right on the timed inputs: what to time, and what it took before."""

    function: rivals.Compute
    sample: Callable[[], Any]  # one call, or of a CUDA graph `calls`
    calls: int
    prepare_s: float
    first_call_s: float
    second_call_s: float
    error: dict


class Run:
    """One run of a contest: the inputs that its groups share, and the budget that is left."""

    def __init__(self, store: Store, contestants: dict[str, Rival], effort: Effort, groups: list[Group]) -> None:
        self._store, self._contestants, self._effort = store, contestants, effort
        self._waiting, self._left_s = list(groups), effort.budget_s
        self._unit_s = effort.budget_s / max(1.0, sum(group.batch**_WEIGHT for group in groups))
        self._waveform = make_waveform(0)
        self._mels: dict[tuple[str, str], torch.Tensor] = {}
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

    def left_out(self, group: Group, name: str, reason: str) -> dict:
        """The record of a contestant that is not timed in a group."""
        return self._store.make("mel left out", {"contestant": name, **group._asdict()}, reason=reason)

    def measure_group(self, group: Group, group_s: float, skip: Mapping[str, str] = {}) -> list[dict]:
        """The records of one group: a timing, or a reason, for every contestant; `skip` holds reasons given before."""
        spec, effort, results = SPECS[group.spec], self._effort, []
        ready: dict[str, Ready] = {}
        inputs, mel = self._inputs(group)
        with roofs.torch_threads(group.threads), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other people's packages
            for name, rival in self._contestants.items():
                reason = skip.get(name) or rival.why_not(spec, group.device)
                reason = reason or _why_skip(rival, group, effort, group_s, self._store)
                if rival.graph_of and rival.graph_of not in ready:
                    reason = reason or f"{rival.graph_of} is not timed here"
                try:
                    if reason is None:
                        base = ready.get(rival.graph_of)
                        ready[name] = _prepare(rival, group, inputs, mel, base, effort.clips_compared)
                        reason = _why_too_slow(rival, effort, 2 * group_s, ready[name].second_call_s)
                except Exception as error:  # whatever another package raises costs its own column alone
                    reason = f"{'' if isinstance(error, WrongResult) else 'failed: '}{records.reason_of(error)}"
                if reason is not None:
                    ready.pop(name, None)
                    results.append(self.left_out(group, name, reason))
            for name, timed in _time(ready, group, effort, group_s).items():
                results.append(self._record(self._contestants[name], group, timed, ready[name]))
        return results

    def _inputs(self, group: Group) -> tuple[list[torch.Tensor], torch.Tensor]:
        """The ring of inputs on the device, and the float64 mels of the first, (batch, n_mels, n_frames) there.

        Each input is the one before with its clips moved on by one place; on the CPU there is one.
        """
        wanted = min(group.batch, _DIFFERENT_CLIPS)
        if len(self._waveform) < wanted:
            self._waveform, self._mels = make_waveform(wanted), {}
        clips = self._waveform[:wanted].to(group.device)
        if group.dtype == "int16":
            clips = (clips * (INT16_FULL_SCALE - 1)).round().to(torch.int16)
        key = group.spec, f"{group.dtype} {group.device}"
        if len(self._mels.get(key, ())) < wanted:
            self._mels[key] = reference(clips, SPECS[group.spec], group.device)
        repeats = -(-group.batch // wanted)
        waveform, mel = (torch.cat([part] * repeats)[: group.batch] for part in (clips, self._mels[key][:wanted]))
        rolls = inputs_in_ring(waveform) if group.device == "cuda" else 1
        return [waveform.roll(places, 0) if places else waveform for places in range(rolls)], mel

    def _record(self, rival: Rival, group: Group, timed: timing.Timing, ready: Ready) -> dict:
        """A contestant's timing with its work, errors and start."""
        key, work = (rival.name, group.device), (SPECS[group.spec], group.batch, CLIP_SAMPLES)
        item_bytes = {"float32": 4, "int16": 2}[group.dtype]
        first_in_process = key not in self._seen
        self._seen.add(key)
        case = {"contestant": rival.name, "ours": rival.ours, **group._asdict(), "seed": SEED}
        fields = records.timing_fields(timed, group.batch) | {"first_call": 1e3 * ready.first_call_s}
        fields |= {"error": {**ready.error, "tilted_log": self._tilted_error(rival, group)}}
        fields |= {"prepare_ms": 1e3 * ready.prepare_s, "first_in_process": first_in_process}
        fields |= {"what": rival.what, "threads_by": rival.threads, "versions": rival.versions()}
        fields |= {"flops": operation_count.flops(*work), "bytes_moved": operation_count.fused_bytes(*work, item_bytes)}
        fields |= {"approximate": True} if rival.approximate else {}
        fields |= {"graph_of": rival.graph_of} if rival.graph_of else {}
        fields["calls_per_sample"] *= ready.calls
        return self._store.make("mel", case, [sample / ready.calls for sample in timed.samples_ms], **fields)

    def _tilted_error(self, rival: Rival, group: Group) -> float | None:
        """The worst difference of natural logs on tones with an 80 dB tilt either way; measured once, then looked up.

        None for a rival that cannot do these tones' length, or would compile for it on a GPU.
        """
        for record in self._store.find("mel", contestant=rival.name, spec=group.spec, device=group.device):
            if record["error"]["tilted_log"] is not None:
                return record["error"]["tilted_log"]
        spec, worst = SPECS[group.spec], 0.0
        if group.device == "cuda" and rival.slow_start:
            return None
        for tilt_db in (80, -80):
            waveform, filters = tilted_tones(spec, tilt_db)
            expected = mel_reference.mel_spectrogram(waveform.numpy(), spec)[:, filters, 2:-3]  # where nothing reflects
            try:
                waveform = waveform.to(group.device)
                mel = _array(rival.prepare(spec, waveform, group.threads)(waveform))[:, filters, 2:-3]
            except Exception:  # it did the timed inputs
                return None
            comparison = compare(mel, expected, atol_log=1e300, log_eps=1e-10, dtype="float32")
            if not comparison.passed:
                return None
            worst = max(worst, comparison.max_log_abs)
        return worst


def inputs_in_ring(waveform: torch.Tensor) -> int:
    """How many waveforms like this one exceed twice the GPU's second-level cache."""
    cache_bytes = torch.cuda.get_device_properties(0).L2_cache_size
    return min(_MOST_INPUTS, max(_FEWEST_INPUTS, 1 + 2 * cache_bytes // waveform.nbytes))


def reference(clips: torch.Tensor, spec: MelSpec, device: str) -> torch.Tensor:
    """Float64 mels of clips (batch, samples), on their device.

    On a GPU torchaudio computes them there, in float64 with the exact window and filterbank; AssertionError unless
    the first two agree with the definition.
    """
    few = clips.split(8)  # the frames of many fill the memory
    if device == "cpu":
        return torch.cat([torch.from_numpy(mel_reference.mel_spectrogram(part.numpy(), spec)) for part in few])
    module = MelSpectrogram.from_spec(spec, backend="torchaudio").to(device)
    scale = INT16_FULL_SCALE if clips.dtype == torch.int16 else 1
    mels = torch.cat([module(part.double() / scale) for part in few])
    assert_close(
        mels[:2].cpu().numpy(),
        mel_reference.mel_spectrogram(clips[:2].cpu().numpy(), spec),
        rtol_peak=1e-9,
        rtol_rms=1e-9,
        context="float64 on the GPU against the definition",
    )
    return mels


def _prepare(
    rival: Rival, group: Group, inputs: list[torch.Tensor], mel: torch.Tensor, base: Ready | None, clips: int | None
) -> Ready:
    """Raises WrongResult where the first or the last input's result is outside the rival's tolerance.

    `base`: what `rival` captures in a graph, if it does. clips: see `Effort.clips_compared`.
    """

    def timed(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
        start = time.perf_counter()
        result = function(*arguments)
        machine.drain(group.device)
        return result, time.perf_counter() - start

    last = mel.roll(len(inputs) - 1, 0)
    if base is not None:
        replay, prepare_s = timed(rivals.capture, base.function, inputs)
        result, first_call_s = timed(replay)
        error = check(result, last, rival, clips)
        return Ready(base.function, replay, len(inputs), prepare_s, first_call_s, timed(replay)[1], error)
    converts = group.dtype == "int16" and not rival.int16
    example = inputs[0].float() if converts else inputs[0]
    function, prepare_s = timed(rival.prepare, SPECS[group.spec], example, group.threads)
    function = rivals.take_int16(function) if converts else function
    result, first_call_s = timed(function, inputs[0])
    error = check(result, mel, rival, clips)
    result, second_call_s = timed(function, inputs[-1])
    if len(inputs) > 1:
        check(result, last, rival, clips)
    ring = itertools.cycle(inputs)
    return Ready(function, lambda: function(next(ring)), 1, prepare_s, first_call_s, second_call_s, error)


def check(result: Any, expected: Any, rival: Rival, clips: int | None = None) -> dict:
    """The error of a float32 mel (tensor or array) for its record; raises WrongResult where it is no rounding.

    `clips`: compare so many, those with the largest difference or a NaN, found where the tensors are.
    """
    if (
        clips is not None
        and clips < len(expected)
        and isinstance(result, torch.Tensor)
        and result.shape == expected.shape
    ):
        difference = (result - expected).abs().flatten(1).amax(dim=1)
        worst = difference.nan_to_num(nan=float("inf")).topk(clips).indices
        result, expected = result[worst], expected[worst]
    limit = rival.tolerance
    comparison = compare(_array(result), _array(expected), rtol_peak=limit, rtol_rms=limit, dtype="float32")
    if not comparison.passed:
        raise WrongResult(f"wrong: {comparison}")
    error = {**records.error_fields(comparison), "tolerance": None if rival.approximate else limit}
    return error | {"tolerance_reason": rival.tolerance_reason}


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
    contestants = {name: contestant.sample for name, contestant in ready.items()}
    options: dict[str, Any] = {"min_time_s": 0.0, "max_time_s": group_s, "share_s": group_s / len(ready)}
    options["warmup"] = 2 if max(contestant.second_call_s for contestant in ready.values()) < 0.05 else 0
    options["settle_s"] = _SETTLE_S if effort.budget_s > 0 and group.device == "cpu" else 0.0
    return timing.measure(contestants, rounds=effort.rounds, device=group.device, **options)
