"""The promise: a module gives its numbers under torch.compile, torch.export, make_fx, torch.func and on meta too."""

import functools
import threading
import time

import numpy as np
import pytest
import torch

from triadbench.kernels import MelSpec, MelSpectrogram, torch_operator
from triadbench.kernels.compare import assert_close
from triadbench.kernels.cpu import mel_numba
from triadbench.kernels.gpu import mel_cuda

SPEC = MelSpec(n_fft=128, n_mels=8)
BACKENDS = ("auto", "numba", "matmul")
TOLERANCES = {torch.float32: {"rtol_peak": 3e-6, "rtol_rms": 1e-6}, torch.float64: {"rtol_peak": 1e-12}}

# torch.compile and torch.func import torch's decompositions, which are scripted.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")


@pytest.fixture(autouse=True)
def fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def _noise(*shape, dtype=torch.float32):
    return torch.from_numpy(np.random.default_rng(1).standard_normal(shape)).to(dtype)


def _compiled(module, **settings):
    """The module compiled, and the list of its graphs."""
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    return torch.compile(module, fullgraph=True, backend=backend, **settings), graphs


def _same(actual, expected):
    assert_close(actual.numpy(), expected.numpy(), **TOLERANCES[expected.dtype])


class TestCompile:
    @pytest.mark.parametrize("backend", BACKENDS)
    def test_many_lengths_need_two_graphs(self, backend):
        module = MelSpectrogram.from_spec(SPEC, backend=backend)
        compiled, graphs = _compiled(module)
        for i in range(12):
            waveform = _noise(3, 1000 + 37 * i)
            _same(compiled(waveform), module(waveform))
        assert len(graphs) == 2  # for the first length, and for any

    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize("n_fft", [128, 512, 37])
    def test_open_from_the_start(self, backend, n_fft):
        module = MelSpectrogram(n_fft=n_fft, n_mels=8, backend=backend)
        compiled, graphs = _compiled(module, dynamic=True)
        for shape in ((3, 5000), (2, 777)):
            _same(compiled(_noise(*shape)), module(_noise(*shape)))
        assert len(graphs) == 1

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_float64_takes_the_unrounded_arrays_or_the_loaded_ones(self, backend):
        module = MelSpectrogram.from_spec(SPEC, backend=backend)
        compiled, _ = _compiled(module)
        waveform = _noise(2, 1000, dtype=torch.float64)
        _same(compiled(waveform), module(waveform))
        module.mel_scale.fb.mul_(3.0)
        _same(compiled(waveform), module(waveform))

    @pytest.mark.parametrize("inference", [False, True])
    def test_inductors_graph_passes_the_buffers_themselves(self, inference, monkeypatch):
        """So their tables are prepared once for each version; of inference tensors every call would copy the values."""
        versions, prepare = [], mel_numba._prepare
        monkeypatch.setattr(
            mel_numba, "_prepare", lambda *a: versions.append([t._version for t in a[1:3]]) or prepare(*a)
        )
        module, waveform = MelSpectrogram.from_spec(SPEC, backend="numba"), _noise(2, 1000)
        compiled = torch.compile(module, fullgraph=True)
        with torch.inference_mode(inference):
            for _ in range(3):
                mel = compiled(waveform)
            module.mel_scale.fb.mul_(2.0)
            for _ in range(3):
                _same(compiled(waveform), 2.0 * mel)
        assert versions == [[0, 0], [0, 1]]

    def test_too_short_a_clip_raises(self):
        compiled, _ = _compiled(MelSpectrogram.from_spec(SPEC))
        with pytest.raises(Exception, match="must give at least 65 samples"):
            compiled(_noise(2, 60))

    @pytest.mark.parametrize("backend", ["auto", "numba"])  # matmul needs an open batch beside: test_matmul.py
    def test_exported_with_an_open_length(self, backend):
        module = MelSpectrogram.from_spec(SPEC, backend=backend)
        time = torch.export.Dim("time", min=200, max=100000)
        program = torch.export.export(module, (_noise(3, 1000),), dynamic_shapes=({1: time},)).module()
        for n in (1000, 1037, 4321):
            _same(program(_noise(3, n)), module(_noise(3, n)))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
