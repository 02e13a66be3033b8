"""nvmath-python: frames and filters by torch, the transform by a planned `nvmath.fft.FFT` (cuFFT, or MKL and NVPL)."""

import functools

from triadbench.bench.mel.rivals import Rival, window_and_filters, without_gradient


@functools.cache
def _why_unavailable(device: str) -> str | None:
    if device == "cuda":
        return None
    import nvmath.fft
    import torch

    try:
        with nvmath.fft.FFT(torch.zeros(1, 16), execution="cpu") as plan:
            plan.plan()
    except Exception as error:  # its own kinds, and the loader's
        return f"no FFT for the CPU: {str(error).split('. ')[0]}; nvmath.device needs a GPU"
    return None


def _prepare(spec, waveform, threads):
    import nvmath.fft
    import torch

    device, edge = waveform.device, spec.n_fft // 2
    batch, n_frames = len(waveform), spec.n_frames(waveform.shape[1])
    window, filters = window_and_filters(spec, device)
    windowed = torch.empty(batch, n_frames, spec.n_fft, device=device)
    execution = "cuda" if device.type == "cuda" else nvmath.fft.ExecutionCPU(num_threads=threads)
    plan = nvmath.fft.FFT(windowed, axes=[2], execution=execution)
    plan.plan()

    def compute():
        padded = torch.nn.functional.pad(waveform[:, None], (edge, edge), mode="reflect")[:, 0]
        torch.mul(padded.unfold(1, spec.n_fft, spec.hop_length), window, out=windowed)
        plan.reset_operand(windowed)
        spectrum = plan.execute()
        power = spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag)
        return torch.matmul(filters, power.transpose(1, 2))

    return without_gradient(compute)


RIVALS = [
    Rival(
        "nvmath",  # with its plan on the host; `nvmath.device` inside a kernel is another, and is not written
        "nvmath.fft.FFT planned once between torch's framing and one dense product",
        _prepare,
        modules=("nvmath",),
        packages=("nvmath-python", "mkl", "nvpl-fft"),
        unavailable=_why_unavailable,
        threads="num_threads of its CPU execution, and torch.set_num_threads",
    )
]
