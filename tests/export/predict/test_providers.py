"""The promise: a session runs on the provider that was asked for, node by node, or one line says why not."""

import ctypes
import dataclasses
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from triadbench.core.constants import ONNX_PROVIDERS
from triadbench.core.errors import UserError
from triadbench.core.files import pretrained_path
from triadbench.export.predict import providers
from triadbench.export.predict.metadata import sealed
from triadbench.export.predict.providers import OnnxModel, Placement, placement_of, why_unavailable
from triadbench.kernels import CHORD, object_cache
from triadbench.kernels.cpu import numpy_entry as numpy_mel

ROOT = Path(__file__).resolve().parents[3]
PRETRAINED = pretrained_path()
GRAPH, NETWORK, BATCH = (PRETRAINED / f"chordnet{part}.onnx" for part in ("", ".mel", ".batch"))
CLIPS = 0.1 * np.random.default_rng(0).standard_normal((2, 64000)).astype(np.float32)


@pytest.fixture(scope="module")
def graph():
    return OnnxModel(GRAPH, threads=1)


# ---- where nodes ran


def _event(name, operator, provider, kind="float", size=9):
    shapes = [{kind: [1, size]}]
    arguments = {"op_name": operator, "provider": provider, "input_type_shape": shapes, "output_type_shape": shapes}
    return {"cat": "Node", "name": f"{name}_kernel_time", "args": arguments}


CPU, CUDA, TENSORRT = ONNX_PROVIDERS.values()
ON_CUDA = [_event("conv", "Conv", CUDA), _event("matmul", "MatMul", CUDA)]
SHAPES = [_event("length", "Shape", CPU), _event("hops", "Div", CPU, "int64"), _event("share", "Cast", CPU, size=1)]


@pytest.mark.parametrize(
    ("events", "provider", "expected"),
    [
        (ON_CUDA, "cuda", Placement({"cuda": 2}, 0, 0)),
        (ON_CUDA + ON_CUDA, "cuda", Placement({"cuda": 2}, 0, 0)),  # a loop runs its nodes again
        (ON_CUDA + SHAPES, "cuda", Placement({"cuda": 2, "cpu": 3}, 3, 0)),
        ([*ON_CUDA, _event("m", "MemcpyFromHost", CUDA)], "cuda", Placement({"cuda": 3}, 0, 1)),
        ([*ON_CUDA, _event("s", "STFT", CPU)], "cuda", Placement({"cuda": 2, "cpu": 1}, 0, 0, ("s (STFT) on cpu",))),
        # Adding numbers is computing, adding lengths is not.
        ([*ON_CUDA, _event("a", "Add", CPU)], "cuda", Placement({"cuda": 2, "cpu": 1}, 0, 0, ("a (Add) on cpu",))),
        ([_event("engine", "TRTKernel", TENSORRT), *ON_CUDA], "tensorrt", Placement({"tensorrt": 1, "cuda": 2}, 0, 0)),
        (SHAPES, "cpu", Placement({"cpu": 3}, 0, 0)),
        ([{"cat": "Session", "name": "model_run"}], "cuda", Placement({}, 0, 0, ("no node was seen to run",))),
        (
            [_event("x", "Conv", "OtherExecutionProvider")],
            "cpu",
            Placement({"OtherExecutionProvider": 1}, 0, 0, ("x (Conv) on OtherExecutionProvider",)),
        ),
        (ON_CUDA, "tensorrt", Placement({"cuda": 2}, 0, 0, ("no node runs on tensorrt",))),
    ],
    ids=[
        "all",
        "again",
        "shapes",
        "memcpy",
        "computes",
        "same_operator",
        "tensorrt",
        "cpu",
        "none",
        "other",
        "no_engine",
    ],
)
def test_placement_of_a_profile(events, provider, expected):
    assert placement_of(events, provider) == expected


