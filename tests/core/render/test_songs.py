"""Songs to train on: the labels are what comping and bass play, and a song's excerpt keeps them together."""

import numpy as np
import pytest

from tests.core.toys import RATE, sine_bank, sounding
from triadbench.core.constants import CLIP_SAMPLES, CLIP_SECONDS
from triadbench.core.models.chords import root_pitch_class
from triadbench.core.models.spelling import read_harte
from triadbench.core.models.vocabulary import QUALITIES
from triadbench.core.render.songs import SECONDS, SONG_ROWS, Song, SongRenderer, arrange, transposed

SONG = Song(
    "three chords",
    {"comping": [(a, a + 8, note, 45) for a, chord in ((10, (48, 64, 67)), (20, (50, 65, 69))) for note in chord]},
    [(10.0, 20.0, "C:maj"), (20.005, 30.0, "D:min"), (40.0, 50.0, "X")],
    [(10.0 + k, k % 4 + 1) for k in range(40)],
)


def tones(label):
    root, quality, bass = read_harte(label)
    root_tone = root_pitch_class(root)
    lowest = root_tone if bass is None else root_pitch_class(bass)
    return {(root_tone + step) % 12 for step in QUALITIES[quality].semitones}, lowest


@pytest.mark.parametrize("seed", range(40))
def test_labels_say_what_comping_and_bass_play(seed):
    song = arrange(np.random.default_rng(seed), "song")
    comping, bass = song.tracks.get("guitar") or song.tracks["comping"], song.tracks["bass"]
    assert [a for a, _, _ in song.chords[1:]] == [b for _, b, _ in song.chords[:-1]] and song.chords[-1][1] > SECONDS
    for start, end, label in song.chords:
        struck = [note for note in comping if start - 1e-6 <= note[0] < end - 1e-6]
        low = [note for note in bass if start - 1e-6 <= note[0] < end - 1e-6]
        if label == "N":
            assert not struck and not low
            continue
        chord, lowest = tones(label)
        heard = {note % 12 for _, _, note, _ in struck}
        assert heard - {lowest} <= chord <= heard | {lowest}, label
        assert (low or sorted(struck, key=lambda note: note[2]))[0][2] % 12 == lowest, label


def test_songs_have_all_there_is():
    songs = [arrange(np.random.default_rng(seed), "song") for seed in range(60)]
    labels = {label for song in songs for _, _, label in song.chords}
    assert {QUALITIES[read_harte(label).quality].harte for label in labels - {"N"}} >= {
        quality.harte for quality in QUALITIES[:16]
    } - {"aug"}
    assert "N" in labels and any("/" in label for label in labels)
    assert {max(position for _, position in song.beats) for song in songs} == {3, 4}
    assert {role for song in songs for role, notes in song.tracks.items() if notes} == {
        "comping",
        "guitar",
        "melody",
        "bass",
    }


@pytest.mark.parametrize(
    ("label", "semitones", "expected"),
    [("C:maj/3", 2, "D:maj/3"), ("N", 5, "N"), ("X", 5, "X"), ("A:min7/b3", -1, "Ab:min7/b3"), ("B:9", 1, "C:7")],
)
def test_labels_are_transposed(label, semitones, expected):
    moved = transposed(label, semitones)
    assert moved == expected or read_harte(moved) == read_harte(expected)


def test_an_excerpt_moves_everything_together():
    song = SONG.excerpt(8.0, 2.0, 2)
    assert song.chords == [
        (0.0, 4.0, "N"),
        (4.0, 24.0, "D:maj"),
        (24.0, 44.0, "E:min"),
        (44.0, SECONDS, "N"),
    ]
    assert song.tracks["comping"][0] == (4.0, 20.0, 50, 45) and song.beats[:2] == [(4.0, 1), (6.0, 2)]
    assert SONG.excerpt(25.0).chords[-1] == (25.0, SECONDS, "N") and SONG.excerpt(25.0).chords[-2][2] == "X"


def test_the_notes_are_heard_when_the_label_says_so():
    renderer = SongRenderer([sine_bank()], [1.0], 0)
    heard = renderer._play(SONG.tracks["comping"], "comping", 0.0, np.random.default_rng(0))
    assert not np.abs(heard[: 10 * RATE]).any()
    assert sounding(heard[10 * RATE : 12 * RATE]) == {48, 64, 67} and sounding(heard[20 * RATE : 22 * RATE]) == {
        50,
        65,
        69,
    }
    whole, rest = (renderer._play([(start, 3, 60, 45)], "comping", 0.0, np.random.default_rng(0)) for start in (0, -2))
    assert np.abs(rest[:RATE]).max() == pytest.approx(np.abs(whole[2 * RATE : 3 * RATE]).max(), rel=0.01)


def test_rows_follow_one_another_and_depend_on_seed_number_and_song_alone():
    banks = [sine_bank(), sine_bank("guitar", 40, 88)]
    rows = SongRenderer(banks, [1, 1], 3).rows(SONG, 5)
    assert len(rows) == SONG_ROWS
    for waveform, chords in rows:
        assert waveform.shape == (CLIP_SAMPLES,) and np.abs(waveform).max() <= 1
        assert chords[0][0] < 0.05 and chords[-1][1] > CLIP_SECONDS - 0.05
        assert all(a[1] == b[0] for a, b in zip(chords, chords[1:], strict=False))
    labels = {label for _, chords in rows for *_, label in chords}
    assert len(labels) == 3 and "N" in labels  # what nobody knows, X, is silent here
    renderer = SongRenderer(banks, [1, 1], 3)
    renderer.rows(SONG, 4)
    assert all(np.array_equal(a, b) for (a, _), (b, _) in zip(rows, renderer.rows(SONG, 5), strict=True))
    assert any(not np.array_equal(a, b) for (a, _), (b, _) in zip(rows, renderer.rows(SONG, 6), strict=True))
