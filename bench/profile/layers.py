"""Where in a network does a training step spend its time and memory?

Timed: a whole step (forward with loss, backward, Adam) of both networks on one batch that lies ready on the device;
first by itself, then under torch.profiler, in turns. Not timed: mel spectrograms, reading, copies.

How a time comes to belong to a layer. Hooks on every leaf module open a named range (`record_function`) around its
forward; what the network computes between its leaf modules is a row of its own. A backward function has no module, but
autograd gives it the sequence number of the forward operation that asked for it, and that operation lies in a range. A
gradient's accumulation has no number: it follows the function that produced the gradient, on the same thread. On a GPU
the time of a range is that of the kernels it launched; on a CPU it is the range's own length.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from triadbench.bench import records, roofs
from triadbench.bench.cases import SEED, Network, make_networks, make_waveform
from triadbench.bench.profile import layer_survey, torch_trace
from triadbench.core import timing

if TYPE_CHECKING:
    import torch

OPTIMIZER = "(optimizer)"
LAYOUTS = ("contiguous", "channels-last")
_ROOF_S = 0.2
_LAYER = "layer "
_BACKWARD = "autograd::engine::evaluate_function: "


def run(
    environment: dict,
    folder: Path,
    *,
    device: str = "cpu",
    batch: int = 32,
    steps: int = 12,
    layouts: Sequence[str] = LAYOUTS,
    max_time_s: float = 30.0,
    progress: Callable[[int, int | None], None] | None = None,
) -> list[dict]:
    """One record "layers" a network and memory layout, and beside the page its trace for Perfetto.

    Args:
        environment: `bench.machine.environment()`.
        folder: of the page; gets `layers-OriginalNet-contiguous-cpu.trace.json.gz` and so on.
        device: "cpu" or "cuda".
        batch: clips of a step.
        steps: profiled steps, and as many without the profiler.
        layouts: some of `LAYOUTS`, of weights and four-dimensional inputs.
        max_time_s: for each record's steps; fewer are taken when it is over, but two at least.
        progress: called with (records done, records).

    Raises:
        UserError: a trace that cannot be written.
    """
    import torch

    roof = roofs.gpu(_ROOF_S) if device == "cuda" else roofs.measure(torch.get_num_threads(), _ROOF_S)
    best = roof["arithmetic"]
    peak = best["flops"] / min(best["samples_ms"]) / 1e6
    made = []
    cases = [(network, layout) for layout in layouts for network in make_networks()]  # weights anew for each layout
    for done, (network, layout) in enumerate(cases):
        if progress is not None:
            progress(done, len(cases))
        made.append(_record(network, environment, Path(folder), device, batch, steps, layout, max_time_s, peak))
    if progress is not None:
        progress(len(cases), len(cases))
    return made


def _record(
    network: Network,
    environment: dict,
    folder: Path,
    device: str,
    batch: int,
    steps: int,
    layout: str,
    max_time_s: float,
    peak: float,
) -> dict:
    import torch

    with torch.no_grad():
        inputs = network.front_end(make_waveform(batch)).to(device)
    module = network.module.to(device).train()
    if layout == "channels-last":
        module.to(memory_format=torch.channels_last)
        if inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
    trace = folder / f"layers-{network.name}-{layout}-{device}.trace.json.gz"
    others = timing.OtherWork()
    mine = [torch.cuda.current_device()] if device == "cuda" else []
    with torch.random.fork_rng(devices=mine):  # dropout must not change what a caller's later training draws
        torch.manual_seed(SEED)
        forward, loss = _passes(network, inputs, batch, device)
        found = profile(module, forward, loss, network.learning_rate, device, steps, trace, max_time_s)
    other_cores = others.cores()
    first_ms, *samples = found.pop("plain_ms")
    return records.make(
        "layers",
        parameters={
            "network": network.name,
            "batch": batch,
            "device": device,
            "memory_format": layout,
            "dtype": "float32",
            "seed": SEED,
            "threads": torch.get_num_threads(),
            "tf32": device == "cuda" and torch.backends.cudnn.allow_tf32,
        },
        unit="ms",
        samples=samples,
        first_call=first_ms,
        environment=environment,
        trace=trace.name,
        peak_gflop_per_s=peak,
        clips=batch,
        other_cores=other_cores,
        disturbed=timing.is_disturbed(other_cores, torch.get_num_threads(), environment["cores_usable"]),
        **found,
    )


def _passes(network: Network, inputs: torch.Tensor, batch: int, device: str):
    """(forward pass, loss of its result), as the network's recipe has them."""
    import torch

    from triadbench.core.models.networks import ChordNet, chord_loss, original_loss

    generator = torch.Generator().manual_seed(SEED)
    types = torch.randint(0, 4, (batch,), generator=generator).to(device)
    roots = torch.randint(0, 12, (batch,), generator=generator).to(device)
    if isinstance(network.module, ChordNet):
        defined = torch.ones_like(types, dtype=torch.bool)
        return lambda: network.module.joint(inputs), lambda joint: chord_loss(joint, types, roots, defined)
    return lambda: network.module(inputs), lambda answer: original_loss(answer, types)


