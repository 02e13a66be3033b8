"""A chord recogniser with no training: a chroma of two seconds against the twelve transpositions of four templates.

It is what a network has to beat. The method is that of Fujishima, "Realtime chord recognition of musical sound" (ICMC
1999), with magnitudes compressed by a root and a little of each note's overtones taken away before folding.
"""

import numpy as np

from triadbench.core.constants import SAMPLE_RATE
from triadbench.core.models.chords import ROOTS, TYPE_INTERVALS, TYPES, root_pitch_class

WINDOW_S = 2.0
LOW_MIDI, HIGH_MIDI = 40, 96
_COMPRESSION = 0.5
# Third partial: a fifth above the octave. Taken away because it makes every fifth of a note look played.
_OVERTONES = {12: 0.5, 19: 0.45, 24: 0.35, 28: 0.35, 31: 0.2}
_BASS_BONUS = 0.12


def pitch_magnitudes(waveform: np.ndarray, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """Compressed magnitudes of the loudest two seconds of waveforms (batch, samples), at every semitone of
    `LOW_MIDI` to `HIGH_MIDI`: float64 (batch, semitones), each row's largest at 1 (all zero for silence).
    """
    n = round(WINDOW_S * sample_rate)
    waveform = np.atleast_2d(waveform)
    if waveform.shape[1] < n:
        waveform = np.pad(waveform, ((0, 0), (0, n - waveform.shape[1])))
    energy = np.cumsum(np.pad(waveform.astype(np.float64) ** 2, ((0, 0), (1, 0))), axis=1)
    starts = np.argmax(energy[:, n:] - energy[:, :-n], axis=1)
    segments = np.stack([row[start : start + n] for row, start in zip(waveform, starts, strict=True)])
    spectrum = np.abs(np.fft.rfft(segments * np.hanning(n), axis=1))
    frequencies = np.arange(spectrum.shape[1]) * sample_rate / n
    midi = np.arange(LOW_MIDI, HIGH_MIDI + 1)
    centre = 440 * 2 ** ((midi - 69) / 12)
    # A third of a semitone to each side, but never less than the window's own resolution.
    half = np.maximum(centre * (2 ** (1 / 36) - 1), 1.5 / WINDOW_S)
    low, high = np.searchsorted(frequencies, np.stack([centre - half, centre + half]))
    bands = [spectrum[:, start : stop + 1].max(axis=1) for start, stop in zip(low, high, strict=True)]
    magnitudes = np.stack(bands, axis=1) ** _COMPRESSION
    largest = magnitudes.max(axis=1, keepdims=True)
    return magnitudes / np.where(largest > 0, largest, 1)


def predict(waveform: np.ndarray, sample_rate: int = SAMPLE_RATE) -> tuple[np.ndarray, np.ndarray]:
    """Scores of types (batch, 4) and roots (batch, 12) for waveforms (batch, samples); the largest is the answer."""
    pitches = pitch_magnitudes(waveform, sample_rate)
    notes = pitches.copy()
    for shift, part in _OVERTONES.items():
        notes[:, shift:] -= part * pitches[:, :-shift]
    notes = np.maximum(notes, 0)
    chroma = np.zeros((len(notes), 12))
    for k in range(notes.shape[1]):
        chroma[:, (LOW_MIDI + k) % 12] += notes[:, k]
    chroma /= np.maximum(np.linalg.norm(chroma, axis=1, keepdims=True), 1e-12)
    # The bass decides among roots that share their notes: the lowest semitone that reaches half of the loudest note.
    bass = (LOW_MIDI + np.argmax(notes >= 0.5 * notes.max(axis=1, keepdims=True), axis=1)) % 12
    scores = np.empty((len(notes), len(ROOTS), len(TYPES)))
    for root in range(len(ROOTS)):
        pitch_class = root_pitch_class(root)
        for chord_type, intervals in enumerate(TYPE_INTERVALS):
            members = [(pitch_class + step) % 12 for step in intervals]
            others = [p for p in range(12) if p not in members]
            scores[:, root, chord_type] = chroma[:, members].min(axis=1) + chroma[:, members].mean(axis=1)
            scores[:, root, chord_type] -= chroma[:, others].max(axis=1)
        scores[:, root] += _BASS_BONUS * (bass == pitch_class)[:, None]
    return scores.max(axis=1), scores.max(axis=2)
