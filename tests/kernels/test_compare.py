"""The promise: the comparison accepts a right float32 answer and rejects every wrong one we could think of."""

import numpy as np
import pytest

from triadbench.kernels import ORIGINAL
from triadbench.kernels.compare import assert_close, compare
from triadbench.kernels.mel_reference import mel_spectrogram

# A float32 mel is right to a few 1e-7 of its peak; the wrong ones below are off by 1e-5 and more.
TOLERANCES = {"rtol_peak": 2e-6, "rtol_rms": 5e-7, "dtype": "float32"}


@pytest.fixture(scope="module")
def waveform():
    return np.random.default_rng(3).standard_normal((2, 16000)).astype(np.float32)


@pytest.fixture(scope="module")
def expected(waveform):
    return mel_spectrogram(waveform, ORIGINAL)


def _mel_float32(waveform, spectrum_of=lambda frames: np.fft.rfft(frames), start=0, window_dtype=np.float32):
    """A float32 mel in numpy, with a place for each mistake."""
    half = ORIGINAL.n_fft // 2
    x = np.pad(waveform, [(0, 0), (half, half)], mode="reflect")
    starts = np.arange(ORIGINAL.n_frames(waveform.shape[-1])) * ORIGINAL.hop_length
    frames = x[:, np.minimum(starts[:, None] + np.arange(ORIGINAL.n_fft) + start, x.shape[-1] - 1)]
    X = spectrum_of((frames * ORIGINAL.window_array().astype(window_dtype)).astype(np.float32))
    power_spectrogram = (np.abs(X) ** 2).astype(np.float32)
    return np.swapaxes(power_spectrogram @ ORIGINAL.filterbank().astype(np.float32).T, 1, 2)


def test_a_right_answer_passes(waveform, expected):
    result = assert_close(_mel_float32(waveform), expected, **TOLERANCES, atol_log=1e-4, log_eps=1e-10)
    assert result.passed
    assert 0 < result.rms_relative < 5e-7
    assert 0 < result.max_log_abs < 1e-4


def _truncated(frames):
    X = np.fft.rfft(frames)
    X[..., -1:] = 0  # drops the Nyquist bin
    X[..., -40:] = 0
    return X


WRONG = {
    "truncated_fft": {"spectrum_of": _truncated},
    "shorter_fft": {"spectrum_of": lambda f: np.repeat(np.fft.rfft(f[..., :512]), 2, axis=-1)[..., :513]},
    "shifted_frame": {"start": 1},
    "shifted_by_a_hop": {"start": ORIGINAL.hop_length},
    "mirrored_bin": {"spectrum_of": lambda f: np.fft.rfft(f)[..., ::-1]},
    "off_by_one_bin": {"spectrum_of": lambda f: np.roll(np.fft.rfft(f), 1, axis=-1)},
    "half_precision_window": {"window_dtype": np.float16},
    "half_precision_spectrum": {"spectrum_of": lambda f: np.fft.rfft(f.astype(np.float16)).astype(np.complex64)},
}


@pytest.mark.parametrize("mistake", WRONG.values(), ids=WRONG)
def test_wrong_answers_fail(waveform, expected, mistake):
    result = compare(_mel_float32(waveform, **mistake), expected, **TOLERANCES)
    assert not result.passed
    assert "above rtol_" in result.reason
    assert result.worst_index is not None


def test_mirror_bin_cancellation_fails_in_the_log_though_not_in_the_peak():
    """P[k] from sums and differences with its mirror P[N/2 - k]: invisible in linear figures, ruinous in log mel.

    Noise that falls by 80 dB to the top: float32 frames keep the quietest amplitude to 3e-4,
    cancellation loses its whole power.
    """
    spectrum = np.fft.rfft(np.random.default_rng(5).standard_normal(16000)) * 10 ** np.linspace(0, -4, 8001)
    waveform = np.fft.irfft(spectrum)[None].astype(np.float32)
    expected = mel_spectrogram(waveform, ORIGINAL)
    right = _mel_float32(waveform)

    def cancelling(frames):
        power = (np.abs(np.fft.rfft(frames)) ** 2).astype(np.float32)
        total, difference = power + power[..., ::-1], power - power[..., ::-1]
        return np.sqrt(np.maximum(0, (total + difference) / 2))

    wrong = _mel_float32(waveform, spectrum_of=cancelling)
    assert compare(wrong, expected, **TOLERANCES).passed
    log = {"atol_log": 3e-3, "log_eps": 1e-10, "dtype": "float32"}
    assert compare(right[..., 2:-2], expected[..., 2:-2], **log).passed  # reflection clicks at the edges
    result = compare(wrong[..., 2:-2], expected[..., 2:-2], **log)
    assert not result.passed
    assert "max_log_abs" in result.reason


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_non_finite_value_fails_on_either_side(expected, value):
    broken = expected.copy()
    broken[1, 7, 3] = value
    for actual, reference, name in ((broken, expected, "actual"), (expected, broken, "expected")):
        result = compare(actual, reference, rtol_peak=1e9)
        assert not result.passed
        assert result.reason == f"{name} has 1 NaN or infinite values"
        assert result.worst_index == (1, 7, 3)


