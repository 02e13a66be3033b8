"""The promise: the CUDA backend says what it lacks, for settings, sizes and machines, and takes all that it can."""

import numpy as np
import pytest
import torch

from tests.kernels.inputs import in_a_new_process
from triadbench.kernels import ORIGINAL, MelSpec, MelSpectrogram, available_backends
from triadbench.kernels.gpu import mel_cuda
from triadbench.kernels.gpu import plan as cuda_plan
from triadbench.kernels.spec import largest_prime


@pytest.mark.parametrize(
    ("spec", "wanted", "reason"),
    [
        (MelSpec(n_fft=77), {}, "n_fft=77 must be a product of 2, 3 and 5"),
        (MelSpec(n_fft=32768), {}, "n_fft=32768 needs more than the 101376 bytes of shared memory"),
        (ORIGINAL, {"dtype": "float64"}, "it computes in float32 and the input is float64"),
        (ORIGINAL, {"device": "cpu"}, "it runs on an NVIDIA GPU and the input is on cpu"),
        (ORIGINAL, {"needs_gradient": True}, "it has no gradient"),
    ],
)
def test_what_it_lacks(spec, wanted, reason):
    asked = {"dtype": "float32", "device": "cuda", "needs_gradient": False} | wanted
    assert mel_cuda.why_unsupported(spec, **asked).startswith(reason)


def test_every_smooth_size_to_the_limit_has_a_plan_that_fits():
    for n_fft in (*range(1, 400), 1000, 1024, 4096, 8192, 16384, 2 * 3**8, 3**9, 5**6, 20000):
        reason = cuda_plan.why_not(n_fft)
        assert (reason is None) == (largest_prime(n_fft) <= 5)
        if reason is None:
            plan = cuda_plan.make_plan(n_fft, n_fft, 1, n_fft // 2 + 1, "float32", "reflect", "power", False)
            assert plan.real_radix * np.prod(plan.radices) == n_fft
            assert plan.shared_bytes <= cuda_plan.SHARED_LIMIT
            in_last_pass = plan.frames // plan.together(2 * plan.last) * plan.n_residues * plan.groups
            assert in_last_pass <= plan.threads <= 512


def test_positions_beyond_32_bits_are_refused():
    plan = mel_cuda.plan_for(ORIGINAL)
    assert mel_cuda.geometry(plan, ORIGINAL, 512, 64000, None)[0] == 512 * -(-126 // plan.frames)
    with pytest.raises(ValueError, match=r"waveform shape=\(1, 1073741824\) gives positions above 1073741824"):
        mel_cuda.geometry(plan, ORIGINAL, 1, 2**30, None)
    with pytest.raises(ValueError, match=r"waveform shape=\(2147483647, 64000\) .* more than 2\*\*31 blocks"):
        mel_cuda.geometry(plan, ORIGINAL, 2**31 - 1, 64000, None)


def test_where_there_is_a_gpu_a_module_for_it_is_made_on_the_cpu(monkeypatch):
    monkeypatch.setattr(mel_cuda, "why_unavailable", lambda: None)
    module = MelSpectrogram.from_spec(ORIGINAL, backend="cuda")
    assert module._choose("float32", "cuda", False) == "cuda"
    with pytest.raises(RuntimeError, match="it runs on an NVIDIA GPU and the input is on cpu; backends that can: "):
        module(torch.zeros(1, 4000))
    with pytest.raises(RuntimeError, match="n_fft=77 must be a product of 2, 3 and 5"):
        MelSpectrogram.from_spec(MelSpec(n_fft=77), backend="cuda")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
class TestWithoutGpu:
    def test_the_reason_is_told(self):
        assert available_backends()["cuda"] == mel_cuda.why_unavailable()
        assert "torch" in mel_cuda.why_unavailable()
        with pytest.raises(RuntimeError, match="backend='cuda' cannot compute this: .*; backends that can: numba"):
            MelSpectrogram.from_spec(ORIGINAL, backend="cuda")

    def test_asking_loads_no_numba(self):
        code = (
            "from triadbench.kernels.gpu import mel_cuda; mel_cuda.why_unavailable(); import sys; print(*sys.modules)"
        )
        assert not {"numba", "numba_cuda", "cuda.bindings"} & set(in_a_new_process(code))
