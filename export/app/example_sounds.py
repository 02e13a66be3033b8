"""Triads by our synthesiser: the questions of ear training, and the examples that are shipped.

python -m triadbench.export.app.example_sounds        writes export/app/examples anew
"""

from pathlib import Path

import numpy as np

from triadbench.core.constants import SAMPLE_RATE
from triadbench.core.models.chords import ROOTS, TYPE_INTERVALS, TYPES, root_pitch_class
from triadbench.export.app import EXAMPLES

CLIPS = {
    "C major": ("C", "major", 4, 3, "grand", 0),
    "F minor, first inversion": ("F", "minor", 3, 11, "upright", 1),
    "B diminished, guitar": ("B", "diminished", 3, 5, "plucked", 0),
    "Eb augmented, electric piano": ("Eb", "augmented", 4, 8, "electric", 0),
}
"""Name: the first arguments of `triad`."""
SONG = "Progression in G major"
_SONG_CHORDS = "G major,E minor,C major,D major,G major,B diminished,C major,D major,G major"
_SONG_CHORD_S = 2.0


def triad(
    root: str, kind: str, octave: int, seed: int, family: str | None = None, inversion: int = 0, seconds: float = 3.5
) -> np.ndarray:
    """float32 (samples,) at 16 kHz of a triad, its keys pressed together and let go half a second before the end;
    seed and family are of the instrument, see `core.render.synthesiser.make_instrument`."""
    from triadbench.core.render.synthesiser import make_instrument, render_note

    instrument = make_instrument(seed, family)
    lowest = 12 * (octave + 1) + root_pitch_class(ROOTS.index(root))
    keys = [lowest + step for step in TYPE_INTERVALS[TYPES.index(kind)]]
    keys = [key + 12 * (i < inversion) for i, key in enumerate(keys)]
    sounds = [render_note(instrument, key, 0.7, seconds, SAMPLE_RATE, hold_s=seconds - 0.5) for key in keys]
    return _normalised(np.sum(sounds, axis=0))


def song() -> np.ndarray:
    """A short progression, two seconds a chord, float32 (samples,) at 16 kHz."""
    names = [chord.split() for chord in _SONG_CHORDS.split(",")]
    chords = [triad(root, kind, 3, 21, "grand", seconds=_SONG_CHORD_S + 0.6) for root, kind in names]
    step = round(_SONG_CHORD_S * SAMPLE_RATE)
    waveform = np.zeros(step * (len(chords) - 1) + len(chords[-1]), np.float32)
    for i, chord in enumerate(chords):
        waveform[i * step : i * step + len(chord)] += chord
    return _normalised(waveform)


def _normalised(waveform: np.ndarray) -> np.ndarray:
    return (0.7 / np.abs(waveform).max() * waveform).astype(np.float32)


def example(name: str) -> Path:
    """Path of a shipped example."""
    return EXAMPLES / f"{name.replace(',', '').replace(' ', '-').lower()}.ogg"


def write_examples(folder: Path = EXAMPLES) -> list[Path]:
    """Write the shipped examples, Ogg Vorbis, anew; returns their paths."""
    import soundfile

    folder.mkdir(parents=True, exist_ok=True)
    waveforms = {name: triad(*settings, seconds=4.0) for name, settings in CLIPS.items()} | {SONG: song()}
    paths = [folder / example(name).name for name in waveforms]
    for path, waveform in zip(paths, waveforms.values(), strict=True):
        soundfile.write(path, waveform, SAMPLE_RATE, format="OGG", subtype="VORBIS")
    return paths


if __name__ == "__main__":
    print(*write_examples(), sep="\n")