def profile(
    module: torch.nn.Module,
    forward: Callable[[], torch.Tensor],
    loss: Callable[[torch.Tensor], torch.Tensor],
    learning_rate: float,
    device: str,
    steps: int,
    trace: Path | None = None,
    max_time_s: float = 30.0,
) -> dict:
    """Times, work and memory of every layer of a training step.

    Args:
        module: on `device`, in training mode; its parameters are trained.
        forward: one forward pass of `module`.
        loss: scalar, of what `forward` gave.
        learning_rate: of Adam.
        device: "cpu" or "cuda".
        steps: profiled steps, and as many without the profiler (and one more, the first call).
        trace: file for Perfetto or chrome://tracing, gzipped JSON of one further step; None writes none.
        max_time_s: fewer steps are taken when it is over, but two at least.

    Returns:
        `rows`: {"layer", "kind", "forward_ms", "backward_ms" (medians over the steps), "params", "output_shape",
        "activation_bytes" (of the output), "saved_bytes" (kept for the backward pass, each tensor counted where it is
        first kept), "flops" and "backward_flops" (convolutions and matrix products)}: the layers in the order of the
        forward pass, what lies between them, the loss, and the optimizer, whose time stands under forward_ms.
        `plain_ms`: unprofiled steps, the first call first. `profiled_ms`: profiled steps. `sum_ms`: of all rows'
        times. `coverage`: the rows' times in a step over that step's own time, the median; on a GPU that is the share
        of a step in which a kernel runs. `overhead`: the fastest profiled step over the fastest plain one.
        `peak_bytes`: most memory of torch's allocator during a step above what was held before it; `held_bytes`: that,
        of parameters and Adam's moments.

    Raises:
        UserError: the trace cannot be written.
    """
    import torch

    optimizer = torch.optim.Adam(module.parameters(), lr=learning_rate)

    def step(named: Callable) -> None:
        with named(_LAYER + OPTIMIZER):
            optimizer.zero_grad(set_to_none=True)
        with named(_LAYER + layer_survey.BETWEEN):
            answer = forward()
        with named(_LAYER + layer_survey.LOSS):
            value = loss(answer)
        value.backward()
        with named(_LAYER + OPTIMIZER):
            optimizer.step()

    surveyed = layer_survey.survey(module, forward, loss)
    plain = lambda: step(contextlib.nullcontext)  # noqa: E731
    named = lambda: step(torch.profiler.record_function)  # noqa: E731
    plain_ms = [_wall_ms(plain, device)]
    profiled_ms, measured = [], []
    started = time.perf_counter()
    for number in range(steps + 1):
        if number > 2 and time.perf_counter() - started > max_time_s:
            break
        plain_ms.append(_wall_ms(plain, device))
        with _ranges(module), torch_trace.profiler(device) as profiler:
            elapsed_ms = _wall_ms(named, device)
        if number:  # the profiler's own first call counts for nothing
            profiled_ms.append(elapsed_ms)
            measured.append(attribute(profiler.events(), device))
    optimizer.zero_grad(set_to_none=True)  # gradients belong to the step, and not to what is held before it
    with _ranges(module):
        peak_bytes = torch_trace.trace_memory(named, device, trace)
    rows = [_row(row, measured) for row in [*surveyed, _optimizer_row(module)]]
    sum_ms = sum(row["forward_ms"] + row["backward_ms"] for row in rows)
    state = [value for held in optimizer.state.values() for value in held.values() if torch.is_tensor(value)]
    held = [*module.parameters(), *state]
    return {
        "plain_ms": plain_ms,
        "rows": rows,
        "profiled_ms": profiled_ms,
        "sum_ms": sum_ms,
        "coverage": median(
            sum(map(sum, times.values())) / whole for times, whole in zip(measured, profiled_ms, strict=True)
        ),
        "overhead": min(profiled_ms) / min(plain_ms),
        "peak_bytes": peak_bytes,
        "held_bytes": sum(tensor.numel() * tensor.element_size() for tensor in held),
    }


