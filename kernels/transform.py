"""`MelSpectrogram`: torchaudio.transforms.MelSpectrogram's parameters, defaults, shapes and values; backends.

The module holds the window and the filterbank (buffers `spectrogram.window` and `mel_scale.fb`, as in torchaudio, so
that its state dicts load), checks the input, flattens the leading dimensions, and hands (batch, time) to one backend.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from triadbench import kernels
from triadbench.kernels.spec import LOG_EPS, MelSpec
from triadbench.kernels.torch_operator import is_captured, is_exported_to_onnx, needs_gradient, spec_of

# What a backend computes in. Half precision has no room for powers: its waveforms are converted.
_DTYPES = {torch.float32: "float32", torch.float64: "float64", torch.int16: "int16"}
_HALVES = (torch.float16, torch.bfloat16)
_WINDOW_NAMES = {torch.hann_window: "hann", torch.hamming_window: "hamming", torch.blackman_window: "blackman"}


def _buffer(array: np.ndarray) -> Tensor:
    """float32 on torch's default device, where other modules' buffers are too."""
    return torch.from_numpy(array).to(torch.get_default_device(), torch.float32)


class _Spectrogram(nn.Module):
    """Holder of `window` (win_length,) and of the settings that torchaudio's Spectrogram shows.

    `MelSpectrogram` does not call it. Called by others it is torchaudio's: (..., time) -> (..., n_freqs, n_frames).
    """

    if TYPE_CHECKING:  # TorchScript cannot read the annotation
        window: Tensor

    def __init__(self, spec: MelSpec, window: np.ndarray) -> None:
        super().__init__()
        self.n_fft, self.win_length, self.hop_length = spec.n_fft, spec.win_length, spec.hop_length
        self.pad, self.power, self.normalized = spec.pad, spec.power, spec.normalized
        self.center, self.pad_mode, self.onesided = spec.center, spec.pad_mode, True
        self.register_buffer("window", _buffer(window))

    @torch.jit.unused
    def forward(self, waveform: Tensor) -> Tensor:
        from torchaudio.functional import spectrogram

        sizes = {"n_fft": self.n_fft, "hop_length": self.hop_length, "win_length": self.win_length}
        scale = {"power": self.power, "normalized": self.normalized, "onesided": self.onesided}
        edges = {"pad": self.pad, "center": self.center, "pad_mode": self.pad_mode}
        return spectrogram(waveform, window=self.window, **sizes, **scale, **edges)


class _MelScale(nn.Module):
    """Holder of `fb` (n_freqs, n_mels) and of the settings that torchaudio's MelScale shows.

    `MelSpectrogram` does not call it. Called by others it is torchaudio's: (..., n_freqs, time) -> (..., n_mels, time).
    """

    if TYPE_CHECKING:
        fb: Tensor

    def __init__(self, spec: MelSpec, filterbank: np.ndarray) -> None:
        super().__init__()
        self.n_mels, self.sample_rate, self.n_stft = spec.n_mels, spec.sample_rate, spec.n_freqs
        self.f_min, self.f_max, self.norm, self.mel_scale = spec.f_min, spec.f_max, spec.norm, spec.mel_scale
        self.register_buffer("fb", _buffer(filterbank.T.copy()))

    @torch.jit.unused
    def forward(self, specgram: Tensor) -> Tensor:
        return torch.matmul(specgram.transpose(-1, -2), self.fb).transpose(-1, -2)


class MelSpectrogram(nn.Module):
    """waveform (..., time) -> mel (..., n_mels, n_frames); with log=True log(mel + log_eps), natural, log_eps = 1e-10.

    Input float32 or float64 (computed and returned in that dtype), int16 (divided by 32768, returned as float32), or
    float16 or bfloat16 (computed in float32, and returned as that unless the module was converted to the same dtype).

    Differences from torchaudio: the window and the filterbank are computed in float64 and rounded once; an empty batch
    gets an empty result; `f_max` shows the value in use, never None; under autocast the result is float32, for
    bfloat16 has 8 bits; `.spectrogram` and `.mel_scale` hold the buffers and are not called, so hooks on them do not
    fire. Every power goes through |X|^2, except with backend="torchaudio" and "reference": in float32, power=1 too
    needs |X| between about 1e-19 and 1e19.

    The window and the filterbank may be replaced or changed in place at any time. Changes that hide from torch's
    version counter (through `.data`, or a numpy array that shares the memory) are not seen after the first call.
    Made or moved under torch.inference_mode, the module holds ordinary tensors all the same, with a counter. An
    inference tensor that it gets otherwise (assigned, or copied with the module there) has none: its values are then
    compared at each call, for which a GPU's are copied to the host.

    torch.compile keeps one graph with every backend but "reference", which is numpy: that one also refuses
    torch.export, torch.vmap and tensors without values. torch.onnx.export takes, with "auto", a backend of plain
    operators; "numba", "cuda" and "reference" have none. A captured CUDA graph (also one of
    mode="reduce-overhead") keeps the window and filterbank of its capture; call each setting once before capturing it.
    torch.jit.script, torch.jit.trace and torch.fx turn the module into one operator, `triadbench::mel`, which chooses
    its backend at each call as the module does. A saved program (those of torch.export and AOTInductor too) holds the
    operator's name, not its code: whoever loads it runs Python and imports triadbench.kernels.transform first. With
    backend="matmul" torch.export and AOTInductor, and with "torchaudio" torch.jit.trace too, hold torch's operators
    alone, which need nothing of ours.

    Args:
        window_fn: any function of torch's kind: window_fn(win_length, **wkwargs) -> (win_length,).
        onesided: unused, warns, as in torchaudio.
        backend: "auto", or a name of `available_backends()`. "auto" takes, at each call, the fastest backend that has
            the setting for the input's device and dtype and, where a gradient is needed (for the waveform, or for a
            window or filterbank that requires it), has one. A named backend is never replaced by another.
        log: the logarithm. The other parameters: see `MelSpec`.

    Raises:
        ValueError: a bad setting, an unknown backend or too short a clip.
        RuntimeError: the backend is unavailable here or lacks what the input needs; names those that have it.
        TypeError: an unsupported dtype.
    """

    def __init__(
        self,
        sample_rate: int = 16000,
        n_fft: int = 400,
        win_length: int | None = None,
        hop_length: int | None = None,
        f_min: float = 0.0,
        f_max: float | None = None,
        pad: int = 0,
        n_mels: int = 128,
        window_fn: Callable[..., Tensor] = torch.hann_window,
        power: float = 2.0,
        normalized: bool | str = False,
        wkwargs: dict | None = None,
        center: bool = True,
        pad_mode: str = "reflect",
        onesided: bool | None = None,
        norm: str | None = None,
        mel_scale: str = "htk",
        *,
        backend: str = "auto",
        log: bool = False,
    ) -> None:
        if onesided is not None:
            warnings.warn(
                "Argument 'onesided' has been deprecated and has no influence on the behavior of this module.",
                stacklevel=2,
            )
        # As torchaudio takes them; `MelSpec` is strict.
        if isinstance(sample_rate, (float, np.floating)) and float(sample_rate).is_integer():
            sample_rate = int(sample_rate)
        center = bool(center)
        plain = not wkwargs or wkwargs == {"periodic": True}
        name = _WINDOW_NAMES.get(window_fn, "custom") if plain else "custom"
        choices: dict[str, Any] = {"center": center, "pad_mode": pad_mode, "window": name, "normalized": normalized}
        choices |= {"norm": norm, "mel_scale": mel_scale}
        spec = MelSpec(sample_rate, n_fft, win_length, hop_length, f_min, f_max, n_mels, power, pad, **choices)
        window = spec.window_array() if name != "custom" else _window_of(window_fn, wkwargs, spec.win_length)
        self._set_up(spec, window, backend, log)
        if len(empty := spec.empty_filters()):
            reason = f"no bin falls into them: n_mels={n_mels} is high, or n_fft={n_fft} low"
            warnings.warn(f"{len(empty)} mel filters are all zeros ({reason})", stacklevel=2)

    @classmethod
    def from_spec(cls, spec: MelSpec, backend: str = "auto", log: bool = False) -> MelSpectrogram:
        """The module of a spec. Raises ValueError for window="custom": use the constructor with window_fn."""
        module = cls.__new__(cls)
        module._set_up(spec, spec.window_array(), backend, log)
        return module

    @torch.inference_mode(False)
    def _set_up(self, spec: MelSpec, window: np.ndarray, backend: str, log: bool) -> None:
        super().__init__()
        if backend != "auto" and backend not in kernels.BACKENDS:
            raise ValueError(f"backend={backend!r} must be one of 'auto', {', '.join(map(repr, kernels.BACKENDS))}")
        self.spec, self.log, self.log_eps, self.requested_backend = spec, bool(log), LOG_EPS, backend
        self.sample_rate, self.n_fft, self.n_mels = spec.sample_rate, spec.n_fft, spec.n_mels
        self.win_length, self.hop_length, self.pad = spec.win_length, spec.hop_length, spec.pad
        self.f_min, self.f_max = spec.f_min, spec.f_max
        self.power, self.normalized = spec.power, spec.normalized
        filterbank = spec.filterbank()
        self.spectrogram = _Spectrogram(spec, window)
        self.mel_scale = _MelScale(spec, filterbank)
        # Unrounded, for computing in float64. Not buffers: torchaudio's state dict has none such.
        self._exact = (torch.from_numpy(window.copy()), torch.from_numpy(filterbank))
        self._chosen: dict[tuple[str, str, bool], str] = {}
        self._arrays_kept: dict[tuple, tuple] = {}
        self._long_enough = -1  # samples of a clip that was long enough
        for conditions in itertools.product(_DTYPES.values(), ("cpu", "cuda"), (False, True)):
            # torch.compile can read this table, but not ask the backends. A refusal's words are left for later: they
            # would ask, and so import, every other backend.
            if backend_name := self._first(*conditions):
                self._chosen[conditions] = backend_name
        # Fail here, not in forward; but a module for a GPU is made on the CPU, and moved.
        if not any(dtype == "float32" and not gradient for dtype, _, gradient in self._chosen):
            self._refuse("float32", self.spectrogram.window.device.type, False)

    @torch.inference_mode(False)
    def _apply(self, *arguments, **options) -> MelSpectrogram:
        """Of torch.nn.Module, behind `to`, `cuda`, `double` and such."""
        return super()._apply(*arguments, **options)

    @property
    def backend(self) -> str:
        """The backend for float32 input without gradient on this module's device; `backend_for` answers for others."""
        return self._choose("float32", self.spectrogram.window.device.type, False)

    def backend_for(self, waveform: Tensor) -> str:
        """The backend that `forward` will use for this waveform."""
        return self._backend_for(waveform, self.spectrogram.window, self.mel_scale.fb)

    def _backend_for(self, waveform: Tensor, window: Tensor, fb: Tensor) -> str:
        gradient = _needs_gradient(waveform) or _needs_gradient(window) or _needs_gradient(fb)
        conditions = _dtype_name(waveform), waveform.device.type, gradient
        if is_exported_to_onnx():
            plain = [name for name in self._candidates() if getattr(_load(name), "TRACEABLE", False)]
            if not plain:
                way_out = "use backend='auto', 'matmul' or 'torchaudio'"
                raise RuntimeError(f"backend={self.requested_backend!r} has no operators of ONNX; {way_out}")
            return next((name for name in plain if _why_not(name, self.spec, *conditions) is None), plain[-1])
        return self._choose(*conditions)

    def _candidates(self) -> tuple[str, ...]:
        return tuple(kernels.BACKENDS) if self.requested_backend == "auto" else (self.requested_backend,)

    def forward(self, waveform: Tensor) -> Tensor:
        """(..., time) of a floating dtype or int16 -> (..., n_mels, n_frames) on the same device."""
        if isinstance(waveform, torch.fx.Proxy) or (
            torch.jit.is_tracing() and not getattr(_load(self.backend_for(waveform)), "TRACEABLE", False)
        ):
            return torch.ops.triadbench.mel(waveform, *self._operator_arguments())
        return self._compute(waveform, self.spectrogram.window, self.mel_scale.fb, self._arrays)

    def _compute(self, waveform: Tensor, buffer: Tensor, fb: Tensor, arrays: Callable[..., tuple]) -> Tensor:
        """`buffer` and `fb`: window and filterbank as held; arrays(buffer, fb, dtype, device): to compute with."""
        if waveform.ndim == 0:
            raise ValueError("waveform shape=() must be (..., time); give at least one dimension")
        if waveform.dtype in _HALVES:
            mel = self._compute(waveform.float(), buffer, fb, arrays)
            return mel.to(waveform.dtype) if waveform.dtype == fb.dtype else mel
        shape = waveform.shape
        if waveform.is_meta:  # a shape is all there is
            dtype = torch.float64 if _dtype_name(waveform) == "float64" else torch.float32
            return waveform.new_empty((*shape[:-1], self.n_mels, self.spec.n_frames(shape[-1])), dtype=dtype)
        backend = _load(self._backend_for(waveform, buffer, fb))
        dtype = torch.float64 if waveform.dtype == torch.float64 else torch.float32
        # A graph that is captured may leave the length open: there the backend's own operations check it.
        if not torch.jit.is_tracing():
            if not torch.compiler.is_compiling() and shape[-1] != self._long_enough:
                self.spec.n_frames(shape[-1])  # raises where that is too short
                self._long_enough = shape[-1]
            if 0 in shape[:-1]:
                return waveform.new_zeros((*shape[:-1], self.n_mels, self.spec.n_frames(shape[-1])), dtype=dtype)
        computed_in = torch.float64 if backend.COMPUTES_IN_FLOAT64 else dtype
        window, filterbank = arrays(buffer, fb, computed_in, waveform.device)
        # One clip apart: -1 would be ambiguous for a clip without samples, which `pad` can make long enough.
        batch = waveform if len(shape) == 2 else waveform[None] if len(shape) == 1 else waveform.flatten(0, -2)
        mel = backend.forward(batch, self.spec, window, filterbank, self.log_eps if self.log else None)
        return mel if len(shape) == 2 else mel.reshape(*shape[:-1], *mel.shape[1:])

    def __prepare_scriptable__(self) -> nn.Module:
        return _Scriptable(self)

    def _operator_arguments(self) -> tuple:
        settings = self.spec.text
        return self.spectrogram.window, self.mel_scale.fb, *self._exact, settings, self.requested_backend, self.log

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_arrays_kept": {}}  # a copy has buffers of its own

    def extra_repr(self) -> str:
        return f"{self.spec}, backend={self.requested_backend!r}, log={self.log}"

    def _arrays(self, a: Tensor, b: Tensor, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
        """Window and (n_mels, n_freqs) filterbank for a computation: of the buffers a, b as they are at this moment."""
        # An inference tensor counts no versions; a gradient goes through the conversion.
        captured = is_captured() or torch.jit.is_tracing()
        if captured or a.is_inference() or b.is_inference() or _needs_gradient(a) or _needs_gradient(b):
            return _converted(self.spec, a, b, self._exact, dtype, device)
        # Converting takes longer than checking whether it has to be done again.
        state = a._version, b._version, a.data_ptr(), b.data_ptr()
        entry = self._arrays_kept.get((dtype, device))
        if entry is not None and entry[0] is a and entry[1] is b and entry[2] == state:
            return entry[3]
        with torch.inference_mode(False), torch.no_grad():
            arrays = _converted(self.spec, a, b, self._exact, dtype, device)
        if type(arrays[0]) is type(arrays[1]) is Tensor:  # not those of FakeTensorMode and its like
            self._arrays_kept[dtype, device] = a, b, state, arrays
        return arrays

    def _choose(self, dtype: str, device: str, gradient: bool) -> str:
        conditions = (dtype, device, gradient)
        if conditions not in self._chosen:
            self._chosen[conditions] = self._first(*conditions) or self._refuse(*conditions)
        return self._chosen[conditions]

    def _first(self, dtype: str, device: str, gradient: bool) -> str | None:
        return next(
            (name for name in self._candidates() if _why_not(name, self.spec, dtype, device, gradient) is None), None
        )

    def _refuse(self, *conditions) -> str:
        """Raises RuntimeError, with the reasons of all backends or the names of those that can."""
        reasons = {name: _why_not(name, self.spec, *conditions) for name in kernels.BACKENDS}
        all_reasons = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        if self.requested_backend == "auto":
            raise RuntimeError(f"no backend has this setting: {all_reasons}")
        name, able = self.requested_backend, [name for name, reason in reasons.items() if reason is None]
        way_out = f"backends that can: {', '.join(able)}" if able else f"no backend can: {all_reasons}"
        raise RuntimeError(f"backend={name!r} cannot compute this: {reasons[name]}; {way_out}")


def _converted(
    spec: MelSpec, window: Tensor, fb: Tensor, exact: tuple, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    filterbank = fb.transpose(0, 1) if fb.ndim == 2 else fb  # not mT, which torch.onnx does not know
    if not torch.jit.is_tracing():  # there a size is a tensor
        spec.check_shapes(window.shape, filterbank.shape)
    if dtype == torch.float64:
        window, filterbank = _unrounded(window, exact[0], device), _unrounded(filterbank, exact[1], device)
    return window.to(device, dtype), filterbank.to(device, dtype)


def _unrounded(buffer: Tensor, exact: Tensor, device: torch.device) -> Tensor:
    """`exact` where the buffer is its rounding, else the buffer: a state dict may have replaced it."""
    if buffer.requires_grad or needs_gradient(buffer):  # a parameter's value is its own
        return buffer
    buffer, exact = buffer.to(device), exact.to(device)
    # Without a branch, which a captured graph could not hold.
    return torch.where((exact.float() == buffer.float()).all(), exact, buffer.double())


# ---- TorchScript: the module as one operator, which calls back into it


class _Scriptable(nn.Module):
    """What torch.jit.script compiles in place of a MelSpectrogram: same state dict, same results."""

    def __init__(self, module: MelSpectrogram) -> None:
        super().__init__()
        self.training = module.training  # torch.jit.freeze asks for it
        self.spectrogram, self.mel_scale = module.spectrogram, module.mel_scale
        for name in ("sample_rate", "n_fft", "win_length", "hop_length", "pad", "power", "n_mels", "f_min", "f_max"):
            setattr(self, name, getattr(module, name))
        _, _, *exact, self.settings, self.backend, self.log = module._operator_arguments()
        self.exact_window, self.exact_filterbank = exact

    def forward(self, waveform: Tensor) -> Tensor:
        window, fb, exact_filterbank = self.spectrogram.window, self.mel_scale.fb, self.exact_filterbank
        return torch.ops.triadbench.mel(
            waveform, window, fb, self.exact_window, exact_filterbank, self.settings, self.backend, self.log
        )


@functools.lru_cache(maxsize=64)
def _module_of(settings: str, backend: str, log: bool) -> MelSpectrogram:
    """One whose buffers do not count."""
    module = MelSpectrogram.__new__(MelSpectrogram)
    spec = spec_of(settings)
    module._set_up(spec, np.ones(spec.win_length), backend, log)
    return module


def _mel(waveform, window, fb, exact_window, exact_filterbank, settings, backend, log):
    module, exact = _module_of(settings, backend, log), (exact_window, exact_filterbank)

    def arrays(window, fb, dtype, device) -> tuple[Tensor, Tensor]:
        return _converted(module.spec, window, fb, exact, dtype, device)

    return module._compute(waveform, window, fb, arrays)


_library = torch.library.Library("triadbench", "FRAGMENT")
_library.define(
    "mel(Tensor waveform, Tensor window, Tensor fb, Tensor exact_window, Tensor exact_filterbank, str settings, "
    "str backend, bool log) -> Tensor"
)
_library.impl("mel", _mel, "CompositeImplicitAutograd")


_loaded: dict[str, ModuleType] = {}


def _load(name: str) -> ModuleType:
    if name not in _loaded:
        _loaded[name] = importlib.import_module(kernels.BACKENDS[name])
    return _loaded[name]


def _why_not(name: str, spec: MelSpec, dtype: str, device: str, gradient: bool) -> str | None:
    backend = _load(name)
    if reason := backend.why_unavailable():
        return reason
    return backend.why_unsupported(spec, dtype=dtype, device=device, needs_gradient=gradient)


def _needs_gradient(tensor: Tensor) -> bool:
    """`needs_gradient`, with the usual answer at once: this is asked five times a call."""
    return (tensor.requires_grad or forward_ad._current_level >= 0) and needs_gradient(tensor)


def _dtype_name(waveform: Tensor) -> str:
    if waveform.dtype in _HALVES:
        return "float32"
    if waveform.dtype not in _DTYPES:
        raise TypeError(f"waveform dtype={waveform.dtype} must be a floating dtype or int16; use waveform.float()")
    return _DTYPES[waveform.dtype]


def _window_of(window_fn: Callable[..., Tensor], wkwargs: dict | None, win_length: int) -> np.ndarray:
    window = torch.as_tensor(window_fn(win_length, **(wkwargs or {})))
    if window.is_complex():
        raise ValueError(f"window_fn returned dtype={window.dtype}, must be real; return its .real or .abs()")
    if window.shape != (win_length,):
        raise ValueError(f"window_fn returned shape={tuple(window.shape)}, must be ({win_length},): one value a sample")
    return window.detach().double().cpu().numpy()