def test_dtype_is_checked_before_shape_and_shape_before_values(expected):
    float32 = expected.astype(np.float32)
    assert compare(float32[..., 1:], expected, rtol_peak=1.0).reason == "dtype float32, expected float64"
    assert compare(expected, expected, rtol_peak=1.0, dtype="float32").reason == "dtype float64, expected float32"
    assert "shape (2, 64, 31), expected (2, 64, 32)" in compare(expected[..., 1:], expected, rtol_peak=1.0).reason
    assert "shape" in compare(expected[:1], expected, rtol_peak=1e9).reason  # would broadcast
    assert "shape" in compare(np.full(1, np.nan), expected, rtol_peak=1.0).reason


def test_errors_are_scaled_by_the_reference_never_by_the_result():
    assert compare(np.array([1e9]), np.array([1.0]), rtol_peak=1.0).peak_relative == pytest.approx(1e9)
    assert compare(np.array([0.0]), np.array([2.0]), rtol_peak=1.0).peak_relative == 1.0
    assert compare(np.array([1e-300]), np.array([0.0]), rtol_peak=1e9).peak_relative == np.inf
    assert compare(np.zeros(3), np.zeros(3), rtol_peak=0.0, rtol_rms=0.0).passed


def test_figures_and_worst_element():
    actual, expected = np.array([[3.0, 4.5], [0.0, 0.0]]), np.array([[3.0, 4.0], [0.0, 0.0]])
    result = compare(actual, expected, rtol_peak=0.1, rtol_rms=0.2)
    assert not result.passed
    assert result.reason == "peak_relative 0.125 above rtol_peak=0.1"
    assert (result.worst_index, result.worst_actual, result.worst_expected) == ((0, 1), 4.5, 4.0)
    assert (result.max_abs, result.peak_relative, result.rms_relative) == (0.5, 0.125, pytest.approx(0.1))
    assert "worst at (0, 1): actual 4.5, expected 4.0" in str(result)


def test_logs_given_as_logs():
    expected = np.log(np.array([1e-10, 1.0]))
    assert compare(expected + [1e-5, 0.0], expected, atol_log=1e-4).passed
    result = compare(expected + [1e-3, 0.0], expected, atol_log=1e-4)
    assert not result.passed
    assert result.max_log_abs == pytest.approx(1e-3)


def test_negative_power_fails_the_log_comparison():
    result = compare(np.array([-1.0, 1.0]), np.array([1.0, 1.0]), atol_log=1e9, log_eps=1e-10)
    assert "actual + log_eps=1e-10 must be above 0" in result.reason


def test_comparing_nothing_fails_unless_asked_for():
    empty = np.zeros((0, 64, 5))
    assert "nothing to compare" in compare(empty, empty, rtol_peak=1.0).reason
    assert compare(empty, empty, rtol_peak=1.0, allow_empty=True).passed
    assert not compare(empty, np.zeros((0, 64, 6)), rtol_peak=1.0, allow_empty=True).passed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "at least one tolerance"),
        ({"rtol_peak": float("nan")}, "rtol_peak=nan must be finite"),
        ({"rtol_rms": -1.0}, "rtol_rms=-1.0 must be finite and at least 0"),
        ({"rtol_peak": 1.0, "log_eps": 1e-10}, "needs atol_log"),
        ({"rtol_peak": 1.0, "atol_log": 1.0}, "need linear values"),
    ],
)
def test_a_comparison_that_could_not_fail_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        compare(np.ones(2), np.ones(2), **options)


def test_assert_close_tells_everything():
    with pytest.raises(AssertionError, match=r"case 7: FAILED: peak_relative 1 above .* worst at \(0,\)"):
        assert_close(np.array([2.0]), np.array([1.0]), rtol_peak=0.5, context="case 7")
