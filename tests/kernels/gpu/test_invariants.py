"""The promise: the CUDA kernel, in the simulator, keeps what any mel keeps: silence, impulses, tones, gain, shifts."""

import numpy as np
import pytest

from tests.kernels.cuda_cases import Case, simulate
from tests.kernels.inputs import noise
from triadbench.kernels import ORIGINAL, WHISPER
from triadbench.kernels.compare import assert_close


def _impulse():
    waveform = np.zeros((1, 3000), np.float32)
    waveform[0, 1024 + 100] = 3.0
    return waveform


def _tone(k):
    return (0.5 * np.sin(2 * np.pi * k * np.arange(3072) / 1024)).astype(np.float32)[None]


_CLIPS = noise((3, 700), seed=5)
INVARIANTS = {
    "silence": Case(ORIGINAL, np.zeros((1, 1100), np.float32)),
    "silence_log": Case(ORIGINAL, np.zeros((1, 1100), np.float32), log=True),
    "impulse": Case(ORIGINAL, _impulse()),
    "tone_20": Case(ORIGINAL, _tone(20)),
    "tone_400": Case(ORIGINAL, _tone(400)),
    "gain_1": Case(WHISPER, _CLIPS),
    "gain_2": Case(WHISPER, 2 * _CLIPS),
    "alone": Case(WHISPER, _CLIPS[1:2]),
    "shifted": Case(WHISPER, _CLIPS[:1, 160:]),
    "int16": Case(WHISPER, noise((1, 700), "int16")),
    "int16_as_float": Case(WHISPER, noise((1, 700), "int16").astype(np.float32) / 32768),
}


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    return simulate(INVARIANTS, tmp_path_factory.mktemp("simulator"))


class TestInvariants:
    def test_silence(self, simulated):
        assert (simulated["silence"] == 0.0).all()
        assert_close(simulated["silence_log"], np.full((1, 64, 3), np.log(1e-10)), atol_log=2e-6, dtype="float32")

    def test_impulse_gives_the_filters_sums(self, simulated):
        expected = ORIGINAL.filterbank().sum(axis=1) * (3.0 * ORIGINAL.window_array()[512 + 100]) ** 2
        assert_close(simulated["impulse"][0, :, 2], expected, rtol_peak=1e-6, dtype="float32")

    @pytest.mark.parametrize("k", [20, 400])
    def test_bin_centred_tone(self, simulated, k):
        """Amplitude a at bin k: |X| is a n_fft / 4 there, half of it beside (Hann), and 0 elsewhere."""
        power = np.zeros(513)
        power[k - 1 : k + 2] = (0.5 * 1024 / 4) ** 2 * np.array([0.25, 1.0, 0.25])
        expected = ORIGINAL.filterbank() @ power
        assert_close(simulated[f"tone_{k}"][0, :, 2], expected, rtol_peak=1e-6, dtype="float32")

    def test_doubled_gain_is_exactly_four_times_the_power(self, simulated):
        np.testing.assert_array_equal(simulated["gain_2"], 4 * simulated["gain_1"])

    def test_a_clip_does_not_depend_on_its_batch(self, simulated):
        np.testing.assert_array_equal(simulated["alone"][0], simulated["gain_1"][1])

    def test_shift_by_one_hop_shifts_the_frames(self, simulated):
        shifted, plain = simulated["shifted"][0], simulated["gain_1"][0]
        assert_close(shifted[:, 2:], plain[:, 3:].astype(np.float64), rtol_peak=1e-6, dtype="float32")

    def test_int16_is_full_scale_32768(self, simulated):
        np.testing.assert_array_equal(simulated["int16"], simulated["int16_as_float"])
