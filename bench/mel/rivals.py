"""Who else computes a mel spectrogram: one small adapter each, behind one interface; a missing package is named.

Adding one: a function that prepares it, and its entry in `all_rivals`. An adapter imports its package inside its
functions, so that a broken package costs its own column and nothing else.
"""

from __future__ import annotations

import functools
import importlib.util
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from triadbench import kernels
from triadbench.bench import machine
from triadbench.bench.cases import torchaudio_mel
from triadbench.kernels.spec import INT16_FULL_SCALE, MelSpec

GRAPHED: tuple[str, ...] = ("ours: cuda", "ours: matmul", "torchaudio eager", "torchaudio compiled", "torch by hand")
GRAPHED += ("MelT", "MelT TF32")
_MELT = "after MelT (arXiv:2606.01009): one dense product of the frames with a windowed sine and cosine a mel band"


def lacks_plain_settings(spec: MelSpec) -> str | None:
    """For adapters without the rarer settings: which of `spec` is one, or None."""
    plain = {"pad": 0, "center": True, "pad_mode": "reflect", "window": "hann", "normalized": False, "power": 2.0}
    plain["win_length"] = spec.n_fft
    other = [f"{name}={getattr(spec, name)!r}" for name, value in plain.items() if getattr(spec, name) != value]
    return f"its adapter lacks {', '.join(other)}" if other else None


Compute = Callable[[torch.Tensor], Any]
GRAPH = ", CUDA graph"  # ends the name of a contestant that is another's calls in a CUDA graph


@dataclass(frozen=True)
class Rival:
    """One way to a mel spectrogram.

    `prepare` takes (spec, example (batch, samples) of the waveforms to come, on their device, threads) and gives a
    function of a waveform like the example that gives its mel (batch, n_mels, n_frames) float32 as tensor or array,
    perhaps in the same memory each time. It may raise: the reason is recorded.
    """

    name: str  # as shown and recorded
    what: str  # one sentence: how it computes
    prepare: Callable[[MelSpec, torch.Tensor, int], Compute]
    modules: tuple[str, ...] = ()  # must be importable; looked up without importing
    packages: tuple[str, ...] = ()  # distributions whose versions are recorded
    devices: tuple[str, ...] = ("cpu", "cuda")
    tolerance: float = 1e-4  # largest peak-relative and RMS error against float64 that passes
    tolerance_reason: str = "float32 throughout; filter corners and weights rounded to float32"
    threads: str = "torch.set_num_threads"  # how the thread count reaches it
    ours: bool = False  # one of this project's backends
    slow_start: bool = False  # preparing takes seconds (it compiles), so --quick leaves it out
    slow: bool = False  # a reference, timed at small batches only
    baseline: bool = False  # what the others are compared with, never left out for lack of time
    graph_of: str = ""  # the contestant whose prepared calls this one captures in a CUDA graph
    approximate: bool = False  # it computes other values: its error is shown, not judged, and it is nobody's best rival
    int16: bool = False  # takes int16 samples itself; for another they are converted within the call
    unavailable: Callable[[str], str | None] = lambda device: None  # why not here; called if `modules` are installed
    unsupported: Callable[[MelSpec], str | None] = lacks_plain_settings  # the setting it lacks

    def why_not(self, spec: MelSpec, device: str) -> str | None:
        """Why this one cannot compute `spec` on `device` here, or None."""
        missing = [module for module in self.modules if not _is_installed(module)]
        if missing:
            return f"not installed: {', '.join(missing)}"
        if device not in self.devices:
            return "it needs a GPU" if device == "cpu" else f"it has no {device} path"
        return self.unavailable(device) or self.unsupported(spec)

    def versions(self) -> dict[str, str]:
        """Installed versions of its packages."""
        versions = {package: machine.version_of(package) for package in self.packages}
        return {package: version for package, version in versions.items() if version is not None}


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a parent package is missing
        return False


