"""Every rival that is installed gives the mel it is timed for, from any batch; what it lacks it says."""

from __future__ import annotations

import dataclasses
import importlib.util
import shutil
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchaudio

from triadbench.bench import cases
from triadbench.bench.mel import rivals
from triadbench.bench.mel.measure import WrongResult, check
from triadbench.kernels import BACKENDS, SPECS, WHISPER, mel_reference

EVERY = rivals.all_rivals()
# It compiles for seconds and is checked in every profile: here on request.
CASES = [pytest.param(name, marks=pytest.mark.slow if rival.slow_start else ()) for name, rival in EVERY.items()]


@pytest.mark.filterwarnings("ignore")  # of other people's packages
@pytest.mark.parametrize("name", CASES)
def test_installed_rivals_are_right(name):
    rival = EVERY[name]
    reason = rival.why_not(WHISPER, "cpu")
    if reason:
        pytest.skip(f"{name}: {reason}")
    for spec in SPECS.values():
        waveform = cases.make_waveform(3)[:, :20_000].contiguous()
        expected = mel_reference.mel_spectrogram(waveform.numpy(), spec)
        compute = rival.prepare(spec, waveform.flip(0), 1)
        for places in (0, 1):  # the second call finds its buffers used
            error = check(compute(waveform.roll(places, 0)), np.roll(expected, places, 0), rival)
        assert error["rms_relative"] < rival.tolerance and error["tolerance_reason"]


def test_the_gate_refuses_a_wrong_mel():
    rival, waveform = EVERY["torchaudio eager"], cases.make_waveform(1)
    expected = mel_reference.mel_spectrogram(waveform.numpy(), WHISPER)
    right = rival.prepare(WHISPER, waveform, 1)(waveform)
    for wrong in (
        right.roll(1, -1),
        right.half().float(),
        torch.full_like(right, float("nan")),
        right.double(),
        right[:, :-1],
    ):
        with pytest.raises(WrongResult, match="^wrong: "):
            check(wrong, expected, rival)


def test_all_that_were_asked_for_have_an_adapter():
    wanted = {
        "torchaudio eager",
        "torchaudio compiled",
        "torchaudio TorchScript",
        "torch by hand",
        "librosa",
        "nnAudio",
        "DALI",
        "torchaudio eager, CUDA graph",
        "nvmath",
        "rocket-fft",
        *(f"ours: {name}" for name in BACKENDS),
    }
    assert wanted <= set(EVERY)
    for rival in EVERY.values():
        assert rival.what and rival.threads and rival.tolerance_reason
        assert (rival.tolerance > 1e-4) == rival.approximate == rival.name.startswith("MelT")


