"""The promise: the compiled mel kernel, executed on the CPU, is right on every branch and in any order of its threads: the
reference's numbers, no race, no access out of bounds or misaligned, no read of shared memory that nothing wrote. And
whoever breaks it is caught.
"""

import dataclasses
import re

import numpy as np
import pytest

from tests.kernels.cuda_cases import AGAINST_REFERENCE, FLOAT32, TONE_LIMITS, reference_mel
from tests.kernels.inputs import noise, tilted_tones
from triadbench.kernels import LOG_EPS, ORIGINAL, SPECS, MelSpec
from triadbench.kernels.compare import assert_close, compare
from triadbench.kernels.gpu import mel_cuda, ptx_mel
from triadbench.kernels.gpu import plan as cuda_plan
from triadbench.kernels.gpu import static_analysis as cuda_static
from triadbench.kernels.gpu.ptx_machine import PtxFault
from triadbench.kernels.mel_reference import mel_spectrogram
from triadbench.kernels.spec import PAD_MODES

pytestmark = pytest.mark.skipif(cuda_static.why_unavailable() is not None, reason=str(cuda_static.why_unavailable()))

ORDERS = ["together", "apart"]
# Kernels that take seconds to compile and hold no branch that others have not: test_the_cases_reach_every_branch.
_MORE = {"original_three_clips_two_tiles", "original_int16", "original_log", "whisper_log_int16", "low_bins_alone"}
_MORE |= {"every_bin_three_passes", "n_fft_all_odd", "n_fft_odd_three_passes", "n_fft_two_frames_a_block"}
_MORE |= {"other_power", "empty_filters"}


def run(case, **options):
    window, filterbank = case.arrays or (None, None)
    return ptx_mel.run(case.waveform, case.spec, log=case.log, window=window, filterbank=filterbank, **options)[0]


# ---- against the reference


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in _MORE else ()) for name in AGAINST_REFERENCE]
)
def test_against_reference(name):
    case = AGAINST_REFERENCE[name]
    mels = [run(case, order=order) for order in ORDERS]
    tolerances = {"atol_log": 2e-5} if case.log else FLOAT32
    assert_close(mels[0], reference_mel(case), context=name, dtype="float32", **tolerances)
    np.testing.assert_array_equal(*mels)


def branches(case):
    """What decides a program's text, but for sizes."""
    waveform, spec = mel_cuda.with_samples(case.waveform, case.spec)
    filters = case.arrays[1] if case.arrays else spec.filterbank()
    plan = mel_cuda.plan_for(spec, in_dtype=waveform.dtype.name, log=case.log, filterbank=filters)
    n_middle = len(plan.radices) - 1
    passes = [
        ("real", plan.real_radix, 1),
        *(("middle", radix, 2) for radix in plan.radices[:-1]),
        ("last", plan.last, 2),
    ]
    found = {plan.in_dtype, plan.edge, plan.power, "log" if plan.log else "no log", f"rows of {plan.quad} frames"}
    found |= {f"{name}: {plan.together(floats * radix)} frames a thread" for name, radix, floats in passes}
    found |= {f"{name} radix {'odd' if radix % 2 else 'even'}" for name, radix, _ in passes}
    found |= {"samples shared" if plan.shift else "samples of each frame", f"{n_middle} middle passes"}
    found |= {f"real residues packed, {'odd' if plan.last % 2 else 'even'}" if plan.packed else "real residues alone"}
    in_turns = (plan.n_mels + 1) * plan.frames // plan.quad > plan.threads
    found |= {"segments in turns" if in_turns else "a thread a segment", f"{plan.step} rows a step"}
    found |= {"all bins" if plan.n_bins == plan.n_freqs else "bins left out", "gaps" if plan.groups > 1 else "no gaps"}
    return found | {"filters overlap twice" if cuda_plan._segments(filters) is None else "filters overlap once"}


def test_the_cases_reach_every_branch():
    """Those that are not slow."""
    expected = {"float32", "int16", *PAD_MODES, "power", "magnitude", "other", "log", "no log"}
    expected |= {f"rows of {n} frames" for n in (1, 2, 4)} | {f"{n} middle passes" for n in (0, 1, 2)}
    expected |= {f"{name}: {n} frames a thread" for name in ("real", "middle", "last") for n in (1, 2, 4)}
    expected |= {f"{name} radix {kind}" for name in ("real", "middle", "last") for kind in ("odd", "even")}
    expected |= {"samples shared", "samples of each frame", "all bins", "bins left out", "gaps", "no gaps"}
    expected |= {"filters overlap once", "filters overlap twice", "segments in turns", "a thread a segment"}
    expected |= {"real residues packed, odd", "real residues packed, even", "real residues alone"}
    expected |= {"2 rows a step", "4 rows a step"}
    assert set().union(*(branches(case) for name, case in AGAINST_REFERENCE.items() if name not in _MORE)) == expected


