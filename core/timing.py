"""The one timing protocol: every number that we report comes from it.

Contestants alternate in one process, round by round in shuffled order, so that a noisy neighbour, heat or a changed
clock affects them all alike. What is timed is checked first, on the very inputs that are timed. The first call, which
pays for compilation, allocation and caches, is kept apart from the steady state. Raw samples are returned, never only
their mean. On CUDA, pass `device="cuda"`: samples are then CUDA event times, and the queue is drained before and after.

`measure` does all of that for functions. What is more than a function (an epoch, a process, a profiled step) takes the
parts: `alternate` for the rounds, `call_times_ms` for single calls, `Clock` for the parts of a training epoch,
`OtherWork` for the load by other processes.
That load is measured because the spread does not show it: where OpenMP threads wait for a core that another process
holds, every sample is late by the same scheduler slices. A mel of 0.6 ms then took 64.0 ms with no spread at all.
"""

from __future__ import annotations

import contextlib
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from triadbench.core import system
from triadbench.core.constants import EPOCH_PARTS, usable_cores

UNSTABLE_SPREAD = 0.2
"""A spread (interquartile range over median) above this marks a timing as unstable."""
FEWEST_SAMPLES = 3
"""What a contestant has before it may sit out."""
DISTURBING_CORES = 0.1
"""Other processes may use this many cores more than our threads leave free; beyond it a timing is disturbed."""

T = TypeVar("T")


class OtherWork:
    """Measures the CPU time of other processes (and time stolen by a hypervisor) since it was made."""

    def __init__(self) -> None:
        self._start_s, self._others_s = time.perf_counter(), self._others()

    def cores(self) -> float:
        """Cores that others kept busy on average since the start; the system counts in steps of 10 ms."""
        elapsed_s = max(time.perf_counter() - self._start_s, 1e-9)
        return max(0.0, (self._others() - self._others_s) / elapsed_s)

    def fields(self, threads: int | None = None) -> dict[str, Any]:
        """What a record says of the time since the start: `load_fields` of `cores()`."""
        return load_fields(self.cores(), threads)

    @staticmethod
    def _others() -> float:
        return system.busy_s() - time.process_time()


def load_fields(other_cores: float, threads: int | None = None) -> dict[str, Any]:
    """{"other_cores", "disturbed"} for a record; `threads` are ours, by default `own_threads()`."""
    disturbed = is_disturbed(other_cores, threads or own_threads(), usable_cores())
    return {"other_cores": other_cores, "disturbed": disturbed}


def is_disturbed(other_cores: float, threads: int, cores: int) -> bool:
    """True if `threads` of ours and the others' work need more cores than there are."""
    return other_cores > max(0, cores - threads) + DISTURBING_CORES


def own_threads() -> int:
    """Threads that torch computes with, or one where torch is not in use."""
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch is not None else 1


@dataclass(frozen=True)
class Timing:
    """Times of one contestant.

    Attributes:
        first_call_s: the first call, alone, in seconds.
        samples_ms: every steady-state sample, milliseconds per call, in the order taken. n: how many.
        p50_ms, p90_ms, p99_ms: percentiles of the samples (linear interpolation).
        calls_per_sample: calls averaged in one sample (more than one where a call is short against the clock).
        spread: interquartile range over the median. unstable: it is above `UNSTABLE_SPREAD`.
        other_cores: cores that other processes kept busy during the samples; None where that was not measured.
        disturbed: that was more than our threads left free: the median says nothing about the code, however steady.
    """

    first_call_s: float
    samples_ms: tuple[float, ...]
    p50_ms: float
    p90_ms: float
    p99_ms: float
    n: int
    calls_per_sample: int
    spread: float
    unstable: bool
    other_cores: float | None = None
    disturbed: bool = False

    @classmethod
    def from_samples(
        cls,
        first_call_s: float,
        samples_ms: Iterable[float],
        calls_per_sample: int = 1,
        other_cores: float | None = None,
    ) -> Timing:
        """Summarise raw samples in milliseconds."""
        import numpy as np

        samples = tuple(samples_ms)
        if not samples:
            raise ValueError("samples_ms=[] holds no sample; time at least one round")
        p25, p50, p75, p90, p99 = (float(value) for value in np.percentile(samples, [25, 50, 75, 90, 99]))
        spread = (p75 - p25) / p50 if p50 > 0 else 0.0
        load = {} if other_cores is None else load_fields(other_cores)
        unstable = spread > UNSTABLE_SPREAD
        return cls(first_call_s, samples, p50, p90, p99, len(samples), calls_per_sample, spread, unstable, **load)