def all_rivals() -> dict[str, Rival]:
    """Every contestant by name, ours first."""
    ours = [_own(name) for name in kernels.BACKENDS]
    torchaudio = functools.partial(
        Rival, modules=("torchaudio",), packages=("torch", "torchaudio"), unsupported=lambda spec: None
    )
    other: dict[str, Any] = {
        "approximate": True,
        "tolerance_reason": "none: it samples the spectrum at one frequency a band",
    }
    melt: Callable[..., Rival] = functools.partial(Rival, packages=("torch",), tolerance=1e300, **other)
    what = "torchaudio.transforms.MelSpectrogram as it is"
    eager = torchaudio("torchaudio eager", what, _torchaudio(lambda module: module), baseline=True)
    others = [
        torchaudio(
            "torchaudio compiled",
            "the same under torch.compile, made anew for every shape",
            _torchaudio(_compile),
            slow_start=True,
            unavailable=_why_no_compiler,
        ),
        torchaudio("torchaudio TorchScript", "the same under torch.jit.script", _torchaudio(torch.jit.script)),
        Rival(
            "torch by hand",
            "a few clips at a time, which stay in the cache, into preallocated buffers: frames x window, rfft with "
            "out=, power of the bins that a filter uses, one dense product",
            _prepare_by_hand,
            packages=("torch",),
        ),
        melt("MelT", _MELT, _prepare_melt),
        melt("MelT TF32", f"{_MELT}, in TF32", functools.partial(_prepare_melt, tf32=True), devices=("cuda",)),
        Rival(
            "librosa",
            "librosa.feature.melspectrogram of the whole batch, numpy's FFT",
            _prepare_librosa,
            modules=("librosa",),
            packages=("librosa", "numpy", "scipy"),
            devices=("cpu",),
            tolerance_reason="its filterbank is rounded to float32 once and applied to float32 powers",
            threads="one thread, but the matrix product: BLAS, limited by threadpoolctl",
            unsupported=_librosa_lacks,
        ),
        Rival(
            "nnAudio",
            "nnAudio.features.MelSpectrogram: two conv1d with the DFT's matrix, square, dense product",
            _prepare_nnaudio,
            modules=("nnAudio",),
            packages=("nnAudio", "torch"),
            tolerance_reason="sums of n_fft products in float32 with a stored float32 DFT; the magnitude is rooted and "
            "squared again",
        ),
        Rival(
            "DALI",
            "a pipeline of spectrogram and mel_filter_bank, fed and read without copies where it allows",
            _prepare_dali,
            modules=("nvidia.dali",),
            packages=("nvidia-dali-cuda130", "nvidia-dali-cuda120"),
            threads="num_threads of the pipeline, its own pool",
            tolerance_reason="float32 filter weights from float32 mel frequencies",
        ),
        Rival(
            "nvmath",  # with its plan on the host; `nvmath.device` inside a kernel is another, and is not written
            "nvmath.fft.FFT planned once between torch's framing and one dense product",
            _prepare_nvmath,
            modules=("nvmath",),
            packages=("nvmath-python", "mkl", "nvpl-fft"),
            unavailable=why_no_nvmath_fft,
            threads="num_threads of its CPU execution, and torch.set_num_threads",
        ),
        Rival(
            "rocket-fft",
            "numba over clips: frames x window, rfft of one clip, each filter over its own bins",
            _prepare_rocket_fft,
            modules=("rocket_fft", "numba"),
            packages=("rocket-fft", "numba"),
            devices=("cpu",),
            threads="numba.set_num_threads; one clip is one thread's",
            slow_start=True,
        ),
    ]
    every = (*ours, eager, *others)
    graphs = [_graphed(rival) for rival in every if rival.name in GRAPHED]
    return {rival.name: rival for rival in (*every, *graphs)}


