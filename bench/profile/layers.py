"""Where in a network does a training step spend its time and memory?

Timed: a whole step (forward with loss, backward, Adam) of both networks on one batch that lies ready on the device;
first by itself, then under torch.profiler, alternated. Not timed: mel spectrograms, reading, copies.

How a time comes to belong to a layer. Hooks on every leaf module open a named range (`record_function`) around its
forward; what the network computes between its leaf modules is a row of its own. A backward function has no module, but
autograd gives it the sequence number of the forward operation that asked for it, and that operation lies in a range. A
gradient's accumulation has no number: it follows the function that produced the gradient, on the same thread. On a GPU
the time of a range is that of the kernels it launched; on a CPU it is the range's own length.

What work and memory a layer stands for is seen by hooks in one pass without a clock. A backward function belongs to the
layer whose output first leads to it: from every output the graph is walked back to where another layer's begins.

Traces hold nothing private. A build of torch for CUDA complains on stderr where it finds no GPU, and writes that
complaint and the path of a temporary file into its traces; both are kept out.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import gzip
import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from triadbench.bench import records, roofs
from triadbench.bench.cases import SEED, make_labels, make_networks, make_waveform
from triadbench.bench.machine import drain
from triadbench.core import timing
from triadbench.core.errors import UserError
from triadbench.core.files import atomic_path
from triadbench.kernels.scratch import scratch_folder

if TYPE_CHECKING:
    import torch

BETWEEN, LOSS, OPTIMIZER = "(between layers)", "(loss)", "(optimizer)"
_COUNTS = ("activation_bytes", "saved_bytes", "flops", "backward_flops")
LAYOUTS = ("contiguous", "channels-last")
_LAYER = "layer "
_BACKWARD = "autograd::engine::evaluate_function: "
_LOG_LEVEL = "KINETO_LOG_LEVEL"
"""The library reads it when a process profiles for the first time."""
_PRIVATE = ("ERROR", "WARNING", "traceName", "hostname")


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
        batch, steps: clips of a step; profiled steps, and as many without the profiler.
        layouts: some of `LAYOUTS`, of weights and four-dimensional inputs.
        max_time_s: for each record's steps; fewer are taken when it is over, but two at least.
        progress: called with (records done, records).

    Raises:
        UserError: a trace that cannot be written.
    """
    import torch

    roof = roofs.measure(torch.get_num_threads(), 0.2, device)["arithmetic"]
    peak = roof["flops"] / min(roof["samples_ms"]) / 1e6
    cases = [(network, layout) for layout in layouts for network in make_networks()]  # weights anew for each layout
    gpus = [torch.cuda.current_device()] if device == "cuda" else []
    results = []
    for done, (network, layout) in enumerate(cases):
        progress(done, len(cases))
        trace = Path(folder) / f"layers-{network.name}-{layout}-{device}.trace.json.gz"
        others = timing.OtherWork()
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
        with torch.random.fork_rng(devices=gpus):  # dropout must not change what a caller's later training draws
            torch.manual_seed(SEED)
            figures = profile(module, forward, loss, network.learning_rate, device, steps, trace, max_time_s)
        first_ms, *samples = figures.pop("plain_ms")
        parameters = {"network": network.name, "batch": batch, "device": device, "memory_format": layout}
        parameters |= {"dtype": "float32", "seed": SEED, "threads": torch.get_num_threads()}
        parameters["tf32"] = device == "cuda" and torch.backends.cudnn.allow_tf32
        fields: dict[str, Any] = {"environment": environment, "parameters": parameters, "first_call": first_ms}
        fields |= {"trace": trace.name, "peak_gflop_per_s": peak, "clips": batch, **others.fields(), **figures}
        results.append(records.make("layers", unit="ms", samples=samples, **fields))
    progress(len(cases), len(cases))
    return results


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
        steps, max_time_s: as `run`; one more step without the profiler is the first call.
        trace: file for Perfetto or chrome://tracing, gzipped JSON of one further step; None writes none.

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
        with named(_LAYER + BETWEEN):
            answer = forward()
        with named(_LAYER + LOSS):
            value = loss(answer)
        value.backward()
        with named(_LAYER + OPTIMIZER):
            optimizer.step()

    plain = functools.partial(step, contextlib.nullcontext)
    named = functools.partial(step, torch.profiler.record_function)
    surveyed = survey(module, forward, loss)
    plain_ms = [wall_ms(plain, device)]
    profiled_ms, layer_times = [], []
    for number, kind in timing.alternate(("plain", "profiled"), steps + 1, min_rounds=3, max_time_s=max_time_s):
        if kind == "plain":
            plain_ms.append(wall_ms(plain, device))
            continue
        with _ranges(module), torch_profiler(device) as profiler:
            elapsed_ms = wall_ms(named, device)
        if number:  # the profiler's own first call counts for nothing
            profiled_ms.append(elapsed_ms)
            layer_times.append(attribute(profiler.events(), device))
    optimizer.zero_grad(set_to_none=True)  # gradients belong to the step, and not to what is held before it
    with _ranges(module):
        peak_bytes = trace_memory(named, device, trace)
    rows = [*surveyed, blank_row(OPTIMIZER, "Adam")]
    for row in rows:
        forward_ms, backward_ms = zip(*(times.get(row["layer"], (0.0, 0.0)) for times in layer_times), strict=True)
        row |= {"forward_ms": max(0.0, median(forward_ms)), "backward_ms": median(backward_ms)}
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
        around = event.cpu_parent
        while around is not None and not around.name.startswith(_LAYER):
            around = around.cpu_parent
        inside = None if around is None else around.name[len(_LAYER) :]
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
            previous[event.thread] = layer = layer or LOSS
            times.setdefault(layer, [0.0, 0.0])[1] += length_us(event) / 1e3
    return times