def test_placement_of_a_real_run(graph):
    before = graph.session
    placement = graph.describe_placement()
    assert placement.nodes.keys() == {"cpu"} and placement.nodes["cpu"] > 50
    assert (placement.shape_nodes, placement.memcpy, placement.strangers) == (0, 0, ())
    assert graph.session is before and graph.describe_placement() is placement


# ---- a session


def test_run_and_bound_run_give_the_same(graph):
    outputs = graph.run(CLIPS)
    names = ["type_probabilities", "root_probabilities", "logits", "chord_logits", "bass_probabilities"]
    assert list(outputs) == names
    bound = graph.bind(CLIPS)
    bound()
    for name, values in bound.outputs().items():
        assert np.array_equal(values, outputs[name])


def test_options_of_the_providers(tmp_path):
    ((name, options),) = providers._providers("cpu", {}, None, False)
    assert (name, options) == (CPU, {})
    cuda, cpu = providers._providers("cuda", {"cudnn_conv_algo_search": "EXHAUSTIVE"}, None, False)
    assert cuda == (CUDA, {"device_id": "0", "use_tf32": "0", "cudnn_conv_algo_search": "EXHAUSTIVE"})
    assert cpu[0] == CPU
    cache = tmp_path / "new" / "cache"
    tensorrt, cuda, cpu = providers._providers("tensorrt", {}, cache, True)
    assert tensorrt[1]["trt_fp16_enable"] == "1" and cache.is_dir()
    assert tensorrt[1]["trt_engine_cache_path"] == str(cache) and tensorrt[1]["trt_engine_cache_enable"] == "1"
    assert (cuda[0], cuda[1]["use_tf32"], cpu[0]) == (CUDA, "0", CPU)


def test_no_room_for_a_profile(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(UserError, match="no profile of the first run .*; set TMPDIR"):
        OnnxModel(GRAPH, threads=1).describe_placement()


def test_an_engine_cache_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/cache: cannot make this folder"):
        providers._providers("tensorrt", {}, tmp_path / "file" / "cache", False)


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "2"])
def test_no_number_of_threads(threads):
    with pytest.raises(UserError, match=f"threads={threads!r} must be a whole number from 1 on"):
        OnnxModel(GRAPH, threads=threads)


def test_an_unknown_provider():
    with pytest.raises(UserError, match="provider='gpu' must be one of cpu, cuda, tensorrt"):
        OnnxModel(GRAPH, "gpu")


# ---- without a GPU


@pytest.fixture
def no_gpu():
    if providers._why_no_gpu() is None:
        pytest.skip("this machine has an NVIDIA GPU")


def _without(name):
    """ctypes.CDLL on a machine where the library called `name` is missing."""
    load = ctypes.CDLL

    def loaded(library, *mode):
        if name in str(library):
            raise OSError(f"{name}: cannot open shared object file")
        return load(library, *mode)

    return loaded


class _Driver:
    """A driver that counts no GPU."""

    def cuInit(self, flags):
        return 100

    def cuDeviceGetCount(self, count):
        raise AssertionError("not asked where cuInit fails")


@pytest.fixture
def built_with_cuda(monkeypatch):
    """Whatever is installed, onnxruntime says that it has CUDA."""
    built = [*ONNX_PROVIDERS.values()]
    monkeypatch.setattr(providers.load_onnxruntime(), "get_available_providers", lambda: built)


def test_no_driver(monkeypatch, built_with_cuda):
    monkeypatch.setattr(providers.ctypes, "CDLL", _without("libcuda.so.1"))
    assert "no NVIDIA driver found (libcuda.so.1 cannot be loaded)" in why_unavailable("cuda")
    with pytest.raises(UserError, match="provider cuda: no NVIDIA driver found.*; use --provider cpu$"):
        OnnxModel(BATCH, "cuda")


def test_a_driver_without_a_gpu(monkeypatch, built_with_cuda):
    monkeypatch.setattr(providers.ctypes, "CDLL", lambda name: _Driver())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "finds no GPU (status 100, CUDA_VISIBLE_DEVICES='')" in why_unavailable("cuda")


