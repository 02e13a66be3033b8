"""From the original pipeline to the fast one, a rung at a time: what does each change save, and what does it change?

First the check: every rung trains an epoch from the same weights over the same clips in the same order, and no loss of
it may differ from the original pipeline's by more than the losses of other seeds do, nor by more than half of what a
doubled learning rate does: over few steps seeds lie so far apart that a wrong training would pass. A rung that fails is
named and not timed. Then the times: epochs without instruments, the rungs taking turns in rounds, in one process; a
rung's first epoch stands apart. Then as many epochs with a clock in them, split into their parts; the clock slows them
down (by how much is stated), so their total is never quoted. Testing is not part of an epoch here. On a GPU the clock
waits for the device after every part.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from triadbench.bench import records
from triadbench.bench.monitor import Monitor, disturbed
from triadbench.bench.study.protocol import LEARNING_RATE, SEED, TASKS
from triadbench.bench.study.session import Session, Settings, duration, open_session
from triadbench.core import timing
from triadbench.core.constants import FULL_CLIPS
from triadbench.core.data.splits import split_sizes
from triadbench.core.errors import UserError

if TYPE_CHECKING:
    from triadbench.core.training.epoch import EpochResult, StudyTrainer
    from triadbench.core.training.settings import Switches

SEEDS = (SEED, SEED + 1, SEED + 2)
_TIMED = ("timed", "instrumented")


class Rung(NamedTuple):
    """One rung: its number, name, switches, what changed, and its trainer's options beside the switches."""

    number: int
    name: str
    switches: Switches
    sentence: str
    options: dict[str, Any]


@dataclass(frozen=True)
class LadderCase:
    """What a ladder measures, with `rounds` of timed epochs. Raises UserError for numbers or a task that cannot be."""

    device: str
    task: str = "type"
    batch_size: int = 32
    num_items: int = 1024
    rounds: int = 3

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise UserError(f"rounds={self.rounds}: at least 1 timed epoch of each rung is needed")
        if self.task not in TASKS:
            raise UserError(f"unknown task {self.task!r}; choose from {', '.join(TASKS)}")
        if not 1 <= self.batch_size <= (n_train := split_sizes(self.num_items)[0]):
            clips = f"of {self.num_items} clips {n_train} train; give more clips or a smaller batch"
            raise UserError(f"batch size {self.batch_size}: {clips}")

    def protocol(self) -> str:
        """ "full", or "short: ..." with fewer clips than the original's 8,192."""
        if self.num_items == FULL_CLIPS:
            return "full"
        kind = "short" if self.num_items < FULL_CLIPS else "longer"
        return f"{kind}: {self.num_items:,} clips, not {FULL_CLIPS:,}"

    def parameters(self, rung: Rung) -> dict[str, Any]:
        """What tells a rung's trials and records from those of others."""
        case = dataclasses.asdict(self)
        del case["rounds"]  # three rounds after two are one more
        return {**case, "name": rung.name, "switches": rung.switches.describe()}


def rungs_of(device: str) -> list[Rung]:
    """`core.training.settings.LADDER` of a device."""
    from triadbench.core.training.settings import LADDER

    return [Rung(number, *step, {}) for number, step in enumerate(LADDER(device))]


def run(cases: Sequence[LadderCase], settings: Settings, rungs: Callable[[str], list[Rung]] | None = None) -> dict:
    """Climb the ladder of each device, and append a record for each rung.

    Returns:
        `records`, `trials` (paths), `appended`, `measured` (epochs of this call), `seconds`, `environment`, `rungs`
        (the records) and `failed` (records "ladder left out" of rungs whose loss is not the original's).

    Raises:
        UserError: as `open_session`, or features that do not fit into the memory.
    """
    for case in cases:
        if case.protocol() != "full":
            settings.note(f"ladder on {case.device}, {case.protocol()}; figures a clip carry over, seconds do not")
    with open_session(settings, max(case.num_items for case in cases)) as session:
        ladders = []
        for case in cases:
            with settings.progress("rungs") as report:
                ladders.append(_Ladder(case, (rungs or rungs_of)(case.device), session, report))
                ladders[-1].measure()
        results = [ladder.record(rung) for ladder in ladders for rung in ladder.rungs]
        sound, failed = ([record for record in results if record["passes"] == passes] for passes in (True, False))
        measured = sum(ladder.measured for ladder in ladders)
        return {**session.finish(results), "measured": measured, "rungs": sound, "failed": failed}


def check_memory(case: LadderCase, rungs: Sequence[Rung], way_out: str = "choose a smaller --clips") -> None:
    """Raises UserError where the features of the rungs, whose trainers all live at once, do not fit."""
    from triadbench.core.training.batches import check_features

    copies = sum(rung.switches.mel == "cached" for rung in rungs)
    if copies:
        check_features(case.num_items, case.device, copies=copies, way_out=way_out)


