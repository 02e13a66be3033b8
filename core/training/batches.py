"""Clips become a step's batch: the original's loader, a mel per batch, or features that were computed once."""

import contextlib
import io
import os
import queue
import threading
import wave
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from triadbench.core.constants import CLIP_SAMPLES, SAMPLE_RATE
from triadbench.core.data.dataset import Dataset
from triadbench.core.device import available_bytes
from triadbench.core.errors import UserError
from triadbench.core.extras import importable, way_out
from triadbench.core.timing import NO_CLOCK, NoClock
from triadbench.core.training.settings import Switches
from triadbench.kernels.spec import ORIGINAL

FEATURE_BYTES = 4 * ORIGINAL.n_mels * ORIGINAL.n_frames(CLIP_SAMPLES)
_AHEAD = 3  # batches that a thread holds ready
_FEATURE_BATCH = 64
_ROOM = 0.6  # share of the free memory that features may take; the rest is for the step
Progress = Callable[[int, int], None]
Batches = Iterator[tuple[Tensor, Tensor]]
T = TypeVar("T")


class Source:
    """What the batches of an opened set are made of; `labels` are the class index of every clip (n,)."""

    def __init__(self, dataset: Dataset, labels: Tensor, switches: Switches, device: torch.device):
        self.dataset, self.switches, self.device = dataset, switches, device
        self.host_labels, self.labels = labels, labels.to(device)

    def prepare(self, progress: Progress | None = None, clock: NoClock = NO_CLOCK) -> None:
        """Work that is done once, before the first batch."""

    def batches(self, batches: list[np.ndarray], clock: NoClock = NO_CLOCK) -> Batches:
        """(mel (batch, 1, 64, 126), labels (batch,)) on the device, for every array of indices of clips."""
        raise NotImplementedError


def file_reader() -> str:
    """The package that the original's dataset reads files with here: "soundfile", or "wave" of the standard library."""
    return "soundfile" if importable("soundfile") else "wave"


def _soundfile_read(file: Any) -> tuple[np.ndarray, int]:
    """All channels (samples, channels) float32, and the rate in Hz."""
    import soundfile

    return soundfile.read(file, dtype="float32", always_2d=True)


def _wave_read(file: Any) -> tuple[np.ndarray, int]:
    """As `_soundfile_read`, of a wav of 16 bits; a UserError for anything else."""
    try:
        with wave.open(file) as sound:
            if sound.getsampwidth() != 2:
                raise wave.Error(f"{8 * sound.getsampwidth()} bits a sample")
            data = np.frombuffer(sound.readframes(sound.getnframes()), "<i2").reshape(-1, sound.getnchannels())
            return data.astype(np.float32) / 32768, sound.getframerate()
    except (wave.Error, EOFError) as error:
        name = file if isinstance(file, str) else "a file of the set"
        raise UserError(
            f"{name}: without soundfile only wav of 16 bits is read ({error}); {way_out('soundfile')}"
        ) from error


