"""The promise: what a user of torchaudio's MelSpectrogram relies on holds for ours: batches, TorchScript, gradients,
state dicts, dtypes, copies, librosa's numbers. Wherever they can be had, torchaudio's own results are the expected ones.
"""

import copy
import io
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
import torchaudio

from tests.kernels.inputs import DROP_IN, ROOT
from triadbench import kernels
from triadbench.kernels import MelSpectrogram
from triadbench.kernels.compare import assert_close

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")

SETTINGS = {
    "defaults": {"n_mels": 40},
    "n_fft_only": {"n_fft": 512, "n_mels": 40},
    "short_window": {"n_fft": 600, "win_length": 400, "n_mels": 32},
    "hop": {"n_fft": 256, "hop_length": 100, "n_mels": 20},
    "odd": {"n_fft": 201, "hop_length": 77, "n_mels": 20},
    "normalized": {"n_mels": 40, "normalized": True},
    "magnitude": {"n_mels": 40, "power": 1.0},
    "limits": {"n_mels": 20, "f_min": 100.0, "f_max": 5000.0, "pad": 7},
    "slaney": {"n_mels": 40, "norm": "slaney", "mel_scale": "slaney"},
    "not_centred": {"n_mels": 40, "center": False},
    "8k": {"sample_rate": 8000, "n_fft": 320, "n_mels": 24},
}


def _noise(*shape, dtype=torch.float32, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).uniform(-1, 1, shape)).to(dtype)


# ---- shapes


@pytest.mark.parametrize("leading", [(), (1,), (3,), (2, 1), (2, 3, 4), (0,), (2, 0)])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_shapes_are_torchaudios(settings, leading):
    theirs, ours = torchaudio.transforms.MelSpectrogram(**settings), MelSpectrogram(**settings)
    if 0 in leading:  # torch.stft refuses an empty batch; the shape is the one of a batch of another size
        full = tuple(n or 1 for n in leading)
        assert ours(_noise(*leading, 3000)).shape[len(leading) :] == theirs(_noise(*full, 3000)).shape[len(leading) :]
    else:
        expected = theirs(_noise(*leading, 3000))
        assert_close(ours(_noise(*leading, 3000)).numpy(), expected.double().numpy(), dtype="float32", **DROP_IN)
    assert ours(_noise(*leading, 3000)).shape[: len(leading)] == leading


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch_is_its_clips(settings, dtype):
    module, batch = MelSpectrogram(**settings), _noise(3, 2, 4000, dtype=dtype)
    expected = torch.stack([torch.stack([module(clip) for clip in pair]) for pair in batch])
    assert torch.equal(module(batch), expected)


# ---- TorchScript


def _reloaded(scripted):
    buffer = io.BytesIO()
    torch.jit.save(scripted, buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)


