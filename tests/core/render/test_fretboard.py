"""Fingerings hold the chord's notes and no others, and a hand can play them."""

import pytest

from triadbench.core.models.vocabulary import QUALITIES
from triadbench.core.render.fretboard import OPEN_STRINGS, fingerings

KNOWN = {  # as any chord book prints them, low string first
    "C major": (0, (0, 4, 7), (48, 52, 55, 60, 64)),
    "E major": (4, (0, 4, 7), (40, 47, 52, 56, 59, 64)),
    "F major, barre": (5, (0, 4, 7), (41, 48, 53, 57, 60, 65)),
    "A minor 7": (9, (0, 3, 7, 10), (45, 52, 55, 60, 64)),
    "G7": (7, (0, 4, 7, 10), (43, 47, 50, 55, 59, 65)),
}


@pytest.mark.parametrize("name", KNOWN)
def test_common_shapes_are_found(name):
    root, semitones, notes = KNOWN[name]
    assert notes in fingerings(root, semitones)


@pytest.mark.parametrize("quality", [q for q in QUALITIES if len(q.semitones) > 2], ids=lambda q: q.harte)
def test_every_fingering_is_the_chord_and_fits_a_hand(quality):
    for root in range(12):
        ways = fingerings(root, quality.semitones)
        assert ways
        tones = {(root + step) % 12 for step in quality.semitones}
        for notes in ways:
            assert {note % 12 for note in notes} == tones
            frets = _frets(notes)
            pressed = [fret for fret in frets if fret]
            assert frets and (not pressed or max(pressed) - min(pressed) <= 3)


def _frets(notes):
    """Frets on neighbouring strings that give the notes, lowest span first; None where there are none."""
    places = []
    for first in range(len(OPEN_STRINGS) - len(notes) + 1):
        frets = [note - string for note, string in zip(notes, OPEN_STRINGS[first:], strict=False)]
        pressed = [fret for fret in frets if fret]
        if min(frets) >= 0 and (not pressed or max(pressed) - min(pressed) <= 3):
            places.append(frets)
    return places[0] if places else None


def test_the_fifth_may_be_missing_where_it_is_optional():
    c7 = (48, 52, 58, 60, 64)
    assert c7 not in fingerings(0, (0, 4, 7, 10)) and c7 in fingerings(0, (0, 4, 7, 10), (7,))