def alternate(
    contestants: Iterable[T],
    rounds: int,
    *,
    min_rounds: int = 1,
    max_time_s: float = float("inf"),
    seed: int = 0,
    unfinished: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[int, T]]:
    """(round from 0, contestant): each once a round, shuffled anew so that none always follows the same neighbour.

    Args:
        min_rounds: rounds that run even when `max_time_s` is over; after them the round under way is the last.
        unfinished: asked after `rounds` rounds; while it is true, there is one more.
    """
    order, shuffle = list(contestants), random.Random(seed).shuffle
    number, start = 0, time.perf_counter()
    while number < rounds or unfinished():
        shuffle(order)
        for contestant in order:
            yield number, contestant
        number += 1
        if number >= min_rounds and time.perf_counter() - start > max_time_s:
            return


def call_times_ms(
    function: Callable[[int], Any], numbers: Iterable[int], max_time_s: float = float("inf")
) -> list[float]:
    """Milliseconds of every call function(number) by itself; stops after the call in which `max_time_s` is over."""
    times_ms, begin = [], time.perf_counter()
    for number in numbers:
        start = time.perf_counter()
        function(number)
        end = time.perf_counter()
        times_ms.append(1e3 * (end - start))
        if end - begin > max_time_s:
            break
    return times_ms


def measure(
    contestants: Mapping[str, Callable[[], Any]],
    *,
    check: Callable[[str, Any], None] | None = None,
    rounds: int = 20,
    min_time_s: float = 0.5,
    max_time_s: float = 20.0,
    min_sample_s: float = 1e-3,
    warmup: int = 2,
    device: str = "cpu",
    seed: int = 0,
    settle_s: float = 0.0,
    share_s: float | None = None,
) -> dict[str, Timing]:
    """Time callables that take no argument, alternately.

    Args:
        contestants: name to callable; inputs are bound in it, so making them is outside the clock.
        check: called as `check(name, result)` with the result of each contestant's first call, before anything else is
            timed. It raises if the result is wrong, and that ends the measurement: a wrong answer has no speed.
        rounds: samples of each contestant at least, unless `max_time_s` is spent.
        min_time_s: go on until each contestant has run this long, however many rounds that takes.
        max_time_s: stop after this long in all, with at least one round done.
        min_sample_s: a contestant quicker than this is called several times a sample; 0 times every call by itself.
        warmup: untimed calls of each after the first call. seed: of the order within each round.
        device: "cpu", or "cuda" for event timing.
        settle_s: wait this long before each sample, then make one untimed call if it is shorter than that. The waiting
            threads of one contestant's pool (OpenMP's spin for milliseconds) otherwise cost the next one a core.
        share_s: a contestant that has run this long, with `FEWEST_SAMPLES` samples, sits out: others need time too.

    Raises:
        ValueError: no contestants, or rounds below 1.
        RuntimeError: `device="cuda"` on a machine without.
    """
    if not contestants:
        raise ValueError("contestants={} is empty; give at least one name and callable")
    if rounds < 1:
        raise ValueError(f"rounds={rounds} must be at least 1")
    clock = _clock(device)
    first_call_s, calls, once_s = {}, {}, {}
    for name, function in contestants.items():
        first_call_s[name], result = clock(function, 1)
        if check is not None:
            check(name, result)
        del result
    for name, function in contestants.items():
        for _ in range(warmup):
            function()
        once_s[name] = clock(function, 1)[0]
        calls[name] = max(1, round(min_sample_s / max(once_s[name], 1e-9)))

    samples_ms: dict[str, list[float]] = {name: [] for name in contestants}
    spent_s = dict.fromkeys(contestants, 0.0)
    others = OtherWork()

    def unfinished() -> bool:
        return min(spent_s.values()) < min_time_s

    for _, name in alternate(contestants, rounds, max_time_s=max_time_s, seed=seed, unfinished=unfinished):
        if share_s is not None and spent_s[name] > share_s and len(samples_ms[name]) >= FEWEST_SAMPLES:
            continue
        if settle_s > 0.0:
            time.sleep(settle_s)
            if once_s[name] < settle_s:
                contestants[name]()
        elapsed_s, _ = clock(contestants[name], calls[name])
        spent_s[name] += elapsed_s
        samples_ms[name].append(1e3 * elapsed_s / calls[name])
    cores = others.cores()
    return {name: Timing.from_samples(first_call_s[name], samples_ms[name], calls[name], cores) for name in contestants}


