"""Every rival that is installed gives the mel it is timed for, from any batch; what it lacks it says."""

from __future__ import annotations

import dataclasses
import importlib.util
import shutil
import warnings

import pytest
import torch

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
        compute = rival.prepare(spec, waveform, 1)
        for _ in range(2):  # the second call finds its buffers used
            error = check(compute(), expected, rival)
        assert error["rms_relative"] < rival.tolerance and error["tolerance_reason"]


def test_the_gate_refuses_a_wrong_mel():
    rival, waveform = EVERY["torchaudio eager"], cases.make_waveform(1)
    expected = mel_reference.mel_spectrogram(waveform.numpy(), WHISPER)
    right = rival.prepare(WHISPER, waveform, 1)()
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
        assert rival.what and rival.threads and rival.tolerance <= 1e-4 and rival.tolerance_reason


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
            check(EVERY["torch by hand"].prepare(WHISPER, waveform, threads)(), expected, EVERY["torch by hand"])
    assert torch.is_grad_enabled()
