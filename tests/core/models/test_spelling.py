"""Keys, chords, notes and numerals are written as in any harmony book, in all 24 keys."""

import itertools
import re
import subprocess
import sys

import pytest

from tests.core.toys import in_key
from triadbench.core.models.chords import ROOTS, root_index, root_pitch_class
from triadbench.core.models.spelling import (
    MODES,
    UNKNOWN,
    chord_name,
    chord_root,
    chord_words,
    harte,
    key_name,
    note_names,
    printed,
    read_chord,
    read_harte,
    roman_numeral,
    root_names,
    spoken,
)
from triadbench.core.models.vocabulary import QUALITIES

ALL = list(itertools.product(range(12), range(len(QUALITIES))))
NATURALS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
DIATONIC = {
    "C major": "C Dm Em F G Am Bdim",
    "G major": "G Am Bm C D Em F#dim",
    "D major": "D Em F#m G A Bm C#dim",
    "A major": "A Bm C#m D E F#m G#dim",
    "E major": "E F#m G#m A B C#m D#dim",
    "B major": "B C#m D#m E F# G#m A#dim",
    "Gb major": "Gb Abm Bbm Cb Db Ebm Fdim",
    "Db major": "Db Ebm Fm Gb Ab Bbm Cdim",
    "Ab major": "Ab Bbm Cm Db Eb Fm Gdim",
    "Eb major": "Eb Fm Gm Ab Bb Cm Ddim",
    "Bb major": "Bb Cm Dm Eb F Gm Adim",
    "F major": "F Gm Am Bb C Dm Edim",
    "A minor": "Am Bdim C Dm Em F G E Caug G#dim",
    "E minor": "Em F#dim G Am Bm C D B Gaug D#dim",
    "B minor": "Bm C#dim D Em F#m G A F# Daug A#dim",
    "F# minor": "F#m G#dim A Bm C#m D E C# Aaug E#dim",
    "C# minor": "C#m D#dim E F#m G#m A B G# Eaug B#dim",
    "G# minor": "G#m A#dim B C#m D#m E F# D# Baug Gdim",
    "Eb minor": "Ebm Fdim Gb Abm Bbm Cb Db Bb Gbaug Ddim",
    "Bb minor": "Bbm Cdim Db Ebm Fm Gb Ab F Dbaug Adim",
    "F minor": "Fm Gdim Ab Bbm Cm Db Eb C Abaug Edim",
    "C minor": "Cm Ddim Eb Fm Gm Ab Bb G Ebaug Bdim",
    "G minor": "Gm Adim Bb Cm Dm Eb F D Bbaug F#dim",
    "D minor": "Dm Edim F Gm Am Bb C A Faug C#dim",
}
"""The triads of each scale; in minor also those with the raised seventh. F##dim, of G# minor, is given plainly."""
NUMERALS = {
    "major": "I ii iii IV V vi vii°",
    "minor": "i ii° III iv v VI VII V III+ #vii°",
}


def pitch_class(name):
    return (NATURALS[name[0]] + name.count("#") - name[1:].count("b")) % 12


def test_the_24_keys():
    names = [key_name(root_index(k), mode) for mode in MODES for k in range(12)]
    assert sorted(names) == sorted(DIATONIC)
    for mode, k in itertools.product(MODES, range(12)):
        assert pitch_class(key_name(root_index(k), mode).split()[0]) == k


@pytest.mark.parametrize("key", DIATONIC)
def test_the_chords_of_a_key_and_their_numerals(key):
    chords = DIATONIC[key].split()
    assert [in_key(chord, key) for chord in chords] == chords
    assert [roman_numeral(chord, key) for chord in chords] == NUMERALS[key.split()[1]].split()


@pytest.mark.parametrize("key", DIATONIC)
def test_no_chord_is_lost_and_no_root_has_a_double_accidental(key):
    for root, quality in ALL:
        name = chord_name(root, quality, key)
        assert read_chord(name) == (root, quality, None)
        assert len(chord_root(name)) <= 2 and pitch_class(chord_root(name)) == root_pitch_class(root)


