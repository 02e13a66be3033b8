"""What does an answer cost in every format, precision, provider, thread count and batch size?

Timed: a call on clips of four seconds that lie in memory, to probabilities in memory; on a GPU with the copies and,
apart, without. "Single stream" is one clip a call; "offline" as many clips a second as go, for each batch size.
Contestants alternate in one process, in blocks of calls that are shuffled round by round.
Apart, in fresh processes: loading, the first call and memory. And what a user waits for: a folder of files, and whole
processes.
Before a contestant is timed its answers to the very clips are compared with the PyTorch model's; a wrong one is named,
not timed, and makes the run fail.

Every group of measurements is appended to the record file when it is done.
"""

import dataclasses
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from triadbench.bench import machine, records
from triadbench.bench.providers import contestants as ways
from triadbench.bench.providers import end_to_end, gate
from triadbench.bench.providers.contestants import FORMATS, GPU_LIMIT, OUTPUTS, STFT, Contestant, Opened, Outputs
from triadbench.bench.providers.plan import Effort, Plan
from triadbench.bench.roofs import torch_threads
from triadbench.core import timing
from triadbench.core.device import available_bytes
from triadbench.core.errors import UserError
from triadbench.core.models.prediction import require_chords
from triadbench.core.models.predictor import SHIPPED, Predictor
from triadbench.core.models.spelling import chord_name
from triadbench.kernels.scratch import scratch_folder

MODEL = "chordnet.onnx"
_CLIP_MB = 8.0  # where no fresh process has shown what a clip takes; most was 4
_SETTLE_S = 0.02  # OpenMP's and ONNX Runtime's threads spin that long, and would take a core from the next contestant
_LONG_MS = 250.0  # a call that takes longer needs none before it that is not timed
_MEMORY_SHARE = 0.4  # of what is free may be filled by one call


def measure(
    records_path: Path,
    plan: Plan,
    effort: Effort,
    *,
    seconds: float = float("inf"),
    progress: Callable[[int, int | None], None] = lambda done, total: None,
    note: Callable[[str], None] = lambda text: None,
) -> tuple[list[dict], list[str]]:
    """Measure, and append every finished group to the file: (records made, failed checks in words).

    After `seconds` no other group is begun: it is left out. `progress` is called with (steps done, steps in all),
    `note` with a line about what is left out.
    """
    end = time.perf_counter() + seconds
    with torch_threads(torch.get_num_threads()), scratch_folder() as scratch:
        benchmark = _Benchmark(scratch, records_path, plan, effort, progress, note, end)
        benchmark.measure()
    return benchmark.results, benchmark.failed


class _Entry(NamedTuple):
    """A contestant in a group, checked on every clip that is timed."""

    contestant: Contestant
    call: Callable[[int], object]  # of the number of the query
    check: gate.Check
    once_ms: float
    first_ms: float | None  # None without copies, which are never the first
    copies: bool = True  # between host and device are in the time


