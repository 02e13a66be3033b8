"""A network in half precision or in 8-bit integers. What leads to it stays float32.

The mel spectrogram spans more than 14 nats and fp16 has no room for it, and the network begins by taking the clip's
loudest cell away from all of them, which only float32 does without loss: everything before the first convolution stays
as it is, and so do the probabilities behind the logits. Inputs and outputs are float32 in every precision.
"""

import copy
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx

from triadbench.export.formats.onnx_model import quiet
from triadbench.export.predict.providers import load_onnxruntime


def to_fp16(network: onnx.ModelProto) -> onnx.ModelProto:
    """The network with its convolutions, and all between them, in fp16."""
    load_onnxruntime()
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with quiet():  # it warns of numbers too small for fp16
        half = convert_float_to_float16(
            copy.deepcopy(network), keep_io_types=True, node_block_list=kept_in_float32(network)
        )
    _without_detours(half)
    return _restored(half, network)


def to_int8(network: onnx.ModelProto, mels: Iterable[np.ndarray]) -> onnx.ModelProto:
    """The network with its convolutions in int8 (weights by channel, of 7 bits: pairs of 8-bit products overflow the
    16-bit sums of CPUs without VNNI), scaled by what it sees in `mels`, batches (batch, n_mels, n_frames) float32."""
    load_onnxruntime()
    from onnxruntime import quantization

    inputs = ({"mel": batch} for batch in mels)

    class Inputs(quantization.CalibrationDataReader):
        def get_next(self) -> dict | None:
            return next(inputs, None)

    with tempfile.TemporaryDirectory() as folder, quiet():  # it logs advice
        out = Path(folder) / "int8.onnx"
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
            calibrate_method=quantization.CalibrationMethod.MinMax,
        )
        return _restored(onnx.load(out), network)


def kept_in_float32(network: onnx.ModelProto) -> list[str]:
    """Names of the nodes before the first convolution and behind the logits."""
    nodes = list(network.graph.node)
    before, behind = {next(node for node in nodes if node.op_type == "Conv").input[0]}, {"logits"}
    kept: set[str] = set()
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
    mel spectrogram that is to stay float32."""
    makers = {output: node for node in model.graph.node for output in node.output}

    def before_cast(tensor: str | None, dtype: int) -> str | None:
        node = makers.get(tensor)
        if node is None or node.op_type != "Cast" or node.attribute[0].i != dtype:
            return None
        return node.input[0]

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
