"""Who else computes a mel spectrogram: one small adapter each, behind one interface; a missing package is said so.

Adding one: a file that makes a `Rival`, and its name in `_ADAPTERS`. An adapter imports its package inside its
functions, so that a broken one costs its own column and nothing else.
"""

from __future__ import annotations

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


@dataclass(frozen=True)
class Rival:
    """One way to a mel spectrogram.

    Attributes:
        name: as shown and recorded.
        what: one sentence: how it computes.
        prepare: (spec, waveform (batch, samples) float32 on its device, threads) -> a function without arguments that
            gives the mel (batch, n_mels, n_frames) float32 as tensor or array, perhaps in the same memory each time.
            May raise: the reason is recorded.
        modules: what must be importable; found without importing.
        packages: distributions whose versions are recorded.
        devices: of "cpu" and "cuda".
        tolerance: largest peak-relative and RMS error against float64 that passes for right.
        tolerance_reason: why that much.
        threads: how the thread count reaches it.
        ours: one of this project's backends.
        slow_start: preparing takes seconds (it compiles), so --quick leaves it out.
        slow: a reference, timed at small batches only.
        baseline: what the others are compared with, never left out for lack of time.
        unavailable: (device) -> why it cannot run here, or None; asked after `modules` were found.
        unsupported: (spec) -> what it lacks, or None.
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
    unsupported: Callable[[MelSpec], str | None] = lambda spec: None

    def why_not(self, spec: MelSpec, device: str) -> str | None:
        """Why this one cannot compute `spec` on `device` here, or None."""
        missing = [module for module in self.modules if not _is_found(module)]
        if missing:
            return f"not installed: {', '.join(missing)}"
        if device not in self.devices:
            return "it needs a GPU" if device == "cpu" else f"it has no {device} path"
        return self.unavailable(device) or self.unsupported(spec)

    def versions(self) -> dict[str, str]:
        """Installed versions of its packages."""
        found = {}
        for package in self.packages:
            try:
                found[package] = metadata.version(package)
            except metadata.PackageNotFoundError:
                continue
        return found


def all_rivals() -> dict[str, Rival]:
    """Every contestant by name, ours first."""
    found = [
        rival
        for module in _ADAPTERS
        for rival in importlib.import_module(f"triadbench.bench.mel.rivals.{module}").rivals()
    ]
    return {rival.name: rival for rival in found}


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

    what = f"{rival.what}; in a CUDA graph"
    name = f"{rival.name}, CUDA graph"
    return replace(rival, name=name, what=what, prepare=prepare, devices=("cuda",), baseline=False)


def lacks_plain_settings(spec: MelSpec) -> str | None:
    """For adapters without the rarer settings: which of `spec` is one, or None."""
    plain = {"pad": 0, "center": True, "pad_mode": "reflect", "window": "hann", "normalized": False, "power": 2.0}
    other = [f"{name}={getattr(spec, name)!r}" for name, value in plain.items() if getattr(spec, name) != value]
    if spec.win_length != spec.n_fft:
        other.append(f"win_length={spec.win_length}")
    return f"its adapter lacks {', '.join(other)}" if other else None


def _is_found(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a parent package is missing
        return False
