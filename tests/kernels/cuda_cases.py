"""Settings and clips for the CUDA kernel, and its run in the simulator; each case says which branch it reaches."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.kernels.inputs import TOLERANCES, noise, tilted_tones
from triadbench.kernels import CHORD, ORIGINAL, SPECS, WHISPER, MelSpec
from triadbench.kernels.mel_reference import mel_spectrogram

_PROGRAM = Path(__file__).with_name("cuda_simulation.py")
FLOAT32 = TOLERANCES["float32"]


@dataclasses.dataclass(frozen=True)
class Case:
    spec: MelSpec
    waveform: np.ndarray
    log: bool = False
    alteration: str | None = None
    arrays: tuple = ()  # (window, filterbank) in place of the spec's


def simulate(cases, folder):
    """name -> mel, all in one process of the simulator."""
    settings = {
        name: {"spec": case.spec.to_dict(), "log": case.log, "alteration": case.alteration}
        for name, case in cases.items()
    }
    arrays = {name: case.waveform for name, case in cases.items()}
    for name, case in cases.items():
        arrays |= {f"{name}/{key}": a for key, a in zip(("window", "filterbank"), case.arrays, strict=False)}
    request, answer = folder / "request.npz", folder / "answer.npz"
    np.savez(request, cases=json.dumps(settings), **arrays)
    command = [sys.executable, str(_PROGRAM), str(request), str(answer)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(answer) as made:
        return dict(made)


def reference_mel(case):
    window, filterbank = case.arrays or (None, None)
    return mel_spectrogram(case.waveform, case.spec, window=window, filterbank=filterbank, log=case.log)


# ---- against the reference

_SMALL = MelSpec(n_fft=32, n_mels=5)  # sizes that no branch depends on are small: compiling takes time
_replace = dataclasses.replace
AGAINST_REFERENCE = {
    "original_both_edges": Case(ORIGINAL, noise((1, 1500))),
    "original_three_clips_two_tiles": Case(_replace(ORIGINAL, hop_length=100), noise((3, 1501))),
    "chord_both_edges": Case(CHORD, noise((1, 4101))),
    "whisper_both_edges": Case(WHISPER, noise((3, 901))),
    "original_int16": Case(ORIGINAL, noise((2, 1400), "int16")),
    "int16_at_the_edges": Case(_SMALL, noise((2, 100), "int16")),
    "original_log": Case(ORIGINAL, noise((1, 1400)), log=True),
    "whisper_log_int16": Case(WHISPER, noise((1, 700), "int16"), log=True),
    "reflect_shortest": Case(_SMALL, noise((2, 17))),
    "circular": Case(_replace(_SMALL, pad_mode="circular"), noise((2, 301))),
    "circular_shortest": Case(_replace(_SMALL, pad_mode="circular"), noise((2, 16))),
    "constant_two_tiles": Case(_replace(_SMALL, pad_mode="constant"), noise((2, 701))),
    "constant_one_sample": Case(_replace(_SMALL, pad_mode="constant"), noise((2, 1))),
    "replicate": Case(_replace(_SMALL, pad_mode="replicate"), noise((2, 301))),
    "replicate_one_sample": Case(_replace(_SMALL, pad_mode="replicate"), noise((2, 1))),
    "pad_and_reflect": Case(_replace(_SMALL, pad=77), noise((2, 300))),
    "pad_and_circular": Case(_replace(_SMALL, pad=77, pad_mode="circular"), noise((2, 300))),
    "pad_makes_long_enough": Case(_replace(_SMALL, pad=8), noise((1, 1))),
    "pad_and_no_sample": Case(_replace(_SMALL, pad=70), noise((2, 0))),
    "pad_not_centred": Case(_replace(_SMALL, pad=30, center=False), noise((2, 301))),
    "not_centred": Case(_replace(_SMALL, center=False), noise((2, 301))),
    "not_centred_one_frame": Case(_replace(_SMALL, center=False), noise((2, 32))),
    "hop_above_n_fft": Case(_replace(_SMALL, hop_length=301), noise((2, 1000))),
    "hop_1": Case(_replace(_SMALL, hop_length=1), noise((1, 60))),
    "hop_not_a_divisor": Case(_replace(_SMALL, hop_length=9), noise((1, 500))),
    "window_shorter_odd_gap": Case(MelSpec(n_fft=32, win_length=13, n_mels=5), noise((1, 600))),
    "window_of_one": Case(MelSpec(n_fft=32, win_length=1, hop_length=3, n_mels=5), noise((1, 70))),
    "normalized_window": Case(_replace(_SMALL, win_length=25, normalized=True), noise((1, 300))),
    "normalized_frame_length": Case(_replace(_SMALL, normalized="frame_length"), noise((1, 300))),
    "magnitude": Case(_replace(_SMALL, power=1.0), noise((1, 300))),
    "other_power": Case(_replace(_SMALL, power=2.6), noise((1, 300))),
    "other_power_log": Case(_replace(_SMALL, power=1.7), noise((1, 300)), log=True),
    "empty_filters": Case(MelSpec(n_fft=32, n_mels=40), noise((1, 200))),
    "low_bins_alone": Case(MelSpec(n_fft=1000, f_max=900.0, n_mels=6), noise((1, 1600))),
    "every_bin_to_the_last": Case(_SMALL, noise((1, 200)), arrays=(np.ones(32), noise((5, 17), seed=1) ** 2)),
    "every_bin_three_passes": Case(
        MelSpec(n_fft=1000, n_mels=3), noise((1, 900)), arrays=(noise(1000, seed=2), noise((3, 501), seed=1) ** 2)
    ),
    "n_fft_1": Case(MelSpec(n_fft=1, hop_length=1, n_mels=1), noise((2, 5)), arrays=(np.ones(1), np.ones((1, 1)))),
    "n_fft_2": Case(MelSpec(n_fft=2, n_mels=2), noise((2, 7))),
    "n_fft_6_times_5": Case(MelSpec(n_fft=30, n_mels=3), noise((1, 100))),
    "n_fft_3_times_5": Case(MelSpec(n_fft=15, n_mels=3), noise((1, 100))),
    "n_fft_all_odd": Case(MelSpec(n_fft=405, n_mels=8), noise((1, 900))),
    "n_fft_odd_three_passes": Case(MelSpec(n_fft=3125, hop_length=4000, n_mels=8), noise((1, 4001))),
    "n_fft_two_frames_a_block": Case(MelSpec(n_fft=6000, n_mels=8, center=False), noise((1, 6000))),
    "many_filters_odd_three_passes": Case(MelSpec(n_fft=75, n_mels=3000), noise((1, 200))),
    "many_filters_two_frames_a_block": Case(MelSpec(n_fft=32, n_mels=5000), noise((1, 70))),
    "many_filters_one_frame_a_block": Case(MelSpec(n_fft=32, n_mels=9000), noise((1, 50))),
    "filters_that_overlap_twice": Case(
        MelSpec(n_fft=32, n_mels=3),
        noise((1, 200)),
        arrays=(np.ones(32), np.eye(3, 17) + np.eye(3, 17, 1) + np.eye(3, 17, 2)),
    ),
}


# ---- quiet bins: log mel of the filters that hold a tone, see gpu/test_mel_cuda.py

# Two to three times what the simulator gives; 1e-3 is what is asked for.
TONE_LIMITS = {"ORIGINAL": 4e-4, "WHISPER": 6e-4, "CHORD": 6e-4}


def tone_frames(spec, tilt_db):
    """Two frames' samples (1, n_fft + hop_length) of tilted tones, and the filters that hold one."""
    waveform, filters = tilted_tones(spec, tilt_db, spec.n_fft + spec.hop_length)
    return waveform[None], filters


_UNCENTRED = {name: _replace(spec, center=False) for name, spec in SPECS.items()}
TONES = {
    f"tones_{name}_{tilt}": Case(spec, tone_frames(spec, tilt)[0], log=True)
    for name, spec in _UNCENTRED.items()
    for tilt in (-80, 80)
}


# ---- what the tests on a GPU compute besides, all in float32: prebuild.py compiles it for machines that cannot

SIZES = [8, 60, 512, 1000, 2048, 6561, 8192, 16384, 20000]  # n_fft


def of_size(n_fft):
    return MelSpec(n_fft=n_fft, n_mels=16)


FEW_FILTERS = MelSpec(n_fft=60, n_mels=5)
BESIDE_A_CAPTURE = MelSpec(n_fft=90, n_mels=5)
ON_GPU = [*map(of_size, SIZES), FEW_FILTERS, BESIDE_A_CAPTURE]
