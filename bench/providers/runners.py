"""Contestants opened: one callable from waveforms to probabilities, whatever runs them.

Only what a contestant needs is imported, when it is opened: a fresh process shows what that costs.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from triadbench.bench.providers.contestants import BASELINE, FORMATS, OUTPUTS, Contestant

Outputs = dict[str, np.ndarray]


class Opened:
    """A contestant that is ready to answer.

    Args:
        contestant: what to open.
        threads: of the CPU, for one call. Torch's are set for the whole process.

    Raises:
        UserError: the file or the provider cannot be had.
    """

    def __init__(self, contestant: Contestant, threads: int):
        self.contestant = contestant
        kind = FORMATS[contestant.format].kind
        make = {"onnx": _onnx, "onnx mel": _onnx_mel, "torchscript": _torchscript, "torch": _eager}[kind]
        self._call, self._bind, self._model = make(contestant, threads)

    def __call__(self, waveforms: np.ndarray) -> Outputs:
        """Probabilities (batch, 4) and (batch, 12) and logits (batch, 12, 4) of waveforms (batch, samples) float32."""
        return self._call(waveforms)

    def resident(self, waveforms: np.ndarray) -> tuple[Callable[[], object], Callable[[], Outputs]] | None:
        """(one run on waveforms that lie on the GPU already, its outputs as arrays); None on a CPU, where nothing is
        copied. The run has ended when it returns."""
        return None if self.contestant.device == "cpu" else self._bind(waveforms)

    def placement(self) -> dict | None:
        """Nodes by provider, those of shapes alone, and Memcpy nodes, of an ONNX file; else None."""
        if self._model is None:
            return None
        import dataclasses

        return dataclasses.asdict(self._model.describe_placement())


def _onnx(contestant: Contestant, threads: int):
    from triadbench.export.predict.providers import OnnxModel

    model = OnnxModel(contestant.path, contestant.provider, threads=threads)

    def bind(waveforms: np.ndarray):
        bound = model.bind(waveforms)
        return bound, bound.outputs

    return model.run, bind, model


def _onnx_mel(contestant: Contestant, threads: int):
    from triadbench.export.predict.providers import OnnxModel
    from triadbench.kernels.cpu import numpy_entry as numpy_mel

    model = OnnxModel(contestant.path, contestant.provider, threads=threads)
    spec, log = model.info.spec, model.info.log
    numpy_mel.load(spec)
    return lambda waveforms: model.run(numpy_mel.mel(waveforms, spec, log=log, threads=threads)), None, model


def _torchscript(contestant: Contestant, threads: int):
    import torch

    torch.set_num_threads(threads)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces the end of TorchScript at every use
        module = torch.jit.load(contestant.path, map_location=contestant.device)
    return *_torch_calls(module, contestant.device), None


def _eager(contestant: Contestant, threads: int):
    import torch

    from triadbench.bench import cases
    from triadbench.core.models import checkpoint as checkpoints
    from triadbench.kernels.spec import LOG_EPS

    torch.set_num_threads(threads)
    loaded = checkpoints.load(Path(contestant.path), device=contestant.device)
    torchaudios = contestant.format == BASELINE
    mel = cases.torchaudio_mel(loaded.spec) if torchaudios else cases.drop_in_mel(loaded.spec, log=True)
    mel = mel.to(contestant.device)

    def forward(waveforms):
        features = torch.log(mel(waveforms) + LOG_EPS) if torchaudios else mel(waveforms)
        logits = loaded.model.joint(features)
        joint = torch.softmax(logits.flatten(1), dim=1).reshape(logits.shape)
        return joint.sum(dim=1), joint.sum(dim=2), logits

    return *_torch_calls(forward, contestant.device), None


def _torch_calls(forward: Callable, device: str):
    """(call with copies, binding without) of a function from a tensor to the tuple of outputs."""
    import torch

    def arrays(outputs) -> Outputs:
        return {name: value.cpu().numpy() for name, value in zip(OUTPUTS, outputs, strict=True)}

    @torch.inference_mode()
    def call(waveforms: np.ndarray) -> Outputs:
        return arrays(forward(torch.from_numpy(waveforms).to(device)))

    def bind(waveforms: np.ndarray):
        on_device, last = torch.from_numpy(waveforms).to(device), []

        @torch.inference_mode()
        def run() -> None:
            last[:] = [forward(on_device)]
            torch.cuda.synchronize()

        return run, lambda: arrays(last[0])

    return call, bind