def _ranges(module: torch.nn.Module) -> contextlib.AbstractContextManager[None]:
    """While open, every leaf module's forward lies in a range of its name."""
    import torch

    open_ranges: list[torch.profiler.record_function] = []

    def enter(name: str, inputs: Any) -> None:
        open_ranges.append(torch.profiler.record_function(_LAYER + name))
        open_ranges[-1].__enter__()

    return hooks(module, enter, lambda name, output: open_ranges.pop().__exit__(None, None, None))


def wall_ms(step: Callable[[], None], device: str) -> float:
    """One step by the host's clock; on a GPU from an empty queue to an empty queue."""
    drain(device)

    def whole_step(_: int) -> None:
        step()
        drain(device)

    return timing.call_times_ms(whole_step, [0])[0]


@contextlib.contextmanager
def torch_profiler(device: str, **options: Any) -> Iterator[torch.profiler.profile]:
    """A running torch.profiler with its own options: of the CPU, and on "cuda" of the kernels as well."""
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
    is_set = _LOG_LEVEL in os.environ
    os.environ.setdefault(_LOG_LEVEL, "5")  # above its fatal errors
    try:
        # acc_events: without it torch warns that a second cycle would clear the events of the first.
        with profile(activities=activities, acc_events=True, **options) as running:
            yield running
    finally:
        if not is_set:
            os.environ.pop(_LOG_LEVEL, None)


