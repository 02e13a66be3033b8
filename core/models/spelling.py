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
from triadbench.core.models.vocabulary import QUALITIES, Chord, degree_fifths, nearest_quality

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
_NOTE, _DEGREE = "[A-G](?:b*|#*)", r"[b#]*[1-9]\d?"
_CHORD = f"({_NOTE})({'|'.join(map(re.escape, sorted(_SUFFIXES, key=len, reverse=True)))})(?:/({_NOTE}))?"
_HARTE = rf"({_NOTE})(?::(?=.)([^(/]*)(?:\(((?:,?\*?{_DEGREE})+)\))?)?(?:/({_DEGREE}))?"
"""Patterns that are compiled when a name is first read: naming clips reads none."""
_BY_HARTE = {quality.harte: index for index, quality in enumerate(QUALITIES)}
_OTHER_HARTE = {
    "": "maj",
    "6": "maj6",
    "9": "7 9",
    "b9": "7 b9",
    "#9": "7 #9",
    "11": "7 9 11",
    "#11": "7 9 #11",
    "13": "7 9 11 13",
    "b13": "7 9 11 b13",
    "maj9": "maj7 9",
    "maj11": "maj7 9 11",
    "maj13": "maj7 9 11 13",
    "min9": "min7 9",
    "min11": "min7 9 11",
    "min13": "min7 9 11 13",
    "min7b5": "hdim7",
    "aug7": "aug b7",
    "7sus4": "sus4 b7",
    "9sus4": "sus4 b7 9",
    "add9": "maj 9",
}
"""Names that the table lacks: the quality, and the degrees besides."""
UNKNOWN = "X"
"""Harte's label where nobody knows the chord."""
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
def chord_name(root: int, quality: int, key: str | None = None, bass: int | None = None) -> str:
    """A chord as people write it in a key: "F#m" in A major, "Db" in F minor, "F/A"; without one as most do."""
    place = _key(key).place(root, quality)
    name = _name(place) + QUALITIES[quality].suffix
    if bass is None or bass == root:
        return name
    own = next((place + step for step in QUALITIES[quality].fifths if _root(place + step) == bass), None)
    return f"{name}/{_simple_name(_key(key).place(bass, _BY_HARTE['1']) if own is None else own)}"


def root_names(root: int) -> list[str]:
    """Both names of a black key, ["C#", "Db"], and the one of a white key."""
    return [_name(place) for place in reversed(_PLAIN) if _root(place) == root]


def _parts(chord: str) -> tuple[str, int, str | None]:
    match = re.fullmatch(_CHORD, chord)
    if match is None:
        raise ValueError(f"chord {chord!r}: expected one such as Ab, F#m, Bdim, Faug or {NO_CHORD}")
    return match[1], _SUFFIXES[match[2]], match[3]


@functools.lru_cache(maxsize=1 << 13)
def read_chord(chord: str) -> Chord | None:
    """A chord's name in any spelling, by numbers; None for "N". Raises ValueError for anything else."""
    if chord == NO_CHORD:
        return None
    name, quality, bass = _parts(chord)
    return _chord(_place(name), quality, _place(bass or name))


def _chord(place: int, quality: int, bass_place: int) -> Chord:
    root, bass = _root(place), _root(bass_place)
    return Chord(root, quality, None if bass == root else bass)


@functools.lru_cache(maxsize=1 << 13)
def read_harte(label: str) -> Chord | None:
    """A label in Harte's syntax ("C:maj/3", "A:min9", "D:(1,5)"), by numbers; None for "N".

    A chord that the table lacks becomes the nearest that it has.

    Raises:
        ValueError: the label is none, or is `UNKNOWN`, whose time counts for nothing.
    """
    if label == NO_CHORD:
        return None
    match = re.fullmatch(_HARTE, label)
    name, shorthand, listed, bass = match.groups(default="") if match else ("", "?", "", "")
    base, *more = _OTHER_HARTE.get(shorthand, shorthand).split() if shorthand or not listed else ["1"]
    if base not in _BY_HARTE:
        raise ValueError(f"label {label!r}: expected one in Harte's syntax, such as C:maj, A:min7/b3 or {NO_CHORD}")
    degrees = {*QUALITIES[_BY_HARTE[base]].degrees, *more}
    for degree in filter(None, listed.split(",")):
        degrees = degrees - {degree[1:]} if degree[0] == "*" else degrees | {degree}
    preferred = _BY_HARTE[base] if shorthand else None
    quality = nearest_quality((7 * degree_fifths(degree) for degree in degrees), preferred)
    return _chord(_place(name), quality, _place(name) + degree_fifths(bass or "1"))