@pytest.mark.parametrize(
    ("key", "chords"),
    [
        ("Gb major", "Cb Bm Abm D E F7"),
        ("F minor", "Gb B F#m Abm Dbm"),
        ("C minor", "Db Gb Dbm B F#dim"),
        ("G minor", "Ab Db F# C#dim"),
        ("D minor", "Eb Ab C# G#dim"),
        ("B minor", "C A# D#dim"),
        ("C major", "Db Eb F#dim Ab Bb Fm C#dim D#dim G#dim E7 A7 D7 F#m7b5 Bbmaj7"),
        ("G major", "Ab Bb C#dim Eb F Cm G#dim A#dim D#dim B7 E7 A7"),
        ("A major", "F C G Dm Fm D#dim Eb Bb C#7 F#7 G#7"),
        ("E major", "C D G Am A#dim F Bb G#7"),
        ("Ab major", "Dbm Gb A B F#m Ddim C7 Fm7 Bb7"),
        ("Db major", "Gbm A E B F7 Gdim"),
        ("A minor", "Bb D F#dim A D#dim C# G# Bbm G#dim7"),
        ("C# minor", "D F# A#dim C# C F B#dim7"),
        ("Eb minor", "E Ab Cdim Eb Adim Bm Ddim7"),
    ],
)
def test_borrowed_chords_and_secondary_dominants(key, chords):
    assert [in_key(chord, key) for chord in chords.split()] == chords.split()
    written_otherwise = [
        f"{ROOTS[read_chord(chord)[0]]}{QUALITIES[read_chord(chord)[1]].suffix}" for chord in chords.split()
    ]
    assert [in_key(chord, key) for chord in written_otherwise] == chords.split()