def test_onnxruntime_without_cuda(monkeypatch):
    monkeypatch.setattr(providers.load_onnxruntime(), "get_available_providers", lambda: [CPU])
    assert "is built without it; pip install onnxruntime-gpu" in why_unavailable("cuda")


def test_a_missing_library(monkeypatch):
    if CUDA not in providers.load_onnxruntime().get_available_providers():
        pytest.skip("this onnxruntime is built without CUDA")
    monkeypatch.setattr(providers, "_why_no_gpu", lambda: None)
    monkeypatch.setattr(providers.ctypes, "CDLL", _without("onnxruntime_providers_tensorrt"))
    assert "does not load: onnxruntime_providers_tensorrt" in why_unavailable("tensorrt")


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_onnxruntime_never_falls_back_in_silence(no_gpu, monkeypatch, capfd, provider):
    """Nothing is seen to be missing, and still ONNX Runtime cannot start the provider: it would go on with the CPU."""
    monkeypatch.setattr(providers, "why_unavailable", lambda provider: None)
    with pytest.raises(UserError, match="use --provider cpu$") as error:
        OnnxModel(BATCH, provider)
    assert provider in str(error.value) and "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_a_session_that_runs_elsewhere_is_not_given_out(monkeypatch):
    """ONNX Runtime says that it has the provider, and runs every node on the CPU: the first run shows it."""
    open_session = OnnxModel._open

    def on_the_cpu(self, settings):
        self.provider, asked = "cpu", self.provider
        self._providers = ["CPUExecutionProvider"]
        try:
            return open_session(self, settings)
        finally:
            self.provider = asked

    monkeypatch.setattr(providers, "why_unavailable", lambda provider: None)
    monkeypatch.setattr(OnnxModel, "_open", on_the_cpu)
    with pytest.raises(UserError, match=r"nodes do not run on cuda \(.* on cpu.*chordnet.batch.onnx"):
        OnnxModel(BATCH, "cuda")


def test_without_onnxruntime(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match="onnxruntime cannot be imported .*pip install onnxruntime-gpu"):
        providers.load_onnxruntime.__wrapped__()


# ---- what is no model of ours


def _foreign():
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", value[:1], value[1:])
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString()


def _external(location):
    """Our network with the weights of one layer in another file."""
    model = onnx.load(NETWORK)
    weights = next(tensor for tensor in model.graph.initializer if len(tensor.raw_data) > 5000)
    entries = {"location": location, "offset": "0", "length": str(len(weights.raw_data))}
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        entry = weights.external_data.add()
        entry.key, entry.value = key, value
    return model.SerializeToString()


def _changed(change):
    model = onnx.load(NETWORK)
    change(model)
    return model.SerializeToString()


def _relabel(model):
    for entry in model.metadata_props:
        entry.value = entry.value.replace('"minor", "diminished"', '"diminished", "minor"')


def _other_bit(path, at):
    """The file with one bit changed, which a float32 hardly feels; nothing else would notice."""
    content = bytearray(path.read_bytes())
    content[round(at * len(content))] ^= 1
    return bytes(content)


def _no_text():
    content = bytearray(GRAPH.read_bytes())
    content[content.rfind(b'"architecture"') + 1] = 0xFF
    return bytes(content)


