"""What the layers of a network are, and what work and memory each stands for: no times.

One forward and backward pass is watched by hooks. A backward function belongs to the layer whose output first leads to
it: from every layer's output the graph is walked back to where another layer's begins.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

BETWEEN, LOSS = "(between layers)", "(loss)"
_COUNTS = ("activation_bytes", "saved_bytes", "flops", "backward_flops")


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

    Args:
        module: gradients of its parameters are overwritten.
        forward, loss: one forward pass of `module`, and the scalar of its answer.

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
