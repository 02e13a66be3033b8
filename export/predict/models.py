"""Models beside the ONNX file alone: the network behind our CPU kernel, a TorchScript file, a checkpoint.

The kernel makes a mel spectrogram several times faster than the matrix products inside the graph, but has to be loaded
first, or compiled on a machine that has never done so. So the graph answers at once, and the kernel takes over. PyTorch
is imported when one of its models is opened.
"""

from __future__ import annotations

import atexit
import functools
import json
import threading
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from triadbench.core import timing
from triadbench.core.constants import CLIP_SAMPLES, PRECISIONS
from triadbench.core.errors import UserError
from triadbench.core.files import ModelFiles, model_paths
from triadbench.core.models.prediction import Scores
from triadbench.export.predict.metadata import KEY, ExportInfo, check_seal
from triadbench.export.predict.providers import Model, OnnxModel, Outputs, error_line

_METADATA = f"extra/{KEY}.json"
_MOST_METADATA = 10_000_000  # bytes
_MEASURED_CLIPS = 4
_MOST_WEIGHTS = 1 << 24  # of a filterbank


class KernelModel(Model):
    """The network alone behind mel spectrograms by kernels/cpu/numpy_entry.py; UserError where one is missing."""

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
        """Of the network in the file beside `path`, which must be that of the file with `info`; None: any. Raises
        UserError: there is no such file, or it is of another model."""
        beside = network_beside(path)
        if not beside.is_file():
            raise UserError(f"{beside.name} is not beside {path.name}; make both with `export`, or use the graph")
        network = open_network(beside)
        for name in ("checkpoint_sha256", "precision", "mel_settings", "task", "samples", "log"):
            if info is not None and getattr(network.info, name) != getattr(info, name):
                reason = f"of another model than the file beside it ({name} differs)"
                raise UserError(f"{beside.name} is {reason}; make both with one `export`")
        return cls(network)

    def run(self, values: np.ndarray) -> Outputs:
        return self.network.run(self._mel(values))


def network_beside(path: Path) -> Path:
    """The file of the network alone that goes with an exported file: chord.onnx -> chord.mel.onnx."""
    stem = path.name.removesuffix(".onnx")
    precision = next((f".{name}" for name in PRECISIONS if stem.endswith(f".{name}")), "")
    return path.with_name(f"{stem.removesuffix(precision).removesuffix('.batch')}.mel{precision}.onnx")


def seconds_a_clip(contestants: Mapping[str, Model], samples: int | None) -> dict[str, float]:
    """The best of a few rounds, alternated, on the same noise."""
    waveforms = np.random.default_rng(0).standard_normal((_MEASURED_CLIPS, samples or CLIP_SAMPLES), np.float32)
    runs = {name: functools.partial(model.run, waveforms) for name, model in contestants.items()}
    timings = timing.measure(runs, rounds=3, min_time_s=0.0, warmup=0)
    return {name: min(measured.samples_ms) / 1e3 / _MEASURED_CLIPS for name, measured in timings.items()}


class Background:
    """Runs steps one after the other on a thread. An interpreter that ends waits for the running step and begins no
    other: ending amid compiled code can crash."""

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


class TorchScriptModel(Model):
    """A TorchScript file of `export`, on "cpu" or "cuda"; UserError for a damaged or foreign file or a missing GPU."""

    def __init__(self, path: Path, device: str = "cpu", threads: int | None = None):
        self.path = path
        self.info = _metadata_of(path)  # before any of its code is loaded
        import torch

        from triadbench.core.device import torch_device

        self.device = torch_device(device)
        if threads is not None:
            torch.set_num_threads(threads)  # of the process: torch has no other
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch announces the end of TorchScript at every use
                self.module = torch.jit.load(str(path), map_location=self.device).eval()
        except (RuntimeError, ValueError) as error:
            raise UserError(f"{path}: not a TorchScript file that can be loaded ({error_line(error, -1)})") from error

    def run(self, values: np.ndarray) -> Outputs:
        import torch

        try:
            with torch.inference_mode():
                outputs = self.module(torch.from_numpy(values).to(self.device))
        except (RuntimeError, AttributeError, torch.jit.Error) as error:  # AttributeError: it has no `forward`
            raise UserError(f"{self.path.name} on torchscript: {error_line(error, -1)}") from error
        names = self.info.output_names
        outputs = outputs if isinstance(outputs, (tuple, list)) else []
        are_floats = [torch.is_tensor(output) and output.dtype.is_floating_point for output in outputs]
        if len(outputs) != len(names) or not all(are_floats):
            expected = f"tensors of floats for {', '.join(names)}"
            raise UserError(f"{self.path.name}: its outputs are not {expected}; make it again with `export`")
        return {name: output.float().cpu().numpy() for name, output in zip(names, outputs, strict=True)}


class CheckpointModel(Model):
    """A checkpoint, or two joined, with `core.models.predictor.Predictor`; `path` is the first."""

    front_end = "kernel"

    def __init__(self, files: ModelFiles, device: str = "cpu", threads: int | None = None):
        import torch

        from triadbench.core.models.predictor import Predictor

        self.path, self.predictor = model_paths(files)[0], Predictor.load(files, device)
        if threads is not None:
            torch.set_num_threads(threads)
        checkpoint, backend = self.predictor.checkpoint, self.predictor.mel.backend
        self.info = ExportInfo.of_checkpoint(checkpoint, files, "checkpoint", backend, {})

    def scores(self, waveforms: np.ndarray) -> Scores:
        return self.predictor(waveforms)


def _metadata_of(path: Path) -> ExportInfo:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if entry.filename.endswith(f"/{_METADATA}")]
            if len(entries) != 1:
                raise ValueError("its metadata are missing" if not entries else "its metadata are there twice")
            if entries[0].file_size > _MOST_METADATA:
                raise ValueError(f"metadata of {entries[0].file_size} bytes")
            text = archive.read(entries[0]).decode()
            json.loads(text)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:
        raise UserError(f"{path}: no TorchScript model of triadbench ({error}); make one with `export`") from error
    info = ExportInfo.from_metadata({KEY: text}, str(path))
    check_seal(path, "torchscript")  # torch itself looks at no checksum
    return info
