"""What the compiled backends share of torch's side: their operator for graphs, and what is kept from call to call.

A backend's operator is `triadbench::NAME(waveform, window, filterbank, settings, log_eps)`, with settings the text of
its `MelSpec` (`MelSpec.text`). torch is imported in the functions: importing a backend stays light.
"""

from __future__ import annotations

import ast
import functools
import threading
from collections.abc import Callable
from typing import TypeVar

from triadbench.kernels.spec import MelSpec

_SCHEMA = "(Tensor waveform, Tensor window, Tensor filterbank, str settings, float? log_eps) -> Tensor"
_Value = TypeVar("_Value")


# ---- the operator: torch.compile, torch.export and torch.func see it whole, with a shape function and a vmap rule


def needs_operator(waveform) -> bool:
    """Whether somebody looks on who has to see an operator and not memory: a compiler, a mode, a transform."""
    import torch

    return (
        torch.compiler.is_compiling()
        or type(waveform) is not torch.Tensor  # a subclass may have no memory
        or bool(torch._C._len_torch_dispatch_stack())  # a mode has to see what happens: make_fx and its like
        or torch._C._are_functorch_transforms_active()
    )


def register_operator(name: str, compute: Callable, device_types: str | None = None) -> None:
    """Define `triadbench::NAME`, once in a process.

    Args:
        compute: (waveform (batch, time), spec, window, filterbank, log_eps) -> (batch, n_mels, n_frames).
        device_types: of the tensors that it takes, as "cuda"; None for any.
    """
    import torch

    @torch.library.custom_op(f"triadbench::{name}", mutates_args=(), device_types=device_types, schema=_SCHEMA)
    def operator(waveform, window, filterbank, settings, log_eps):
        return compute(waveform, spec_of(settings), window, filterbank, log_eps)

    @operator.register_fake
    def _(waveform, window, filterbank, settings, log_eps):
        spec = spec_of(settings)
        batch, time = waveform.shape
        # An open length is a symbol and stays one: looked at, it would make a graph for each length.
        n_frames = spec.n_frames(time) if isinstance(time, int) else spec.n_frames_unchecked(time)
        return window.new_empty((batch, spec.n_mels, n_frames))

    @operator.register_vmap
    def _(info, in_dims, waveform, window, filterbank, settings, log_eps):
        clips, *arrays = (
            tensor.unsqueeze(0).expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
            for tensor, dim in zip((waveform, window, filterbank), in_dims[:3], strict=True)
        )
        if in_dims[1] is None and in_dims[2] is None:  # one window and one filterbank: one large batch
            mel = operator(clips.flatten(0, 1), window, filterbank, settings, log_eps)
            return mel.unflatten(0, clips.shape[:2]), 0
        each = zip(clips, *arrays, strict=True)
        return torch.stack([operator(*tensors, settings, log_eps) for tensors in each]), 0


@functools.lru_cache(maxsize=64)
def spec_of(settings: str) -> MelSpec:
    """The spec whose text this is."""
    return MelSpec.from_dict(ast.literal_eval(settings))


# ---- what one spec, window and filterbank need, kept from call to call


class Kept(dict[tuple, _Value]):
    """The last `limit` values put in, by key; the oldest goes first. `get` is a dictionary's; `put` may come from any
    thread."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit
        self._putting = threading.Lock()

    def put(self, key: tuple, value: _Value) -> None:
        """Keep a value, and let go of the oldest where there are too many."""
        with self._putting:
            while len(self) >= self.limit:
                del self[next(iter(self))]
            self[key] = value


def identity(tensor) -> tuple:
    """What tells this tensor's present values from any other's, as long as the tensor is kept alive: its memory and
    version; a change in place is another version."""
    if tensor.is_inference():  # it counts no versions
        return tensor.shape, tensor.cpu().numpy().tobytes()
    # The shape as well: a part of a tensor begins where the whole does.
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor._version
