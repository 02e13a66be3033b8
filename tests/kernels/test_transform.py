"""The promise: MelSpectrogram drops in for torchaudio's, and a backend is never chosen silently."""

import copy
import dataclasses
import inspect
import pickle

import numpy as np
import pytest
import torch
import torchaudio

from tests.kernels.inputs import DROP_IN
from triadbench import kernels
from triadbench.kernels import CHORD, ORIGINAL, WHISPER, MelSpec, MelSpectrogram, available_backends
from triadbench.kernels.compare import assert_close
from triadbench.kernels.mel_reference import mel_spectrogram

DROP_IN_CASES = {
    "defaults": {},
    "original": {"n_fft": 1024, "n_mels": 64},
    "all_sizes": {"n_fft": 512, "win_length": 400, "hop_length": 100, "f_min": 50.0, "f_max": 7000.0, "pad": 9},
    "magnitude_normalized": {"power": 1.0, "normalized": True, "n_mels": 40},
    "frame_length": {"normalized": "frame_length", "n_mels": 40},
    "not_centred": {"center": False, "n_mels": 40},
    "slaney": {"norm": "slaney", "mel_scale": "slaney", "n_mels": 40},
    "kaiser": {"window_fn": torch.kaiser_window, "wkwargs": {"periodic": True, "beta": 9.0}, "n_mels": 40},
    "symmetric_hann": {"wkwargs": {"periodic": False}, "n_mels": 40},
    "lambda": {"window_fn": lambda n: torch.linspace(0.1, 1, n), "n_mels": 40},
    "hamming": {"window_fn": torch.hamming_window, "n_mels": 40},
    "replicate": {"pad_mode": "replicate", "n_mels": 40},
}


@pytest.fixture(scope="module")
def waveform():
    return torch.from_numpy(np.random.default_rng(1).standard_normal((2, 3000)).astype(np.float32))


@pytest.mark.parametrize("settings", DROP_IN_CASES.values(), ids=DROP_IN_CASES)
def test_drop_in(settings, waveform):
    theirs = torchaudio.transforms.MelSpectrogram(**({"n_mels": 40} | settings))
    ours = MelSpectrogram(**({"n_mels": 40} | settings))
    expected = theirs(waveform)
    actual = ours(waveform)
    assert_close(actual.numpy(), expected.double().numpy(), dtype="float32", **DROP_IN)
    for name in ("sample_rate", "n_fft", "win_length", "hop_length", "pad", "power", "normalized", "n_mels", "f_min"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.f_max == theirs.mel_scale.f_max
    state = theirs.state_dict()
    ours = MelSpectrogram(**({"n_mels": 40} | settings), backend="torchaudio")
    ours.load_state_dict(state)
    assert torch.equal(ours(waveform), expected)  # the same buffers and the same operations: not one bit apart
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}


def test_the_signature_is_torchaudios_plus_two():
    ours = inspect.signature(MelSpectrogram.__init__).parameters
    theirs = inspect.signature(torchaudio.transforms.MelSpectrogram.__init__).parameters
    assert list(ours) == [*theirs, "backend", "log"]
    for name, parameter in theirs.items():
        assert (ours[name].default, ours[name].kind) == (parameter.default, parameter.kind), name
    assert ours["backend"].kind == ours["log"].kind == inspect.Parameter.KEYWORD_ONLY


def test_onesided_warns_as_in_torchaudio():
    with pytest.warns(UserWarning, match="'onesided' has been deprecated"):
        MelSpectrogram(n_mels=40, onesided=True)


def test_submodules_show_torchaudios_attributes():
    theirs, ours = torchaudio.transforms.MelSpectrogram(n_mels=40), MelSpectrogram(n_mels=40)
    for child in ("spectrogram", "mel_scale"):
        for name, value in vars(getattr(theirs, child)).items():
            if not name.startswith("_") and name != "training":
                assert getattr(getattr(ours, child), name) == value, (child, name)