class TriadClips(torch.utils.data.Dataset):
    """The original study's dataset: (mel (1, 64, 126) on the device, label) of a clip, all of it made per clip.

    Kept as simple as the original, for it is the baseline. One difference: torchaudio 2.11's `load` needs a codec
    package that this project does not, so files are read with soundfile, or, where that is not installed, with the
    standard library, which knows wav files of 16 bits (`file_reader` says which).

    Args:
        dataset: an opened set. labels: class index of every clip (n,).
        device: where clips are resampled and transformed. clock: books the parts of every clip.
    """

    def __init__(self, dataset: Dataset, labels: Tensor, device: torch.device, clock: NoClock = NO_CLOCK):
        from torchaudio import transforms

        self.dataset, self.labels, self.device, self.clock = dataset, labels, device, clock
        self._read = _soundfile_read if file_reader() == "soundfile" else _wave_read
        self.resampler = transforms.Resample
        settings = {name: getattr(ORIGINAL, name) for name in ("sample_rate", "n_fft", "hop_length", "n_mels")}
        self.transform = transforms.MelSpectrogram(**settings).to(device)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        with self.clock.part("reading"):
            signal, sample_rate = self._load(index)
        with self.clock.part("copy"):
            signal = self.clock.copy(signal, self.device)
        with self.clock.part("resampling"):
            signal = self._cut_or_pad(self._mix(self._resample(signal, sample_rate)))
        with self.clock.part("mel"):
            return self.transform(signal), self.labels[index]

    def _load(self, index: int) -> tuple[Tensor, int]:
        """All channels (channels, samples) float32, and the rate in Hz."""
        if self.dataset.rows is not None:
            return torch.from_numpy(self.dataset.read(index)).unsqueeze(0), SAMPLE_RATE
        if self.dataset.kind == "folder":
            file: Any = os.fspath(self.dataset.path / self.dataset.clips[index].member)
        else:
            file = io.BytesIO(self.dataset.file_bytes(index))
        samples, sample_rate = self._read(file)
        return torch.from_numpy(samples.T), sample_rate

    def _resample(self, signal: Tensor, sample_rate: int) -> Tensor:
        if sample_rate == SAMPLE_RATE:
            return signal
        return self.resampler(sample_rate, SAMPLE_RATE).to(self.device)(signal)

    def _mix(self, signal: Tensor) -> Tensor:
        return signal.mean(dim=0, keepdim=True) if signal.shape[0] > 1 else signal

    def _cut_or_pad(self, signal: Tensor) -> Tensor:
        if signal.shape[1] >= CLIP_SAMPLES:  # as the original asks first: padding by nothing would copy the clip
            return signal[:, :CLIP_SAMPLES]
        return torch.nn.functional.pad(signal, (0, CLIP_SAMPLES - signal.shape[1]))


class _ClipSource(Source):
    """The original's dataset and loader, which is given the order so that every pipeline sees the clips in the same."""

    def batches(self, batches: list[np.ndarray], clock: NoClock = NO_CLOCK) -> Batches:
        indices = [rows.tolist() for rows in batches]

        def read(clock: NoClock) -> Batches:
            def collate(items: list) -> list[Tensor]:
                with clock.part("copy"):
                    return default_collate(items)

            clips = TriadClips(self.dataset, self.host_labels, self.device, clock)
            return iter(DataLoader(clips, batch_sampler=indices, num_workers=0, collate_fn=collate))

        for mel, labels in (
            _ahead(read(clock.of_copies()), self.device, clock) if self.switches.prefetch else read(clock)
        ):
            with clock.part("copy"):
                mel, labels = clock.copy(mel, self.device), clock.copy(labels, self.device)
            yield mel, labels


class _BatchSource(Source):
    """Clips of a batch together: one gather, one copy, one mel."""

    def __init__(self, dataset: Dataset, labels: Tensor, switches: Switches, device: torch.device):
        super().__init__(dataset, labels, switches, device)
        from triadbench.kernels import MelSpectrogram

        self._mel = MelSpectrogram.from_spec(ORIGINAL).to(device)

    def batches(self, batches: list[np.ndarray], clock: NoClock = NO_CLOCK) -> Batches:
        waveforms = self._waveforms(batches, clock.of_copies() if self.switches.prefetch else clock)
        for waveform, rows in _ahead(waveforms, self.device, clock) if self.switches.prefetch else waveforms:
            with clock.part("mel"), torch.no_grad():
                mel = self._mel(waveform).unsqueeze(1)
            yield mel, self.labels[rows]

    def _waveforms(self, batches: list[np.ndarray], clock: NoClock) -> Batches:
        """(waveform (batch, samples), indices (batch,)) on the device."""
        prefetch = self.switches.prefetch
        for rows in batches:
            with clock.part("reading"):
                waveform, index = self._read(rows), torch.from_numpy(rows)
                if prefetch and self.device.type == "cuda":  # only from pinned memory is a copy asynchronous
                    waveform, index = waveform.pin_memory(), index.pin_memory()
            with clock.part("copy"):
                waveform = clock.copy(waveform, self.device, non_blocking=prefetch)
                index = clock.copy(index, self.device, non_blocking=prefetch)
            yield waveform, index

    def _read(self, rows: np.ndarray) -> Tensor:
        packed = self.dataset.rows  # int16: half the copy; the kernel converts
        return torch.from_numpy(self.dataset.read_many(rows) if packed is None else packed[rows])


