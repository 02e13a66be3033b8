"""How long is an epoch, by batch size and by number of clips, with the original pipeline and with the fast one?

Timed, as in the original: the training part and the testing part of each epoch apart; a trial is five epochs of a
network trained from its seeded start, its figure their mean; the first of six trials is dropped. Whatever a pipeline
prepares in its first epoch (features that it keeps, a graph that it captures) is in that epoch's time. Not timed:
making the trainer (kept as `setup_s`), opening the clips, and a short run of every contestant before the first trial of
a process, so that a resumed study does not measure a cold start.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean

from triadbench.bench import machine, outputs, records
from triadbench.bench.study import clips as study_clips
from triadbench.bench.study.eta import Remaining, duration
from triadbench.bench.study.protocol import SEED, SPLIT_SEED, Case, Protocol, parameters
from triadbench.bench.study.trials import FILE, TrialLog, append_once, fingerprint
from triadbench.core import timing
from triadbench.core.constants import usable_cores

RUNS = Path("runs")
PHASES = ("train", "test")
_WARM_CLIPS = 128


def make_trainer(dataset, *, task: str, batch_size: int, device: str, switches, seed: int = SEED, **more):
    """`core.training.epoch.StudyTrainer` with the study's split; tests give another maker."""
    from triadbench.core.training.epoch import StudyTrainer

    return StudyTrainer(
        dataset,
        task=task,
        batch_size=batch_size,
        seed=seed,
        split_seed=SPLIT_SEED,
        switches=switches,
        device=device,
        **more,
    )


def switches_of(pipeline: str, device: str):
    """The switches of "original" or "fast" on a device."""
    from triadbench.core.training.pipeline import ORIGINAL_PIPELINE, fast_pipeline

    return ORIGINAL_PIPELINE if pipeline == "original" else fast_pipeline(device)


def run(
    protocol: Protocol,
    *,
    folder: Path,
    records_path: Path,
    data: Path | None = None,
    data_folder: Path = study_clips.FOLDER,
    progress: Callable[[str], contextlib.AbstractContextManager],
    note: Callable[[str], None] = lambda _: None,
    maker: Callable = make_trainer,
) -> dict:
    """Measure what is missing of an experiment, and append a record for each figure.

    Args:
        folder: of the run, where finished trials are kept; the same folder goes on where it was.
        records_path: JSON Lines file to append to; a figure that it holds already is not appended again.
        data: folder, zip or pack of clips; None renders a set (see `bench.study.clips`).
        progress: makes a context with a callback (done, total, text) from a label, as `core.commands.console.progress`.
        note: called with a line for the reader.
        maker: makes a trainer, as `make_trainer`.

    Returns:
        `experiment`, `protocol` ("full" or "short: ..."), `records` (path), `trials` (path), `measured` and `kept`
        (trials of this call and before), `appended`, `seconds`, `environment`, `figures` (the records).

    Raises:
        UserError: clips that cannot be read, a folder in use, an output that cannot be written, features that do not
            fit into the memory, a disk that is full.
    """
    started = time.perf_counter()
    outputs.check_writable(records_path, "--records", appended=True)
    outputs.check_writable(folder / FILE, "--run", appended=True)
    if protocol.label() != "full":
        note(f"protocol {protocol.label()}: not the original's figures")
    with outputs.only_one(folder):
        sets = prepare_clips(protocol, data, data_folder, progress)
        environment = machine.environment()
        log = TrialLog(folder, fingerprint(environment, sets.digest), note)
        turns = protocol.turns()
        missing = [turn for turn in turns if log.find(_trial(turn.case, turn.trial, protocol)) is None]
        if not missing:
            note(f"all {len(turns)} trials are done ({log.path}); another --run folder measures anew")
        check_memory([turn.case for turn in missing])
        _measure(protocol, missing, turns, log, sets, progress, note, maker)
        made = [record for case in protocol.cases() for record in _records(case, protocol, log, environment, sets)]
        appended = sum(append_once(record, records_path) for record in made)
    return {
        "experiment": protocol.experiment,
        "protocol": protocol.label(),
        "records": str(records_path),
        "trials": str(log.path),
        "measured": len(missing),
        "kept": len(turns) - len(missing),
        "appended": appended,
        "seconds": round(time.perf_counter() - started, 1),
        "environment": environment,
        "figures": made,
    }


def prepare_clips(protocol: Protocol, data: Path | None, data_folder: Path, progress) -> study_clips.StudyClips:
    """The clips of every pipeline of a protocol, made where missing, with a bar for each step of it."""
    with stepwise(progress) as report:
        return study_clips.prepare(
            max(protocol.clips),
            needs_wavs="original" in protocol.pipelines,
            needs_pack="fast" in protocol.pipelines,
            source=data,
            folder=data_folder,
            report=report,
        )


@contextlib.contextmanager
def stepwise(progress):
    """A callback (step, done, total) that opens a new bar whenever the step changes."""
    with contextlib.ExitStack() as stack:
        bars: dict[str, Callable] = {}

        def report(step: str, done: int, total: int | None) -> None:
            if step not in bars:
                stack.close()
                bars.clear()
                bars[step] = stack.enter_context(progress(step))
            bars[step](done, total)

        yield report


