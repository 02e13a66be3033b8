"""The promise: on a GPU the CUDA kernel gives the reference's numbers, runs on torch's stream and inside a CUDA graph,
and allocates nothing but its output.

Tolerances: as in test_mel_cuda.py.
"""

import threading

import pytest
import torch

from tests.kernels.cuda_cases import AGAINST_REFERENCE, FLOAT32, TONE_LIMITS, TONES, reference_mel, tone_frames
from tests.kernels.inputs import arrays_of, noise
from triadbench.kernels import ORIGINAL, SPECS, WHISPER, MelSpec, MelSpectrogram
from triadbench.kernels.compare import assert_close
from triadbench.kernels.mel_reference import mel_spectrogram


def _module(spec, **settings):
    return MelSpectrogram.from_spec(spec, backend="cuda", **settings).cuda()


def _on_gpu(spec, waveform, **settings):
    return _module(spec, **settings)(torch.from_numpy(waveform).cuda()).cpu().numpy()


@pytest.mark.gpu
class TestOnGpu:
    @pytest.mark.parametrize("name", [name for name, case in AGAINST_REFERENCE.items() if not case.arrays])
    def test_against_reference(self, name):
        case = AGAINST_REFERENCE[name]
        tolerances = {"atol_log": 2e-5} if case.log else FLOAT32
        assert_close(
            _on_gpu(case.spec, case.waveform, log=case.log), reference_mel(case), dtype="float32", **tolerances
        )

    @pytest.mark.parametrize("n_fft", [8, 60, 512, 1000, 2048, 6561, 8192, 16384, 20000])
    def test_sizes(self, n_fft):
        spec, waveform = MelSpec(n_fft=n_fft, n_mels=16), noise((2, 50000))
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
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            mel = module(waveform)
        for seed in (1, 2):
            fresh = noise((4, 16000), seed=seed)
            waveform.copy_(torch.from_numpy(fresh))
            mel.fill_(torch.nan)
            graph.replay()
            expected = mel_spectrogram(fresh, ORIGINAL, log=True)
            assert_close(mel.cpu().numpy(), expected, atol_log=2e-4, dtype="float32")

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
        spec = MelSpec(n_fft=60, n_mels=5)
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

    @pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
    def test_second_device(self):
        waveform = noise((2, 4000))
        module = MelSpectrogram.from_spec(ORIGINAL, backend="cuda").to("cuda:1")
        mel = module(torch.from_numpy(waveform).to("cuda:1"))
        assert mel.device == torch.device("cuda:1")
        assert_close(mel.cpu().numpy(), mel_spectrogram(waveform, ORIGINAL), dtype="float32", **FLOAT32)