def _clock(device: str) -> Callable[[Callable[[], Any], int], tuple[float, Any]]:
    """A function that calls another `calls` times and returns (seconds in all, last result)."""
    if device == "cpu":
        return _cpu_clock
    if device != "cuda":
        raise ValueError(f"device={device!r} must be 'cpu' or 'cuda'")
    import torch

    if not torch.cuda.is_available():
        raise RuntimeError("device='cuda' was asked for, but torch finds no CUDA device; time on 'cpu' instead")
    return _cuda_clock


def _cpu_clock(function: Callable[[], Any], calls: int) -> tuple[float, Any]:
    before = time.perf_counter()
    for _ in range(calls):
        result = function()
    return time.perf_counter() - before, result


def _cuda_clock(function: Callable[[], Any], calls: int) -> tuple[float, Any]:  # pragma: no cover - needs a GPU
    import torch

    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    for _ in range(calls):
        result = function()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1e3, result


class NoClock:
    """Books nothing and costs nothing."""

    active = False
    _nothing = contextlib.nullcontext()

    def part(self, name: str) -> contextlib.AbstractContextManager:
        """Book the block's time under `name` (one of `EPOCH_PARTS`); blocks do not nest."""
        return self._nothing

    def book(self, name: str, seconds: float) -> None:
        """Book seconds that were measured elsewhere (CUDA events)."""

    def copy(self, tensor: Any, device: Any, non_blocking: bool = False) -> Any:
        """The tensor on `device`: `tensor.to`."""
        return tensor.to(device, non_blocking=non_blocking)

    def of_copies(self) -> NoClock:
        """A clock for a thread that works beside the epoch: it books copies, and no parts."""
        return self

    def copies(self) -> dict[str, Any] | None:
        """Of the copies to another device: `n`, `bytes`, and `seconds` (by events on a GPU; elsewhere None)."""
        return None

    def parts(self, total: float) -> dict[str, float] | None:
        """All parts; "idle" is the rest of `total`, so that they sum to it."""
        return None


NO_CLOCK = NoClock()


class Clock(NoClock):
    """Adds up the `seconds` of an epoch's parts: {part: seconds} so far, without "idle".

    On a GPU every part ends with a synchronisation, so that the work is booked where it was launched. The epoch gets
    slower by it: do not quote its total.
    """

    active = True

    def __init__(self, device: str = "cpu", now: Callable[[], float] = time.perf_counter):
        self._device, self._now = device, now
        self.seconds: dict[str, float] = {}
        self._copies: list[tuple[int, list[Any]]] = []  # bytes, and the events around them

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        started = self._now()
        try:
            yield
            synchronize(self._device)
        finally:
            self.book(name, self._now() - started)

    def book(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def copy(self, tensor: Any, device: Any, non_blocking: bool = False) -> Any:
        import torch

        if tensor.device.type == torch.device(device).type:
            return tensor
        on_gpu = torch.device(device).type == "cuda"
        events = [torch.cuda.Event(enable_timing=True) for _ in range(2)] if on_gpu else []
        for event in events[:1]:
            event.record()
        copied = super().copy(tensor, device, non_blocking)
        for event in events[1:]:
            event.record()
        self._copies.append((tensor.nbytes, events))
        return copied

    def of_copies(self) -> NoClock:
        clock = NoClock()
        clock.copy = self.copy  # type: ignore[method-assign]
        return clock

    def copies(self) -> dict[str, Any]:
        synchronize(self._device)
        seconds = [pair[0].elapsed_time(pair[1]) / 1e3 for _, pair in self._copies if pair]
        return {
            "n": len(self._copies),
            "bytes": sum(size for size, _ in self._copies),
            "seconds": sum(seconds) if seconds else None,
        }

    def parts(self, total: float) -> dict[str, float]:
        parts = {name: self.seconds.get(name, 0.0) for name in EPOCH_PARTS if name != "idle"}
        return {**parts, "idle": total - sum(parts.values())}


def clock_for(clock: Clock | Callable[[], float] | None, device: object) -> NoClock:
    """A clock for an epoch: none for None, a `Clock` itself, emptied, or one that reads a function of seconds."""
    if clock is None:
        return NO_CLOCK
    if isinstance(clock, Clock):
        clock.seconds.clear()
        clock._copies.clear()
        return clock
    return Clock(str(device), clock)


def synchronize(device: object) -> None:
    """Wait for the work that a GPU ("cuda", "cuda:1") was given; on a CPU there is none."""
    if str(device).startswith("cuda"):
        import torch

        torch.cuda.synchronize(str(device))
