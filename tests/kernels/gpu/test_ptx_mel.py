"""The promise: the compiled mel kernel, executed on the CPU, is right on every branch and in any order of its threads: the
reference's numbers, no race, no access out of bounds or misaligned, no read of shared memory that nothing wrote. And
whoever breaks it is caught.
"""

import re

import numpy as np
import pytest

from tests.kernels.cuda_cases import AGAINST_REFERENCE, FLOAT32, TONE_LIMITS, TONES, reference_mel, tone_frames
from tests.kernels.inputs import noise
from triadbench.kernels import CHORD, ORIGINAL, SPECS, WHISPER, MelSpec
from triadbench.kernels.compare import assert_close, compare
from triadbench.kernels.gpu import ptx_mel
from triadbench.kernels.gpu import static_analysis as cuda_static
from triadbench.kernels.gpu.ptx_machine import PtxFault
from triadbench.kernels.mel_reference import mel_spectrogram

pytestmark = pytest.mark.skipif(cuda_static.why_unavailable() is not None, reason=str(cuda_static.why_unavailable()))

ORDERS = ["together", "apart"]
# Kernels that take seconds to compile and hold no branch that others have not.
_MORE = {"original_int16", "original_log", "whisper_log_int16", "tones_CHORD_-80", "tones_WHISPER_-80"}
_MORE |= {"tones_CHORD_80", "tones_WHISPER_80", "n_fft_two_frames_a_block", "every_bin_three_passes", "magnitude"}


def named(cases):
    return [pytest.param(name, marks=[pytest.mark.slow] if name in _MORE else []) for name in cases]


def run(case, **options):
    window, filterbank = case.arrays or (None, None)
    return ptx_mel.run(case.waveform, case.spec, log=case.log, window=window, filterbank=filterbank, **options)[0]


@pytest.mark.parametrize("name", named(AGAINST_REFERENCE))
def test_against_reference(name):
    case = AGAINST_REFERENCE[name]
    mels = [run(case, order=order) for order in ORDERS]
    tolerances = {"atol_log": 2e-5} if case.log else FLOAT32
    assert_close(mels[0], reference_mel(case), context=name, dtype="float32", **tolerances)
    np.testing.assert_array_equal(*mels)


@pytest.mark.parametrize("name", named(TONES))
def test_quiet_tones(name):
    case = TONES[name]
    _, spec_name, tilt_db = name.split("_")
    filters = tone_frames(case.spec, int(tilt_db))[1]
    expected = reference_mel(case)[:, filters]
    assert_close(run(case)[:, filters], expected, atol_log=TONE_LIMITS[spec_name], dtype="float32")


@pytest.mark.parametrize("name", SPECS)
def test_a_whole_clip_is_within_float32s_rounding(name):
    """Relative L2 of noise, all frames of a clip of four seconds."""
    waveform = noise((1, 64000))
    mel, _ = ptx_mel.run(waveform, SPECS[name])
    expected = mel_spectrogram(waveform, SPECS[name])
    assert np.linalg.norm(mel - expected) < 1.6e-7 * np.linalg.norm(expected)


# ---- wrong kernels on purpose

_SMALL = MelSpec(n_fft=128, n_mels=8)
_BARRIER = re.compile(r"bar\.sync[^;]*;")


def without_barrier(number):
    def edit(text):
        match = list(_BARRIER.finditer(text))[number]
        return text[: match.start()] + text[match.end() :]

    return edit


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("spec", "barriers"), [(_SMALL, 4), (ORIGINAL, 4), (CHORD, 5), (WHISPER, 4)], ids=["small", *SPECS]
)
def test_each_missing_barrier_is_found(spec, barriers, order):
    waveform, texts = noise((1, 3 * spec.n_fft)), []
    ptx_mel.run(waveform, spec, order=order, edit=lambda text: texts.append(text) or text)
    assert len(_BARRIER.findall(texts[0])) == barriers
    for number in range(barriers):
        with pytest.raises(PtxFault, match=r"(race: .*|reads memory that nothing wrote), thread \d+ of block"):
            ptx_mel.run(waveform, spec, order=order, edit=without_barrier(number))


def first(pattern, to):
    def edit(text):
        changed = re.sub(pattern, to, text, count=1)
        assert changed != text
        return changed

    return edit


WRONG = {
    "shared_beyond_the_end": (first(r"ld\.shared\.v2\.f32 (.*)\+8\]", r"ld.shared.v2.f32 \1+800000]"), "out of bounds"),
    "samples_beyond_the_end": (first(r"ld\.global\.nc\.f32 (.*)\[(%rd\d+)\+\d+\]", r"ld.global.nc.f32 \1[\2+4096000]"), "out of bounds"),
    "misaligned": (first(r"st\.shared\.v2\.f32 (.*)\[(%rd\d+)\+\d+\]", r"st.shared.v2.f32 \1[\2+12]"), "not aligned to 8 bytes"),
    "never_written": (first(r"st\.shared\.v2\.f32[^;]*;", ""), "reads memory that nothing wrote"),
    "output_twice": (first(r"(st\.global\.f32[^\[]*)\[(%rd\d+)\]", r"add.s64 \2, \2, 4; \1[\2]"), "race|out of bounds"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_accesses_are_caught(name):
    edit, message = WRONG[name]
    with pytest.raises(PtxFault, match=message):
        for time in (640, 641):  # where one clip's last frame ends, the next clip begins
            mel, _ = ptx_mel.run(noise((2, time)), _SMALL, edit=edit)
            assert not np.isnan(mel).any()


@pytest.mark.parametrize("pattern", [r"fma\.rn\.f32 (.*), (%f\d+);", r"sub\.f32 (.*), (%f\d+);"])
def test_wrong_arithmetic_is_seen(pattern):
    case = AGAINST_REFERENCE["hop_not_a_divisor"]
    text = "mul.f32 \\1;" if "fma" in pattern else "add.f32 \\1, \\2;"
    assert not compare(run(case, edit=first(pattern, text)), reference_mel(case), dtype="float32", **FLOAT32).passed


# ---- conflicts


@pytest.mark.parametrize("name", SPECS)
def test_no_access_to_shared_memory_has_a_conflict(name):
    _, trace = ptx_mel.run(noise((1, 64000)), SPECS[name], trace=True, blocks=[5])
    shared = [a for i, a in trace.accesses.items() if trace.program.instructions[i].opcode[1] == "shared"]
    assert sum(a.passes for a in shared) > 500
    assert [a for a in shared if a.passes > 1.15 * a.ideal] == []


def test_sectors_of_samples():
    """ORIGINAL: two frames that overlap by half read 48 columns of 32 samples, each in whole sectors."""
    _, trace = ptx_mel.run(noise((1, 64000)), ORIGINAL, trace=True, blocks=[5])
    kinds = {i: trace.program.instructions[i].opcode for i in trace.accesses}
    samples = [a for i, a in trace.accesses.items() if kinds[i] == ("ld", "global", "nc", "f32") and a.requests]
    assert [(a.requests, a.sectors, a.passes) for a in samples] == [(4, 16, 4)] * 48
