"""A checkpoint as ONNX models: the network alone, in fp32, fp16 or int8, and with the mel spectrogram before it.

PyTorch's own exporter writes the network; export/formats/mel_graph.py the mel spectrogram; onnx joins them.

The mel spectrogram spans more than 14 nats and fp16 has no room for it, and the network begins by taking the clip's
loudest cell away from all of them, which only float32 does without loss: everything before the first convolution stays
float32 in every precision, and so do the probabilities behind the logits, and inputs and outputs.
"""

import contextlib
import copy
import logging
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper
from torch import Tensor, nn

from triadbench.core.models.checkpoint import Checkpoint
from triadbench.core.models.networks import OriginalPair, joint_of
from triadbench.export.formats.mel_graph import IR_VERSION, OPSET, mel_graph
from triadbench.export.predict.metadata import ExportInfo
from triadbench.export.predict.providers import load_onnxruntime
from triadbench.kernels.scratch import scratch_folder

CLIP_FRAMES = 126  # that the original network takes


class NetworkWithProbabilities(nn.Module):
    """mel (batch, n_mels, n_frames), logarithmic for our network -> probabilities and logits of `info.output_names`."""

    def __init__(self, checkpoint: Checkpoint):
        super().__init__()
        self.model: Any = checkpoint.model.eval()
        self.both = checkpoint.task == "both"

    def forward(self, mel: Tensor) -> tuple[Tensor, ...]:
        if isinstance(self.model, OriginalPair):
            logits = self.model.joint(mel)
            joint = logits.exp()
            return joint.sum(dim=1), joint.sum(dim=2), logits
        if self.both:
            heads = self.model.heads(mel)
            chords = self.model.calibrated(heads.chords)
            logits = joint_of(chords)
            joint = torch.softmax(logits.flatten(1), dim=1).reshape(logits.shape)
            return joint.sum(dim=1), joint.sum(dim=2), logits, chords, torch.softmax(heads.bass, dim=1)
        logits = self.model.logits(mel.unsqueeze(1))
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
    # The exporter notes source lines and folders of the machine beside every node; users need none of it.
    del model.metadata_props[:], model.graph.metadata_props[:], model.graph.value_info[:]
    for part in (*model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output):
        part.doc_string = ""
        del part.metadata_props[:]
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
    _take_no_clips(joined.graph)
    return joined


def _take_no_clips(graph: onnx.GraphProto) -> None:
    """Let a batch of 0 clips have an answer of 0 rows: Reshape, Scan and MatMul refuse one in ONNX Runtime, so a clip
    of silence goes through, and is cut off at the end. Any other batch only pays a copy of its samples."""
    source = graph.input[0].name
    for node in graph.node:
        node.input[:] = [f"{source}/some" if name == source else name for name in node.input]
    shared = {"zero": 0, "one": 1}
    graph.initializer.extend(
        onnx.numpy_helper.from_array(np.array([value], np.int64), f"clips/{name}") for name, value in shared.items()
    )
    before = [
        helper.make_node("Shape", [source], ["clips/n"], end=1),
        helper.make_node("Sub", ["clips/one", "clips/n"], ["clips/lacking"]),
        helper.make_node("Max", ["clips/lacking", "clips/zero"], ["clips/added"]),
        helper.make_node("Concat", ["clips/zero", "clips/zero", "clips/added", "clips/zero"], ["clips/pads"], axis=0),
        helper.make_node("Pad", [source, "clips/pads"], [f"{source}/some"]),
    ]
    names = [output.name for output in graph.output]
    for node in graph.node:
        for names_of_node in (node.input, node.output):
            names_of_node[:] = [f"{name}/some" if name in names else name for name in names_of_node]
    after = [
        helper.make_node("Slice", [f"{name}/some", "clips/zero", "clips/n", "clips/zero"], [name]) for name in names
    ]
    nodes = [*before, *graph.node, *after]
    for node in (*before, *after):
        node.name = f"clips/{node.op_type}_{node.output[0]}"
    del graph.node[:]
    graph.node.extend(nodes)


def describe(model: onnx.ModelProto, info: ExportInfo) -> None:
    """Write `info` into the model's metadata."""
    del model.metadata_props[:]
    helper.set_model_props(model, info.metadata())
    model.producer_name, model.producer_version = "triadbench", info.version
    model.graph.name = f"{info.architecture}_{info.task}"
    model.doc_string = "Names the chord of a waveform, its triad (4 types x 12 roots) and its bass; see the metadata."


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


