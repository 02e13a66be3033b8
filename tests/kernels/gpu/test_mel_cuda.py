"""The promise: the CUDA kernel gives the reference's numbers for every setting, on every machine in the simulator; the
same on a GPU in test_on_gpu.py, what it refuses in test_refusals.py.

Tolerances: float32 FFTs, powers and sums agree with float64 to a few 1e-7; for log mel see TestTiltedTones.
"""

import dataclasses

import numpy as np
import pytest

from tests.kernels.cuda_cases import (
    AGAINST_REFERENCE,
    FLOAT32,
    TONE_LIMITS,
    TONES,
    Case,
    reference_mel,
    simulate,
    tone_frames,
)
from tests.kernels.inputs import noise
from triadbench.kernels import SPECS, MelSpec
from triadbench.kernels.compare import assert_close, compare
from triadbench.kernels.gpu import plan as cuda_plan

ALTERATIONS = [
    "truncated_transform",
    "shifted_frame",
    "mirrored_bin",
    "untwiddled",
    "half_precision_sums",
    "half_precision_powers",
    "packed_bins_not_taken_apart",
    "packed_residues_alone",
    "lost_frames",
    "no_barriers",
    "lost_falls",
]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    return simulate(AGAINST_REFERENCE | TONES | WRONG, tmp_path_factory.mktemp("simulator"))


# ---- against the reference


@pytest.mark.parametrize("name", AGAINST_REFERENCE)
def test_simulator_against_reference(simulated, name):
    case = AGAINST_REFERENCE[name]
    tolerances = {"atol_log": 2e-5} if case.log else FLOAT32
    assert_close(simulated[name], reference_mel(case), context=name, dtype="float32", **tolerances)


def _random_cases(count, seed):
    draw = np.random.default_rng(seed)
    smooth = [n for n in range(2, 700) if cuda_plan.why_not(n) is None]
    cases = {}
    while len(cases) < count:
        n_fft = int(draw.choice(smooth))
        spec = MelSpec(
            n_fft=n_fft,
            win_length=int(draw.integers(2, n_fft + 1)),
            hop_length=int(draw.integers(n_fft // 4 + 1, 2 * n_fft)),
            f_min=float(draw.choice([0.0, 1500.0])),
            f_max=[None, 3000.0][draw.integers(2)],
            n_mels=int(draw.integers(1, 24)),
            power=float(draw.choice([1.0, 2.0, 1.7])),
            pad=int(draw.choice([0, 5, 200])),
            center=bool(draw.integers(2)),
            pad_mode=str(draw.choice(["reflect", "constant", "replicate", "circular"])),
            normalized=[False, True, "frame_length"][draw.integers(3)],
        )
        waveform = noise(
            (int(draw.choice([1, 2])), int(draw.integers(1, 1200))), str(draw.choice(["float32", "int16"]))
        )
        try:
            spec.n_frames(waveform.shape[1])
        except ValueError:
            continue
        cases[f"random_{len(cases)}"] = Case(spec, waveform)
    return cases


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_simulator_over_random_settings(tmp_path, seed):
    cases = _random_cases(40, seed)
    made = simulate(cases, tmp_path)
    for name, case in cases.items():
        assert_close(made[name], reference_mel(case), context=str(case.spec), dtype="float32", **FLOAT32)


# ---- quiet bins


class TestTiltedTones:
    """Tones in the middle of filters at least four bins apart, amplitudes falling or rising by 80 dB in all: the filters
    that hold one are compared, in log mel. A float32 transform leaves noise of about 6e-9 of the loudest tone, 6e-5 of
    the quietest, 1e-4 in its log power, and a few times that in the worst bin. Powers from sums and differences
    leave 6e-8 of the *mirror* bin's power, which breaks it by far (see test_mel_numba.py).
    """

    @pytest.mark.parametrize("tilt_db", [-80, 80])
    @pytest.mark.parametrize("name", SPECS)
    def test_log_mel(self, simulated, name, tilt_db):
        case = TONES[f"tones_{name}_{tilt_db}"]
        filters = tone_frames(case.spec, tilt_db)[1]
        assert len(filters) > 20
        actual = simulated[f"tones_{name}_{tilt_db}"]
        assert_close(actual[:, filters], reference_mel(case)[:, filters], atol_log=TONE_LIMITS[name], dtype="float32")


# ---- wrong kernels on purpose

_TRUE = Case(MelSpec(n_fft=128, n_mels=16), noise((1, 700)))
WRONG = {"true": _TRUE} | {name: dataclasses.replace(_TRUE, alteration=name) for name in ALTERATIONS}


@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_wrong_kernels_are_rejected(simulated, alteration):
    right = reference_mel(_TRUE)
    assert_close(simulated["true"], right, dtype="float32", **FLOAT32)
    assert not compare(simulated[alteration], right, dtype="float32", **FLOAT32).passed
