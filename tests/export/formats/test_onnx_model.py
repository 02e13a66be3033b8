"""The promise: the shipped ONNX files are the shipped checkpoint, for any batch and length, and say what they are."""

import dataclasses
import json
import shutil
import subprocess

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper

from tests.core.damage import damaged
from tests.core.toys import small_net
from tests.export.exports import FOLDER, ONNX_FILES, info_of, network, shipped, sine_clips
from triadbench.core.errors import UserError
from triadbench.core.files import file_digest
from triadbench.core.models.checkpoint import Checkpoint
from triadbench.core.models.chords import ROOTS, TYPES
from triadbench.core.models.networks import OriginalNet
from triadbench.core.models.predictor import SHIPPED, Predictor
from triadbench.export.formats.mel_graph import IR_VERSION, OPSET
from triadbench.export.formats.onnx_model import (
    NetworkWithProbabilities,
    describe,
    kept_in_float32,
    network_model,
    to_fp16,
    to_int8,
    with_mel,
)
from triadbench.export.predict.metadata import KEY, OLDEST_RUNTIME, ExportInfo
from triadbench.export.predict.providers import OnnxModel
from triadbench.kernels.spec import CHORD, ORIGINAL

LIMITS = {"fp32": 1e-5, "fp16": 5e-3, "int8": 0.1}


def noise(batch, samples):
    return (0.1 * np.random.default_rng(samples).standard_normal((batch, samples))).astype(np.float32)


def session(model):
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def predictor():
    return Predictor.load()


def mel_of(predictor, waveforms):
    with torch.inference_mode():
        return predictor.mel(torch.from_numpy(waveforms)).numpy()


@pytest.mark.parametrize("name", ONNX_FILES)
def test_shipped_files_answer_as_the_checkpoint(name, predictor):
    front_end, precision = ONNX_FILES[name]
    ready = session(shipped(name))
    for batch, samples in ((1, 64_000), (3, 4096), (2, 70_001)):
        waveforms = noise(batch, samples)
        given = mel_of(predictor, waveforms) if front_end == "none" else waveforms
        types, roots, logits, chords, bass = ready.run(None, {ready.get_inputs()[0].name: given})
        wanted = predictor(waveforms)
        assert logits.shape == (batch, 12, 4) and chords.shape == (batch, 205) and bass.shape == (batch, 12)
        assert np.abs(types - wanted.types).max() < LIMITS[precision]
        assert np.abs(roots - wanted.roots).max() < LIMITS[precision]


@pytest.mark.parametrize("name", ONNX_FILES)
def test_shipped_files_are_of_the_shipped_checkpoint_and_say_so(name):
    model = shipped(name)
    onnx.checker.check_model(model, full_check=True)
    info = info_of(model)
    assert (info.front_end, info.precision) == ONNX_FILES[name]
    assert info.checkpoint_sha256 == file_digest(SHIPPED), f"export again: {name} is of another checkpoint"
    assert info.spec == CHORD and info.licence == "MIT"
    assert info.accuracies["n"] >= 1000 and info.accuracies["type_accuracy"] > 0.99
    words = {each.key: each.value for each in model.metadata_props}
    assert words["types"].split(",") == list(TYPES) and words["roots"].split(",") == list(ROOTS)
    assert words["sample_rate"] == "16000"
    assert [each.domain for each in model.opset_import] == [""]


@pytest.mark.parametrize("name", [*ONNX_FILES, "chordnet.torchscript.pt"])
def test_shipped_files_name_no_folder_of_the_machine_that_made_them(name):
    content = (FOLDER / name).read_bytes()
    assert not [word for word in (b"/tmp", b"/home", b"/root", b"/work", b"/usr", b"site-packages") if word in content]


def test_a_clip_is_answered_alike_alone_and_among_others():
    ready = session(shipped("chordnet.onnx"))
    waveforms = noise(5, 30_000)
    together = ready.run(None, {"waveform": waveforms})
    for i in range(5):
        for whole, alone in zip(together, ready.run(None, {"waveform": waveforms[i : i + 1]}), strict=True):
            assert np.abs(whole[i] - alone[0]).max() < 1e-4 * np.abs(whole).max()


def test_layouts_differ_in_nothing_but_the_way():
    answers = []
    for front_end in ("each", "batch", "stft"):
        info = dataclasses.replace(info_of(network()), front_end=front_end)
        answers.append(session(with_mel(network(), info)).run(None, {"waveform": noise(2, 20_000)})[2])
    assert np.abs(answers[0] - answers[1]).max() < 1e-4 and np.abs(answers[0] - answers[2]).max() < 1e-3


@pytest.mark.parametrize("task", ["type", "root"])
def test_probabilities_of_the_original_network(task):
    torch.manual_seed(0)
    checkpoint = Checkpoint(OriginalNet({"type": 4, "root": 12}[task]).eval(), "original", task, ORIGINAL)
    waveforms = noise(2, 64_000)
    scores = Predictor(checkpoint)(waveforms)
    with torch.inference_mode():
        found, logits = NetworkWithProbabilities(checkpoint)(torch.from_numpy(mel_of(Predictor(checkpoint), waveforms)))
    wanted = scores.types if task == "type" else scores.roots
    assert np.abs(found.numpy() - wanted).max() < 1e-6
    assert np.abs(torch.softmax(logits, 1).numpy() - wanted).max() < 1e-6


