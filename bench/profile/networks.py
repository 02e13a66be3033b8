"""What do the networks and a training step cost on this machine's CPU?

Timed: both networks' forward pass on one clip and on a batch, and the parts of a training step: mel, forward, backward,
optimizer. Every forward pass is compared with float64 on the timed inputs first. Not timed: files, data loaders, a GPU.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from triadbench.bench import records, roofs
from triadbench.bench.cases import SEED, Network, make_labels, make_networks, make_waveform
from triadbench.core import timing

if TYPE_CHECKING:
    import torch

FORWARD_BATCHES = (1, 32)
STEP_BATCH = 32
FORWARD_TOLERANCE = 1e-4
"""Largest error of a float32 forward pass, relative to the float64 pass's largest value.

Sums of up to 5,760 float32 products round to about sqrt(5760) * 6e-8 = 5e-6 a layer; five layers and a margin of four.
"""


class Effort(NamedTuple):
    """How long to measure: samples of a forward pass and their seconds, training steps, seconds for the peak."""

    rounds: int
    min_time_s: float
    max_time_s: float
    steps: int
    peak_s: float


FULL = Effort(rounds=20, min_time_s=0.5, max_time_s=5.0, steps=12, peak_s=0.5)
QUICK = Effort(rounds=8, min_time_s=0.2, max_time_s=2.0, steps=8, peak_s=0.3)
SMOKE = Effort(rounds=2, min_time_s=0.0, max_time_s=1.0, steps=2, peak_s=0.0)


def run(environment: dict, effort: Effort, progress: Callable[[int, int | None], None]) -> list[dict]:
    """The records "forward" and "training step" of both networks.

    Raises:
        RuntimeError: a result is wrong; nothing slower or faster than right is reported.
    """
    product = roofs.measure(timing.own_threads(), effort.peak_s)["arithmetic"]
    peak = product["flops"] / min(product["samples_ms"]) / 1e6
    networks, measured = make_networks(), []
    for done, network in enumerate(networks):
        progress(done, len(networks))
        measured += [_forward(network, batch, environment, effort, peak) for batch in FORWARD_BATCHES]
        measured += _steps(network, environment, effort)
    progress(len(networks), len(networks))
    return measured


def _record(
    name: str, network: Network, timed: timing.Timing, batch: int, part: dict | None = None, **more: Any
) -> dict:
    parameters = {"device": "cpu", "dtype": "float32", "seed": SEED, "network": network.name, "batch": batch}
    parameters |= {**(part or {}), "spec": network.spec_name}
    more |= {"parameters": parameters, **records.timing_fields(timed, batch)}
    return records.make(name, unit="ms", samples=timed.samples_ms, **more)


def _forward(network: Network, batch: int, environment: dict, effort: Effort, peak: float) -> dict:
    """A network without gradients, from the mel that it wants to its logits."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    module = network.module.eval()
    inputs = network.front_end(make_waveform(batch))
    errors: dict[str, dict] = {}
    with torch.inference_mode():
        expected = _flat(copy.deepcopy(module).double()(inputs.double()))

        def check(name: str, result: Any) -> None:
            errors[name] = forward_error(f"forward {name} batch {batch}", result, expected)

        limits: dict[str, Any] = {"min_time_s": effort.min_time_s, "max_time_s": effort.max_time_s}
        timed = timing.measure({network.name: lambda: module(inputs)}, check=check, rounds=effort.rounds, **limits)
        with FlopCounterMode(display=False) as counter:
            module(inputs)
    flops = counter.get_total_flops()  # of convolutions and matrix products; the rest is left out
    more = {"error": errors[network.name], "flops": flops, "peak_gflop_per_s": peak}
    return _record("forward", network, timed[network.name], batch, environment=environment, **more)


def _steps(network: Network, environment: dict, effort: Effort) -> list[dict]:
    """A training step in its parts, on one batch; checked that it learns: a finite loss, and parameters that move."""
    import torch

    waveform = make_waveform(STEP_BATCH)
    types, roots = make_labels(STEP_BATCH)
    module = network.module.train()
    optimizer = torch.optim.Adam(module.parameters(), lr=network.learning_rate)
    before = [parameter.detach().clone() for parameter in module.parameters()]
    samples: dict[str, list[float]] = {"mel": [], "forward": [], "backward": [], "optimizer": []}
    others = timing.OtherWork()
    for _ in range(effort.steps + 1):
        marks = [time.perf_counter()]
        with torch.no_grad():
            inputs = network.front_end(waveform)
        marks.append(time.perf_counter())
        optimizer.zero_grad(set_to_none=True)
        loss = network.loss(inputs, types, roots)
        marks.append(time.perf_counter())
        loss.backward()
        marks.append(time.perf_counter())
        optimizer.step()
        marks.append(time.perf_counter())
        check_step(network.name, float(loss.detach()), before, list(module.parameters()))
        for part, start, end in zip(samples, marks, marks[1:], strict=False):
            samples[part].append(1e3 * (end - start))
    cores = others.cores()
    timings = {part: timing.Timing.from_samples(ms[0] / 1e3, ms[1:], 1, cores) for part, ms in samples.items()}
    return [
        _record("training step", network, timed, STEP_BATCH, {"part": part}, environment=environment)
        for part, timed in timings.items()
    ]


def forward_error(case: str, result: Any, expected: torch.Tensor) -> dict:
    """The error of a float32 forward pass against the float64 one. Raises RuntimeError above `FORWARD_TOLERANCE`."""
    from triadbench.kernels.compare import compare

    tolerances: dict[str, Any] = {"rtol_peak": FORWARD_TOLERANCE, "rtol_rms": FORWARD_TOLERANCE}
    comparison = compare(_flat(result).numpy(), expected.numpy(), **tolerances, dtype="float32")
    if not comparison.passed:
        raise RuntimeError(f"{case} is wrong, so it is not timed: {comparison}")
    return records.error_fields(comparison)


def check_step(name: str, loss: float, before: list[torch.Tensor], after: list[torch.Tensor]) -> None:
    """Raises RuntimeError unless the loss is finite and some parameter differs from what it was, finitely."""
    import torch

    reason = ""
    if not math.isfinite(loss):
        reason = f"loss={loss}"
    elif all(torch.equal(old, new.detach()) for old, new in zip(before, after, strict=True)):
        reason = "no parameter moved"
    elif not all(torch.isfinite(new).all() for new in after):
        reason = "a parameter is not finite"
    if reason:
        raise RuntimeError(f"training step of {name} is wrong, so it is not timed: {reason}")


def _flat(result: Any) -> torch.Tensor:
    """The outputs of a network as one tensor (batch, numbers), whether it gives one tensor, a tuple or a dict."""
    import torch

    if isinstance(result, torch.Tensor):
        return result.flatten(1)
    values = result.values() if isinstance(result, dict) else result
    return torch.cat([value.flatten(1) for value in values], dim=1)