def chord_root(chord: str) -> str | None:
    """The name of a chord's root: "F#" of "F#m"; None of "N"."""
    return None if chord == NO_CHORD else _parts(chord)[0]


def chord_words(chord: str) -> str:
    """As "E♭ minor", "C major over E", or "no chord"."""
    if chord == NO_CHORD:
        return "no chord"
    root, quality, bass = _parts(chord)
    return f"{printed(root)} {QUALITIES[quality].words}" + (f" over {printed(bass)}" if bass else "")


def note_names(chord: str) -> list[str]:
    """The notes of a chord, root first, spelled in thirds from the root as it is named: C Eb Gb of "Cdim"; [] of "N".

    A note that would need a double accidental gets its plain name: G in "Baug", not F##.
    """
    if chord == NO_CHORD:
        return []
    root, quality, _ = _parts(chord)
    return [_simple_name(_place(root) + step) for step in QUALITIES[quality].fifths]


def _simple_name(place: int) -> str:
    return _name(place - (12 if place > 0 else -12) if _is_double(place) else place)


def harte(chord: str) -> str:
    """A chord's name in Harte's syntax, which MIREX uses: C:maj, F#:min, C:maj/3, N."""
    if chord == NO_CHORD:
        return NO_CHORD
    root, quality, _ = _parts(chord)
    return f"{root}:{QUALITIES[quality].harte}{_over(chord)}"


def _over(chord: str) -> str:
    """The bass as a degree, "/3", where it is not the root."""
    root, quality, bass = _parts(chord)
    if bass is None or _root(_place(bass)) == _root(_place(root)):
        return ""
    fifths = _place(bass) - _place(root)
    fifths = next((step for step in QUALITIES[quality].fifths if (step - fifths) % 12 == 0), fifths)
    accidentals, degree = _degree(fifths, 0)
    return f"/{accidentals}{degree + 1}"


def _degree(fifths: int, mode: int) -> tuple[str, int]:
    """The accidentals and the degree (0-6) in a scale of what lies so many fifths above its tonic."""
    degree = 4 * fifths % 7  # a fifth is four letters up
    sharps = (fifths - _SCALES[mode][degree]) // 7
    return "#" * sharps if sharps > 0 else "b" * -sharps, degree


def roman_numeral(chord: str, key: str | None) -> str | None:
    """The chord's step in the key: V, ii, bVII, vii°, III+, V7/3; None for "N" or without a key.

    It is the same in every key: a chord's place is that of its counterpart in C major or A minor.
    """
    parts = read_chord(chord)
    if parts is None or key is None:
        return None
    (root, quality, _), (tonic, mode) = parts, _key(key)
    counterpart = _Key(_TONICS_FOR_NUMERALS[mode], mode)
    moved = root_index(root_pitch_class(root) + 7 * (counterpart.tonic - tonic))
    accidentals, degree = _degree(counterpart.place(moved, quality) - counterpart.tonic, mode)
    numeral = _NUMERALS[degree].lower() if "b3" in QUALITIES[quality].degrees else _NUMERALS[degree]
    return f"{accidentals}{numeral}{QUALITIES[quality].numeral}{_over(chord)}"


def printed(name: str) -> str:
    """A note's, a chord's or a key's name with signs: "E♭", "F♯m", "E♭ minor", "C/E♭"."""
    return re.sub(r"(?<![a-z])[A-G][b#]+", lambda note: note[0].replace("b", "♭").replace("#", "♯"), name)


def spoken(note: str) -> str:
    """A note's name as it is read aloud: "E flat"."""
    return note[0] + _SPOKEN[note[1:]]
