"""The promise: on a GPU the CUDA kernel gives the reference's numbers, runs on torch's stream and inside a CUDA graph,
and allocates nothing but its output; its tables outlive whoever reads them.

Tolerances: as in test_mel_cuda.py. A spec that only these tests compute belongs to cuda_cases.ON_GPU as well.
"""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from tests.kernels.cuda_cases import (
    AGAINST_REFERENCE,
    BESIDE_A_CAPTURE,
    FEW_FILTERS,
    FLOAT32,
    SIZES,
    TONE_LIMITS,
    TONES,
    of_size,
    reference_mel,
    tone_frames,
)
from tests.kernels.inputs import arrays_of, noise
from triadbench.kernels import ORIGINAL, SPECS, WHISPER, MelSpectrogram
from triadbench.kernels.compare import assert_close
from triadbench.kernels.gpu import mel_cuda
from triadbench.kernels.mel_reference import mel_spectrogram


def _module(spec, **settings):
    return MelSpectrogram.from_spec(spec, backend="cuda", **settings).cuda()


def _on_gpu(spec, waveform, **settings):
    return _module(spec, **settings)(torch.from_numpy(waveform).cuda()).cpu().numpy()


def _captured(module, waveform):
    """The graph of one call, and its output."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        mel = module(waveform)
    return graph, mel


def _check_replays(graph, mel, waveform):
    """Of ORIGINAL in log mel, for fresh samples."""
    for seed in (1, 2):
        fresh = noise(waveform.shape, seed=seed)
        waveform.copy_(torch.from_numpy(fresh))
        mel.fill_(torch.nan)
        graph.replay()
        expected = mel_spectrogram(fresh, ORIGINAL, log=True)
        assert_close(mel.cpu().numpy(), expected, atol_log=2e-4, dtype="float32")


@pytest.mark.gpu
class TestOnGpu:
    @pytest.mark.parametrize("name", [name for name, case in AGAINST_REFERENCE.items() if not case.arrays])
    def test_against_reference(self, name):
        case = AGAINST_REFERENCE[name]
        tolerances = {"atol_log": 2e-5} if case.log else FLOAT32
        assert_close(
            _on_gpu(case.spec, case.waveform, log=case.log), reference_mel(case), dtype="float32", **tolerances
        )

    @pytest.mark.parametrize("n_fft", SIZES)
    def test_sizes(self, n_fft):
        spec, waveform = of_size(n_fft), noise((2, 50000))
        assert_close(_on_gpu(spec, waveform), mel_spectrogram(waveform, spec), dtype="float32", **FLOAT32)

    @pytest.mark.parametrize("dtype", ["float32", "int16"])
    @pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
    def test_specs_at_length(self, spec, dtype):
        waveform = noise((5, 64000), dtype)
        assert_close(_on_gpu(spec, waveform), mel_spectrogram(waveform, spec), dtype="float32", **FLOAT32)

    @pytest.mark.parametrize("name", TONES)
    def test_tilted_tones(self, name):
        case = TONES[name]
        spec = SPECS[name.split("_")[1]]
        filters = tone_frames(spec, int(name.split("_")[2]))[1]
        mel = _on_gpu(case.spec, case.waveform, log=True)
        limit = TONE_LIMITS[name.split("_")[1]]
        assert_close(mel[:, filters], reference_mel(case)[:, filters], atol_log=limit, dtype="float32")

    def test_auto_takes_it(self):
        waveform = torch.zeros(2, 4000, device="cuda")
        module = MelSpectrogram.from_spec(ORIGINAL).cuda()
        assert module.backend_for(waveform) == "cuda"
        assert module.backend_for(waveform.double()) != "cuda"
        assert module.backend_for(waveform.requires_grad_()) != "cuda"

    def test_graph_capture_and_replay(self):
        module, waveform = _module(ORIGINAL, log=True), torch.from_numpy(noise((4, 16000))).cuda()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            module(waveform)
        torch.cuda.current_stream().wait_stream(side)
        _check_replays(*_captured(module, waveform), waveform)

    def test_it_runs_on_the_current_stream(self):
        """Work queued before it on the stream is seen, though the default stream knows nothing of it."""
        module, waveform = _module(WHISPER), torch.zeros(8, 64000, device="cuda")
        module(waveform)
        fresh, stream = torch.from_numpy(noise((8, 64000))).cuda(), torch.cuda.Stream()
        torch.cuda.synchronize()
        with torch.cuda.stream(stream):
            torch.cuda._sleep(50_000_000)
            waveform.copy_(fresh)
            mel = module(waveform)
        assert not stream.query(), "the call waited for the stream"
        stream.synchronize()
        expected = mel_spectrogram(fresh.cpu().numpy(), WHISPER)
        assert_close(mel.cpu().numpy(), expected, dtype="float32", **FLOAT32)

    def test_nothing_but_the_output_is_allocated(self):
        module, waveform = _module(ORIGINAL), torch.zeros(64, 64000, device="cuda")
        module(waveform)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        mel = module(waveform)
        assert torch.cuda.max_memory_allocated() - before <= mel.numel() * 4 + 512

    def test_compiled_without_a_break(self):
        module, waveform = _module(ORIGINAL, log=True), torch.from_numpy(noise((2, 16000))).cuda()
        compiled = torch.compile(lambda x: module(2.0 * x) + 1.0, fullgraph=True)
        torch.testing.assert_close(compiled(waveform), module(2.0 * waveform) + 1.0)

    def test_operator_passes_torchs_own_check(self):
        assert mel_cuda.why_unavailable() is None  # registers it
        spec = FEW_FILTERS
        window, filters = arrays_of(spec)
        inputs = (torch.zeros(2, 300).cuda(), window.cuda(), filters.mT.cuda(), spec.text, None)
        torch.library.opcheck(torch.ops.triadbench.mel_cuda.default, inputs)

    def test_layouts(self):
        module, waveform = _module(WHISPER), torch.from_numpy(noise((4, 3, 2001))).cuda()
        for view in (
            waveform.transpose(0, 1),
            waveform[:, :, ::2],
            waveform[:, :, 1:],
            waveform[:1].expand(5, 3, 2001),
        ):
            expected = mel_spectrogram(view.cpu().numpy(), WHISPER)
            assert_close(module(view).cpu().numpy(), expected, dtype="float32", **FLOAT32)
        assert module(waveform[:0]).shape == (0, 3, 80, 13)

    def test_a_changed_filterbank_is_seen(self):
        module, waveform = _module(WHISPER), torch.from_numpy(noise((1, 2000))).cuda()
        once = module(waveform)
        module.mel_scale.fb.mul_(2.0)
        torch.testing.assert_close(module(waveform), 2.0 * once)

    def test_threads_with_streams_of_their_own(self):
        waveforms = [noise((3, 16000), seed=i) for i in range(6)]
        expected = [mel_spectrogram(w, ORIGINAL) for w in waveforms]
        module, found = _module(ORIGINAL), [None] * len(waveforms)

        def work(i):
            with torch.cuda.stream(torch.cuda.Stream()):
                waveform = torch.from_numpy(waveforms[i]).cuda()
                for _ in range(50):
                    mel = module(waveform)
                found[i] = mel.cpu().numpy()

        threads = [threading.Thread(target=work, args=(i,)) for i in range(len(waveforms))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for mel, wanted in zip(found, expected, strict=True):
            assert_close(mel, wanted, dtype="float32", **FLOAT32)

    def test_threads_that_prepare_one_setting_while_a_third_reads(self, monkeypatch):
        waveform, rounds, prepare, prepared = noise((3, 16000)), 20, mel_cuda._prepare, []
        monkeypatch.setattr(mel_cuda, "_prepare", lambda *a: prepared.append(1) or prepare(*a))
        module, on_gpu, together = _module(ORIGINAL), torch.from_numpy(waveform).cuda(), threading.Barrier(3)

        def work(i):
            mels = []
            with torch.cuda.stream(torch.cuda.Stream()):
                for _ in range(rounds):
                    if together.wait(60) == 0:
                        module.mel_scale.fb.mul_(1.0)  # another version, which nobody has prepared
                        torch.cuda.synchronize()
                    together.wait(60)
                    mels += [module(on_gpu) for _ in range(1 + 4 * (i == 2))][-1:]
                torch.cuda.synchronize()
            return mels

        with ThreadPoolExecutor(3) as threads:
            found = [mel for mels in threads.map(work, range(3)) for mel in mels]
        assert len(prepared) == rounds
        for mel in found:
            assert torch.equal(mel, found[0])
        assert_close(found[0].cpu().numpy(), mel_spectrogram(waveform, ORIGINAL), dtype="float32", **FLOAT32)

    def test_a_graph_outlives_its_settings_place_in_the_cache(self):
        """The memory of dropped tables is used again, for others that would give other values."""
        module, waveform = _module(ORIGINAL, log=True), torch.from_numpy(noise((4, 16000))).cuda()
        module(waveform)
        graph, mel = _captured(module, waveform)
        others, allocated = mel_cuda._PREPARED_KEPT + 6, []
        for _ in range(2):
            for i in range(others):
                other = _module(ORIGINAL, log=True)
                other.mel_scale.fb.mul_(2.0 + i)
                other(waveform)
            del other
            torch.cuda.synchronize()
            allocated.append(torch.cuda.memory_allocated())
        address = module.spectrogram.window.data_ptr()
        assert all(prepared.keep[0].data_ptr() != address for prepared in mel_cuda._prepared.values())
        assert allocated[1] <= allocated[0], "tables that were dropped take memory"
        _check_replays(graph, mel, waveform)

    def test_a_first_call_during_capture_leaves_the_capture_valid(self):
        module, waveform = _module(ORIGINAL, log=True), torch.from_numpy(noise((4, 16000))).cuda()
        total, graph = torch.zeros(1, device="cuda"), torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            total.add_(1.0)
            with pytest.raises(RuntimeError, match="is not prepared on cuda:0, .*; call once with the same settings"):
                module(waveform)
        graph.replay()
        assert total.item() == 1.0
        module(waveform)
        _check_replays(*_captured(module, waveform), waveform)

    def test_preparing_beside_another_threads_capture(self):
        """Compiles, loads, allocates and waits, all of which that capture's mode forbids to other threads.

        It forbids torch's own allocations as well, so that the output is to find memory beside a tensor that is kept:
        torch gives back all that is wholly free before a capture.
        """
        module, waveform = _module(ORIGINAL, log=True), torch.from_numpy(noise((4, 16000))).cuda()
        other, samples = _module(BESIDE_A_CAPTURE), noise((2, 4000))
        on_gpu, graph = torch.from_numpy(samples).cuda(), torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream(priority=-1)  # not one that the capture may have been given
        module(waveform)
        with torch.cuda.stream(stream):
            kept = torch.empty(1, device="cuda")
        torch.cuda.synchronize()

        def work():
            with torch.cuda.stream(stream):
                return other(on_gpu)

        with torch.cuda.graph(graph), ThreadPoolExecutor(1) as aside:
            mel = module(waveform)
            beside = aside.submit(work).result()
        torch.cuda.synchronize()
        assert_close(beside.cpu().numpy(), mel_spectrogram(samples, other.spec), dtype="float32", **FLOAT32)
        assert kept.shape == (1,)
        _check_replays(graph, mel, waveform)

    @pytest.mark.filterwarnings("default")  # torch.compile's own
    @pytest.mark.parametrize("inference", [False, True])
    def test_compiled_with_cuda_graphs(self, inference):
        module, captured = _module(ORIGINAL, log=True), len(mel_cuda._captured)
        compiled = torch.compile(lambda x: module(2.0 * x) + 1.0, mode="reduce-overhead", fullgraph=True)
        with torch.inference_mode(inference):
            for seed in range(5):
                waveform = noise((2, 16000), seed=seed)
                mel = compiled(torch.from_numpy(waveform).cuda()).cpu().numpy()
                expected = mel_spectrogram(2.0 * waveform, ORIGINAL, log=True)
                assert_close(mel - 1.0, expected, atol_log=2e-4, dtype="float32")
        assert len(mel_cuda._captured) == captured + 1, "no graph was captured"

    @pytest.mark.filterwarnings("ignore:Synchronization debug mode")
    @pytest.mark.parametrize("how", ["made", "moved", "called"])
    def test_inference_mode_waits_for_nothing(self, how):
        with torch.inference_mode(how == "made"):
            module = MelSpectrogram.from_spec(ORIGINAL, backend="cuda")
        with torch.inference_mode(how != "called"):
            module.cuda()
        waveform = torch.from_numpy(noise((2, 16000))).cuda()
        with torch.inference_mode():
            once = module(waveform)
            torch.cuda.set_sync_debug_mode("error")
            try:
                mel = module(waveform)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        assert torch.equal(mel, once)

    @pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
    def test_second_device(self):
        waveform = noise((2, 4000))
        module = MelSpectrogram.from_spec(ORIGINAL, backend="cuda").to("cuda:1")
        mel = module(torch.from_numpy(waveform).to("cuda:1"))
        assert mel.device == torch.device("cuda:1")
        assert_close(mel.cpu().numpy(), mel_spectrogram(waveform, ORIGINAL), dtype="float32", **FLOAT32)
