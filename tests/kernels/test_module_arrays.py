"""The promise: whatever window and filterbank a module holds, they are computed with, differentiated, or refused."""

import dataclasses

import numpy as np
import pytest
import torch

from kernels import MelSpec, MelSpectrogram, mel_matmul, mel_numba
from kernels.compare import assert_close

SPEC = MelSpec(n_fft=128, n_mels=8)
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
        window, fb = torch.ones(128), torch.ones(8, 65)
        with pytest.raises(ValueError, match=r"filterbank shape=\(7, 201\)"):
            operator(waveform, window, torch.ones(7, 201), SPEC.text, None)
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
