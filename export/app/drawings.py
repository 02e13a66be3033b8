"""Chords in words and on a keyboard: spelled notes, and an SVG that a screen reader can read."""

from __future__ import annotations

from html import escape

from triadbench.core.models.chords import NO_CHORD, ROOTS, TYPE_INTERVALS, TYPES, root_pitch_class

_LETTERS = "CDEFGAB"
_NATURALS = (0, 2, 4, 5, 7, 9, 11)
_SPOKEN = {0: "", -1: " flat", -2: " double flat", 1: " sharp"}
_PRINTED = {0: "", -1: "♭", -2: "♭♭", 1: "♯"}
_KEY, _KEY_HIGH, _BLACK, _BLACK_HIGH = 40, 150, 24, 94
_WHITE_KEYS = 14  # two octaves hold every triad in root position


def notes(root: str, chord_type: str) -> list[tuple[str, int]]:
    """(name as "Eb", semitones above the first C) of a triad in root position, thirds on letters of their own."""
    letter, low = _LETTERS.index(root[0]), root_pitch_class(ROOTS.index(root))
    found = []
    for step, interval in zip((0, 2, 4), TYPE_INTERVALS[TYPES.index(chord_type)], strict=True):
        octave, at = divmod(letter + step, 7)
        accidental = low + interval - (_NATURALS[at] + 12 * octave)
        found.append((_LETTERS[at] + ("b" * -accidental if accidental < 0 else "#" * accidental), low + interval))
    return found


def printed(name: str) -> str:
    """With the signs for flat and sharp: "E♭"."""
    return name[0] + _PRINTED[name.count("#") - name.count("b", 1)]


def spoken(name: str) -> str:
    """As it is read aloud: "E flat"."""
    return name[0] + _SPOKEN[name.count("#") - name.count("b", 1)]


def chord_words(root: str | None, chord_type: str | None) -> str:
    """As "E♭ minor", or "no chord"."""
    return f"{printed(root)} {chord_type}" if root and chord_type else "no chord"


def symbol(chord: str) -> str:
    """A chord's short name with signs: "E♭m"; "N" is an en dash's job, and stays."""
    return (
        chord
        if chord == NO_CHORD
        else printed(chord[:2] if chord[1:2] == "b" else chord[0]) + (chord[2:] if chord[1:2] == "b" else chord[1:])
    )


def keyboard(root: str | None, chord_type: str | None) -> str:
    """An SVG of two octaves from C, the triad's keys marked and named; without a chord no key is."""
    marked = dict((at, name) for name, at in notes(root, chord_type)) if root and chord_type else {}
    told = (
        f"{spoken(root)} {chord_type}: {', '.join(spoken(name) for name in marked.values())}" if marked else "No chord"
    )
    white, black = [], []
    for key in range(_WHITE_KEYS):
        octave, at = divmod(key, 7)
        pitch = 12 * octave + _NATURALS[at]
        white.append(_white(key * _KEY, marked.get(pitch)))
        if at not in (2, 6):  # E and B have no black key above them
            black.append(_black((key + 1) * _KEY, marked.get(pitch + 1)))
    width = _WHITE_KEYS * _KEY
    return (
        f'<svg class="tb-keys" viewBox="-1 -1 {width + 2} {_KEY_HIGH + 2}" role="img" '
        f'aria-label="Keyboard. {escape(told)}"><title>Keyboard</title><desc>{escape(told)}</desc>'
        f"{''.join(white)}{''.join(black)}</svg>"
    )


def _white(x: int, name: str | None) -> str:
    on = f'<text x="{x + _KEY / 2}" y="{_KEY_HIGH - 14}">{printed(name)}</text>' if name else ""
    return f'<rect class="white{" on" if name else ""}" x="{x}" y="0" width="{_KEY}" height="{_KEY_HIGH}" rx="4"/>{on}'


def _black(middle: int, name: str | None) -> str:
    rect = (
        f'<rect class="black{" on" if name else ""}" x="{middle - _BLACK / 2}" y="0" width="{_BLACK}" '
        f'height="{_BLACK_HIGH}" rx="3"/>'
    )
    return rect + (f'<text x="{middle}" y="{_BLACK_HIGH - 12}">{printed(name)}</text>' if name else "")
