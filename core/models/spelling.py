"""How keys, chords and their notes are written: the one place that knows F# from Gb. Needs no numpy.

A name is a place on the line of fifths (..., Bb -2, F -1, C 0, G 1, D 2, ..., F# 6, ...), where seven places are a
sharp and twelve the same key of a piano. A key's own notes lie side by side, so whatever lies nearest to them is the
spelling with the fewest accidentals. Roots are class indices of `core.models.chords.ROOTS`, qualities those of
`core.models.vocabulary.QUALITIES`, and a key is its name, as "F# minor".
"""

import functools
import re
from typing import NamedTuple

from triadbench.core.models.chords import NO_CHORD, root_index, root_pitch_class
from triadbench.core.models.vocabulary import QUALITIES

MODES = ("major", "minor")
_LETTERS = "FCGDAEB"
_SCALES = ((0, 2, 4, -1, 1, 3, 5), (0, 2, -3, -1, 1, -4, -2))
"""Fifths from the tonic to each degree, by mode."""
_RAISED = ((), (3, 5))  # the sixth and seventh of melodic minor
_CENTRE = (2, 0)
"""Fifths from the tonic to the middle of the notes that music in a mode uses."""
_TONICS_FOR_NUMERALS = (0, 3)  # C major and A minor
_PLAIN, _ALLOWED = range(-6, 11), range(-7, 13)
"""Names of roots, Gb to A#, and those that only some keys have besides: Cb, E#, B#."""
_NUMERALS = ("I", "II", "III", "IV", "V", "VI", "VII")
_SUFFIXES = {quality.suffix: index for index, quality in enumerate(QUALITIES)}
_CHORD = f"([A-G])(b*|#*)({'|'.join(map(re.escape, sorted(_SUFFIXES, key=len, reverse=True)))})"
"""A pattern that is compiled when a name is first read: naming clips reads none."""
_SPOKEN = {"": "", "b": " flat", "#": " sharp"}


class _Key(NamedTuple):
    tonic: int  # on the line of fifths
    mode: int

    def place(self, root: int, quality: int) -> int:
        """Where a chord's root lies on the line of fifths.

        A root of the key's own notes is written as there. Any other, so that no note of the chord needs a double
        accidental and all of them lie close to the key's. Cb, E# and B# are for chords of the key's own notes alone.
        """
        own = {self.tonic + step for step in (*_SCALES[self.mode], *_RAISED[self.mode])}

        def awkwardness(place: int) -> tuple:
            notes = [place + step for step in QUALITIES[quality].fifths]
            distance = sum(abs(note - self.tonic - _CENTRE[self.mode]) for note in notes)
            is_odd = place not in _PLAIN and not own.issuperset(notes)
            return is_odd, place not in own, any(map(_is_double, notes)), distance, place

        return min((place for place in _ALLOWED if _root(place) == root), key=awkwardness)


_NO_KEY = _Key(0, 0)
"""Without a key chords are spelled as in C major, which gives each the fewest accidentals that it can have."""


def _root(place: int) -> int:
    return root_index(7 * place)


def _is_double(place: int) -> bool:
    return not -8 <= place <= 12


def _name(place: int) -> str:
    sharps = (place + 1) // 7
    return _LETTERS[(place + 1) % 7] + ("#" * sharps if sharps > 0 else "b" * -sharps)


def _place(name: str) -> int:
    return _LETTERS.index(name[0]) - 1 + 7 * (name.count("#") - name[1:].count("b"))


@functools.lru_cache
def _key(name: str | None) -> _Key:
    if name is None:
        return _NO_KEY
    match = re.fullmatch(r"([A-G](?:b*|#*)) (major|minor)", name)
    if match is None:
        raise ValueError(f"key {name!r}: expected one such as F# minor or Db major")
    return _Key(_place(match[1]), MODES.index(match[2]))


def key_name(root: int, mode: str) -> str:
    """The key on a root with the fewest accidentals in its signature: "F# minor", "Db major"; flats where equal."""
    signature_of_c = 3 * MODES.index(mode)  # C minor has three flats more than C major
    places = (place for place in _ALLOWED if _root(place) == root)
    return f"{_name(min(places, key=lambda place: abs(place - signature_of_c)))} {mode}"