class TestModes:
    def test_make_fx(self, backend, dtype):
        from torch.fx.experimental.proxy_tensor import make_fx

        module = MelSpectrogram.from_spec(SPEC, backend=backend)
        graph = make_fx(module)(_noise(2, 1000, dtype=dtype))
        for scale in (1.0, 5.0):
            waveform = scale * _noise(2, 1000, dtype=dtype)
            _same(graph(waveform), module(waveform))

    def test_fake_tensors_leave_nothing_behind(self, backend, dtype):
        from torch._subclasses.fake_tensor import FakeTensorMode

        module = MelSpectrogram.from_spec(SPEC, backend=backend)
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            assert module(mode.from_tensor(_noise(2, 1000, dtype=dtype))).shape == (2, 8, 16)
        waveform = _noise(2, 1000, dtype=dtype)
        _same(module(waveform), MelSpectrogram.from_spec(SPEC, backend="torchaudio")(waveform))

    def test_vmap(self, backend, dtype):
        module = MelSpectrogram.from_spec(SPEC, backend=backend)
        waveform = _noise(3, 2, 1000, dtype=dtype)
        _same(torch.vmap(module)(waveform), module(waveform))
        _same(torch.vmap(module, in_dims=1, out_dims=1)(waveform), module(waveform))
        _same(torch.vmap(torch.vmap(module))(waveform), module(waveform))

    def test_vmap_over_filterbanks(self, backend, dtype):
        module = MelSpectrogram.from_spec(SPEC, backend=backend)
        waveform = _noise(2, 1000, dtype=dtype)
        banks = torch.stack([module.mel_scale.fb * factor for factor in (2.0, 3.0)])

        def mel(fb):
            return torch.func.functional_call(module, {"mel_scale.fb": fb}, (waveform,))

        _same(torch.vmap(mel)(banks), torch.stack([mel(fb) for fb in banks]))

    def test_inside_a_gradient_of_something_else(self, backend, dtype):
        module = MelSpectrogram.from_spec(SPEC, backend=backend)
        waveform = _noise(2, 1000, dtype=dtype)
        gain = torch.ones((), dtype=dtype)
        gradient = torch.func.grad(lambda factor: (factor * module(waveform)).sum())(gain)
        _same(gradient[None], module(waveform).sum()[None])


def test_another_default_device():
    module = MelSpectrogram.from_spec(SPEC, backend="numba")
    waveform = _noise(2, 1000)
    with torch.device("meta"):
        mel = module(waveform)
    _same(mel, module(waveform))


@pytest.mark.parametrize("shape", [(1000,), (2, 3, 1000), (0, 1000)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int16])
def test_meta_gives_the_shape(shape, dtype):
    module = MelSpectrogram.from_spec(SPEC).to("meta")
    mel = module(torch.empty(shape, dtype=dtype, device="meta"))
    assert (mel.device.type, mel.shape) == ("meta", (*shape[:-1], 8, 16))
    assert mel.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    with pytest.raises(ValueError, match="at least 65 samples"):
        module(torch.empty(60, device="meta"))
    with pytest.raises(TypeError, match="torch.int32"):
        module(torch.empty(1000, dtype=torch.int32, device="meta"))