def test_loaded_buffers_decide_in_float64_too(waveform):
    theirs = torchaudio.transforms.MelSpectrogram(n_mels=40)
    for backend in ("torchaudio", "reference"):
        ours = MelSpectrogram(n_mels=40, backend=backend)
        unrounded = mel_spectrogram(waveform.double().numpy(), ours.spec)
        assert_close(ours(waveform.double()).numpy(), unrounded, rtol_peak=1e-12)
        assert_close(copy.deepcopy(ours).double()(waveform.double()).numpy(), unrounded, rtol_peak=1e-12)
        state = theirs.state_dict()
        state["mel_scale.fb"] = state["mel_scale.fb"] * 2
        ours.load_state_dict(state)
        filterbank, window = theirs.mel_scale.fb.double().numpy().T * 2, theirs.spectrogram.window.double().numpy()
        expected = mel_spectrogram(waveform.double().numpy(), ours.spec, window=window, filterbank=filterbank)
        assert_close(ours(waveform.double()).numpy(), expected, rtol_peak=1e-7)


def test_custom_windows_are_marked_and_not_rebuilt_from_the_spec():
    module = MelSpectrogram(n_mels=40, window_fn=torch.kaiser_window)
    assert module.spec.window == "custom"
    assert MelSpectrogram(n_mels=40, window_fn=torch.hamming_window).spec.window == "hamming"
    with pytest.raises(ValueError, match="custom"):
        MelSpectrogram.from_spec(module.spec)
    with pytest.raises(ValueError, match=r"window_fn returned shape=\(3,\), must be \(400,\)"):
        MelSpectrogram(n_mels=40, window_fn=lambda n: torch.ones(3))


@pytest.mark.parametrize("spec", [ORIGINAL, CHORD, WHISPER, MelSpec(window="blackman", power=1.0)])
def test_from_spec_keeps_the_spec(spec, waveform):
    module = MelSpectrogram.from_spec(spec, backend="torchaudio", log=True)
    assert module.spec == spec
    assert (module.log, module.log_eps, module.backend) == (True, 1e-10, "torchaudio")
    expected = mel_spectrogram(waveform.numpy(), spec, log=True)
    assert_close(module(waveform).numpy(), expected, atol_log=1e-4, dtype="float32")


def test_copies_and_pickles(waveform):
    module = MelSpectrogram(n_mels=40, log=True)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(twin(waveform), module(waveform))
    assert "MelSpec(sample_rate=16000, n_fft=400" in repr(module)


def test_available_backends():
    found = available_backends()
    assert list(found) == list(kernels.BACKENDS)
    assert found.pop("cuda") is None if torch.cuda.is_available() else "torch" in found.pop("cuda")
    assert found == dict.fromkeys(found)


def test_unknown_backend_lists_the_valid_ones():
    with pytest.raises(ValueError, match="backend='cudnn' must be one of 'auto', 'cuda', .*'numba', .*'reference'"):
        MelSpectrogram(n_mels=40, backend="cudnn")


def test_a_named_backend_is_never_replaced(monkeypatch):
    import triadbench.kernels.mel_torchaudio

    monkeypatch.setattr(triadbench.kernels.mel_torchaudio, "why_unavailable", lambda: "cannot be imported (no file)")
    assert available_backends()["torchaudio"].startswith("cannot be")
    with pytest.raises(
        RuntimeError, match=r"'torchaudio' cannot compute this: .*no file\); backends that can: numba, .*reference"
    ):
        MelSpectrogram(n_mels=40, backend="torchaudio")
    prime = {"n_fft": 4099, "n_mels": 40}  # a size that numba and matmul lack
    assert MelSpectrogram(**prime).backend == "reference"  # auto takes what there is, and says so
    with pytest.raises(
        RuntimeError, match="no backend has .*: cuda: .*; numba: .*; matmul: .*; torchaudio: .*; reference: it has no"
    ):
        MelSpectrogram(**prime)(torch.zeros(9000, requires_grad=True))