def accidentals(name):
    """Of all notes of a chord, spelled in thirds."""
    root, quality = chord_root(name), QUALITIES[read_chord(name)[1]]
    line = "FCGDAEB"
    place = line.index(root[0]) + 7 * (root.count("#") - root[1:].count("b"))
    return sum(abs((place + step) // 7) for step in quality.fifths)


def test_without_a_key_a_chord_has_the_fewest_accidentals():
    for root, quality in ALL:
        fewest = min(accidentals(name + QUALITIES[quality].suffix) for name in root_names(root))
        assert accidentals(chord_name(root, quality)) == fewest


@pytest.mark.parametrize(
    ("quality", "names"),
    [
        (0, "C Db D Eb E F F# G Ab A Bb B"),
        (1, "Cm C#m Dm Ebm Em Fm F#m Gm G#m Am Bbm Bm"),
        (2, "Cdim C#dim Ddim D#dim Edim Fdim F#dim Gdim G#dim Adim A#dim Bdim"),
        (3, "Caug Dbaug Daug Ebaug Eaug Faug Gbaug Gaug Abaug Aaug Bbaug Baug"),
    ],
)
def test_without_a_key_by_hand(quality, names):
    assert [chord_name(root_index(k), quality) for k in range(12)] == names.split()


@pytest.mark.parametrize("key", [None, *DIATONIC])
def test_nobody_is_asked_for_a_double_flat(key):
    for root, quality in ALL:
        notes = note_names(chord_name(root, quality, key))
        assert all(len(note) <= 2 for note in notes)
        steps = [(pitch_class(note) - root_pitch_class(root)) % 12 for note in notes]
        assert steps == list(QUALITIES[quality].semitones)


@pytest.mark.parametrize(
    ("chord", "notes"),
    [
        ("F#m", "F# A C#"),
        ("Gbm", "Gb A Db"),
        ("D#dim", "D# F# A"),
        ("Fm", "F Ab C"),
        ("Baug", "B D# G"),
        ("Eaug", "E G# B#"),
        ("Abm", "Ab Cb Eb"),
        ("C#", "C# E# G#"),
        ("Bdim7", "B D F Ab"),
        ("Cdim7", "C Eb Gb A"),
        ("Dbmaj7", "Db F Ab C"),
        ("Csus4", "C F G"),
        ("Cadd9", "C E G D"),
        ("N", ""),
    ],
)
def test_notes_by_hand(chord, notes):
    assert note_names(chord) == notes.split()


@pytest.mark.parametrize(
    ("chord", "key", "numeral"),
    [
        ("C", "C major", "I"),
        ("Caug", "C major", "I+"),
        ("Bb", "C major", "bVII"),
        ("Fm", "C major", "iv"),
        ("F#dim", "C major", "#iv°"),
        ("Eb", "C major", "bIII"),
        ("Db", "C major", "bII"),
        ("G#dim", "C major", "#v°"),
        ("G7", "C major", "V7"),
        ("Dm7", "C major", "ii7"),
        ("Cmaj7", "C major", "Imaj7"),
        ("Bm7b5", "C major", "viiø7"),
        ("Gsus4", "C major", "Vsus4"),
        ("Bb", "A minor", "bII"),
        ("F#dim", "A minor", "#vi°"),
        ("D#dim", "A minor", "#iv°"),
        ("A", "A minor", "I"),
        ("G#dim7", "A minor", "#vii°7"),
        ("E#dim", "F# minor", "#vii°"),
        ("Fdim", "F# minor", "#vii°"),
        ("Cb", "Gb major", "IV"),
        ("B", "Gb major", "IV"),
        ("N", "C major", None),
        ("C", None, None),
    ],
)
def test_roman_numerals(chord, key, numeral):
    assert roman_numeral(chord, key) == numeral


def test_numerals_are_the_same_in_every_key():
    for mode in MODES:
        numerals = set()
        for tonic in range(12):
            key = key_name(root_index(tonic), mode)
            chords = [chord_name(root_index(tonic + k), quality, key) for k in range(12) for quality in range(17)]
            numerals.add(tuple(roman_numeral(chord, key) for chord in chords))
        assert len(numerals) == 1
        triads = [numeral for k in range(12) for numeral in next(iter(numerals))[17 * k : 17 * k + 4]]
        assert len(set(triads)) == 48


@pytest.mark.parametrize("root", range(12))
def test_mir_eval_reads_the_labels(root):
    chord = pytest.importorskip("mir_eval").chord
    for key, quality in itertools.product([None, *DIATONIC], range(len(QUALITIES))):
        label = harte(chord_name(root, quality, key))
        read_root, bitmap, _ = chord.encode(label, reduce_extended_chords=True)
        assert read_root == root_pitch_class(root) and set(bitmap.nonzero()[0]) == set(QUALITIES[quality].semitones)
    assert harte("N") == chord.NO_CHORD


BASSES = list(itertools.product(range(12), range(len(QUALITIES)), [None, *range(12)]))


@pytest.mark.parametrize("key", [None, "A major", "G# minor", "Gb major"])
def test_names_and_labels_of_chords_with_a_bass_are_read_back(key):
    for root, quality, bass in BASSES:
        name = chord_name(root, quality, key, bass)
        chord = (root, quality, None if bass == root else bass)
        assert read_chord(name) == read_harte(harte(name)) == chord
        assert in_key(name, key) == name


@pytest.mark.parametrize(
    ("name", "label", "numeral"),
    [
        ("C/E", "C:maj/3", "I/3"),
        ("C/G", "C:maj/5", "I/5"),
        ("Am7/G", "A:min7/b7", "vi7/b7"),
        ("G7/B", "G:7/3", "V7/3"),
        ("F#dim7/A", "F#:dim7/b3", "#iv°7/b3"),
        ("F#dim7/Eb", "F#:dim7/bb7", "#iv°7/bb7"),
        ("C/D", "C:maj/2", "I/2"),
        ("F/B", "F:maj/#4", "IV/#4"),
        ("Fm/Ab", "F:min/b3", "iv/b3"),
        ("E7/G#", "E:7/3", "III7/3"),
        ("Cdim7/A", "C:dim7/bb7", "i°7/bb7"),
    ],
)
def test_basses_by_hand(name, label, numeral):
    chord = read_harte(label)
    assert chord == read_chord(name) and chord_name(chord.root, chord.quality, "C major", chord.bass) == name
    assert harte(name) == label and roman_numeral(name, "C major") == numeral
    assert chord_words("Fm/Ab") == "F minor over A♭" and printed("Fm/Ab") == "Fm/A♭"


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("C", "C"),
        ("F#/5", "F#/C#"),
        ("A:9", "A7"),
        ("A:13", "A7"),
        ("A:min11", "Am7"),
        ("A:maj9", "Amaj7"),
        ("A:7(#9)", "A7"),
        ("A:7(*5)", "A7"),
        ("A:7(b13)/b7", "A7/G"),
        ("A:min(9)", "Am"),
        ("A:maj(9)", "Aadd9"),
        ("A:maj(*3)", "A5"),
        ("A:(1,5)", "A5"),
        ("A:(3,5)", "A"),
        ("A:(1,3)", "A"),
        ("A:(b3,b7)", "Am7"),
        ("A:sus4(b7)", "Asus4"),
        ("A:7sus4", "Asus4"),
        ("A:9sus4", "Asus4"),
        ("A:aug7", "Aaug"),
        ("A:maj6(9)", "A6"),
        ("A:1", "A (note)"),
        ("N", None),
    ],
)
def test_labels_that_other_sets_use(label, name):
    assert read_harte(label) == (name and read_chord(name))


