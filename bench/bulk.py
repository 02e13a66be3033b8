"""`infer-bulk` against `infer` on the same files; and what a million songs would cost, by a model of what was measured.

The model's assumptions: an actor has a core to itself; for a second of sound it takes the time and reads the bytes that
were measured here; machines are alike and lose nothing to one another; at the end one part more is waited for. Three
things end the scaling: a machine's network, the requests that a bucket answers, and the one process of Ray Data that
hands out parts.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import pyarrow as pa
from pyarrow import parquet

from triadbench.bench import machine, records
from triadbench.core.constants import usable_cores
from triadbench.core.errors import UserError
from triadbench.export.cluster.destination import Destination
from triadbench.export.cluster.run import PARTS_A_CORE, part_size, read_timeline, recognise, running_ray
from triadbench.export.cluster.sources import Reader
from triadbench.export.predict.bulk import infer_files
from triadbench.export.predict.predictor import ChordPredictor
from triadbench.kernels.scratch import scratch_folder

NAME = "bulk"
BUCKET_GETS = 5500
"""Requests a second that Amazon says S3 answers below one prefix, at least."""
_GETS_A_FILE = 2  # its size, its content
_DISPATCHED = 500
_EVERY_S = 0.5


def measure(files: pa.Table, timeline: bool, rounds: int, progress: Callable[[int, int], None]) -> dict:
    """Recognise the files in one process, as `infer` does, and by `infer-bulk` on a Ray here, in turns.

    Returns:
        a record "bulk": `samples` (seconds of `infer-bulk` after its start), `infer_s` (of `infer`, after its model is
        loaded), `start_s`, `memory_bytes` (most of all its processes together, shared pages once), `parts` (what each
        took), `dispatch_s` (seconds in which Ray Data hands out a part).

    Raises:
        UserError: as `recognise`; or the two answer differently.
    """
    environment = machine.environment()  # before the work: it needs PyTorch
    bulk, alone, starts, memory, parts = [], [], [], [], list[dict]()
    for n in range(rounds):
        progress(2 * n, 2 * rounds)
        expected, seconds = _infer(files, timeline)
        alone.append(seconds)
        progress(2 * n + 1, 2 * rounds)
        with scratch_folder() as scratch:
            with _watched_memory() as totals:
                result = recognise(files, str(scratch / "rows"), timeline=timeline)
            parts = list(Destination(result["out"]).statistics().values())
            found = _rows(scratch / "rows")
        if wrong := [id for id, answer in zip(files["id"].to_pylist(), expected, strict=True) if found[id] != answer]:
            raise UserError(f"infer-bulk and infer disagree on {len(wrong)} files, such as {wrong[0]}")
        bulk.append(result["seconds"])
        starts.append(result["start_s"])
        memory.append(max(totals))
    return records.make(
        NAME,
        parameters={"files": len(files), "timeline": timeline, "cores": usable_cores()},
        unit="s",
        samples=bulk,
        infer_s=alone,
        start_s=starts,
        memory_bytes=max(memory),
        parts=parts,
        dispatch_s=_dispatch_s(),
        environment=environment,
    )


def _infer(files: pa.Table, timeline: bool) -> tuple[list[Any], float]:
    """Answers of one process on all cores, and its seconds once it has its model."""
    paths = [os.fsdecode(path) for path in files["path"].to_pylist()]
    predictor = ChordPredictor(threads=None if timeline else 1)
    predictor.warm_kernel(wait=True)
    start, reader = time.perf_counter(), Reader()
    if timeline:
        results: Iterable[dict] = (read_timeline(path, predictor, reader) for path in paths)
    else:
        results = infer_files(predictor, paths, workers=usable_cores(), at_once=True)
    answers = list(map(_answer, results))
    return answers, time.perf_counter() - start


def _answer(row: dict) -> Any:
    """A file's chord, or the chords of a song's segments; None for a file that cannot be read."""
    segments = row.get("segments")
    return row.get("name") if segments is None else [segment["name"] for segment in segments]


def _rows(folder: Path) -> dict[str, Any]:
    """{id: answer} in a folder of rows."""
    return {row["id"]: _answer(row) for row in parquet.read_table(folder).to_pylist()}


def _dispatch_s() -> float:
    """Seconds in which Ray Data hands out one part to actors here that do nothing."""

    class Idle:
        def __call__(self, row: dict) -> dict:
            return row

    with running_ray() as cores:
        import ray.data

        ray.data.DataContext.get_current().enable_progress_bars = False
        parts = ray.data.from_items([{"part": k} for k in range(_DISPATCHED)], override_num_blocks=_DISPATCHED)
        idle: Any = Idle
        rows = iter(parts.map(idle, compute=ray.data.ActorPoolStrategy(size=cores)).iter_rows())
        next(rows)  # by then the actors are there
        begun = time.perf_counter()
        n = sum(1 for _ in rows)
        return (time.perf_counter() - begun) / n


@contextlib.contextmanager
def _watched_memory() -> Iterator[list[int]]:
    """A list that grows in the block: memory of this process and all below it (proportional set size), in bytes."""
    totals, end, here = [0], threading.Event(), psutil.Process()

    def watch() -> None:
        while not end.wait(_EVERY_S):
            total = 0
            for process in (here, *here.children(recursive=True)):
                with contextlib.suppress(psutil.Error):  # it has ended
                    memory = process.memory_full_info()
                    total += getattr(memory, "pss", memory.uss)  # Linux alone has the first
            totals.append(total)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield totals
    finally:
        end.set()
        thread.join()


def plan(record: dict, songs: int, minutes: float, cores: int, gbit: float) -> dict[str, Any]:
    """What recognising `songs` of so many minutes costs, on machines of so many cores and Gbit/s.

    Returns:
        `core_s` of a song, `core_hours` and `bytes` of all; `limits`, the cores beyond which more do not help: of one
        machine by its "network", in all by "requests" to a bucket and by "parts" that Ray hands out; and `machines`:
        {"machines", "hours", "gbit" in all, "limit" or None} of 1, 10, 100 and 1,000.

    Raises:
        UserError: none of the measured files could be read.
    """
    _, seconds, n_bytes, sound_s = _totals(record)
    if not sound_s:
        raise UserError("no file could be read: nothing to plan by")
    core_s, song_bytes = 60 * minutes * seconds / sound_s, 60 * minutes * n_bytes / sound_s
    timeline, dispatch_s = record["parameters"]["timeline"], record["dispatch_s"]
    limits = {
        "network": gbit / (8e-9 * song_bytes / core_s),
        "requests": BUCKET_GETS / _GETS_A_FILE * core_s,
        # Where handing out takes as long as the work: in parts of the largest size, or of those for so many cores.
        "parts": min(
            part_size(songs, timeline, 1) * core_s / dispatch_s, (songs * core_s / dispatch_s / PARTS_A_CORE) ** 0.5
        ),
    }
    machines = []
    for n in (1, 10, 100, 1000):
        size = part_size(songs, timeline, n * cores)
        at_work = min(n * min(cores, limits["network"]), songs / size)
        durations = {
            None if cores <= limits["network"] else "network": songs * core_s / at_work + size * core_s,
            "requests": songs * _GETS_A_FILE / BUCKET_GETS,
            "parts": songs / size * dispatch_s,
        }
        limit = max(durations, key=durations.__getitem__)
        duration_s = durations[limit]
        in_all_gbit = 8e-9 * songs * song_bytes / duration_s
        machines.append({"machines": n, "hours": duration_s / 3600, "gbit": in_all_gbit, "limit": limit})
    totals = {"core_s": core_s, "core_hours": songs * core_s / 3600, "bytes": songs * song_bytes}
    return {**totals, "limits": limits, "machines": machines}


def last_record(among: Sequence[dict], timeline: bool) -> dict:
    """The last record of `measure` of songs or of single chords. Raises UserError where there is none."""
    mine = [record for record in among if record["name"] == NAME and record["parameters"]["timeline"] == timeline]
    if not mine:
        what = "songs; measure some with SOURCE --timeline" if timeline else "single chords; measure some with SOURCE"
        raise UserError(f"there is no record of {what}")
    return mine[-1]


def _totals(record: dict) -> list[float]:
    """Files, seconds of actors, bytes and seconds of sound of a record."""
    return [sum(part[key] for part in record["parts"]) for key in ("files", "seconds", "bytes", "sound_s")]


def findings(record: dict) -> list[str]:
    """What was measured, in sentences."""
    n, seconds, n_bytes, sound_s = _totals(record)
    bulk, alone, cores = median(record["samples"]), median(record["infer_s"]), record["parameters"]["cores"]
    what = "songs" if record["parameters"]["timeline"] else "files"
    return [
        f"{n:,} {what} on {cores} cores: {n / bulk:,.1f} a second by infer-bulk, {n / alone:,.1f} by infer "
        f"({100 * alone / bulk:.0f} %); medians of {len(record['samples'])}, in turns; the answers are the same.",
        f"An actor on its core: {n / seconds:,.1f} {what} a second, {sound_s / seconds:,.0f} times real time, "
        f"{n_bytes / seconds / 1e6:,.1f} MB/s read, at most "
        f"{max(part['memory_bytes'] for part in record['parts']) / 1e6:,.0f} MB.",
        f"Start {median(record['start_s']):.1f} s; memory of all processes {record['memory_bytes'] / 1e9:.2f} GB; "
        f"Ray hands out a part in {1e3 * record['dispatch_s']:.2g} ms.",
    ]
