"""The promise: the CPU kernel gives the reference's numbers at every vector width, on every path and any threads.

Tolerances: as in test_backends.py; for log mel see TestTiltedTones. Widths other than the host's run too, since LLVM
splits a vector wider than the machine's registers.
"""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels.inputs import TOLERANCES, arrays_of, in_a_new_process, noise, specs, tilted_tones
from triadbench.kernels import CHORD, ORIGINAL, SPECS, WHISPER, MelSpec, MelSpectrogram
from triadbench.kernels import torch_operator as torch_side
from triadbench.kernels.compare import assert_close, compare
from triadbench.kernels.cpu import mel_numba, numpy_entry
from triadbench.kernels.cpu import plan as numba_plan
from triadbench.kernels.mel_reference import mel_spectrogram


def _mel(spec, waveform, lanes=None, log_eps=None):
    return mel_numba.compute(
        torch.from_numpy(waveform), spec, *arrays_of(spec, waveform.dtype.name), log_eps, lanes
    ).numpy()


# ---- every width, path and dtype

# name -> (spec, time, path): the path that plan_for names
CASES = {
    "original": (ORIGINAL, 20000, "fast"),
    "chord": (CHORD, 20000, "fast"),
    "whisper": (WHISPER, 5000, "fast"),
    "one_frame": (MelSpec(n_fft=64, center=False, n_mels=8), 64, "fast"),
    "rows_fewer_than_lanes": (MelSpec(n_fft=60, hop_length=3, n_mels=8), 500, "fast"),
    "rows_no_multiple_of_lanes": (MelSpec(n_fft=90, hop_length=45, n_mels=8), 900, "fast"),
    "many_columns": (MelSpec(n_fft=256, hop_length=16, n_mels=8), 900, "fast"),
    "hop_above_n_fft": (MelSpec(n_fft=64, hop_length=100, n_mels=8), 3000, "fast"),
    "pad_and_reflect": (MelSpec(n_fft=64, pad=9, n_mels=8), 300, "fast"),
    "magnitude": (MelSpec(n_fft=64, power=1.0, n_mels=8), 300, "fast"),
    "power_1.5": (MelSpec(n_fft=64, power=1.5, n_mels=8), 300, "fast"),
    "power_3": (MelSpec(n_fft=64, power=3.0, n_mels=8), 300, "fast"),
    "power_4": (MelSpec(n_fft=64, power=4.0, n_mels=8), 300, "fast"),
    "power_6.5": (MelSpec(n_fft=64, power=6.5, n_mels=8), 300, "fast"),
    "power_beyond_products": (MelSpec(n_fft=64, power=8.5, n_mels=8), 300, "fast"),
    "other_power": (MelSpec(n_fft=64, power=2.6, n_mels=8), 300, "fast"),
    "prime": (MelSpec(n_fft=31, n_mels=4), 300, "direct"),
    "prime_factor_first": (MelSpec(n_fft=77, n_mels=8), 600, "direct"),
    "prime_factor_inside": (MelSpec(n_fft=16 * 7 * 5, n_mels=8), 3000, "direct"),
    "odd_middle": (MelSpec(n_fft=2 * 101, n_mels=8), 1000, "direct"),
    "largest_prime": (MelSpec(n_fft=numba_plan.LARGEST_PRIME, n_mels=8), 3000, "direct"),
}


@pytest.mark.parametrize("lanes", [4, 8, 16])
@pytest.mark.parametrize(("spec", "time", "path"), CASES.values(), ids=CASES)
def test_widths_and_paths(spec, time, path, lanes):
    assert mel_numba.plan_for(spec, lanes).path == path
    waveform = noise((2, time))
    assert_close(_mel(spec, waveform, lanes), mel_spectrogram(waveform, spec), dtype="float32", **TOLERANCES["float32"])


@pytest.mark.parametrize("dtype", ["float64", "int16"])
@pytest.mark.parametrize(("spec", "time", "path"), CASES.values(), ids=CASES)
def test_dtypes(spec, time, path, dtype):
    waveform = noise((2, time), dtype)
    out = "float64" if dtype == "float64" else "float32"
    assert_close(_mel(spec, waveform), mel_spectrogram(waveform, spec), dtype=out, **TOLERANCES[out])


_SMOOTH = [2**a * 3**b * 5**c for a in range(10) for b in range(4) for c in range(3)]
_SPECS = specs(
    st.one_of(st.sampled_from(_SMOOTH).filter(lambda n: 2 <= n <= 1100), st.integers(2, 300)),
    powers=(1.0, 2.0, 2.0, 1.5, 3.0, 1.7),
)