class CachedSource(_BatchSource):
    """Every clip's mel on the device: `features` (n, 1, 64, 126) float32, after `prepare`."""

    features: Tensor | None = None

    def prepare(self, progress: Progress | None = None, clock: NoClock = NO_CLOCK) -> None:
        if self.features is not None:
            return
        n, done = len(self.dataset), 0
        check_features(n, self.device)
        features = torch.empty((n, 1, ORIGINAL.n_mels, ORIGINAL.n_frames(CLIP_SAMPLES)), device=self.device)
        for mel, _ in super().batches(in_batches(np.arange(n), _FEATURE_BATCH), clock):
            features[done : done + len(mel)] = mel
            done += len(mel)
            if progress is not None:
                progress(done, n)
        self.features = features

    def batches(self, batches: list[np.ndarray], clock: NoClock = NO_CLOCK) -> Batches:
        self.prepare(clock=clock)
        if not batches:
            return
        index = clock.copy(torch.from_numpy(np.concatenate(batches)), self.device)
        for rows in index.split([len(rows) for rows in batches]):
            with clock.part("copy"):
                batch = self.pick(rows)
            yield batch

    def pick(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(mel, labels) of clips whose indices (batch,) lie on the device."""
        assert self.features is not None, "prepare comes first"
        return self.features.index_select(0, rows), self.labels.index_select(0, rows)


def check_features(
    n: int, device: torch.device | str, *, copies: int = 1, way_out: str = "use switch mel=batch or a smaller set"
) -> None:
    """Raises UserError, ending with `way_out`, if a device cannot keep the features of `n` clips `copies` times."""
    needed, free = copies * n * FEATURE_BYTES, available_bytes(device)
    if needed > _ROOM * free:
        kept = f", kept {copies} times," if copies > 1 else ""
        place = "the GPU" if torch.device(device).type == "cuda" else "this machine"
        raise UserError(
            f"the features of {n:,} clips{kept} take {needed / 1e9:.3g} GB, and {place} has {free / 1e9:.3g} GB free, "
            f"of which they may take {100 * _ROOM:.0f} %; {way_out}"
        )


def features_fit(n: int, device: torch.device | str) -> bool:
    """True if `check_features` raises nothing."""
    try:
        check_features(n, device)
    except UserError:
        return False
    return True


def in_batches(order: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """`order` cut into batches; the last may be smaller."""
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def make_source(dataset: Dataset, task: str, switches: Switches, device: torch.device) -> Source:
    """What makes the batches that the switches ask for; `task` is "type" or "root"."""
    types, roots = dataset.labels()
    labels = torch.from_numpy({"type": types, "root": roots}[task])
    kinds = {"clip": _ClipSource, "batch": _BatchSource, "cached": CachedSource}
    return kinds[switches.mel](dataset, labels, switches, device)


def _ahead(items: Iterator[T], device: torch.device, clock: NoClock) -> Iterator[T]:
    """The same tuples of tensors, made by a thread up to `_AHEAD` of them ahead; on a GPU, on a stream of its own."""
    on_gpu = device.type == "cuda"
    ready: queue.Queue = queue.Queue(_AHEAD)
    stop = threading.Event()

    def put(item: Any, event: torch.cuda.Event | None = None) -> bool:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                ready.put((item, event), timeout=0.1)
                return True
        return False

    def produce() -> None:
        try:
            stream = torch.cuda.Stream(device) if on_gpu else None
            with torch.cuda.stream(stream):  # a null context for None
                for item in items:
                    if not put(item, stream.record_event() if stream is not None else None):
                        return
            put(None)
        except BaseException as error:  # raised where the items are awaited
            put(error)

    thread = threading.Thread(target=produce, name="batches ahead", daemon=True)
    thread.start()
    try:
        while True:
            with clock.part("reading"):
                item, event = ready.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            if event is not None:
                now = torch.cuda.current_stream(device)
                now.wait_event(event)
                for tensor in (tensor for tensor in item if tensor.is_cuda):
                    tensor.record_stream(now)  # its memory is not given away before this stream has read it
            yield item
    finally:
        stop.set()
        thread.join()
