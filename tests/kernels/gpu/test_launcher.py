"""The promise, with stand-ins for the GPU: tables are prepared once a setting whoever asks first, are read by every
launch until it is done, stay for good where a graph has captured them, and are never made during a capture.

What only a GPU can show is in test_on_gpu.py.
"""

import contextlib
import threading
import types
import weakref

import pytest
import torch

from tests.kernels.inputs import arrays_of, noise
from triadbench.kernels import MelSpec
from triadbench.kernels.gpu import mel_cuda
from triadbench.kernels.torch_operator import BoundedCache

SPEC = MelSpec(n_fft=16, n_mels=2)
CLIPS = torch.from_numpy(noise((2, 100)))


class Gpu:
    """Notes what is asked of torch and of the driver: `events` in order, with the thread that asked."""

    def __init__(self):
        self.events, self.capturing, self.local = [], False, threading.local()

    def note(self, *event):
        self.events.append(event)

    def named(self, name):
        return [event[1:] for event in self.events if event[0] == name]

    def stream(self, handle):
        return types.SimpleNamespace(
            cuda_stream=handle,
            wait_stream=lambda other: self.note("wait", handle, other.cuda_stream),
            synchronize=lambda: self.note("synchronize", handle),
        )

    def __getattr__(self, name):
        """The driver's functions: no error, and a number."""
        if not name.startswith("cu"):
            raise AttributeError(name)

        def call(*arguments):
            self.note(name, *arguments, threading.get_ident())
            return 0, 70 + len(self.events)

        return call

    CUstreamCaptureMode = types.SimpleNamespace(CU_STREAM_CAPTURE_MODE_RELAXED="relaxed")
    CUstream_flags = types.SimpleNamespace(CU_STREAM_NON_BLOCKING=1)


@pytest.fixture
def gpu(monkeypatch):
    fake = Gpu()
    entered = lambda what: contextlib.nullcontext()  # noqa: E731
    for name, value in {
        "device": entered,
        "stream": entered,
        "current_stream": lambda device=None: fake.stream(getattr(fake.local, "stream", 1)),
        "is_current_stream_capturing": lambda: fake.capturing,
        "ExternalStream": lambda handle, device: fake.stream(handle),
        "get_device_capability": lambda device: (9, 0),
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda t, s: fake.note("read", t.data_ptr(), s.cuda_stream))
    monkeypatch.setattr(mel_cuda, "_driver", lambda: fake)
    monkeypatch.setattr(mel_cuda, "_prepared", BoundedCache(3))
    monkeypatch.setattr(mel_cuda, "_captured", {})
    monkeypatch.setattr(mel_cuda.gpu_compile, "machine_code", lambda plan, arch: fake.note("code", arch) or b"code")
    for cached in (mel_cuda._context, mel_cuda._own_stream, mel_cuda._kernel):
        cached.cache_clear()
    monkeypatch.setattr(mel_cuda, "launch", lambda kernel, n, pointers, *rest: fake.note("launch", *pointers, rest[-1]))
    yield fake
    for cached in (mel_cuda._context, mel_cuda._own_stream, mel_cuda._kernel):
        cached.cache_clear()


def _arrays():
    return arrays_of(SPEC)


def _only():
    """The one setting that is kept."""
    (prepared,) = mel_cuda._prepared.values()
    return prepared


