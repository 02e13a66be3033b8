"""Where in a network does a training step spend its time and memory?

Timed: a whole step (forward with loss, backward, Adam) of both networks on one batch that lies ready on the device;
first by itself, then under torch.profiler, alternated. Not timed: mel spectrograms, reading, copies.

How a time comes to belong to a layer. Hooks on every leaf module open a named range (`record_function`) around its
forward; what the network computes between its leaf modules is a row of its own. A backward function has no module, but
autograd gives it the sequence number of the forward operation that asked for it, and that operation lies in a range. A
gradient's accumulation has no number: it follows the function that produced the gradient, on the same thread. On a GPU
the time of a range is that of the kernels it launched; on a CPU it is the range's own length.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from triadbench.bench import records, roofs
from triadbench.bench.cases import SEED, Network, make_labels, make_networks, make_waveform
from triadbench.bench.machine import drain
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
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> list[dict]:
    """One record "layers" a network and memory layout, and beside the page its trace for Perfetto.

    Args:
        folder: of the page; gets `layers-OriginalNet-contiguous-cpu.trace.json.gz` and so on.
        batch: clips of a step.
        steps: profiled steps, and as many without the profiler.
        layouts: some of `LAYOUTS`, of weights and four-dimensional inputs.
        max_time_s: for each record's steps; fewer are taken when it is over, but two at least.
        progress: called with (records done, records).

    Raises:
        UserError: a trace that cannot be written.
    """
    import torch

    roof = roofs.measure(torch.get_num_threads(), _ROOF_S, device)["arithmetic"]
    peak = roof["flops"] / min(roof["samples_ms"]) / 1e6
    cases = [(network, layout) for layout in layouts for network in make_networks()]  # weights anew for each layout
    results = []
    for done, (network, layout) in enumerate(cases):
        progress(done, len(cases))
        trace = Path(folder) / f"layers-{network.name}-{layout}-{device}.trace.json.gz"
        others = timing.OtherWork()
        figures = _profile_network(network, layout, batch, device, steps, trace, max_time_s)
        first_ms, *samples = figures.pop("plain_ms")
        parameters = {"network": network.name, "batch": batch, "device": device, "memory_format": layout}
        parameters |= {"dtype": "float32", "seed": SEED, "threads": torch.get_num_threads()}
        parameters["tf32"] = device == "cuda" and torch.backends.cudnn.allow_tf32
        run_fields = {"environment": environment, "trace": trace.name, "peak_gflop_per_s": peak, "clips": batch}
        fields: dict[str, Any] = {**run_fields, **others.fields(), **figures}
        results.append(
            records.make("layers", parameters=parameters, unit="ms", samples=samples, first_call=first_ms, **fields)
        )
    progress(len(cases), len(cases))
    return results


def _profile_network(
    network: Network, layout: str, batch: int, device: str, steps: int, trace: Path, max_time_s: float
) -> dict:
    import torch

    with torch.no_grad():
        inputs = network.front_end(make_waveform(batch)).to(device)
    module = network.module.to(device).train()
    if layout == "channels-last":
        torch.nn.utils.convert_conv2d_weight_memory_format(module, torch.channels_last)
        if inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
    types, roots = make_labels(batch, device)
    forward = functools.partial(network.forward, inputs)
    loss = functools.partial(network.answer_loss, types=types, roots=roots)
    mine = [torch.cuda.current_device()] if device == "cuda" else []
    with torch.random.fork_rng(devices=mine):  # dropout must not change what a caller's later training draws
        torch.manual_seed(SEED)
        return profile(module, forward, loss, network.learning_rate, device, steps, trace, max_time_s)


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
        module: on `device`, in training mode; its parameters are trained by Adam.
        forward, loss: one forward pass of `module`, and the scalar of its answer.
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

    def step(named: Callable[[str], contextlib.AbstractContextManager]) -> None:
        with named(_LAYER + OPTIMIZER):
            optimizer.zero_grad(set_to_none=True)
        with named(_LAYER + layer_survey.BETWEEN):
            answer = forward()
        with named(_LAYER + layer_survey.LOSS):
            value = loss(answer)
        value.backward()
        with named(_LAYER + OPTIMIZER):
            optimizer.step()

    plain = functools.partial(step, contextlib.nullcontext)
    named = functools.partial(step, torch.profiler.record_function)
    surveyed = layer_survey.survey(module, forward, loss)
    plain_ms = [_wall_ms(plain, device)]
    profiled_ms, layer_times = [], []
    for number, kind in timing.alternate(("plain", "profiled"), steps + 1, min_rounds=3, max_time_s=max_time_s):
        if kind == "plain":
            plain_ms.append(_wall_ms(plain, device))
            continue
        with _ranges(module), torch_trace.profiler(device) as profiler:
            elapsed_ms = _wall_ms(named, device)
        if number:  # the profiler's own first call counts for nothing
            profiled_ms.append(elapsed_ms)
            layer_times.append(attribute(profiler.events(), device))
    optimizer.zero_grad(set_to_none=True)  # gradients belong to the step, and not to what is held before it
    with _ranges(module):
        peak_bytes = torch_trace.trace_memory(named, device, trace)
    rows = [_timed_row(row, layer_times) for row in [*surveyed, layer_survey.blank_row(OPTIMIZER, "Adam")]]
    state = [value for moments in optimizer.state.values() for value in moments.values() if torch.is_tensor(value)]
    shares = [sum(map(sum, times.values())) / ms for times, ms in zip(layer_times, profiled_ms, strict=True)]
    return {
        "plain_ms": plain_ms,
        "rows": rows,
        "profiled_ms": profiled_ms,
        "sum_ms": sum(row["forward_ms"] + row["backward_ms"] for row in rows),
        "coverage": median(shares),
        "overhead": min(profiled_ms) / min(plain_ms),
        "peak_bytes": peak_bytes,
        "held_bytes": sum(tensor.numel() * tensor.element_size() for tensor in [*module.parameters(), *state]),
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


def _ranges(module: torch.nn.Module) -> contextlib.AbstractContextManager[None]:
    """While open, every leaf module's forward lies in a range of its name."""
    import torch

    open_ranges: list[torch.profiler.record_function] = []

    def enter(name: str, inputs: Any) -> None:
        open_ranges.append(torch.profiler.record_function(_LAYER + name))
        open_ranges[-1].__enter__()

    return layer_survey.hooks(module, enter, lambda name, output: open_ranges.pop().__exit__(None, None, None))


def _timed_row(row: dict, layer_times: list[dict[str, list[float]]]) -> dict:
    forward, backward = ([times.get(row["layer"], (0.0, 0.0))[i] for times in layer_times] for i in (0, 1))
    times = {"forward_ms": max(0.0, median(forward)), "backward_ms": median(backward)}
    return {"layer": row["layer"], "kind": row["kind"], **times, **row}


def _wall_ms(step: Callable[[], None], device: str) -> float:
    """One step by the host's clock; on a GPU from an empty queue to an empty queue."""
    drain(device)

    def whole_step(_: int) -> None:
        step()
        drain(device)

    return timing.call_times_ms(whole_step, [0])[0]
