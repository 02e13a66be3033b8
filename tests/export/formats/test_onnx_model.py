"""The promise: the shipped ONNX files are the shipped checkpoint, for any batch and length, and say what they are."""

import dataclasses

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from tests.core.toys import small_net
from tests.export.exports import FOLDER, ONNX_FILES, info_of, network, shipped
from triadbench.core.errors import UserError
from triadbench.core.files import file_digest
from triadbench.core.models.checkpoint import Checkpoint
from triadbench.core.models.chords import ROOTS, TYPES
from triadbench.core.models.networks import OriginalNet
from triadbench.core.models.predictor import SHIPPED, Predictor
from triadbench.export.formats.onnx_model import NetworkWithProbabilities, describe, network_model, with_mel
from triadbench.export.predict.metadata import KEY, ExportInfo
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
        types, roots, logits = ready.run(None, {ready.get_inputs()[0].name: given})
        wanted = predictor(waveforms)
        assert logits.shape == (batch, 12, 4)
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
        ({KEY: info.metadata()[KEY].replace("triadbench-export-1", "triadbench-export-0")}, "export-0"),
        ({KEY: info.metadata()[KEY].replace('"major"', '"minor"')}, "labels"),
        ({KEY: info.metadata()[KEY].replace('"none"', '"other"')}, "damaged"),
    ):
        with pytest.raises(UserError, match=word):
            ExportInfo.from_metadata(metadata, "x.onnx")


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
