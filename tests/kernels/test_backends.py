"""The promise: every backend gives the reference's numbers, for every setting, shape and dtype it accepts.

Tolerances: float64 sums of up to 512 products agree to a few 1e-14 of the peak; float32 FFTs, powers and sums to a few
1e-7. Power 0.5 takes the root of an amplitude error of 1e-7 near zero: 3e-4 of the peak bounds it, 1e-8 in float64.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels.inputs import TOLERANCES, noise, specs
from triadbench.kernels import CHORD, ORIGINAL, WHISPER, MelSpec, MelSpectrogram
from triadbench.kernels.compare import assert_close
from triadbench.kernels.cpu.plan import LARGEST_PRIME
from triadbench.kernels.mel_reference import mel_spectrogram
from triadbench.kernels.spec import largest_prime

BACKENDS = ["torchaudio", "numba", "matmul"]  # every backend but the definition


def _check(spec, waveform, backend, **tolerances):
    mel = MelSpectrogram.from_spec(spec, backend=backend)(torch.from_numpy(waveform))
    out = "float64" if waveform.dtype == np.float64 else "float32"
    assert_close(mel.numpy(), mel_spectrogram(waveform, spec), dtype=out, **(tolerances or TOLERANCES[out]))


# name -> (spec, time): the branch that each case reaches
CASES = {
    "original": (ORIGINAL, 5000),
    "chord": (CHORD, 5000),
    "whisper": (WHISPER, 5000),
    "n_fft_odd": (MelSpec(n_fft=301, n_mels=10), 1000),
    "n_fft_prime": (MelSpec(n_fft=257, hop_length=64, n_mels=12), 1001),
    "n_fft_1": (MelSpec(n_fft=1, hop_length=1, n_mels=1), 5),
    "n_fft_2": (MelSpec(n_fft=2, n_mels=2), 7),
    "window_shorter_odd_gap": (MelSpec(n_fft=256, win_length=101, n_mels=12), 1000),
    "window_of_one": (MelSpec(n_fft=64, win_length=1, hop_length=3, n_mels=5), 200),
    "hop_above_window": (MelSpec(n_fft=128, hop_length=301, n_mels=8), 1000),
    "hop_1": (MelSpec(n_fft=32, hop_length=1, n_mels=4), 100),
    "not_centred": (MelSpec(n_fft=128, center=False, n_mels=8), 1000),
    "not_centred_one_frame": (MelSpec(n_fft=128, center=False, n_mels=8), 128),
    "constant": (MelSpec(n_fft=128, pad_mode="constant", n_mels=8), 300),
    "replicate": (MelSpec(n_fft=128, pad_mode="replicate", n_mels=8), 300),
    "circular": (MelSpec(n_fft=128, pad_mode="circular", n_mels=8), 300),
    "reflect_shortest": (MelSpec(n_fft=128, n_mels=8), 65),
    "circular_shortest": (MelSpec(n_fft=128, pad_mode="circular", n_mels=8), 64),
    "constant_one_sample": (MelSpec(n_fft=128, pad_mode="constant", n_mels=8), 1),
    "replicate_one_sample": (MelSpec(n_fft=128, pad_mode="replicate", n_mels=8), 1),
    "pad": (MelSpec(n_fft=128, pad=77, n_mels=8), 300),
    "pad_makes_long_enough": (MelSpec(n_fft=128, pad=33, n_mels=8), 1),
    "normalized_window": (MelSpec(n_fft=128, win_length=100, normalized=True, n_mels=8), 300),
    "normalized_frame_length": (MelSpec(n_fft=128, win_length=100, normalized="frame_length", n_mels=8), 300),
    "power_1": (MelSpec(n_fft=128, power=1.0, n_mels=8), 300),
    "power_3": (MelSpec(n_fft=128, power=3.0, n_mels=8), 300),
    "blackman": (MelSpec(n_fft=128, window="blackman", n_mels=8), 300),
    "empty_filters": (MelSpec(n_fft=64, n_mels=80), 300),
}


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16"])
@pytest.mark.parametrize(("spec", "time"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_backend_against_reference(backend, spec, time, dtype):
    _check(spec, noise((2, time), dtype), backend)


@pytest.mark.parametrize("backend", BACKENDS)
@given(
    specs(st.integers(2, 300), usual=False, powers=(1.0, 2.0, 1.7)),
    st.integers(1, 700),
    st.sampled_from([(), (1,), (3,), (2, 1, 2)]),
    st.integers(0, 99),
)
@settings(max_examples=150, deadline=None, derandomize=True, database=None)
def test_backend_against_reference_over_settings(backend, spec, time, leading, seed):
    waveform = noise((*leading, time), "float64", seed)
    try:
        n_frames = spec.n_frames(time)
    except ValueError:
        # Too short by our rule: torchaudio's own path must refuse it as well, so the rule is never too strict.
        import torchaudio

        with pytest.raises(RuntimeError):
            torchaudio.functional.spectrogram(
                torch.from_numpy(waveform),
                spec.pad,
                torch.ones(spec.win_length, dtype=torch.float64),
                spec.n_fft,
                spec.hop_length,
                spec.win_length,
                spec.power,
                spec.normalized,
                spec.center,
                spec.pad_mode,
            )
        return
    if backend == "numba" and largest_prime(spec.n_fft) > LARGEST_PRIME:
        with pytest.raises(RuntimeError, match=f"n_fft={spec.n_fft} has the prime factor"):
            MelSpectrogram.from_spec(spec, backend=backend)
        return
    mel = MelSpectrogram.from_spec(spec, backend=backend)(torch.from_numpy(waveform)).numpy()
    assert mel.shape == (*leading, spec.n_mels, n_frames)
    assert_close(mel, mel_spectrogram(waveform, spec), **TOLERANCES["float64"])


@pytest.mark.parametrize("backend", [*BACKENDS, "reference"])
def test_power_below_one(backend):
    spec = MelSpec(n_fft=128, power=0.5, n_mels=8)
    _check(spec, noise((2, 300)), backend, rtol_peak=3e-4, rtol_rms=1e-4)
    _check(spec, noise((2, 300), "float64"), backend, rtol_peak=1e-8, rtol_rms=1e-8)


def test_the_reference_module_is_the_reference_rounded_once():
    waveform = noise((2, 3, 5000))
    mel = MelSpectrogram.from_spec(WHISPER, backend="reference")(torch.from_numpy(waveform)).numpy()
    assert np.array_equal(mel, mel_spectrogram(waveform, WHISPER).astype(np.float32))
    log_mel = MelSpectrogram.from_spec(WHISPER, backend="reference", log=True)(torch.from_numpy(waveform)).numpy()
    assert np.array_equal(log_mel, mel_spectrogram(waveform, WHISPER, log=True).astype(np.float32))


def test_reference_by_the_formula_one_bin_at_a_time():
    """No FFT, no stride: sums as on paper, for one small spec."""
    spec = MelSpec(sample_rate=100, n_fft=12, win_length=9, hop_length=5, n_mels=3)
    x = noise(30, "float64")
    window = np.zeros(12)
    window[1:10] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(9) / 9)
    mel = mel_spectrogram(x, spec)
    assert mel.shape == (3, 7)
    for t in range(7):
        power = np.zeros(7)
        for k in range(7):
            total = 0j
            for n in range(12):
                i = abs(5 * t + n - 6)  # reflection at the start, then at the end
                total += window[n] * x[i if i < 30 else 58 - i] * np.exp(-2j * np.pi * k * n / 12)
            power[k] = abs(total) ** 2
        np.testing.assert_allclose(mel[:, t], spec.filterbank() @ power, rtol=1e-12)


@pytest.mark.parametrize("backend", [*BACKENDS, "reference"])
class TestInvariants:
    @pytest.mark.parametrize("log", [False, True])
    def test_silence(self, backend, log):
        mel = MelSpectrogram.from_spec(ORIGINAL, backend=backend, log=log)(torch.zeros(2, 4000))
        expected = np.full((2, 64, 8), np.log(1e-10) if log else 0.0)
        np.testing.assert_array_equal(mel.numpy(), expected.astype(np.float32))

    def test_impulse_gives_the_filters_sums(self, backend):
        """|X[k]|^2 = w[n]^2 at every bin: each mel is its filter's sum times the window's square there."""
        waveform = torch.zeros(4096)
        waveform[2048 + 100] = 3.0
        mel = MelSpectrogram.from_spec(ORIGINAL, backend=backend)(waveform)[:, 4].numpy()
        expected = ORIGINAL.filterbank().sum(axis=1) * (3.0 * ORIGINAL.window_array()[512 + 100]) ** 2
        assert_close(mel, expected, rtol_peak=1e-6, dtype="float32")

    @pytest.mark.parametrize("k", [20, 128, 400])
    def test_bin_centred_tone(self, backend, k):
        """Amplitude a at bin k: |X| is a n_fft / 4 there, half of it beside (Hann), and 0 elsewhere."""
        amplitude = 0.5
        waveform = amplitude * torch.sin(2 * torch.pi * k * torch.arange(8192, dtype=torch.float64) / 1024)
        mel = MelSpectrogram.from_spec(ORIGINAL, backend=backend)(waveform)[:, 4].numpy()
        power = np.zeros(513)
        power[k - 1 : k + 2] = (amplitude * 1024 / 4) ** 2 * np.array([0.25, 1.0, 0.25])
        assert_close(mel, ORIGINAL.filterbank() @ power, rtol_peak=1e-12)

    def test_doubled_gain_is_exactly_four_times_the_power(self, backend):
        module, waveform = MelSpectrogram.from_spec(ORIGINAL, backend=backend), torch.from_numpy(noise((2, 4000)))
        np.testing.assert_array_equal(module(2 * waveform).numpy(), 4 * module(waveform).numpy())

    def test_a_clip_does_not_depend_on_its_batch(self, backend):
        module, waveform = MelSpectrogram.from_spec(WHISPER, backend=backend), torch.from_numpy(noise((5, 4000)))
        batch = module(waveform).numpy()
        for i in range(5):
            assert_close(module(waveform[i]).numpy(), batch[i].astype(np.float64), rtol_peak=1e-6, dtype="float32")

    def test_shift_by_one_hop_shifts_the_frames(self, backend):
        module, waveform = MelSpectrogram.from_spec(ORIGINAL, backend=backend), torch.from_numpy(noise(8000))
        a, b = module(waveform).numpy(), module(waveform[512:]).numpy()
        assert_close(b[:, 1:12], a[:, 2:13].astype(np.float64), rtol_peak=1e-6, dtype="float32")

    def test_int16_is_full_scale_32768(self, backend):
        module = MelSpectrogram.from_spec(ORIGINAL, backend=backend)
        waveform = torch.from_numpy(noise((2, 4000), "int16"))
        np.testing.assert_array_equal(module(waveform).numpy(), module(waveform.float() / 32768).numpy())

    def test_layouts(self, backend):
        module, waveform = MelSpectrogram.from_spec(WHISPER, backend=backend), torch.from_numpy(noise((4, 3, 2000)))
        for view in (waveform.transpose(0, 1), waveform[:, :, ::2], waveform[:1].expand(5, 3, 2000), waveform[1, 2]):
            assert_close(
                module(view).numpy(), mel_spectrogram(view.numpy(), WHISPER), dtype="float32", **TOLERANCES["float32"]
            )

    @pytest.mark.parametrize("shape", [(0, 4000), (2, 0, 4000)])
    def test_empty_batch(self, backend, shape):
        for dtype in (torch.float32, torch.int16, torch.float64):
            out = torch.float64 if dtype == torch.float64 else torch.float32
            mel = MelSpectrogram.from_spec(ORIGINAL, backend=backend)(torch.zeros(shape, dtype=dtype))
            assert (mel.shape, mel.dtype) == ((*shape[:-1], 64, 8), out)
        assert mel_spectrogram(np.zeros(shape), ORIGINAL).shape == (*shape[:-1], 64, 8)


@pytest.mark.parametrize("backend", ["torchaudio", "matmul"])
def test_gradient_flows(backend):
    spec = MelSpec(n_fft=16, n_mels=3, f_max=8000.0)
    module = MelSpectrogram.from_spec(spec, backend=backend, log=True)
    waveform = torch.from_numpy(noise((2, 40), "float64")).requires_grad_()
    assert torch.autograd.gradcheck(module, (waveform,))


def test_reference_refuses_what_it_lacks():
    module = MelSpectrogram.from_spec(ORIGINAL, backend="reference")
    waveform = torch.zeros(4000, requires_grad=True)
    with pytest.raises(
        RuntimeError, match="'reference' cannot compute this: it has no gradient; backends that can: matmul, torch"
    ):
        module(waveform)
    with torch.no_grad():
        assert module(waveform).shape == (64, 8)
    with pytest.raises(TypeError, match="waveform dtype=int32 must be float32, float64 or int16"):
        mel_spectrogram(np.zeros(4000, np.int32), ORIGINAL)
    with pytest.raises(ValueError, match=r"window shape=\(3,\) must be \(1024,\)"):
        mel_spectrogram(np.zeros(4000), ORIGINAL, window=np.ones(3))
    with pytest.raises(ValueError, match=r"filterbank shape=\(513, 64\) must be \(64, 513\)"):
        mel_spectrogram(np.zeros(4000), ORIGINAL, filterbank=ORIGINAL.filterbank().T)
    with pytest.raises(ValueError, match=r"waveform shape=\(\) must be"):
        mel_spectrogram(np.float64(3), ORIGINAL)
