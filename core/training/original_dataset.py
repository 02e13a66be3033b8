"""The original study's data pipeline: everything per clip, inside the dataset, on the training device.

Kept as simple as the original, for it is the baseline. Two differences: torchaudio 2.11's `load` needs a codec package
that this project does not, so files are read with soundfile; and the DataLoader is given the epoch's order (which
`shuffle=True` would draw itself), so that every pipeline sees the same clips in the same order.
"""

import io
from collections.abc import Iterator
from pathlib import Path

import soundfile
import torch
import torchaudio
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from triadbench.core.constants import CLIP_SAMPLES, SAMPLE_RATE
from triadbench.core.data.dataset import Dataset
from triadbench.core.training.clock import NO_CLOCK, NoClock
from triadbench.kernels.spec import ORIGINAL


class TriadClips(torch.utils.data.Dataset):
    """(mel (1, 64, 126) on the device, label) of a clip of a folder, zip or pack.

    Args:
        dataset: an opened set. labels: class index of every clip (n,).
        device: where clips are resampled and transformed.
        clock: books the parts of every clip.
    """

    def __init__(self, dataset: Dataset, labels: Tensor, device: torch.device, clock: NoClock = NO_CLOCK):
        self.dataset, self.labels, self.device, self.clock = dataset, labels, device, clock
        self.transform = torchaudio.transforms.MelSpectrogram(
            sample_rate=ORIGINAL.sample_rate,
            n_fft=ORIGINAL.n_fft,
            hop_length=ORIGINAL.hop_length,
            n_mels=ORIGINAL.n_mels,
        ).to(device)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        with self.clock.part("reading"):
            signal, sample_rate = self._load(index)
        with self.clock.part("copy"):
            signal = signal.to(self.device)
        with self.clock.part("resampling"):
            signal = self._cut_or_pad(self._mix(self._resample(signal, sample_rate)))
        with self.clock.part("mel"):
            return self.transform(signal), self.labels[index]

    def _load(self, index: int) -> tuple[Tensor, int]:
        """All channels (channels, samples) float32, and the rate in Hz."""
        if self.dataset.rows is not None:
            return torch.from_numpy(self.dataset.read(index)).unsqueeze(0), SAMPLE_RATE
        if self.dataset.kind == "folder":
            file: Path | io.BytesIO = self.dataset.path / self.dataset.clips[index].member
        else:
            file = io.BytesIO(self.dataset.file_bytes(index))
        samples, sample_rate = soundfile.read(file, dtype="float32", always_2d=True)
        return torch.from_numpy(samples.T), sample_rate

    def _resample(self, signal: Tensor, sample_rate: int) -> Tensor:
        if sample_rate == SAMPLE_RATE:
            return signal
        return torchaudio.transforms.Resample(sample_rate, SAMPLE_RATE).to(self.device)(signal)

    def _mix(self, signal: Tensor) -> Tensor:
        return signal.mean(dim=0, keepdim=True) if signal.shape[0] > 1 else signal

    def _cut_or_pad(self, signal: Tensor) -> Tensor:
        if signal.shape[1] >= CLIP_SAMPLES:  # as the original asks first: padding by nothing would copy the clip
            return signal[:, :CLIP_SAMPLES]
        return torch.nn.functional.pad(signal, (0, CLIP_SAMPLES - signal.shape[1]))


def original_batches(
    dataset: Dataset, labels: Tensor, device: torch.device, batches: list[list[int]], clock: NoClock
) -> Iterator[tuple[Tensor, Tensor]]:
    """(mel (batch, 1, 64, 126) on the device, labels) of clips by their indices, made on this thread."""
    clips = TriadClips(dataset, labels, device, clock)

    def collate(items: list) -> list[Tensor]:
        with clock.part("copy"):
            return default_collate(items)

    return iter(DataLoader(clips, batch_sampler=batches, num_workers=0, collate_fn=collate))