def spread_of_seeds(curves: Sequence[Sequence[float]]) -> float:
    """How far apart the loss curves of one pipeline (losses of every step) lie when only the seed differs.

    The largest less the smallest loss at a step, at the step where a tenth of the steps have less: nearly the tightest,
    for by the widest even a network that learns nothing would pass.
    """
    if len(curves) < 2:
        raise ValueError(f"{len(curves)} curve has no spread; give those of at least two seeds")
    ranges = sorted(max(losses) - min(losses) for losses in zip(*curves, strict=True))
    return ranges[(len(ranges) - 1) // 10]


def largest_difference(curve: Sequence[float], reference: Sequence[float]) -> float:
    """The largest difference of two loss curves at one step; infinite where one is not a number or has other steps."""
    if len(curve) != len(reference):
        return float("inf")
    differences = [abs(a - b) for a, b in zip(curve, reference, strict=True)]
    return max(differences) if all(value == value for value in differences) else float("inf")


def run_epoch(trainer: StudyTrainer, *, with_clock: bool) -> EpochResult:
    """A trainer's next epoch that prepares nothing: where a graph is captured anew, for the clock, the one after."""
    clock = time.perf_counter if with_clock else None
    result = trainer.train_epoch(clock=clock)
    return trainer.train_epoch(clock=clock) if result.prepared_s else result


def part_fields(samples_s: Sequence[float], instrumented: Sequence[tuple[float, dict | None, dict | None]]) -> dict:
    """What a record says of the parts: those of the median epoch with a clock and its copies, and how much longer the
    clock made it; of the seconds of epochs without the clock, and (seconds, parts, copies) of those with it."""
    if not instrumented:
        return dict.fromkeys(("parts", "copies", "instrumented_s", "overhead"))
    seconds, parts, copies = sorted(instrumented, key=lambda epoch: epoch[0])[len(instrumented) // 2]
    return {"parts": parts, "copies": copies, "instrumented_s": seconds, "overhead": seconds / median(samples_s)}


class _Epoch(NamedTuple):
    """An epoch of a rung: "first" (of each rung), "seed" (the original's with another seed), "control" (with a doubled
    learning rate), "timed" or "instrumented"; and the number of its round, or its seed."""

    rung: Rung
    kind: str
    number: int = 0


class _Ladder:
    """One device's ladder: which epochs are missing, and running them in order."""

    def __init__(self, case: LadderCase, rungs: list[Rung], session: Session, report: Callable) -> None:
        self.case, self.rungs, self.measured = case, rungs, 0
        self._session, self._log, self._report = session, session.log, report
        self._trainers: dict[int, StudyTrainer] = {}
        self._last_s: dict[int, float] = {}
        seeds = [_Epoch(rungs[0], "seed", seed) for seed in SEEDS[1:]]
        self._checks = [*seeds, _Epoch(rungs[0], "control"), *(_Epoch(rung, "first") for rung in rungs)]
        timed = [_Epoch(rung, kind, number) for rung in rungs for kind in _TIMED for number in range(case.rounds)]
        self._epochs = self._checks + timed

    def measure(self) -> None:
        """Every epoch that is missing."""
        if self._missing():
            check_memory(self.case, self.rungs)
        self._watch()
        for epoch in self._checks:
            if self._log.find(self._key(epoch)) is None:
                self._keep(epoch, self._trainer(epoch).train_epoch())
        self._compare_losses()
        sound = [rung for rung in self.rungs if self.differences[rung.number] <= self.tolerance]
        for rung in self.rungs:
            if rung not in sound:
                apart = f"not the original's loss ({self.differences[rung.number]:.2g} apart), so not timed"
                self._session.settings.note(f"{rung.name}: {apart}")
                self._trainers.pop(rung.number, None)
        for kind in _TIMED:
            for number, rung in timing.alternate(sound, self.case.rounds, seed=SEED):
                epoch = _Epoch(rung, kind, number)
                if self._log.find(self._key(epoch)) is None:
                    if rung.number not in self._trainers:  # of a resumed run the first epoch is done again, untimed
                        self._trainer(_Epoch(rung, "first")).train_epoch()
                    with Monitor(self.case.device) as monitor:
                        result = run_epoch(self._trainers[rung.number], with_clock=kind == "instrumented")
                    self._keep(epoch, result, monitor.fields())
        self._trainers.clear()

    def _compare_losses(self) -> None:
        """How far each rung's first epoch is from the original's, and how far it may be: as far as seeds lie apart,
        or half as far as the wrong control where that is less."""
        curves: dict[str, list[list[float]]] = {"first": [], "seed": [], "control": []}
        for epoch in self._checks:
            curves[epoch.kind].append(self._log[self._key(epoch)]["losses"])
        self.losses, self.seed_losses, (control,) = curves.values()
        self.differences = [largest_difference(losses, self.losses[0]) for losses in self.losses]
        self.spread = spread_of_seeds([self.losses[0], *self.seed_losses])
        self.tolerance = min(self.spread, largest_difference(control, self.losses[0]) / 2)

    def record(self, rung: Rung) -> dict:
        """The record of a rung: "ladder", or "ladder left out" where the loss is not the original's."""
        case, first = self.case, self._log[self._key(_Epoch(rung, "first"))]
        passes = self.differences[rung.number] <= self.tolerance
        rounds = range(case.rounds if passes else 0)
        lines = {kind: [self._log[self._key(_Epoch(rung, kind, n))] for n in rounds] for kind in _TIMED}
        timed, instrumented = lines.values()
        late = {kind: [n for n in rounds if lines[kind][n]["disturbed"]] for kind in _TIMED}
        reason = next((line["disturbed"] for line in timed + instrumented if line["disturbed"]), None)
        samples, difference = [line["samples"][0] for line in timed], _finite(self.differences[rung.number])
        fields: dict[str, Any] = {
            "parameters": {"rung": rung.number, **case.parameters(rung), "protocol": case.protocol()},
            "environment": (timed[-1] if timed else first)["environment"],
            "error": {"max_difference": difference, "allowed": self.tolerance},
            "losses_of_seeds": self.seed_losses if rung.number == 0 else [],
            # Seconds are the timed epochs', parts the instrumented ones': which of them, by their rounds from 0.
            "disturbed_epochs": late,
            "disturbed": reason,
            "monitor": [line["monitor"] for line in timed],
            **self._session.data_fields(),
        }
        fields |= {"passes": passes, "max_difference": difference, "tolerance": self.tolerance}
        fields |= {"spread_of_seeds": self.spread, "seeds": list(SEEDS), "losses": self.losses[rung.number]}
        fields |= {"sentence": rung.sentence, "n_clips": first["n_clips"], "prepared_s": first["prepared_s"]}
        epochs = [(line["samples"][0], line["parts"], line.get("copies")) for line in instrumented]
        fields |= part_fields(samples, epochs)
        name = "ladder" if passes else "ladder left out"
        return records.make(name, unit="s", samples=samples, first_call=first["samples"][0], **fields)

    def _trainer(self, epoch: _Epoch) -> StudyTrainer:
        """A trainer for an epoch of the checks; that of a rung's first epoch is kept for the timed ones."""
        case, rung, seed = self.case, epoch.rung, epoch.number if epoch.kind == "seed" else SEED
        options = {"task": case.task, "batch_size": case.batch_size, "device": case.device, **rung.options}
        if epoch.kind == "control":
            options["learning_rate"] = 2 * LEARNING_RATE
        trainer = self._session.trainer(rung.switches, case.num_items, seed=seed, **options)
        if epoch.kind == "first":
            self._trainers[rung.number] = trainer
        return trainer

    def _key(self, epoch: _Epoch) -> dict:
        fields = {"experiment": "ladder", "more": epoch.rung.options, "kind": epoch.kind, "number": epoch.number}
        return {**self.case.parameters(epoch.rung), **fields}

    def _keep(self, epoch: _Epoch, result: EpochResult, monitor: dict | None = None) -> None:
        losses = [_finite(loss) for loss in result.losses]
        fields = {name: getattr(result, name) for name in ("n_clips", "prepared_s", "parts", "copies")}
        reason = disturbed(monitor, self.case.device) if monitor else None
        fields |= {"losses": losses, "monitor": monitor, "disturbed": reason}
        self._log.add(self._key(epoch), [result.seconds], **fields)
        self.measured += 1
        self._last_s[epoch.rung.number] = result.seconds
        left = self._watch()
        if self.measured == 1:
            first = f"the first epoch took {duration(result.seconds)}"
            self._session.settings.note(f"{first}; all will take {left}")
        if self._missing():
            self._session.settings.proceed()

    def _missing(self) -> list[_Epoch]:
        return [epoch for epoch in self._epochs if self._log.find(self._key(epoch)) is None]

    def _watch(self) -> str:
        """Report how many epochs are done; how long the others take."""
        missing, seconds = self._missing(), 0.0
        for epoch in missing:  # a rung not seen yet is taken for as slow as the nearest below it: later ones are faster
            below = range(epoch.rung.number, -1, -1)
            seconds += next((self._last_s[number] for number in below if number in self._last_s), 0.0)
        left = f"at most about {duration(seconds)}"
        self._report(len(self._epochs) - len(missing), len(self._epochs), f"{left} left" if self._last_s else "")
        return left


def _finite(value: float) -> float:
    """The largest number instead of infinity or NaN, which JSON cannot hold."""
    return value if value == value and abs(value) != float("inf") else 1e308
