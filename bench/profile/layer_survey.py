"""What the layers of a network are, and what work and memory each stands for: no times.

One forward and backward pass is watched by hooks. A backward function belongs to the layer whose output first leads to
it: from every layer's output the graph is walked back to where another layer's begins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

BETWEEN, LOSS = "(between layers)", "(loss)"


def leaves(module: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """Modules that hold no others, by their name within `module`; a module that is itself a leaf by its class name."""
    found = {name: layer for name, layer in module.named_modules() if name and not any(True for _ in layer.children())}
    return found or {type(module).__name__: module}


def survey(
    module: torch.nn.Module, forward: Callable[[], torch.Tensor], loss: Callable[[torch.Tensor], torch.Tensor]
) -> list[dict]:
    """Rows of the layers that a training step runs, in the order of the forward pass, then `BETWEEN` and `LOSS`.

    Args:
        module: gradients of its parameters are overwritten.
        forward: one forward pass of `module`.
        loss: scalar, of what `forward` gave.

    Returns:
        {"layer", "kind", "params", "output_shape", "activation_bytes", "saved_bytes", "flops", "backward_flops"}:
        `activation_bytes` is the output's size; `saved_bytes` what is kept for the backward pass and is neither a
        parameter nor counted in an earlier row; `flops` those of convolutions and matrix products.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    rows: dict[str, dict] = {}
    owners: dict[Any, str] = {}
    current = [BETWEEN]
    started: list[int] = []
    kept = {p.untyped_storage().data_ptr() for p in module.parameters()}
    counter = FlopCounterMode(display=False)

    def row(name: str, kind: str, params: int = 0) -> dict:
        new = {
            "layer": name,
            "kind": kind,
            "params": params,
            "output_shape": None,
            "activation_bytes": 0,
            "saved_bytes": 0,
            "flops": 0,
            "backward_flops": 0,
        }
        return rows.setdefault(name, new)

    def own(value: object, name: str) -> None:
        """The backward functions behind a result that nobody owns yet are this layer's."""
        waiting = [tensor.grad_fn for tensor in _tensors(value) if tensor.grad_fn is not None]
        while waiting:
            node = waiting.pop()
            if node not in owners:
                owners[node] = name
                waiting += [before for before, _ in node.next_functions if before is not None]

    def enter(name: str, layer: torch.nn.Module) -> Callable:
        def hook(_, inputs) -> None:
            own(inputs, BETWEEN)
            row(name, type(layer).__name__, sum(p.numel() for p in layer.parameters()))
            current.append(name)
            started.append(counter.get_total_flops())

        return hook

    def leave(_, inputs, output) -> None:
        name = current.pop()
        own(output, name)
        rows[name]["flops"] += counter.get_total_flops() - started.pop()
        rows[name]["activation_bytes"] += sum(t.numel() * t.element_size() for t in _tensors(output))
        rows[name]["output_shape"] = next((list(t.shape) for t in _tensors(output)), None)

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in kept:
            kept.add(place)
            rows[current[-1]]["saved_bytes"] += tensor.untyped_storage().nbytes()
        return tensor

    between, loss_row = row(BETWEEN, "functions"), row(LOSS, "functions")
    handles = []
    for name, layer in leaves(module).items():
        handles += [layer.register_forward_pre_hook(enter(name, layer)), layer.register_forward_hook(leave)]
    module.zero_grad(set_to_none=True)
    try:
        with counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            answer = forward()
            own(answer, BETWEEN)
            between["flops"] = counter.get_total_flops() - sum(r["flops"] for r in rows.values())
            current[0] = LOSS
            before = counter.get_total_flops()
            value = loss(answer)
            own(value, LOSS)
            loss_row["flops"] = counter.get_total_flops() - before
            begun: dict[Any, int] = {}
            for node, name in owners.items():
                handles += [
                    node.register_prehook(lambda _, node=node: begun.update({node: counter.get_total_flops()})),
                    node.register_hook(
                        lambda *_, node=node, name=name: _add(
                            rows[name], "backward_flops", counter.get_total_flops() - begun[node]
                        )
                    ),
                ]
            value.backward()
    finally:
        for handle in handles:
            handle.remove()
    return [*(r for name, r in rows.items() if name not in (BETWEEN, LOSS)), between, loss_row]


def _add(row: dict, key: str, more: int) -> None:
    row[key] += more


def _tensors(value: object) -> list[torch.Tensor]:
    import torch

    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [tensor for part in value for tensor in _tensors(part)] if isinstance(value, (tuple, list)) else []