BAD = {
    "empty": (lambda: b"", "not an ONNX model that can be run"),
    "noise": (lambda: np.random.default_rng(0).bytes(3000), "not an ONNX model that can be run"),
    "truncated": (lambda: GRAPH.read_bytes()[:-1000], "not an ONNX model that can be run"),
    "foreign": (_foreign, "no model of triadbench"),
    "outside": (lambda: _external("../weights.bin"), "not an ONNX model that can be run .*escapes"),
    "absolute": (lambda: _external("/etc/passwd"), "not an ONNX model that can be run .*[Aa]bsolute"),
    "outputs": (lambda: _changed(lambda model: model.graph.output.pop()), "are not what its metadata say"),
    "a bit of the weights": (lambda: _other_bit(NETWORK, 0.5), "damaged or changed since it was made"),
    "a bit of the mel": (lambda: _other_bit(GRAPH, 0.1), "damaged or changed since it was made"),
    "no text": (_no_text, "damaged metadata"),
    "labels": (lambda: _changed(_relabel), "other labels than this version's"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(tmp_path, capfd, name):
    content, message = BAD[name]
    (tmp_path / "weights.bin").write_bytes(bytes(1 << 20))  # what "outside" would read
    path = tmp_path / "model" / "bad.onnx"
    path.parent.mkdir()
    path.write_bytes(content())
    with pytest.raises(UserError, match=message) as error:
        OnnxModel(path, threads=1)
    assert "bad.onnx" in str(error.value) and "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match="no.onnx: no such model file"):
        OnnxModel(tmp_path / "no.onnx")


def test_a_run_that_fails_is_one_line(graph):
    with pytest.raises(UserError, match="chordnet.onnx on cpu: ") as error:
        graph.run(CLIPS[0])
    assert "\n" not in str(error.value)


# ---- one fresh process


FRESH = """
import sys
from triadbench.export.predict.predictor import ChordPredictor
import numpy as np
predictor = ChordPredictor()
predictor(np.zeros((1, 64000), np.float32))
predictor.warm_kernel(wait=True)
predictor(np.zeros((20, 64000), np.float32))
print(*sorted({"torch", "numba", "onnx", "scipy", "click", "soundfile"} & set(sys.modules)), predictor.note)
"""


def test_a_fresh_process_imports_little_and_prints_and_reports_nothing(tmp_path):
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    environment = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"} | home
    numpy_mel.load(CHORD)  # compiled, and on the disk, from here on
    environment.setdefault("NUMBA_CACHE_DIR", str(object_cache.folders()[0]))
    done = subprocess.run([sys.executable, "-c", FRESH], cwd=ROOT, capture_output=True, text=True, env=environment)
    assert (done.stdout, done.stderr, done.returncode) == ("None\n", "", 0)
    assert [path for path in tmp_path.rglob("*") if "Microsoft" in path.parts] == []  # telemetry's data base


# ---- on a GPU


@pytest.mark.gpu
@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_every_node_on_the_gpu(graph, tmp_path, provider):
    if reason := why_unavailable(provider):
        pytest.skip(f"{provider}: {reason}")
    model = OnnxModel(BATCH, provider, engine_cache=tmp_path)
    placement = model.describe_placement()
    assert placement.strangers == () and placement.memcpy == 0 and placement.nodes[provider] > 0
    expected, found = graph.run(CLIPS), model.run(CLIPS)
    bound = model.bind(CLIPS)
    bound()
    for outputs in (found, bound.outputs()):
        assert np.abs(outputs["type_probabilities"] - expected["type_probabilities"]).max() < 1e-4


@pytest.mark.gpu
def test_a_graph_with_the_stft_operator_is_refused_on_cuda(tmp_path):
    """ONNX Runtime has no CUDA kernel for it, and would run it on the CPU without a word."""
    if reason := why_unavailable("cuda"):
        pytest.skip(f"cuda: {reason}")
    from triadbench.core.models.checkpoint import load
    from triadbench.export.formats import onnx_model

    shipped = OnnxModel(NETWORK, threads=1).info
    info = dataclasses.replace(shipped, front_end="stft")
    checkpoint = load(PRETRAINED / "chordnet.safetensors")
    model = onnx_model.with_mel(onnx_model.network_model(checkpoint, info), info)
    onnx_model.describe(model, info)
    (tmp_path / "stft.onnx").write_bytes(sealed(model.SerializeToString()))
    with pytest.raises(UserError, match="do not run on cuda .*STFT"):
        OnnxModel(tmp_path / "stft.onnx", "cuda")
