"""A small instrument of our synthesiser, made in a second: one layer, from C2 to E6; and the songs that it plays."""

from __future__ import annotations

import functools

import numpy as np

from tests.core.toys import close_position
from triadbench.core.constants import SAMPLE_RATE
from triadbench.core.models.spelling import read_chord
from triadbench.core.render.note_banks import LAYERS, SECONDS, NoteBank
from triadbench.core.render.songs import SongRenderer
from triadbench.core.render.synthesiser import make_instrument, render_note

LOW, HIGH = 36, 88


@functools.cache
def small_piano(seed: int = 1000) -> NoteBank:
    instrument = make_instrument(seed, "grand")
    samples = round(SECONDS * SAMPLE_RATE)
    notes = np.zeros((HIGH - LOW + 1, 1, samples), np.int16)
    peaks = np.ones((HIGH - LOW + 1, len(LAYERS)), np.float32)
    for k in range(HIGH - LOW + 1):
        note = render_note(instrument, LOW + k, 0.6, seconds=SECONDS, sample_rate=SAMPLE_RATE)[:samples]
        notes[k, 0, : len(note)] = np.rint(note * 32767 / np.abs(note).max())
    return NoteBank("small piano", f"synth:{seed}", "piano", LOW, HIGH, LOW, notes.repeat(len(LAYERS), axis=1), peaks)


def play(
    symbols: str, seconds: float = 2.0, strokes: int = 4, silence_s: float = 1.0
) -> tuple[list[tuple[float, float, str]], np.ndarray]:
    """A song of triads by the small piano, each struck a few times, with silence at both ends.

    Returns:
        The chords, (start and end in seconds, symbol), and the waveform, float32 (samples,), peak 0.7.
    """
    notes, chords, time, each = [], [(0.0, silence_s, "N")], silence_s, seconds / strokes
    for symbol in symbols.split():
        root, kind, _ = read_chord(symbol)
        notes += [
            (time + k * each, time + (k + 1) * each, note, 80.0)
            for k in range(strokes)
            for note in close_position(root, kind, 4)
        ]
        chords.append((time, time + seconds, symbol))
        time += seconds
    chords.append((time, time + silence_s, "N"))
    waveform = SongRenderer([small_piano()], [1.0], 0)._play(notes, "bridge", 0.0, np.random.default_rng(0))
    waveform = waveform[: round((time + silence_s) * SAMPLE_RATE)]
    return [chord for chord in chords if chord[1] > chord[0]], waveform * np.float32(0.7 / np.abs(waveform).max())
