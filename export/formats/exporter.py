"""A checkpoint as files for others, each verified before it gets its name.

| file                          | takes    | for                                        |
|-------------------------------|----------|--------------------------------------------|
| STEM.onnx                     | waveform | CPUs: the mel spectrogram clip by clip      |
| STEM.batch.onnx               | waveform | GPUs: the mel spectrogram of a batch at once |
| STEM.mel.onnx                 | mel      | bulk work, behind a mel kernel             |
| STEM.batch.fp16.onnx          | waveform | GPUs                                       |
| STEM.int8.onnx, .mel.int8.onnx| as above | CPUs                                       |
| STEM.torchscript.pt           | waveform | programs that have torch                   |
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from triadbench.core.constants import PRECISIONS
from triadbench.core.errors import UserError
from triadbench.core.files import atomic_path
from triadbench.core.models import checkpoint as checkpoints
from triadbench.core.models.checkpoint import Checkpoint
from triadbench.core.models.predictor import SHIPPED
from triadbench.export.formats import onnx_model
from triadbench.export.formats import precision as converters
from triadbench.export.formats import torchscript_model as torchscript
from triadbench.export.formats import verification_clips as verification
from triadbench.export.formats.verify import Reference, VerificationError, compare, run_fresh, verify
from triadbench.export.predict.metadata import ExportInfo, sealed

if TYPE_CHECKING:
    import onnx

FORMATS = ("onnx", "torchscript")
_ONNX_FRONT_ENDS = {"fp32": ("each", "batch", "none"), "fp16": ("batch",), "int8": ("each", "none")}
_MARKS = {"each": "", "batch": ".batch", "none": ".mel"}
_RECORDED = ("recipe", "epochs", "batch_size", "learning_rate", "split", "seed", "split_seed")
_CALIBRATION_BATCH = 16


@dataclasses.dataclass(frozen=True)
class Row:
    """Of one file.

    Attributes:
        file: its name. format, precision, front_end: as in `ExportInfo`.
        status: "verified", "refused: ..." (a precision that does not hold), "failed: ...", or "reference" of the
            checkpoint itself, under PyTorch.
        path: where it lies, None unless verified.
        bytes: its size, and what of it is the network without the front end.
        type_accuracy, root_accuracy: on the clips that it was verified on; None for a task that it lacks.
        worst_difference: of a probability from the PyTorch model's. agreement: share of clips with the same label.
    """

    file: str
    format: str
    precision: str
    front_end: str
    status: str
    path: str | None = None
    bytes: int | None = None
    network_bytes: int | None = None
    type_accuracy: float | None = None
    root_accuracy: float | None = None
    worst_difference: float | None = None
    agreement: float | None = None

    @property
    def ok(self) -> bool:
        """Whether the file is there."""
        return self.path is not None

    def with_accuracies(self, accuracies: dict) -> Row:
        return dataclasses.replace(self, **{key: accuracies[key] for key in accuracies if key.endswith("_accuracy")})


def check(formats: Sequence[str], precisions: Sequence[str]) -> None:
    """Raises UserError for a format or a precision that does not exist, or where nothing is left to write."""
    for names, valid, what in ((formats, FORMATS, "format"), (precisions, PRECISIONS, "precision")):
        unknown = [name for name in names if name not in valid]
        if unknown or not names:
            wrong = f"unknown {what} {unknown[0]!r}" if unknown else f"no {what} was named"
            raise UserError(f"{wrong}; choose from {', '.join(valid)}")
    if list(formats) == ["torchscript"] and "fp32" not in precisions:
        raise UserError(f"TorchScript files are fp32, not {', '.join(precisions)}; add fp32, or --onnx")


def export_files(
    checkpoint_path: str | Path | None,
    out_dir: str | Path,
    formats: Sequence[str],
    precisions: Sequence[str],
    banks: str | Path,
    progress: verification.Progress,
) -> list[Row]:
    """Write and verify every file of the formats and precisions into `out_dir`; one row each, the checkpoint first.

    A file appears, or takes the place of the one before it, when it is verified; whatever fails leaves no file and
    changes none. A file that fails does not keep the others from being written.

    Args:
        checkpoint_path: of the model, None for the shipped one.
        banks: folder that keeps the note banks that the clips are rendered from.

    Raises:
        UserError: no such model, a folder or disk that refuses, an unknown format or precision.
    """
    check(formats, precisions)
    path = Path(checkpoint_path) if checkpoint_path is not None else SHIPPED
    checkpoint = checkpoints.load(path)
    out_dir = Path(out_dir)
    _check_writable(out_dir)
    with _scratch() as folder:
        clips = verification.verification_clips(banks, verification.N_VERIFICATION, progress)
        reference = Reference(checkpoint, clips, folder, progress)
        jobs = _Export(checkpoint, path, out_dir, reference, banks).jobs(formats, precisions)
        row = Row(path.name, "checkpoint", "fp32", "kernel", "reference", str(path), path.stat().st_size, agreement=1.0)
        rows = [row.with_accuracies(reference.expected_accuracies())]
        for done, job in enumerate(jobs):
            progress("export", done, len(jobs))
            rows.append(job())
        progress("export", len(jobs), len(jobs))
    return rows


class _Export:
    """One checkpoint's files; the network is exported once for all of them."""

    def __init__(self, checkpoint: Checkpoint, path: Path, out_dir: Path, reference: Reference, banks: str | Path):
        self.checkpoint, self.stem, self.out_dir = checkpoint, path.stem, out_dir
        self.reference, self.banks = reference, banks
        config = checkpoint.training.get("config", {}) if isinstance(checkpoint.training, dict) else {}
        training = {key: config[key] for key in _RECORDED if isinstance(config, dict) and key in config}
        self.info = ExportInfo.of_checkpoint(checkpoint, path, "onnx", "none", training)
        self._networks: dict[str, onnx.ModelProto] = {}

    def jobs(self, formats: Sequence[str], precisions: Sequence[str]) -> list[Callable[[], Row]]:
        asked = [precision for precision in PRECISIONS if precision in precisions]
        jobs: list[Callable[[], Row]] = []
        for precision in asked if "onnx" in formats else ():
            jobs += [functools.partial(self.onnx_file, precision, mel) for mel in _ONNX_FRONT_ENDS[precision]]
        if "torchscript" in formats and "fp32" in asked:
            jobs.append(self.torchscript_file)
        return jobs

    def onnx_file(self, precision: str, front_end: str) -> Row:
        name = f"{self.stem}{_MARKS[front_end]}{'' if precision == 'fp32' else '.' + precision}.onnx"
        network = self._network(precision)

        def build(info: ExportInfo) -> bytes:
            model = copy.deepcopy(network) if front_end == "none" else onnx_model.with_mel(network, info)
            onnx_model.describe(model, info)
            return sealed(model.SerializeToString())

        info = dataclasses.replace(self.info, precision=precision, front_end=front_end)
        return self._file(name, info, build, network.ByteSize())

    def torchscript_file(self) -> Row:
        info = dataclasses.replace(self.info, kind="torchscript", front_end="stft")
        module = torchscript.waveform_module(self.checkpoint, info)
        network_bytes = len(torchscript.to_bytes(torchscript.network_module(self.checkpoint, info), info))
        build = functools.partial(torchscript.to_bytes, module)
        return self._file(f"{self.stem}.torchscript.pt", info, build, network_bytes)

    def _file(self, name: str, info: ExportInfo, build: Callable[[ExportInfo], bytes], network_bytes: int) -> Row:
        row = Row(name, info.kind, info.precision, info.front_end, "verified")
        path = self.out_dir / name
        try:
            info = dataclasses.replace(info, accuracies=self._accuracies(info, build))
            with atomic_path(path) as temporary:
                temporary.write_bytes(build(info))
                report = verify(temporary, info, self.reference)
                size = temporary.stat().st_size
        except VerificationError as error:
            outcome = "failed" if info.precision == "fp32" else "refused"
            return dataclasses.replace(row, status=f"{outcome}: {error}")
        row = dataclasses.replace(row, path=str(path), bytes=size, network_bytes=network_bytes)
        row = dataclasses.replace(row, worst_difference=report.worst_difference, agreement=report.agreement)
        return row.with_accuracies(report.accuracies)

    def _accuracies(self, info: ExportInfo, build: Callable[[ExportInfo], bytes]) -> dict:
        """What the file will measure: fp32 answers as PyTorch does, or fails; the others are tried first."""
        if info.precision == "fp32":
            return self.reference.expected_accuracies()
        draft = self.reference.folder / f"draft{'.onnx' if info.kind == 'onnx' else '.pt'}"
        draft.write_bytes(build(info))
        outputs, _ = run_fresh(draft, info, self.reference)
        return compare(outputs, info, self.reference).accuracies

    def _network(self, precision: str) -> onnx.ModelProto:
        if precision not in self._networks:
            if precision == "fp32":
                network = onnx_model.network_model(self.checkpoint, self.info)
            elif precision == "fp16":
                network = converters.to_fp16(self._network("fp32"))
            else:
                clips = verification.calibration_clips(self.banks)
                batches = (clips.waveforms(i, i + _CALIBRATION_BATCH) for i in range(0, len(clips), _CALIBRATION_BATCH))
                network = converters.to_int8(self._network("fp32"), map(self.reference.mel, batches))
            self._networks[precision] = network
        return self._networks[precision]


def _check_writable(folder: Path) -> None:
    """Raises UserError where nothing could be written: better now than after a minute."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise UserError(f"{folder}: cannot write there ({error.strerror}); choose another --out") from error


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """A folder for what the fresh processes read."""
    try:
        with tempfile.TemporaryDirectory(prefix="triadbench-") as folder:
            yield Path(folder)
    except OSError as error:
        raise UserError(
            f"temporary files cannot be written ({error.strerror or error}); set TMPDIR to a disk with room"
        ) from error