@given(_SPECS, st.integers(1, 5000), st.sampled_from([4, 8, 16]), st.integers(0, 99))
@settings(max_examples=300, deadline=None, derandomize=True, database=None)
def test_against_reference_over_settings(spec, time, lanes, seed):
    try:
        spec.n_frames(time)
    except ValueError:
        return
    waveform = noise((2, time), "float32", seed)
    tolerances = TOLERANCES["float32"]
    if time < spec.n_fft and spec.pad_mode in ("replicate", "circular"):
        # A few samples repeated are tones: magnitudes that cancel keep the rounding of those that do not.
        tolerances = {name: 10 * value for name, value in tolerances.items()}
    assert_close(_mel(spec, waveform, lanes), mel_spectrogram(waveform, spec), dtype="float32", **tolerances)


# ---- quiet bins


class TestTiltedTones:
    """A tone in the middle of filters at least four bins apart, amplitudes falling or rising by 80 dB in all.
    Those filters are compared: nearer tones beat, and cancel in some frames.

    A float32 transform leaves noise of about 6e-9 of the loudest tone, 6e-5 of the quietest, or 1e-4 in its log power,
    and the worst of all frames and filters is a few times that: 1e-3. The post-pass of the half-size transform, which
    leaves 6e-8 of the *mirror* bin's power, breaks it by far.
    """

    @pytest.mark.parametrize("tilt_db", [-80, 80])
    @pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
    def test_log_mel(self, spec, tilt_db):
        waveform, filters = tilted_tones(spec, tilt_db)
        log_mel = _mel(spec, waveform[None], log_eps=1e-10)[0, filters, 2:-3]  # where reflection bends no tone
        expected = mel_spectrogram(waveform, spec, log=True)[filters, 2:-3]
        assert_close(log_mel, expected, atol_log=1e-3, dtype="float32")

    def test_the_usual_post_pass_fails(self):
        """P[k], P[N - k] from sums and differences of powers of a half-size transform, in float32."""
        n = ORIGINAL.n_fft
        waveform, _ = tilted_tones(ORIGINAL, -80)
        frames = np.stack([waveform[512 * t : 512 * t + n] for t in range(20)]) * ORIGINAL.window_array()
        Z = np.fft.fft(frames[:, 0::2] + 1j * frames[:, 1::2])
        k = np.arange(n // 2 + 1)
        a, b = Z[:, k % (n // 2)], np.conj(Z[:, -k % (n // 2)])
        even, odd = (a + b) / 2, -0.5j * (a - b) * np.exp(-2j * np.pi * k / n)
        total = (np.abs(even) ** 2 + np.abs(odd) ** 2).astype(np.float32)
        power = total + (2 * (even * np.conj(odd)).real).astype(np.float32)
        uncentred = dataclasses.replace(ORIGINAL, center=False)
        expected = mel_spectrogram(waveform, uncentred)[:, :20]
        mel = (power @ ORIGINAL.filterbank().T).T
        assert compare(mel, expected, rtol_rms=1e-6).passed
        assert not compare(np.abs(mel), expected, atol_log=1e-3, log_eps=1e-10).passed

    def test_log_of_float64(self):
        waveform = noise((1, 5000), "float64")
        expected = mel_spectrogram(waveform, WHISPER, log=True)
        assert_close(_mel(WHISPER, waveform, log_eps=1e-10), expected, atol_log=1e-11)

    def test_log_of_what_has_none(self):
        """NaN, infinity and silence are not hidden, as with torch.log."""
        spec = MelSpec(n_fft=2, hop_length=2, center=False, window="rectangular", n_mels=1)
        x = torch.tensor([[torch.nan, 0.0, 1e30, 0.0, 0.0, 0.0, 1.0, 0.0]])
        for sign in (1.0, -1.0):
            arrays = (torch.ones(2), torch.tensor([[sign, 0.0]]))
            mel, log_mel = (mel_numba.compute(x, spec, *arrays, eps) for eps in (None, 0.0))
            assert torch.equal(log_mel.isnan(), torch.log(mel).isnan())
            finite = ~log_mel.isnan()
            assert torch.equal(log_mel[finite], torch.log(mel)[finite])

    def test_log_is_exact_over_the_range_of_float32(self):
        """The largest and the smallest values, zeros and subnormals, through one filter that is the sum of all bins."""
        spec = MelSpec(n_fft=2, hop_length=2, center=False, window="rectangular", n_mels=1)
        amplitude = 10.0 ** np.linspace(-19, 15, 2000)
        waveform = np.stack([amplitude, amplitude], -1).reshape(1, -1).astype(np.float32)
        arrays = (torch.ones(2), torch.ones(1, 2))
        log_mel = mel_numba.compute(torch.from_numpy(waveform), spec, *arrays, 0.0).numpy()
        x = waveform[0, 0::2].astype(np.float64)
        np.testing.assert_allclose(log_mel[0, 0], np.log((2 * x) ** 2), rtol=2e-7, atol=1e-7)


# ---- wrong kernels on purpose


def _sabotaged(monkeypatch, change):
    make_plan = numba_plan.make_plan

    def wrong(*arguments):
        plan = make_plan(*arguments)
        parts = {"program": plan.program.copy(), "index": plan.index.copy(), "table": plan.table.copy()}
        change(plan, parts)
        return dataclasses.replace(plan, **parts)

    monkeypatch.setattr(numba_plan, "make_plan", wrong)


def _truncated(plan, parts):
    """One block of bins is never written."""
    keep = np.ones(len(parts["program"]), bool)
    keep[np.flatnonzero(parts["program"][:, 0] == numba_plan.LAST)[-1]] = False
    parts["program"] = parts["program"][keep]


def _mirrored(plan, parts):
    """Two neighbouring bins are exchanged."""
    last = parts["program"][parts["program"][:, 0] == numba_plan.LAST][0]
    a, b = last[4], last[4] + 1
    parts["index"][[a, b]] = parts["index"][[b, a]]


def _shifted(plan, parts):
    """The rows are read from the next one on: the frame is a sample late."""
    parts["index"][:16] += plan.row_stride


def _untwiddled(plan, parts):
    parts["program"] = parts["program"][parts["program"][:, 0] != numba_plan.TWIDDLE]


def _half_precision(plan, parts):
    parts["table"] = parts["table"].astype(np.float16).astype(parts["table"].dtype)


@pytest.mark.parametrize("change", [_truncated, _mirrored, _shifted, _untwiddled, _half_precision])
def test_wrong_kernels_are_rejected(monkeypatch, change):
    waveform = noise((2, 20000))
    expected = mel_spectrogram(waveform, ORIGINAL)
    assert compare(_mel(ORIGINAL, waveform), expected, dtype="float32", **TOLERANCES["float32"]).passed
    _sabotaged(monkeypatch, change)
    assert not compare(_mel(ORIGINAL, waveform), expected, dtype="float32", **TOLERANCES["float32"]).passed


# ---- what is kept between calls


def test_a_changed_filterbank_or_window_is_seen():
    module, waveform = MelSpectrogram.from_spec(ORIGINAL, backend="numba"), torch.from_numpy(noise((1, 4000)))
    before = module(waveform)
    module.mel_scale.fb.mul_(2.0)
    assert torch.equal(module(waveform), 2 * before)
    module.spectrogram.window.mul_(0.5)
    assert torch.equal(module(waveform), before / 2)
    state = MelSpectrogram.from_spec(ORIGINAL, backend="numba").state_dict()
    module.load_state_dict(state)
    assert torch.equal(module(waveform), before)


def test_inference_mode():
    waveform = torch.from_numpy(noise((2, 4000)))
    expected = MelSpectrogram.from_spec(ORIGINAL, backend="numba")(waveform)
    with torch.inference_mode():
        module = MelSpectrogram.from_spec(ORIGINAL, backend="numba")
        assert torch.equal(module(waveform), expected)
        module.mel_scale.fb.mul_(2.0)
        assert torch.equal(module(waveform), 2 * expected)


def test_many_settings_are_forgotten_again():
    for n_fft in range(100, 102 + mel_numba._PREPARED_KEPT):
        spec = MelSpec(n_fft=n_fft, n_mels=2)
        _mel(spec, noise((1, 300)))
    assert len(mel_numba._prepared) == mel_numba._PREPARED_KEPT
    prepared = list(mel_numba._prepared.values())[-1]
    for time in range(1000, 1002 + numpy_entry.LENGTHS_KEPT):
        assert prepared.n_frames(time) == spec.n_frames(time)
    assert prepared.n_frames.cache_info().currsize <= numpy_entry.LENGTHS_KEPT


CALL = "import sys, torch\nfrom triadbench.kernels import ORIGINAL, MelSpectrogram\n" + (
    "mel = MelSpectrogram.from_spec(ORIGINAL, backend='numba')(torch.ones(2, 4000))\n"
    "print('numba' in sys.modules, float(mel.sum()))"
)


def test_a_second_process_compiles_nothing(tmp_path):
    first = in_a_new_process(CALL, NUMBA_CACHE_DIR=str(tmp_path))
    second = in_a_new_process(CALL, NUMBA_CACHE_DIR=str(tmp_path))
    assert (first[0], second[0]) == ("True", "False")
    assert first[1] == second[1]
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-100])  # a file that is not whole is no file
    assert in_a_new_process(CALL, NUMBA_CACHE_DIR=str(tmp_path)) == first


# ---- what it refuses


def test_refusals():
    wanted = {"dtype": "float32", "device": "cpu", "needs_gradient": False}
    assert mel_numba.why_unsupported(ORIGINAL, **wanted) is None
    assert "the input is on cuda" in mel_numba.why_unsupported(ORIGINAL, **{**wanted, "device": "cuda"})
    assert "no gradient" in mel_numba.why_unsupported(ORIGINAL, **{**wanted, "needs_gradient": True})
    spec = MelSpec(n_fft=2 * 1031, n_mels=8)
    assert "n_fft=2062 has the prime factor 1031, above 257" in mel_numba.why_unsupported(spec, **wanted)
    assert MelSpectrogram.from_spec(spec).backend != "numba"
    with pytest.raises(RuntimeError, match="'numba' cannot compute this: n_fft=2062 has the prime factor 1031"):
        MelSpectrogram.from_spec(spec, backend="numba")


def test_auto_takes_it_where_it_can():
    module = MelSpectrogram.from_spec(ORIGINAL)
    assert module.backend == "numba"
    assert module.backend_for(torch.zeros(4000, requires_grad=True)) != "numba"


# ---- torch.compile


class TestOperator:
    def test_its_registration(self):
        MelSpectrogram.from_spec(ORIGINAL, backend="numba")  # registers it
        window, filterbank = arrays_of(ORIGINAL, "float32")
        sample = (torch.from_numpy(noise((2, 4000))), window, filterbank.mT, ORIGINAL.text)
        for log_eps in (None, 1e-10):
            torch.library.opcheck(torch.ops.triadbench.mel_numba.default, (*sample, log_eps))

    @pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
    def test_its_settings_travel_as_text(self, spec):
        assert torch_side.spec_of(spec.text) == spec

    def test_a_compiled_caller_keeps_its_graph_whole(self):
        arrays = arrays_of(ORIGINAL, "float32")
        MelSpectrogram.from_spec(ORIGINAL, backend="numba")

        def caller(waveform):
            return mel_numba.forward(2.0 * waveform, ORIGINAL, *arrays, 1e-10) + 1.0

        waveform = torch.from_numpy(noise((3, 8000)))
        compiled = torch.compile(caller, fullgraph=True, backend="aot_eager")
        for view in (waveform, waveform[:2, :5000]):
            assert torch.equal(compiled(view), caller(view))

    def test_a_compiled_module_keeps_its_graph_whole(self):
        module = MelSpectrogram.from_spec(WHISPER, backend="numba", log=True)
        waveform = torch.from_numpy(noise((2, 3, 4000)))
        assert torch.equal(torch.compile(module, fullgraph=True, backend="aot_eager")(waveform), module(waveform))


# ---- the code for machines with AVX-512

ASSEMBLY = """
import re, numba
from triadbench.kernels.cpu import kernel as numba_kernel
function = numba.njit(numba_kernel._JOB, **numba_kernel._C_FUNCTION)(numba_kernel.mel_groups(16, "float32", "float32"))
(assembly,) = function.inspect_asm().values()
butterflies = [block for block in re.split(r"\\n(?=\\.LBB)", assembly)
               if block.count("zmm") > 60 and "mulps" in block and "log" not in block]
spills = [sum("zmm" in line and "(%rsp)" in line for line in block.splitlines()) for block in butterflies]
narrow = [sum("vaddps" in line and "ymm" in line for line in block.splitlines()) for block in butterflies]
print(len(butterflies), max(narrow), max(spills))
"""


@pytest.mark.slow
def test_avx512_code_is_full_width_and_hardly_spills():
    """16 lanes are one zmm register; the eight-point butterflies fit 32 of them, the first pass spills a few."""
    features = "+avx,+avx2,+fma,+avx512f,+avx512dq,+avx512bw,+avx512vl"
    printed = in_a_new_process(ASSEMBLY, NUMBA_CPU_NAME="skylake-avx512", NUMBA_CPU_FEATURES=features)
    found, narrow, spills = map(int, printed)
    assert found >= 8
    assert narrow == 0
    assert spills <= 20
