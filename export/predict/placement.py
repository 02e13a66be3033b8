"""Where the nodes of an ONNX Runtime session ran, read from its profile."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from triadbench.core.constants import ONNX_PROVIDERS

_ALLOWED = {  # beside the provider itself and the shape arithmetic of the CPU
    "cpu": (),
    "cuda": (),
    "tensorrt": ("CUDAExecutionProvider",),  # it hands to CUDA what it cannot build an engine of
}
_SHAPE_TYPES = {"int64", "int32", "bool"}


@dataclass(frozen=True)
class Placement:
    """Where the nodes of one session ran.

    Attributes:
        nodes: {provider: number of nodes}, by our names ("cpu", "cuda", "tensorrt"). TensorRT's engine is one node.
        shape_nodes: of those, nodes on the CPU that work on shapes alone, beside a GPU provider.
        memcpy: number of Memcpy nodes, which copy between CPU and GPU inside the graph.
        strangers: names of nodes that compute elsewhere than on the provider asked for.
    """

    nodes: dict[str, int]
    shape_nodes: int
    memcpy: int
    strangers: tuple[str, ...] = ()


def placement_of(events: list[dict], provider: str) -> Placement:
    """Of the events of ONNX Runtime's profile of a session on `provider`."""
    ours = {theirs: name for name, theirs in ONNX_PROVIDERS.items()}
    ran: dict[tuple[str, str], dict] = {}
    for event in events:
        arguments = event.get("args", {})
        if event.get("cat") == "Node" and "provider" in arguments and event["name"].endswith("_kernel_time"):
            ran.setdefault((event["name"], arguments.get("op_name", "")), arguments)
    nodes, shape_nodes, memcpy, strangers = Counter(), 0, 0, []
    for (name, operator), arguments in ran.items():
        where = arguments["provider"]
        nodes[ours.get(where, where)] += 1
        if operator.startswith("Memcpy"):
            memcpy += 1
        elif where == ONNX_PROVIDERS[provider] or where in _ALLOWED[provider]:
            continue
        elif where == ONNX_PROVIDERS["cpu"] and _works_on_shapes(operator, arguments):
            shape_nodes += 1
        else:
            strangers.append(f"{name.removesuffix('_kernel_time')} ({operator}) on {ours.get(where, where)}")
    if not nodes:
        strangers.append("no node was seen to run")
    elif provider not in nodes and not strangers:
        strangers.append(f"no node runs on {provider}")
    return Placement(dict(nodes), shape_nodes, memcpy, tuple(strangers))


def _works_on_shapes(operator: str, arguments: dict) -> bool:
    """A node that asks for a shape, or has integers and single numbers alone coming in and going out."""
    values = [
        (kind, shape)
        for key in ("input_type_shape", "output_type_shape")
        for entry in arguments.get(key, [])
        for kind, shape in entry.items()
    ]
    return operator in ("Shape", "Size") or all(kind in _SHAPE_TYPES or set(shape) <= {1} for kind, shape in values)