def to_fp16(network: onnx.ModelProto) -> onnx.ModelProto:
    """The network with its convolutions, and all between them, in fp16."""
    load_onnxruntime()
    from onnxruntime.transformers.float16 import convert_float_to_float16

    kept = kept_in_float32(network)
    with quiet():  # it warns of numbers too small for fp16
        half = convert_float_to_float16(copy.deepcopy(network), keep_io_types=True, node_block_list=kept)
    _without_detours(half)
    return _restored(half, network)


def to_int8(network: onnx.ModelProto, mels: Iterable[np.ndarray]) -> onnx.ModelProto:
    """The network with its convolutions in int8 (weights by channel, of 7 bits: pairs of 8-bit products overflow the
    16-bit sums of CPUs without VNNI), scaled by what it sees in `mels`, batches (batch, n_mels, n_frames) float32. The
    small one that ends in logits of unlike ranges stays float32."""
    load_onnxruntime()
    from onnxruntime import quantization

    inputs = ({"mel": batch} for batch in mels)
    is_ours = any(output.name == "chord_logits" for output in network.graph.output)
    last = [node.name for node in network.graph.node if node.op_type == "Conv"][-1:] if is_ours else []

    class Inputs(quantization.CalibrationDataReader):
        def get_next(self) -> dict | None:
            return next(inputs, None)

    with scratch_folder() as folder, quiet():  # it logs advice
        out = folder / "int8.onnx"
        quantization.quantize_static(
            copy.deepcopy(network),
            out,
            Inputs(),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=last,
            calibrate_method=quantization.CalibrationMethod.MinMax,
        )
        return _restored(onnx.load(out), network)


def kept_in_float32(network: onnx.ModelProto) -> list[str]:
    """Names of the nodes before the first convolution and behind the first logits; of those that ask for a
    shape; and of every Softmax: ONNX Runtime had none in fp16 before 1.17, and put operators of another opset there."""
    nodes = list(network.graph.node)
    before, behind = {next(node for node in nodes if node.op_type == "Conv").input[0]}, {"logits", "chord_logits"}
    kept = {node.name for node in nodes if node.op_type in ("Softmax", "LogSoftmax", "Shape")}
    for node in reversed(nodes):  # each stands behind those that make its inputs
        if before & set(node.output):
            kept.add(node.name)
            before |= set(node.input)
    for node in nodes:
        if behind & set(node.input):
            kept.add(node.name)
            behind |= set(node.output)
    return [node.name for node in nodes if node.name in kept]


def _without_detours(model: onnx.ModelProto) -> None:
    """Take out casts to fp16 and straight back: the converter sends even the input through them, which would round the
    mel spectrogram that is to stay float32; and casts that it makes again for each reader of the same tensor."""
    casts = [node for node in model.graph.node if node.op_type == "Cast"]
    for i, node in enumerate(casts):
        if any(node.output == other.output for other in casts[:i]):
            model.graph.node.remove(node)
    makers = {output: node for node in model.graph.node for output in node.output}

    def before_cast(tensor: str | None, dtype: int) -> str | None:
        node = makers.get(tensor)
        return node.input[0] if node is not None and node.op_type == "Cast" and node.attribute[0].i == dtype else None

    for node in model.graph.node:
        for i, tensor in enumerate(node.input):
            if source := before_cast(before_cast(tensor, onnx.TensorProto.FLOAT), onnx.TensorProto.FLOAT16):
                node.input[i] = source
    while True:
        used = {tensor for node in model.graph.node for tensor in node.input}
        used |= {output.name for output in model.graph.output}
        idle = [node for node in model.graph.node if not used & set(node.output)]
        if not idle:
            return
        for node in idle:
            model.graph.node.remove(node)


def _restored(model: onnx.ModelProto, network: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its nodes in the order that ONNX demands, each behind those that make its inputs, and with what
    the converters change beside the nodes, versions and notes of their own, as in `network`."""
    waiting = list(model.graph.node)
    known = {value.name for value in (*model.graph.input, *model.graph.initializer)} | {""}
    ordered: list[onnx.NodeProto] = []
    while waiting:
        ready = [node for node in waiting if known.issuperset(node.input)]
        if not ready:
            raise ValueError("the graph has a cycle, or a tensor that nothing makes")
        ordered += ready
        known.update(output for node in ready for output in node.output)
        waiting = [node for node in waiting if not known.issuperset(node.output)]
    del model.graph.node[:]
    model.graph.node.extend(ordered)
    model.ir_version = network.ir_version
    del model.metadata_props[:], model.graph.value_info[:]
    del model.graph.input[:], model.graph.output[:]
    model.graph.input.extend(network.graph.input)
    model.graph.output.extend(network.graph.output)
    return model