class TestScript:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
    def test_same_bits(self, settings, dtype):
        module, waveform = MelSpectrogram(**settings), _noise(2, 3000, dtype=dtype)
        scripted = torch.jit.script(module)
        for program in (scripted, _reloaded(scripted)):
            assert torch.equal(program(waveform), module(waveform))

    @pytest.mark.parametrize("backend", kernels.BACKENDS)
    def test_every_backend_and_input(self, backend):
        if kernels.available_backends()[backend] is not None:
            pytest.skip(f"{backend} is not available here")
        module = MelSpectrogram(n_mels=40, backend=backend, log=True)
        inputs = [_noise(2, 3, 3000), _noise(3000, dtype=torch.float64), (_noise(2, 3000) * 9000).to(torch.int16)]
        if "cuda" in backend and not torch.cuda.is_available():
            pytest.skip("no GPU")
        device = "cuda" if "cuda" in backend else "cpu"
        module, program = module.to(device), torch.jit.script(module.to(device))
        for waveform in inputs:
            waveform = waveform.to(device)
            assert torch.equal(program(waveform), module(waveform))

    def test_own_window_and_loaded_buffers(self):
        module = MelSpectrogram(n_mels=40, window_fn=torch.kaiser_window)
        program, waveform = torch.jit.script(module), _noise(2, 3000, dtype=torch.float64)
        assert torch.equal(program(waveform), module(waveform))
        state = {name: 2 * value for name, value in module.state_dict().items()}
        module.load_state_dict(state)
        program.load_state_dict(state)
        assert torch.equal(program(waveform), module(waveform))
        torch.testing.assert_close(
            program(waveform), 8 * MelSpectrogram(n_mels=40, window_fn=torch.kaiser_window)(waveform)
        )

    def test_gradient_and_errors(self):
        module, waveform = MelSpectrogram(n_mels=40), _noise(2, 3000).requires_grad_()
        program = torch.jit.script(module)
        (ours,), (expected,) = (torch.autograd.grad(f(waveform).sum(), [waveform]) for f in (program, module))
        assert torch.equal(ours, expected)
        with pytest.raises(Exception, match="must give at least 201 samples"):
            program(torch.zeros(100))

    def test_inside_another_module(self):
        module = torch.nn.Sequential(MelSpectrogram(n_mels=40), torch.nn.ReLU())
        assert torch.equal(torch.jit.script(module)(_noise(2, 3000)), module(_noise(2, 3000)))

    def test_settings_stay_readable(self):
        module = MelSpectrogram(n_mels=40)
        program = torch.jit.script(module)
        assert (program.n_mels, program.hop_length, program.f_max) == (40, 200, 8000.0)
        assert program.state_dict().keys() == module.state_dict().keys()

    def test_trace_follows_other_shapes(self):
        for backend in ("numba", "torchaudio", "reference"):
            module = MelSpectrogram(n_mels=40, backend=backend)
            traced = _reloaded(torch.jit.trace(module, (_noise(2, 3000),)))
            for waveform in (_noise(2, 3000), _noise(5, 4321), _noise(5, 3000, seed=1)):
                assert torch.equal(traced(waveform), module(waveform))
            uses_ours = "triadbench::mel" in str(traced.inlined_graph)
            assert uses_ours == (backend != "torchaudio")

    def test_another_process_needs_our_import(self, tmp_path):
        module = MelSpectrogram(n_mels=40)
        torch.jit.save(torch.jit.script(module), tmp_path / "mel.pt")
        load = (
            f"import torch; m = torch.jit.load({str(tmp_path / 'mel.pt')!r}); print(tuple(m(torch.ones(3000)).shape))"
        )
        run = {"cwd": ROOT, "capture_output": True, "text": True}
        with_us = subprocess.run(
            [sys.executable, "-c", f"import triadbench.kernels.transform; {load}"], check=True, **run
        )
        assert with_us.stdout.strip() == "(40, 16)"
        without = subprocess.run([sys.executable, "-c", load], check=False, **run)
        assert without.returncode != 0
        assert "triadbench::mel" in without.stderr


