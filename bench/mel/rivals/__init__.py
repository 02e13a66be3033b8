"""Who else computes a mel spectrogram: one small adapter each, behind one interface; a missing package is named.

Adding one: a module whose `RIVALS` lists it, and the module's name in `_ADAPTERS`. An adapter imports its package
inside its functions, so that a broken package costs its own column and nothing else.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from triadbench.kernels.spec import MelSpec

_ADAPTERS = ("own", "torch_based", "librosa_numpy", "conv_dft", "dali_pipeline", "planned_fft", "rocket_numba")


def lacks_plain_settings(spec: MelSpec) -> str | None:
    """For adapters without the rarer settings: which of `spec` is one, or None."""
    plain = {"pad": 0, "center": True, "pad_mode": "reflect", "window": "hann", "normalized": False, "power": 2.0}
    other = [f"{name}={getattr(spec, name)!r}" for name, value in plain.items() if getattr(spec, name) != value]
    if spec.win_length != spec.n_fft:
        other.append(f"win_length={spec.win_length}")
    return f"its adapter lacks {', '.join(other)}" if other else None


@dataclass(frozen=True)
class Rival:
    """One way to a mel spectrogram.

    Attributes:
        name: as shown and recorded.
        what: one sentence: how it computes.
        prepare: (spec, waveform (batch, samples) float32 on its device, threads) -> a function without arguments that
            gives the mel (batch, n_mels, n_frames) float32 as tensor or array, perhaps in the same memory each time.
            May raise: the reason is recorded.
        modules: must be importable; looked up without importing.
        packages: distributions whose versions are recorded.
        devices: of "cpu" and "cuda".
        tolerance: largest peak-relative and RMS error against float64 that passes.
        tolerance_reason: why that much.
        threads: how the thread count reaches it.
        ours: one of this project's backends.
        slow_start: preparing takes seconds (it compiles), so --quick leaves it out.
        slow: a reference, timed at small batches only.
        baseline: what the others are compared with, never left out for lack of time.
        unavailable: (device) -> why it cannot run here, or None; asked after `modules` were found.
        unsupported: (spec) -> the setting it lacks, or None.
    """

    name: str
    what: str
    prepare: Callable[[MelSpec, torch.Tensor, int], Callable[[], Any]]
    modules: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    devices: tuple[str, ...] = ("cpu", "cuda")
    tolerance: float = 1e-4
    tolerance_reason: str = "float32 throughout; filter corners and weights rounded to float32"
    threads: str = "torch.set_num_threads"
    ours: bool = False
    slow_start: bool = False
    slow: bool = False
    baseline: bool = False
    unavailable: Callable[[str], str | None] = lambda device: None
    unsupported: Callable[[MelSpec], str | None] = lacks_plain_settings

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
        installed = {}
        for package in self.packages:
            try:
                installed[package] = metadata.version(package)
            except metadata.PackageNotFoundError:
                continue
        return installed


def all_rivals() -> dict[str, Rival]:
    """Every contestant by name, ours first."""
    modules = [importlib.import_module(f"triadbench.bench.mel.rivals.{name}") for name in _ADAPTERS]
    return {rival.name: rival for module in modules for rival in module.RIVALS}


def graphed(rival: Rival) -> Rival:
    """The same, captured once in a CUDA graph and replayed: what launches cost is then paid by nobody."""

    def prepare(spec, waveform, threads):
        import torch

        compute = rival.prepare(spec, waveform, threads)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # compiled and planned before the capture, as torch asks
            for _ in range(3):
                compute()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            mel = compute()

        def replay():
            graph.replay()
            return mel

        return replay

    what, name = f"{rival.what}; in a CUDA graph", f"{rival.name}, CUDA graph"
    return replace(rival, name=name, what=what, prepare=prepare, devices=("cuda",), baseline=False)


def without_gradient(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    """A call of `function` that torch records nothing for."""
    import torch

    return torch.inference_mode()(functools.partial(function, *arguments))


def window_and_filters(spec: MelSpec, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The window (n_fft,) and the filterbank (n_mels, n_freqs) as float32 on a device."""
    import torch

    window, filters = (torch.from_numpy(array) for array in (spec.window_array(), spec.filterbank()))
    return window.to(device, torch.float32), filters.to(device, torch.float32)


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a parent package is missing
        return False