def _own(name: str) -> Rival:
    """A backend of this project."""
    backend, is_reference = importlib.import_module(kernels.BACKENDS[name]), name == "reference"

    def prepare(spec, waveform, threads):
        return kernels.MelSpectrogram.from_spec(spec, backend=name).to(waveform.device)

    def lacks(spec, device):
        return backend.why_unsupported(spec, dtype="float32", device=device, needs_gradient=False)

    return Rival(
        f"ours: {name}",
        "MelSpectrogram of this project" + (", the float64 definition" if is_reference else ""),
        prepare,
        tolerance=1e-5,
        tolerance_reason="what the tests ask of every float32 backend, with a margin",
        packages={"numba": ("numba", "llvmlite"), "cuda": ("numba-cuda",)}.get(name, ()),
        threads="one thread" if is_reference else "torch.set_num_threads",
        ours=True,
        int16=True,
        slow=is_reference,
        unavailable=lambda device: backend.why_unavailable() or lacks(kernels.ORIGINAL, device),
        unsupported=lambda spec: lacks(spec, "cpu") and lacks(spec, "cuda"),
    )


def _graphed(rival: Rival) -> Rival:
    """The same, captured once in a CUDA graph and replayed: what launches cost is then paid by nobody."""
    what, name = f"{rival.what}; in a CUDA graph", rival.name + GRAPH
    return replace(rival, name=name, what=what, devices=("cuda",), baseline=False, graph_of=rival.name)


def capture(compute: Compute, waveforms: Sequence[torch.Tensor]) -> Callable[[], torch.Tensor]:
    """A function that replays one CUDA graph of a call on every waveform, and gives the mel of the last.

    The mels of the calls share memory, as those of a loop that drops each. It is NaN until the first replay.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # compiled and planned before the capture, as torch asks
        for _ in range(3):
            compute(waveforms[0])
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for waveform in waveforms:
            mel = compute(waveform)
    with torch.inference_mode():
        mel.fill_(float("nan"))

    def replay() -> torch.Tensor:
        graph.replay()
        return mel

    return replay


def take_int16(compute: Compute) -> Compute:
    """A function of int16 samples that converts them first."""
    return lambda waveform: compute(waveform.float() / INT16_FULL_SCALE)


# ---- torch: torchaudio's module and a mel written by hand


_without_gradient = torch.inference_mode()
"""Makes a function one that torch records nothing for."""


def _window_and_filters(spec: MelSpec, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The window (n_fft,) and the filterbank (n_mels, n_freqs) as float32 on a device."""
    window, filters = (torch.from_numpy(array) for array in (spec.window_array(), spec.filterbank()))
    return window.to(device, torch.float32), filters.to(device, torch.float32)


def _torchaudio(convert: Callable[[torch.nn.Module], Callable]) -> Callable[..., Compute]:
    """A `Rival.prepare` of torchaudio's module, converted."""

    def prepare(spec, waveform, threads):
        return _without_gradient(convert(torchaudio_mel(spec).to(waveform.device)))

    return prepare


def _compile(module: torch.nn.Module) -> Callable:
    torch._dynamo.reset()  # it keeps eight shapes a function and then falls back to eager
    return torch.compile(module, dynamic=False)


def _why_no_compiler(device: str) -> str | None:
    if device == "cpu" and not any(map(shutil.which, ("g++", "c++", "clang++", "cl"))):
        return "torch.compile needs a C++ compiler on the CPU and finds none; install g++"
    return None


def _prepare_by_hand(spec, waveform, threads):
    """Small chunks stay in the cache, on a GPU too."""
    device, (batch, samples) = waveform.device, waveform.shape
    chunk = min(batch, 64 if device.type == "cuda" else 1 if threads == 1 else 4 * threads)  # the best of 1 to 64
    n, edge, n_frames = spec.n_fft, spec.n_fft // 2, spec.n_frames(samples)
    window, filters = _window_and_filters(spec, device)
    bins = filters.amax(dim=0).nonzero().flatten()
    low, high = int(bins[0]), int(bins[-1]) + 1
    filters = filters[:, low:high].contiguous()
    padded = torch.empty(chunk, samples + 2 * edge, device=device)
    frames = padded.as_strided((chunk, n_frames, n), (padded.shape[1], spec.hop_length, 1))
    windowed = torch.empty(chunk, n_frames, n, device=device)
    spectrum = torch.empty(chunk, n_frames, spec.n_freqs, dtype=torch.complex64, device=device)
    power = torch.empty(chunk, n_frames, high - low, device=device)
    mel = torch.empty(batch, spec.n_mels, n_frames, device=device)

    def compute(waveform):
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

    return _without_gradient(compute)


