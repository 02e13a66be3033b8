"""What the backends share of torch's side: operators for captured graphs, gradients, and values kept between calls.

A backend's operator is `triadbench::NAME(waveform, window, fb, settings, log_eps)`, with settings the text of its
`MelSpec` (`MelSpec.text`) and fb (n_freqs, n_mels) as modules hold it: a compiled graph then passes the buffer itself,
with its version, where a transposed view would be a new tensor at each call. torch is imported in the functions:
importing a backend stays light.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

from triadbench.kernels.spec import MelSpec

if TYPE_CHECKING:
    from torch import Tensor

_SCHEMA = "(Tensor waveform, Tensor window, Tensor fb, str settings, float? log_eps) -> Tensor"
_Value = TypeVar("_Value")


def is_captured() -> bool:
    """True where operations are recorded or replaced: in torch.compile, torch.func, and modes such as make_fx's."""
    import torch

    return (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or bool(torch._C._len_torch_dispatch_stack())
    )


def is_exported_to_onnx() -> bool:
    """True while torch.onnx.export records: a graph of ONNX has its own operators alone."""
    import torch

    return (torch.jit.is_tracing() or torch.compiler.is_compiling()) and torch.onnx.is_in_onnx_export()


@contextlib.contextmanager
def without_autocast(device: str) -> Iterator[None]:
    """Switches autocast off for a device type: with 8 or 11 bits there is nothing left of a quiet bin."""
    import torch

    with contextlib.ExitStack() as stack:
        if torch.is_autocast_enabled(device):
            stack.enter_context(torch.autocast(device, enabled=False))
        yield


def needs_operator(waveform: Tensor) -> bool:
    """True where a graph must record an operator, or the tensor's class may have no memory to point at."""
    import torch

    return is_captured() or type(waveform) is not torch.Tensor


def needs_gradient(tensor: Tensor) -> bool:
    """True where operations on the tensor are differentiated, in reverse or forward mode."""
    import torch

    if tensor.requires_grad and torch.is_grad_enabled():
        return True
    forward_ad = torch.autograd.forward_ad  # a dual tensor carries its tangent beside it
    return forward_ad._current_level >= 0 and forward_ad.unpack_dual(tensor).tangent is not None


_registering = threading.Lock()


def register_operator(name: str, compute: Callable, device_types: str | None = None) -> None:
    """Define `triadbench::NAME`, once in a process, with a shape function and a rule for torch.func.vmap.

    Args:
        compute: (waveform (batch, time), spec, window, filterbank, log_eps) -> (batch, n_mels, n_frames).
        device_types: of the tensors that it takes, as "cuda"; None for any.
    """
    with _registering:  # torch refuses a second definition, which a cache alone does not exclude
        _define_operator(name, compute, device_types)


@functools.cache
def _define_operator(name: str, compute: Callable, device_types: str | None) -> None:
    import torch

    @torch.library.custom_op(f"triadbench::{name}", mutates_args=(), device_types=device_types, schema=_SCHEMA)
    def operator(waveform, window, fb, settings, log_eps):
        return compute(waveform, spec_of(settings), window, fb.mT, log_eps)

    @operator.register_fake
    def _(waveform, window, fb, settings, log_eps):
        spec = spec_of(settings)
        batch, time = waveform.shape
        # An open length is a symbol and must stay one: its value would make a graph for each length.
        n_frames = spec.n_frames(time) if isinstance(time, int) else spec.n_frames_unchecked(time)
        return window.new_empty((batch, spec.n_mels, n_frames))

    @operator.register_vmap
    def _(info, in_dims, waveform, window, fb, settings, log_eps):
        clips, *arrays = (
            tensor.unsqueeze(0).expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
            for tensor, dim in zip((waveform, window, fb), in_dims[:3], strict=True)
        )
        if in_dims[1] is None and in_dims[2] is None:  # one window and one filterbank: one large batch
            mel = operator(clips.flatten(0, 1), window, fb, settings, log_eps)
            return mel.unflatten(0, clips.shape[:2]), 0
        return torch.stack([operator(*tensors, settings, log_eps) for tensors in zip(clips, *arrays, strict=True)]), 0


@functools.lru_cache(maxsize=64)
def spec_of(settings: str) -> MelSpec:
    """The spec whose text this is."""
    return MelSpec.from_dict(ast.literal_eval(settings))


class BoundedCache(dict[tuple, _Value]):
    """The last `limit` values put in, by key; the oldest goes first. Read it as a dictionary."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit
        self._putting = threading.Lock()

    def put(self, key: tuple, value: _Value) -> _Value:
        """Keep a value and return it. Any thread may call this."""
        with self._putting:
            while len(self) >= self.limit:
                del self[next(iter(self))]
            self[key] = value
        return value


def identity(tensor: Tensor) -> tuple:
    """What tells this tensor's present values from any other's while it is alive: memory, layout and version.

    A change in place is another version. An inference tensor counts none: its values are copied to the host.
    """
    if tensor.is_inference():
        return tensor.shape, tensor.cpu().numpy().tobytes()
    # The shape as well: a part of a tensor begins where the whole does.
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor._version
