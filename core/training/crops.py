"""Which crops of which rows a step of our recipe sees. All draws follow from (seed, epoch).

A step has crops of one length. Isolated clips are heard whole and in windows, songs in the short windows in which the
timeline hears them; a window is answered for the time `LEAD_S` after its start.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from triadbench.core.constants import CLIP_SECONDS, SAMPLE_RATE
from triadbench.core.data.excerpts import Entry
from triadbench.core.models.chords import NO_CHORD
from triadbench.core.models.spelling import UNKNOWN
from triadbench.core.training.settings import epoch_order, mix_seed

LENGTHS = {4.0: 0.35, 2.0: 0.15, 1.0: 0.25, 0.5: 0.25}
"""Seconds of a step's crops: share of the steps."""
SONG_SECONDS, SONG_SHARE = 1.0, 0.6
"""Longest crop of a song; share of songs in a step of such crops."""
LEAD_S = 0.12
_EDGE_S = 0.15  # a window asked for this late in a song's chord would be mostly the next one's
_TEST_BATCH = 128


class Crops(NamedTuple):
    """Parts of `samples` samples: int arrays (n,) of rows, first samples, and what to answer, by index of a label."""

    rows: np.ndarray
    starts: np.ndarray
    labels: np.ndarray
    samples: int


class CropDrawer:
    """Draws crops from the rows of a set.

    Attributes:
        labels: the different labels, in Harte's syntax. is_song: bool (n,).
        usable: bool (n,), False where nothing is known that a crop could be asked for.
    """

    def __init__(self, entries: Sequence[Entry]):
        self.is_song = np.array([entry.kind.startswith("song") for entry in entries], dtype=bool)
        self._chords = [[chord for chord in entry.chords if chord[2] != UNKNOWN] for entry in entries]
        self.labels = list(dict.fromkeys(label for chords in self._chords for _, _, label in chords))
        self._index = {label: k for k, label in enumerate(self.labels)}
        self.usable = np.array([bool(self._spans(row, SONG_SECONDS)) for row in range(len(entries))], dtype=bool)

    def epoch(self, rows: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[Crops]:
        """The steps of an epoch (from 0) over usable `rows`: every isolated clip once, songs as often as steps ask."""
        rng = np.random.default_rng(mix_seed(seed, epoch))
        clips, songs = rows[~self.is_song[rows]], rows[self.is_song[rows]]
        clips, songs, longest = (clips, songs, CLIP_SECONDS) if len(clips) else (songs, clips, SONG_SECONDS)
        order = clips[epoch_order(len(clips), seed, epoch).numpy()]
        n_beside = min(round(SONG_SHARE * batch_size), batch_size - 1)
        deck, steps = songs[:0], []
        while len(order):
            seconds = min(float(rng.choice(list(LENGTHS), p=list(LENGTHS.values()))), longest)
            n_songs = n_beside if len(songs) and seconds <= SONG_SECONDS else 0
            while len(deck) < n_songs:
                deck = np.append(deck, rng.permutation(songs))
            steps.append(self._crops(np.append(order[: batch_size - n_songs], deck[:n_songs]), seconds, rng))
            order, deck = order[batch_size - n_songs :], deck[n_songs:]
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
        starts, labels = [], []
        for row in rows:
            spans = self._spans(row, seconds)
            lengths = np.array([last - first for first, last, _ in spans])
            first, last, label = spans[rng.choice(len(spans), p=lengths / lengths.sum()) if len(spans) > 1 else 0]
            starts.append(round(rng.uniform(first, last) * SAMPLE_RATE))
            labels.append(self._index[label])
        return Crops(rows, np.array(starts), np.array(labels), round(seconds * SAMPLE_RATE))

    def _spans(self, row: int, seconds: float) -> list[tuple[float, float, str]]:
        """From when to when, in s, crops of a row may begin, and what to answer: of songs, what sounds at `LEAD_S`; of
        an isolated clip, its chord, which sounds for half of the crop where it lasts that long."""
        latest, chords = CLIP_SECONDS - seconds, self._chords[row]
        if self.is_song[row]:
            spans = [(max(start - LEAD_S, 0), min(end - LEAD_S - _EDGE_S, latest), c) for start, end, c in chords]
            return [span for span in spans if span[0] < span[1]]
        if not chords:
            return []
        start, end, label = max(chords, key=lambda chord: (chord[2] != NO_CHORD, chord[1] - chord[0]))
        first = min(max(start - LEAD_S, 0), latest)
        return [(first, max(first, min(end - seconds / 2, latest)), label)]