def attribute(events, device: str) -> dict[str, list[float]]:
    """Layer -> [forward, backward] milliseconds of one step, from the profiler's events.

    Args:
        events: `torch.profiler.profile.events()` of a step in which ranges named "layer ..." were open.
        device: "cpu" takes lengths of events, "cuda" the kernels they launched.
    """
    length_us = (lambda e: e.device_time_total) if device == "cuda" else (lambda e: e.time_range.elapsed_us())
    events = [e for e in events if str(e.device_type).endswith("CPU")]
    times: dict[str, list[float]] = {}
    layer_of_number: dict[int, tuple[float, str]] = {}
    for event in events:
        inside = _range_around(event)
        if event.name.startswith(_LAYER):
            times.setdefault(event.name[len(_LAYER) :], [0.0, 0.0])[0] += length_us(event) / 1e3
            if inside is not None:  # what a layer takes is not its surrounding's
                times.setdefault(inside, [0.0, 0.0])[0] -= length_us(event) / 1e3
        elif inside is not None and event.sequence_nr >= 0:
            # An operation tells the number that the next backward function will have: of those with the same number
            # the last to begin is the one that made it.
            known = layer_of_number.get(event.sequence_nr, (-1.0, ""))
            layer_of_number[event.sequence_nr] = max(known, (event.time_range.start, inside))
    previous: dict[int, str] = {}
    for event in sorted(events, key=lambda e: e.time_range.start):
        if event.name.startswith(_BACKWARD):
            number = event.sequence_nr
            layer = layer_of_number[number][1] if number in layer_of_number else previous.get(event.thread)
            previous[event.thread] = layer = layer or layer_survey.LOSS
            times.setdefault(layer, [0.0, 0.0])[1] += length_us(event) / 1e3
    return times


def _range_around(event) -> str | None:
    parent = event.cpu_parent
    while parent is not None and not parent.name.startswith(_LAYER):
        parent = parent.cpu_parent
    return None if parent is None else parent.name[len(_LAYER) :]


@contextlib.contextmanager
def _ranges(module: torch.nn.Module) -> Iterator[None]:
    """While open, every leaf module's forward lies in a range of its name."""
    import torch

    open_ranges: list = []
    handles = []

    def enter(name: str) -> Callable:
        def hook(module, inputs) -> None:
            opened = torch.profiler.record_function(_LAYER + name)
            opened.__enter__()
            open_ranges.append(opened)

        return hook

    def leave(module, inputs, output) -> None:
        open_ranges.pop().__exit__(None, None, None)

    for name, layer in layer_survey.leaves(module).items():
        handles += [layer.register_forward_pre_hook(enter(name)), layer.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _row(row: dict, measured: list[dict[str, list[float]]]) -> dict:
    forward, backward = ([times.get(row["layer"], (0.0, 0.0))[i] for times in measured] for i in (0, 1))
    times = {"forward_ms": max(0.0, median(forward)), "backward_ms": median(backward)}
    return {"layer": row["layer"], "kind": row["kind"], **times, **row}


def _optimizer_row(module: torch.nn.Module) -> dict:
    return {
        "layer": OPTIMIZER,
        "kind": "Adam",
        "params": 0,
        "output_shape": None,
        "activation_bytes": 0,
        "saved_bytes": 0,
        "flops": 0,
        "backward_flops": 0,
    }


def _wall_ms(step: Callable[[], None], device: str) -> float:
    """One step by the host's clock; on a GPU from an empty queue to an empty queue."""
    _drain(device)
    before = time.perf_counter()
    step()
    _drain(device)
    return 1e3 * (time.perf_counter() - before)


def _drain(device: str) -> None:
    if device == "cuda":
        import torch

        torch.cuda.synchronize()
