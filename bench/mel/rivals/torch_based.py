"""torchaudio eager, compiled and as TorchScript, and a mel written by hand in torch."""

import functools
import shutil

from triadbench.bench.cases import torchaudio_mel
from triadbench.bench.mel.rivals import Rival, graphed, window_and_filters, without_gradient


def _prepare_eager(spec, waveform, threads):
    return without_gradient(torchaudio_mel(spec).to(waveform.device), waveform)


def _prepare_compiled(spec, waveform, threads):
    import torch

    torch._dynamo.reset()  # it keeps eight shapes a function and then falls back to eager
    return without_gradient(torch.compile(torchaudio_mel(spec).to(waveform.device), dynamic=False), waveform)


def _prepare_script(spec, waveform, threads):
    import torch

    return without_gradient(torch.jit.script(torchaudio_mel(spec).to(waveform.device)), waveform)


def _prepare_by_hand(spec, waveform, threads):
    """Small chunks stay in the cache on a CPU; a GPU gets the whole batch at once."""
    import torch

    device, (batch, samples) = waveform.device, waveform.shape
    chunk = min(batch, 64 if device.type == "cuda" else 1 if threads == 1 else 4 * threads)  # the best of 1 to 64
    n, edge, n_frames = spec.n_fft, spec.n_fft // 2, spec.n_frames(samples)
    window, filters = window_and_filters(spec, device)
    bins = filters.amax(dim=0).nonzero().flatten()
    low, high = int(bins[0]), int(bins[-1]) + 1
    filters = filters[:, low:high].contiguous()
    padded = torch.empty(chunk, samples + 2 * edge, device=device)
    frames = padded.as_strided((chunk, n_frames, n), (padded.shape[1], spec.hop_length, 1))
    windowed = torch.empty(chunk, n_frames, n, device=device)
    spectrum = torch.empty(chunk, n_frames, spec.n_freqs, dtype=torch.complex64, device=device)
    power = torch.empty(chunk, n_frames, high - low, device=device)
    mel = torch.empty(batch, spec.n_mels, n_frames, device=device)

    def compute():
        for start in range(0, batch, chunk):
            clips = waveform[start : start + chunk]
            c = len(clips)
            padded[:c, edge : edge + samples] = clips
            padded[:c, :edge] = clips[:, 1 : edge + 1].flip(1)
            padded[:c, edge + samples :] = clips[:, -edge - 1 : -1].flip(1)
            torch.mul(frames[:c], window, out=windowed[:c])
            torch.fft.rfft(windowed[:c], out=spectrum[:c])
            used = spectrum[:c, :, low:high]
            torch.mul(used.real, used.real, out=power[:c])
            power[:c].addcmul_(used.imag, used.imag)
            torch.matmul(filters, power[:c].transpose(1, 2), out=mel[start : start + c])
        return mel

    return without_gradient(compute)


def _why_no_compiler(device: str) -> str | None:
    if device == "cpu" and not any(shutil.which(name) for name in ("g++", "c++", "clang++", "cl")):
        return "torch.compile needs a C++ compiler on the CPU and finds none; install g++"
    return None


def _supports_all(spec) -> None:
    return None


_torchaudio = functools.partial(
    Rival, modules=("torchaudio",), packages=("torch", "torchaudio"), unsupported=_supports_all
)
RIVALS = [
    _torchaudio("torchaudio eager", "torchaudio.transforms.MelSpectrogram as it is", _prepare_eager, baseline=True),
    _torchaudio(
        "torchaudio compiled",
        "the same under torch.compile, made anew for every shape",
        _prepare_compiled,
        slow_start=True,
        unavailable=_why_no_compiler,
    ),
    _torchaudio("torchaudio TorchScript", "the same under torch.jit.script", _prepare_script),
    Rival(
        "torch by hand",
        "a few clips at a time, which stay in the cache, into preallocated buffers: frames x window, rfft with "
        "out=, power of the bins that a filter uses, one dense product",
        _prepare_by_hand,
        packages=("torch",),
    ),
]
RIVALS.append(graphed(RIVALS[0]))
