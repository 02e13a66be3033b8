"""The promise: whatever window and filterbank a module holds, they are computed with, differentiated, or refused."""

import dataclasses

import numpy as np
import pytest
import torch

from triadbench.kernels import MelSpec, MelSpectrogram, mel_matmul, transform
from triadbench.kernels.compare import assert_close
from triadbench.kernels.cpu import mel_numba

SPEC = MelSpec(n_fft=128, n_mels=8)
# Forward mode imports torch's decompositions, which are scripted.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")

TOLERANCES = {torch.float32: {"rtol_peak": 1e-5, "rtol_rms": 3e-6}, torch.float64: {"rtol_peak": 1e-12}}
BACKENDS = ("numba", "matmul", "torchaudio", "reference")


@pytest.fixture(scope="module")
def waveform():
    return torch.from_numpy(np.random.default_rng(1).standard_normal((2, 1000)).astype(np.float32))


class TestShapes:
    @pytest.mark.parametrize("backend", ("auto", *BACKENDS))
    @pytest.mark.parametrize("fb", [(65, 7), (8, 65), (64, 8), (65,)], ids=str)
    def test_a_filterbank_of_another_shape_raises(self, backend, fb, waveform):
        module = MelSpectrogram.from_spec(SPEC, backend=backend)
        module(waveform)
        module.mel_scale.fb = torch.ones(fb)
        with pytest.raises(ValueError, match=r"filterbank shape=.*must be \(128,\) and \(8, 65\).*make a spec"):
            module(waveform)

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_a_window_of_another_length_raises(self, backend, waveform):
        module = MelSpectrogram.from_spec(SPEC, backend=backend)
        module.spectrogram.window = torch.ones(100)
        with pytest.raises(ValueError, match=r"window shape=\(100,\) .* must be \(128,\)"):
            module(waveform)

    def test_a_part_of_the_filterbank_is_not_taken_for_the_whole(self, waveform):
        fb = MelSpectrogram.from_spec(SPEC).mel_scale.fb.T.contiguous()
        window = torch.from_numpy(SPEC.window_array()).float()
        mel = mel_numba.compute(waveform, SPEC, window, fb, None)
        assert mel.shape == (2, 8, 16)
        with pytest.raises(ValueError, match=r"filterbank shape=\(5, 65\)"):
            mel_numba.compute(waveform, SPEC, window, fb[:5], None)

    def test_the_operator_checks_too(self, waveform):
        MelSpectrogram.from_spec(SPEC, backend="numba")
        operator = torch.ops.triadbench.mel_numba
        window, fb = torch.ones(128), torch.ones(65, 8)
        with pytest.raises(ValueError, match=r"filterbank shape=\(7, 201\)"):
            operator(waveform, window, torch.ones(201, 7), SPEC.text, None)
        with pytest.raises(TypeError, match="filterbank dtype=torch.float64"):
            operator(waveform, window, fb.double(), SPEC.text, None)
        with pytest.raises(TypeError, match="window dtype=torch.float16"):
            operator(waveform, window.half(), fb.half(), SPEC.text, None)
        with pytest.raises(TypeError, match="waveform dtype=int64"):
            operator(waveform.long(), window, fb, SPEC.text, None)

    def test_matrix_products_check_too(self, waveform):
        spec = dataclasses.replace(SPEC, n_mels=7)
        with pytest.raises(ValueError, match=r"filterbank shape=\(8, 65\)"):
            mel_matmul.forward(waveform, spec, torch.ones(128), torch.ones(8, 65), None)