# ---- gradients


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0])
@pytest.mark.parametrize("settings", [{}, {"norm": "slaney", "mel_scale": "slaney"}, {"normalized": True}])
def test_gradcheck(settings, power):
    module = MelSpectrogram(n_fft=32, n_mels=4, power=power, **settings)
    waveform = _noise(2, 60, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(module, (waveform,))
    assert torch.autograd.gradgradcheck(module, (waveform,))


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_the_gradient_is_torchaudios(power):
    theirs, ours = (kind(n_mels=40, power=power) for kind in (torchaudio.transforms.MelSpectrogram, MelSpectrogram))
    ours.load_state_dict(theirs.state_dict())
    waveform = _noise(2, 3000).requires_grad_()
    expected, actual = (torch.autograd.grad(f(waveform).square().sum(), [waveform])[0] for f in (theirs, ours))
    assert_close(actual.numpy(), expected.double().numpy(), dtype="float32", rtol_peak=1e-6)


def test_forward_mode_is_not_dropped():
    """A tangent is a gradient too: the backend without one must not be taken."""
    module, waveform, tangent = MelSpectrogram(n_mels=40), _noise(2, 3000), _noise(2, 3000, seed=1)
    mel, change = torch.func.jvp(module, (waveform,), (tangent,))
    torch.testing.assert_close(mel, module(waveform))
    step = 1e-3
    double = module(waveform.double() + step * tangent) - module(waveform.double() - step * tangent)
    torch.testing.assert_close(change.double(), double / (2 * step), rtol=1e-3, atol=1e-3)


# ---- state dicts


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_state_dicts_both_ways(settings):
    theirs, ours = torchaudio.transforms.MelSpectrogram(**settings), MelSpectrogram(**settings)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for name, value in theirs.state_dict().items():
        assert (ours.state_dict()[name].shape, ours.state_dict()[name].dtype) == (value.shape, value.dtype)
    waveform, state = _noise(2, 3000), {name: 2 * value for name, value in theirs.state_dict().items()}
    ours.load_state_dict(state, strict=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    assert_close(ours(waveform).numpy(), theirs(waveform).double().numpy(), dtype="float32", rtol_rms=1e-6)


def test_a_saved_state_dict():
    ours, buffer = MelSpectrogram(n_mels=40), io.BytesIO()
    torch.save(ours.state_dict(), buffer)
    buffer.seek(0)
    theirs = torchaudio.transforms.MelSpectrogram(n_mels=40)
    theirs.load_state_dict(torch.load(buffer, weights_only=True), strict=True)
    assert torch.equal(theirs.mel_scale.fb, ours.mel_scale.fb)


class TestNothingIsStale:
    """Every way in which a buffer changes, after a call that has prepared itself for the former one."""

    @pytest.fixture(params=["numba", "torchaudio", "reference"])
    def module(self, request):
        module = MelSpectrogram(n_mels=40, backend=request.param)
        module(_noise(2, 3000))
        module(_noise(2, 3000, dtype=torch.float64))
        return module

    @pytest.mark.parametrize("change", ["in_place", "load", "assign", "replace", "data", "item", "inference"])
    def test_changes(self, module, change):
        waveform, fb = _noise(2, 3000), module.mel_scale.fb
        before = module(waveform), module(waveform.double())
        if change == "in_place":
            fb.mul_(2)
        elif change == "load":
            module.load_state_dict({**module.state_dict(), "mel_scale.fb": 2 * fb})
        elif change == "assign":
            module.load_state_dict({**module.state_dict(), "mel_scale.fb": 2 * fb}, assign=True)
        elif change == "replace":
            module.mel_scale.fb = 2 * fb
        elif change == "data":
            fb.data = 2 * fb
        elif change == "item":
            fb[:, :] = 2 * fb
        else:
            with torch.inference_mode():
                module.mel_scale.fb = 2 * fb
        # Not the same bits: where a filterbank is loaded, float64 has no unrounded one any more.
        torch.testing.assert_close(module(waveform), 2 * before[0], rtol=1e-6, atol=0)
        torch.testing.assert_close(module(waveform.double()), 2 * before[1], rtol=1e-6, atol=0)

    def test_dtypes_of_the_module(self, module):
        waveform = _noise(2, 3000)
        before = module(waveform), module(waveform.double())
        assert torch.equal(module.double()(waveform.double()), before[1])
        assert torch.equal(module(waveform), before[0])
        assert torch.equal(module.to(torch.float32)(waveform), before[0])
        module.half()
        rounded = module.mel_scale.fb.float()
        module.float()
        assert torch.equal(module.mel_scale.fb, rounded)

    def test_a_copy_goes_its_own_way(self, module):
        waveform = _noise(2, 3000)
        before = module(waveform)
        for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
            assert not twin._arrays_kept  # what belongs to the original's buffers
            assert torch.equal(twin(waveform), before)
            twin.mel_scale.fb.mul_(2)
            torch.testing.assert_close(twin(waveform), 2 * before, rtol=1e-6, atol=0)
            assert torch.equal(module(waveform), before)


# ---- dtypes


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_float64(power):
    theirs = torchaudio.transforms.MelSpectrogram(n_mels=40, power=power).double()
    ours = MelSpectrogram(n_mels=40, power=power).double()
    ours.load_state_dict(theirs.state_dict())
    waveform = _noise(2, 3000, dtype=torch.float64)
    assert_close(ours(waveform).numpy(), theirs(waveform).numpy(), rtol_peak=1e-6)
    assert ours(waveform).dtype == torch.float64


# ---- librosa


@pytest.mark.parametrize("norm", [None, "slaney"])
@pytest.mark.parametrize("mel_scale", ["htk", "slaney"])
@pytest.mark.parametrize(
    ("n_fft", "hop_length", "n_mels", "power"),
    [(400, 200, 40, 2.0), (600, 100, 128, 2.0), (512, 128, 64, 1.0), (200, 50, 20, 2.0)],
)
def test_librosas_numbers(n_fft, hop_length, n_mels, power, mel_scale, norm):
    waveform = _noise(8000)
    module = MelSpectrogram(
        sample_rate=16000,
        n_fft=n_fft,
        hop_length=hop_length,
        n_mels=n_mels,
        power=power,
        norm=norm,
        mel_scale=mel_scale,
    )
    librosa = pytest.importorskip("librosa")
    expected = librosa.feature.melspectrogram(
        y=waveform.double().numpy(),
        sr=16000,
        n_fft=n_fft,
        hop_length=hop_length,
        n_mels=n_mels,
        power=power,
        htk=mel_scale == "htk",
        norm=norm,
        pad_mode="reflect",
        dtype=np.float64,
    )
    assert_close(module(waveform).numpy(), expected, dtype="float32", rtol_peak=3e-6, rtol_rms=1e-6)
