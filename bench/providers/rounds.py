"""Contestants take turns in one process: blocks of calls, shuffled round by round, every call timed by itself."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Container, Mapping
from typing import NamedTuple

from triadbench.core import timing

SETTLE_S = 0.02
"""Threads of a pool (OpenMP's, ONNX Runtime's) spin for milliseconds after their last call; the next contestant would
lose a core to them."""


class Taken(NamedTuple):
    """What one contestant took.

    Attributes:
        samples_ms: of every call, in the order made.
        energy_j: of the GPU over all of them, None where that is not measured.
    """

    samples_ms: list[float]
    energy_j: float | None


def take_turns(
    contestants: Mapping[str, Callable[[int], object]],
    calls: Mapping[str, int],
    *,
    blocks: int,
    most_s: float = float("inf"),
    long: Container[str] = (),
    seed: int = 0,
    settle_s: float = SETTLE_S,
    energy: Callable[[], float | None] = lambda: None,
    progress: Callable[[], None] = lambda: None,
) -> tuple[dict[str, Taken], float]:
    """Time every contestant's calls.

    Args:
        contestants: name to a function of the number of the query.
        calls: how many of each are timed; they are shared out evenly over the blocks.
        blocks: rounds in which every contestant has one block, in shuffled order.
        most_s: a contestant's block ends when it has its share of these seconds and one call: where other programs hold
            the cores, a call that waits for all its threads takes a hundred times as long.
        long: names whose calls are long enough to need no untimed one.
        settle_s: silence before each block, then one untimed call.
        energy: joules that the GPU has used so far, or None.
        progress: called after each block.

    Returns:
        what each took, and the cores that other processes kept busy meanwhile.
    """
    samples: dict[str, list[float]] = {name: [] for name in contestants}
    joules: dict[str, float | None] = dict.fromkeys(contestants, 0.0)
    order, shuffle, others = list(contestants), random.Random(seed).shuffle, timing.OtherWork()
    clock = time.perf_counter
    for _ in range(blocks):
        shuffle(order)
        for name in order:
            call, taken = contestants[name], samples[name]
            time.sleep(settle_s)
            if name not in long:
                call(len(taken))
            before_j, begun = energy(), clock()
            for number in range(len(taken), len(taken) + max(1, -(-calls[name] // blocks))):
                start = clock()
                call(number)
                taken.append(1e3 * (clock() - start))
                if clock() - begun > most_s / blocks:
                    break
            after_j = energy()
            if before_j is None or after_j is None or joules[name] is None:
                joules[name] = None
            else:
                joules[name] += after_j - before_j
            progress()
    return {name: Taken(samples[name], joules[name]) for name in contestants}, others.cores()
