"""How long is an epoch, by batch size and by number of clips, with the original pipeline and with the fast one?

Timed, as in the original: the training part and the testing part of each epoch apart; a trial is five epochs of a
network trained from its seeded start, its figure their mean; the first of six trials is dropped. A trial that other
work disturbed, as `bench.monitor` judges, is run again, twice at most; it stays in the record, out of the means.

Whatever a pipeline prepares in its first epoch (features that it keeps, a graph that it captures) is in that epoch's
time. Not timed: making the trainer (kept as `setup_s`), opening the clips, and a short run of every contestant before
the first trial of a process, so that a resumed study does not measure a cold start.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import TYPE_CHECKING, Any

from triadbench.bench import records
from triadbench.bench.monitor import Monitor, disturbed
from triadbench.bench.study.protocol import SEED, SPLIT_SEED, Case, Protocol, Turn, parameters
from triadbench.bench.study.session import Remaining, Session, Settings, duration, open_session

if TYPE_CHECKING:
    from triadbench.core.training.settings import Switches

ATTEMPTS = 3


def switches_of(pipeline: str, device: str) -> Switches:
    """The switches of "original" or "fast" on a device."""
    from triadbench.core.training.settings import ORIGINAL_PIPELINE, fast_pipeline

    return ORIGINAL_PIPELINE if pipeline == "original" else fast_pipeline(device)


def run(protocol: Protocol, settings: Settings) -> dict:
    """Measure what is missing of an experiment, and append a record for each figure.

    Setting by setting: the records of one are appended when its last trial is done.

    Returns:
        `experiment`, `protocol` ("full" or "short: ..."), `records` (path), `trials` (path), `measured` and `kept`
        (trials of this call and before), `appended`, `seconds`, `environment`, `figures` (the records).

    Raises:
        UserError: as `open_session`, or features that do not fit into the memory.
    """
    label, turns = protocol.label(), protocol.turns()
    if label != "full":
        settings.note(f"protocol {label}: not the original's figures")
    needs = {"needs_wavs": "original" in protocol.pipelines, "needs_pack": "fast" in protocol.pipelines}
    with open_session(settings, max(protocol.clips), **needs) as session:
        missing = [turn for turn in turns if not _is_done(turn, protocol, session)]
        if missing:
            check_memory([turn.case for turn in missing])
            _measure(protocol, missing, session)
        else:
            settings.note(f"all {len(turns)} trials are done ({session.log.path}); another --run folder measures anew")
        figures = [record for case in protocol.cases() for record in _records(case, protocol, session)]
        counts = {"measured": len(missing), "kept": len(turns) - len(missing)}
        what = {"experiment": protocol.experiment, "protocol": label}
        return {**what, **counts, **session.finish(figures), "figures": figures}


def check_memory(cases: Sequence[Case], way_out: str = "choose a smaller --clips, or --pipeline original") -> None:
    """Raises UserError where one of the cases would keep more features than its device has memory for."""
    from triadbench.core.training.batches import check_features

    largest: dict[str, int] = {}
    for case in cases:
        if switches_of(case.pipeline, case.device).mel == "cached":
            largest[case.device] = max(case.num_items, largest.get(case.device, 0))
    for device, n in largest.items():
        check_features(n, device, way_out=way_out)


def _trial(turn: Turn, attempt: int, protocol: Protocol) -> dict:
    # The number of trials is left out on purpose: six after two are four more, and none is measured twice.
    return {**asdict(turn.case), "epochs": protocol.epochs, "trial": turn.trial, "attempt": attempt}


def _lines(turn: Turn, protocol: Protocol, session: Session) -> list[dict]:
    """The attempts at a trial so far; one that nothing disturbed is the last."""
    lines = (session.log.find(_trial(turn, attempt, protocol)) for attempt in range(ATTEMPTS))
    return [line for line in lines if line is not None]


def _is_done(turn: Turn, protocol: Protocol, session: Session) -> bool:
    lines = _lines(turn, protocol, session)
    return bool(lines) and (turn.trial == 0 or len(lines) == ATTEMPTS or not lines[-1]["disturbed"])


def _measure(protocol: Protocol, missing: list[Turn], session: Session) -> None:
    remaining, epochs, waiting = Remaining(), protocol.epochs, [turn.case for turn in missing]
    n_turns = len(protocol.turns())
    for turn in protocol.turns():
        for line in _lines(turn, protocol, session):
            remaining.saw(turn.case, sum(line["samples"]) + sum(line["test_s"]))
    _warm_up(missing, session)
    with session.settings.progress("trials") as report:
        for setting in protocol.settings():
            for turn in (turn for turn in setting if not _is_done(turn, protocol, session)):
                session.settings.proceed()
                done, text = epochs * (n_turns - len(waiting)), remaining.text(waiting)

                def epoch_done(epoch: int, done: int = done, text: str = text) -> None:
                    report(done + epoch, epochs * n_turns, text)

                begun = time.perf_counter()
                while not _is_done(turn, protocol, session):
                    epoch_done(0)
                    measured = _run_trial(turn.case, epochs, session, epoch_done)
                    attempt = len(_lines(turn, protocol, session))
                    session.log.add(_trial(turn, attempt, protocol), measured.pop("train_s"), **measured)
                    if measured["disturbed"] and turn.trial:
                        session.settings.note(f"trial {turn.trial} of {turn.case.pipeline}: {measured['disturbed']}")
                seconds = time.perf_counter() - begun
                remaining.saw(turn.case, seconds)
                del waiting[0]
                if len(waiting) == len(missing) - 1 > 0:
                    more = f"{len(waiting)} more will take about {duration(remaining.seconds(waiting))}"
                    session.settings.note(f"the first trial took {duration(seconds)}; {more}")
            cases = dict.fromkeys(turn.case for turn in setting)
            session.append([record for case in cases for record in _records(case, protocol, session)])


def _run_trial(case: Case, epochs: int, session: Session, epoch_done: Callable[[int], None]) -> dict:
    """One trial as its line holds it; `train_s`, `test_s` and `prepared_s` (of both, paid once) are of each epoch."""
    switches, begun = switches_of(case.pipeline, case.device), time.perf_counter()
    options: dict[str, Any] = {name: getattr(case, name) for name in ("task", "device", "batch_size", "n_classes")}
    trainer = session.trainer(switches, case.num_items, **options)
    setup_s = time.perf_counter() - begun
    trained, tested = [], []
    with Monitor(case.device) as monitor:
        for epoch in range(epochs):
            trained.append(trainer.train_epoch())
            tested.append(trainer.test_epoch())
            epoch_done(epoch + 1)
    fields = monitor.fields()
    return {
        "train_s": [result.seconds for result in trained],
        "test_s": [result.seconds for result in tested],
        "setup_s": setup_s,
        "prepared_s": [train.prepared_s + test.prepared_s for train, test in zip(trained, tested, strict=True)],
        "n_train": trainer.n_train,
        "n_test": trainer.n_test,
        "train_loss": [result.loss for result in trained],
        "test_loss": float(tested[-1].loss),
        "test_accuracy": float(tested[-1].accuracy or 0.0),
        "switches": switches.describe(),
        "monitor": fields,
        "disturbed": disturbed(fields, case.device),
    }


def _warm_up(missing: list[Turn], session: Session) -> None:
    """An epoch of few clips for each: imports, compiled kernels and the GPU's start are not a trial's."""
    for task, device, pipeline in sorted({(turn.case.task, turn.case.device, turn.case.pipeline) for turn in missing}):
        trainer = session.trainer(switches_of(pipeline, device), 128, task=task, batch_size=32, device=device)
        trainer.train_epoch()
        trainer.test_epoch()


def _records(case: Case, protocol: Protocol, session: Session) -> list[dict]:
    warm_up, *trials = [_lines(Turn(case, trial), protocol, session) for trial in range(protocol.trials)]
    lines = [line for attempts in trials for line in attempts]
    kept, late = ([line for line in lines if bool(line["disturbed"]) == flag] for flag in (False, True))
    last, results = lines[-1], []
    # Threads and versions as the trials had them, not as they are when the record is made.
    every = {name: last[name] for name in ("test_loss", "test_accuracy", "switches", "environment")}
    every |= {name: [line[name] for line in kept] for name in ("setup_s", "prepared_s")} | session.data_fields()
    every |= {"seed": SEED, "split_seed": SPLIT_SEED, "disturbed": None if kept else last["disturbed"]}
    every["monitor"] = [line["monitor"] for line in kept]
    for phase, seconds, count in (("train", "samples", "n_train"), ("test", "test_s", "n_test")):
        first, means = fmean(warm_up[0][seconds]), [fmean(line[seconds]) for line in kept]
        fields = {"parameters": parameters(case, protocol, phase=phase), "first_call": first, "n_clips": last[count]}
        fields |= {"epoch_seconds": [line[seconds] for line in kept], "first_epoch_seconds": warm_up[0][seconds]}
        fields["disturbed_trials"] = [
            {"trial": line["parameters"]["trial"], "epoch_seconds": line[seconds], "disturbed": line["disturbed"]}
            for line in late
        ]
        results.append(records.make(f"experiment {case.experiment}", unit="s", samples=means, **every, **fields))
    return results
