"""Every way to run one model, as data: formats x precisions x providers, and why one of them cannot be had here.

A contestant takes waveforms (batch, samples) that lie in memory as float32 and gives probabilities and logits as NumPy
arrays, on the bare model: no look for silence, no names of chords.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from triadbench.core.constants import PRECISIONS
from triadbench.core.errors import UserError

PROVIDERS = ("cpu", "cuda", "tensorrt")
BASELINE = "eager, torchaudio"
OUTPUTS = ("type_probabilities", "root_probabilities", "logits")
STFT = "onnx, STFT operator"


@dataclass(frozen=True)
class Contestant:
    """One way to run the model.

    Attributes:
        format: its name in `FORMATS`.
        precision: of the network. provider: "cpu", "cuda" or "tensorrt".
        path: of the file that it opens; a checkpoint for the eager ones.
    """

    format: str
    precision: str
    provider: str
    path: str

    @property
    def device(self) -> str:
        """Where it computes: "cpu" or "cuda"."""
        return "cpu" if self.provider == "cpu" else "cuda"

    @property
    def name(self) -> str:
        """As "onnx, clip by clip, fp32, cpu"."""
        return f"{self.format}, {self.precision}, {self.provider}"

    def parameters(self) -> dict[str, str]:
        """What tells its records from those of others."""
        return {key: value for key, value in asdict(self).items() if key != "path"}


@dataclass(frozen=True)
class Format:
    """Of contestants.

    Attributes:
        file: "{stem}" and "{mark}" (of the precision) filled in: its file. kind: which code opens it.
        precisions, providers: that it can have.
        what: one line for the reader.
        limit: how far an fp32 probability may be from the PyTorch model's. Torchaudio's mel and ONNX's STFT round more
            than ours: on clips between two chords a probability was seen 1.3e-5 away.
    """

    file: str
    kind: str
    precisions: tuple[str, ...]
    providers: tuple[str, ...]
    what: str
    limit: float = 1e-5


_FP32 = ("fp32",)
FORMATS = {
    "onnx, clip by clip": Format(
        "{stem}{mark}.onnx", "onnx", PRECISIONS, ("cpu",), "raw audio in; the mel of one clip after another"
    ),
    "onnx, whole batch": Format(
        "{stem}.batch{mark}.onnx", "onnx", PRECISIONS, PROVIDERS, "raw audio in; the whole batch to every operator"
    ),
    "onnx behind our kernel": Format(
        "{stem}.mel{mark}.onnx", "onnx mel", PRECISIONS, ("cpu",), "mel by our CPU kernel, the network alone as ONNX"
    ),
    STFT: Format(
        "{stem}.mel.onnx", "onnx", _FP32, ("cpu",), "raw audio in; ONNX's own STFT operator, to compare with", 1e-4
    ),
    "torchscript": Format("{stem}.torchscript.pt", "torchscript", _FP32, ("cpu", "cuda"), "raw audio in; torch alone"),
    BASELINE: Format("{stem}.safetensors", "torch", _FP32, ("cpu", "cuda"), "PyTorch with torchaudio's mel", 1e-4),
    "eager, our kernel": Format("{stem}.safetensors", "torch", _FP32, ("cpu", "cuda"), "PyTorch with our mel kernel"),
}


def grid(
    checkpoint: Path, folder: Path, providers: Sequence[str] = (), precisions: Sequence[str] = ()
) -> tuple[list[Contestant], list[tuple[Contestant, str]]]:
    """All contestants that can be had, and (contestant, reason) of the others.

    Args:
        checkpoint: of the model; its stem is that of the exported files.
        folder: of the exported files.
        providers, precisions: to measure; none: all that there are.

    Raises:
        UserError: an unknown name, or a provider that was asked for by name and cannot be had.
    """
    for name, given, choices in (("provider", providers, PROVIDERS), ("precision", precisions, PRECISIONS)):
        for value in given:
            if value not in choices:
                raise UserError(f"{name}={value!r} must be one of {', '.join(choices)}")
    reasons = {provider: why_unavailable(provider) for provider in providers or PROVIDERS}
    for provider, reason in reasons.items():
        if providers and reason:
            raise UserError(f"provider {provider}: {reason}; leave it out of --provider")
    found, absent = [], []
    for name, form in FORMATS.items():
        for provider in form.providers:
            for precision in form.precisions:
                if provider not in reasons or (precisions and precision not in precisions):
                    continue
                mark = "" if precision == "fp32" else f".{precision}"
                path = folder / form.file.format(stem=checkpoint.stem, mark=mark)
                path = checkpoint if form.kind == "torch" else path
                contestant = Contestant(name, precision, provider, str(path))
                if path.is_file() and not reasons[provider]:
                    found.append(contestant)
                elif path.is_file() or precision == "fp32" or precisions:  # others are made where they hold
                    missing = f"{path.name} is not there; `export` makes it"
                    absent.append((contestant, reasons[provider] or missing))
    return found, absent


def why_unavailable(provider: str) -> str | None:
    """Why a provider cannot be had on this machine; None where it can."""
    if provider == "cpu":
        return None
    from triadbench.export.predict import providers

    return providers.why_unavailable(provider)


def write_stft_model(network: Path, out: Path) -> None:
    """The network of a .mel.onnx file behind ONNX's own STFT operator; never shipped, made to be compared with.

    Raises:
        UserError: `network` is no file of ours.
    """
    import dataclasses

    import onnx

    from triadbench.export.formats.onnx_model import describe, with_mel
    from triadbench.export.predict.metadata import ExportInfo

    try:
        model = onnx.load(network)
    except Exception as error:  # its reader raises protobuf's own
        raise UserError(f"{network}: not a readable ONNX file ({type(error).__name__})") from error
    info = ExportInfo.from_metadata({entry.key: entry.value for entry in model.metadata_props}, str(network))
    info = dataclasses.replace(info, front_end="stft")
    joined = with_mel(model, info)
    describe(joined, info)
    onnx.save(joined, out)
