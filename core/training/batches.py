"""Where a step's batch comes from: the original's loader, a mel per batch, or features that were computed once."""

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from triadbench.core import memory
from triadbench.core.constants import CLIP_SAMPLES
from triadbench.core.data.dataset import Dataset
from triadbench.core.errors import UserError
from triadbench.core.training.clock import NO_CLOCK, NoClock
from triadbench.core.training.pipeline import Switches
from triadbench.kernels.spec import ORIGINAL

FEATURE_BYTES = 4 * ORIGINAL.n_mels * ORIGINAL.n_frames(CLIP_SAMPLES)
_AHEAD = 3  # batches that a thread holds ready
_FEATURE_BATCH = 64
_ROOM = 0.6  # share of the free memory that features may take; the rest is for the step
Progress = Callable[[int, int], None]
Batches = Iterator[tuple[Tensor, Tensor]]
T = TypeVar("T")


class Source:
    """What batches are made of.

    Args:
        dataset: an opened set. labels: class index of every clip (n,).
    """

    def __init__(self, dataset: Dataset, labels: Tensor, switches: Switches, device: torch.device):
        self.dataset, self.switches, self.device = dataset, switches, device
        self.host_labels, self.labels = labels, labels.to(device)

    def prepare(self, progress: Progress | None = None, clock: NoClock = NO_CLOCK) -> None:
        """Work that is done once, before the first batch."""

    def batches(self, batches: list[np.ndarray], clock: NoClock = NO_CLOCK) -> Batches:
        """(mel (batch, 1, 64, 126), labels (batch,)) on the device, for every array of indices of clips."""
        raise NotImplementedError

    def _ahead(self, read: Callable[[NoClock], Iterator[T]], clock: NoClock) -> Iterator[T]:
        """What `read` yields; with the switch `prefetch`, from a thread that is ahead of the step."""
        return _ahead(read(NO_CLOCK), self.device, clock) if self.switches.prefetch else read(clock)


class _ClipSource(Source):
    """The original's dataset and loader."""

    def batches(self, batches: list[np.ndarray], clock: NoClock = NO_CLOCK) -> Batches:
        from triadbench.core.training.original_dataset import original_batches

        indices = [rows.tolist() for rows in batches]

        def read(clock: NoClock) -> Batches:
            return original_batches(self.dataset, self.host_labels, self.device, indices, clock)

        for mel, labels in self._ahead(read, clock):
            with clock.part("copy"):
                mel, labels = mel.to(self.device), labels.to(self.device)
            yield mel, labels


class _BatchSource(Source):
    """Clips of a batch together: one gather, one copy, one mel."""

    def __init__(self, dataset: Dataset, labels: Tensor, switches: Switches, device: torch.device):
        super().__init__(dataset, labels, switches, device)
        from triadbench.kernels import MelSpectrogram

        self._mel = MelSpectrogram.from_spec(ORIGINAL).to(device)

    def batches(self, batches: list[np.ndarray], clock: NoClock = NO_CLOCK) -> Batches:
        for waveform, rows in self._ahead(lambda clock: self._waveforms(batches, clock), clock):
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
                waveform = waveform.to(self.device, non_blocking=prefetch)
                index = index.to(self.device, non_blocking=prefetch)
            yield waveform, index

    def _read(self, rows: np.ndarray) -> Tensor:
        if self.dataset.rows is not None:
            return torch.from_numpy(self.dataset.rows[rows])  # int16: half the copy; the kernel converts
        return torch.from_numpy(self.dataset.read_many(rows))


class CachedSource(_BatchSource):
    """Every clip's mel on the device.

    Attributes:
        features: (n, 1, 64, 126) float32, after `prepare`.
    """

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
        index = torch.from_numpy(np.concatenate(batches)).to(self.device)
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
    """See that the features of `n` clips can be kept on a device; called before anything is measured or computed.

    Args:
        copies: sets of features that are kept at once.
        way_out: the end of the error.

    Raises:
        UserError: they would take more than their share of the memory that is free.
    """
    needed, free = copies * n * FEATURE_BYTES, memory.available_bytes(device)
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
    """The batches that the switches ask for.

    Args:
        task: "type" or "root".
    """
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
            if event is not None:  # pragma: no cover - needs a GPU
                now = torch.cuda.current_stream(device)
                now.wait_event(event)
                for tensor in (tensor for tensor in item if tensor.is_cuda):
                    tensor.record_stream(now)  # its memory is not given away before this stream has read it
            yield item
    finally:
        stop.set()
        thread.join()
