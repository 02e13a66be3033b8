"""Keys and common progressions, against what any harmony book says."""

import pytest

from triadbench.core.models.spelling import chord_name, key_name, read_chord, roman_numeral
from triadbench.export.songs.harmony import find_key, find_progressions


def course(text, seconds=2.0):
    return [(symbol, seconds) for symbol in text.split()]


@pytest.mark.parametrize(
    ("chords", "key"),
    [
        ("C F G C", "C major"),
        ("C Am F G C", "C major"),
        ("Am Dm E Am", "A minor"),
        ("Dm G C F Bdim Em Am Dm G C", "C major"),
        ("Ebm Abm Bb Ebm", "Eb minor"),
        ("Gb Db Ebm B Gb", "Gb major"),
        ("F# C# D#m B F#", "Gb major"),
        ("Gbm Bm Db Gbm", "F# minor"),
        ("A Gbm D E A", "A major"),
        ("Fm C# G# D# Fm C# Cm Fm", "F minor"),
        ("N C F N G C N", "C major"),
        ("Cm Ddim G Cm", "C minor"),
        ("E", "E major"),
        ("Em", "E minor"),
    ],
)
def test_keys(chords, key):
    result, confidence = find_key(course(chords))
    assert result == key and 1 / 24 < confidence <= 1


@pytest.mark.parametrize(
    "chords",
    [
        "C G Am F",
        "C Am F G",
        "Am F C G",
        "Dm G F C",
        "C G Am Em F C Dm G",
        "C F Bdim Em Am Dm G C",
        "C Caug Am F Dm Gaug C G",
        "C Em F Fm",
        "Cm Fm G Ab",
        "Cm Bb Ab G",
        "Cm Ddim G Cm Ab Fm Ddim G",
        "Cm Fm Bb Eb Ab Ddim G Cm",
        "Cm Ebaug Eb Bb Fm Bdim Cm G",
    ],
)
@pytest.mark.parametrize("step", range(12))
def test_common_progressions_in_every_key(chords, step):
    row = [read_chord(symbol) for symbol in chords.split()] * 3
    moved = [(chord_name((chord.root + step) % 12, chord.quality), 1.0) for chord in row]
    mode = "minor" if chords.startswith("Cm") else "major"
    assert find_key(moved)[0] == key_name((read_chord("C").root + step) % 12, mode)


def test_a_key_counts_time_not_chords():
    assert find_key([("C", 9.0), ("G", 4.0), ("F", 4.0), ("E", 0.3), ("A", 0.3)])[0] == "C major"


def test_a_clear_key_is_surer_than_a_vague_one():
    assert find_key(course("C F G C Am Dm G C"))[1] > find_key(course("C Gb Am Ebdim Faug D"))[1]


def test_no_chord_no_key():
    assert find_key([("N", 3.0)]) == find_key([]) == find_key([("C", 0.0)]) == (None, None)
    with pytest.raises(ValueError, match="'H7'"):
        find_key([("H7", 1.0)])


def common(text, key="C major"):
    chords = text.split()
    return find_progressions(chords, [roman_numeral(c, key) for c in chords])


def test_the_most_common_progression_comes_first():
    result = common("C G Am F " * 4 + "Dm G C")
    assert result[0] == {"roman": ["I", "V", "vi", "IV"], "chords": ["C", "G", "Am", "F"], "count": 4}


def test_turns_of_a_circle_are_one_progression():
    assert [entry["count"] for entry in common("C G Am F " * 4)] == [4]


def test_no_progression_reaches_over_silence_or_occurs_once():
    assert common("C G Am F") == [] and common("C G N Am F C G N Am F") == []
    assert common("C F C F C F C F C")[0]["count"] > 1
    assert find_progressions([], []) == []
