"""NVIDIA DALI: its spectrogram and mel filter operators in a pipeline, on the CPU or the GPU."""

from triadbench.bench.mel.rivals import Rival


def _prepare(spec, waveform, threads):
    import numpy as np
    from nvidia.dali import fn, pipeline_def

    on_gpu = waveform.device.type == "cuda"
    clips = waveform if on_gpu else waveform.numpy()
    options = {"batch_size": len(clips), "num_threads": threads, "device_id": 0 if on_gpu else None}

    @pipeline_def(**options, exec_pipelined=False, exec_async=False, prefetch_queue_depth=1)
    def mel_pipeline():
        source = {"source": lambda: clips, "batch": True, "no_copy": True, "layout": "t"}
        signal = fn.external_source(**source, device="gpu" if on_gpu else "cpu")
        window = spec.window_array().astype(np.float32).tolist()
        sizes = {"nfft": spec.n_fft, "window_length": spec.n_fft, "window_step": spec.hop_length, "window_fn": window}
        power = fn.spectrogram(signal, **sizes, center_windows=True, reflect_padding=True, power=2)
        band = {"sample_rate": float(spec.sample_rate), "freq_low": spec.f_min, "freq_high": spec.f_max}
        scale = {"mel_formula": spec.mel_scale, "normalize": spec.norm == "slaney", "nfilter": spec.n_mels}
        return fn.mel_filter_bank(power, **band, **scale)

    pipeline = mel_pipeline()
    pipeline.build()

    def compute():
        (mel,) = pipeline.run()
        if on_gpu:
            import torch

            return torch.from_dlpack(mel.as_tensor())
        return np.asarray(mel.as_tensor())

    return compute


RIVALS = [
    Rival(
        "DALI",
        "a pipeline of spectrogram and mel_filter_bank, fed and read without copies where it allows",
        _prepare,
        modules=("nvidia.dali",),
        packages=("nvidia-dali-cuda130", "nvidia-dali-cuda120"),
        threads="num_threads of the pipeline, its own pool",
        tolerance_reason="float32 filter weights from float32 mel frequencies",
    )
]
