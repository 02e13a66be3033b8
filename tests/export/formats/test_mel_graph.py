"""The promise: the mel spectrogram as an ONNX graph is the reference's, for every layout, batch, length and setting."""

import dataclasses

import numpy as np
import onnx
import onnxruntime
import pytest

from triadbench.core.errors import UserError
from triadbench.export.formats.mel_graph import LAYOUTS, mel_graph, plan_for
from triadbench.kernels.mel_reference import mel_spectrogram
from triadbench.kernels.spec import CHORD, ORIGINAL, WHISPER, MelSpec

SPECS = {
    "CHORD": CHORD,
    "ORIGINAL": ORIGINAL,
    "WHISPER": WHISPER,
    "window shorter than n_fft": MelSpec(n_fft=300, hop_length=100, n_mels=20, win_length=250),
    "hop above n_fft": MelSpec(n_fft=256, hop_length=384, n_mels=20),
    "hop without a common factor": MelSpec(n_fft=512, hop_length=171, n_mels=20),
    "hop of more than one factor": MelSpec(n_fft=480, hop_length=180, n_mels=20),
    "magnitudes": dataclasses.replace(ORIGINAL, power=1.0),
    "no centre, padded, normalised": dataclasses.replace(ORIGINAL, center=False, pad=100, normalized=True),
    "edges repeated, odd power": dataclasses.replace(WHISPER, pad_mode="replicate", power=1.5),
    "edges of zeros": dataclasses.replace(ORIGINAL, pad_mode="constant"),
    "empty filters": MelSpec(n_fft=256, hop_length=128, n_mels=60),
}
SHAPES = ((1, 5001), (3, 7777))  # neither a whole number of hops
# float32 holds 6e-8 of each value; sums of up to 4,096 terms in blocks lose a few times that.
LIMIT = 1e-6
STFT_LIMIT = 1e-5  # ONNX Runtime's own transform, where n_fft is no power of two


def noise(batch, samples):
    return (0.1 * np.random.default_rng(batch).standard_normal((batch, samples))).astype(np.float32)


def session(model):
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def reference(waveforms, spec, log):
    return np.stack([mel_spectrogram(clip, spec, log=log) for clip in waveforms.astype(np.float64)])


def error(found, wanted):
    assert found.shape == wanted.shape and found.dtype == np.float32
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", SPECS)
def test_it_is_the_reference_mel(name, layout):
    spec = SPECS[name]
    log = layout != "batch"  # so that each spec is seen with and without
    model = mel_graph(spec, log=log, layout=layout)
    onnx.checker.check_model(model, full_check=True)
    ready = session(model)
    for batch, samples in SHAPES:
        waveforms = noise(batch, samples)
        found = ready.run(None, {"waveform": waveforms})[0]
        assert error(found, reference(waveforms, spec, log)) < (STFT_LIMIT if layout == "stft" else LIMIT)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_graph_takes_any_batch_and_length(layout):
    ready = session(mel_graph(ORIGINAL, log=True, layout=layout))
    assert [ready.get_inputs()[0].shape, ready.get_outputs()[0].shape[:2]] == [["batch", "samples"], ["batch", 64]]
    for batch, samples in ((5, 513), (2, 1024), (1, 1535), (1, 1536), (1, 40_000)):
        waveforms = noise(batch, samples)
        found = ready.run(None, {"waveform": waveforms})[0]
        assert error(found, reference(waveforms, ORIGINAL, True)) < LIMIT


def test_the_products_need_no_operator_that_a_gpu_lacks():
    for layout in ("each", "batch"):
        graph = mel_graph(CHORD, log=True, layout=layout).graph
        nodes = [*graph.node, *(n for node in graph.node for a in node.attribute for n in a.g.node)]
        assert not {"STFT", "DFT", "Loop", "GatherND"} & {node.op_type for node in nodes}
        assert ("Scan" in {node.op_type for node in nodes}) == (layout == "each")


def test_constants_are_rounded_once_from_float64():
    graph = mel_graph(CHORD, log=True, layout="batch").graph
    constants = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    plan = plan_for(CHORD)
    assert np.array_equal(constants["mel/second"], plan.second.astype(np.float32))
    assert constants["mel/second"].dtype == np.float32


# What the checks above are worth: each of these is found.
def broken_filters(constants):
    constants["mel/filters_0"] = constants["mel/filters_0"] * np.float32(1.00001)


def filter_one_bin_off(constants):
    constants["mel/rows_1"] = np.roll(constants["mel/rows_1"], 1)


def half_precision(constants):
    for name in ("mel/first", "mel/second"):
        constants[name] = constants[name].astype(np.float16).astype(np.float32)


def other_window(constants):
    constants["mel/first"] = constants["mel/first"] * np.float32(0.99)


@pytest.mark.parametrize("breaks", [broken_filters, filter_one_bin_off, half_precision, other_window])
def test_a_wrong_graph_is_found(breaks):
    model = mel_graph(ORIGINAL, log=False, layout="batch")
    constants = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    breaks(constants)
    del model.graph.initializer[:]
    model.graph.initializer.extend(onnx.numpy_helper.from_array(values, name) for name, values in constants.items())
    waveforms = noise(2, 5000)
    found = session(model).run(None, {"waveform": waveforms})[0]
    assert error(found, reference(waveforms, ORIGINAL, False)) > LIMIT


def test_a_shifted_frame_is_found():
    waveforms = noise(2, 5000)
    wanted = reference(waveforms, ORIGINAL, True)
    assert error(np.roll(wanted, 1, axis=2).astype(np.float32), wanted) > LIMIT


@pytest.mark.parametrize(
    ("changes", "layout", "word"),
    [
        ({"pad_mode": "circular"}, "each", "pad_mode"),
        ({"window": "custom"}, "batch", "window"),
        ({}, "fastest", "layout='fastest'"),
    ],
)
def test_what_the_graph_lacks_is_said(changes, layout, word):
    with pytest.raises(UserError, match=word):
        mel_graph(dataclasses.replace(ORIGINAL, **changes), log=True, layout=layout)
