"""A checkpoint as TorchScript: waveform in, probabilities and logits out, in a process that has torch alone.

The mel spectrogram is torch.stft and blocks of filters: faster than the matrix products of export/formats/mel_graph.py
(one thread: twice at batch 1, four times at batch 32), because torch brings a fast FFT for the CPU and for the GPU. The
network is traced and its batch normalisation folded into its convolutions; the part around it is scripted, so that it
can refuse a wrong shape in words. Weights stay parameters: `.to("cuda")` moves all of it.
"""

from __future__ import annotations

import copy
import io
import itertools
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from triadbench.core.errors import UserError
from triadbench.core.models.checkpoint import Checkpoint
from triadbench.export.formats.onnx_model import CLIP_FRAMES, NetworkWithProbabilities, quiet
from triadbench.export.predict.metadata import KEY, ExportInfo, sealed_zip
from triadbench.kernels.spec import LOG_EPS

EXTRA_FILE = f"{KEY}.json"  # the metadata's place among the file's `_extra_files`
_FILTERS_A_BLOCK = 24
_WRITERS_OWN = ("version", "byteorder", ".data/serialization_id", ".format_version", ".storage_alignment")


def waveform_module(checkpoint: Checkpoint, info: ExportInfo) -> torch.jit.ScriptModule:
    """waveform (batch, samples) float32 -> the tuple that `info.output_names` names; both axes dynamic.

    Raises (from inside the module, as torch.jit.Error):
        ValueError: not two axes, not float32, or a length that the model does not take.
        UserError: here, for a spec with a window of its own, which has no formula.
    """
    if info.spec.window == "custom":
        raise UserError("no TorchScript for window='custom'; it has every window with a formula")
    with quiet():
        return torch.jit.script(_WaveformModel(network_module(checkpoint, info), info)).eval()


def network_module(checkpoint: Checkpoint, info: ExportInfo) -> torch.jit.ScriptModule:
    """The network alone, traced: (log) mel (batch, n_mels, n_frames) -> the same tuple."""
    network = NetworkWithProbabilities(
        Checkpoint(_folded(checkpoint.model), checkpoint.architecture, checkpoint.task, checkpoint.spec)
    )
    mel = torch.zeros(2, info.spec.n_mels, CLIP_FRAMES if info.samples else 63)
    # A trace keeps this setting with every convolution: TF32 would round their inputs to 10 bits on a GPU.
    with quiet(), torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        return torch.jit.trace(network.eval(), (mel,), check_trace=False)


def to_bytes(module: torch.jit.ScriptModule, info: ExportInfo) -> bytes:
    """The file, with `info` in it, sealed."""
    buffer = io.BytesIO()
    with quiet():
        torch.jit.save(module, buffer, _extra_files={EXTRA_FILE: info.metadata()[KEY]})
    return sealed_zip(_forget_where_it_was_made(buffer.getvalue()))


