"""The promise: the mel as matrix products gives the reference's numbers and torchaudio's gradients, whole, in chunks, and
in any graph that captures it.

Tolerances: as in test_backends.py; tilted tones as in test_mel_numba.py's TestTiltedTones. A product of n1 or 2 n2 terms
rounds a little more than an FFT's short butterflies: 2e-7 relative L2 on noise bounds it.
"""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels.inputs import TOLERANCES, noise, specs, tilted_tones
from triadbench.kernels import CHORD, ORIGINAL, SPECS, WHISPER, MelSpec, MelSpectrogram, matmul_plan, mel_matmul
from triadbench.kernels.compare import assert_close, compare
from triadbench.kernels.mel_reference import mel_spectrogram


def _plan(spec, **options):
    return matmul_plan.make_plan(spec, spec.window_array(), spec.filterbank(), **options)


def _mel(spec, waveform, plan=None, log_eps=None, chunks=True):
    dtype = torch.float64 if waveform.dtype == np.float64 else torch.float32
    constants = mel_matmul.constants_of(plan or _plan(spec), dtype, "cpu")
    run = mel_matmul.in_chunks if chunks else mel_matmul.all_at_once
    return run(torch.from_numpy(waveform), spec, constants, log_eps).numpy()


# ---- the plan, in numpy


def _by_plan(plan, frames):
    """(n_fft, t) -> (n_mels, t), as Plan's docstring reads."""
    y = frames[None]
    if plan.first is not None:
        y = plan.first @ frames.reshape(plan.n1, plan.n2, -1).transpose(1, 0, 2)
        y = y.reshape(plan.n2, 2, plan.groups, -1).transpose(2, 0, 1, 3).reshape(plan.groups, 2 * plan.n2, -1)
    z = plan.second @ y
    power = z[:, : plan.slots] ** 2 + z[:, plan.slots :] ** 2
    return power.reshape(plan.groups * plan.slots, -1), plan.filters @ power.reshape(plan.groups * plan.slots, -1)


@pytest.mark.parametrize("n_fft", [1, 2, 3, 4, 6, 9, 12, 15, 30, 31, 36, 64])
def test_every_first_factor_gives_every_bin(n_fft):
    spec = MelSpec(n_fft=n_fft, hop_length=1, n_mels=1, window="rectangular", center=False)
    frames = noise((n_fft, 3), "float64")
    expected = np.abs(np.fft.rfft(frames, axis=0)) ** 2
    filterbank = np.ones((1, spec.n_freqs))
    for n1 in (n for n in range(1, n_fft + 1) if n_fft % n == 0):
        plan = matmul_plan.make_plan(spec, np.ones(n_fft), filterbank, n1=n1)
        power, mel = _by_plan(plan, frames)
        used = plan.bins >= 0
        assert sorted(plan.bins[used]) == list(range(spec.n_freqs))
        assert_close(power[used], expected[plan.bins[used]], rtol_peak=1e-13)
        assert not power[~used].any()
        assert_close(mel, filterbank @ expected, rtol_peak=1e-13)


def test_the_factors_are_near_square_and_only_needed_bins_are_computed():
    # name -> (n1, n2), bins that no filter weighs: DC and Nyquist, for CHORD all below 60 Hz and above 4 kHz
    for spec in SPECS.values():
        plan = _plan(spec)
        assert plan.n1 * plan.n2 == spec.n_fft and max(plan.n1, plan.n2) <= 4 * min(plan.n1, plan.n2)
        computed = np.unique(plan.bins[plan.bins >= 0])
        np.testing.assert_array_equal(computed, np.flatnonzero(spec.filterbank().any(axis=0)))
        assert plan.second.size < 80 * spec.n_fft  # the DFT as one matrix has n_fft^2
    assert _plan(CHORD).slots * _plan(CHORD).groups <= 0.3 * CHORD.n_fft
    assert _plan(MelSpec(n_fft=31, n_mels=4)).n1 == 1  # one dense matrix


def test_a_plan_refuses():
    with pytest.raises(ValueError, match="n1=5 must divide n_fft=1024"):
        _plan(ORIGINAL, n1=5)
    prime = MelSpec(n_fft=4099, n_mels=8)
    with pytest.raises(ValueError, match="n_fft=4099 has the prime factor 4099, above 1024; use a power of two"):
        _plan(prime)
    with pytest.raises(RuntimeError, match="'matmul' cannot compute this: n_fft=4099 has the prime factor 4099"):
        MelSpectrogram.from_spec(prime, backend="matmul")


# ---- against the reference


