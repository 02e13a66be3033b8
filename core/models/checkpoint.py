"""Checkpoints: one `.safetensors` file whose metadata holds everything that is needed to use or to resume it.

Files are sealed with a checksum (core/models/tensor_file.py): damaged weights would still give answers. Those that the
first version wrote have none, and are taken as they are. Nothing is ever unpickled. Published checkpoints of the
original study (`.pt`, `.pth`) are read by torch's weights-only loader, which admits tensors and nothing else.
"""

import json
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from triadbench.core.constants import VERSION
from triadbench.core.errors import UserError
from triadbench.core.files import ModelFiles, StrPath, atomic_path, check_model_file, model_paths
from triadbench.core.models.chords import ROOTS, TYPES
from triadbench.core.models.networks import ChordNet, OriginalNet, OriginalPair
from triadbench.core.models.tensor_file import read_tensors, write_tensors
from triadbench.core.models.vocabulary import QUALITIES
from triadbench.kernels.spec import CHORD, ORIGINAL, MelSpec

FORMAT = "triadbench-checkpoint-2"
_TRIADS_ONLY = "triadbench-checkpoint-1"
"""The format before our network knew more than triads; networks of the original study are the same in both."""
_QUALITIES = tuple(quality.harte for quality in QUALITIES)
_IMPOSSIBLE = -1e4  # a logit; fp16 holds it
_OPTIMIZER = "optimizer."
_N_CLASSES = {"type": len(TYPES), "root": len(ROOTS)}


@dataclass
class Checkpoint:
    """A model with its description.

    Attributes:
        model: in evaluation mode. architecture: "original" or "chordnet". task: "type", "root" or "both".
        spec: the mel spectrogram that the model takes.
        training: the training record: data, seed, epochs, curves, accuracies.
        state: tensors to resume with (optimizer, generator), empty in finished models.
    """

    model: nn.Module
    architecture: str
    task: str
    spec: MelSpec
    training: dict = field(default_factory=dict)
    state: dict[str, Tensor] = field(default_factory=dict)


def build_model(architecture: str, task: str, spec: MelSpec | None = None, config: dict | None = None) -> nn.Module:
    """A model with fresh weights; UserError: an architecture or task that does not exist."""
    if architecture == "original" and task in _N_CLASSES:
        return OriginalNet(_N_CLASSES[task])
    if architecture == "original" and task == "both":
        return OriginalPair()
    if architecture == "chordnet" and task == "both":
        return ChordNet(spec or CHORD, **(config or {}))
    models = "original: type, root, both; chordnet: both"
    raise UserError(f"no model of architecture {architecture!r} for task {task!r} ({models})")


def resumed_record(training: dict, setup: dict) -> dict:
    """A training record with a new entry in `resumed` where `setup` ("device" and whatever else the run states about
    its computation) differs from that of its last epoch. The entry states the epoch (from 1) that it begins with.
    """
    earlier = training.get("resumed", [])
    before = earlier[-1] if earlier else {**training, "device": training["config"]["device"]}
    if all(before.get(key, value) == value for key, value in setup.items()):
        return training
    return {**training, "resumed": [*earlier, {"from_epoch": len(training["curves"]) + 1, **setup}]}


def save(checkpoint: Checkpoint, path: StrPath) -> None:
    """Write a checkpoint, whole or not at all."""
    described = {
        "format": FORMAT,
        "version": VERSION,
        "architecture": checkpoint.architecture,
        "task": checkpoint.task,
        "config": getattr(checkpoint.model, "config", {}),
        "spec": checkpoint.spec.to_dict(),
        "labels": {"types": TYPES, "roots": ROOTS, "qualities": _QUALITIES},
        "training": checkpoint.training,
    }
    tensors = {**checkpoint.model.state_dict(), **{_OPTIMIZER + key: value for key, value in checkpoint.state.items()}}
    with atomic_path(path) as temporary:
        write_tensors(tensors, temporary, {"triadbench": json.dumps(described)})


def load(files: ModelFiles, *, device: str | torch.device = "cpu") -> Checkpoint:
    """Read a checkpoint of ours, or a state dict of the original network (`.pt`, `.pth`, or bare `.safetensors`); or a
    type network's and a root network's, in any order, as one model that names chords.

    Raises:
        UserError: missing, damaged, of another program, or of another version; or two that do not go together.
    """
    paths = model_paths(files)
    parts = [_load_one(path, device) for path in paths]
    return parts[0] if len(parts) == 1 else _joined(parts, paths, device)


