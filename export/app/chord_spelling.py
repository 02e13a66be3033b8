"""Chords in words: spelled notes, printed with signs or as they are read aloud."""

from triadbench.core.models.chords import ROOTS, TYPE_INTERVALS, TYPES, root_pitch_class

NATURALS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}  # semitones above C
_LETTERS = "".join(NATURALS)
_SPOKEN = {"": "", "b": " flat", "bb": " double flat", "#": " sharp"}


def notes(root: str | None, chord_type: str | None) -> list[tuple[str, int]]:
    """(name as "Eb", semitones above the first C) of a triad in root position, spelled in thirds; [] for no chord."""
    if root is None or chord_type is None:
        return []
    letter, lowest = _LETTERS.index(root[0]), root_pitch_class(ROOTS.index(root))
    spelled = []
    for step, interval in zip((0, 2, 4), TYPE_INTERVALS[TYPES.index(chord_type)], strict=True):
        octave, degree = divmod(letter + step, 7)
        accidental = lowest + interval - (NATURALS[_LETTERS[degree]] + 12 * octave)
        name = _LETTERS[degree] + ("b" * -accidental if accidental < 0 else "#" * accidental)
        spelled.append((name, lowest + interval))
    return spelled


def printed(name: str) -> str:
    """A note's or a chord's name, or a key's, with signs: "E♭", "E♭m", "E♭ minor"."""
    accidentals = len(name) - 1 - len(name[1:].lstrip("b#"))
    return name[0] + name[1 : 1 + accidentals].replace("b", "♭").replace("#", "♯") + name[1 + accidentals :]


def spoken(name: str) -> str:
    """A note's name as it is read aloud: "E flat"."""
    return name[0] + _SPOKEN[name[1:]]


def chord_words(root: str | None, chord_type: str | None) -> str:
    """As "E♭ minor", or "no chord"."""
    return f"{printed(root)} {chord_type}" if root and chord_type else "no chord"


def keyboard_words(root: str | None, chord_type: str | None) -> str:
    """As "F minor: F, A flat, C", read aloud, or "No chord"."""
    if root is None or chord_type is None:
        return "No chord"
    return f"{spoken(root)} {chord_type}: {', '.join(spoken(name) for name, _ in notes(root, chord_type))}"
