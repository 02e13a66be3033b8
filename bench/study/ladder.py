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

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from triadbench.bench import machine, outputs, records
from triadbench.bench.study import clips as study_clips
from triadbench.bench.study.eta import duration
from triadbench.bench.study.experiments import make_trainer, stepwise
from triadbench.bench.study.protocol import LEARNING_RATE, SEED, TASKS
from triadbench.bench.study.trials import FILE, TrialLog, append_once, fingerprint
from triadbench.core import timing
from triadbench.core.constants import usable_cores
from triadbench.core.errors import UserError

FULL_CLIPS, CLIPS, BATCH_SIZE, ROUNDS = 8192, 1024, 32, 3
SEEDS = (SEED, SEED + 1, SEED + 2)


class Rung(NamedTuple):
    """One rung: its number, name, switches, what changed, and what its trainer is given beside the switches."""

    number: int
    name: str
    switches: object
    sentence: str
    more: dict


class Climb(NamedTuple):
    """What a ladder measures: device, task, clips a step, clips, rounds of timed epochs."""

    device: str
    task: str = "type"
    batch_size: int = BATCH_SIZE
    num_items: int = CLIPS
    rounds: int = ROUNDS

    def protocol(self) -> str:
        """ "full", or "short: ..." with fewer clips than the original's 8,192."""
        if self.num_items == FULL_CLIPS:
            return "full"
        kind = "short" if self.num_items < FULL_CLIPS else "longer"
        return f"{kind}: {self.num_items:,} clips, not {FULL_CLIPS:,}"

    def check(self) -> Climb:
        """Itself, or a UserError."""
        if self.rounds < 1:
            raise UserError(f"rounds={self.rounds}: at least 1 timed epoch of each rung is needed")
        if self.task not in TASKS:
            raise UserError(f"unknown task {self.task!r}; choose from {', '.join(TASKS)}")
        if not 1 <= self.batch_size <= int(0.7 * self.num_items):
            raise UserError(
                f"batch size {self.batch_size}: of {self.num_items} clips {int(0.7 * self.num_items)} train; "
                "give more clips or a smaller batch"
            )
        return self


def rungs_of(device: str) -> list[Rung]:
    """`core.training.pipeline.LADDER` of a device."""
    from triadbench.core.training.pipeline import LADDER

    return [Rung(number, *step, {}) for number, step in enumerate(LADDER(device))]


def run(
    climbs: Sequence[Climb],
    *,
    folder: Path,
    records_path: Path,
    data: Path | None = None,
    data_folder: Path = study_clips.FOLDER,
    progress: Callable,
    note: Callable[[str], None] = lambda _: None,
    maker: Callable = make_trainer,
    rungs: Callable[[str], list[Rung]] = rungs_of,
) -> dict:
    """Climb the ladder of each device, and append a record for each rung. Arguments as `bench.study.experiments.run`.

    Returns:
        `records`, `trials` (paths), `appended`, `measured` (epochs of this call), `seconds`, `environment`, `rungs`
        (the records) and `failed` (records "ladder left out" of rungs whose loss is not the original's).

    Raises:
        UserError: bad numbers, clips that cannot be read, a folder in use, an output that cannot be written, features
            that do not fit into the memory.
    """
    started = time.perf_counter()
    outputs.check_writable(records_path, "--records", appended=True)
    outputs.check_writable(folder / FILE, "--run", appended=True)
    for climb in climbs:
        climb.check()
        if climb.protocol() != "full":
            note(f"ladder on {climb.device}, {climb.protocol()}; figures a clip carry over, seconds do not")
    with outputs.only_one(folder):
        with stepwise(progress) as report:
            most = max(climb.num_items for climb in climbs)
            sets = study_clips.prepare(
                most, needs_wavs=True, needs_pack=True, source=data, folder=data_folder, report=report
            )
        environment = machine.environment()
        log = TrialLog(folder, fingerprint(environment, sets.digest), note)
        made: list[dict] = []
        measured = 0
        for climb in climbs:
            with progress("rungs") as report:
                ladder = _Ladder(climb, rungs(climb.device), sets, log, maker, report, note)
                ladder.measure()
            measured += ladder.measured
            made += ladder.records(environment)
        appended = sum(append_once(record, records_path) for record in made)
    return {
        "records": str(records_path),
        "trials": str(log.path),
        "appended": appended,
        "measured": measured,
        "seconds": round(time.perf_counter() - started, 1),
        "environment": environment,
        "rungs": [record for record in made if record["name"] == "ladder"],
        "failed": [record for record in made if record["name"] != "ladder"],
    }


def check_memory(climb: Climb, rungs: Sequence[Rung], way_out: str = "choose a smaller --clips") -> None:
    """Raises UserError where the features of the rungs, whose trainers all live at once, do not fit."""
    from triadbench.core.training.batches import check_features

    copies = sum(rung.switches.mel == "cached" for rung in rungs)
    if copies:
        check_features(climb.num_items, climb.device, copies=copies, way_out=way_out)


