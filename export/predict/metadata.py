"""What an exported file says of itself, in its metadata. Needs neither PyTorch nor ONNX."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from triadbench.core.constants import CLIP_SAMPLES, PRECISIONS, VERSION
from triadbench.core.errors import UserError
from triadbench.core.files import ModelFiles, file_digest, model_paths
from triadbench.core.models.chords import ROOTS, TYPES
from triadbench.core.models.vocabulary import QUALITIES

if TYPE_CHECKING:
    from triadbench.core.models.checkpoint import Checkpoint
    from triadbench.kernels.spec import MelSpec

FORMAT = "triadbench-export-2"
_TRIADS_ONLY = "triadbench-export-1"
"""The format before our network knew more than triads."""
KEY = "triadbench"  # of the JSON object; the other keys repeat it for people
SEAL = "sha256"
_SEAL_HEAD = b"\x72\x4a\x0a\x06" + SEAL.encode() + b"\x12\x40"
"""How an ONNX file's entry of metadata begins (ModelProto's field 14, of 74 bytes) that maps SEAL to 64 characters."""
OLDEST_RUNTIME = "1.15"  # of ONNX Runtime, that runs every ONNX file; tested
_ZIP_SEAL_HEAD = b"sha256:"
FRONT_ENDS = ("each", "batch", "stft", "none")
_VOCABULARY = [quality.harte for quality in QUALITIES]
_LABELS = {"types": list(TYPES), "roots": list(ROOTS)}
_AGAIN = "make it again with `export`"


@dataclasses.dataclass(frozen=True)
class ExportInfo:
    """Of one exported file.

    Attributes:
        architecture, task, kind: "chordnet" or "original"; "both", "type" or "root"; "onnx" or "torchscript".
        front_end: how the file makes mel spectrograms of waveforms (export/formats/mel_graph.py); "none": it takes mel.
        precision: of the network; the mel spectrogram is float32 in all.
        mel_settings, log: as of `MelSpec.to_dict`, and whether the network takes log mel.
        samples: the only length that the network takes, or None for any from `min_samples` on.
        checkpoint_sha256: of the file that was exported; of two, both sorted, with + between.
        accuracies: what was measured when it was verified: {"set", "n", "type_accuracy", "root_accuracy", ...}.
        training: from the checkpoint's record, the settings that made it.
        vocabulary: qualities that it names at every root, in Harte's syntax; empty: the types alone.
    """

    architecture: str
    task: str
    kind: str
    front_end: str
    precision: str
    mel_settings: dict
    log: bool
    samples: int | None
    checkpoint_sha256: str
    accuracies: dict = dataclasses.field(default_factory=dict)
    training: dict = dataclasses.field(default_factory=dict)
    vocabulary: list[str] = dataclasses.field(default_factory=list)
    version: str = VERSION
    licence: str = "MIT"

    @functools.cached_property
    def spec(self) -> MelSpec:
        """Of the mel spectrogram, or UserError. Imported here: a file that takes waveforms needs no spec to be run."""
        from triadbench.kernels.spec import MelSpec

        try:
            return MelSpec.from_dict(self.mel_settings)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"damaged metadata ({error}); {_AGAIN}") from error

    @property
    def input_name(self) -> str:
        """ "mel" (batch, n_mels, n_frames) or "waveform" (batch, samples), float32."""
        return "mel" if self.front_end == "none" else "waveform"

    @property
    def output_names(self) -> list[str]:
        """Probabilities (batch, 4) and (batch, 12) and logits: (batch, 12, 4) of every triad, or of the one task; and
        with a vocabulary logits of all chords (batch, 205), and probabilities of the bass (batch, 12)."""
        tasks = ("type", "root") if self.task == "both" else (self.task,)
        more = ["chord_logits", "bass_probabilities"] if self.vocabulary else []
        return [*(f"{task}_probabilities" for task in tasks), "logits", *more]

    @property
    def sample_rate(self) -> int:
        """Of the waveforms, in Hz."""
        return self.mel_settings["sample_rate"]

    @property
    def min_samples(self) -> int:
        """Shortest waveform."""
        return self.mel_settings["n_fft"]

    def metadata(self) -> dict[str, str]:
        """Keys and values for the file's metadata: one JSON object for programs, and single lines for people."""
        described = dataclasses.asdict(self) | {"format": FORMAT, "labels": _LABELS}
        described |= {"sample_rate": self.sample_rate, "min_samples": self.min_samples}
        described["spec"] = described.pop("mel_settings")
        vocabulary = {"vocabulary": ",".join(self.vocabulary)} if self.vocabulary else {}
        needs = {"needs": f"ONNX Runtime {OLDEST_RUNTIME} or later"} if self.kind == "onnx" else {}
        return {
            KEY: json.dumps(described, sort_keys=True, allow_nan=False),
            "types": ",".join(TYPES),
            "roots": ",".join(ROOTS),
            "sample_rate": str(self.sample_rate),
            "mel_spec": json.dumps(self.mel_settings, sort_keys=True),
            "accuracies": json.dumps(self.accuracies, sort_keys=True, allow_nan=False),
            "version": self.version,
            "licence": self.licence,
            **vocabulary,
            **needs,
        }

    @classmethod
    def of_checkpoint(
        cls, checkpoint: Checkpoint, files: ModelFiles, kind: str, front_end: str, training: dict
    ) -> ExportInfo:
        """Of the checkpoint that was read from `files`, and of what it is exported as."""
        ours, spec = checkpoint.architecture == "chordnet", checkpoint.spec.to_dict()
        samples, digest = None if ours else CLIP_SAMPLES, "+".join(sorted(map(file_digest, model_paths(files))))
        head = checkpoint.architecture, checkpoint.task, kind, front_end, "fp32"
        return cls(*head, spec, ours, samples, digest, training=training, vocabulary=_VOCABULARY if ours else [])

    @classmethod
    def from_metadata(cls, metadata: dict[str, str], name: str) -> ExportInfo:
        """Of the metadata of the file called `name`. Raises UserError: the file is another program's, another
        version's, or damaged."""
        if KEY not in metadata:
            raise UserError(f"{name}: no model of triadbench (its metadata lack {KEY!r}); make one with `export`")
        try:
            described = json.loads(metadata[KEY])
            if described["format"] == _TRIADS_ONLY:
                described |= {"format": FORMAT, "vocabulary": []}
            if described["format"] != FORMAT:
                raise UserError(f"{name}: format {described['format']!r}, this version reads {FORMAT!r}; {_AGAIN}")
            if described["labels"] != _LABELS or described["vocabulary"] not in ([], _VOCABULARY):
                raise UserError(f"{name}: other labels than this version's; {_AGAIN}")
            described["mel_settings"] = described["spec"]
            info = cls(**{field.name: described[field.name] for field in dataclasses.fields(cls)})
            if info.front_end not in FRONT_ENDS or info.precision not in PRECISIONS:
                raise ValueError(f"front end {info.front_end!r}, precision {info.precision!r}")
            if min(info.sample_rate, info.min_samples) < 1:
                raise ValueError(f"mel spectrogram {info.mel_settings}")
            return info
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{name}: damaged metadata ({error}); {_AGAIN}") from error