def test_metadata_come_back_and_foreign_files_are_refused():
    info = dataclasses.replace(info_of(network()), front_end="none")
    model = network()
    describe(model, info)
    assert info_of(model) == info
    for metadata, word in (
        ({}, "no model of triadbench"),
        ({KEY: "{"}, "damaged"),
        ({KEY: "[]"}, "damaged"),
        ({KEY: info.metadata()[KEY].replace("triadbench-export-2", "triadbench-export-0")}, "export-0"),
        ({KEY: info.metadata()[KEY].replace('"maj7"', '"major7"')}, "labels"),
        ({KEY: info.metadata()[KEY].replace('"major"', '"minor"')}, "labels"),
        ({KEY: info.metadata()[KEY].replace('"none"', '"other"')}, "damaged"),
    ):
        with pytest.raises(UserError, match=word):
            ExportInfo.from_metadata(metadata, "x.onnx")


def test_a_file_of_the_version_before_knows_triads_alone():
    info = info_of(network())
    described = json.loads(info.metadata()[KEY])
    assert described.pop("vocabulary") == info.vocabulary and info.vocabulary[:5] == ["maj", "min", "dim", "aug", "7"]
    before = ExportInfo.from_metadata({KEY: json.dumps(described | {"format": "triadbench-export-1"})}, "x.onnx")
    assert before == dataclasses.replace(info, vocabulary=[])
    assert before.output_names == ["type_probabilities", "root_probabilities", "logits"]
    assert info.output_names == [*before.output_names, "chord_logits", "bass_probabilities"]
    with pytest.raises(UserError, match="damaged"):
        ExportInfo.from_metadata({KEY: json.dumps(described)}, "x.onnx")


def test_tiny_probabilities_stay_finite():
    """Chords that are impossible, and one that is certain, in every precision: no logarithm of nothing."""
    net = small_net().eval()
    with torch.no_grad():
        net.at_root.bias[4:] = -1e4
        net.no_chord.bias[:] = -1e4
        net.at_root.weight.mul_(100)
    info = ExportInfo(
        "chordnet", "both", "onnx", "none", "fp32", net.spec.to_dict(), True, None, "", vocabulary=["maj"]
    )
    model = network_model(Checkpoint(net, "chordnet", "both", net.spec), info)
    mel = np.random.default_rng(0).standard_normal((2, net.spec.n_mels, 20)).astype(np.float32)
    for each in (model, to_fp16(model)):
        assert all(np.isfinite(values).all() for values in session(each).run(None, {"mel": mel}))


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["chordnet", "original"])
def test_a_network_is_exported(architecture):
    ours = architecture == "chordnet"
    checkpoint = (
        Checkpoint(small_net().eval(), "chordnet", "both", small_net().spec)
        if ours
        else Checkpoint(OriginalNet(4).eval(), "original", "type", ORIGINAL)
    )
    info = ExportInfo(
        architecture,
        checkpoint.task,
        "onnx",
        "each",
        "fp32",
        checkpoint.spec.to_dict(),
        ours,
        None if ours else 64_000,
        "",
    )
    model = with_mel(network_model(checkpoint, info), info)
    describe(model, info)
    onnx.checker.check_model(model, full_check=True)
    scores = Predictor(checkpoint)(noise(3, 64_000))
    assert np.abs(session(model).run(None, {"waveform": noise(3, 64_000)})[0] - scores.types).max() < 1e-5


# ---- other precisions: fp16 and int8 touch the convolutions and what lies between; the rest is float32


@pytest.fixture(scope="module")
def mels(predictor):
    return mel_of(predictor, sine_clips().waveforms(0, 48))


@pytest.fixture(scope="module")
def half():
    return to_fp16(network())


@pytest.fixture(scope="module")
def small(mels):
    return to_int8(network(), [mels[i : i + 16] for i in range(0, 48, 16)])


def answers(model, mels):
    return session(model).run(None, {"mel": mels})


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
    kept = set(kept_in_float32(network()))
    kinds = [node.op_type for node in network().graph.node if node.name in kept and node.op_type != "Shape"]
    assert kinds[:6] == ["ReduceMax", "Sub", "Clip", "Mul", "Add", "MatMul"]
    assert "Softmax" in kinds and "Conv" not in kinds and "Relu" not in kinds


def test_int8_weights_are_of_8_bits_without_the_overflow_of_old_cpus(small):
    kinds = {name: values for name, values in weights(small).items() if values.size > 100 and values.ndim > 1}
    for name in ("model.pitch_axis.matrix", "model.at_root.weight"):  # the last has logits of unlike ranges
        assert kinds.pop(name).dtype == np.float32
    assert len(kinds) >= 6
    for values in kinds.values():
        assert values.dtype == np.int8 and np.abs(values.astype(int)).max() <= 64


