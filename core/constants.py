"""Numbers and names that several rooms share. Imports nothing heavy, so that help texts can derive their defaults."""

import os
from typing import NamedTuple

VERSION = "0.1.0"
"""What `--version` prints, and what checkpoints and records carry."""

SAMPLE_RATE = 16_000
"""Hz; all sound is brought to it."""
CLIP_SECONDS = 4.0
CLIP_SAMPLES = round(SAMPLE_RATE * CLIP_SECONDS)

ONNX_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
"""Our names of ONNX Runtime's execution providers, and its own."""
PROVIDERS = (*ONNX_PROVIDERS, "torchscript", "torch")
PRECISIONS = ("fp32", "fp16", "int8")
FULL_CLIPS, ALL_CLIPS = 8192, 86_400
"""Of the original study's experiments, and of its whole set, out of which it drew those."""
TIMELINE_FORMATS = ("lab", "json", "csv", "mid", "html")
"""Of the files that `infer --timeline` writes."""


class RecipeDefaults(NamedTuple):
    """Defaults of `train`."""

    epochs: int
    batch_size: int
    learning_rate: float
    split: str
    test_fraction: float
    seed: int


RECIPE_DEFAULTS = {
    "original": RecipeDefaults(30, 32, 1e-5, "random", 0.3, 13),
    "ours": RecipeDefaults(10, 64, 3e-3, "grouped", 0.04, 0),
}

EPOCH_PARTS = ("reading", "resampling", "mel", "copy", "forward", "backward", "optimizer", "synchronisation", "idle")
"""Where an epoch's seconds go."""


def usable_cores() -> int:
    """Cores that this process may run on, which a container or `taskset` can make fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
