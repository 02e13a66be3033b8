"""What a stage of the GPU run is given: its device, its time, and where its records go."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from triadbench.bench import machine, records

SMI = ("clocks.sm", "clocks.mem", "temperature.gpu", "power.draw", "utilization.gpu")
_FIELDS = ("sm_clock_mhz", "memory_clock_mhz", "temperature_c", "power_w", "utilization_percent")


@dataclass(frozen=True)
class Context:
    """One stage's run, in a process of its own.

    Attributes:
        device: "cuda", or "cpu" in a rehearsal.
        rehearse: every kind of measurement once, tiny: what a rehearsal shows is that the stage works.
        seconds: that the stage may take; a little later it is killed. Records written by then are kept.
        records: the JSON Lines file of the whole run. scratch: an empty folder that is thrown away afterwards.
    """

    device: str
    rehearse: bool
    seconds: float
    records: Path
    scratch: Path
    started: float = field(default_factory=time.monotonic)

    def left_s(self) -> float:
        """Seconds that the stage has left."""
        return self.seconds - (time.monotonic() - self.started)

    @property
    def effort(self) -> str:
        """As records state it: "gpu", or "rehearsal"."""
        return "rehearsal" if self.rehearse else "gpu"

    @functools.cached_property
    def environment(self) -> dict:
        """`bench.machine.environment()`, read once."""
        return machine.environment()

    def add(self, name: str, parameters: dict, samples: Iterable[float] = (), unit: str = "s", **more: Any) -> dict:
        """Append a record at once; further fields as `bench.records.make`."""
        run: dict[str, Any] = {"environment": self.environment, "effort": self.effort}
        record = records.make(name, parameters=parameters, unit=unit, samples=samples, **run, **more)
        records.append(record, self.records)
        return record


def gpu_state() -> dict[str, float] | None:
    """Clocks (MHz), temperature (degrees Celsius), power (W) and utilisation (%) of GPU 0 now, by nvidia-smi.

    None where nvidia-smi is not there; a value that the GPU does not tell is left out. Takes some 50 ms.
    """
    line = machine.line_of("nvidia-smi", f"--query-gpu={','.join(SMI)}", "--format=csv,noheader,nounits", "--id=0")
    if line is None:
        return None
    state = {}
    for name, value in zip(_FIELDS, line.split(","), strict=False):
        try:
            state[name] = float(value)
        except ValueError:  # "[N/A]"
            continue
    return state
