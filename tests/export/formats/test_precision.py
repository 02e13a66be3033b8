"""The promise: fp16 and int8 touch the convolutions and what lies between; mel, normalisation and answers are float32."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper

from tests.export.exports import network, sine_clips
from triadbench.core.models.predictor import Predictor
from triadbench.export.formats.precision import kept_in_float32, to_fp16, to_int8


@pytest.fixture(scope="module")
def mels():
    predictor = Predictor.load()
    with torch.inference_mode():
        return predictor.mel(torch.from_numpy(sine_clips().waveforms(0, 48))).numpy()


@pytest.fixture(scope="module")
def half():
    return to_fp16(network())


@pytest.fixture(scope="module")
def small(mels):
    return to_int8(network(), [mels[i : i + 16] for i in range(0, 48, 16)])


def answers(model, mels):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"mel": mels})


def weights(model):
    return {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}


def makers(model):
    return {output: node for node in model.graph.node for output in node.output}


@pytest.mark.parametrize(("precision", "limit"), [("half", 5e-3), ("small", 0.1)])
def test_the_answers_stay(precision, limit, mels, request):
    found, wanted = answers(request.getfixturevalue(precision), mels), answers(network(), mels)
    assert all(each.dtype == np.float32 for each in found)
    assert 0 < max(np.abs(a - b).max() for a, b in zip(found[:2], wanted[:2], strict=True)) < limit
    assert np.array_equal(found[2].reshape(48, -1).argmax(1), wanted[2].reshape(48, -1).argmax(1))


@pytest.mark.parametrize("precision", ["half", "small"])
def test_names_shapes_and_other_batches_stay(precision, mels, request):
    model = request.getfixturevalue(precision)
    onnx.checker.check_model(model, full_check=True)
    assert model.graph.input == network().graph.input and model.graph.output == network().graph.output
    assert model.ir_version == network().ir_version
    for batch, frames in ((1, 5), (3, 30)):
        assert answers(model, mels[:batch, :, :frames])[2].shape == (batch, 12, 4)


def test_fp16_weights_are_of_16_bits_but_for_the_pitch_axis(half):
    kinds = {name: values.dtype for name, values in weights(half).items() if values.size > 100}
    assert kinds.pop("model.pitch_axis.matrix") == np.float32
    assert set(kinds.values()) == {np.dtype(np.float16)} and len(kinds) >= 6


def test_the_mel_is_not_rounded_before_the_loudest_cell_is_taken_away(half):
    """The converter sends inputs through fp16 and back if it is not kept from it."""
    casts = [node for node in half.graph.node if node.op_type == "Cast" and node.attribute[0].i == TensorProto.FLOAT16]
    assert casts and not [node for node in casts if node.input[0] == "mel"]
    kept = set(kept_in_float32(network()))
    for node in half.graph.node:
        if node.name in kept:
            assert not [tensor for tensor in node.input if makers(half).get(tensor) in casts], node.name


def test_what_is_kept_lies_before_the_first_convolution_and_behind_the_logits():
    kinds = [node.op_type for node in network().graph.node if node.name in kept_in_float32(network())]
    assert kinds[:6] == ["ReduceMax", "Sub", "Clip", "Mul", "Add", "MatMul"]
    assert "Softmax" in kinds and "Conv" not in kinds and "Relu" not in kinds


def test_int8_weights_are_of_8_bits_without_the_overflow_of_old_cpus(small):
    kinds = {name: values for name, values in weights(small).items() if values.size > 100 and values.ndim > 1}
    assert kinds.pop("model.pitch_axis.matrix").dtype == np.float32
    assert len(kinds) >= 6
    for values in kinds.values():
        assert values.dtype == np.int8 and np.abs(values.astype(int)).max() <= 64


def test_the_network_itself_is_left_alone(mels):
    model = network()
    before = model.SerializeToString()
    to_fp16(model)
    to_int8(model, [mels[:4]])
    assert model.SerializeToString() == before