def _prepare_melt(spec, waveform, threads, tf32=False):
    """The idea of Augusto Camargo and Marcelo Finger's MelT (arXiv:2606.01009), not their code."""
    centres = spec.mel_points()[1:-1, None]
    angle = 2 * np.pi * centres * np.arange(spec.n_fft) / spec.sample_rate
    # On white noise a band then has the power of its filter.
    scale = np.sqrt(spec.filterbank().sum(axis=1, keepdims=True)) * spec.window_array()
    basis = torch.from_numpy(np.concatenate([scale * np.cos(angle), scale * np.sin(angle)]).T.astype(np.float32))
    basis, edge, n_mels = basis.to(waveform.device), spec.n_fft // 2, spec.n_mels

    def compute(waveform):
        padded = torch.nn.functional.pad(waveform[:, None], (edge, edge), mode="reflect")[:, 0]
        torch.backends.cuda.matmul.allow_tf32 = tf32
        try:
            parts = torch.matmul(padded.unfold(1, spec.n_fft, spec.hop_length), basis).square_()
        finally:
            torch.backends.cuda.matmul.allow_tf32 = False
        return (parts[..., :n_mels] + parts[..., n_mels:]).transpose(1, 2)

    return _without_gradient(compute)


# ---- librosa and what takes its names of the settings


def _librosa_settings(spec: MelSpec) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "sr": spec.sample_rate,
        "n_fft": spec.n_fft,
        "hop_length": spec.hop_length,
        "n_mels": spec.n_mels,
    }
    settings |= {"fmin": spec.f_min, "fmax": spec.f_max, "htk": spec.mel_scale == "htk"}
    return settings | {"power": spec.power, "pad_mode": "reflect"}


def _librosa_lacks(spec: MelSpec) -> str | None:
    return lacks_plain_settings(spec) or ("odd n_fft: its bins lie elsewhere" if spec.n_fft % 2 else None)


def _prepare_librosa(spec, waveform, threads):
    import librosa
    import threadpoolctl

    settings = _librosa_settings(spec) | {"norm": spec.norm}

    def compute(waveform):
        with threadpoolctl.threadpool_limits(threads, "blas"):
            return librosa.feature.melspectrogram(y=waveform.numpy(), **settings)

    return compute


def _prepare_nnaudio(spec, waveform, threads):
    """The Fourier transform as a convolution with stored sines and cosines."""
    from nnAudio.features import MelSpectrogram

    settings = _librosa_settings(spec) | {"win_length": spec.n_fft, "norm": 1 if spec.norm == "slaney" else None}
    module = MelSpectrogram(**settings, window="hann", center=True, verbose=False)
    return _without_gradient(module.to(waveform.device))


# ---- NVIDIA's packages, on the CPU or the GPU


def _prepare_dali(spec, waveform, threads):
    from nvidia.dali import fn, pipeline_def

    on_gpu = waveform.device.type == "cuda"
    clips: list[Any] = [None]
    options = {"batch_size": len(waveform), "num_threads": threads, "device_id": 0 if on_gpu else None}

    @pipeline_def(**options, exec_pipelined=False, exec_async=False, prefetch_queue_depth=1)
    def mel_pipeline():
        source = {"source": lambda: clips[0], "batch": True, "no_copy": True, "layout": "t"}
        signal = fn.external_source(**source, device="gpu" if on_gpu else "cpu")
        window = spec.window_array().astype(np.float32).tolist()
        sizes = {"nfft": spec.n_fft, "window_length": spec.n_fft, "window_step": spec.hop_length, "window_fn": window}
        power = fn.spectrogram(signal, **sizes, center_windows=True, reflect_padding=True, power=2)
        band = {"sample_rate": float(spec.sample_rate), "freq_low": spec.f_min, "freq_high": spec.f_max}
        scale = {"mel_formula": spec.mel_scale, "normalize": spec.norm == "slaney", "nfilter": spec.n_mels}
        return fn.mel_filter_bank(power, **band, **scale)

    pipeline = mel_pipeline()
    pipeline.build()

    def compute(waveform):
        clips[0] = waveform if on_gpu else waveform.numpy()
        (mel,) = pipeline.run()
        if on_gpu:
            return torch.from_dlpack(mel.as_tensor())
        return np.asarray(mel.as_tensor())

    return compute


