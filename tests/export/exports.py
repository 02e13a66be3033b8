"""Exported models for the tests: the shipped network, exported anew once, and clips of sines."""

import dataclasses
import functools

import numpy as np
import onnx
import pytest

from tests.core.toys import chord
from triadbench.core.audio.io import to_int16
from triadbench.core.models.checkpoint import load
from triadbench.core.models.predictor import SHIPPED
from triadbench.export.formats.onnx_model import describe, network_model, with_mel
from triadbench.export.formats.verify import LabelledClips
from triadbench.export.predict.metadata import SEAL, ExportInfo, sealed

FOLDER = SHIPPED.parent
ONNX_FILES = {
    "chordnet.onnx": ("each", "fp32"),
    "chordnet.batch.onnx": ("batch", "fp32"),
    "chordnet.mel.onnx": ("none", "fp32"),
    "chordnet.batch.fp16.onnx": ("batch", "fp16"),
    "chordnet.int8.onnx": ("each", "int8"),
    "chordnet.mel.int8.onnx": ("none", "int8"),
}
TORCHSCRIPT = FOLDER / "chordnet.torchscript.pt"


def sine_clips() -> LabelledClips:
    """Every chord once, n = 48."""
    labels = [(root, type_) for root in range(12) for type_ in range(4)]
    clips = np.stack([to_int16(chord(root, type_, 4).astype(np.float32)) for root, type_ in labels])
    roots, types = np.array(labels).T
    return LabelledClips("48 chords of sines", clips, types, roots, np.ones(48, bool))


def shipped(name: str) -> onnx.ModelProto:
    if not (FOLDER / name).exists():
        pytest.skip(f"pretrained/{name} is not there")
    return onnx.load(FOLDER / name)


def info_of(model: onnx.ModelProto) -> ExportInfo:
    return ExportInfo.from_metadata({each.key: each.value for each in model.metadata_props}, "model")


def network(precision: str = "fp32") -> onnx.ModelProto:
    """The shipped network alone, mel in, as `export` writes it."""
    return onnx.load_from_string(_exported()) if precision == "fp32" else shipped(f"chordnet.mel.{precision}.onnx")


@functools.cache
def _exported() -> bytes:
    model, checkpoint = shipped("chordnet.mel.onnx"), load(SHIPPED)
    info = dataclasses.replace(
        ExportInfo.of_checkpoint(checkpoint, SHIPPED, "onnx", "none", {}), accuracies=info_of(model).accuracies
    )
    model = network_model(checkpoint, info)
    describe(model, info)
    return sealed(model.SerializeToString())


def bare_network() -> onnx.ModelProto:
    """The same without metadata: what torch's exporter gave."""
    model = network()
    del model.metadata_props[:]
    return model


def sealed_bytes(model: onnx.ModelProto) -> bytes:
    """The model's file, sealed anew."""
    kept = [entry for entry in model.metadata_props if entry.key != SEAL]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    return sealed(model.SerializeToString())


def write(path, network: onnx.ModelProto, front_end: str, **changes) -> ExportInfo:
    """A file of `network` as `export` would write it; `changes` are the metadata's."""
    info = dataclasses.replace(info_of(network), front_end=front_end, **changes)
    model = onnx.ModelProto()
    model.CopyFrom(network)
    if front_end != "none":
        model = with_mel(model, info)
    describe(model, info)
    path.write_bytes(sealed_bytes(model))
    return info
