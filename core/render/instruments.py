"""The instruments that our model is trained on, with their weights and licences.

Every instrument here may be trained on; a piano that is kept for testing must never appear. Presets of TimGM6mb that
share their recordings with csound's bank are left out: twice the same note teaches nothing.
"""

from dataclasses import dataclass

LICENCES = {
    "synth": "this project's own synthesiser (MIT)",
    "MuseScore_General_Full.sf2": "S. Christian Collins, Frank Wen and others: MIT, parts CC0 or public domain",
    "sf_GMbank.sf2": "csound's General MIDI bank: public domain",
    "TimGM6mb.sf2": "TimGM6mb, Tim Brechbill: GPL-2",
}


@dataclass(frozen=True)
class Training:
    """A note source (see `core.render.note_banks`) and how often it plays, relative to the others."""

    source: str
    weight: float


def _presets(file: str, weights: str) -> list[Training]:
    """Presets of a SoundFont; `weights` lists them as PRESET=WEIGHT."""
    pairs = [pair.split("=") for pair in weights.split()]
    return [Training(f"font:{file}:{preset}", float(weight)) for preset, weight in pairs]


TRAINING = (
    *(Training(f"synth:{seed}", 1.0) for seed in range(48)),
    # Grand, bright, honky-tonk, electric grand, tine and FM piano, harpsichord, clavinet, celesta, vibraphone,
    # dulcimer, accordion, guitars (nylon, steel, jazz, clean, muted), pizzicato, harp, banjo, mellow grand, 12-string.
    *_presets(
        "MuseScore_General_Full.sf2",
        "0=5 1=2 3=2 2=2 4=2.5 5=2.5 6=1 7=1 8=0.7 11=0.7 15=0.7 21=0.5 24=2.5 25=2.5 26=2 27=2 28=0.7 45=0.5 46=1 "
        "105=0.7 8:0=2 8:25=1",
    ),
    *_presets(
        "sf_GMbank.sf2", "0=4 1=2 2=3 3=1.5 4=2 5=2 6=1 7=1 11=0.7 15=0.7 21=0.5 24=2 25=2 26=1.5 27=1.5 46=1 105=0.7"
    ),
    *_presets("TimGM6mb.sf2", "0=3 10=0.5 46=0.7"),
)
"""The shipped model's instruments."""