def trace_memory(step: Callable[[], None], device: str, out: Path | None = None) -> int:
    """Run a step with its memory watched: the most bytes of torch's allocator above what was held before.

    Args:
        out: file for Perfetto or chrome://tracing (gzipped JSON), written whole or not at all; None writes none.

    Raises:
        UserError: `out` cannot be written.
    """
    import torch

    drain(device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
    gc.collect()  # torch warns where a step frees what was allocated before the watch began
    with torch_profiler(device, record_shapes=True, profile_memory=True) as running:
        step()
        drain(device)
    with scratch_folder() as folder:
        path = folder / "trace.json"
        running.export_chrome_trace(str(path))
        trace = json.loads(path.read_text(encoding="utf-8"))
    trace = {key: value for key, value in trace.items() if key not in _PRIVATE}
    if out is not None:
        try:
            with atomic_path(out) as temporary, open(temporary, "wb") as file:
                # No name and no time in the header: the same trace gives the same bytes.
                with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:
                    packed.write(json.dumps(trace).encode())
        except OSError as error:
            raise UserError(f"{out}: cannot write the trace ({error.strerror or error})") from error
    return torch.cuda.max_memory_allocated() - held if device == "cuda" else peak_of(trace["traceEvents"])


def peak_of(events: list[dict]) -> int:
    """The highest sum of what a trace's memory events on the CPU allocate and free, in bytes, from 0 at its start."""
    memory = (event for event in events if event.get("name") == "[memory]" and event["args"].get("Device Type") == 0)
    changes = [event["args"]["Bytes"] for event in sorted(memory, key=lambda event: event["ts"])]
    return max(itertools.accumulate(changes, initial=0))


def leaves(module: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """Modules that hold no others, by their name within `module`; a module that is itself a leaf by its class name."""
    layers = {name: layer for name, layer in module.named_modules() if name and not any(True for _ in layer.children())}
    return layers or {type(module).__name__: module}


@contextlib.contextmanager
def hooks(
    module: torch.nn.Module, enter: Callable[[str, Any], None], leave: Callable[[str, Any], None]
) -> Iterator[None]:
    """While open, every leaf's forward pass calls enter(name, inputs) before and leave(name, output) after itself."""
    handles = []
    for name, layer in leaves(module).items():
        before = functools.partial(lambda name, layer, inputs: enter(name, inputs), name)
        after = functools.partial(lambda name, layer, inputs, output: leave(name, output), name)
        handles += [layer.register_forward_pre_hook(before), layer.register_forward_hook(after)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def blank_row(layer: str, kind: str, params: int = 0) -> dict[str, Any]:
    """A row without work."""
    return {"layer": layer, "kind": kind, "params": params, "output_shape": None, **dict.fromkeys(_COUNTS, 0)}


def survey(
    module: torch.nn.Module, forward: Callable[[], torch.Tensor], loss: Callable[[torch.Tensor], torch.Tensor]
) -> list[dict]:
    """Rows of the layers that a training step runs, in the order of the forward pass, then `BETWEEN` and `LOSS`.

    The gradients of `module`'s parameters are overwritten; `forward` and `loss` are as in `profile`.

    Returns:
        {"layer", "kind", "params", "output_shape", "activation_bytes", "saved_bytes", "flops", "backward_flops"}:
        `activation_bytes` is the output's size; `saved_bytes` what is kept for the backward pass and is neither a
        parameter nor counted in an earlier row; `flops` those of convolutions and matrix products.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    layers = leaves(module)
    rows = {BETWEEN: blank_row(BETWEEN, "functions"), LOSS: blank_row(LOSS, "functions")}
    owners: dict[Any, str] = {}
    current, started = [BETWEEN], [0]
    kept = {p.untyped_storage().data_ptr() for p in module.parameters()}
    counter = FlopCounterMode(display=False)

    def own(value: object, name: str) -> None:
        """The backward functions behind a result that nobody owns yet are this layer's."""
        waiting = [tensor.grad_fn for tensor in _tensors(value) if tensor.grad_fn is not None]
        while waiting:
            node = waiting.pop()
            if node not in owners:
                owners[node] = name
                waiting += [before for before, _ in node.next_functions if before is not None]

    def enter(name: str, inputs: Any) -> None:
        own(inputs, BETWEEN)
        params = sum(p.numel() for p in layers[name].parameters())
        rows.setdefault(name, blank_row(name, type(layers[name]).__name__, params))
        current.append(name)
        started.append(counter.get_total_flops())

    def leave(name: str, output: Any) -> None:
        current.pop()
        own(output, name)
        tensors, row = _tensors(output), rows[name]
        row["flops"] += counter.get_total_flops() - started.pop()
        row["activation_bytes"] += sum(t.numel() * t.element_size() for t in tensors)
        row["output_shape"] = next((list(t.shape) for t in tensors), None)

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in kept:
            kept.add(storage.data_ptr())
            rows[current[-1]]["saved_bytes"] += storage.nbytes()
        return tensor

    def count_backward(node: Any, row: dict[str, Any]) -> None:
        begun: list[int] = []

        def add(*_: Any) -> None:
            row["backward_flops"] += counter.get_total_flops() - begun.pop()

        node.register_prehook(lambda _: begun.append(counter.get_total_flops()))
        node.register_hook(add)

    module.zero_grad(set_to_none=True)
    with counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), hooks(module, enter, leave):
        answer = forward()
        own(answer, BETWEEN)
        before = counter.get_total_flops()
        rows[BETWEEN]["flops"] = before - sum(row["flops"] for row in rows.values())
        current[0] = LOSS
        value = loss(answer)
        own(value, LOSS)
        rows[LOSS]["flops"] = counter.get_total_flops() - before
        for node, name in owners.items():
            count_backward(node, rows[name])
        value.backward()
    return [*(row for name, row in rows.items() if name not in (BETWEEN, LOSS)), rows[BETWEEN], rows[LOSS]]


def _tensors(value: object) -> list[torch.Tensor]:
    import torch

    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [tensor for part in value for tensor in _tensors(part)] if isinstance(value, (tuple, list)) else []