def test_what_is_missing_is_said(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert EVERY["nnAudio"].why_not(WHISPER, "cpu") == "not installed: nnAudio"
    monkeypatch.undo()
    assert EVERY["librosa"].why_not(WHISPER, "cuda") == "it has no cuda path"
    other = dataclasses.replace(WHISPER, pad_mode="constant", pad=3)
    assert EVERY["torch by hand"].why_not(other, "cpu") == "its adapter lacks pad=3, pad_mode='constant'"
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "C++ compiler" in EVERY["torchaudio compiled"].why_not(WHISPER, "cpu")
    assert EVERY["torchaudio compiled"].why_not(WHISPER, "cuda") is None


def test_ours_run_where_they_say(monkeypatch):
    monkeypatch.setattr("triadbench.kernels.cpu.mel_numba.why_unavailable", lambda: "no compiler")
    assert EVERY["ours: numba"].why_not(WHISPER, "cpu") == "no compiler"
    assert EVERY["ours: torchaudio"].why_not(WHISPER, "cpu") is None


def test_by_hand_handles_a_batch_that_its_chunks_do_not_divide():
    waveform = cases.make_waveform(7)[:, :4_000].contiguous()
    expected = mel_reference.mel_spectrogram(waveform.numpy(), WHISPER)
    with warnings.catch_warnings():
        for threads in (1, 2):
            compute = EVERY["torch by hand"].prepare(WHISPER, waveform, threads)
            check(compute(waveform), expected, EVERY["torch by hand"])
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("name", ["MelT", "MelT TF32"])
@pytest.mark.parametrize("spec", SPECS.values(), ids=list(SPECS))
def test_melt_samples_the_spectrum_at_the_middle_of_each_band(name, spec):
    time_s, band = np.arange(16_000) / spec.sample_rate, spec.n_mels // 2
    weight = spec.filterbank().sum(axis=1)
    tone = torch.from_numpy(np.sin(2 * np.pi * spec.mel_points()[band + 1] * time_s).astype(np.float32))[None]
    mel = EVERY[name].prepare(spec, tone, 1)(tone)
    assert mel.shape == (1, spec.n_mels, spec.n_frames(16_000)) and not torch.backends.cuda.matmul.allow_tf32
    inside = mel[0, :, 4:-4].numpy()
    assert (inside.mean(axis=1) / np.maximum(weight, 1e-3)).argmax() == band
    # |sum of w sin exp(-i...)|^2 at the tone's own frequency: (sum of w / 2)^2.
    assert inside[band] == pytest.approx((spec.window_array().sum() / 2) ** 2 * weight[band], rel=1e-2)


def test_other_values_are_not_wrong_and_nan_is():
    rival, waveform = EVERY["MelT"], cases.make_waveform(1)
    expected = mel_reference.mel_spectrogram(waveform.numpy(), WHISPER)
    mel = rival.prepare(WHISPER, waveform, 1)(waveform)
    error = check(mel, expected, rival)
    assert error["rms_relative"] > 0.1 and error["tolerance"] is None
    with pytest.raises(WrongResult, match="NaN"):
        check(mel.new_full(mel.shape, float("nan")), expected, rival)


@pytest.mark.parametrize("error", [1.0, float("nan"), float("inf")])
def test_of_a_large_batch_the_worst_clips_are_compared(error):
    rival, expected = EVERY["torchaudio eager"], torch.rand(20, 3, 5, dtype=torch.float64)
    mel = expected.float()
    check(mel, expected, rival, clips=2)
    mel[13, 2, 4] += error
    with pytest.raises(WrongResult):
        check(mel, expected, rival, clips=2)
    with pytest.raises(WrongResult, match="shape"):
        check(mel[:, :, :4], expected, rival, clips=2)


# ---- adapters of packages that may be missing: a stand-in of the package computes what the adapter asks it for


class FakeFFT:
    """nvmath.fft.FFT."""

    def __init__(self, operand, axes=None, execution=None):
        self.operand = operand

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def plan(self):
        return None

    def reset_operand(self, operand):
        self.operand = operand

    def execute(self):
        return torch.fft.rfft(self.operand)


def fake_nnaudio(*, sr, n_fft, win_length, hop_length, n_mels, fmin, fmax, htk, norm, power, **fixed):
    assert fixed == {"window": "hann", "center": True, "pad_mode": "reflect", "verbose": False}
    scale = {"mel_scale": "htk" if htk else "slaney", "norm": "slaney" if norm == 1 else None, "power": power}
    sizes = {"n_fft": n_fft, "win_length": win_length, "hop_length": hop_length, "n_mels": n_mels}
    return torchaudio.transforms.MelSpectrogram(sr, f_min=fmin, f_max=fmax, **sizes, **scale)


class FakeDali:
    """nvidia.dali: a pipeline that is evaluated when it runs, and its three operators."""

    def __init__(self, graph):
        self.graph = graph

    def build(self):
        return None

    def run(self):
        return [SimpleNamespace(as_tensor=self.graph)]

    @staticmethod
    def pipeline_def(batch_size, num_threads, device_id, **execution):
        assert device_id is None and not any(execution[name] for name in ("exec_pipelined", "exec_async"))
        return lambda graph: lambda: FakeDali(graph)

    @staticmethod
    def external_source(source, **how):
        return torch.from_numpy(source())

    @staticmethod
    def spectrogram(signal, *, nfft, window_length, window_step, window_fn, center_windows, reflect_padding, power):
        assert center_windows and reflect_padding
        window = torch.tensor(window_fn)
        return torch.stft(signal, nfft, window_step, window_length, window, return_complex=True).abs() ** power

    @staticmethod
    def mel_filter_bank(power, *, sample_rate, nfilter, freq_low, freq_high, mel_formula, normalize):
        norm = "slaney" if normalize else None
        sizes = {"n_freqs": power.shape[1], "n_mels": nfilter, "sample_rate": int(sample_rate)}
        filters = torchaudio.functional.melscale_fbanks(
            f_min=freq_low, f_max=freq_high, norm=norm, mel_scale=mel_formula, **sizes
        )
        return (power.transpose(1, 2) @ filters).transpose(1, 2).numpy()


@pytest.mark.parametrize("name", ["nnAudio", "DALI", "nvmath"])
@pytest.mark.parametrize("spec", SPECS.values(), ids=list(SPECS))
def test_an_adapter_asks_its_package_for_the_right_mel(name, spec, monkeypatch):
    fft = SimpleNamespace(FFT=FakeFFT, ExecutionCPU=lambda num_threads: None)
    modules = {
        "nvmath": SimpleNamespace(fft=fft),
        "nvmath.fft": fft,
        "nnAudio": SimpleNamespace(),
        "nnAudio.features": SimpleNamespace(MelSpectrogram=fake_nnaudio),
        "nvidia": SimpleNamespace(),
        "nvidia.dali": SimpleNamespace(fn=FakeDali, pipeline_def=FakeDali.pipeline_def),
    }
    for module, fake in modules.items():
        monkeypatch.setitem(sys.modules, module, fake)
    rival = dataclasses.replace(EVERY[name], modules=())
    rivals.why_no_nvmath_fft.cache_clear()
    assert rival.why_not(spec, "cpu") is None
    waveform = cases.make_waveform(3)[:, :20_000].contiguous()
    compute = rival.prepare(spec, torch.zeros_like(waveform), 1)
    check(compute(waveform), mel_reference.mel_spectrogram(waveform.numpy(), spec), rival)
    rivals.why_no_nvmath_fft.cache_clear()


def test_an_fft_that_cannot_be_planned_is_named(monkeypatch):
    def broken(*arguments, **options):
        raise RuntimeError("no MKL. And no NVPL.")

    fft = SimpleNamespace(FFT=broken)
    monkeypatch.setitem(sys.modules, "nvmath", SimpleNamespace(fft=fft))
    monkeypatch.setitem(sys.modules, "nvmath.fft", fft)
    rivals.why_no_nvmath_fft.cache_clear()
    assert rivals.why_no_nvmath_fft("cpu") == "no FFT for the CPU: no MKL; nvmath.device needs a GPU"
    assert rivals.why_no_nvmath_fft("cuda") is None
    rivals.why_no_nvmath_fft.cache_clear()