class TestInferenceTensors:
    """A module made or moved under torch.inference_mode holds tensors with a version counter all the same."""

    def _made(self):
        with torch.inference_mode():
            return MelSpectrogram.from_spec(SPEC)

    def _moved(self):
        module = MelSpectrogram.from_spec(SPEC)
        with torch.inference_mode():
            return torch.nn.Sequential(module).double().float()[0]

    @pytest.mark.parametrize("how", ["_made", "_moved"])
    def test_no_buffer_is_one(self, how):
        module = getattr(self, how)()
        assert not any(tensor.is_inference() for tensor in (*module.buffers(), *module._exact))

    @pytest.mark.parametrize("how", ["_made", "_moved"])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("backend", ["numba", "matmul"])
    def test_tables_are_converted_and_copied_once(self, how, backend, dtype, waveform, monkeypatch):
        """On a GPU a copy to the host would wait for the device at every call."""
        module, waveform, copies = getattr(self, how)(), waveform.to(dtype), []
        module.requested_backend, module._chosen = backend, {}
        to_host, convert = torch.Tensor.cpu, transform._converted
        with torch.inference_mode():
            expected = module(waveform)
            monkeypatch.setattr(torch.Tensor, "cpu", lambda t: copies.append("copy") or to_host(t))
            monkeypatch.setattr(transform, "_converted", lambda *a: copies.append("conversion") or convert(*a))
            assert torch.equal(module(waveform), expected)
            assert not copies
            module.mel_scale.fb.mul_(2.0)  # counted, under inference mode too
            torch.testing.assert_close(module(waveform), 2.0 * expected, rtol=1e-6, atol=0.0)  # rounded from here on
            assert "conversion" in copies

    def test_one_that_is_assigned_is_compared_by_value(self, waveform):
        module = MelSpectrogram.from_spec(SPEC)
        expected = module(waveform)
        with torch.inference_mode():
            module.mel_scale.fb = 2.0 * module.mel_scale.fb
            assert torch.equal(module(waveform), 2.0 * expected)
            module.mel_scale.fb.mul_(2.0)
            assert torch.equal(module(waveform), 4.0 * expected)


def _autograd_reference(waveform, window, filterbank):
    """The same mel in torch's own operations."""
    spectrum = torch.stft(waveform, SPEC.n_fft, SPEC.hop_length, window=window, return_complex=True)
    return torch.matmul(filterbank.T, spectrum.abs().square())


def _gradients(mel, *tensors):
    weights = torch.linspace(-1, 1, mel.numel()).reshape(mel.shape).to(mel.dtype)
    return torch.autograd.grad((mel * weights).sum(), tensors)


class TestGradients:
    @pytest.mark.parametrize("backend", ["auto", "matmul", "torchaudio"])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_window_and_filterbank_can_be_learned(self, backend, dtype, waveform):
        waveform = waveform.to(dtype)
        module = MelSpectrogram.from_spec(SPEC, backend=backend).to(dtype)
        module(waveform)  # what is kept from here has no gradient
        module.spectrogram.window.requires_grad_()
        module.mel_scale.fb.requires_grad_()
        buffers = (module.spectrogram.window, module.mel_scale.fb)
        for _ in range(2):  # and nothing is kept from a graph that is gone
            ours = _gradients(module(waveform), *buffers)
            theirs = _gradients(_autograd_reference(waveform, *buffers), *buffers)
            for actual, expected in zip(ours, theirs, strict=True):
                assert_close(actual.numpy(), expected.numpy(), **TOLERANCES[dtype])
        with torch.no_grad():
            assert not module(waveform).requires_grad

    def test_through_the_traced_operator(self, waveform):
        MelSpectrogram.from_spec(SPEC)
        fb = torch.from_numpy(SPEC.filterbank().T.copy()).float().requires_grad_()
        window, exact = torch.ones(128), (torch.ones(128).double(), torch.from_numpy(SPEC.filterbank()))
        mel = torch.ops.triadbench.mel(waveform, window, fb, *exact, SPEC.text, "auto", False)
        assert _gradients(mel, fb)[0].abs().sum() > 0

    def test_functional_call_takes_the_given_parameter(self, waveform):
        module = MelSpectrogram.from_spec(SPEC)
        module(waveform)
        fb = torch.nn.Parameter(2 * module.mel_scale.fb)
        mel = torch.func.functional_call(module, {"mel_scale.fb": fb}, (waveform,))
        assert mel.requires_grad
        assert_close(mel.detach().numpy(), 2 * module(waveform).numpy(), **TOLERANCES[torch.float32])

    def test_forward_mode(self, waveform):
        module = MelSpectrogram.from_spec(SPEC)
        fb = module.mel_scale.fb
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(fb, fb)
            mel = torch.func.functional_call(module, {"mel_scale.fb": dual}, (waveform,))
            primal, tangent = torch.autograd.forward_ad.unpack_dual(mel)
            assert_close(tangent.numpy(), primal.numpy(), **TOLERANCES[torch.float32])  # mel is linear in it

    @pytest.mark.parametrize("backend", ["numba", "reference"])
    def test_a_backend_without_gradient_refuses(self, backend, waveform):
        module = MelSpectrogram.from_spec(SPEC, backend=backend)
        module.mel_scale.fb.requires_grad_()
        with pytest.raises(RuntimeError, match=f"backend='{backend}' cannot compute this: it has no gradient"):
            module(waveform)
        with torch.no_grad():
            module(waveform)
