"""What is heard in one file: its windows, their votes, and the answer for all of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from triadbench.core.constants import CLIP_SAMPLES, SAMPLE_RATE
from triadbench.core.models.chords import TYPES, chord_symbol
from triadbench.core.models.prediction import name_chord, no_chord

WINDOW_S = CLIP_SAMPLES / SAMPLE_RATE
HOP_S = WINDOW_S / 2


def windows(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Windows (64000,) of a waveform that comes in blocks (samples,) of any length, each half over the one before.

    The last window is padded with zeros; it is left out if all its samples have been in the one before. Windows may
    share memory with one another and with the blocks.
    """
    hop = CLIP_SAMPLES // 2
    rest = np.zeros(0, dtype=np.float32)
    full = False
    for block in blocks:
        rest = np.concatenate([rest, block]) if len(rest) else block
        while len(rest) >= CLIP_SAMPLES:
            yield rest[:CLIP_SAMPLES]
            rest, full = rest[hop:], True
    if not full or len(rest) > hop:
        yield np.concatenate([rest, np.zeros(CLIP_SAMPLES - len(rest), dtype=np.float32)])


def loudness(batch: np.ndarray) -> np.ndarray:
    """Root mean square of the deviation from the mean, (batch,), of windows (batch, samples)."""
    shares = np.empty(len(batch), dtype=np.float32)
    deviation = np.empty(batch.shape[1], dtype=np.float32)  # of one window, which stays in the cache
    for i, window in enumerate(batch):
        np.subtract(window, window.mean(), out=deviation)
        np.square(deviation, out=deviation)
        shares[i] = np.sqrt(deviation.mean())
    return shares


class Hearing:
    """The windows of one file as they are answered, in order; memory does not grow with their number.

    The windows' probabilities are averaged, each by its share of the sound.

    Attributes:
        samples: at 16 kHz, read so far.
        windows: answered so far.
    """

    def __init__(self) -> None:
        self.samples = self.windows = 0
        self._total, self._weight = np.zeros((12, 4)), 0.0
        self._votes: dict[str, float] = {}

    def counted(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The blocks (samples,) themselves, their samples counted."""
        for block in blocks:
            self.samples += len(block)
            yield block

    def add(self, joint: np.ndarray, share: float, silent: bool) -> None:
        """Probabilities (12, 4) of the next window, its loudness, and whether there is nothing to name in it."""
        self.windows += 1
        if not silent:
            self._total += share * joint
            self._weight += share
            answer = chord_symbol(*divmod(int(joint.argmax()), len(TYPES)))
            self._votes[answer] = self._votes.get(answer, 0.0) + share

    def answer(self, alternatives: int) -> dict:
        """{"duration_s", "windows", "agreement", "chord", ...}. `agreement` is the share of sound whose own window says
        the same chord: a low one means that more than one chord is in the file."""
        described = {"duration_s": round(self.samples / SAMPLE_RATE, 3), "windows": self.windows}
        if self._weight == 0:
            return {**described, "agreement": None, **no_chord()}
        named = name_chord(self._total / self._weight, alternatives)
        return {**described, "agreement": float(self._votes.get(named["chord"], 0.0) / self._weight), **named}
