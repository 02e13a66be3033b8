"""The promise: the CPU kernel on NumPy arrays gives the torch module's bits, in a process that never imports torch."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from triadbench.kernels import CHORD, ORIGINAL, WHISPER, MelSpec, MelSpectrogram
from triadbench.kernels.cpu import machine_code
from triadbench.kernels.cpu import numpy_entry as numpy_mel

ROOT = Path(__file__).resolve().parents[3]
SPECS = {
    "original": ORIGINAL,
    "chord": CHORD,
    "whisper": WHISPER,
    "hamming_magnitude": MelSpec(n_fft=60, hop_length=17, n_mels=8, window="hamming", power=1.0, normalized=True),
    "prime": MelSpec(n_fft=77, n_mels=8, center=False),
}


def _noise(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("name", SPECS)
def test_the_bits_of_the_torch_module(name, log):
    spec, waveforms = SPECS[name], _noise((3, 9000))
    expected = MelSpectrogram.from_spec(spec, backend="numba", log=log)(torch.from_numpy(waveforms)).numpy()
    mel = numpy_mel.mel(waveforms, spec, log=log)
    assert mel.dtype == np.float32 and mel.flags.c_contiguous
    assert np.array_equal(mel, expected) and not np.array_equal(mel, np.zeros_like(mel))


@pytest.mark.parametrize(("batch", "time"), [(1, 64000), (17, 20000), (1, 4096)])
def test_any_number_of_threads_gives_the_same_bits(batch, time):
    waveforms = _noise((batch, time))
    alone = numpy_mel.mel(waveforms, CHORD, log=True)
    for threads in (2, 3, 5):
        assert np.array_equal(numpy_mel.mel(waveforms, CHORD, log=True, threads=threads), alone)


def test_arrays_that_are_no_plain_memory():
    wide = _noise((6, 2 * 9000))
    view = wide[::2, ::2]
    locked = np.ascontiguousarray(view)
    locked.flags.writeable = False
    bytes_off = np.frombuffer(b"x" + locked.tobytes(), np.uint8)[1:].view(np.float32).reshape(locked.shape)
    expected = numpy_mel.mel(view.copy(), ORIGINAL, log=True)
    for array in (view, locked, bytes_off, np.asfortranarray(view)):
        assert np.array_equal(numpy_mel.mel(array, ORIGINAL, log=True), expected)


def test_no_clip_and_no_sample():
    assert numpy_mel.mel(_noise((0, 9000)), CHORD, log=True).shape == (0, 192, 9)
    with pytest.raises(ValueError, match="n_samples=0"):
        numpy_mel.mel(_noise((1, 0)), CHORD, log=True)


@pytest.mark.parametrize(
    ("waveforms", "threads", "error", "message"),
    [
        (np.zeros((1, 9000)), 1, TypeError, r"dtype=float64 must be float32"),
        (np.zeros((1, 9000), ">f4"), 1, TypeError, r"dtype=>f4 must be float32"),
        (np.zeros((1, 9000), np.int16), 1, TypeError, r"dtype=int16 must be float32"),
        (np.zeros(9000, np.float32), 1, ValueError, r"shape=\(9000,\) must be \(batch, time\)"),
        (np.zeros((1, 9000), np.float32), 0, ValueError, r"threads=0 must be at least 1"),
    ],
)
def test_what_is_refused(waveforms, threads, error, message):
    with pytest.raises(error, match=message):
        numpy_mel.mel(waveforms, CHORD, log=True, threads=threads)


def test_callers_at_the_same_time():
    waveforms = [_noise((3, 16000), seed) for seed in range(4)]
    expected = [numpy_mel.mel(waveform, CHORD, log=True) for waveform in waveforms]
    with ThreadPoolExecutor(6) as callers:
        jobs = [(i, callers.submit(numpy_mel.mel, waveforms[i], CHORD, log=True, threads=2)) for i in [0, 1, 2, 3] * 10]
        for i, job in jobs:
            assert np.array_equal(job.result(), expected[i])


def test_why_unavailable(monkeypatch):
    assert numpy_mel.why_unavailable(CHORD) is None
    assert "has the prime factor 1031" in numpy_mel.why_unavailable(MelSpec(n_fft=2062))
    assert "no formula" in numpy_mel.why_unavailable(MelSpec(window="custom"))
    monkeypatch.setattr(numpy_mel.importlib.util, "find_spec", lambda name: None)
    assert numpy_mel.why_unavailable(CHORD) == "numba is not installed; pip install numba"


ALONE = """
import sys
import numpy as np
from triadbench.kernels import CHORD
from triadbench.kernels.cpu import numpy_entry as numpy_mel
from triadbench.kernels.cpu import machine_code
waveforms = np.random.default_rng(0).standard_normal((8, 64000)).astype(np.float32)
who, run = [], machine_code.run_on_pool
machine_code.run_on_pool = lambda *arguments: who.append(run(*arguments))
numpy_mel.mel(waveforms[:1], CHORD, log=True, threads=2)  # too little to wake anyone
mel = numpy_mel.mel(waveforms, CHORD, log=True, threads=2)
print(*sorted({"torch", "numba", "scipy", "onnx", "onnxruntime"} & set(sys.modules)), who, machine_code._openmp.cache_info().currsize)
sys.stdout.flush()
import torch
from triadbench.kernels import MelSpectrogram
torch.set_num_threads(2)
module = MelSpectrogram.from_spec(CHORD, backend="numba", log=True)
print(np.array_equal(module(torch.from_numpy(waveforms)).numpy(), mel))
print(machine_code._openmp() is not None)
"""


def test_a_process_without_torch_and_numba():
    """And torch that comes later finds its own threads all the same."""
    numpy_mel.load(CHORD)  # the machine code is on the disk from here on
    done = subprocess.run([sys.executable, "-c", ALONE], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["['pool'] 0", "True", str(machine_code._openmp() is not None)]
