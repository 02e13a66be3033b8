"""Sounds of the app's own, by our synthesiser: the questions of ear training, and the examples that are shipped.

python -m triadbench.export.app.sounds        writes export/app/examples anew
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from triadbench.core.constants import SAMPLE_RATE
from triadbench.core.models.chords import ROOTS, TYPE_INTERVALS, TYPES, root_pitch_class

EXAMPLES = Path(__file__).resolve().parent / "examples"
CLIPS = {
    "C major": ("C", "major", 4, 3, "grand", "root"),
    "F minor, first inversion": ("F", "minor", 3, 11, "upright", "inv1"),
    "B diminished, guitar": ("B", "diminished", 3, 5, "plucked", "root"),
    "Eb augmented, electric piano": ("Eb", "augmented", 4, 8, "electric", "root"),
}
"""Name: (root, type, octave, instrument, its family, voicing)."""
SONG = "Progression in G major"
_SONG_CHORDS = (
    ("G", "major"),
    ("E", "minor"),
    ("C", "major"),
    ("D", "major"),
    ("G", "major"),
    ("B", "diminished"),
    ("C", "major"),
    ("D", "major"),
    ("G", "major"),
)
_SONG_CHORD_S = 2.0


def triad(
    root: str,
    chord_type: str,
    octave: int,
    instrument: int,
    family: str | None = None,
    voicing: str = "root",
    seconds: float = 3.5,
) -> np.ndarray:
    """float32 (samples,) at 16 kHz of a triad, its keys pressed together and let go half a second before the end."""
    from triadbench.core.render.synthesiser import make_instrument, render_note

    player = make_instrument(instrument, family)
    low = 12 * (octave + 1) + root_pitch_class(ROOTS.index(root))
    keys = [low + step for step in TYPE_INTERVALS[TYPES.index(chord_type)]]
    for i in range({"root": 0, "inv1": 1, "inv2": 2}[voicing]):
        keys[i] += 12
    sound = sum(render_note(player, key, 0.7, seconds, SAMPLE_RATE, hold_s=seconds - 0.5) for key in keys)
    return (0.7 / np.abs(sound).max() * sound).astype(np.float32)


def song() -> np.ndarray:
    """A short progression, two seconds a chord, float32 (samples,) at 16 kHz."""
    parts = [triad(root, kind, 3, 21, "grand", seconds=_SONG_CHORD_S + 0.6) for root, kind in _SONG_CHORDS]
    step = round(_SONG_CHORD_S * SAMPLE_RATE)
    out = np.zeros(step * (len(parts) - 1) + len(parts[-1]), np.float32)
    for i, part in enumerate(parts):
        out[i * step : i * step + len(part)] += part
    return (0.7 / np.abs(out).max() * out).astype(np.float32)


def example(name: str) -> Path:
    """Where an example lies."""
    return EXAMPLES / f"{name.replace(',', '').replace(' ', '-').lower()}.ogg"


def write_examples(folder: Path = EXAMPLES) -> list[Path]:
    """Write the shipped examples, Ogg Vorbis, anew; returns their paths."""
    import soundfile

    folder.mkdir(parents=True, exist_ok=True)
    sounds = {name: triad(*how, seconds=4.0) for name, how in CLIPS.items()} | {SONG: song()}
    paths = []
    for name, sound in sounds.items():
        paths.append(folder / example(name).name)
        soundfile.write(paths[-1], sound, SAMPLE_RATE, format="OGG", subtype="VORBIS")
    return paths


if __name__ == "__main__":
    print(*write_examples(), sep="\n")