@pytest.mark.parametrize("tilt_db", [-80, 80])
@pytest.mark.parametrize("name", SPECS)
def test_quiet_tones(name, tilt_db):
    """As TestTiltedTones in test_mel_cuda.py; the logarithm is taken here, and the kernel is the other tests'."""
    spec = SPECS[name]
    waveform, filters = tilted_tones(spec, tilt_db, 3 * spec.n_fft)
    inside = slice(spec.n_fft // 2 // spec.hop_length + 1, -(spec.n_fft // 2 // spec.hop_length) - 1)  # of the clip
    actual, expected = ptx_mel.run(waveform[None], spec)[0], mel_spectrogram(waveform[None], spec)
    assert expected[:, :, inside].shape[2] > 2 and len(filters) > 20
    logs = (np.log(mel[:, filters, inside] + LOG_EPS) for mel in (actual, expected))
    assert_close(*logs, atol_log=TONE_LIMITS[name], dtype="float32")


@pytest.mark.parametrize("c", [0, 5])
def test_quiet_bins_beside_loud_mirror_images(c):
    """Bins c and 512 - c modulo 32, 80 dB apart. The mirror images of residues 0 and r / 2 meet in `_halves`: no digit more
    is lost there than in the other residues, here c = 5."""
    spec, at = dataclasses.replace(ORIGINAL, center=False), np.arange(ORIGINAL.n_fft)
    assert mel_cuda.plan_for(spec).packed
    bins = [k for k in range(16, 512 - 16, 48) if k != 256]
    worst = []
    for k in (k + c for k in bins):
        phases = np.random.default_rng(k).uniform(0.0, 2 * np.pi, (4, 2, 1))
        loud, quiet = (np.cos(2 * np.pi * b * at / spec.n_fft + phases[:, i]) for i, b in enumerate((512 - k, k)))
        clips, filters = (loud + 1e-4 * quiet).astype(np.float32), np.zeros((spec.n_mels, spec.n_freqs))
        filters[0, k] = filters[1, -1] = 1.0  # the last bin is weighed so that all k have one program
        actual = ptx_mel.run(clips, spec, filterbank=filters)[0][:, 0]
        worst.append(np.abs(np.log(actual / mel_spectrogram(clips, spec, filterbank=filters)[:, 0])).max())
    assert max(worst) < 3e-3 and np.median(worst) < 1.5e-3


@pytest.mark.parametrize("name", SPECS)
def test_a_whole_clip_is_within_float32s_rounding(name):
    """Relative L2 of noise, all frames of a clip of four seconds."""
    waveform = noise((1, 64000))
    mel, _ = ptx_mel.run(waveform, SPECS[name])
    expected = mel_spectrogram(waveform, SPECS[name])
    assert np.linalg.norm(mel - expected) < 1.3e-7 * np.linalg.norm(expected)


# ---- wrong kernels on purpose

_SMALL = MelSpec(n_fft=32, n_mels=5)
_BARRIER = re.compile(r"bar\.sync[^;]*;")


def without_barrier(number):
    def edit(text):
        match = list(_BARRIER.finditer(text))[number]
        return text[: match.start()] + text[match.end() :]

    return edit


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("spec", [_SMALL, *SPECS.values()], ids=["small", *SPECS])
def test_each_missing_barrier_is_found(spec, order):
    """One behind each pass but the last, one before and one behind the powers' stores, one behind the sums."""
    waveform, texts = noise((1, 2 * spec.n_fft)), []
    barriers = len(mel_cuda.plan_for(spec).radices) + 3
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
        for time in (160, 161):  # where one clip's last frame ends, the next clip begins
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
    plan = mel_cuda.plan_for(SPECS[name])
    transform = 8 * plan.frames * plan.n_residues * plan.m  # bytes that each pass stores, and the next one reads
    assert sum(a.bytes for a in shared) > 2 * len(plan.radices) * transform
    assert [a for a in shared if a.passes > 1.15 * a.ideal] == []


def test_sectors_of_samples():
    """ORIGINAL: frames that overlap by half and are taken together read each sample once, all in whole sectors."""
    _, trace = ptx_mel.run(noise((1, 64000)), ORIGINAL, trace=True, blocks=[5])
    plan = mel_cuda.plan_for(ORIGINAL)
    together = plan.together(plan.real_radix)
    columns = plan.real_radix + (together - 1) * plan.shift if plan.shift else together * plan.real_radix
    kinds = {i: trace.program.instructions[i].opcode for i in trace.accesses}
    samples = [a for i, a in trace.accesses.items() if kinds[i] == ("ld", "global", "nc", "f32") and a.requests]
    assert [a.bytes for a in samples] == [4 * plan.m * plan.frames // together] * columns
    assert all(32 * a.sectors == a.bytes for a in samples)