def check_memory(cases: Sequence[Case], way_out: str = "choose a smaller --clips, or --pipeline original") -> None:
    """Raises UserError where one of the cases would keep more features than its device has memory for."""
    from triadbench.core.training.batches import check_features

    largest: dict[str, int] = {}
    for case in cases:
        if switches_of(case.pipeline, case.device).mel == "cached":
            largest[case.device] = max(case.num_items, largest.get(case.device, 0))
    for device, n in largest.items():
        check_features(n, device, way_out=way_out)


def _trial(case: Case, trial: int, protocol: Protocol) -> dict:
    # The number of trials is left out on purpose: six after two are four more, and none is measured twice.
    return {**asdict(case), "epochs": protocol.epochs, "trial": trial}


def _measure(protocol, missing, turns, log, sets, progress, note, maker) -> None:
    if not missing:
        return
    remaining = Remaining()
    for turn in turns:
        line = log.find(_trial(turn.case, turn.trial, protocol))
        if line is not None:
            remaining.saw(turn.case, sum(line["samples"]) + sum(line["test_s"]))
    _warm_up({(turn.case.task, turn.case.device, turn.case.pipeline) for turn in missing}, sets, maker)
    total, done = protocol.epochs * len(turns), protocol.epochs * (len(turns) - len(missing))
    with progress("trials") as report:
        report(done, total, "")
        for count, turn in enumerate(missing):
            waiting = [later.case for later in missing[count:]]
            begun = time.perf_counter()
            text = remaining.text(waiting)

            def epoch_done(epoch: int, done=done, text=text) -> None:
                report(done + epoch, total, text)

            measured = _run_trial(turn.case, protocol.epochs, sets, maker, epoch_done)
            log.add(_trial(turn.case, turn.trial, protocol), measured.pop("train_s"), **measured)
            took = time.perf_counter() - begun
            remaining.saw(turn.case, took)
            done += protocol.epochs
            if count == 0 and len(missing) > 1:
                left = duration(remaining.seconds(waiting[1:]))
                note(f"the first trial took {duration(took)}; {len(missing) - 1} more will take about {left}")


def _run_trial(case: Case, epochs: int, sets, maker, epoch_done) -> dict:
    """One trial as its line holds it.

    `train_s`, `test_s` and `prepared_s` (of both, paid once) are of each epoch.
    """
    switches = switches_of(case.pipeline, case.device)
    dataset = sets.of(switches.packed, case.num_items)
    begun = time.perf_counter()
    trainer = maker(dataset, task=case.task, batch_size=case.batch_size, device=case.device, switches=switches)
    setup_s = time.perf_counter() - begun
    others = timing.OtherWork()
    train_s, test_s, prepared_s, train_loss = [], [], [], []
    for epoch in range(epochs):
        trained = trainer.train_epoch()
        tested = trainer.test_epoch()
        train_s.append(trained.seconds)
        test_s.append(tested.seconds)
        prepared_s.append(trained.prepared_s + tested.prepared_s)
        train_loss.append(trained.loss)
        epoch_done(epoch + 1)
    other_cores = others.cores()
    threads, cores = timing.own_threads(), usable_cores()
    return {
        "train_s": train_s,
        "test_s": test_s,
        "setup_s": setup_s,
        "prepared_s": prepared_s,
        "n_train": trainer.n_train,
        "n_test": trainer.n_test,
        "train_loss": train_loss,
        "test_loss": float(tested.loss),
        "test_accuracy": float(tested.accuracy),
        "switches": switches.describe(),
        "other_cores": other_cores,
        "disturbed": timing.is_disturbed(other_cores, threads, cores),
    }


def _warm_up(contestants, sets, maker) -> None:
    """An epoch of few clips for each: imports, compiled kernels and the GPU's start are not a trial's."""
    for task, device, pipeline in sorted(contestants):
        switches = switches_of(pipeline, device)
        whole = sets.pack if switches.packed else sets.wavs
        dataset = sets.of(switches.packed, min(_WARM_CLIPS, len(whole)))
        trainer = maker(dataset, task=task, batch_size=32, device=device, switches=switches)
        trainer.train_epoch()
        trainer.test_epoch()


def _records(case: Case, protocol: Protocol, log: TrialLog, environment: dict, sets) -> list[dict]:
    lines = [log.find(_trial(case, trial, protocol)) for trial in range(protocol.trials)]
    made = []
    for phase in PHASES:
        epochs = [line["samples"] if phase == "train" else line["test_s"] for line in lines]
        means = [fmean(seconds) for seconds in epochs]
        made.append(
            records.make(
                f"experiment {case.experiment}",
                parameters=parameters(case, protocol, phase=phase),
                unit="s",
                samples=means[1:],
                first_call=means[0],
                # Threads and versions as the trials had them, not as they are when the record is made.
                environment=lines[-1]["environment"],
                epoch_seconds=epochs[1:],
                first_epoch_seconds=epochs[0],
                n_clips=lines[-1]["n_train" if phase == "train" else "n_test"],
                setup_s=[line["setup_s"] for line in lines[1:]],
                prepared_s=[line["prepared_s"] for line in lines[1:]],
                test_loss=lines[-1]["test_loss"],
                test_accuracy=lines[-1]["test_accuracy"],
                switches=lines[-1]["switches"],
                seed=SEED,
                split_seed=SPLIT_SEED,
                data={"origin": sets.origin, "digest": sets.digest},
                other_cores=max(line["other_cores"] for line in lines[1:]),
                disturbed=any(line["disturbed"] for line in lines[1:]),
                fingerprint=log.fingerprint,
            )
        )
    return made
