"""Which calls does the time of a training step and of `infer` lie in, from the outermost function to the operator?

torch.profiler notes every Python function and every operator of torch with its beginning and its end, on the thread
that asks for the work; calls within one another make a stack, and equal stacks are added up. Noting takes time as
well, most of it in functions that do little: the record holds how much longer the work took. Of work on a GPU the
host's side is seen: giving it out, and waiting for it.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from triadbench.bench import records
from triadbench.bench.machine import drain
from triadbench.bench.profile import epochs, layers
from triadbench.core import timing
from triadbench.kernels.scratch import scratch_folder

NAME = "flame"
_LEAST_SHARE = 0.002
"""Calls that take less are counted to their caller."""
_PASSED_OVER = re.compile(r"torch/nn/modules/module\.py\(\d+\): _(wrapped_)?call_impl")
"""Wrappers around every module's forward."""
_FOLDER = re.compile(r"^/.*/(?=[^/]+\.py\(\d+\): )")
"""Where this machine keeps a file: records are published."""
_BUILT_IN = re.compile(r"^<built-in (?:method|function) (\S+?)(?: of .*)?>$")
Stack = tuple[str, ...]


def run(
    environment: dict,
    *,
    device: str = "cpu",
    clips: int = 92,
    batch_size: int = 32,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> list[dict]:
    """One record "flame" of an original training epoch, of a fast one, and on the CPU of `infer`, file by file.

    Args:
        clips: of the set: 70 % of them train, and `infer` names the first 32.
        progress: called with (targets done, targets).

    Returns:
        records: `samples` [milliseconds under the profiler], `plain_ms` (without it, median of three), `clips`, and
        `frames` (names of calls), `stacks` (of indices into them, the outermost first) with `weights_ms` (their own).
    """
    import torch

    results = []
    with epochs.both_trainers(device, clips, batch_size) as (files, original, fast):
        work: dict[str, tuple[Callable[[], Any], int]] = {}
        work["original training step"] = (original.train_epoch, original.n_train)
        work["fast training step"] = (fast.train_epoch, fast.n_train)
        if device == "cpu":
            work["infer"] = _infer(sorted(Path(files.path).glob("*.wav"))[:32])
        for done, (target, (call, n)) in enumerate(work.items()):
            progress(done, len(work))
            call()  # what is prepared once is no part of it
            others, plain_ms = timing.OtherWork(), median(_wall_ms(call, device) for _ in range(3))
            with layers.torch_profiler(device, with_stack=True) as profiler:
                profiled_ms = _wall_ms(torch.profiler.record_function(target)(call), device)
            with scratch_folder() as folder:
                profiler.export_chrome_trace(str(folder / "trace.json"))
                events = json.loads((folder / "trace.json").read_text(encoding="utf-8"))["traceEvents"]
            parameters = {"target": target, "device": device, "clips": clips, "batch_size": batch_size}
            parameters["threads"] = torch.get_num_threads()
            fields = {"plain_ms": plain_ms, "clips": n, **others.fields(), **folded(own_times(events, target))}
            results.append(
                records.make(
                    NAME, parameters=parameters, unit="ms", samples=[profiled_ms], environment=environment, **fields
                )
            )
        progress(len(work), len(work))
    return results


def _infer(paths: Sequence[Path]) -> tuple[Callable[[], Any], int]:
    from triadbench.export.predict.bulk import infer_files
    from triadbench.export.predict.predictor import ChordPredictor

    predictor = ChordPredictor(threads=1)
    predictor.warm_kernel(wait=True)
    # One file a call: that runs on the thread that asks, which alone is watched.
    return (lambda: [list(infer_files(predictor, [path])) for path in paths]), len(paths)


def _wall_ms(call: Callable[[], Any], device: str) -> float:
    drain(device)
    begun = time.perf_counter()
    call()
    drain(device)
    return 1e3 * (time.perf_counter() - begun)


def own_times(events: Iterable[dict], root: str) -> dict[Stack, float]:
    """Stack -> milliseconds spent in its last call itself, of all that lies within the range `root`.

    Args:
        events: of a Chrome trace: `ph`, `cat`, `name`, `tid`, `ts` and `dur` in microseconds.
    """
    kinds = ("python_function", "cpu_op", "user_annotation")
    calls = [event for event in events if event.get("ph") == "X" and event.get("cat") in kinds]
    thread = next(event["tid"] for event in calls if event["name"] == root)
    calls = [e for e in calls if e["tid"] == thread and not _PASSED_OVER.search(e["name"])]
    own: dict[Stack, float] = {}
    around: list[tuple[float, Stack]] = []
    for event in sorted(calls, key=lambda e: (e["ts"], -e["dur"])):
        end, ms = event["ts"] + event["dur"], event["dur"] / 1e3
        # A range outlives the function that opened it, and does not lie within it.
        while around and (around[-1][0] <= event["ts"] or around[-1][0] < end - 1):
            around.pop()
        if not around and event["name"] != root:
            continue
        outer: Stack = around[-1][1] if around else ()
        stack = (*outer, _BUILT_IN.sub(r"\1 (built-in)", _FOLDER.sub("", event["name"])))
        own[stack] = own.get(stack, 0.0) + ms
        if outer:
            own[outer] -= ms
        around.append((end, stack))
    return own


def folded(own: dict[Stack, float]) -> dict[str, list]:
    """`frames`, `stacks` and `weights_ms` of a record; calls below `_LEAST_SHARE` are their caller's."""
    inclusive: dict[Stack, float] = {}
    for stack, weight in own.items():
        for depth in range(1, len(stack) + 1):
            inclusive[stack[:depth]] = inclusive.get(stack[:depth], 0.0) + weight
    kept: dict[Stack, float] = {}
    for stack, weight in own.items():
        while len(stack) > 1 and inclusive[stack] < _LEAST_SHARE * sum(own.values()):
            stack = stack[:-1]
        kept[stack] = kept.get(stack, 0.0) + weight
    frames = list(dict.fromkeys(name for stack in kept for name in stack))
    stacks = [[frames.index(name) for name in stack] for stack in kept]
    return {"frames": frames, "stacks": stacks, "weights_ms": [round(max(0.0, ms), 4) for ms in kept.values()]}
