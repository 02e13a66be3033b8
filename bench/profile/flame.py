"""Which calls does the time of a training step and of `infer` lie in, from the outermost function to the operator?

torch.profiler notes every Python function and every operator of torch with its duration, on the thread that asks for
the work; equal stacks of calls are added up. Noting takes time as well, most of it in functions that do little: the
record holds how much longer the work took. Of work on a GPU the host's side is seen: giving it out, and waiting for it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from triadbench.bench import records
from triadbench.bench.profile import epochs, layers
from triadbench.core import timing

NAME = "flame"
_LEAST_SHARE = 0.002
"""Calls that take less are counted to their caller."""
_PASSED_OVER = re.compile(r"torch/nn/modules/module\.py\(\d+\): _(wrapped_)?call_impl")
"""Wrappers around every module's forward."""
_NAMES = {
    r"^/.*/(?=[^/]+\.py\(\d+\): )": "",  # where this machine keeps a file: records are published
    r"^(?=(bench|core|export|kernels)/)": "triadbench/",  # a checkout's folder may have any name
    r"^<built-in method  of (\S+) .*>$": r"\1 (built-in)",  # one of C++ that has no name
    r"^<built-in (?:method|function) (\S+?)(?: of .*)?>$": r"\1 (built-in)",
}
"""What a call's name is made readable by."""
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
        `calls` as of `tree`.
    """
    import torch

    results = []
    with epochs.both_trainers(device, clips, batch_size) as (files, original, fast):
        work: list[tuple[str, Callable[[], Any], int]] = [
            ("original training step", original.train_epoch, original.n_train),
            ("fast training step", fast.train_epoch, fast.n_train),
        ]
        if device == "cpu":
            work.append(("infer", *_infer(sorted(Path(files.path).glob("*.wav"))[:32])))
        for done, (target, call, n) in enumerate(work):
            progress(done, len(work))
            call()  # what is prepared once is no part of it
            others, watched = timing.OtherWork(), functools.partial(_watched, call)
            plain_ms = median(layers.wall_ms(watched, device) for _ in range(3))
            with layers.torch_profiler(device, with_stack=True) as profiler:
                profiled_ms = layers.wall_ms(watched, device)
            fields: dict[str, Any] = {"environment": environment, "plain_ms": plain_ms, "clips": n, **others.fields()}
            fields["parameters"] = {"target": target, "device": device, "clips": clips, "batch_size": batch_size}
            fields["parameters"]["threads"] = torch.get_num_threads()
            kineto: Any = profiler.profiler
            fields["calls"] = tree(_find(kineto.kineto_results.experimental_event_tree(), _watched.__name__), target)
            results.append(records.make(NAME, unit="ms", samples=[profiled_ms], **fields))
        progress(len(work), len(work))
    return results


def _infer(paths: Sequence[Path]) -> tuple[Callable[[], Any], int]:
    from triadbench.export.predict.bulk import infer_files
    from triadbench.export.predict.predictor import ChordPredictor

    predictor = ChordPredictor(threads=1)
    predictor.warm_kernel(wait=True)
    # One file a call: that runs on the thread that asks, which alone is watched.
    return (lambda: [list(infer_files(predictor, [path])) for path in paths]), len(paths)


def _watched(call: Callable[[], Any]) -> None:
    """The function below which a profile's calls are looked for."""
    call()


def _find(calls: Sequence[Any], function: str) -> Any:
    """The first call of the function among torch's calls and all that they call."""
    todo = list(calls)
    while not todo[-1].name.endswith(f": {function}"):
        todo += todo.pop().children
    return todo[-1]


def tree(root: Any, name: str) -> list[tuple[int | None, str, float]]:
    """All calls below a call of torch's event tree (`name`, `end_time_ns`, `duration_time_ns`, `children`).

    Returns:
        a (caller's index in this list, name, its own milliseconds, without those of calls listed below it) for each
        stack of calls, callers first; `name` is the first one's, whose caller is None.
    """
    found: dict[Stack, float] = {(name,): root.duration_time_ns / 1e6}
    _add(found, root, (name,))
    own = {stack: ms for stack, ms in found.items() if ms >= _LEAST_SHARE * found[name,]}
    index = {stack: i for i, stack in enumerate(own)}
    for stack in list(own)[1:]:
        own[stack[:-1]] -= found[stack]
    return [(index.get(stack[:-1]), stack[-1], round(max(0.0, ms), 4)) for stack, ms in own.items()]


def _add(found: dict[Stack, float], call: Any, stack: Stack) -> None:
    for child in call.children:
        if child.end_time_ns > call.end_time_ns:  # a range outlives the function that opened it: no part of that
            continue
        inner, name = stack, child.name
        if not _PASSED_OVER.search(name):
            for pattern, words in _NAMES.items():
                name = re.sub(pattern, words, name)
            inner = (*stack, name)
            found[inner] = found.get(inner, 0.0) + child.duration_time_ns / 1e6
        _add(found, child, inner)
