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

import copy
import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from triadbench.core.constants import PRECISIONS
from triadbench.core.errors import UserError
from triadbench.core.files import ModelFiles, atomic_path, model_name, model_paths, model_stem
from triadbench.core.models import checkpoint as checkpoints
from triadbench.core.models.checkpoint import Checkpoint
from triadbench.core.models.predictor import SHIPPED
from triadbench.export.formats import onnx_model, verify
from triadbench.export.formats import torchscript_model as torchscript
from triadbench.export.predict.metadata import ExportInfo, sealed
from triadbench.kernels.scratch import scratch_folder

if TYPE_CHECKING:
    import onnx

FORMATS = ("onnx", "torchscript")
_ONNX_FRONT_ENDS = {"fp32": ("each", "batch", "none"), "fp16": ("batch",), "int8": ("each", "none")}
_MARKS = {"each": "", "batch": ".batch", "none": ".mel"}
_RECORDED = ("recipe", "epochs", "batch_size", "learning_rate", "split", "seed", "split_seed")


@dataclasses.dataclass(frozen=True)
class Row:
    """Of one file.

    Attributes:
        file, format, precision, front_end: its name, and as in `ExportInfo`.
        status: "verified", "refused: ..." (a precision that does not hold), "failed: ...", or "reference" (PyTorch).
        path: None unless verified.
        network_bytes: the size of the network without the front end.
        type_accuracy, root_accuracy: on the clips that it was verified on; None for a task that it lacks.
        worst_difference, agreement: as in `verify.Report`.
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
    model: ModelFiles | None,
    out_dir: Path,
    formats: Sequence[str],
    precisions: Sequence[str],
    banks: Path,
    progress: verify.Progress,
) -> list[Row]:
    """Write and verify every file of the formats and precisions into `out_dir`; one row each, the checkpoint first.

    A file appears, or takes the place of the one before it, when it is verified; one that fails leaves no file, changes
    none, and does not keep the others from being written.

    Args:
        model, banks: its checkpoint or the two to join, None for the shipped one; a folder that keeps the clips' notes.

    Raises:
        UserError: no such model, a folder or disk that refuses, an unknown format or precision.
    """
    check(formats, precisions)
    model = model or SHIPPED
    checkpoint, paths = checkpoints.load(model), model_paths(model)
    try:  # better now than after a minute
        nearest = next(folder for folder in (out_dir, *out_dir.absolute().parents) if folder.exists())
        with scratch_folder(nearest):
            pass
    except OSError as error:
        raise UserError(f"{out_dir}: cannot write there ({error.strerror}); choose another --out") from error
    try:
        with scratch_folder() as folder:
            clips = verify.verification_clips(banks, verify.N_VERIFICATION, progress)
            reference = verify.Reference(checkpoint, clips, folder, progress)
            jobs = _Export(checkpoint, model, out_dir, reference, banks).jobs(formats, precisions)
            head = model_name(model), "checkpoint", "fp32", "kernel", "reference", " + ".join(map(str, paths))
            size = sum(path.stat().st_size for path in paths)
            rows = [Row(*head, size, agreement=1.0).with_accuracies(reference.expected_accuracies())]
            for done, job in enumerate(jobs):
                progress("export", done, len(jobs))
                rows.append(job())
            progress("export", len(jobs), len(jobs))
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"temporary files cannot be written ({reason}); set TMPDIR to a disk with room") from error
    return rows


def _recorded(training: object) -> dict:
    """The settings in a training record; of two networks, by task."""
    record = training if isinstance(training, dict) else {}
    if parts := [task for task in ("type", "root") if task in record]:
        return {task: _recorded(record[task]) for task in parts}
    config = record.get("config", {})
    return {key: config[key] for key in _RECORDED if isinstance(config, dict) and key in config}


class _Export:
    """One checkpoint's files; the network is exported once for all of them."""

    def __init__(
        self, checkpoint: Checkpoint, model: ModelFiles, out_dir: Path, reference: verify.Reference, banks: Path
    ):
        self.checkpoint, self.stem, self.out_dir = checkpoint, model_stem(model), out_dir
        self.reference, self.banks = reference, banks
        training = _recorded(checkpoint.training)
        self.info = ExportInfo.of_checkpoint(checkpoint, model, "onnx", "none", training)
        self._network = functools.cache(self._make_network)

    def jobs(self, formats: Sequence[str], precisions: Sequence[str]) -> list[Callable[[], Row]]:
        jobs: list[Callable[[], Row]] = []
        for precision in [name for name in PRECISIONS if name in precisions] if "onnx" in formats else ():
            jobs += [functools.partial(self.onnx_file, precision, mel) for mel in _ONNX_FRONT_ENDS[precision]]
        return [*jobs, self.torchscript_file] if "torchscript" in formats and "fp32" in precisions else jobs

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
        row, path = Row(name, info.kind, info.precision, info.front_end, "verified"), self.out_dir / name
        try:
            info = dataclasses.replace(info, accuracies=self._accuracies(info, build))
            with atomic_path(path) as temporary:
                temporary.write_bytes(build(info))
                report = verify.verify(temporary, info, self.reference)
                size = temporary.stat().st_size
        except verify.VerificationError as error:
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
        outputs, _ = verify.run_fresh(draft, info, self.reference)
        return verify.compare(outputs, info, self.reference).accuracies

    def _make_network(self, precision: str) -> onnx.ModelProto:
        if precision == "fp32":
            return onnx_model.network_model(self.checkpoint, self.info)
        if precision == "fp16":
            return onnx_model.to_fp16(self._network("fp32"))
        clips = verify.calibration_clips(self.banks)
        batches = (clips.waveforms(i, i + 16) for i in range(0, len(clips), 16))
        return onnx_model.to_int8(self._network("fp32"), map(self.reference.mel, batches))
