"""Worse recordings of a data set's clips (room, noise, level, tuning, start), to test what a model withstands."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from triadbench.core.constants import CLIP_SAMPLES, SAMPLE_RATE
from triadbench.core.errors import UserError
from triadbench.core.render.chords import mix_note
from triadbench.core.render.rooms import Filter, noise, room_response

_ROOMS = 64


@dataclass(frozen=True)
class Degradation:
    """Ranges (low, high) from which each clip's recording is drawn, evenly.

    Attributes:
        rt60_s: reverberation time. direct_db: direct sound over the tail.
        snr_db: signal over noise, in power; the noise's colour is drawn as well.
        gain_db: change of level; what exceeds full scale is clipped, as a recorder does.
        tuning_cents: change of pitch. onset_ms: delay of the sound.
    """

    rt60_s: tuple[float, float] = (0.3, 0.6)
    direct_db: tuple[float, float] = (-3, 6)
    snr_db: tuple[float, float] = (20, 30)
    gain_db: tuple[float, float] = (-12, 12)
    tuning_cents: tuple[float, float] = (-10, 10)
    onset_ms: tuple[float, float] = (0, 320)


class Degrader:
    """Degrades clips; clip `index` of a seed is always degraded alike."""

    def __init__(self, degradation: Degradation, seed: int):
        self.degradation, self.seed = degradation, seed
        rng = np.random.default_rng([seed, 0xDE])
        self._rooms = []
        for _ in range(_ROOMS):
            response = room_response(
                rng, SAMPLE_RATE, rng.uniform(*degradation.rt60_s), rng.uniform(*degradation.direct_db)
            )
            # The room keeps the level, so that gain means what it says.
            response /= np.sqrt(np.sum(np.square(response)))
            self._rooms.append(Filter(response, CLIP_SAMPLES, SAMPLE_RATE))

    def __call__(self, waveform: np.ndarray, index: int) -> np.ndarray:
        """float32 (64000,) in [-1, 1] of a clip (64000,)."""
        d = self.degradation
        rng = np.random.default_rng([self.seed, index])
        start = rng.uniform(*d.onset_ms) * SAMPLE_RATE / 1000
        step = 2 ** (rng.uniform(*d.tuning_cents) / 1200)
        moved = np.zeros(CLIP_SAMPLES, dtype=np.float32)
        mix_note(moved, waveform, 1.0, start, step, np.inf, 1.0)
        waveform = self._rooms[int(rng.integers(_ROOMS))](moved)
        rms = np.sqrt(np.mean(np.square(waveform)))
        waveform = waveform + noise(rng, CLIP_SAMPLES, SAMPLE_RATE) * np.float32(
            rms * 10 ** (-rng.uniform(*d.snr_db) / 20)
        )
        return np.clip(waveform * np.float32(10 ** (rng.uniform(*d.gain_db) / 20)), -1, 1)


def degrade_set(
    source: str | os.PathLike,
    out: str | os.PathLike,
    *,
    degradation: Degradation | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict:
    """Degrade every clip of a set once, into a pack at `out` with the same names.

    Returns:
        {"path", "n", "skipped": [[name, reason], ...], "bytes", "seed"}

    Raises:
        UserError: nothing to read, or `out` is taken.
    """
    from triadbench.core.audio.io import AudioError
    from triadbench.core.data.dataset import open_dataset
    from triadbench.core.data.pack import PackWriter

    dataset = open_dataset(source)
    degrader = Degrader(degradation or Degradation(), seed)
    skipped, index = list(dataset.skipped), []
    with PackWriter(out, len(dataset)) as writer:
        for position, clip in enumerate(dataset.clips):
            try:
                writer.write(len(index), degrader(dataset.read(position), position))
                index.append({"file": clip.member, "recording": clip.recording})
            except AudioError as error:
                skipped.append((clip.member, str(error)))
            if progress is not None:
                progress(position + 1, len(dataset))
        if not index:
            raise UserError(f"{source}: none of {len(dataset)} clips could be read; the last: {skipped[-1][1]}")
        writer.finish(index, skipped=skipped, source={"degraded": dataset.path.name, "seed": seed})
    size = sum(entry.stat().st_size for entry in Path(out).iterdir())
    return {"path": str(out), "n": len(index), "skipped": [list(e) for e in skipped], "bytes": size, "seed": seed}
