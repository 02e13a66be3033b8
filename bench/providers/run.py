"""What does an answer cost in every format, precision, provider, thread count and batch size?

Timed: a call on clips of four seconds that lie in memory, to probabilities in memory; on a GPU with the copies and,
apart, without. "Single stream" is one clip a call; "offline" as many clips a second as go, for each batch size.
Contestants take turns in one process (bench/providers/rounds.py). Apart, in fresh processes: loading, the first call
and memory. And what a user waits for: a folder of files, and whole processes.
Before a contestant is timed its answers to the very clips are compared with the PyTorch model's; a wrong one is named,
not timed, and makes the run fail.

Every group of measurements is appended to the record file when it is done.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from triadbench.bench import machine, records
from triadbench.bench.providers import contestants, energy, fresh, gate
from triadbench.bench.providers import end_to_end as whole
from triadbench.bench.providers import rounds as turns
from triadbench.bench.providers.contestants import Contestant
from triadbench.bench.providers.plan import PARTS, Effort, Plan
from triadbench.bench.providers.runners import Opened
from triadbench.core import timing
from triadbench.core.constants import usable_cores
from triadbench.core.errors import UserError

NAMES = {part: f"benchmark {'single stream' if part == 'single' else part}" for part in PARTS}
MODEL = "chordnet.onnx"
_CLIP_MB = 8.0  # where no fresh process has shown what a clip takes; most was 4
_LONG_MS = 250.0  # a call that takes longer needs none before it that is not timed
_MEMORY_SHARE = 0.4  # of what is free may be filled by one call


def measure(
    records_path: Path,
    plan: Plan,
    effort: Effort,
    *,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
    note: Callable[[str], None] = lambda text: None,
) -> tuple[list[dict], list[str]]:
    """Measure, and append every finished group to the file.

    Args:
        progress: called with (steps done, steps in all).
        note: called with a line about what is left out.

    Returns:
        (records made, failed checks in words).
    """
    import torch

    threads = torch.get_num_threads()
    try:
        with tempfile.TemporaryDirectory(prefix="triadbench-") as scratch:
            work = _Benchmark(Path(scratch), records_path, plan, effort, progress, note)
            work.measure()
    finally:
        torch.set_num_threads(threads)
    return work.made, work.failed


class _Benchmark:
    def __init__(self, scratch: Path, records_path: Path, plan: Plan, effort: Effort, progress, note):
        from triadbench.core.models.predictor import Predictor

        self.scratch, self.records_path, self.plan, self.effort, self.note = scratch, records_path, plan, effort, note
        predictor = Predictor.load(plan.checkpoint)
        if predictor.checkpoint.task != "both":
            raise UserError(
                f"{plan.checkpoint.name} answers for the {predictor.checkpoint.task} only; give one for both"
            )
        self.made: list[dict] = []
        self.failed: list[str] = []
        self.dropped: set[str] = set()
        self.per_clip_mb: dict[str, float] = {}
        self.environment = machine.environment()
        most = {"single": effort.pool, "offline": max(plan.batches), "load": effort.fresh_batch, "files": effort.files}
        self.clips = gate.make_clips(max([1, *(most[part] for part in plan.parts if part in most)]))
        self.right = gate.expected(predictor, self.clips)
        self._progress, self._done, self._steps = progress, 0, self._count_steps()

    def measure(self) -> None:
        plan = self.plan
        for one, reason in plan.absent:
            self.note(f"not measured: {one.name}: {reason}")
        self._add(self._left_out(NAMES["single"], one, reason, batch=1) for one, reason in plan.absent)
        self.ready = self._prepared()
        if "load" in plan.parts:
            np.save(self.scratch / "clips.npy", self.clips[: self.effort.fresh_batch])
            for one in self.ready:
                self._load(one)
        for threads in plan.threads:
            if "single" in plan.parts or "offline" in plan.parts:
                self._in_turns(threads)
        if "files" in plan.parts:
            self._files()
        if "process" in plan.parts:
            self._processes()

    def _prepared(self) -> list[Contestant]:
        """The STFT contestant's file is made here."""
        ready = []
        for one in self.plan.contestants:
            if one.format == contestants.STFT:
                path = self.scratch / "stft.onnx"
                contestants.write_stft_model(Path(one.path), path)
                one = dataclasses.replace(one, path=str(path))
            ready.append(one)
        return ready

    # ---- fresh processes

    def _load(self, one: Contestant) -> None:
        runs, batch, threads = [], self.effort.fresh_batch, 1
        others = timing.OtherWork()
        try:
            for _ in range(self.effort.fresh):
                found, outputs = fresh.measure(one, threads, self.scratch / "clips.npy", batch)
                check = self._compare(one, outputs, 1)
                if check.reason:
                    self._drop(one, NAMES["load"], check, threads=threads, batch=batch)
                    return
                runs.append(found)
                self._step()
        except fresh.FreshError as error:
            self._fail(one, NAMES["load"], str(error), threads=threads, batch=batch)
            return
        self.per_clip_mb[one.name] = max(run["batch_memory_mb"] - run["memory_mb"] for run in runs) / batch
        self._add(
            [
                self._record(
                    NAMES["load"],
                    one,
                    [run["load_ms"] for run in runs],
                    {"threads": threads, "batch": batch},
                    check,
                    first_call=_median([run["first_call_ms"] for run in runs]),
                    runs=runs,
                    bytes=_bytes(one),
                    **self._disturbed(others.cores(), threads),
                )
            ]
        )

    # ---- in turns, in this process

    def _in_turns(self, threads: int) -> None:
        opened: dict[str, Opened] = {}
        placements: dict[str, dict | None] = {}
        for one in self.ready:
            # A GPU does not care for the CPU's threads: it is measured once, beside the CPU with most of them.
            if one.name in self.dropped or (one.device == "cuda" and threads != max(self.plan.threads)):
                continue
            try:
                opened[one.name] = Opened(one, threads)
                placements[one.name] = opened[one.name].placement()
            except UserError as error:
                self._fail(one, NAMES["single"], str(error), threads=threads, batch=1)
        batches = [1] if "single" in self.plan.parts else []
        for name, sizes in (
            ("single", batches),
            ("offline", self.plan.batches if "offline" in self.plan.parts else ()),
        ):
            for batch in sizes:
                self._group(name, opened, placements, threads, batch)

    def _group(self, part: str, opened: dict[str, Opened], placements: dict, threads: int, batch: int) -> None:
        """All contestants at one batch size; with copies, and on a GPU without as well."""
        import torch

        torch.set_num_threads(threads)
        calls, first_ms, once_ms, checks, of = {}, {}, {}, {}, {}
        pool = self.effort.pool if part == "single" else batch
        for name, ready in opened.items():
            one = ready.contestant
            if name in self.dropped or self._too_large(one, part, threads, batch):
                continue
            found = self._checked(part, ready, threads, batch, pool)
            if found is None:
                continue
            first_ms[name], once_ms[name], checks[name] = found
            calls[name], of[name] = self._call(ready, batch, pool), (one, True)
            bound = ready.resident(self.clips[:batch])
            if bound is not None:
                self._add_resident(name, one, bound, batch, calls, once_ms, first_ms, checks, of)
        if not calls:
            return
        effort = self.effort
        gpu = any(one.device == "cuda" for one, _ in of.values())
        joules, why_no_joules = energy.meter("cuda" if gpu else "cpu")
        blocks = effort.blocks if part == "single" else effort.offline_blocks
        wanted = {name: effort.queries for name in calls}
        if part == "offline":
            clips = -(-effort.offline_clips // batch)
            wanted = {name: max(blocks, clips, round(1e3 * effort.offline_s / once_ms[name])) for name in calls}
        taken, other_cores = turns.take_turns(
            calls,
            wanted,
            blocks=blocks,
            most_s=effort.most_s,
            energy=joules,
            seed=10_000 * threads + batch,
            long={name for name, took_ms in once_ms.items() if took_ms > _LONG_MS},
            progress=self._step,
        )
        made = []
        for name, (samples_ms, used_j) in taken.items():
            one, copies = of[name]
            on_gpu = one.device == "cuda"
            made.append(
                self._record(
                    NAMES[part],
                    one,
                    samples_ms,
                    {"threads": threads, "batch": batch, "copies": copies},
                    checks[name],
                    first_call=first_ms[name],
                    placement=placements.get(one.name),
                    clips=batch * len(samples_ms),
                    energy_j=used_j if on_gpu else None,
                    energy_note=why_no_joules if on_gpu else None,
                    **self._disturbed(other_cores, threads),
                )
            )
        self._add(made)

    def _checked(self, part: str, ready: Opened, threads: int, batch: int, pool: int):
        """(first call ms, later call ms, check) on every clip that will be timed; None if that failed."""
        one, outputs, first_ms = ready.contestant, [], None
        try:
            for start in range(0, pool, batch):
                before = time.perf_counter()
                outputs.append(ready(self.clips[start : start + batch]))
                first_ms = first_ms or 1e3 * (time.perf_counter() - before)
            once_ms = first_ms
            if once_ms < _LONG_MS:
                before = time.perf_counter()
                ready(self.clips[:batch])
                once_ms = 1e3 * (time.perf_counter() - before)
        except (UserError, RuntimeError, MemoryError) as error:
            self._fail(one, NAMES[part], " ".join(str(error).split())[:300], threads=threads, batch=batch)
            return None
        together = {name: np.concatenate([found[name] for found in outputs]) for name in contestants.OUTPUTS}
        check = self._compare(one, together, pool)
        if check.reason:
            self._drop(one, NAMES[part], check, threads=threads, batch=batch)
            return None
        return first_ms, once_ms, check

    def _call(self, ready: Opened, batch: int, pool: int) -> Callable[[int], object]:
        clips = self.clips[:pool]
        return lambda number: ready(clips[number * batch % pool : number * batch % pool + batch])

    def _add_resident(self, name, one, bound, batch, calls, once_ms, first_ms, checks, of) -> None:
        """The same without copies, if its answers pass as well."""
        run, outputs = bound
        run()
        check = self._compare(one, outputs(), batch)
        if check.reason:
            self._drop(one, NAMES["single"], check, batch=batch)
            del calls[name]
            return
        key = f"{name}, no copies"
        calls[key], once_ms[key], first_ms[key], checks[key] = lambda _: run(), once_ms[name], None, check
        of[key] = (one, False)

    def _too_large(self, one: Contestant, part: str, threads: int, batch: int) -> bool:
        import psutil

        needed_mb = self.per_clip_mb.get(one.name, _CLIP_MB) * batch
        free_mb = psutil.virtual_memory().available / 1e6
        if needed_mb <= _MEMORY_SHARE * free_mb:
            return False
        reason = f"{batch} clips would take about {needed_mb:,.0f} MB of {free_mb:,.0f} MB that are free"
        self.note(f"not measured: {one.name}, batch {batch}: {reason}")
        self._add([self._left_out(NAMES[part], one, reason, threads=threads, batch=batch, copies=True)])
        return True

    # ---- what a user waits for

    def _files(self) -> None:
        model = self.plan.folder / MODEL.replace("chordnet", self.plan.checkpoint.stem)
        n, threads = self.effort.files, max(self.plan.threads)
        if not model.is_file():
            self.note(f"not measured: files: {model.name} is not there; `export` makes it")
            return
        folder = self.scratch / "wavs"
        folder.mkdir()
        wavs = whole.write_wavs(self.clips[:n], folder)
        try:
            found = whole.files(model, self.plan.checkpoint, wavs, threads, self.effort.rounds, self._step)
        except UserError as error:
            self._failed_check("files", str(error))
            return
        more = {"clips": n, "front_end": found["front_end"], **self._disturbed(found["other_cores"], threads)}
        self._add(
            records.make(
                NAMES["files"],
                parameters={"way": way, "files": n, "threads": threads},
                unit="s",
                samples=found["seconds"][way],
                first_call=found["first_s"][way],
                environment=self.environment,
                error={"reference": "the other ways", "other_labels": 0},
                effort=self.effort.name,
                **more,
            )
            for way in whole.ways(threads)
        )

    def _processes(self) -> None:
        from triadbench.core.models.prediction import name_chord
        from triadbench.core.models.predictor import SHIPPED

        if self.plan.checkpoint != SHIPPED or not (SHIPPED.parent / MODEL).is_file():
            self.note(f"not measured: whole processes, which answer with the shipped {MODEL}")
            return
        wav = whole.write_wavs(self.clips[:1], self.scratch)[0]
        root, kind = divmod(int(self.right["labels"][0]), 4)
        joint = np.zeros((12, 4))
        joint[root, kind] = 1.0
        try:
            found = whole.processes(wav, name_chord(joint)["chord"], self.effort.processes, self._step)
        except UserError as error:
            self._failed_check("process", str(error))
            return
        self._add(
            records.make(
                NAMES["process"],
                parameters={"command": command},
                unit="s",
                samples=samples,
                first_call=found["first_s"][command],
                environment=self.environment,
                effort=self.effort.name,
                error={"reference": "PyTorch", "other_labels": 0} if command != "--help" else None,
                **self._disturbed(found["other_cores"], 1),
            )
            for command, samples in found["seconds"].items()
        )

    # ---- records

    def _compare(self, one: Contestant, outputs: dict[str, np.ndarray], n: int) -> gate.Check:
        """With the PyTorch model's answers to the first `n` clips."""
        right = {name: values[:n] for name, values in self.right.items()}
        return gate.compare(outputs, right, one.precision, contestants.FORMATS[one.format].limit)

    def _record(self, name: str, one: Contestant, samples: list[float], given: dict, check: gate.Check, **more) -> dict:
        return records.make(
            name,
            parameters=one.parameters() | given,
            unit="ms",
            samples=samples,
            error=check.error(),
            environment=self.environment,
            effort=self.effort.name,
            **more,
        )

    def _left_out(self, name: str, one: Contestant, reason: str, error: dict | None = None, **given) -> dict:
        return records.make(
            f"{name} left out",
            parameters=one.parameters() | given,
            unit="ms",
            samples=[],
            error=error,
            environment=self.environment,
            effort=self.effort.name,
            reason=reason,
        )

    def _drop(self, one: Contestant, name: str, check: gate.Check, **given) -> None:
        """A wrong contestant is timed nowhere any more."""
        error = check.error() if np.isfinite(check.worst_difference) else None
        self._fail(one, name, f"wrong: {check.reason}", error, **given)

    def _fail(self, one: Contestant, name: str, reason: str, error: dict | None = None, **given) -> None:
        self.dropped.add(one.name)
        self.failed.append(f"{one.name}: {reason}")
        self.note(f"dropped {one.name}: {reason}")
        self._add([self._left_out(name, one, reason, error, **given)])

    def _failed_check(self, part: str, reason: str) -> None:
        self.failed.append(f"{part}: {reason}")
        self.note(f"dropped {part}: {reason}")

    def _disturbed(self, other_cores: float, threads: int) -> dict:
        cores = usable_cores()
        return {"other_cores": other_cores, "disturbed": timing.is_disturbed(other_cores, threads, cores)}

    def _add(self, made) -> None:
        made = list(made)
        records.append_all(made, self.records_path)
        self.made += made

    def _count_steps(self) -> int:
        plan, effort, n = self.plan, self.effort, len(self.plan.contestants)
        on_gpu = sum(one.device == "cuda" for one in plan.contestants)
        in_turns = ("single" in plan.parts) * effort.blocks
        in_turns += ("offline" in plan.parts) * len(plan.batches) * effort.offline_blocks
        return (
            ((n - on_gpu) * len(plan.threads) + 2 * on_gpu) * in_turns  # a GPU once, with and without copies
            + ("load" in plan.parts) * n * effort.fresh
            + ("files" in plan.parts) * len(whole.ways(max(plan.threads))) * (effort.rounds + 1)
            + ("process" in plan.parts) * 2 * (effort.processes + 1)
        )

    def _step(self) -> None:
        self._done += 1
        self._progress(min(self._done, self._steps), self._steps)


def _median(values: Sequence[float]) -> float:
    return float(np.median(values))


def _bytes(one: Contestant) -> int:
    return Path(one.path).stat().st_size