class _Benchmark:
    def __init__(
        self,
        scratch: Path,
        records_path: Path,
        plan: Plan,
        effort: Effort,
        progress: Callable,
        note: Callable,
        end: float,
    ) -> None:
        self._end = end  # on `time.perf_counter`
        self.scratch, self.records_path, self.plan, self.effort, self.note = scratch, records_path, plan, effort, note
        predictor = Predictor.load(plan.checkpoint)
        require_chords(predictor.checkpoint.task, plan.checkpoint.name)
        self.results: list[dict] = []
        self.failed: list[str] = []
        self._dropped: set[str] = set()
        self._clip_mb: dict[str, float] = {}
        self._environment = machine.environment()
        most = {"single": effort.pool, "offline": max(plan.batches), "load": effort.fresh_batch, "files": effort.files}
        self.clips = gate.make_clips(max([1, *(most[part] for part in plan.parts if part in most)]))
        self._reference = gate.expected(predictor, self.clips)
        self._progress, self._done, self._steps = progress, 0, self._count_steps()

    def measure(self) -> None:
        """All parts of the plan."""
        plan = self.plan
        for contestant, reason in plan.absent:
            self._leave_out("single", contestant, reason, batch=1)
        contestants = list(plan.contestants)
        for i, contestant in enumerate(contestants):
            if contestant.format == STFT:  # never shipped, its file is made here
                contestants[i] = dataclasses.replace(contestant, path=str(self.scratch / "stft.onnx"))
                ways.write_stft_model(Path(contestant.path), self.scratch / "stft.onnx")
        if "load" in plan.parts:
            np.save(self.scratch / "clips.npy", self.clips[: self.effort.fresh_batch])
            for contestant in contestants:
                self._load(contestant)
        for threads in plan.threads:
            if "single" in plan.parts or "offline" in plan.parts:
                self._answer(contestants, threads)
        for part, measure in (("files", self._files), ("process", self._processes)):
            if part in plan.parts:
                try:
                    measure()
                except UserError as error:
                    self.failed.append(f"{part}: {error}")
                    self.note(f"dropped {part}: {error}")

    def _load(self, contestant: Contestant) -> None:
        """Fresh processes."""
        runs, batch, others = [], self.effort.fresh_batch, timing.OtherWork()
        case: dict[str, Any] = {"threads": 1, "batch": batch}
        for _ in range(self.effort.fresh):
            try:
                run, outputs = ways.measure_fresh(contestant, 1, self.scratch / "clips.npy", batch)
            except machine.ProcessError as error:
                self._fail("load", contestant, str(error), **case)
                return
            if (check := self._compare("load", contestant, outputs, **case)) is None:
                return
            runs.append(run)
            self._step()
        self._clip_mb[contestant.name] = max(run["batch_memory_mb"] - run["memory_mb"] for run in runs) / batch
        first_ms = float(np.median([run["first_call_ms"] for run in runs]))
        more = {"error": check.error(), "first_call": first_ms, "runs": runs, **others.fields(1)}
        more["bytes"] = Path(contestant.path).stat().st_size
        self._add(self._make("load", contestant.parameters() | case, [run["load_ms"] for run in runs], **more))

    def _answer(self, contestants: Sequence[Contestant], threads: int) -> None:
        """Single stream and offline with so many threads, in this process."""
        opened: list[tuple[Opened, dict | None]] = []
        for contestant in contestants:
            # A GPU does not care for the CPU's threads: it is measured once, beside the CPU with most of them.
            elsewhere = contestant.device == "cuda" and threads != max(self.plan.threads)
            if contestant.name in self._dropped or elsewhere:
                continue
            try:
                ready = Opened(contestant, threads)
                opened.append((ready, ready.placement()))
            except UserError as error:
                self._fail("single", contestant, str(error), threads=threads, batch=1)
        for part, batches in (("single", (1,)), ("offline", self.plan.batches)):
            for batch in batches if part in self.plan.parts else ():
                self._group(part, opened, threads, batch)

    def _group(self, part: str, opened: list[tuple[Opened, dict | None]], threads: int, batch: int) -> None:
        """All contestants at one batch size; with copies, and on a GPU without as well."""
        torch.set_num_threads(threads)
        effort = self.effort
        entries: dict[str, _Entry] = {}
        for ready, _ in opened:
            if time.perf_counter() > self._end:
                case: dict[str, Any] = {"threads": threads, "batch": batch, "copies": True}
                self._leave_out(part, ready.contestant, "no time was left", **case)
                continue
            entries |= self._entries(part, ready, threads, batch)
        if not entries:
            return
        on_gpu = any(entry.contestant.device == "cuda" for entry in entries.values())
        joules, why_no_joules = energy_meter("cuda" if on_gpu else "cpu")
        blocks, calls = effort.blocks, dict.fromkeys(entries, effort.queries)
        if part == "offline":
            blocks, least = effort.offline_blocks, max(effort.offline_blocks, -(-effort.offline_clips // batch))
            budget_ms = 1e3 * effort.offline_s
            calls = {name: max(least, round(budget_ms / entry.once_ms)) for name, entry in entries.items()}
        functions = {name: entry.call for name, entry in entries.items()}
        options: dict[str, Any] = {"energy": joules, "seed": 10_000 * threads + batch, "progress": self._step}
        options["long"] = {name for name, entry in entries.items() if entry.once_ms > _LONG_MS}
        taken, other_cores = take_turns(functions, calls, blocks=blocks, most_s=effort.most_s, **options)
        placements = {ready.contestant.name: placement for ready, placement in opened}
        results = []
        for name, (samples_ms, used_j) in taken.items():
            entry, contestant = entries[name], entries[name].contestant
            case = {"threads": threads, "batch": batch, "copies": entry.copies}
            energy_j, note = (used_j, why_no_joules) if contestant.device == "cuda" else (None, None)
            more: dict[str, Any] = {"placement": placements[contestant.name], "clips": batch * len(samples_ms)}
            more |= {"energy_j": energy_j, "energy_note": note, **timing.load_fields(other_cores, threads)}
            more |= {"error": entry.check.error(), "first_call": entry.first_ms}
            results.append(self._make(part, contestant.parameters() | case, samples_ms, **more))
        self._add(*results)

    def _entries(self, part: str, ready: Opened, threads: int, batch: int) -> dict[str, _Entry]:
        """A contestant after its check on every clip that will be timed: none, itself, and without copies."""
        contestant = ready.contestant
        case: dict[str, Any] = {"threads": threads, "batch": batch}
        if contestant.name in self._dropped or self._is_too_large(part, contestant, threads, batch):
            return {}
        pool, outputs = self.clips[: self.effort.pool if part == "single" else batch], []

        def call(number: int) -> Outputs:
            start = number * batch % len(pool)
            return ready(pool[start : start + batch])

        try:
            numbers = range(-(-len(pool) // batch))  # every clip of the pool once; the first call apart
            first_ms, *_ = timing.call_times_ms(lambda number: outputs.append(call(number)), numbers)
            once_ms = first_ms if first_ms >= _LONG_MS else timing.call_times_ms(call, [0])[0]
        except (UserError, RuntimeError, MemoryError) as error:
            self._fail(part, contestant, records.reason_of(error), **case)
            return {}
        together = {name: np.concatenate([part_outputs[name] for part_outputs in outputs]) for name in OUTPUTS}
        if (check := self._compare(part, contestant, together, **case)) is None:
            return {}
        entries = {contestant.name: _Entry(contestant, call, check, once_ms, first_ms)}
        if resident := ready.resident(self.clips[:batch]):  # pragma: no cover (needs a GPU)
            run, bound_outputs = resident
            run()
            if (check := self._compare("single", contestant, bound_outputs(), batch=batch)) is None:
                return {}
            entry = _Entry(contestant, lambda _: run(), check, once_ms, None, copies=False)
            entries[f"{contestant.name}, no copies"] = entry
        return entries

    def _is_too_large(self, part: str, contestant: Contestant, threads: int, batch: int) -> bool:
        needed_mb = self._clip_mb.get(contestant.name, _CLIP_MB) * batch
        free_mb = available_bytes("cpu") / 1e6
        if needed_mb <= _MEMORY_SHARE * free_mb:
            return False
        reason = f"{batch} clips would take about {needed_mb:,.0f} MB of {free_mb:,.0f} MB that are free"
        self._leave_out(part, contestant, reason, threads=threads, batch=batch, copies=True)
        return True

    def _files(self) -> None:
        model = self.plan.folder / MODEL.replace("chordnet", self.plan.checkpoint.stem)
        n, threads = self.effort.files, max(self.plan.threads)
        if not model.is_file():
            self.note(f"not measured: files: {model.name} is not there; `export` makes it")
            return
        (self.scratch / "wavs").mkdir()
        wavs = end_to_end.write_wavs(self.clips[:n], self.scratch / "wavs")
        options = (threads, self.effort.rounds, self._step)
        waits, front_end = end_to_end.files(model, self.plan.checkpoint, wavs, *options)
        error = {"reference": "the other ways", "other_labels": 0}
        for way in waits.samples_s:
            case = {"way": way, "files": n, "threads": threads}
            self._add_waits("files", waits, way, case, error, clips=n, front_end=front_end)

    def _processes(self) -> None:
        if self.plan.checkpoint != SHIPPED or not (SHIPPED.parent / MODEL).is_file():
            self.note(f"not measured: whole processes, which answer with the shipped {MODEL}")
            return
        wav = end_to_end.write_wavs(self.clips[:1], self.scratch)[0]
        chord = chord_name(*divmod(int(self._reference["labels"][0]), 4))
        waits = end_to_end.processes(wav, chord, self.effort.processes, self._step)
        for command in waits.samples_s:
            error = None if command == "--help" else {"reference": "PyTorch", "other_labels": 0}
            self._add_waits("process", waits, command, {"command": command}, error)

    def _add_waits(self, part: str, waits: end_to_end.Waits, name: str, case: dict, error: dict | None, **more) -> None:
        more |= {"first_call": waits.first_s[name], "error": error, **waits.load}
        self._add(self._make(part, case, waits.samples_s[name], unit="s", **more))

    def _compare(self, part: str, contestant: Contestant, outputs: dict[str, np.ndarray], **case: Any):
        """The check against the PyTorch model's answers to the first clips; None if it fails: a wrong contestant is
        timed nowhere any more."""
        reference = {name: values[: len(outputs["logits"])] for name, values in self._reference.items()}
        limit = FORMATS[contestant.format].limit if contestant.device == "cpu" else GPU_LIMIT
        check = gate.compare(outputs, reference, contestant.precision, limit)
        if check.reason is None:
            return check
        error = check.error() if np.isfinite(check.worst_difference) else None
        self._fail(part, contestant, f"wrong: {check.reason}", error, **case)
        return None

    def _fail(self, part: str, contestant: Contestant, reason: str, error: dict | None = None, **case: Any) -> None:
        self._dropped.add(contestant.name)
        self.failed.append(f"{contestant.name}: {reason}")
        self._leave_out(part, contestant, reason, "dropped", error, **case)

    def _leave_out(
        self, part: str, contestant: Contestant, reason: str, verb="not measured:", error: dict | None = None, **case
    ) -> None:
        self.note(f"{verb} {contestant.name}: {reason}")
        self._add(self._make(f"{part} left out", contestant.parameters() | case, [], error=error, reason=reason))

    def _make(self, part: str, parameters: dict, samples: Iterable[float], unit: str = "ms", **more: Any) -> dict:
        run: dict[str, Any] = {"environment": self._environment, "effort": self.effort.name}
        name = f"benchmark {part.replace('single', 'single stream')}"
        return records.make(name, parameters=parameters, unit=unit, samples=samples, **run, **more)

    def _add(self, *results: dict) -> None:
        records.append_all(results, self.records_path)
        self.results += results

    def _count_steps(self) -> int:
        plan, effort, n = self.plan, self.effort, len(self.plan.contestants)
        on_gpu = sum(contestant.device == "cuda" for contestant in plan.contestants)
        blocks = ("single" in plan.parts) * effort.blocks
        blocks += ("offline" in plan.parts) * len(plan.batches) * effort.offline_blocks
        return (
            ((n - on_gpu) * len(plan.threads) + 2 * on_gpu) * blocks  # a GPU once, with and without copies
            + ("load" in plan.parts) * n * effort.fresh
            + ("files" in plan.parts) * len(end_to_end.ways(max(plan.threads))) * (effort.rounds + 1)
            + ("process" in plan.parts) * 2 * (effort.processes + 1)
        )

    def _step(self) -> None:
        self._done += 1
        self._progress(min(self._done, self._steps), self._steps)


def take_turns(
    contestants: Mapping[str, Callable[[int], object]],
    calls: Mapping[str, int],
    *,
    blocks: int,
    most_s: float = float("inf"),
    long: Container[str] = (),
    seed: int = 0,
    settle_s: float = _SETTLE_S,
    energy: Callable[[], float | None] = lambda: None,
    progress: Callable[[], None] = lambda: None,
) -> tuple[dict[str, tuple[list[float], float | None]], float]:
    """Time every contestant's calls.

    Args:
        contestants: name to a function of the number of the query.
        calls: how many of each are timed, shared out evenly over `blocks` rounds in shuffled order.
        most_s: a contestant's block ends when it has its share of these seconds and one call: where other programs hold
            the cores, a call that waits for all its threads takes a hundred times as long.
        long: names whose calls are long enough to need no untimed one.
        settle_s: silence before each block, then one untimed call; `progress` is called after each block.
        energy: joules that the GPU has used so far, or None.

    Returns of each contestant the milliseconds of its calls in the order made and the GPU's joules over all of them
    (None: not measured), and the cores that other processes kept busy meanwhile.
    """
    samples: dict[str, list[float]] = {name: [] for name in contestants}
    joules: dict[str, list[float | None]] = {name: [] for name in contestants}
    others = timing.OtherWork()
    for _, name in timing.alternate(contestants, blocks, seed=seed):
        call, start = contestants[name], len(samples[name])
        time.sleep(settle_s)
        if name not in long:
            call(start)
        before_j = energy()
        numbers = range(start, start + max(1, -(-calls[name] // blocks)))
        samples[name] += timing.call_times_ms(call, numbers, most_s / blocks)
        after_j = energy()
        joules[name].append(None if before_j is None or after_j is None else after_j - before_j)
        progress()
    used = {name: None if None in parts else sum(part or 0.0 for part in parts) for name, parts in joules.items()}
    return {name: (samples[name], used[name]) for name in contestants}, others.cores()


def energy_meter(device: str) -> tuple[Callable[[], float | None], str | None]:
    """(joules that an NVIDIA GPU has used so far, None), or (a function that returns None, why it is not measured).

    The counter, read through NVML (the package nvidia-ml-py), is of the whole board, idle power included, and moves
    every 20 to 100 ms: short blocks say nothing.
    """
    if device == "cpu":
        return lambda: None, "the energy of CPUs is not measured"
    try:
        import pynvml
    except ImportError:
        return lambda: None, "not measured: pynvml is not installed (pip install nvidia-ml-py)"
    try:  # pragma: no cover (needs a GPU)
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError as error:  # pragma: no cover (needs a GPU)
        return lambda: None, f"not measured: {error}"
    return lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3, None  # pragma: no cover (needs a GPU)
