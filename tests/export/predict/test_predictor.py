"""The promise: the same chords as `triadbench.core.models.predictor.Predictor`, from whatever runs the model, and one line for bad input."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.core.toys import all_names, chord, save_original
from tests.export.exports import sealed_bytes
from triadbench.core.errors import UserError
from triadbench.core.files import pretrained_path
from triadbench.core.models.prediction import no_chord
from triadbench.core.models.predictor import Predictor
from triadbench.export.predict import models
from triadbench.export.predict import predictor as runtime
from triadbench.export.predict.models import Background
from triadbench.export.predict.predictor import MAX_SAMPLES, ChordPredictor, file_name
from triadbench.export.predict.providers import Model
from triadbench.kernels.cpu import numpy_entry as numpy_mel

PRETRAINED = pretrained_path()
GRAPH, NETWORK = PRETRAINED / "chordnet.onnx", PRETRAINED / "chordnet.mel.onnx"
WORST = 1e-5
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def reference():
    return Predictor.load()


@pytest.fixture(scope="module")
def graph():
    return ChordPredictor(front_end="graph", threads=1)


@pytest.fixture(scope="module")
def kernel():
    return ChordPredictor(front_end="kernel", threads=2)


def _assert_same(scores, expected):
    for name in ("types", "roots", "joint"):
        found, wanted = getattr(scores, name), getattr(expected, name)
        assert found.dtype == np.float32 and found.shape == wanted.shape
        assert np.abs(found - wanted).max() <= WORST
    assert np.array_equal(scores.joint.reshape(-1, 48).argmax(1), expected.joint.reshape(-1, 48).argmax(1))
    assert np.array_equal(scores.silent, expected.silent) and scores.silent.dtype == bool


# ---- the same answers


@pytest.mark.parametrize("which", ["graph", "kernel"])
@pytest.mark.parametrize(("batch", "samples"), [(1, 64000), (9, 64000), (3, 4096), (2, 70001), (1, 400000)])
def test_the_answers_of_the_pytorch_model(request, reference, which, batch, samples):
    waveforms = 0.1 * RNG.standard_normal((batch, samples)).astype(np.float32)
    waveforms[-1] *= 1e-7
    _assert_same(request.getfixturevalue(which)(waveforms), reference(waveforms))


@pytest.mark.parametrize("which", ["graph", "kernel"])
def test_all_chords(request, which):
    names = all_names()
    scores = request.getfixturevalue(which)(np.stack([chord(name.root, name.type) for name in names]))
    assert scores.types.argmax(1).tolist() == [name.type for name in names]
    assert scores.roots.argmax(1).tolist() == [name.root for name in names]


def test_a_batch_is_its_clips(graph, kernel, monkeypatch):
    """Parts, threads and neighbours change nothing that anyone could see; 20 clips are more than one part."""
    waveforms = 0.1 * RNG.standard_normal((20, 64000)).astype(np.float32)
    shared = ChordPredictor(front_end="graph", threads=3)
    for predictor, sizes in ((shared, [6, 7, 7]), (graph, [4, 8, 8])):
        parts, scores = [], predictor._model.scores
        with monkeypatch.context() as patch:
            patch.setattr(
                predictor._model, "scores", lambda part, of=scores, to=parts: to.append(len(part)) or of(part)
            )
            predictor(waveforms)
        assert sorted(parts) == sizes
    alone = np.concatenate([graph(waveform[None]).joint for waveform in waveforms])
    for predictor in (graph, kernel, shared):
        assert np.abs(predictor(waveforms).joint - alone).max() <= WORST


def test_callers_at_the_same_time(graph, kernel):
    waveforms = [0.1 * RNG.standard_normal((3, 64000)).astype(np.float32) for _ in range(3)]
    for predictor in (graph, kernel):
        expected = [predictor(waveform).joint for waveform in waveforms]
        with ThreadPoolExecutor(6) as callers:
            jobs = [(i, callers.submit(predictor, waveforms[i])) for i in [0, 1, 2] * 4]
            for i, job in jobs:
                assert np.array_equal(job.result().joint, expected[i])


def test_name(graph):
    named = graph.name(chord(3, 1), alternatives=2)
    assert (named["chord"], named["type"], named["root"]) == ("Bm", "minor", "B")
    assert len(named["alternatives"]) == 2 and named["confidence"] > 0.5
    assert graph.name(np.zeros(64000, np.float32)) == no_chord()


def test_no_clip(graph, kernel):
    for predictor in (graph, kernel):
        scores = predictor(np.zeros((0, 64000), np.float32))
        assert (scores.types.shape, scores.roots.shape) == ((0, 4), (0, 12))
        assert (scores.joint.shape, scores.silent.shape, scores.silent.dtype) == ((0, 12, 4), (0,), bool)


def test_a_checkpoint_with_pytorch(reference):
    predictor = ChordPredictor(provider="torch")
    waveforms = 0.1 * RNG.standard_normal((3, 64000)).astype(np.float32)
    assert np.array_equal(predictor(waveforms).joint, reference(waveforms).joint)
    assert predictor.front_end == "kernel" and predictor.info.task == "both" and predictor.info.samples is None
    with pytest.raises(UserError, match="provider torch is not ONNX Runtime's"):
        predictor.describe_placement()


@pytest.mark.skipif(not (PRETRAINED / "chordnet.torchscript.pt").exists(), reason="no TorchScript file is shipped")
def test_torchscript(reference):
    predictor = ChordPredictor(provider="torchscript")
    waveforms = 0.1 * RNG.standard_normal((3, 64000)).astype(np.float32)
    _assert_same(predictor(waveforms), reference(waveforms))
    assert predictor.front_end == "graph" and predictor.info.kind == "torchscript"


# ---- bad input


def _with(value):
    waveforms = np.zeros((2, 64000), np.float32)
    waveforms[1, 5] = value
    return waveforms


@pytest.mark.parametrize(
    ("waveforms", "message"),
    [
        (np.zeros((1, 0), np.float32), r"shape \(1, 0\): expected \(batch, samples\), at least 4096 samples"),
        (np.zeros((1, 4095), np.float32), r"at least 4096 samples; pad with zeros"),
        (np.zeros(64000, np.float32), r"shape \(64000,\): expected \(batch, samples\)"),
        (np.zeros((1, 1, 64000), np.float32), r"expected \(batch, samples\)"),
        (np.zeros((1, 64000), np.int16), r"int16: expected float32 in \[-1, 1\]; divide by 32768"),
        (np.zeros((1, 64000), np.int32), r"divide by 2147483648"),
        (np.zeros((1, 64000), np.uint8), r"uint8: expected float32 in \[-1, 1\]; convert"),
        (np.zeros((1, 64000), bool), r"bool: expected float32"),
        (np.zeros((1, 64000), complex), r"complex128: expected float32"),
        (np.full((1, 3), "a"), r"<U1: expected float32"),
        (None, r"object: expected float32"),
        (_with(np.nan), r"NaN or infinite"),
        (_with(-np.inf), r"NaN or infinite"),
        (_with(1e-3).astype(np.float64) * 1e300, r"NaN or infinite"),
        (_with(-1e16), r"reach 1e\+16: expected \[-1, 1\]"),
        (np.broadcast_to(np.float32(0), (1, MAX_SAMPLES + 1)), r"at most 9600000 \(ten minutes\).*cut them"),
    ],
)
def test_what_is_refused(graph, waveforms, message):
    with pytest.raises(UserError, match=message) as error:
        graph(waveforms)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("sample_rate", [44100, 8000, 0, 16000.5, None])
def test_another_sample_rate(graph, sample_rate):
    for call in (graph, lambda waveforms, rate: graph.name(waveforms[0], sample_rate=rate)):
        with pytest.raises(UserError, match=f"sample_rate={sample_rate} Hz: the model takes 16000; resample"):
            call(np.zeros((1, 64000), np.float32), sample_rate)


@pytest.mark.parametrize("shape", [(1, 64000), (64000, 2), (2, 64000), ()])
def test_name_takes_one_channel(graph, shape):
    with pytest.raises(UserError, match=r"expected \(samples,\)"):
        graph.name(np.zeros(shape, np.float32))


@pytest.mark.parametrize("alternatives", [-1, 1.0, True, None])
def test_no_number_of_alternatives(graph, alternatives):
    with pytest.raises(UserError, match=f"alternatives={alternatives} must be a whole number"):
        graph.name(chord(1, 1), alternatives)


def test_other_floats_and_layouts(graph):
    waveforms = chord(1, 1)[None].repeat(2, 0)
    expected = graph(waveforms).joint
    assert np.array_equal(graph(waveforms.astype(np.float64)).joint, expected)
    assert np.array_equal(graph(np.asfortranarray(waveforms)).joint, expected)
    assert np.array_equal(graph(waveforms.astype(">f4")).joint, expected)
    assert np.array_equal(graph(np.repeat(waveforms, 2, axis=1)[:, ::2]).joint, expected)
    assert np.abs(graph(waveforms.astype(np.float16)).joint - expected).max() < 0.01
    assert np.array_equal(graph(waveforms.tolist()).joint, expected)


# ---- models and their names


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"provider": "gpu"}, "provider='gpu' must be one of cpu, cuda, tensorrt, torchscript, torch"),
        ({"precision": "fp8"}, "precision='fp8' must be one of fp32, fp16, int8"),
        ({"front_end": "mel"}, "front_end='mel' must be one of auto, graph, kernel"),
        ({"threads": 0}, "threads=0 must be a whole number"),
        ({"provider": "torch", "precision": "int8"}, "provider torch has fp32 alone"),
        ({"provider": "torch", "front_end": "graph"}, "provider torch has kernel alone"),
        ({"model": "no.onnx"}, "no.onnx: no such model file"),
        ({"model": PRETRAINED / "chordnet.safetensors"}, "is a checkpoint.*use --provider torch"),
        ({"model": PRETRAINED / "chordnet.safetensors", "provider": "torchscript"}, "use --provider torch, or `export"),
        ({"model": GRAPH, "provider": "torch"}, "is an ONNX model.*use --provider cpu or cuda"),
        ({"model": GRAPH, "provider": "torchscript"}, "is an ONNX model"),
        ({"model": GRAPH, "precision": "int8"}, "precision='int8': chordnet.onnx is fp32"),
        ({"model": NETWORK, "front_end": "graph"}, "takes mel; use front_end='kernel'"),
        ({"precision": "fp16"}, "precision='fp16' is for GPUs: use --provider cuda or tensorrt, or another precision"),
        ({"provider": "cuda", "precision": "int8"}, "precision='int8' is for CPUs: use --provider cpu, or another"),
        (
            {"device": "cuda"},
            "device='cuda' is of providers torch and torchscript alone; for a GPU use provider='cuda'",
        ),
        ({"device": "nonsense"}, "device='nonsense' is of providers torch and torchscript alone"),
        ({"device": None}, "device=None is of providers torch and torchscript alone"),
        ({"provider": "cuda", "device": "cuda:1"}, r"options=\{'device_id': '1'\}"),
        ({"provider": "torch", "device": "nonsense"}, "unknown device 'nonsense'; choose cpu or cuda"),
        ({"provider": "torchscript", "device": None}, "unknown device None; choose cpu or cuda"),
        ({"options": {"device_id": "0"}}, r"options=\{'device_id': '0'\}: provider cpu has none"),
        ({"provider": "torch", "options": {"device_id": "0"}}, "provider torch has none"),
        ({"engine_cache": "engines"}, "engine_cache='engines': provider cpu keeps no engines; .*provider='tensorrt'"),
        ({"threads": np.float64(2)}, "must be a whole number"),
        ({"threads": np.bool_(True)}, "must be a whole number"),
    ],
)
def test_settings_that_do_not_go(settings, message):
    with pytest.raises(UserError, match=message):
        ChordPredictor(**settings)


@pytest.mark.parametrize(
    ("name", "provider"),
    [("chordnet.onnx", "cpu"), ("chordnet.safetensors", "torch"), ("chordnet.torchscript.pt", "torchscript")],
)
def test_a_model_whose_name_is_no_text(tmp_path, name, provider):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9." + name.encode()))
    try:
        path.write_bytes((PRETRAINED / name).read_bytes())
    except OSError:
        pytest.skip("this file system has no such names")
    with pytest.raises(UserError, match="its path is no UTF-8 text, .* rename it"):
        ChordPredictor(path, provider)


def test_whole_numbers_of_numpy():
    predictor = ChordPredictor(front_end="graph", threads=np.int64(2))
    assert len(predictor.name(chord(1, 1), np.int64(2))["alternatives"]) == 2
    assert len(predictor(np.stack([chord(1, 1)] * 3)).joint) == 3


def test_names_of_the_files():
    assert file_name("cpu") == "chordnet.onnx" and file_name("cpu", "int8") == "chordnet.int8.onnx"
    assert file_name("cuda", "fp16") == "chordnet.batch.fp16.onnx" and file_name("tensorrt") == "chordnet.batch.onnx"
    assert file_name("torchscript") == "chordnet.torchscript.pt" and file_name("torch") == "chordnet.safetensors"
    beside = {"a.onnx": "a.mel.onnx", "a.batch.fp16.onnx": "a.mel.fp16.onnx", "a.int8.onnx": "a.mel.int8.onnx"}
    assert {name: models.network_beside(Path(name)).name for name in beside} == beside


def test_a_shipped_file_that_is_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(runtime, "pretrained_path", lambda name: tmp_path / name)
    with pytest.raises(UserError, match=r"chordnet.int8.onnx is not in .*\(there: no exported file\)"):
        ChordPredictor(precision="int8")


def test_a_state_dict_of_the_original_network_is_a_checkpoint(tmp_path):
    path = save_original(tmp_path / "type.safetensors", "type")
    predictor = ChordPredictor(path, "torch")
    waveforms = np.stack([chord(1, 1), chord(5, 2)])
    scores = predictor(waveforms)
    assert scores.types.shape == (2, 4) and scores.roots is None and scores.joint is None
    assert np.array_equal(scores.types, Predictor.load(path)(waveforms).types)
    assert predictor(waveforms[:0]).types.shape == (0, 4)
    with pytest.raises(UserError, match="takes 64000 samples, not 70000"):
        predictor(np.zeros((1, 70000), np.float32))
    with pytest.raises(UserError, match="answers for the type only"):
        predictor.name(chord(1, 1))
    (tmp_path / "type.pt").write_bytes(path.read_bytes())
    with pytest.raises(UserError, match="type.pt is a checkpoint, which provider cpu does not take"):
        ChordPredictor(tmp_path / "type.pt")


def test_a_model_of_nan_is_damaged(tmp_path):
    model = onnx.load(NETWORK)
    weights = next(tensor for tensor in model.graph.initializer if len(tensor.raw_data) > 5000)
    weights.raw_data = np.full(len(weights.raw_data) // 4, np.nan, np.float32).tobytes()
    (tmp_path / "nan.onnx").write_bytes(sealed_bytes(model))
    with pytest.raises(UserError, match="nan.onnx: a damaged model file"):
        ChordPredictor(tmp_path / "nan.onnx")(chord(1, 1)[None])


# ---- the kernel in the background


def _copied(tmp_path, changes):
    """A copy of the graph in a folder, and of the network beside it, with changes to its metadata."""
    (tmp_path / "m.onnx").write_bytes(GRAPH.read_bytes())
    network = onnx.load(NETWORK)
    for entry in network.metadata_props:
        for old, new in changes.items():
            entry.value = entry.value.replace(old, new)
    (tmp_path / "m.mel.onnx").write_bytes(sealed_bytes(network))
    return tmp_path / "m.onnx"


@pytest.mark.parametrize(("kernel_s", "expected"), [(1.0, "kernel"), (3.0, "graph")])
def test_the_faster_one_is_used(monkeypatch, kernel_s, expected):
    measured = {"graph": 2.0, "kernel": kernel_s}
    monkeypatch.setattr(models, "seconds_a_clip", lambda contestants, samples: measured)
    predictor = ChordPredictor(threads=1)
    before = predictor(chord(1, 1)[None]).joint
    assert predictor.front_end == "graph" and predictor.seconds_a_clip == {}
    predictor.warm_kernel(wait=True)
    predictor.warm_kernel(wait=True)  # once is enough
    assert predictor.front_end == expected and predictor.seconds_a_clip == measured and predictor.note is None
    assert np.abs(predictor(chord(1, 1)[None]).joint - before).max() <= WORST


def test_answers_go_on_meanwhile(monkeypatch):
    loading, go_on = threading.Event(), threading.Event()

    def slow(spec):
        loading.set()
        assert go_on.wait(20)

    monkeypatch.setattr(numpy_mel, "load", slow)
    predictor = ChordPredictor(threads=1)
    predictor.warm_kernel()
    assert loading.wait(20)
    assert predictor.name(chord(3, 1))["chord"] == "Bm" and predictor.front_end == "graph"
    go_on.set()
    predictor.warm_kernel(wait=True)
    assert predictor.seconds_a_clip.keys() == {"graph", "kernel"}


def test_what_is_measured():
    calls = []

    class Watched(Model):
        def __init__(self, name, seconds):
            self.name, self.seconds = name, seconds

        def run(self, values):
            calls.append((self.name, values.shape))
            time.sleep(self.seconds)
            return {}

    best = models.seconds_a_clip({"a": Watched("a", 0.002), "b": Watched("b", 0.02)}, None)
    assert best["a"] < best["b"] and best["b"] > 0.02 / 4
    names = [name for name, _ in calls]
    assert names.count("a") == names.count("b") > 3 and "a" in names[-2:] and "b" in names[-2:]
    assert {shape for _, shape in calls} == {(4, 64000)}


@pytest.mark.parametrize("failure", ["compiler", "missing", "another"])
def test_a_kernel_that_fails_is_told_and_the_graph_goes_on(monkeypatch, tmp_path, failure):
    changes = {'"checkpoint_sha256": "': '"checkpoint_sha256": "0'} if failure == "another" else {}
    path = _copied(tmp_path, changes)
    if failure == "missing":
        (tmp_path / "m.mel.onnx").unlink()
    if failure == "compiler":
        monkeypatch.setattr(numpy_mel, "load", lambda spec: 1 / 0)
    expected = {"compiler": "division by zero", "missing": "is not beside m.onnx", "another": "is of another model"}
    predictor = ChordPredictor(path, threads=1)
    predictor.warm_kernel(wait=True)
    assert predictor.front_end == "graph" and predictor.name(chord(3, 1))["chord"] == "Bm"
    assert (
        predictor.note.startswith("the graph goes on without the mel kernel: ") and expected[failure] in predictor.note
    )
    if failure != "compiler":
        with pytest.raises(UserError, match=expected[failure]):
            ChordPredictor(path, front_end="kernel")


def test_bind_is_the_graph_whatever_is_in_use(monkeypatch, kernel):
    monkeypatch.setattr(models, "seconds_a_clip", lambda contestants, samples: {"graph": 2.0, "kernel": 1.0})
    predictor, waveforms = ChordPredictor(threads=1), chord(1, 1)[None]
    predictor.warm_kernel(wait=True)
    assert predictor.front_end == "kernel"
    bound = predictor.bind(waveforms)
    bound()
    assert np.abs(bound.outputs()["type_probabilities"] - predictor(waveforms).types).max() <= WORST
    with pytest.raises(UserError, match="bind: chordnet.mel.onnx takes mel"):
        kernel.bind(waveforms)


def test_nothing_is_loaded_where_there_is_nothing_to_choose(kernel, graph):
    for predictor in (kernel, graph):
        predictor.warm_kernel(wait=True)
        assert predictor._background is None and predictor.note is None


def test_the_network_alone_is_fed_by_the_kernel(kernel):
    predictor = ChordPredictor(NETWORK, threads=1)
    assert predictor.front_end == "kernel" and predictor.path == NETWORK
    assert np.array_equal(predictor(chord(1, 1)[None]).joint, kernel(chord(1, 1)[None]).joint)


def test_a_kernel_that_is_missing(monkeypatch):
    monkeypatch.setattr(numpy_mel, "why_unavailable", lambda spec: "numba is not installed; pip install numba")
    with pytest.raises(UserError, match="the mel kernel: numba is not installed"):
        ChordPredictor(front_end="kernel")


def test_the_end_of_a_process_waits_for_the_running_step_alone():
    begun, go_on, done = threading.Event(), threading.Event(), []

    def first():
        begun.set()
        assert go_on.wait(20)
        done.append("first")

    background = Background(first, lambda: done.append("second"), failed=done.append)
    assert begun.wait(20)
    end = threading.Thread(target=background._end)
    end.start()
    while not background._ends:
        time.sleep(0.001)
    go_on.set()
    end.join()
    assert done == ["first"]


# ---- the original study's two networks


def test_a_pair_and_its_files_answer_alike(exported_pair):
    (types, roots), rows = exported_pair
    waveforms = np.stack([chord(root, kind) for root in range(12) for kind in range(4)])
    alone = ChordPredictor(types, "torch")(waveforms).types, ChordPredictor(roots, "torch")(waveforms).roots
    paths = {(row.format, row.front_end): row.path for row in rows if row.precision == "fp32"}
    pair = ChordPredictor([str(types), roots], "torch")
    assert pair.model_name == "type.pth + root.safetensors" and pair.path == types and pair.info.task == "both"
    predictors = [
        pair,
        ChordPredictor(paths["onnx", "each"]),
        ChordPredictor(paths["onnx", "each"], front_end="kernel"),
        ChordPredictor(paths["onnx", "batch"]),
        ChordPredictor(paths["torchscript", "stft"], "torchscript"),
    ]
    for predictor in predictors:
        scores = predictor(waveforms)
        for found, wanted in zip((scores.types, scores.roots), alone, strict=True):
            assert np.abs(found - wanted).max() <= WORST and np.array_equal(found.argmax(1), wanted.argmax(1))
        best = scores.joint.reshape(48, 48).argmax(1)
        assert np.array_equal(best, 4 * alone[1].argmax(1) + alone[0].argmax(1))
        assert predictor.name(chord(4, 1))["chord"] == "Cm" and predictor.name(np.zeros(64_000))["chord"] == "N"
        assert predictor(waveforms[:0]).joint.shape == (0, 12, 4)
        with pytest.raises(UserError, match="takes 64000 samples, not 70000"):
            predictor(np.zeros((1, 70_000), np.float32))
