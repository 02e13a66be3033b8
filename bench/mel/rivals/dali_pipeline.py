"""NVIDIA DALI: its spectrogram and mel filter operators in a pipeline, on the CPU or the GPU."""

from __future__ import annotations

from triadbench.bench.mel.rivals import Rival, lacks_plain_settings


def rivals() -> list[Rival]:
    """DALI on either device."""
    return [
        Rival(
            "DALI",
            "a pipeline of spectrogram and mel_filter_bank, fed and read without copies where it allows",
            _prepare,
            modules=("nvidia.dali",),
            packages=("nvidia-dali-cuda130", "nvidia-dali-cuda120"),
            unsupported=lacks_plain_settings,
            threads="num_threads of the pipeline, its own pool",
            tolerance=1e-4,
            tolerance_reason="float32 filter weights from float32 mel frequencies",
        )
    ]


def _prepare(spec, waveform, threads):
    import numpy as np
    from nvidia.dali import fn, pipeline_def

    on_gpu = waveform.device.type == "cuda"
    clips = waveform if on_gpu else waveform.numpy()
    batch = len(clips)

    @pipeline_def(
        batch_size=batch,
        num_threads=threads,
        device_id=0 if on_gpu else None,
        exec_pipelined=False,
        exec_async=False,
        prefetch_queue_depth=1,
    )
    def pipeline():
        signal = fn.external_source(
            source=lambda: clips, batch=True, no_copy=True, device="gpu" if on_gpu else "cpu", layout="t"
        )
        power = fn.spectrogram(
            signal,
            nfft=spec.n_fft,
            window_length=spec.n_fft,
            window_step=spec.hop_length,
            window_fn=spec.window_array().astype(np.float32).tolist(),
            center_windows=True,
            reflect_padding=True,
            power=2,
        )
        return fn.mel_filter_bank(
            power,
            sample_rate=float(spec.sample_rate),
            nfilter=spec.n_mels,
            freq_low=spec.f_min,
            freq_high=spec.f_max,
            mel_formula=spec.mel_scale,
            normalize=spec.norm == "slaney",
        )

    built = pipeline()
    built.build()

    def compute():
        (mel,) = built.run()
        if on_gpu:
            import torch

            return torch.from_dlpack(mel.as_tensor())
        return np.asarray(mel.as_tensor())

    return compute