def test_the_network_itself_is_left_alone(mels):
    model = network()
    before = model.SerializeToString()
    to_fp16(model)
    to_int8(model, [mels[:4]])
    assert model.SerializeToString() == before


# ---- any batch, any runtime


@pytest.mark.parametrize("name", [name for name, (front_end, _) in ONNX_FILES.items() if front_end != "none"])
def test_no_clips_have_no_answers(name):
    ready = session(shipped(name))
    for samples in (64_000, 4096):
        empty = ready.run(None, {"waveform": noise(0, samples)})
        assert [output.shape for output in empty] == [(0, 4), (0, 12), (0, 12, 4), (0, 205), (0, 12)]
    one, two = noise(1, 64_000), noise(2, 64_000)
    assert [len(output) for output in ready.run(None, {"waveform": one})] == 5 * [1]  # nothing added to a batch
    assert [len(output) for output in ready.run(None, {"waveform": two})] == 5 * [2]


@pytest.mark.parametrize("name", ONNX_FILES)
def test_old_runtimes_are_told_and_thought_of(name):
    model = shipped(name)
    assert (model.ir_version, [each.version for each in model.opset_import]) == (IR_VERSION, [OPSET]) == (8, [18])
    (needs,) = (entry.value for entry in model.metadata_props if entry.key == "needs")
    assert needs == f"ONNX Runtime {OLDEST_RUNTIME} or later"


OLD = """
import sys, numpy, onnxruntime
arrays = numpy.load(sys.argv[2])
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
name = session.get_inputs()[0].name
answers = {key: session.run(None, {name: arrays[key]})[2] for key in arrays.files if key.startswith(name)}
numpy.savez(sys.argv[3], version=onnxruntime.__version__, **answers)
"""


@pytest.fixture(scope="module")
def old_python(tmp_path_factory):
    """The Python of an environment that has the oldest ONNX Runtime that the files claim, and NumPy."""
    base = next(filter(None, map(shutil.which, ("python3.11", "python3.10", "python3.9", "python3.8"))), None)
    if base is None:
        pytest.skip(f"ONNX Runtime {OLDEST_RUNTIME} needs Python 3.8 to 3.11")
    folder = tmp_path_factory.mktemp("old")
    python = folder / "bin" / "python"
    try:
        subprocess.run([base, "-m", "venv", folder], check=True, capture_output=True)
        install = [python, "-m", "pip", "install", "-q", f"onnxruntime=={OLDEST_RUNTIME}.0", "numpy<2"]
        subprocess.run(install, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"ONNX Runtime {OLDEST_RUNTIME} cannot be installed ({error})")
    return python


@pytest.mark.slow
@pytest.mark.parametrize("name", ONNX_FILES)
def test_the_oldest_runtime_answers_alike(name, old_python, predictor, tmp_path):
    waveforms = {f"waveform {n}": noise(n, samples) for n, samples in ((0, 64_000), (1, 64_000), (3, 70_001))}
    mels = {f"mel {n}": mel_of(predictor, noise(n, samples)) for n, samples in ((1, 64_000), (3, 70_001))}
    np.savez(tmp_path / "given.npz", **waveforms, **mels)
    command = [old_python, "-I", "-c", OLD, FOLDER / name, tmp_path / "given.npz", tmp_path / "answers.npz"]
    subprocess.run(command, check=True, capture_output=True)
    answers, ready = np.load(tmp_path / "answers.npz"), session(shipped(name))
    assert str(answers["version"]).startswith(f"{OLDEST_RUNTIME}.")
    given = {"waveform": waveforms, "mel": mels}[ready.get_inputs()[0].name]
    limit = {"fp32": 1e-4, "fp16": 0.1, "int8": 0.5}[ONNX_FILES[name][1]]  # of logits of some tens
    for key, values in given.items():
        logits = ready.run(None, {key.split()[0]: values})[2]
        assert answers[key].shape == logits.shape and np.abs(answers[key] - logits).max(initial=0) < limit


# ---- damage


@pytest.mark.parametrize(
    ("name", "n"), [("chordnet.mel.onnx", 60), ("chordnet.mel.int8.onnx", 60), ("chordnet.onnx", 30)]
)
def test_no_damaged_file_answers(name, n, tmp_path):
    path = tmp_path / name
    for what, content in damaged((FOLDER / name).read_bytes(), n):
        path.write_bytes(content)
        with pytest.raises(UserError):
            OnnxModel(path)
            pytest.fail(what)


def test_a_file_without_its_seal_is_refused(tmp_path):
    whole = (FOLDER / "chordnet.mel.onnx").read_bytes()
    for content in (whole[:-76], whole[:-76] + whole[-76:].replace(b"sha256", b"sha257")):  # by a tool, or a bit
        (tmp_path / "m.onnx").write_bytes(content)
        with pytest.raises(
            UserError, match="damaged or changed since it was made .*; get it anew, or make it again with"
        ):
            OnnxModel(tmp_path / "m.onnx")
