"""Where an epoch's seconds go, part by part."""

import contextlib
import time
from collections.abc import Callable, Iterator

import torch

from triadbench.core.constants import EPOCH_PARTS


class NoClock:
    """Books nothing and costs nothing."""

    active = False
    _nothing = contextlib.nullcontext()

    def part(self, name: str) -> contextlib.AbstractContextManager:
        """Book the block's time under `name` (one of `EPOCH_PARTS`); blocks do not nest."""
        return self._nothing

    def book(self, name: str, seconds: float) -> None:
        """Book seconds that were measured elsewhere (CUDA events)."""

    def parts(self, total: float) -> dict[str, float] | None:
        """All parts; "idle" is the rest of `total`, so that they sum to it."""
        return None


NO_CLOCK = NoClock()


class Clock(NoClock):
    """Adds up the seconds of an epoch's parts.

    On a GPU every part ends with a synchronisation, so that the work is booked where it was launched. The epoch gets
    slower by it: do not quote its total.

    Attributes:
        seconds: {part: seconds} so far, without "idle".
    """

    active = True

    def __init__(self, device: str = "cpu", now: Callable[[], float] = time.perf_counter):
        self._device, self._now = device, now
        self.seconds: dict[str, float] = {}

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

    def parts(self, total: float) -> dict[str, float]:
        parts = {name: self.seconds.get(name, 0.0) for name in EPOCH_PARTS if name != "idle"}
        return {**parts, "idle": total - sum(parts.values())}


def clock_for(clock: Clock | Callable[[], float] | None, device: torch.device) -> NoClock:
    """A fresh clock for an epoch.

    Args:
        clock: None: none; a `Clock`: itself, emptied; a function that gives seconds (time.perf_counter): a `Clock`
            that reads it.
    """
    if clock is None:
        return NO_CLOCK
    if isinstance(clock, Clock):
        clock.seconds.clear()
        return clock
    return Clock(str(device), clock)


def synchronize(device: str | torch.device) -> None:
    """Wait for the work that a GPU was given; on a CPU there is none."""
    if str(device).startswith("cuda"):
        torch.cuda.synchronize(device)