class TestPreparing:
    def test_the_tables_lie_together_behind_their_addresses(self, gpu):
        window, filterbank = _arrays()
        mel_cuda.compute(CLIPS, SPEC, window, filterbank, None)
        prepared = _only()
        tables, bands = mel_cuda.tables_of(prepared.kernel.plan, SPEC, window.numpy(), filterbank.numpy())
        assert prepared.memory.numpy().tobytes() == tables.tobytes() + bands.tobytes()
        assert prepared.tables == (prepared.memory.data_ptr(), prepared.memory.data_ptr() + tables.nbytes)
        assert gpu.named("launch")[0][2:] == (*prepared.tables, 1)
        assert prepared.keep == (window, filterbank)

    def test_it_happens_in_a_thread_that_another_ones_capture_does_not_stop(self, gpu):
        """After the caller's stream, on a stream of its own, which is waited for before any other may read."""
        gpu.local.stream = 5
        with torch.inference_mode():
            mel_cuda.compute(CLIPS, SPEC, *_arrays(), None)
        names = [event[0] for event in gpu.events]
        assert names.index("cuThreadExchangeStreamCaptureMode") < names.index("cuCtxSetCurrent") < names.index("wait")
        assert names.index("wait") < names.index("synchronize") < names.index("launch")
        (mode, thread), ((own, caller),) = gpu.named("cuThreadExchangeStreamCaptureMode")[0], gpu.named("wait")
        assert mode == "relaxed" and thread != threading.get_ident()
        assert caller == 5 and own not in (0, 5) and gpu.named("synchronize") == [(own,)]
        assert not _only().memory.is_inference()

    def test_threads_that_meet_prepare_once(self, gpu, monkeypatch):
        arrays, prepare = _arrays(), mel_cuda._prepare
        gate, waiting = threading.Event(), threading.Barrier(5)

        def slow(*arguments):
            gpu.note("prepare")
            assert gate.wait(60)
            return prepare(*arguments)

        def work():
            waiting.wait(60)
            mel_cuda.compute(CLIPS, SPEC, *arrays, None)

        monkeypatch.setattr(mel_cuda, "_prepare", slow)
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        waiting.wait(60)
        while not gpu.named("prepare"):
            pass
        gate.set()
        for thread in threads:
            thread.join()
        assert len(gpu.named("prepare")) == len(gpu.named("cuModuleLoadData")) == 1
        assert len({pointers[2:4] for pointers in gpu.named("launch")}) == 1

    def test_a_failure_is_raised_here_and_not_kept(self, gpu, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
            with pytest.raises(RuntimeError, match=r"needs compute capability 8.0, this GPU has 7.5"):
                mel_cuda.compute(CLIPS, SPEC, *_arrays(), None)
        assert not mel_cuda._prepared
        mel_cuda.compute(CLIPS, SPEC, *_arrays(), None)

    def test_later_calls_wait_for_nothing(self, gpu):
        arrays = _arrays()
        mel_cuda.compute(CLIPS, SPEC, *arrays, None)
        gpu.events.clear()
        mel_cuda.compute(CLIPS, SPEC, *arrays, None)
        assert [event[0] for event in gpu.events] == ["launch", "read"]


class TestMemory:
    def test_every_stream_that_reads_is_recorded_after_its_launch(self, gpu):
        arrays = _arrays()
        for gpu.local.stream in (5, 6, 5):
            mel_cuda.compute(CLIPS, SPEC, *arrays, None)
        address = _only().memory.data_ptr()
        assert gpu.named("read") == [(address, 5), (address, 6), (address, 5)]
        assert [event[0] for event in gpu.events if event[0] in ("launch", "read")] == ["launch", "read"] * 3

    def _memory_after(self, gpu, captured):
        """A weak reference to the tables of a setting, after as many others as are kept."""
        arrays = _arrays()
        mel_cuda.compute(CLIPS, SPEC, *arrays, None)
        gpu.capturing = captured
        mel_cuda.compute(CLIPS, SPEC, *arrays, None)
        gpu.capturing = False
        memory = weakref.ref(_only().memory)
        others = [_arrays() for _ in range(3)]
        for other in others:
            mel_cuda.compute(CLIPS, SPEC, *other, None)
        assert len(mel_cuda._prepared) == 3
        return memory

    def test_the_oldest_is_dropped(self, gpu):
        assert self._memory_after(gpu, captured=False)() is None

    def test_what_a_graph_has_captured_stays(self, gpu):
        memory = self._memory_after(gpu, captured=True)()
        assert memory is not None
        assert len(mel_cuda._captured) == 1
        assert (memory.data_ptr(), 1) in gpu.named("read")


class TestCapture:
    def test_the_first_call_is_refused_before_anything_is_asked(self, gpu):
        gpu.capturing = True
        with pytest.raises(RuntimeError, match=r"n_fft=16.* is not prepared on cpu, .*; call once with the same"):
            mel_cuda.compute(CLIPS, SPEC, *_arrays(), None)
        assert not gpu.events and not mel_cuda._prepared

    def test_a_prepared_call_is_only_a_launch(self, gpu):
        arrays = _arrays()
        mel_cuda.compute(CLIPS, SPEC, *arrays, None)
        gpu.events.clear()
        gpu.capturing = True
        mel_cuda.compute(CLIPS, SPEC, *arrays, None)
        assert [event[0] for event in gpu.events] == ["launch"]

    def test_another_dtype_log_or_version_is_another_setting(self, gpu):
        window, filterbank = _arrays()
        mel_cuda.compute(CLIPS, SPEC, window, filterbank, None)
        gpu.capturing = True
        for clips, log_eps in ((CLIPS.to(torch.int16), None), (CLIPS, 1e-10)):
            with pytest.raises(RuntimeError, match="is not prepared"):
                mel_cuda.compute(clips, SPEC, window, filterbank, log_eps)
        filterbank.mul_(2.0)
        with pytest.raises(RuntimeError, match="is not prepared"):
            mel_cuda.compute(CLIPS, SPEC, window, filterbank, None)