def _joined(parts: Sequence[Checkpoint], paths: Sequence[Path], device: str | torch.device) -> Checkpoint:
    """Of a type network and a root network one model, with both training records."""
    tasks = {part.task: part for part in parts}
    if sorted(tasks) != ["root", "type"]:
        answers = [part.task.replace("both", "whole chord") for part in parts]
        said = ", ".join(f"{path} answers for the {answer}" for path, answer in zip(paths, answers, strict=True))
        raise UserError(f"{said}: two models are joined where one answers for the type and one for the root")
    one, other = (part.spec.to_dict() for part in parts)
    if different := ", ".join(f"{key} {one[key]} and {other[key]}" for key in one if one[key] != other[key]):
        raise UserError(f"{paths[0]} and {paths[1]} take different mel spectrograms ({different})")
    model = OriginalPair()
    model.types.load_state_dict(tasks["type"].model.state_dict())
    model.roots.load_state_dict(tasks["root"].model.state_dict())
    training = {task: tasks[task].training for task in ("type", "root")}
    return Checkpoint(model.to(device).eval(), "original", "both", tasks["type"].spec, training)


def _load_one(path: Path, device: str | torch.device) -> Checkpoint:
    check_model_file(path)
    if path.suffix != ".safetensors":
        return _original_from(_load_torch(path), path, device)
    try:
        tensors, metadata = read_tensors(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable model file ({error})") from error
    if "triadbench" not in metadata:
        return _original_from(tensors, path, device)
    try:
        described = json.loads(metadata["triadbench"])
        if len(metadata) > 1:  # the seal of a damaged file may bear another name
            raise UserError(f"a damaged or foreign model file (metadata {', '.join(metadata)})")
        if described["format"] not in (FORMAT, _TRIADS_ONLY):
            raise UserError(f"format {described['format']!r}; this program reads {FORMAT!r}")
        labels = described["labels"]
        qualities = labels.get("qualities", _QUALITIES)
        if (tuple(labels["types"]), tuple(labels["roots"]), tuple(qualities)) != (TYPES, ROOTS, _QUALITIES):
            raise UserError("its labels are not this program's")
        spec = MelSpec.from_dict(described["spec"])
        model = build_model(described["architecture"], described["task"], spec, described["config"])
        weights = {name: tensor for name, tensor in tensors.items() if not name.startswith(_OPTIMIZER)}
        if described["format"] == _TRIADS_ONLY and described["architecture"] == "chordnet":
            if len(weights) < len(tensors):
                raise UserError("an unfinished training of an earlier version, which knew triads alone; train it again")
            weights = _with_all_chords(weights)
        model.load_state_dict(weights)
        _check_finite(weights)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (ValueError, KeyError, TypeError, RuntimeError, AttributeError) as error:
        first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(f"{path}: a damaged or foreign model file ({first_line})") from error
    state = {name.removeprefix(_OPTIMIZER): t for name, t in tensors.items() if name.startswith(_OPTIMIZER)}
    architecture, task, training = described["architecture"], described["task"], described["training"]
    return Checkpoint(model.to(device).eval(), architecture, task, spec, training, state)


def _check_finite(weights: dict[str, Tensor]) -> None:
    if not all(bool(tensor.isfinite().all()) for tensor in weights.values()):
        raise UserError("a damaged model file (its weights are not finite)")


def _with_all_chords(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a network that knew triads alone, as those of one that gives no other chord any probability."""
    weight, bias = weights["circle.4.weight"], weights["circle.4.bias"]
    hidden, others = weight.shape[1], len(QUALITIES) - len(TYPES)
    impossible = torch.full((others,), _IMPOSSIBLE)
    head = {
        "at_root.weight": torch.cat([weight, weight.new_zeros(others + 2, hidden, 1)]),
        "at_root.bias": torch.cat([bias, impossible, bias.new_zeros(2)]),
        "no_chord.weight": weight.new_zeros(1, 2 * hidden),
        "no_chord.bias": impossible[:1],
        "prior": torch.zeros(len(QUALITIES) + 1),
        "temperature": torch.ones(()),
    }
    return {name: tensor for name, tensor in weights.items() if not name.startswith("circle.4.")} | head


def _load_torch(path: Path) -> dict:
    if path.name.endswith(".torchscript.pt"):
        raise UserError(f"{path}: a TorchScript file, not a checkpoint; give the checkpoint that it was made of")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch talks about what it meets before it refuses it
            if zipfile.is_zipfile(path) and (damaged := zipfile.ZipFile(path).testzip()):  # torch looks at no checksum
                raise UserError(f"{path}: {damaged} is damaged; get the file anew")
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:  # torch raises whatever its reader meets in a foreign file
        raise UserError(f"{path}: not a state dict that can be read safely ({type(error).__name__})") from error
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise UserError(f"{path}: not a state dict (names and tensors)")
    return loaded


def _original_from(tensors: dict, path: Path, device: str | torch.device) -> Checkpoint:
    for task, n_classes in _N_CLASSES.items():
        model = OriginalNet(n_classes)
        shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
        if shapes == {name: tensor.shape for name, tensor in tensors.items()}:
            try:
                _check_finite(tensors)
            except UserError as error:
                raise UserError(f"{path}: {error}") from error
            model.load_state_dict(tensors)
            return Checkpoint(model.to(device).eval(), "original", task, ORIGINAL, {"source": path.name})
    raise UserError(f"{path}: neither a triadbench checkpoint nor a state dict of the original network")