def test_auto_asks_each_backend_for_device_dtype_and_gradient(monkeypatch):
    import triadbench.kernels.mel_torchaudio

    asked = []
    monkeypatch.setattr(
        triadbench.kernels.mel_torchaudio, "why_unsupported", lambda spec, **wanted: asked.append(wanted) or "no"
    )
    module = MelSpectrogram(n_fft=4099, n_mels=40)  # a size that numba and matmul lack
    assert module.backend_for(torch.zeros(9, dtype=torch.int16)) == "reference"
    assert {"dtype": "int16", "device": "cpu", "needs_gradient": False} in asked


def test_too_short_clips_raise_in_every_backend_as_in_torchaudio():
    for name in (name for name, reason in available_backends().items() if reason is None and name != "cuda"):
        module = MelSpectrogram(n_fft=1024, n_mels=64, backend=name)
        assert module(torch.zeros(513)).shape == (64, 2)
        with pytest.raises(ValueError, match="n_samples=512 .* at least 513 samples for n_fft=1024 .*; use a longer"):
            module(torch.zeros(3, 512))
        module = MelSpectrogram(n_fft=1024, n_mels=64, backend=name, center=False)
        with pytest.raises(ValueError, match="n_samples=1023 .* one frame of n_fft=1024 samples; use a longer clip"):
            module(torch.zeros(1023))
    with pytest.raises(RuntimeError, match="Padding size should be less"):
        torchaudio.transforms.MelSpectrogram(n_fft=1024, n_mels=64)(torch.zeros(3, 512))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.complex64])
def test_other_dtypes_raise(dtype):
    with pytest.raises(TypeError, match="must be a floating dtype or int16; use waveform.float"):
        MelSpectrogram(n_mels=40)(torch.zeros(1000, dtype=dtype))


def test_no_time_dimension_raises():
    with pytest.raises(ValueError, match=r"waveform shape=\(\) must be \(\.\.\., time\)"):
        MelSpectrogram(n_mels=40)(torch.tensor(1.0))


def test_nan_stays_in_its_clip_and_is_not_hidden(waveform):
    broken = waveform.clone()
    broken[0, 1500] = float("nan")
    mel = MelSpectrogram(n_mels=40, log=True)(broken)
    assert mel[0].isnan().any()
    assert mel[1].isfinite().all()


def test_replacing_a_setting_of_a_spec_keeps_the_stated_hop():
    assert dataclasses.replace(ORIGINAL, n_mels=32).hop_length == 512


@pytest.mark.parametrize("backend", ["auto", "numba", "matmul", "torchaudio", "reference"])
@pytest.mark.parametrize("pad_mode", ["reflect", "constant", "replicate", "circular"])
@pytest.mark.parametrize("shape", [(0,), (2, 0), (2, 3, 0)], ids=str)
def test_pad_alone_can_make_a_clip(backend, pad_mode, shape):
    module = MelSpectrogram(pad=300, n_mels=40, pad_mode=pad_mode, backend=backend)
    mel = module(torch.zeros(shape))
    assert torch.equal(mel, torch.zeros((*shape[:-1], 40, 4)))


def test_a_complex_window_raises():
    with pytest.raises(ValueError, match="window_fn returned dtype=torch.complex64, must be real"):
        MelSpectrogram(window_fn=lambda n: torch.ones(n, dtype=torch.complex64))


@pytest.mark.parametrize("settings", [{}, {"power": 1.0, "normalized": True, "pad": 9, "win_length": 300}], ids=str)
def test_the_two_parts_can_be_called_as_torchaudios(settings, waveform):
    theirs = torchaudio.transforms.MelSpectrogram(n_mels=40, **settings)
    ours = MelSpectrogram(n_mels=40, **settings)
    ours.load_state_dict(theirs.state_dict())
    spectrogram = theirs.spectrogram(waveform)
    assert torch.equal(ours.spectrogram(waveform), spectrogram)
    assert torch.equal(ours.mel_scale(spectrogram), theirs.mel_scale(spectrogram))