def spread_of_seeds(curves: Sequence[Sequence[float]]) -> float:
    """How far apart the loss curves of one pipeline lie when only the seed differs.

    Args:
        curves: losses of every step, one curve a seed.

    Returns:
        The largest less the smallest loss at a step, at the step where a tenth of the steps have less: nearly the
        tightest, for by the widest even a network that learns nothing would pass.
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


class _Ladder:
    """One device's ladder: which epochs are missing, and running them in order."""

    def __init__(self, climb: Climb, rungs: list[Rung], sets, log: TrialLog, maker, report, note):
        self.climb, self.rungs, self.sets, self.log, self.maker = climb, rungs, sets, log, maker
        self._report, self._note = report, note
        self._trainers: dict[int, object] = {}
        self._last_s: dict[int, float] = {}
        self.measured = 0

    def measure(self) -> None:
        """Every epoch that is missing."""
        if self._missing():
            check_memory(self.climb, self.rungs)
        self._watch()
        for seed in SEEDS[1:]:
            if self._find(self.rungs[0], "seed", seed) is None:
                self._keep(self.rungs[0], "seed", seed, self._trainer(self.rungs[0], seed).train_epoch())
        if self._find(self.rungs[0], "control", 0) is None:
            wrong = self._trainer(self.rungs[0], SEED, learning_rate=2 * LEARNING_RATE)
            self._keep(self.rungs[0], "control", 0, wrong.train_epoch())
        for rung in self.rungs:
            if self._find(rung, "first", 0) is None:
                self._trainers[rung.number] = self._trainer(rung, SEED)
                self._keep(rung, "first", 0, self._trainers[rung.number].train_epoch())
        sound = [rung for rung in self.rungs if self.passes(rung)]
        for rung in self.rungs:
            if rung not in sound:
                self._note(f"{rung.name}: not the original's loss ({self.difference(rung):.2g} apart), so not timed")
                self._trainers.pop(rung.number, None)
        self._take_turns(sound, "timed")
        self._take_turns(sound, "instrumented")
        self._trainers.clear()

    def _take_turns(self, rungs: list[Rung], kind: str) -> None:
        """Rounds of one epoch of every rung that has none yet, in an order shuffled anew each round."""
        shuffle = random.Random(SEED).shuffle
        for number in range(self.climb.rounds):
            order = list(rungs)
            shuffle(order)
            for rung in order:
                if self._find(rung, kind, number) is None:
                    trainer, clock = self._warm(rung), time.perf_counter if kind == "instrumented" else None
                    others = timing.OtherWork()
                    result = trainer.train_epoch(clock=clock)
                    if result.prepared_s:  # a graph captured anew, with the clock in it, is no part of an epoch
                        result = trainer.train_epoch(clock=clock)
                    self._keep(rung, kind, number, result, others)

    def passes(self, rung: Rung) -> bool:
        """Whether a rung's losses are the original's, within the tolerance."""
        return self.difference(rung) <= self.tolerance()

    def difference(self, rung: Rung) -> float:
        """The largest difference of a rung's first epoch from the original's with the same seed."""
        return largest_difference(self._losses(rung), self._losses(self.rungs[0]))

    def spread(self) -> float:
        """How far apart seeds lie."""
        return spread_of_seeds([self._losses(self.rungs[0]), *self._other_seeds()])

    def tolerance(self) -> float:
        """The spread of seeds, or half of the wrong control's difference where that is less."""
        control = self._find(self.rungs[0], "control", 0)["losses"]
        return min(self.spread(), largest_difference(control, self._losses(self.rungs[0])) / 2)

    def records(self, environment: dict) -> list[dict]:
        """One record a rung: "ladder", or "ladder left out" where the loss is not the original's."""
        return [self._record(rung, environment) for rung in self.rungs]

    def _record(self, rung: Rung, environment: dict) -> dict:
        climb, sound = self.climb, self.passes(rung)
        first = self._find(rung, "first", 0)
        rounds = range(climb.rounds if sound else 0)
        timed = [self._find(rung, "timed", number) for number in rounds]
        samples = [line["samples"][0] for line in timed]
        clocked = sorted((self._find(rung, "instrumented", n) for n in rounds), key=lambda line: line["samples"])
        middle = clocked[len(clocked) // 2] if clocked else None
        disturbed = {
            kind: [number for number in rounds if self._find(rung, kind, number)["disturbed"]]
            for kind in ("timed", "instrumented")
        }
        parameters = {
            "rung": rung.number,
            "name": rung.name,
            "switches": rung.switches.describe(),
            "device": climb.device,
            "task": climb.task,
            "batch_size": climb.batch_size,
            "num_items": climb.num_items,
            "protocol": climb.protocol(),
        }
        return records.make(
            "ladder" if sound else "ladder left out",
            parameters=parameters,
            unit="s",
            samples=samples,
            first_call=first["samples"][0],
            environment=(timed[-1] if timed else first)["environment"],
            error={"max_difference": _finite(self.difference(rung)), "allowed": self.tolerance()},
            passes=sound,
            max_difference=_finite(self.difference(rung)),
            spread_of_seeds=self.spread(),
            tolerance=self.tolerance(),
            losses=self._losses(rung),
            losses_of_seeds=self._other_seeds() if rung.number == 0 else [],
            seeds=list(SEEDS),
            sentence=rung.sentence,
            n_clips=first["n_clips"],
            prepared_s=first["prepared_s"],
            parts=middle["parts"] if middle else None,
            instrumented_s=middle["samples"][0] if middle else None,
            overhead=middle["samples"][0] / median(samples) if middle else None,
            data={"origin": self.sets.origin, "digest": self.sets.digest},
            other_cores=max((line["other_cores"] for line in timed), default=None),
            instrumented_other_cores=max((line["other_cores"] for line in clocked), default=None),
            # Seconds are the timed epochs', parts the instrumented ones': which of them, by their rounds from 0.
            disturbed=any(disturbed.values()),
            disturbed_epochs=disturbed,
            fingerprint=self.log.fingerprint,
        )

    def _trainer(self, rung: Rung, seed: int, **more):
        climb = self.climb
        return self.maker(
            self.sets.of(rung.switches.packed, climb.num_items),
            task=climb.task,
            batch_size=climb.batch_size,
            device=climb.device,
            switches=rung.switches,
            seed=seed,
            **{**rung.more, **more},
        )

    def _warm(self, rung: Rung):
        """A rung's trainer with its first epoch behind it; of a resumed run that epoch is done again, untimed."""
        if rung.number not in self._trainers:
            self._trainers[rung.number] = self._trainer(rung, SEED)
            self._trainers[rung.number].train_epoch()
        return self._trainers[rung.number]

    def _losses(self, rung: Rung) -> list[float]:
        return self._find(rung, "first", 0)["losses"]

    def _other_seeds(self) -> list[list[float]]:
        return [self._find(self.rungs[0], "seed", seed)["losses"] for seed in SEEDS[1:]]

    def _key(self, rung: Rung, kind: str, number: int) -> dict:
        climb = self.climb
        return {
            "experiment": "ladder",
            "device": climb.device,
            "task": climb.task,
            "batch_size": climb.batch_size,
            "num_items": climb.num_items,
            "name": rung.name,
            "switches": rung.switches.describe(),
            "more": rung.more,
            "kind": kind,
            "number": number,
        }

    def _find(self, rung: Rung, kind: str, number: int) -> dict | None:
        return self.log.find(self._key(rung, kind, number))

    def _keep(self, rung: Rung, kind: str, number: int, result, others: timing.OtherWork | None = None) -> None:
        other_cores = others.cores() if others else 0.0
        self.log.add(
            self._key(rung, kind, number),
            [result.seconds],
            n_clips=result.n_clips,
            losses=[_finite(loss) for loss in result.losses],
            prepared_s=result.prepared_s,
            parts=result.parts,
            other_cores=other_cores,
            disturbed=timing.is_disturbed(other_cores, timing.own_threads(), usable_cores()),
        )
        self.measured += 1
        self._last_s[rung.number] = result.seconds
        self._watch()
        if self.measured == 1:
            self._note(f"the first epoch took {duration(result.seconds)}; all will take {self._left()}")

    def _missing(self) -> list[int]:
        """Rungs of the epochs still to run, each as often as it is missing."""
        wanted = [(self.rungs[0], "seed", seed) for seed in SEEDS[1:]] + [(self.rungs[0], "control", 0)]
        for rung in self.rungs:
            wanted.append((rung, "first", 0))
            wanted += [(rung, kind, n) for kind in ("timed", "instrumented") for n in range(self.climb.rounds)]
        return [rung.number for rung, kind, number in wanted if self._find(rung, kind, number) is None]

    def _left(self) -> str:
        missing = self._missing()
        # A rung not seen yet is taken for as slow as the nearest below it: later rungs are faster.
        seconds = 0.0
        for number in missing:
            below = [self._last_s[seen] for seen in range(number, -1, -1) if seen in self._last_s]
            seconds += below[0] if below else 0.0
        return f"at most about {duration(seconds)}"

    def _watch(self) -> None:
        total = len(SEEDS) + len(self.rungs) * (1 + 2 * self.climb.rounds)
        text = f"{self._left()} left" if self._last_s else ""
        self._report(total - len(self._missing()), total, text)


def _finite(value: float) -> float:
    """JSON has no word for infinity or NaN; a loss that is none of a number is as far off as can be written."""
    return value if value == value and abs(value) != float("inf") else 1e308
