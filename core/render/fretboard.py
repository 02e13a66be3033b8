"""Guitar chords as hands play them: every fingering of a chord on six strings in standard tuning, found by search."""

import functools
import itertools

OPEN_STRINGS = (40, 45, 50, 55, 59, 64)
"""MIDI numbers of the open strings, lowest first."""
_HIGHEST_FRET, _SPAN, _FINGERS = 12, 3, 4


@functools.lru_cache(maxsize=1024)
def fingerings(root: int, semitones: tuple[int, ...], optional: tuple[int, ...] = ()) -> tuple[tuple[int, ...], ...]:
    """MIDI numbers, low string first, of every way to play a chord.

    The strings that sound lie side by side; the others are muted. Open strings go with frets anywhere up to
    `_HIGHEST_FRET`, and one finger may lie across all strings at the lowest fret.

    Args:
        root: pitch class, 0 is C. semitones: notes of the chord above the root. optional: those that may be missing.
    """
    tones = {(root + step) % 12 for step in semitones}
    needed = tones - {(root + step) % 12 for step in optional}
    found = set()
    for position in range(1, _HIGHEST_FRET - _SPAN + 1):
        frets = (0, *range(position, position + _SPAN + 1))
        choices = [[fret for fret in frets if (string + fret) % 12 in tones] for string in OPEN_STRINGS]
        for first, last in itertools.combinations(range(len(OPEN_STRINGS) + 1), 2):
            if last - first < min(len(semitones), 4):
                continue
            for fingering in itertools.product(*choices[first:last]):
                notes = tuple(string + fret for string, fret in zip(OPEN_STRINGS[first:last], fingering, strict=True))
                if needed <= {note % 12 for note in notes} and _fingers(fingering) <= _FINGERS:
                    found.add(notes)
    return tuple(sorted(found))


def _fingers(fingering: tuple[int, ...]) -> int:
    """Fingers that frets on neighbouring strings take; no string is open under a barre."""
    pressed = [fret for fret in fingering if fret]
    barre = pressed.count(min(pressed)) - 1 if pressed and len(pressed) == len(fingering) else 0
    return len(pressed) - barre
