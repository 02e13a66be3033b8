"""Contestants alternate in one process: blocks of calls, shuffled round by round, every call timed by itself."""

import time
from collections.abc import Callable, Container, Mapping

from triadbench.core import timing

SETTLE_S = 0.02
"""Threads of a pool (OpenMP's, ONNX Runtime's) spin for milliseconds after their last call; the next contestant would
lose a core to them."""


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

    Returns:
        of each contestant the milliseconds of its calls in the order made and the GPU's joules over all of them (None:
        not measured), and the cores that other processes kept busy meanwhile.
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
