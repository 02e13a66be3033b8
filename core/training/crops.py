"""Which crops of which rows a step of our recipe sees. All draws follow from (seed, epoch).

A step has crops of one length. Isolated clips are heard whole and in windows, songs in the short windows in which the
timeline hears them; a window is answered for the time `LEAD_S` after its start.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from triadbench.core.constants import CLIP_SAMPLES, CLIP_SECONDS, SAMPLE_RATE
from triadbench.core.data.excerpts import Entry
from triadbench.core.models.chords import NO_CHORD
from triadbench.core.models.spelling import UNKNOWN
from triadbench.core.training.settings import epoch_order, mix_seed

LENGTHS = {4.0: 0.35, 2.0: 0.15, 1.0: 0.25, 0.5: 0.25}
"""Seconds of a step's crops: share of the steps."""
SONG_SECONDS, SONG_SHARE = 1.0, 0.6
"""Longest crop of a song; share of songs in a step of such crops."""
LEAD_S = 0.12
_EDGE_S = 0.15  # a window that begins this late in a chord is mostly the next one's
_TEST_BATCH = 128


class Crops(NamedTuple):
    """Parts of `samples` samples: int arrays (n,) of rows, first samples, and what to answer, by index of a label."""

    rows: np.ndarray
    starts: np.ndarray
    labels: np.ndarray
    samples: int

    def part(self, cut: Callable[[np.ndarray], np.ndarray]) -> "Crops":
        """Some of the crops: those that `cut` leaves of each array."""
        return Crops(cut(self.rows), cut(self.starts), cut(self.labels), self.samples)


class CropDrawer:
    """Draws crops from the rows of a set.

    Attributes:
        labels: the different labels, in Harte's syntax. is_song: bool (n,).
        usable: bool (n,), False where nothing is known that a crop could be asked for.
    """

    def __init__(self, entries: Sequence[Entry]):
        self._chords = [[chord for chord in entry.chords if chord[2] != UNKNOWN] for entry in entries]
        self.labels = list(dict.fromkeys(label for chords in self._chords for _, _, label in chords))
        self._index = {label: k for k, label in enumerate(self.labels)}
        self.is_song = np.array([entry.kind.startswith("song") for entry in entries], dtype=bool)
        self.usable = np.array(
            [
                bool(_song_times(chords, SONG_SECONDS) if is_song else chords)
                for chords, is_song in zip(self._chords, self.is_song, strict=True)
            ]
        )

    def epoch(self, rows: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[Crops]:
        """The steps of an epoch (from 0) over usable `rows`: every isolated clip once, songs as often as steps ask."""
        rng = np.random.default_rng(mix_seed(seed, epoch))
        clips, songs = rows[~self.is_song[rows]], rows[self.is_song[rows]]
        longest = CLIP_SECONDS if len(clips) else SONG_SECONDS
        if not len(clips):
            clips, songs = songs, clips
        order = clips[epoch_order(len(clips), seed, epoch).numpy()]
        deck, steps = songs[:0], []
        while len(order):
            seconds = min(float(rng.choice(list(LENGTHS), p=list(LENGTHS.values()))), longest)
            n_songs = round(SONG_SHARE * batch_size) if len(songs) and seconds <= SONG_SECONDS else 0
            while len(deck) < n_songs:
                deck = np.append(deck, rng.permutation(songs))
            n_clips = batch_size - n_songs
            steps.append(self._crops(np.append(order[:n_clips], deck[:n_songs]), seconds, rng))
            order, deck = order[n_clips:], deck[n_songs:]
        return steps

    def whole(self, rows: np.ndarray, seed: int) -> list[Crops]:
        """A crop of each of some usable rows, to measure with: isolated clips whole, of songs `SONG_SECONDS`."""
        rng = np.random.default_rng(seed)
        parts = (rows[~self.is_song[rows]], CLIP_SECONDS), (rows[self.is_song[rows]], SONG_SECONDS)
        return [
            self._crops(part[at : at + _TEST_BATCH], seconds, rng)
            for part, seconds in parts
            for at in range(0, len(part), _TEST_BATCH)
        ]

    def _crops(self, rows: np.ndarray, seconds: float, rng: np.random.Generator) -> Crops:
        draws = [(_song_crop if self.is_song[row] else _clip_crop)(self._chords[row], seconds, rng) for row in rows]
        samples = round(seconds * SAMPLE_RATE)
        starts = np.array([round(start * SAMPLE_RATE) for start, _ in draws]).clip(0, CLIP_SAMPLES - samples)
        return Crops(rows, starts, np.array([self._index[label] for _, label in draws]), samples)


def _clip_crop(chords: list, seconds: float, rng: np.random.Generator) -> tuple[float, str]:
    """Start in s and label of a crop in which the clip's chord sounds for at least half of the time."""
    start, end, label = max(chords, key=lambda chord: (chord[2] != NO_CHORD, chord[1] - chord[0]))
    latest = CLIP_SECONDS - seconds
    first = min(max(start - LEAD_S, 0), latest)
    return rng.uniform(first, max(first, min(end - seconds / 2, latest))), label


def _song_times(chords: list, seconds: float) -> list[tuple[float, float, str]]:
    """The times that a crop may be asked for, and the label of each."""
    latest = CLIP_SECONDS - seconds + LEAD_S
    times = ((start, min(end - _EDGE_S, latest), label) for start, end, label in chords)
    return [(start, end, label) for start, end, label in times if start < end]


def _song_crop(chords: list, seconds: float, rng: np.random.Generator) -> tuple[float, str]:
    """Start in s and label of a crop that is asked for a time at which a chord is known, each as likely."""
    times = _song_times(chords, seconds)
    spans = np.array([end - start for start, end, _ in times])
    start, end, label = times[rng.choice(len(times), p=spans / spans.sum())]
    return max(rng.uniform(start, end) - LEAD_S, 0), label
