"""A small instrument of our synthesiser for songs, made in a second: one layer, from C3 to C6."""

from __future__ import annotations

import functools

import numpy as np

from triadbench.core.constants import SAMPLE_RATE
from triadbench.core.render.note_banks import LAYERS, SECONDS, NoteBank
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