def test_reductions_are_those_of_mirex():
    chord = pytest.importorskip("mir_eval").chord
    for shorthand, (base, degrees) in chord.EXTENDED_QUALITY_REDUX.items():
        label = f"{base}({','.join(degrees)})" if shorthand == "minmaj7" else base
        assert read_harte(f"C:{shorthand}") == read_harte(f"C:{label}")
    for root, quality, bass in BASSES[::7]:
        label = harte(chord_name(root, quality, None, bass))
        read_root, _, lowest = chord.encode(label)
        assert (read_root, (read_root + lowest) % 12) == (
            root_pitch_class(root),
            root_pitch_class(root if bass is None else bass),
        )


@pytest.mark.parametrize(
    "label", [UNKNOWN, "", "H:maj", "C:foo", "C:maj(", "C:maj(x)", "C:", "C:maj/H", "C:maj/0", "c", "n"]
)
def test_what_is_no_label_is_an_error(label):
    with pytest.raises(ValueError, match=f"label {re.escape(repr(label))}: expected one in Harte's syntax"):
        read_harte(label)


def test_names_of_roots():
    assert root_names(ROOTS.index("Gb")) == ["F#", "Gb"] and root_names(ROOTS.index("C")) == ["C"]
    assert chord_root("F#m7") == "F#" and chord_root("N") is None


def test_any_spelling_is_read():
    assert read_chord("F#m") == read_chord("Gbm") == (ROOTS.index("Gb"), 1, None)
    assert read_chord("E#dim") == read_chord("Fdim") and read_chord("Cb") == read_chord("B") and read_chord("N") is None
    assert in_key("Gbm", "A major") == "F#m" and in_key("C#", "F minor") == "Db" and in_key("N", "F minor") == "N"


@pytest.mark.parametrize("text", ["H7", "", "c", "C#b", "Cmajor", "C ", "n", "C:maj"])
def test_what_is_no_chord_is_an_error(text):
    with pytest.raises(ValueError, match=f"chord {text!r}: expected one such as"):
        read_chord(text)


@pytest.mark.parametrize("key", ["C", "C dorian", "H minor", "C# b minor"])
def test_what_is_no_key_is_an_error(key):
    with pytest.raises(ValueError, match=f"key {key!r}: expected one such as F# minor"):
        chord_name(0, 0, key)


def test_printed_and_spoken():
    assert [printed(name) for name in ("G#", "B", "F#m", "Ebm", "Bdim", "Bb", "N", "Bb minor", "Cm7b5")] == (
        ["G♯", "B", "F♯m", "E♭m", "Bdim", "B♭", "N", "B♭ minor", "Cm7b5"]
    )
    assert [spoken(name) for name in ("Eb", "F#", "C")] == ["E flat", "F sharp", "C"]
    assert [chord_words(chord) for chord in ("F#m", "Ebaug", "N")] == ["F♯ minor", "E♭ augmented", "no chord"]


def test_spelling_needs_no_numpy():
    code = "import sys; from triadbench.core.models import spelling; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
