"""The training pipelines as switches: the original study's, the fast one, and the way from one to the other.

A switch changes how fast an epoch runs, not what it computes: order of clips, initial weights, loss and updates are the
same up to rounding, whatever the switches.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args, get_type_hints

from triadbench.core.errors import UserError

if TYPE_CHECKING:
    import torch

Mel = Literal["clip", "batch", "cached"]
Precision = Literal["fp32", "tf32", "bf16"]


@dataclass(frozen=True)
class Switches:
    """How the one trainer trains; the defaults are the original pipeline.

    Attributes:
        packed: clips come from a pack's memory map; False: each file is opened, decoded, resampled, mixed to mono.
        mel: "clip": per clip inside the dataset by torchaudio; "batch": once per batch by kernels.MelSpectrogram;
            "cached": computed once, then kept on the device.
        prefetch: batches are read (on a GPU: into pinned memory, and copied on a stream of their own) by a thread ahead
            of the step.
        channels_last: network and input in channels-last memory format.
        pool_first: max-pool before ReLU: the same function, for both are monotone, with a quarter of the ReLU's work.
        fused_blocks: a block's bias, max-pool and ReLU in one pass of our compiled code, the first block whole, no
            convolution of what the pooling drops, and backward only where a gradient comes through pooling and ReLU
            (kernels/conv_pool/blocks.py). CPU, float32; needs channels_last and pool_first.
        fused_optimizer: Adam(fused=True): one pass over the weights.
        sync_each_step: the loss is read after every batch, as the original does; False: losses stay on the device
            until the epoch ends.
        precision: of convolutions and products: "fp32", "tf32" (GPU) or "bf16" (autocast).
        compile: torch.compile of the step's network.
        cuda_graph: the whole training step is captured once and replayed (GPU; needs fused_optimizer).
    """

    packed: bool = False
    mel: Mel = "clip"
    prefetch: bool = False
    channels_last: bool = False
    pool_first: bool = False
    fused_blocks: bool = False
    fused_optimizer: bool = False
    sync_each_step: bool = True
    precision: Precision = "fp32"
    compile: bool = False
    cuda_graph: bool = False

    def describe(self) -> dict[str, bool | str]:
        """The switches as a record holds them."""
        return asdict(self)

    def with_(self, **changes: Any) -> Switches:
        """These switches with some changed."""
        return replace(self, **changes)

    def check(self, device: torch.device | str) -> Switches:
        """The switches themselves, if they go together and with the device.

        Raises:
            UserError: they do not.
        """
        kind = str(device).partition(":")[0]
        for name, kinds in _KINDS.items():
            value = getattr(self, name)
            if value not in kinds:
                raise UserError(f"switch {name}={_text(value)}: choose {', '.join(map(_text, kinds))}")
        for name, value in (("cuda_graph", True), ("precision", "tf32")):
            if kind == "cpu" and getattr(self, name) == value:
                raise UserError(f"switch {name}={_text(value)} needs a GPU and the device is {kind}; leave it out")
        if self.fused_blocks and kind != "cpu":
            raise UserError(f"switch fused_blocks=true runs on the CPU and the device is {kind}; leave it out")
        for name, needed in _NEEDS.items():
            for other, value in needed.items() if getattr(self, name) else ():
                if getattr(self, other) != value:
                    raise UserError(f"switch {name}=true needs {other}={_text(value)}; set both or neither")
        return self


_KINDS = {name: get_args(hint) or (True, False) for name, hint in get_type_hints(Switches).items()}
_NEEDS: dict[str, dict[str, bool | str]] = {
    "fused_blocks": {"channels_last": True, "pool_first": True, "precision": "fp32", "compile": False},
    "cuda_graph": {"fused_optimizer": True},
}

ORIGINAL_PIPELINE = Switches()
# torch.compile is left off: its compiler takes longer than a whole training takes with the graph alone.
_FAST = replace(
    ORIGINAL_PIPELINE,
    packed=True,
    mel="cached",
    channels_last=True,
    pool_first=True,
    fused_optimizer=True,
    sync_each_step=False,
)
_FAST_CPU = replace(_FAST, fused_blocks=True)
_FAST_GPU = replace(_FAST, prefetch=True, precision="tf32", cuda_graph=True)


def fast_pipeline(device: torch.device | str) -> Switches:
    """The fast pipeline of a device ("cpu", "cuda", "cuda:1", ...)."""
    return _FAST_CPU if str(device).startswith("cpu") else _FAST_GPU


PIPELINES = {"original": lambda device: ORIGINAL_PIPELINE, "fast": fast_pipeline}


def pipeline(name: str, device: torch.device | str, changes: Iterable[str] = ()) -> Switches:
    """A pipeline by name, with switches "name=value" changed.

    Raises:
        UserError: an unknown pipeline, switch or value, or switches that do not go together.
    """
    if name not in PIPELINES:
        raise UserError(f"unknown pipeline {name!r}; choose {' or '.join(PIPELINES)}")
    switches = PIPELINES[name](device)
    for text in changes:
        key, equals, value = text.partition("=")
        if not equals or key not in _KINDS:
            raise UserError(f"switch {text!r} must be name=value, the name one of {', '.join(_KINDS)}")
        values = {_text(kind): kind for kind in _KINDS[key]}
        if True in _KINDS[key]:
            values |= {"on": True, "off": False, "1": True, "0": False}
        if value.lower() not in values:
            raise UserError(f"switch {key}={value}: choose {', '.join(map(_text, _KINDS[key]))}")
        switches = switches.with_(**{key: values[value.lower()]})
    return switches.check(device)


def _text(value: bool | str) -> str:
    return str(value).lower()


_RUNGS = [
    (
        "packed",
        "packed",
        "Clips come from one memory-mapped array: no file is opened, no header read, nothing decoded.",
    ),
    (
        "mel per batch",
        "mel",
        "The mel spectrogram is computed once for a whole batch by our kernel, and not clip by clip by torchaudio.",
    ),
    (
        "prefetch",
        "prefetch",
        "A thread reads the next batches into pinned memory and copies them while the GPU computes.",
    ),
    (
        "cached mel",
        "mel",
        "The mel spectrograms, the same in every epoch, are computed in the first one and kept on the device.",
    ),
    (
        "losses stay on the device",
        "sync_each_step",
        "The loss is read once, when the epoch ends, and not after every batch: nobody waits.",
    ),
    (
        "channels-last",
        "channels_last",
        "The channels of a pixel lie side by side, as the convolutions want them: they convert nothing.",
    ),
    (
        "pool before ReLU",
        "pool_first",
        "Max-pool comes before ReLU: the same function with a quarter of the ReLU's work.",
    ),
    (
        "fused blocks",
        "fused_blocks",
        "Bias, max-pool and ReLU of a block run in one pass of our compiled code, the first block never writes its "
        "largest array, what the pooling would drop is not computed, and backward multiplies only the gradients that "
        "pooling and ReLU let through: fewer than one in four.",
    ),
    ("fused Adam", "fused_optimizer", "The optimizer updates all weights in one pass, and not in a dozen passes."),
    (
        "TF32",
        "precision",
        "Convolutions and products run on the tensor cores, with inputs of 10 bits' precision and sums in float32.",
    ),
    (
        "CUDA graph",
        "cuda_graph",
        "The whole step, from picking the clips to the updated weights, is captured once and replayed in one launch.",
    ),
]
"""(name, the switch that takes its value in the fast pipeline, sentence)."""


def LADDER(device: torch.device | str) -> list[tuple[str, Switches, str]]:
    """From the original pipeline to the fast one, a rung at a time: (name, switches, what changes and why).

    A device climbs the rungs whose switches its fast pipeline changes.
    """
    fast, switches = fast_pipeline(device), ORIGINAL_PIPELINE
    rungs = [("original", switches, "The original: every clip is read, decoded and transformed by itself, in turn.")]
    for name, switch, sentence in _RUNGS:
        value = "batch" if name == "mel per batch" else getattr(fast, switch)
        if value != getattr(switches, switch):
            switches = switches.with_(**{switch: value})
            rungs.append((name, switches, sentence))
    return rungs
