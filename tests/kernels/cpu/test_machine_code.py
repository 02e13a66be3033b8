"""The promise: which code, width and threads each kind of input reaches, seen from within; and any threads give the
same bits, whoever calls and wherever the process was forked.
"""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from tests.kernels.inputs import arrays_of, in_a_new_process, noise
from triadbench.kernels import ORIGINAL, SPECS, WHISPER, MelSpec, MelSpectrogram
from triadbench.kernels.cpu import machine_code, mel_numba
from triadbench.kernels.cpu import plan as numba_plan


def _last_prepared():
    """What the last new setting was prepared as."""
    return list(mel_numba._prepared.values())[-1]


# ---- threads


class TestThreads:
    @pytest.fixture(autouse=True)
    def _restore(self):
        before = torch.get_num_threads()
        yield
        torch.set_num_threads(before)

    @pytest.mark.parametrize(("batch", "time"), [(1, 64000), (7, 64000), (1, 600)])
    def test_any_number_gives_the_same_bits(self, batch, time):
        module, waveform = MelSpectrogram.from_spec(ORIGINAL, backend="numba"), torch.from_numpy(noise((batch, time)))
        torch.set_num_threads(1)
        alone = module(waveform)
        for n_threads in (2, 3, 5):
            torch.set_num_threads(n_threads)
            assert torch.equal(module(waveform), alone)

    @pytest.fixture
    def ran(self, monkeypatch):
        """What each call ran on: (who, threads)."""
        seen, run = [], machine_code.run

        def watched(address, job, n_threads):
            seen.append((run(address, job, n_threads), n_threads))

        monkeypatch.setattr(machine_code, "run", watched)
        return seen

    def test_torchs_number_is_what_runs(self, ran):
        module = MelSpectrogram.from_spec(ORIGINAL, backend="numba")
        for n_threads in (1, 3):
            torch.set_num_threads(n_threads)
            module(torch.zeros(8, 64000))
        module(torch.zeros(1, 600))  # too little work to wake anyone
        assert [n_threads for _, n_threads in ran] == [1, 3, 1]
        assert ran[0][0] == ran[2][0] == "caller"
        assert ran[1][0] == ("openmp" if machine_code._openmp() else "pool")

    def test_the_frames_of_one_clip_are_shared(self, ran):
        """Each thread takes a scratch memory of the job, and groups from its counter: for one clip, of 16 frames."""
        spec, arrays = ORIGINAL, arrays_of(ORIGINAL)
        waveform = torch.from_numpy(noise((1, 64000)))
        torch.set_num_threads(2)
        mel_numba.compute(waveform, spec, *arrays, None)
        assert [n_threads for _, n_threads in ran] == [2]
        (job,) = _last_prepared().jobs
        groups = -(-spec.n_frames(64000) // machine_code.host_lanes(4))
        assert job.slots[numba_plan.NEXT_AREA] == 2
        assert job.slots[numba_plan.COUNTER] == groups + 2  # one group at a time, and once for nothing left
        assert job.slots[numba_plan.GRAIN] == 1

    def test_chunks_of_many_clips(self, ran):
        spec, arrays = ORIGINAL, arrays_of(ORIGINAL)
        torch.set_num_threads(2)
        mel_numba.compute(torch.zeros(64, 64000), spec, *arrays, None)
        (job,) = _last_prepared().jobs
        assert job.slots[numba_plan.GRAIN] == 64 * -(-126 // machine_code.host_lanes(4)) // 16

    def test_pythons_pool_where_openmp_is_missing(self, ran, monkeypatch):
        module, waveform = MelSpectrogram.from_spec(ORIGINAL, backend="numba"), torch.from_numpy(noise((2, 64000)))
        expected = module(waveform)
        monkeypatch.setattr(machine_code, "_openmp", lambda: None)
        torch.set_num_threads(3)
        assert torch.equal(module(waveform), expected)
        assert ran[-1] == ("pool", 3)

    def test_no_openmp_is_found_without_its_function(self, monkeypatch):
        class Empty:
            def __init__(self, name):
                pass

        monkeypatch.setattr(machine_code.ctypes, "CDLL", Empty)
        assert machine_code._openmp.__wrapped__() is None

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
    def test_a_forked_child_has_threads_of_its_own(self):
        expected = "openmp" if machine_code._openmp() else "pool"
        assert in_a_new_process(FORKED) == [expected, "pool", "True"]
        without = FORKED.replace("who, run", "machine_code._openmp = lambda: None\nwho, run", 1)
        assert in_a_new_process(without) == ["pool", "pool", "True"]

    def test_callers_at_the_same_time(self):
        torch.set_num_threads(2)
        modules = [MelSpectrogram.from_spec(spec, backend="numba") for spec in SPECS.values()]
        waveforms = [torch.from_numpy(noise((3, 16000), seed=seed)) for seed in range(4)]
        expected = {(i, j): modules[i](waveforms[j]) for i in range(3) for j in range(4)}
        with ThreadPoolExecutor(6) as callers:
            jobs = [(i, j, callers.submit(modules[i], waveforms[j])) for _ in range(15) for i, j in expected]
            for i, j, job in jobs:
                assert torch.equal(job.result(), expected[i, j])

    def test_an_error_in_a_helper_reaches_the_caller(self, monkeypatch):
        begun = threading.Event()

        def work(job):
            if threading.current_thread() is not threading.main_thread():
                begun.set()
                raise RuntimeError("a helper failed")
            assert begun.wait(10)

        monkeypatch.setattr(machine_code, "_openmp", lambda: None)
        monkeypatch.setattr(machine_code, "entry", lambda address: work)
        with pytest.raises(RuntimeError, match="a helper failed"):
            machine_code.run(0, 0, 2)


FORKED = """
import os, signal, torch
from triadbench.kernels import ORIGINAL, MelSpectrogram
from triadbench.kernels.cpu import machine_code
torch.set_num_threads(2)
module, waveform = MelSpectrogram.from_spec(ORIGINAL, backend="numba"), torch.ones(2, 64000)
who, run = [], machine_code.run
machine_code.run = lambda *arguments: who.append(run(*arguments))
expected = module(waveform)
read, write = os.pipe()
child = os.fork()
if not child:
    signal.alarm(30)
    os.write(write, f"{who[-1]} {(module(waveform), who[-1])[1]} {torch.equal(module(waveform), expected)}".encode())
    os._exit(0)
os.waitpid(child, 0)
print(os.read(read, 100).decode())
"""


# ---- which way an input takes


class TestDispatch:
    """Seen, not believed: what each kind of input reaches."""

    @pytest.fixture
    def computed(self, monkeypatch):
        """(samples' dtype, result's dtype) of each call of the kernel."""
        seen, compute = [], mel_numba.compute

        def watched(waveform, spec, window, *rest):
            seen.append((waveform.dtype, window.dtype))
            return compute(waveform, spec, window, *rest)

        monkeypatch.setattr(mel_numba, "compute", watched)
        return seen

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int16])
    @pytest.mark.parametrize("layout", ["plain", "transposed", "expanded", "one_clip", "four_dimensions"])
    def test_dtypes_and_layouts(self, computed, dtype, layout):
        waveform = torch.from_numpy(noise((4, 3, 2000), "int16")).to(dtype)
        view = {
            "plain": waveform[0],
            "transposed": waveform.transpose(0, 1),
            "expanded": waveform[:1, :1].expand(5, 3, 2000),
            "one_clip": waveform[1, 2],
            "four_dimensions": waveform[None],
        }[layout]
        MelSpectrogram.from_spec(WHISPER)(view)
        assert computed == [(dtype, torch.float64 if dtype == torch.float64 else torch.float32)]

    def test_gradients_and_other_devices_go_elsewhere(self, computed):
        module = MelSpectrogram.from_spec(WHISPER)
        waveform = torch.zeros(2, 2000, requires_grad=True)
        module(waveform)
        assert module.backend_for(torch.zeros(2, 2000, device="meta")) != "numba"
        assert not computed
        with torch.no_grad():
            module(waveform)
        with torch.inference_mode():
            module(waveform)
        assert len(computed) == 2

    def test_a_subclass_and_a_fake_tensor_go_through_the_operator(self, computed):
        module, waveform = MelSpectrogram.from_spec(WHISPER), torch.from_numpy(noise((2, 2000)))
        expected = module(waveform)
        assert torch.equal(module(torch.nn.Parameter(waveform, requires_grad=False)), expected)
        before = len(computed)
        module = MelSpectrogram.from_spec(WHISPER)  # one that has kept nothing
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            mel = module(mode.from_tensor(waveform))
        assert (tuple(mel.shape), mel.dtype, type(mel)) == ((2, 80, 13), torch.float32, FakeTensor)
        assert len(computed) == before  # its shape function alone
        assert torch.equal(module(waveform), expected)

    @pytest.mark.parametrize("lanes", [4, 8, 16])
    def test_edges_are_copied_and_the_interior_is_not(self, lanes):
        """The columns' addresses that the last group left: in the copy where a column crosses an end, in the clip else."""
        spec = MelSpec(n_fft=64, hop_length=32, n_mels=8)
        arrays = arrays_of(spec)
        waveform = torch.from_numpy(noise((1, 32 * lanes * 4)))
        mel_numba.compute(waveform, spec, *arrays, None, lanes)  # too small for a second thread
        (job,) = _last_prepared().jobs
        edges, addresses = job.areas[0][3], job.areas[0][4]
        first, size = waveform.data_ptr(), 4 * waveform.numel()
        in_clip = (addresses >= first) & (addresses < first + size)
        in_copy = (addresses >= edges.ctypes.data) & (addresses < edges.ctypes.data + edges.nbytes)
        assert (in_clip | in_copy).all()
        # The last of 5 groups holds frame 4 lanes alone, whose two columns lie on both sides of the last sample.
        assert in_clip[0] and in_copy[1:].all()

    def test_the_width_is_the_hosts(self):
        assert mel_numba.plan_for(ORIGINAL).lanes == machine_code.host_lanes(4)
        assert machine_code.host_lanes(8) == max(2, machine_code.host_lanes(4) // 2)

    @pytest.mark.parametrize(("features", "lanes"), [("+avx,+avx512f", 16), ("+avx,+avx2", 8), ("+sse2", 4)])
    def test_the_width_of_other_hosts(self, monkeypatch, features, lanes):
        monkeypatch.setattr(machine_code, "host_processor", lambda: ("other", tuple(features.split(","))))
        assert machine_code.host_lanes.__wrapped__(4) == lanes
