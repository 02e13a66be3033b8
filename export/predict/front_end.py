"""The network alone behind our CPU kernel, and which of the two front ends is faster here.

The kernel makes a mel spectrogram several times faster than the matrix products inside the graph, but has to be loaded
first, or compiled on a machine that has never done so. So the graph answers at once, and the kernel takes over.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from triadbench.core.constants import CLIP_SAMPLES, PRECISIONS
from triadbench.core.errors import UserError
from triadbench.export.predict.metadata import ExportInfo
from triadbench.export.predict.providers import OnnxModel

_MEASURED_CLIPS = 4
_ROUNDS = 3
_MOST_WEIGHTS = 1 << 24  # of a filterbank


class KernelModel:
    """Waveforms in, outputs as of `OnnxModel`: mel spectrograms by kernels/cpu/numpy_entry.py, then the network.

    Raises:
        UserError: the kernel is not to be had here, or the network is not the one asked for.
    """

    def __init__(self, network: OnnxModel):
        from triadbench.kernels.cpu import numpy_entry as numpy_mel

        self.network, self.info = network, network.info
        if self.info.spec.n_fft * self.info.spec.n_mels > _MOST_WEIGHTS:  # made up: it would fill the memory
            raise UserError(f"{network.path}: damaged metadata ({self.info.spec}); make it again with `export`")
        if reason := numpy_mel.why_unavailable(self.info.spec):
            raise UserError(f"the mel kernel: {reason}; or use the front end of the graph")
        if self.info.input_name != "mel":
            raise UserError(f"{network.path.name} takes waveforms; the kernel needs the network alone (.mel.onnx)")
        numpy_mel.load(self.info.spec)
        self._mel = numpy_mel.mel

    def run(self, waveforms: np.ndarray) -> dict[str, np.ndarray]:
        """Outputs by name for waveforms (batch, samples) float32, contiguous."""
        return self.network.run(self._mel(waveforms, self.info.spec, log=self.info.log))


def network_beside(path: Path) -> Path:
    """The file of the network alone that goes with an exported file: chord.onnx -> chord.mel.onnx."""
    stem, precision = path.name.removesuffix(".onnx"), ""
    for known in PRECISIONS:
        if stem.endswith(f".{known}"):
            stem, precision = stem.removesuffix(f".{known}"), f".{known}"
    return path.with_name(f"{stem.removesuffix('.batch')}.mel{precision}.onnx")


def check_same(network: OnnxModel, info: ExportInfo) -> None:
    """Raises UserError where a network is not that of the file with `info`."""
    for name in ("checkpoint_sha256", "precision", "spec", "task", "samples", "log"):
        if getattr(network.info, name) != getattr(info, name):
            raise UserError(
                f"{network.path.name} is of another model than the file beside it ({name} differs); make both with "
                "one `export`"
            )


def seconds_a_clip(contestants: dict[str, Callable[[np.ndarray], object]], samples: int | None) -> dict[str, float]:
    """The best of a few rounds, alternated, on the same noise."""
    waveforms = np.random.default_rng(0).standard_normal((_MEASURED_CLIPS, samples or CLIP_SAMPLES), np.float32)
    best = dict.fromkeys(contestants, float("inf"))
    for round_ in range(_ROUNDS + 1):  # the first is to warm up
        for name, run in contestants.items():
            begin = time.perf_counter()
            run(waveforms)
            if round_:
                best[name] = min(best[name], (time.perf_counter() - begin) / _MEASURED_CLIPS)
    return best


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