# ---- what torchaudio's module takes


def test_whole_floats_and_flags_are_taken(waveform):
    settings = {"sample_rate": 22050.0, "n_mels": 40, "center": 1}
    ours, theirs = MelSpectrogram(**settings), torchaudio.transforms.MelSpectrogram(**settings)
    assert (ours.sample_rate, ours.spec.center, ours.spec.sample_rate) == (22050, True, 22050)
    assert_close(ours(waveform).numpy(), theirs(waveform).double().numpy(), dtype="float32", **DROP_IN)
    assert MelSpectrogram(np.float32(22050), n_mels=40).spec.sample_rate == 22050
    for sample_rate in (22050.5, float("nan"), "22050", None):
        with pytest.raises(ValueError, match=f"sample_rate={sample_rate!r} must be an integer"):
            MelSpectrogram(sample_rate, n_mels=40)


def test_filters_without_a_bin_warn_as_in_torchaudio():
    with pytest.warns(UserWarning, match="all zero values"):
        theirs = torchaudio.transforms.MelSpectrogram(n_mels=128)
    n_empty = int((theirs.mel_scale.fb.amax(dim=0) == 0).sum())
    with pytest.warns(
        UserWarning, match=f"^{n_empty} mel filters are all zeros .*n_mels=128 is high, or n_fft=400 low"
    ) as warned:
        MelSpectrogram(n_mels=128)
    assert warned[0].filename == __file__


@pytest.mark.parametrize("backend", ["auto", "numba", "matmul", "torchaudio", "reference"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
class TestHalfPrecision:
    def test_a_waveform_is_computed_in_float32(self, backend, dtype, waveform):
        module, half = MelSpectrogram(n_mels=40, backend=backend), waveform.to(dtype)
        expected = torchaudio.transforms.MelSpectrogram(n_mels=40)(half)
        assert module(half).dtype == expected.dtype == torch.float32
        assert torch.equal(module(half), module(half.float()))
        assert_close(module(half).numpy(), expected.double().numpy(), dtype="float32", **DROP_IN)

    def test_a_converted_module_answers_in_its_dtype(self, backend, dtype, waveform):
        module, half = MelSpectrogram(n_mels=40, backend=backend).to(dtype), waveform.to(dtype)
        assert module(half).dtype == dtype and module(half.to("meta")).dtype == dtype
        assert torch.equal(module(half), module(half.float()).to(dtype))

    def test_autocast_leaves_float32(self, backend, dtype, waveform):
        module = MelSpectrogram(n_mels=40, backend=backend)
        with torch.autocast("cpu", dtype=dtype):
            assert torch.equal(module(waveform), MelSpectrogram(n_mels=40, backend=backend)(waveform))
            mel = module(waveform)
            assert mel.dtype == module(waveform.to(dtype)).dtype == torch.float32
        assert torch.equal(mel, module(waveform))


def test_the_gradient_goes_through_half_precision(waveform):
    half = waveform.to(torch.bfloat16).requires_grad_()
    MelSpectrogram(n_mels=40)(half).sum().backward()
    (expected,) = torch.autograd.grad(
        MelSpectrogram(n_mels=40)(full := half.detach().float().requires_grad_()).sum(), full
    )
    assert half.grad.dtype == torch.bfloat16 and torch.equal(half.grad, expected.to(torch.bfloat16))


def test_made_on_another_default_device(waveform):
    for settings in ({}, {"backend": "numba"}):
        with torch.device("meta"):
            module = MelSpectrogram(n_mels=40, **settings)
        assert {buffer.device.type for buffer in module.buffers()} == {"meta"}
        module = module.to_empty(device="cpu")
        module.load_state_dict(MelSpectrogram(n_mels=40).state_dict())
        assert torch.equal(module(waveform), MelSpectrogram(n_mels=40)(waveform))
