"""The predictor for users: a waveform in, a chord out, on the provider of your choice; PyTorch only where asked for.

    from triadbench.export.predict import ChordPredictor
    predictor = ChordPredictor()
    print(predictor.name(waveform)["chord"])        # float32 (samples,) at 16 kHz in [-1, 1]

With provider="cpu" and front_end="graph" it imports neither torch nor numba nor onnx nor scipy.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from triadbench.core.constants import CLIP_SAMPLES, ONNX_PROVIDERS, PRECISIONS, PROVIDERS, SAMPLE_RATE, usable_cores
from triadbench.core.errors import UserError
from triadbench.core.files import ModelFiles, check_model_file, model_name, model_paths, pretrained_path
from triadbench.core.models.prediction import Scores, name_chord, no_chord, require_chords
from triadbench.export.predict.metadata import ExportInfo
from triadbench.export.predict.providers import Bound, Model, OnnxModel, Placement, check_choice, whole_number

if TYPE_CHECKING:
    from triadbench.export.predict.models import Background, KernelModel

STEM = "chordnet"
_KINDS = {  # of model files, by the end of their names: what it is, the providers that take it, and what else to do
    ".torchscript.pt": ("TorchScript", ("torchscript",), "use --provider torchscript"),
    ".safetensors": ("a checkpoint", ("torch",), "use --provider torch, or `export` it"),
    ".pth": ("a checkpoint", ("torch", "torchscript"), "use --provider torch, or `export` it"),
    ".pt": ("a checkpoint", ("torch", "torchscript"), "use --provider torch, or `export` it"),
    ".onnx": ("an ONNX model", tuple(ONNX_PROVIDERS), "use --provider cpu or cuda"),
}
_PART_SAMPLES = {"cpu": 8 * CLIP_SAMPLES, "cuda": 512 * CLIP_SAMPLES, "tensorrt": 512 * CLIP_SAMPLES}
"""A batch is computed in parts of so many samples (64 clips elsewhere): memory does not grow with the batch. On a CPU
larger parts are no faster, and small ones are shared among the threads."""
_FULL_SCALE = 2.0**31  # no format has larger numbers, and from about 1e15 on powers are infinite
MAX_SAMPLES = 600 * SAMPLE_RATE  # taken whole: the network hears it as one chord, and memory grows with the length


class ChordPredictor:
    """A model, loaded once, that answers for waveforms.

    Args:
        model: an exported file, or a checkpoint for provider "torch", or a list of two: the original study's type
            network and root network, which together name chords; None: the shipped model.
        provider: "cpu", "cuda", "tensorrt" (ONNX Runtime), "torchscript", or "torch" (on a checkpoint).
        precision: of the shipped model: "fp32", "fp16" or "int8".
        threads: of the CPU, for one call; None: one a core that this process may use. On ONNX Runtime they share the
            clips of a batch, each computed on one. With PyTorch it is torch's own number, of the whole process.
        front_end: who makes mel spectrograms: "graph" (the file itself), "kernel" (our CPU kernel, and the network
            alone from the file beside it whose name says .mel), or "auto": the graph, and the kernel from the moment
            that `warm_kernel` has loaded it and found it faster.
        device: of providers "torchscript" and "torch": "cpu" or "cuda".
        triads: answer with triads alone: every chord counts as its triad, and only silence is no chord.
        options, engine_cache: of the provider; see `export.predict.providers.OnnxModel`.

    Attributes:
        path, model_name, info: of the file (of two, the first); for people; and what the model says of itself.
        provider, triads: as asked for, and checked.
        note: None, or why the kernel is not used though it was asked for with `warm_kernel`: one line.
        seconds_a_clip: of "graph" and "kernel", once both are measured here.

    Raises:
        UserError: an unknown name, a provider that cannot be had, or a file that is missing, damaged or foreign.
    """

    def __init__(
        self,
        model: ModelFiles | None = None,
        provider: str = "cpu",
        *,
        precision: str = "fp32",
        threads: int | None = None,
        front_end: str = "auto",
        device: str = "cpu",
        triads: bool = False,
        options: dict[str, str] | None = None,
        engine_cache: str | Path | None = None,
    ):
        check_choice("provider", provider, PROVIDERS)
        check_choice("precision", precision, PRECISIONS)
        check_choice("front_end", front_end, ("auto", "graph", "kernel"))
        _check_settings(provider, device, options, engine_cache)
        self.provider, self.triads = provider, triads
        self.note: str | None = None
        self.seconds_a_clip: dict[str, float] = {}
        self._asked, self._warming = front_end, threading.Lock()
        self._background: Background | None = None
        self._threads = None if threads is None else whole_number("threads", threads, 1)
        self._sharing = self._threads or usable_cores()
        # One thread inside a session: two spent a fifth more CPU time a clip (waiting awake: twice as much), and were
        # no faster even for one clip.
        self._open = functools.partial(
            OnnxModel, provider=provider, threads=1, options=options, engine_cache=engine_cache
        )
        self.path = _shipped(provider, precision) if model is None else _given(model, provider)
        self.model_name = model_name(model or self.path)
        self._model = self._load(device, model)
        self._graph = self._model if isinstance(self._model, OnnxModel) else None
        self.info: ExportInfo = self._model.info
        if model is not None and precision not in ("fp32", self.info.precision):
            raise UserError(f"precision={precision!r}: {self.path.name} is {self.info.precision}; leave it out")

    @property
    def front_end(self) -> str:
        """What makes the mel spectrograms now: "graph" (the file itself) or "kernel"."""
        return self._model.front_end

    def __call__(self, waveforms: np.ndarray, sample_rate: int = SAMPLE_RATE) -> Scores:
        """Scores of waveforms (batch, samples), float32 in [-1, 1] at 16 kHz; any length from `info.min_samples` on.
        Raises UserError: another sample rate, shape, kind of number or length, or values that are not finite."""
        waveforms = self.check(waveforms, sample_rate)
        n = len(waveforms)
        if not n:  # the shapes are those of one clip
            waveforms = np.zeros((1, waveforms.shape[1]), np.float32)
        most = max(1, _PART_SAMPLES.get(self.provider, 64 * CLIP_SAMPLES) // waveforms.shape[1])
        if self.provider == "cpu":
            most = min(most, -(-len(waveforms) // self._sharing))
        parts = [waveforms[i : i + most] for i in range(0, len(waveforms), most)]
        model = self._model  # the same for all parts, whatever `warm_kernel` finds meanwhile
        shared = self.provider == "cpu" and self._sharing > 1 and waveforms.shape[1] <= _PART_SAMPLES["cpu"]
        if len(parts) > 1 and shared:  # long ones are not: the memory of each would be taken at once
            scores = list(self._pool.map(model.scores, parts))
        else:
            scores = [model.scores(part) for part in parts]
        if len(scores) > 1 or not n:
            columns = ([getattr(part, field.name) for part in scores] for field in dataclasses.fields(Scores))
            joined: list = [None if column[0] is None else np.concatenate(column)[:n] for column in columns]
            scores = [Scores(*joined)]
        return scores[0].of_triads() if self.triads else scores[0]

    def name(self, waveform: np.ndarray, alternatives: int = 3, sample_rate: int = SAMPLE_RATE) -> dict:
        """The chord of one waveform (samples,): `core.models.prediction.name_chord`, or `no_chord` for silence. Raises
        UserError: as `__call__`; or the model answers for the type or the root only."""
        waveform = np.asarray(waveform)
        if waveform.ndim != 1:
            raise UserError(f"waveform of shape {waveform.shape}: expected (samples,); average the channels")
        alternatives = whole_number("alternatives", alternatives, 0)
        require_chords(self.info.task)
        scores = self(waveform[None], sample_rate)
        if scores.chords is None or scores.silent[0]:
            return no_chord()
        return name_chord(scores.chords[0], None if scores.bass is None else scores.bass[0], alternatives)

    def check(self, waveforms: np.ndarray, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
        """The waveforms as float32, contiguous; raises UserError where the model does not take them, as `__call__`."""
        if sample_rate != self.info.sample_rate:
            way_out = "resample the waveform (triadbench.core.audio.io reads files at that rate)"
            raise UserError(f"sample_rate={sample_rate} Hz: the model takes {self.info.sample_rate}; {way_out}")
        waveforms = np.asarray(waveforms)
        if not np.issubdtype(waveforms.dtype, np.floating):
            scale = np.iinfo(waveforms.dtype).max + 1 if np.issubdtype(waveforms.dtype, np.signedinteger) else None
            way_out = f"divide by {scale}" if scale else "convert it to float32"
            raise UserError(f"waveforms of {waveforms.dtype}: expected float32 in [-1, 1]; {way_out}")
        least, only = self.info.min_samples, self.info.samples
        if waveforms.ndim != 2 or waveforms.shape[1] < least:
            expected = f"expected (batch, samples), at least {least} samples; pad with zeros"
            raise UserError(f"waveforms of shape {waveforms.shape}: {expected}")
        if only is not None and waveforms.shape[1] != only:
            raise UserError(f"the original network takes {only} samples, not {waveforms.shape[1]}")
        if waveforms.shape[1] > MAX_SAMPLES:
            limit = f"at most {MAX_SAMPLES} (ten minutes) are named as one chord"
            way_out = "cut them into clips of 4 s, as `infer` does with files of any length"
            raise UserError(f"waveforms of {waveforms.shape[1]} samples: {limit}; {way_out}")
        with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite, which is told below
            waveforms = np.ascontiguousarray(waveforms, np.float32)
        if waveforms.size:
            low, high = float(waveforms.min()), float(waveforms.max())  # NaN in both if one is; no array is made
            if not (math.isfinite(low) and math.isfinite(high)):
                raise UserError("waveforms hold NaN or infinite values")
            if max(-low, high) > _FULL_SCALE:
                raise UserError(f"waveforms reach {max(-low, high):.3g}: expected [-1, 1]; divide by their full scale")
        return waveforms

    def bind(self, waveforms: np.ndarray) -> Bound:
        """The bare graph, with `waveforms` in the provider's memory already: for the benchmark. Raises UserError: as
        `__call__`; or there is no graph that takes waveforms on ONNX Runtime."""
        model = self._graph or self._onnx("bind")
        if model.info.input_name != "waveform":
            raise UserError(f"bind: {model.path.name} takes mel; give the file that takes waveforms")
        return model.bind(self.check(waveforms))

    def describe_placement(self) -> Placement:
        """Where each node of what is in use runs, and how many copies between CPU and GPU are in it."""
        return self._onnx("describe_placement").describe_placement()

    def warm_kernel(self, wait: bool = False) -> None:
        """Load the kernel front end in the background; with `front_end="auto"` it is used once it is found faster.

        A CPU's alone, and once: further calls, and those where there is nothing to choose, do nothing. What goes
        wrong is in `note`, and the graph goes on answering. `wait`: return when it is decided.
        """
        graph = self._graph
        if graph is None or self._asked != "auto" or self.provider != "cpu":
            return
        from triadbench.core import extras

        if not extras.importable("numba"):
            self.note = f"many files are faster with our mel kernel; {extras.way_out('numba')}"
            return
        from triadbench.export.predict.models import Background, seconds_a_clip

        kernels: list[KernelModel] = []

        def choose() -> None:
            self.seconds_a_clip = seconds_a_clip({"graph": graph, "kernel": kernels[0]}, graph.info.samples)
            if self.seconds_a_clip["kernel"] < self.seconds_a_clip["graph"]:
                self._model = kernels[0]

        def failed(error: Exception) -> None:
            reason = " ".join(str(error).split()) or type(error).__name__
            self.note = f"the graph goes on without the mel kernel: {reason}"

        with self._warming:
            if self._background is None:
                self._background = Background(lambda: kernels.append(self._kernel(graph.info)), choose, failed=failed)
        if wait:
            self._background.wait()

    @functools.cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._sharing, thread_name_prefix="predictor")

    def _load(self, device: str, files: ModelFiles | None) -> Model:
        asked = self._asked
        if self.provider in ("torch", "torchscript"):
            from triadbench.export.predict.models import CheckpointModel, TorchScriptModel

            kind = CheckpointModel if self.provider == "torch" else TorchScriptModel
            if asked not in ("auto", only := kind.front_end):
                raise UserError(f"front_end={asked!r}: provider {self.provider} has {only} alone; leave it out")
            if self.provider == "torch":
                return CheckpointModel(files or self.path, device, self._threads)
            return TorchScriptModel(self.path, device, self._threads)
        if asked == "kernel" and files is None:
            return self._kernel(None)
        model = self._open(self.path)
        if model.info.input_name == "waveform":
            return self._kernel(model.info) if asked == "kernel" else model
        if asked == "graph":
            raise UserError(f"{self.path.name} is the network alone, which takes mel; use front_end='kernel'")
        from triadbench.export.predict.models import KernelModel

        return KernelModel(model)

    def _kernel(self, info: ExportInfo | None) -> KernelModel:
        """Of the network alone in the file beside this one, which is that with `info`; None: the shipped ones."""
        from triadbench.export.predict.models import KernelModel

        return KernelModel.beside(self.path, info, self._open)

    def _onnx(self, method: str) -> OnnxModel:
        model = getattr(self._model, "network", self._model)
        if not isinstance(model, OnnxModel):
            raise UserError(f"{method}: provider {self.provider} is not ONNX Runtime's; use cpu, cuda or tensorrt")
        return model


def file_name(provider: str, precision: str = "fp32", stem: str = STEM) -> str:
    """Of the exported file that a provider uses: {stem}[.batch][.fp16|.int8].onnx, and its like."""
    if provider in ("torch", "torchscript"):
        return f"{stem}.safetensors" if provider == "torch" else f"{stem}.torchscript.pt"
    return f"{stem}{'' if provider == 'cpu' else '.batch'}{'' if precision == 'fp32' else '.' + precision}.onnx"


def _check_settings(provider: str, device: str, options: dict | None, engine_cache: str | Path | None) -> None:
    """Raises UserError for settings that the provider would pass over."""
    if device != "cpu" and provider in ONNX_PROVIDERS:
        way_out = "for a GPU use provider='cuda'" if device == "cuda" else "leave it out"
        if isinstance(device, str) and device.startswith("cuda:"):
            way_out = f"use options={{'device_id': {device[5:]!r}}} of provider cuda"
        raise UserError(f"device={device!r} is of providers torch and torchscript alone; {way_out}")
    if options and provider not in ("cuda", "tensorrt"):
        raise UserError(f"options={options!r}: provider {provider} has none; leave them out, or use cuda or tensorrt")
    if engine_cache is not None and provider != "tensorrt":
        kept = f"provider {provider} keeps no engines; leave it out, or use provider='tensorrt'"
        raise UserError(f"engine_cache={str(engine_cache)!r}: {kept}")


def _shipped(provider: str, precision: str) -> Path:
    if precision != "fp32" and provider in ("torch", "torchscript"):
        raise UserError(f"precision={precision!r}: provider {provider} has fp32 alone; leave it out")
    if (precision, provider == "cpu") in (("fp16", True), ("int8", False)):  # `export` makes no such files
        what, way = ("CPUs", "cpu") if precision == "int8" else ("GPUs", "cuda or tensorrt")
        raise UserError(f"precision={precision!r} is for {what}: use --provider {way}, or another precision")
    path = pretrained_path(file_name(provider, precision))
    if not path.is_file():
        others = ", ".join(sorted(file.name for file in path.parent.glob(f"{STEM}*.onnx"))) or "no exported file"
        missing = f"{path.name} is not in {path.parent} (there: {others})"
        raise UserError(f"{missing}; make it with `export`, or give another precision or --model FILE")
    return path


def file_kind(path: Path) -> tuple[str, tuple[str, ...], str]:
    """What a model file is by its name, the providers that take it, and what else to do."""
    endings = (ending for ending in _KINDS if path.name.lower().endswith(ending))
    return _KINDS[next(endings, ".onnx")]


def provider_of(files: ModelFiles | None) -> str:
    """The provider that answers where none was asked for, by the kind of file; "cpu" for the shipped model."""
    return "cpu" if files is None else file_kind(model_paths(files)[0])[1][0]


def _given(files: ModelFiles, provider: str) -> Path:
    paths = model_paths(files)
    for path in paths:
        check_model_file(path)
        kind, providers, way_out = file_kind(path)
        if len(paths) > 1 and (provider != "torch" or provider not in providers):
            way_out = "use --provider torch on both checkpoints, or `export` them together"
            raise UserError(f"{path} is {kind}: two networks are joined by PyTorch alone; {way_out}")
        if provider not in providers and path.name.endswith(tuple(_KINDS)):
            raise UserError(f"{path} is {kind}, which provider {provider} does not take; {way_out}")
    return paths[0]