@pytest.mark.parametrize("settings", [{}, {"power": 1.0, "normalized": True, "pad": 9}, {"normalized": "frame_length"}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_torchaudios_path_keeps_its_graph_whole(settings, dtype):
    module = MelSpectrogram(n_fft=128, n_mels=8, backend="torchaudio", **settings)
    waveform = _noise(2, 3, 1000, dtype=dtype)
    compiled, graphs = _compiled(module)
    _same(compiled(waveform), module(waveform))
    assert len(graphs) == 1


def test_threads_that_register_an_operator_at_once_define_it_once(monkeypatch):
    started, defined = threading.Barrier(4), []

    @functools.cache
    def define(*arguments):
        defined.append(arguments)
        time.sleep(0.05)  # long enough for the others to arrive

    monkeypatch.setattr(torch_operator, "_define_operator", define)

    def work():
        started.wait(60)
        torch_operator.register_operator("mel_of_threads", _noise)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert defined == [("mel_of_threads", _noise, None)]


def test_the_gpus_operator_has_shapes_for_any_length_and_under_vmap():
    """On meta: no GPU is needed for its shapes."""
    torch_operator.register_operator("mel_cuda", mel_cuda.compute, device_types="cuda")
    window, fb = torch.empty(128, device="meta"), torch.empty(65, 8, device="meta")

    def mel(waveform, fb=fb):
        return torch.ops.triadbench.mel_cuda(waveform, window, fb, SPEC.text, None)

    assert mel(torch.empty(3, 1000, device="meta")).shape == (3, 8, 16)
    waveform = torch.empty(5, 3, 1000, device="meta")
    assert torch.vmap(mel)(waveform).shape == (5, 3, 8, 16)
    assert torch.vmap(mel, in_dims=(None, 0))(waveform[0], torch.empty(4, 65, 8, device="meta")).shape == (4, 3, 8, 16)
    compiled, graphs = _compiled(mel)
    for n in range(1000, 1300, 37):
        assert compiled(torch.empty(3, n, device="meta")).shape == (3, 8, SPEC.n_frames(n))
    assert len(graphs) == 2


# ---- torch.fx, torch.jit.freeze and torch.onnx


@pytest.mark.parametrize("backend", ["auto", "matmul", "torchaudio", "reference"])
def test_symbolic_trace(backend):
    module = MelSpectrogram.from_spec(SPEC, backend=backend, log=True)
    for traced in (torch.fx.symbolic_trace(module), torch.fx.symbolic_trace(torch.nn.Sequential(module))):
        for waveform in (_noise(2, 1000), _noise(3, 2, 1234), _noise(2, 1000, dtype=torch.float64)):
            _same(traced(waveform), module(waveform))
    module.mel_scale.fb.mul_(2.0)  # the graph holds the buffers, not their values
    _same(traced(_noise(2, 1000)), module(_noise(2, 1000)))


def test_a_frozen_script():
    module = MelSpectrogram.from_spec(SPEC).eval()
    frozen = torch.jit.freeze(torch.jit.script(module))
    _same(frozen(_noise(2, 1000)), module(_noise(2, 1000)))
    assert torch.jit.script(MelSpectrogram.from_spec(SPEC)).training


class TestOnnx:
    """`torch.onnx.export` in one process, ONNX Runtime beside it; batch and length are open."""

    CASES = {
        "spec": {"n_fft": 128, "n_mels": 8},
        "log_slaney": {
            "n_fft": 256,
            "hop_length": 100,
            "n_mels": 8,
            "norm": "slaney",
            "mel_scale": "slaney",
            "log": True,
        },
        "magnitude_replicate": {
            "n_fft": 128,
            "n_mels": 8,
            "power": 1.0,
            "pad": 3,
            "pad_mode": "replicate",
            "normalized": True,
        },
        "many_hops": {"n_fft": 128, "hop_length": 3, "n_mels": 8, "center": False},
    }

    @staticmethod
    def _exported(module, path, dynamo):
        arguments = {"input_names": ["waveform"], "output_names": ["mel"], "dynamo": dynamo}
        if dynamo:
            arguments |= {
                "dynamic_shapes": ({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC},),
                "verbose": False,
            }
        else:
            arguments |= {"dynamic_axes": {"waveform": {0: "batch", 1: "samples"}}}
        torch.onnx.export(module, (_noise(2, 1000),), path, **arguments)

    @pytest.mark.filterwarnings("ignore")  # the exporters' own
    @pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
    @pytest.mark.parametrize("settings", CASES.values(), ids=CASES)
    def test_auto_takes_plain_operators(self, settings, dynamo, tmp_path):
        onnxruntime = pytest.importorskip("onnxruntime")
        module = MelSpectrogram(**settings)
        assert module.backend == "numba"
        self._exported(module, tmp_path / "mel.onnx", dynamo)
        session = onnxruntime.InferenceSession(tmp_path / "mel.onnx", providers=["CPUExecutionProvider"])
        for shape in ((2, 1000), (5, 1777)):
            (mel,) = session.run(None, {"waveform": _noise(*shape).numpy()})
            assert_close(
                mel,
                module(_noise(*shape)).numpy(),
                **({"atol_log": 1e-4, "dtype": "float32"} if module.log else TOLERANCES[torch.float32]),
            )

    @pytest.mark.filterwarnings("ignore")
    def test_a_named_backend_is_not_replaced(self, tmp_path):
        with pytest.raises(RuntimeError, match="backend='numba' has no operators of ONNX; use backend='auto'"):
            self._exported(MelSpectrogram.from_spec(SPEC, backend="numba"), tmp_path / "mel.onnx", False)


class TestReferenceIsNumpy:
    """It says so where there are no values, and is never taken for a constant."""

    MESSAGE = "backend='reference' is NumPy and needs tensors with values: .*; use backend='auto'"

    @pytest.mark.parametrize("how", ["vmap", "fake", "export", "make_fx"])
    def test_refusal(self, how):
        from torch._subclasses.fake_tensor import FakeTensorMode
        from torch.fx.experimental.proxy_tensor import make_fx

        module, waveform = MelSpectrogram.from_spec(SPEC, backend="reference"), _noise(2, 1000)
        with pytest.raises(RuntimeError, match=self.MESSAGE):
            if how == "vmap":
                torch.vmap(module)(waveform)
            elif how == "fake":
                with FakeTensorMode(allow_non_fake_inputs=True) as mode:
                    module(mode.from_tensor(waveform))
            elif how == "export":
                torch.export.export(module, (waveform,))
            else:
                make_fx(module)(waveform)
