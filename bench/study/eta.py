"""How long a study will still take, from the trials that are done."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from triadbench.bench.study.protocol import Case


class Remaining:
    """Seconds of trials to come: those of the same case, else of the nearest kind that was seen, by number of clips."""

    _KINDS = (
        lambda case: case,
        lambda case: (case.device, case.pipeline, case.task),
        lambda case: (case.device, case.pipeline),
        lambda case: case.device,
        lambda case: None,
    )

    def __init__(self) -> None:
        self._seen: list[tuple[Case, float]] = []

    def saw(self, case: Case, seconds: float) -> None:
        """A trial of `case` took this long."""
        self._seen.append((case, seconds))

    def seconds(self, cases: Sequence[Case]) -> float:
        """Of one trial of each of `cases`; 0 before anything was seen."""
        known: dict[Case, float] = {}
        for case in set(cases):
            for kind in self._KINDS if self._seen else ():
                a_clip = [seconds / seen.num_items for seen, seconds in self._seen if kind(seen) == kind(case)]
                if a_clip:
                    known[case] = median(a_clip) * case.num_items
                    break
        return sum(known.get(case, 0.0) for case in cases)

    def text(self, cases: Sequence[Case]) -> str:
        """As "about 3 h 10 min left"; empty before anything was seen."""
        return f"about {duration(self.seconds(cases))} left" if self._seen and cases else ""


def duration(seconds: float) -> str:
    """As "45 s", "12 min" or "3 h 10 min"."""
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
