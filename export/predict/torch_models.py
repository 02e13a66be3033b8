"""What the predictor runs with PyTorch: a TorchScript file, or a checkpoint. PyTorch is imported when one is opened."""

import json
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np

from triadbench.core.errors import UserError
from triadbench.core.models.prediction import Scores
from triadbench.export.predict.metadata import KEY, ExportInfo
from triadbench.export.predict.providers import Model, Outputs

_METADATA = f"extra/{KEY}.json"
_MOST_METADATA = 10_000_000  # bytes


class TorchScriptModel(Model):
    """A TorchScript file of `export`, on "cpu" or "cuda".

    Raises:
        UserError: the file is damaged or another program's, or there is no such device.
    """

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
            raise UserError(f"{path}: not a TorchScript file that can be loaded ({_last_line(error)})") from error

    def run(self, values: np.ndarray) -> Outputs:
        """Outputs by name for waveforms (batch, samples) float32."""
        import torch

        try:
            with torch.inference_mode():
                outputs = self.module(torch.from_numpy(values).to(self.device))
        except (RuntimeError, AttributeError, torch.jit.Error) as error:  # AttributeError: it has no `forward`
            raise UserError(f"{self.path.name} on torchscript: {_last_line(error)}") from error
        names = self.info.output_names
        if (
            not isinstance(outputs, (tuple, list))
            or len(outputs) != len(names)
            or not all(isinstance(output, torch.Tensor) and output.dtype.is_floating_point for output in outputs)
        ):
            expected = f"tensors of floats for {', '.join(names)}"
            raise UserError(f"{self.path.name}: its outputs are not {expected}; make it again with `export`")
        return {name: output.float().cpu().numpy() for name, output in zip(names, outputs, strict=True)}


class CheckpointModel(Model):
    """A checkpoint, with `core.models.predictor.Predictor`."""

    front_end = "kernel"

    def __init__(self, path: Path, device: str = "cpu", threads: int | None = None):
        import torch

        from triadbench.core.models.predictor import Predictor

        self.path, self.predictor = path, Predictor.load(path, device)
        if threads is not None:
            torch.set_num_threads(threads)
        checkpoint, backend = self.predictor.checkpoint, self.predictor.mel.backend
        self.info = ExportInfo.of_checkpoint(checkpoint, path, "checkpoint", backend, {})

    def scores(self, waveforms: np.ndarray) -> Scores:
        """Of waveforms (batch, samples) float32."""
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
            if damaged := archive.testzip():  # torch itself looks at no checksum
                raise ValueError(f"{damaged.split('/', 1)[-1]} is damaged")
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:
        raise UserError(f"{path}: no TorchScript model of triadbench ({error}); make one with `export`") from error
    return ExportInfo.from_metadata({KEY: text}, str(path))


def _last_line(error: Exception) -> str:
    """TorchScript's errors begin with its own stack."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:300]
