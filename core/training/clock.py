"""Where an epoch's seconds go, part by part."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from triadbench.core.constants import EPOCH_PARTS


class Clock:
    """Adds up the seconds of an epoch's parts. On a GPU every part ends with a synchronisation, so the work is booked
    where it was asked for; the epoch gets slower by it, and its total is not to be quoted.

    Attributes:
        seconds: {part: seconds} so far; "idle" is what `parts` finds left over.
    """

    active = True

    def __init__(self, device: str = "cpu", now: Callable[[], float] = time.perf_counter):
        self._device, self.now = str(device), now
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Book the block's time under `name` (one of `EPOCH_PARTS`); blocks do not nest."""
        started = self.now()
        try:
            yield
            self._synchronise()
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + self.now() - started

    def book(self, name: str, seconds: float) -> None:
        """Book seconds that were measured elsewhere (CUDA events)."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def parts(self, total: float) -> dict[str, float]:
        """All parts; "idle" is the rest of `total`, so that they sum to it."""
        found = {name: self.seconds.get(name, 0.0) for name in EPOCH_PARTS if name != "idle"}
        return {**found, "idle": total - sum(found.values())}

    def _synchronise(self) -> None:
        if self._device.startswith("cuda"):
            import torch

            torch.cuda.synchronize(self._device)


class _NoClock:
    """Books nothing and costs nothing."""

    active = False
    _nothing = contextlib.nullcontext()

    def part(self, name: str) -> contextlib.AbstractContextManager:
        return self._nothing


NO_CLOCK = _NoClock()


def clock_for(clock, device: str):
    """A fresh `Clock` for an epoch where one is wanted.

    Args:
        clock: None: none; a `Clock`: itself, emptied; any other callable that gives seconds (time.perf_counter): a
            `Clock` that reads it.
    """
    if clock is None:
        return NO_CLOCK
    if isinstance(clock, Clock):
        clock.seconds.clear()
        return clock
    return Clock(device, clock)