@functools.lru_cache(maxsize=1 << 13)
def chord_name(root: int, quality: int, key: str | None = None) -> str:
    """A chord as people write it in a key: "F#m" in A major, "Db" in F minor; without one as most do."""
    return _name(_key(key).place(root, quality)) + QUALITIES[quality].suffix


def root_names(root: int) -> list[str]:
    """Both names of a black key, ["C#", "Db"], and the one of a white key."""
    return [_name(place) for place in reversed(_PLAIN) if _root(place) == root]


def _parts(chord: str) -> tuple[str, int]:
    match = re.fullmatch(_CHORD, chord)
    if match is None:
        raise ValueError(f"chord {chord!r}: expected one such as Ab, F#m, Bdim, Faug or {NO_CHORD}")
    return match[1] + match[2], _SUFFIXES[match[3]]


@functools.lru_cache(maxsize=1 << 13)
def read_chord(chord: str) -> tuple[int, int] | None:
    """(root, quality) of a chord's name in any spelling; None for "N". Raises ValueError for anything else."""
    if chord == NO_CHORD:
        return None
    name, quality = _parts(chord)
    return _root(_place(name)), quality


def in_key(chord: str, key: str | None) -> str:
    """A chord's name, or "N", as it is written in a key: "F#m" for "Gbm" in A major."""
    parts = read_chord(chord)
    return NO_CHORD if parts is None else chord_name(*parts, key)


def chord_root(chord: str) -> str | None:
    """The name of a chord's root: "F#" of "F#m"; None of "N"."""
    return None if chord == NO_CHORD else _parts(chord)[0]


def chord_words(chord: str) -> str:
    """As "E♭ minor", or "no chord"."""
    if chord == NO_CHORD:
        return "no chord"
    root, quality = _parts(chord)
    return f"{printed(root)} {QUALITIES[quality].words}"


def note_names(chord: str) -> list[str]:
    """The notes of a chord, root first, spelled in thirds from the root as it is named: C Eb Gb of "Cdim"; [] of "N".

    A note that would need a double accidental gets its plain name: G in "Baug", not F##.
    """
    if chord == NO_CHORD:
        return []
    root, quality = _parts(chord)
    places = [_place(root) + step for step in QUALITIES[quality].fifths]
    return [_name(place - (12 if place > 0 else -12) if _is_double(place) else place) for place in places]


def harte(chord: str) -> str:
    """A chord's name in Harte's syntax, which MIREX uses: C:maj, F#:min, B:dim, F:aug, N."""
    if chord == NO_CHORD:
        return NO_CHORD
    root, quality = _parts(chord)
    return f"{root}:{QUALITIES[quality].harte}"


def roman_numeral(chord: str, key: str | None) -> str | None:
    """The chord's step in the key: V, ii, bVII, vii°, III+; None for "N" or without a key.

    It is the same in every key: a chord's place is that of its counterpart in C major or A minor.
    """
    parts = read_chord(chord)
    if parts is None or key is None:
        return None
    (root, quality), (tonic, mode) = parts, _key(key)
    counterpart = _Key(_TONICS_FOR_NUMERALS[mode], mode)
    moved = root_index(root_pitch_class(root) + 7 * (counterpart.tonic - tonic))
    fifths = counterpart.place(moved, quality) - counterpart.tonic
    degree = 4 * fifths % 7  # a fifth is four letters up
    sharps = (fifths - _SCALES[mode][degree]) // 7
    numeral = _NUMERALS[degree].lower() if "b3" in QUALITIES[quality].degrees else _NUMERALS[degree]
    return ("#" * sharps if sharps > 0 else "b" * -sharps) + numeral + QUALITIES[quality].numeral


def printed(name: str) -> str:
    """A note's, a chord's or a key's name with signs: "E♭", "F♯m", "E♭ minor"."""
    rest = name[1:].lstrip("b#")
    return name[0] + name[1 : len(name) - len(rest)].replace("b", "♭").replace("#", "♯") + rest


def spoken(note: str) -> str:
    """A note's name as it is read aloud: "E flat"."""
    return note[0] + _SPOKEN[note[1:]]