@given(
    specs(st.one_of(st.integers(2, 300), st.sampled_from([400, 480, 512, 600, 1024, 1536]))),
    st.integers(1, 3000),
    st.integers(0, 99),
    st.sampled_from(["float32", "float64", "int16"]),
    st.booleans(),
)
@settings(max_examples=150, deadline=None, derandomize=True, database=None)
def test_against_reference_over_settings(spec, time, seed, dtype, chunks):
    try:
        spec.n_frames(time)
    except ValueError:
        return
    waveform, out = noise((2, time), dtype, seed), "float64" if dtype == "float64" else "float32"
    tolerances = TOLERANCES[out]
    mel = _mel(spec, waveform, chunks=chunks)
    assert_close(mel, mel_spectrogram(waveform, spec), dtype=out, **tolerances)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_noise_is_as_exact_as_torchaudios(spec):
    waveform = noise((3, 16000))
    for chunks in (True, False):
        assert_close(
            _mel(spec, waveform, chunks=chunks), mel_spectrogram(waveform, spec), rtol_rms=2e-7, dtype="float32"
        )


@pytest.mark.parametrize(("batch", "time"), [(7, 2000), (1, 30000), (3, 9000)])
@pytest.mark.parametrize("n_bytes", [1, 200_000, 1 << 30])  # frame by frame, some clips or stretches, all at once
def test_chunks_change_nothing(monkeypatch, batch, time, n_bytes):
    waveform = noise((batch, time))
    monkeypatch.setattr(mel_matmul, "_CPU_CHUNK_BYTES", n_bytes)
    assert_close(_mel(WHISPER, waveform), mel_spectrogram(waveform, WHISPER), dtype="float32", **TOLERANCES["float32"])


class TestTiltedTones:
    """As in test_mel_numba.py: tones at least four bins apart, 80 dB from the loudest to the quietest."""

    @pytest.mark.parametrize("tilt_db", [-80, 80])
    @pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
    def test_log_mel(self, spec, tilt_db):
        waveform, filters = tilted_tones(spec, tilt_db)
        log_mel = _mel(spec, waveform[None], log_eps=1e-10)[0, filters, 2:-3]
        assert_close(log_mel, mel_spectrogram(waveform, spec, log=True)[filters, 2:-3], atol_log=1e-3, dtype="float32")


# ---- wrong plans on purpose


def _truncated(plan):
    """One residue's bins are never computed."""
    return {"second": plan.second * (np.arange(plan.groups) != 3)[:, None, None]}


def _shifted(plan):
    """The frame is read a sample late."""
    return {"first": np.roll(plan.first, 1, axis=0)}


def _mirrored(plan):
    """A group's residue c stands for -c."""
    second = plan.second.copy()
    second[5, :, 1::2] *= -1
    return {"second": second}


def _exchanged(plan):
    """Two neighbouring slots go to each other's filters."""
    order = np.arange(len(plan.bins))
    order[[40, 41]] = order[[41, 40]]
    return {"filters": plan.filters[:, order]}


def _half_precision(plan):
    return {"second": plan.second.astype(np.float16).astype(np.float64)}


@pytest.mark.parametrize("change", [_truncated, _shifted, _mirrored, _exchanged, _half_precision])
def test_wrong_plans_are_rejected(change):
    waveform = noise((2, 8000))
    expected, plan = mel_spectrogram(waveform, ORIGINAL), _plan(ORIGINAL)
    wrong = dataclasses.replace(plan, **change(plan))
    assert compare(_mel(ORIGINAL, waveform, plan), expected, dtype="float32", **TOLERANCES["float32"]).passed
    assert not compare(_mel(ORIGINAL, waveform, wrong), expected, dtype="float32", **TOLERANCES["float32"]).passed


# ---- gradients

SMALL = {
    "four_step": MelSpec(n_fft=64, hop_length=20, n_mels=5, f_min=100.0),
    "one_matrix": MelSpec(n_fft=7, hop_length=3, n_mels=2, f_max=8000.0),
    "circular_pad": MelSpec(n_fft=12, hop_length=5, pad=3, pad_mode="circular", n_mels=2, f_max=8000.0),
    "magnitude": MelSpec(n_fft=16, hop_length=8, power=1.0, n_mels=3),
    "other_power": MelSpec(n_fft=16, hop_length=8, power=1.7, n_mels=3, pad_mode="replicate"),
    "tiny_hop": MelSpec(n_fft=64, hop_length=1, n_mels=3, center=False),
}


@pytest.mark.parametrize("spec", SMALL.values(), ids=SMALL)
def test_gradients_are_the_numerical_ones(spec):
    waveform = torch.from_numpy(noise((2, 70), "float64")).requires_grad_()
    module = MelSpectrogram.from_spec(spec, backend="matmul", log=True)
    assert torch.autograd.gradcheck(module, (waveform,), fast_mode=True)
    assert torch.autograd.gradgradcheck(module, (waveform,), fast_mode=True)


@pytest.mark.parametrize("log_eps", [None, 1e-10])
@pytest.mark.parametrize("spec", [*SPECS.values(), dataclasses.replace(ORIGINAL, power=1.0)])
def test_gradient_equals_torchaudios(spec, log_eps):
    gradients = []
    for backend in ("matmul", "torchaudio"):
        waveform = torch.from_numpy(noise((2, 6000), "float64")).requires_grad_()
        mel = MelSpectrogram.from_spec(spec, backend=backend, log=log_eps is not None)(waveform)
        mel.backward(torch.from_numpy(noise(mel.shape, "float64", 1)))
        gradients.append(waveform.grad.numpy())
    assert_close(*gradients, rtol_peak=1e-10)


