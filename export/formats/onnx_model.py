"""A checkpoint as ONNX models: the network alone, and with the mel spectrogram before it.

PyTorch's own exporter writes the network; export/formats/mel_graph.py the mel spectrogram; onnx joins them.
"""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import onnx
import torch
from onnx import helper
from torch import Tensor, nn

from triadbench.core.models.checkpoint import Checkpoint
from triadbench.export.formats.mel_graph import IR_VERSION, OPSET, mel_graph
from triadbench.export.predict.metadata import ExportInfo

CLIP_FRAMES = 126  # that the original network takes


class NetworkWithProbabilities(nn.Module):
    """mel (batch, n_mels, n_frames) -> probabilities and logits, as `ExportInfo.output_names` lists them."""

    def __init__(self, checkpoint: Checkpoint):
        super().__init__()
        self.model: Any = checkpoint.model.eval()
        self.both = checkpoint.task == "both"

    def forward(self, mel: Tensor) -> tuple[Tensor, ...]:
        """(batch, n_mels, n_frames), log mel for ours and power mel for the original network."""
        if self.both:
            logits = self.model.joint(mel)
            joint = torch.softmax(logits.flatten(1), dim=1).reshape(logits.shape)
            return joint.sum(dim=1), joint.sum(dim=2), logits
        x = mel.unsqueeze(1)
        x = self.model.conv4(self.model.conv3(self.model.conv2(self.model.conv1(x))))
        logits = self.model.linear(self.model.flatten(x))
        return torch.softmax(logits, dim=1), logits


def network_model(checkpoint: Checkpoint, info: ExportInfo) -> onnx.ModelProto:
    """The network alone: "mel" (batch, n_mels, n_frames) in, `info.output_names` out; batch and frames dynamic."""
    frames = CLIP_FRAMES if info.samples else 63
    mel = torch.zeros(2, info.spec.n_mels, frames)
    dynamic = torch.export.Dim.DYNAMIC
    shapes = {"mel": {0: dynamic} if info.samples else {0: dynamic, 2: dynamic}}
    with quiet("torch.onnx"), torch.inference_mode(False):
        program = torch.onnx.export(
            NetworkWithProbabilities(checkpoint),
            (mel,),
            dynamo=True,
            input_names=["mel"],
            output_names=info.output_names,
            dynamic_shapes=shapes,
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _forget_where_it_was_made(model)
    model.ir_version = IR_VERSION
    for value in (*model.graph.input, *model.graph.output):
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.dim_param:
                dim.dim_param = "n_frames" if axis else "batch"
    return model


def with_mel(network: onnx.ModelProto, info: ExportInfo) -> onnx.ModelProto:
    """The network behind the mel spectrogram that `info.front_end` names: "waveform" (batch, samples) in."""
    front = mel_graph(info.spec, log=info.log, layout=info.front_end)
    joined = onnx.compose.merge_models(front, network, io_map=[("mel", "mel")])
    joined.ir_version = IR_VERSION
    del joined.opset_import[1:]  # the same twice, once from each
    return joined


def describe(model: onnx.ModelProto, info: ExportInfo) -> None:
    """Write `info` into the model's metadata."""
    del model.metadata_props[:]
    helper.set_model_props(model, info.metadata())
    model.producer_name, model.producer_version = "triadbench", info.version
    model.graph.name = f"{info.architecture}_{info.task}"
    model.doc_string = "Names the chord (4 triad types x 12 roots) of a waveform; see the metadata."


def _forget_where_it_was_made(model: onnx.ModelProto) -> None:
    """The exporter notes source lines and folders of the machine beside every node; users need none of it."""
    del model.metadata_props[:], model.graph.metadata_props[:], model.graph.value_info[:]
    for part in (*model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output):
        part.doc_string = ""
        del part.metadata_props[:]


@contextlib.contextmanager
def quiet(logger_name: str | None = None) -> Iterator[None]:
    """Without the warnings of exporters and converters, and of a logger (None: all) nothing but errors."""
    logger = logging.getLogger(logger_name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