class _WaveformModel(nn.Module):
    if TYPE_CHECKING:  # TorchScript would read them, as text
        window: Tensor
        filters: Tensor
        bins: Tensor

    def __init__(self, network: nn.Module, info: ExportInfo):
        super().__init__()
        spec = info.spec
        filterbank = spec.filterbank()
        self.first_bin, stop = _used(filterbank)
        self.n_bins = stop - self.first_bin
        self.n_fft, self.hop_length, self.pad, self.power = spec.n_fft, spec.hop_length, spec.pad, spec.power
        self.edge = spec.n_fft // 2 if spec.center else 0
        self.pad_mode, self.n_mels, self.log, self.log_eps = spec.pad_mode, spec.n_mels, info.log, LOG_EPS
        self.samples, self.min_samples, self.sample_rate = info.samples or 0, info.min_samples, spec.sample_rate
        filters, bins = filter_blocks(filterbank[:, self.first_bin : stop])
        # float64 until here, rounded once.
        self.register_buffer("window", torch.from_numpy(spec.frame_window(spec.window_array())).float())
        self.register_buffer("filters", torch.from_numpy(filters).float())
        self.register_buffer("bins", torch.from_numpy(bins))
        self.network = network

    def forward(self, waveform: Tensor):  # pragma: no cover - compiled by TorchScript
        if waveform.dim() != 2:
            raise ValueError(f"waveform of {waveform.dim()} axes: expected (batch, samples) at {self.sample_rate} Hz")
        if waveform.dtype != torch.float32:
            raise ValueError("waveform must be float32 in [-1, 1]; convert it, and divide int16 by 32768")
        n = waveform.shape[1]
        if self.samples > 0 and n != self.samples:
            raise ValueError(f"waveform of {n} samples: this model takes {self.samples}; cut it, or pad with zeros")
        if n < self.min_samples:
            raise ValueError(f"waveform of {n} samples: at least {self.min_samples} are needed; pad with zeros")
        return self.network(self.mel(waveform))

    def mel(self, waveform: Tensor) -> Tensor:  # pragma: no cover - compiled by TorchScript
        """On a CPU clip by clip: what a clip takes stays in the cache. torch.stft refuses a batch of 0."""
        if waveform.shape[0] == 0:
            return self.mel_at_once(waveform.new_zeros([1, waveform.shape[1]])).narrow(0, 0, 0)
        if waveform.shape[0] < 2 or waveform.device.type != "cpu":
            return self.mel_at_once(waveform)
        return torch.cat([self.mel_at_once(waveform[i : i + 1]) for i in range(waveform.shape[0])])

    def mel_at_once(self, waveform: Tensor) -> Tensor:  # pragma: no cover - compiled by TorchScript
        x = waveform.unsqueeze(1)
        if self.pad > 0:
            x = nn.functional.pad(x, [self.pad, self.pad])
        if self.edge > 0:
            x = nn.functional.pad(x, [self.edge, self.edge], mode=self.pad_mode)
        spectrum = torch.stft(
            x.squeeze(1),
            self.n_fft,
            self.hop_length,
            self.n_fft,
            self.window,
            center=False,
            normalized=False,
            onesided=True,
            return_complex=True,
        )
        power = torch.view_as_real(spectrum.narrow(1, self.first_bin, self.n_bins)).square().sum(-1)
        if self.power != 2.0:
            power = power.pow(self.power / 2)
        blocks, _, width = self.filters.shape
        bins = power.index_select(1, self.bins).reshape(power.shape[0], blocks, width, power.shape[2])
        mel = torch.matmul(self.filters, bins).flatten(1, 2).narrow(1, 0, self.n_mels)
        if self.log:
            mel = torch.log(mel + self.log_eps)
        return mel


def filter_blocks(filterbank: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The filters (n_mels, n_bins) in blocks of neighbours (blocks, filters of a block, width), zeros where a block is
    not full, and the bins (blocks * width,) that they weigh."""
    parts = np.split(filterbank, range(_FILTERS_A_BLOCK, len(filterbank), _FILTERS_A_BLOCK))
    ends = [_used(part) for part in parts]
    width = max(stop - start for start, stop in ends)
    blocks = np.zeros((len(parts), _FILTERS_A_BLOCK, width))
    starts = [min(start, filterbank.shape[1] - width) for start, _ in ends]
    for block, part, start in zip(blocks, parts, starts, strict=True):
        block[: len(part)] = part[:, start : start + width]
    return blocks, np.concatenate([np.arange(start, start + width) for start in starts])


def _used(filters: np.ndarray) -> tuple[int, int]:
    """The first bin that filters (n, n_bins) weigh, and the bin after the last; a single one if they weigh none."""
    bins = np.flatnonzero(filters.any(axis=0))
    return (int(bins[0]), int(bins[-1]) + 1) if len(bins) else (0, 1)


def _forget_where_it_was_made(file: bytes) -> bytes:
    """Without the source lines and folders of the machine that wrote it, which torch keeps beside every operation."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(file)) as archive:
        writer = torch._C.PyTorchFileWriter(out)
        for name in archive.namelist():
            record = name.split("/", 1)[1]
            if not record.endswith(".debug_pkl") and record not in _WRITERS_OWN:
                content = archive.read(name)
                writer.write_record(record, content, len(content))
        writer.write_end_of_file()
    return out.getvalue()


def _folded(model: nn.Module) -> nn.Module:
    """A copy whose batch normalisation is in its convolutions' weights, worked out in float64 and rounded once."""
    model = copy.deepcopy(model).cpu().eval().double()
    for part in [part for part in model.modules() if isinstance(part, nn.Sequential)]:
        for i, (layer, following) in enumerate(itertools.pairwise(list(part))):
            if isinstance(layer, nn.Conv1d | nn.Conv2d) and isinstance(following, nn.BatchNorm1d | nn.BatchNorm2d):
                part[i], part[i + 1] = fuse_conv_bn_eval(layer, following), nn.Identity()
    return model.float().requires_grad_(False)