@functools.cache
def why_no_nvmath_fft(device: str) -> str | None:
    """Why nvmath can plan no FFT on a device (by cuFFT, or MKL and NVPL), or None."""
    if device == "cuda":
        return None
    import nvmath.fft

    try:
        with nvmath.fft.FFT(torch.zeros(1, 16), execution="cpu") as plan:
            plan.plan()
    except Exception as error:  # its own kinds, and the loader's
        return f"no FFT for the CPU: {str(error).split('. ')[0]}; nvmath.device needs a GPU"
    return None


def _prepare_nvmath(spec, waveform, threads):
    import nvmath.fft

    device, edge = waveform.device, spec.n_fft // 2
    batch, n_frames = len(waveform), spec.n_frames(waveform.shape[1])
    window, filters = _window_and_filters(spec, device)
    windowed = torch.empty(batch, n_frames, spec.n_fft, device=device)
    execution = "cuda" if device.type == "cuda" else nvmath.fft.ExecutionCPU(num_threads=threads)
    plan = nvmath.fft.FFT(windowed, axes=[2], execution=execution)
    plan.plan()

    def compute(waveform):
        padded = torch.nn.functional.pad(waveform[:, None], (edge, edge), mode="reflect")[:, 0]
        torch.mul(padded.unfold(1, spec.n_fft, spec.hop_length), window, out=windowed)
        plan.reset_operand(windowed)
        spectrum = plan.execute()
        power = spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag)
        return torch.matmul(filters, power.transpose(1, 2))

    return _without_gradient(compute)


# ---- rocket-fft: pocketfft compiled into a numba loop over clips, filters walked sparsely


@functools.cache
def _compiled_loop():  # pragma: no cover (numba compiles the body)
    import numba

    @numba.njit(parallel=True, fastmath=True)
    def mel_of(clips, window, weights, first, last, hop, mel):
        n, n_frames = len(window), mel.shape[2]
        edge, samples = n // 2, clips.shape[1]
        for clip in numba.prange(len(clips)):
            padded = np.empty(samples + 2 * edge, np.float32)
            padded[edge : edge + samples] = clips[clip]
            for i in range(edge):
                padded[i] = clips[clip, edge - i]
                padded[edge + samples + i] = clips[clip, samples - 2 - i]
            windowed = np.empty((n_frames, n), np.float32)
            for t in range(n_frames):
                for i in range(n):
                    windowed[t, i] = padded[t * hop + i] * window[i]
            spectrum = np.fft.rfft(windowed, axis=1)
            power = np.empty(spectrum.shape[1], np.float32)
            for t in range(n_frames):
                for k in range(len(power)):
                    power[k] = spectrum[t, k].real ** 2 + spectrum[t, k].imag ** 2
                for m in range(len(first)):
                    total = np.float32(0.0)
                    for k in range(first[m], last[m]):
                        total += weights[m, k] * power[k]
                    mel[clip, m, t] = total

    return mel_of


def _prepare_rocket_fft(spec, waveform, threads):
    import numba
    import rocket_fft  # noqa: F401  (teaches numba np.fft)

    weights = spec.filterbank().astype(np.float32)
    first = np.array([np.flatnonzero(row)[0] if row.any() else 0 for row in weights])
    last = np.array([np.flatnonzero(row)[-1] + 1 if row.any() else 0 for row in weights])
    window = spec.window_array().astype(np.float32)
    mel = np.empty((len(waveform), spec.n_mels, spec.n_frames(waveform.shape[1])), np.float32)

    def run(waveform):
        numba.set_num_threads(threads)
        _compiled_loop()(waveform.numpy(), window, weights, first, last, spec.hop_length, mel)
        return mel

    return run
