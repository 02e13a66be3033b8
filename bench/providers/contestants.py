"""Every way to run one model: formats x precisions x providers as data, and each opened as one callable.

A contestant takes waveforms (batch, samples) that lie in memory as float32 and gives probabilities and logits as NumPy
arrays, on the bare model: no look for silence, no names of chords. Only what a contestant needs is imported, when it
is opened: a fresh process shows what that costs.
"""

import contextlib
import dataclasses
import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from triadbench.bench import machine
from triadbench.core import system
from triadbench.core.constants import ONNX_PROVIDERS, PRECISIONS
from triadbench.core.errors import UserError
from triadbench.core.workers import module_command

BASELINE = "eager, torchaudio"
OUTPUTS = ("type_probabilities", "root_probabilities", "logits")  # that are compared; a model has them first
STFT = "onnx, STFT operator"
GPU_LIMIT = 1e-4
"""How far an fp32 probability from a GPU may be from the PyTorch model's on the CPU: every sum has another order."""
Outputs = dict[str, np.ndarray]
Resident = tuple[Callable[[], object], Callable[[], Outputs]]


@dataclasses.dataclass(frozen=True)
class Contestant:
    """One way to run the model."""

    format: str  # its name in `FORMATS`
    precision: str  # of the network
    provider: str  # "cpu", "cuda" or "tensorrt"
    path: str  # of the file that it opens; a checkpoint for the eager ones

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
        return {"format": self.format, "precision": self.precision, "provider": self.provider}


class Format(NamedTuple):
    """Of contestants.

    `limit` is how far an fp32 probability may be from the PyTorch model's. Torchaudio's mel and ONNX's STFT round more
    than ours: on clips between two chords a probability was seen 1.3e-5 away.
    """

    file: str  # with "{stem}" and "{mark}" (of the precision) to fill in
    kind: str  # which code opens it
    precisions: tuple[str, ...]
    providers: tuple[str, ...]
    what: str  # one line for the reader
    limit: float = 1e-5


_FP32, _CPU, _TORCH, _ALL = ("fp32",), ("cpu",), ("cpu", "cuda"), tuple(ONNX_PROVIDERS)
_ONNX, _BATCH, _MEL = "{stem}{mark}.onnx", "{stem}.batch{mark}.onnx", "{stem}.mel{mark}.onnx"
_STFT, _SCRIPT, _CHECKPOINT = "{stem}.mel.onnx", "{stem}.torchscript.pt", "{stem}.safetensors"
FORMATS = {
    "onnx, clip by clip": Format(_ONNX, "onnx", PRECISIONS, _CPU, "raw audio in; the mel of one clip after another"),
    "onnx, whole batch": Format(_BATCH, "onnx", PRECISIONS, _ALL, "raw audio in; the whole batch to every operator"),
    "onnx behind our kernel": Format(
        _MEL, "onnx mel", PRECISIONS, _CPU, "mel by our CPU kernel, the network alone as ONNX"
    ),
    STFT: Format(_STFT, "onnx", _FP32, _CPU, "raw audio in; ONNX's own STFT operator, to compare with", 1e-4),
    "torchscript": Format(_SCRIPT, "torchscript", _FP32, _TORCH, "raw audio in; torch alone"),
    BASELINE: Format(_CHECKPOINT, "torch", _FP32, _TORCH, "PyTorch with torchaudio's mel", 1e-4),
    "eager, our kernel": Format(_CHECKPOINT, "torch", _FP32, _TORCH, "PyTorch with our mel kernel"),
}


class Opened:
    """A contestant that is ready to answer; `threads` of the CPU for one call, torch's for the whole process.

    Raises UserError where the file or the provider cannot be had.
    """

    def __init__(self, contestant: Contestant, threads: int) -> None:
        self.contestant = contestant
        openers = {"onnx": _onnx, "onnx mel": _onnx_mel, "torchscript": _torchscript, "torch": _eager}
        self._call, self._bind, self._model = openers[FORMATS[contestant.format].kind](contestant, threads)

    def __call__(self, waveforms: np.ndarray) -> Outputs:
        """Probabilities (batch, 4) and (batch, 12) and logits (batch, 12, 4) of waveforms (batch, samples) float32."""
        return self._call(waveforms)

    def resident(self, waveforms: np.ndarray) -> Resident | None:
        """(one run on waveforms that lie on the GPU already, its outputs as arrays); None on a CPU, where nothing is
        copied. The run has ended when it returns."""
        return None if self.contestant.device == "cpu" else self._bind(waveforms)

    def placement(self) -> dict | None:
        """Nodes by provider, those of shapes alone, and Memcpy nodes, of an ONNX file; else None."""
        return None if self._model is None else dataclasses.asdict(self._model.describe_placement())


def _onnx(contestant: Contestant, threads: int):
    from triadbench.export.predict.providers import OnnxModel

    model = OnnxModel(contestant.path, contestant.provider, threads=threads)

    def bind(waveforms: np.ndarray) -> Resident:  # pragma: no cover (only a GPU's waveforms are bound)
        bound = model.bind(waveforms)
        return bound, bound.outputs

    return model.run, bind, model


def _onnx_mel(contestant: Contestant, threads: int):
    from triadbench.kernels.cpu import numpy_entry

    *_, model = _onnx(contestant, threads)
    spec, log = model.info.spec, model.info.log
    numpy_entry.load(spec)
    return lambda waveforms: model.run(numpy_entry.mel(waveforms, spec, log=log, threads=threads)), None, model