@pytest.mark.parametrize("power", [0.5, 1.0, 1.7, 2.0, 3.0])
def test_gradient_of_silence_is_zero(power):
    """torchaudio's is zero too, but for powers below 1, where it is NaN."""
    spec = MelSpec(n_fft=64, power=power, n_mels=5)
    waveform = torch.zeros(2, 300, requires_grad=True)
    MelSpectrogram.from_spec(spec, backend="matmul", log=True)(waveform).sum().backward()
    assert torch.equal(waveform.grad, torch.zeros(2, 300))
    theirs = torch.zeros(2, 300, requires_grad=True)
    MelSpectrogram.from_spec(spec, backend="torchaudio")(theirs).sum().backward()
    assert theirs.grad.isnan().any() == (power < 1.0)


# ---- graphs


@pytest.fixture(params=["whisper", "odd"])
def captured(request):
    """A module and clips of two batch sizes and two lengths."""
    odd = MelSpec(n_fft=63, win_length=50, hop_length=16, n_mels=6, power=1.0, normalized=True, pad_mode="replicate")
    spec = WHISPER if request.param == "whisper" else odd
    module = MelSpectrogram.from_spec(spec, backend="matmul", log=True)
    return module, [torch.from_numpy(noise(shape)) for shape in ((2, 3000), (5, 4444))]


def _check_graph(graph, module, clips):
    for clip in clips:
        expected = mel_spectrogram(clip.numpy(), module.spec, log=True)
        assert_close(graph(clip).numpy(), expected, atol_log=1e-3, dtype="float32")


def test_compile_keeps_the_graph_whole(captured):
    module, clips = captured
    _check_graph(torch.compile(module, fullgraph=True, backend="aot_eager"), module, clips)


def test_export_with_open_batch_and_time(captured):
    module, clips = captured
    shapes = {"waveform": {0: torch.export.Dim("batch"), 1: torch.export.Dim("time", min=300)}}
    _check_graph(torch.export.export(module, (clips[0],), dynamic_shapes=shapes).module(), module, clips)


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace.*:DeprecationWarning")
def test_trace_with_open_batch_and_time(captured):
    module, clips = captured
    _check_graph(torch.jit.trace(module, (clips[0],)), module, clips)


def test_a_captured_graph_follows_the_modules_own_window_and_filters():
    """Doubled window, and filters that weigh every bin, also those that the spec's own leave out."""
    module, clip = MelSpectrogram.from_spec(ORIGINAL, backend="matmul"), torch.from_numpy(noise((1, 4000)))
    module.spectrogram.window.mul_(2.0)
    module.mel_scale.fb.fill_(0.5)
    expected = mel_spectrogram(clip.numpy(), ORIGINAL, filterbank=np.full((64, 513), 2.0))
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for run in (module, compiled):
        assert_close(run(clip).numpy(), expected, dtype="float32", **TOLERANCES["float32"])


# ---- what is kept, and what must not round


def test_a_changed_filterbank_or_window_is_seen():
    module, waveform = MelSpectrogram.from_spec(ORIGINAL, backend="matmul"), torch.from_numpy(noise((1, 4000)))
    before = module(waveform)
    module.mel_scale.fb.mul_(2.0)
    assert torch.equal(module(waveform), 2 * before)
    module.spectrogram.window.mul_(0.5)
    assert torch.equal(module(waveform), before / 2)
    with torch.inference_mode():
        assert torch.equal(module(waveform), before / 2)


def test_many_settings_are_forgotten_again():
    for n_fft in range(8, 8 + 2 * mel_matmul._KEPT):
        MelSpectrogram(n_fft=n_fft, n_mels=1, f_max=8000.0, backend="matmul")(torch.zeros(300))
    assert len(mel_matmul._constants) <= mel_matmul._KEPT


def test_autocast_and_low_precision_products_do_not_reach_it():
    waveform = torch.from_numpy(noise((2, 4000)))
    module = MelSpectrogram.from_spec(ORIGINAL, backend="matmul")
    expected = mel_spectrogram(waveform.numpy(), ORIGINAL)
    before = torch.get_float32_matmul_precision()
    for needs_gradient, precision in itertools.product((False, True), ("highest", "medium")):
        torch.set_float32_matmul_precision(precision)
        try:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                mel = module(waveform.clone().requires_grad_(needs_gradient)).detach().numpy()
            assert torch.get_float32_matmul_precision() == precision
        finally:
            torch.set_float32_matmul_precision(before)
        assert_close(mel, expected, dtype="float32", **TOLERANCES["float32"])


def test_auto_takes_it_where_a_gradient_is_needed():
    module = MelSpectrogram.from_spec(ORIGINAL)
    assert module.backend == "numba"
    assert module.backend_for(torch.zeros(4000, requires_grad=True)) == "matmul"
    prime = MelSpec(n_fft=4099, n_mels=8)
    assert MelSpectrogram.from_spec(prime).backend_for(torch.zeros(5000, requires_grad=True)) == "torchaudio"
