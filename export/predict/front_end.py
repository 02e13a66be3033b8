"""The network alone behind our CPU kernel, and which of the two front ends is faster here.

The kernel makes a mel spectrogram several times faster than the matrix products inside the graph, but has to be loaded
first, or compiled on a machine that has never done so. So the graph answers at once, and the kernel takes over.
"""

from __future__ import annotations

import atexit
import functools
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from triadbench.core import timing
from triadbench.core.constants import CLIP_SAMPLES, PRECISIONS
from triadbench.core.errors import UserError
from triadbench.export.predict.metadata import ExportInfo
from triadbench.export.predict.providers import Model, OnnxModel, Outputs

_MEASURED_CLIPS = 4
_ROUNDS = 3
_MOST_WEIGHTS = 1 << 24  # of a filterbank


class KernelModel(Model):
    """The network alone behind mel spectrograms by kernels/cpu/numpy_entry.py.

    Raises:
        UserError: the kernel is not to be had here, or the network is not the one asked for.
    """

    front_end = "kernel"

    def __init__(self, network: OnnxModel):
        from triadbench.kernels.cpu import numpy_entry

        self.network, self.path, self.info = network, network.path, network.info
        spec = self.info.spec
        if spec.n_fft * spec.n_mels > _MOST_WEIGHTS:  # made up: it would fill the memory
            raise UserError(f"{self.path}: damaged metadata ({spec}); make it again with `export`")
        if reason := numpy_entry.why_unavailable(spec):
            raise UserError(f"the mel kernel: {reason}; or use the front end of the graph")
        if self.info.input_name != "mel":
            raise UserError(f"{self.path.name} takes waveforms; the kernel needs the network alone (.mel.onnx)")
        numpy_entry.load(spec)
        self._mel = functools.partial(numpy_entry.mel, spec=spec, log=self.info.log)

    @classmethod
    def beside(cls, path: Path, info: ExportInfo | None, open_network: Callable[[Path], OnnxModel]) -> KernelModel:
        """Of the network in the file beside `path`, which must be that of the file with `info`; None: any.

        Raises:
            UserError: there is no such file, or it is of another model.
        """
        beside = network_beside(path)
        if not beside.is_file():
            raise UserError(f"{beside.name} is not beside {path.name}; make both with `export`, or use the graph")
        network = open_network(beside)
        for name in ("checkpoint_sha256", "precision", "mel_settings", "task", "samples", "log"):
            if info is not None and getattr(network.info, name) != getattr(info, name):
                raise UserError(
                    f"{beside.name} is of another model than the file beside it ({name} differs); make both with one "
                    "`export`"
                )
        return cls(network)

    def run(self, values: np.ndarray) -> Outputs:
        """Outputs by name for waveforms (batch, samples) float32, contiguous."""
        return self.network.run(self._mel(values))


def network_beside(path: Path) -> Path:
    """The file of the network alone that goes with an exported file: chord.onnx -> chord.mel.onnx."""
    stem, precision = path.name.removesuffix(".onnx"), ""
    for suffix in (f".{name}" for name in PRECISIONS):
        if stem.endswith(suffix):
            stem, precision = stem.removesuffix(suffix), suffix
    return path.with_name(f"{stem.removesuffix('.batch')}.mel{precision}.onnx")


def seconds_a_clip(contestants: Mapping[str, Model], samples: int | None) -> dict[str, float]:
    """The best of a few rounds, alternated, on the same noise."""
    waveforms = np.random.default_rng(0).standard_normal((_MEASURED_CLIPS, samples or CLIP_SAMPLES), np.float32)
    runs = {name: functools.partial(model.run, waveforms) for name, model in contestants.items()}
    timings = timing.measure(runs, rounds=_ROUNDS, min_time_s=0.0, warmup=0)
    return {name: min(measured.samples_ms) / 1e3 / _MEASURED_CLIPS for name, measured in timings.items()}


class Background:
    """Runs steps one after the other on a thread that does not outlive the process.

    An interpreter that ends waits for the step that is running and begins no other: ending amid compiled code can
    crash.
    """

    def __init__(self, *steps: Callable[[], None], failed: Callable[[Exception], None]):
        self._steps, self._failed, self._ends = steps, failed, False
        self._thread = threading.Thread(target=self._run, name="kernel", daemon=True)
        self._thread.start()
        atexit.register(self._end)

    def wait(self) -> None:
        """Until the last step has ended."""
        self._thread.join()

    def _run(self) -> None:
        try:
            for step in self._steps:
                if self._ends:
                    return
                step()
        except Exception as error:  # whatever it is, it must not be lost
            self._failed(error)
        finally:
            atexit.unregister(self._end)

    def _end(self) -> None:
        self._ends = True
        self._thread.join()