def sealed(model: bytes) -> bytes:
    """An ONNX file with one more entry of metadata at its end, the SHA-256 of all before it. A message of protocol
    buffers and a list's further entry behind it are a message again, so any reader takes it."""
    return model + _SEAL_HEAD + hashlib.sha256(model).hexdigest().encode()


def sealed_zip(archive: bytes) -> bytes:
    """A zip archive without a comment (a TorchScript file) whose comment is the SHA-256 of all before it."""
    length = len(_ZIP_SEAL_HEAD) + 64
    archive = archive[:-2] + length.to_bytes(2, "little")  # the archive's last field
    return archive + _ZIP_SEAL_HEAD + hashlib.sha256(archive).hexdigest().encode()


def check_seal(path: Path, kind: str) -> None:
    """Raises UserError where a file's bytes are not those sealed: damaged weights would still give answers."""
    head = _SEAL_HEAD if kind == "onnx" else _ZIP_SEAL_HEAD
    file = path.read_bytes()
    end = len(file) - len(head) - 64
    if file[end:] != head + hashlib.sha256(file[: max(end, 0)]).hexdigest().encode():
        changed = "damaged or changed since it was made (its SHA-256 is another)"
        raise UserError(f"{path}: {changed}; get it anew, or {_AGAIN}")