def _torchscript(contestant: Contestant, threads: int):
    import torch

    torch.set_num_threads(threads)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces the end of TorchScript at every use
        module = torch.jit.load(contestant.path, map_location=contestant.device)
    return *_torch_calls(module, contestant.device), None


def _eager(contestant: Contestant, threads: int):
    import torch

    from triadbench.bench.cases import torchaudio_mel
    from triadbench.core.models.predictor import Predictor
    from triadbench.kernels.spec import LOG_EPS

    torch.set_num_threads(threads)
    predictor = Predictor.load(contestant.path, contestant.device)
    is_baseline = contestant.format == BASELINE
    mel = torchaudio_mel(predictor.checkpoint.spec).to(contestant.device) if is_baseline else predictor.mel
    model: Any = predictor.model

    def forward(waveforms):
        features = mel(waveforms)
        if is_baseline and predictor.log:
            features = torch.log(features + LOG_EPS)
        logits = model.joint(features)
        joint = torch.softmax(logits.flatten(1), dim=1).reshape(logits.shape)
        return joint.sum(dim=1), joint.sum(dim=2), logits

    return *_torch_calls(forward, contestant.device), None


def _torch_calls(forward: Callable, device: str):
    """(call with copies, binding without) of a function from a tensor to the tuple of outputs."""
    import torch

    if device == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # as for ONNX Runtime: inputs of 10 bits are not fp32

    def arrays(outputs) -> Outputs:
        return {name: value.cpu().numpy() for name, value in zip(OUTPUTS, outputs[: len(OUTPUTS)], strict=True)}

    @torch.inference_mode()
    def call(waveforms: np.ndarray) -> Outputs:
        return arrays(forward(torch.from_numpy(waveforms).to(device)))

    def bind(waveforms: np.ndarray) -> Resident:  # pragma: no cover (only a GPU's waveforms are bound)
        on_device = torch.from_numpy(waveforms).to(device)
        last: list = []

        @torch.inference_mode()
        def run() -> None:
            last[:] = [forward(on_device)]
            machine.drain(device)

        return run, lambda: arrays(last[0])

    return call, bind


def write_stft_model(network: Path, out: Path) -> None:
    """The network of a .mel.onnx file (else UserError) behind ONNX's own STFT operator; made to be compared with."""
    import onnx

    from triadbench.export.formats.onnx_model import describe, with_mel
    from triadbench.export.predict.metadata import ExportInfo, sealed

    try:
        model = onnx.load(network)
    except Exception as error:  # its reader raises protobuf's own
        raise UserError(f"{network}: not a readable ONNX file ({type(error).__name__})") from error
    properties = {entry.key: entry.value for entry in model.metadata_props}
    info = dataclasses.replace(ExportInfo.from_metadata(properties, str(network)), front_end="stft")
    joined = with_mel(model, info)
    describe(joined, info)
    out.write_bytes(sealed(joined.SerializeToString()))


def measure_fresh(contestant: Contestant, threads: int, clips: Path, batch: int) -> tuple[dict, Outputs]:
    """What a fresh process waits for and holds, on the first `batch` clips of an .npy file (n, samples) float32.

    The clock starts when Python and NumPy are imported, so that loading holds all else that a contestant imports.

    Returns `load_ms`, `first_call_ms`, `second_call_ms` (of one clip), `memory_mb` (growth of the process by loading
    and one clip), `batch_memory_mb` (the same, after `batch` clips), `gpu_memory_mb` (None on a CPU); and the outputs
    of the first call. Raises ProcessError with the reason.
    """
    job = json.dumps([dataclasses.asdict(contestant), threads, str(clips), batch])
    printed = machine.run_process(module_command("triadbench.bench.providers.contestants", job))
    result = json.loads(printed.splitlines()[-1])
    return result, {name: np.asarray(values) for name, values in result.pop("outputs").items()}


def _main(job: str) -> None:
    """The fresh process's side."""
    fields, threads, clips, batch = json.loads(job)
    contestant = Contestant(**fields)
    waveforms = np.load(clips)[:batch]
    before_mb, free_mb = system.peak_memory_bytes() / 1e6, _gpu_free_mb(contestant)
    result: dict[str, Any] = {}

    def timed(name: str, function: Callable, *arguments: Any) -> Any:
        start = time.perf_counter()
        value = function(*arguments)
        result[name] = 1e3 * (time.perf_counter() - start)
        return value

    opened = timed("load_ms", Opened, contestant, threads)
    outputs = timed("first_call_ms", opened, waveforms[:1])
    timed("second_call_ms", opened, waveforms[:1])
    result["memory_mb"] = system.peak_memory_bytes() / 1e6 - before_mb
    opened(waveforms)
    after_mb = _gpu_free_mb(contestant)
    result["batch_memory_mb"] = system.peak_memory_bytes() / 1e6 - before_mb
    result["gpu_memory_mb"] = None if free_mb is None or after_mb is None else free_mb - after_mb
    result["outputs"] = {name: values.astype(float).tolist() for name, values in outputs.items()}
    print(json.dumps(result))


def _gpu_free_mb(contestant: Contestant) -> float | None:
    """Free memory of the GPU, 10^6 bytes, by NVML; None on a CPU, or without it."""
    if contestant.device != "cpu":
        with contextlib.suppress(Exception):  # without the package, or its driver, there is no figure
            import pynvml

            pynvml.nvmlInit()
            return pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(0)).free / 1e6
    return None


if __name__ == "__main__":
    _main(sys.argv[1])
