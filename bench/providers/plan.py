"""What `benchmark` measures and for how long: efforts as data, and the options filled in and checked."""

import dataclasses
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from triadbench.bench.cases import check_counts
from triadbench.bench.providers.contestants import FORMATS, Contestant
from triadbench.core.constants import ONNX_PROVIDERS, PRECISIONS
from triadbench.core.device import torch_device
from triadbench.core.errors import UserError
from triadbench.core.files import ModelFiles, check_model_file, model_paths, model_stem
from triadbench.core.models import checkpoint as checkpoints
from triadbench.core.models.predictor import SHIPPED
from triadbench.export.predict.providers import check_choice, why_unavailable

PARTS = ("load", "single", "offline", "files", "process")


@dataclasses.dataclass(frozen=True)
class Effort:
    """How long to measure."""

    name: str  # recorded
    batches: tuple[int, ...] = tuple(2**i for i in range(10))  # sizes for offline
    queries: int = 1024  # of the single stream, ...
    pool: int = 64  # ... its distinct clips, ...
    blocks: int = 16  # ... and the rounds that its queries are spread over
    most_s: float = 40.0  # of one contestant's calls in a group; beyond it has fewer
    offline_s: float = 2.0  # of each contestant and batch size, ...
    offline_blocks: int = 3  # ... in so many rounds, ...
    offline_clips: int = 0  # ... and clips at least
    fresh: int = 5  # processes for each load time
    fresh_batch: int = 64  # the larger batch for the memory
    files: int = 512  # wav files in the folder, ...
    rounds: int = 7  # ... and how often they are answered
    processes: int = 11  # of each command


NORMAL = Effort("normal")
FULL = Effort("full", most_s=float("inf"), offline_clips=24_576, fresh=9, files=2048)
_SHORT = dataclasses.replace(NORMAL, offline_blocks=2, fresh=1, fresh_batch=16, files=48, rounds=3, processes=7)
QUICK = dataclasses.replace(_SHORT, name="quick", batches=(1, 32), pool=16, blocks=4, most_s=0.7, offline_s=0.2)
_TINY = dataclasses.replace(_SHORT, offline_blocks=1, fresh_batch=2, files=3, rounds=1, processes=1)
SMOKE = dataclasses.replace(_TINY, name="smoke", batches=(1, 2), queries=4, pool=4, blocks=2, offline_s=0.0)
GPU = dataclasses.replace(  # a minute of a GPU, whose energy counter moves ten times a second
    NORMAL, name="gpu", batches=(1, 8, 64, 512), queries=256, blocks=4, most_s=1.5, offline_s=0.5, offline_blocks=1
)
EFFORTS = {effort.name: effort for effort in (NORMAL, FULL, QUICK, SMOKE)}


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be measured, checked by `make_plan`."""

    checkpoint: Path
    folder: Path
    contestants: tuple[Contestant, ...]
    absent: tuple[tuple[Contestant, str], ...]
    threads: tuple[int, ...]
    batches: tuple[int, ...]
    parts: tuple[str, ...]


def make_plan(
    effort: Effort,
    model: ModelFiles | None = None,
    folder: Path | None = None,
    providers: Sequence[str] = (),
    precisions: Sequence[str] = (),
    threads: Sequence[int] = (),
    batches: Sequence[int] = (),
    parts: Sequence[str] = (),
    scratch: Path | None = None,
) -> Plan:
    """Fill in what was not asked for and check what was; two networks become one checkpoint in the folder `scratch`.
    Raises UserError for what is unknown or cannot be had."""
    model = model or SHIPPED
    checkpoint, *others = model_paths(model)
    for path in (checkpoint, *others):
        check_model_file(path, "; give a checkpoint with --model")
    folder = Path(folder or checkpoint.parent)
    if others and scratch is not None:
        checkpoint = scratch / f"{model_stem(model)}.safetensors"
        checkpoints.save(checkpoints.load(model), checkpoint)
    threads = check_counts(batches, threads, most_batch=4096)
    present, absent = grid(checkpoint, folder, providers, precisions)
    if not present:
        missing = "; ".join(f"{contestant.name}: {reason}" for contestant, reason in absent[:3])
        raise UserError(f"no contestant is left: {missing}")
    batches = tuple(sorted(set(batches))) or effort.batches
    return Plan(checkpoint, folder, tuple(present), tuple(absent), threads, batches, tuple(parts or PARTS))


def grid(
    checkpoint: Path, folder: Path, providers: Sequence[str] = (), precisions: Sequence[str] = ()
) -> tuple[list[Contestant], list[tuple[Contestant, str]]]:
    """All contestants that can be had, and (contestant, reason) of the others; of no names, all that there are.

    Raises UserError for an unknown name, or a provider that was asked for by name and cannot be had.
    """
    for option, names, choices in (("provider", providers, ONNX_PROVIDERS), ("precision", precisions, PRECISIONS)):
        for name in names:
            check_choice(option, name, choices)
    wishes = tuple(providers or ONNX_PROVIDERS)
    # ONNX Runtime has providers of its own; PyTorch computes on a GPU without them.
    reasons = {(provider, True): None if provider == "cpu" else why_unavailable(provider) for provider in wishes}
    reasons |= {(provider, False): why_no_torch(provider) for provider in wishes if provider in ("cpu", "cuda")}
    for provider in providers:
        if (reason := reasons[provider, True]) and reasons.get((provider, False), reason):
            raise UserError(f"provider {provider}: {reason}; leave it out of --provider")
    present, absent = [], []
    cases = [(name, *case) for name, form in FORMATS.items() for case in product(form.providers, form.precisions)]
    for name, provider, precision in cases:
        if provider not in wishes or precision not in (precisions or PRECISIONS):
            continue
        form = FORMATS[name]
        reason = reasons[provider, form.kind.startswith("onnx")]
        mark = "" if precision == "fp32" else f".{precision}"
        path = folder / form.file.format(stem=checkpoint.stem, mark=mark) if form.kind != "torch" else checkpoint
        contestant = Contestant(name, precision, provider, str(path))
        if path.is_file() and not reason:
            present.append(contestant)
        elif path.is_file() or precision == "fp32" or precisions:  # others are made where they hold
            absent.append((contestant, reason or f"{path.name} is not there; `export` makes it"))
    return present, absent


def why_no_torch(provider: str) -> str | None:
    """Why PyTorch cannot compute on "cpu" or "cuda" here; None where it can."""
    try:
        torch_device(provider)
    except UserError as error:
        return str(error)
    return None
