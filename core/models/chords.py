"""Chord labels and the file names that carry them.

Classes and their order are those of the original study: the index of a class is its row in the network's output.
Names follow the Audio Piano Triads set (Zenodo record 4740877): `piano_3_Af_d_m_45.wav` is octave 3, A flat,
diminished, mezzo forte, example 45; an amplifier copy is `shred___Af_d__000.wav`. Older listings spell black keys as
sharps (`Gs`, `G#`) and major/minor as `M`/`m`; both are read. Sets rendered here may add the voicing as a last
field: `piano_3_Af_d_m_45_inv1.wav`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from triadbench.core.errors import UserError
from triadbench.core.models.vocabulary import QUALITIES

TYPES = ("major", "minor", "diminished", "augmented")
TYPE_CODES = ("j", "n", "d", "a")
TYPE_INTERVALS = tuple(quality.semitones for quality in QUALITIES[: len(TYPES)])

ROOTS = ("Ab", "A", "Bb", "B", "C", "Db", "D", "Eb", "E", "F", "Gb", "G")
ROOT_CODES = ("Af", "An", "Bf", "Bn", "Cn", "Df", "Dn", "Ef", "En", "Fn", "Gf", "Gn")
FIRST_ROOT_PITCH_CLASS = 8
"""Pitch class of `ROOTS[0]`, A flat, counted in semitones above C."""

VOICINGS = ("root", "inv1", "inv2", "open", "doubled")
NO_CHORD = "N"

_TYPE_OF_CODE = {"j": 0, "n": 1, "d": 2, "a": 3, "M": 0, "m": 1}
_NATURALS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_ACCIDENTALS = {"n": 0, "": 0, "f": -1, "b": -1, "s": 1, "#": 1}
_NAME = re.compile(
    r"(?:(?P<kind>piano)_(?P<octave>\d)_|(?P<shred>shred)___)(?P<root>[A-G][nfbs#]?)_(?P<type>[jndaMm])"
    r"_(?P<volume>[fmp]?)_(?P<example>\d{1,9})(?:_(?P<voicing>inv1|inv2|open|doubled))?",
    re.ASCII,
)


def root_pitch_class(root: int) -> int:
    """Pitch class (semitones above C, 0-11) of class index `root`."""
    return (root + FIRST_ROOT_PITCH_CLASS) % 12


def root_index(pitch_class: int) -> int:
    """Class index of a pitch class given in semitones above C (any integer)."""
    return (pitch_class - FIRST_ROOT_PITCH_CLASS) % 12


@dataclass(frozen=True)
class ClipName:
    """What a clip's file name says.

    Attributes:
        root: class index, 0-11 (A flat is 0). type: class index, 0-3 (major, minor, diminished, augmented).
        octave: of the root, where octave 4 starts at middle C; None where the name has none.
        volume: "f" (forte), "m" (mezzo), "p" (piano) or None. example: running number.
        voicing: one of `VOICINGS`. kind: "piano", or "shred" for an amplifier copy.
    """

    root: int
    type: int
    octave: int | None = None
    volume: str | None = None
    example: int = 0
    voicing: str = "root"
    kind: str = "piano"

    @classmethod
    def parse(cls, stem: str) -> ClipName:
        """Read a file name without folder and extension; a UserError where it is not one of the set's."""
        match = _NAME.fullmatch(stem)
        if match is None:
            raise UserError(f"{stem!r} is not a name of the data set (expected one like piano_3_Af_d_m_45)")
        pitch_class = _NATURALS[match["root"][0]] + _ACCIDENTALS[match["root"][1:]]
        return cls(
            root=root_index(pitch_class),
            type=_TYPE_OF_CODE[match["type"]],
            octave=int(match["octave"]) if match["octave"] else None,
            volume=match["volume"] or None,
            example=int(match["example"]),
            voicing=match["voicing"] or "root",
            kind=match["kind"] or match["shred"],
        )

    def format(self) -> str:
        """The file name without extension, in the current spelling."""
        head, width = (f"piano_{self.octave}_", 2) if self.kind == "piano" else ("shred___", 3)
        voicing = "" if self.voicing == "root" else f"_{self.voicing}"
        label = f"{ROOT_CODES[self.root]}_{TYPE_CODES[self.type]}_{self.volume or ''}"
        return f"{head}{label}_{self.example:0{width}d}{voicing}"

    @property
    def root_is_defined(self) -> bool:
        """False for an inverted augmented triad: its notes are the same as those of two other roots."""
        return not (self.type == 3 and self.voicing in ("inv1", "inv2"))
