"""MIDI songs: notes, beats and chords come at the right time, in either layout; what does not fit is not used."""

import mido
import pytest

from triadbench.core.data.midi_songs import find_midi_songs, read_midi_song
from triadbench.core.errors import UserError

CHORDS = ((48, 64, 67), (45, 60, 64, 67), (47, 50, 55, 59), (43, 48, 50))
LABELS = ["C:maj", "A:min7", "G:maj/3", "G:sus4"]


def write_midi(path, tracks, tempos=((0, 500_000),)):
    """`tracks`: notes (start, end, MIDI number) in beats by the track's name; `tempos`: (beat, microseconds)."""
    midi = mido.MidiFile(ticks_per_beat=480)
    events = {"": [(beat, mido.MetaMessage("set_tempo", tempo=tempo)) for beat, tempo in tempos]}
    for name, notes in tracks.items():
        channel = 9 if name == "drums" else 0
        events[name] = [(a, mido.Message("note_on", note=n, velocity=80, channel=channel)) for a, _, n in notes]
        events[name] += [(b, mido.Message("note_on", note=n, velocity=0, channel=channel)) for _, b, n in notes]
    for name, listed in events.items():
        track, now = mido.MidiTrack([mido.MetaMessage("track_name", name=name)]), 0
        for beat, message in sorted(listed, key=lambda event: event[0]):
            track.append(message.copy(time=round(480 * beat) - now))
            now = round(480 * beat)
        midi.tracks.append(track)
    path.parent.mkdir(parents=True, exist_ok=True)
    midi.save(path)
    return path


def beats_of(notes):
    return [(start, start + 3.9, note) for start, chord in notes for note in chord]


@pytest.fixture
def labelled(tmp_path):
    tracks = {"Piano": [(0, 2, 60), (4, 5, 64)], "Lead Vocals": [(2, 3, 72)], "drums": [(0, 9, 36)]}
    path = write_midi(tmp_path / "songs" / "one.mid", tracks, ((0, 500_000), (2, 1_000_000)))
    path.with_suffix(".lab").write_text("0 1 C:maj\n1 99 A:min7/b3\n")
    return path


def test_a_midi_file_beside_its_lab_is_read_in_seconds(labelled):
    assert find_midi_songs(labelled.parent) == [labelled]
    song = read_midi_song(labelled)
    assert song.tracks["comping"] == [(0, 1, 60, 80), (3, 4, 64, 80)] and song.tracks["melody"] == [(1, 2, 72, 80)]
    assert song.chords == [(0, 1, "C:maj"), (1, 4, "A:min7/b3")]
    assert song.beats[:5] == [(0, 1), (0.5, 2), (1, 3), (2, 4), (3, 1)]


def test_names_may_be_left_out_and_none_is_refused(labelled):
    with pytest.raises(UserError, match="no MIDI file with a .lab beside it"):
        find_midi_songs(labelled.parent, without=frozenset({"one"}))
    key = mido.MidiTrack([mido.MetaMessage("key_signature", key="C")])
    damaged = mido.MidiFile(tracks=[key])
    damaged.save(file := labelled.with_name("key.mid"))
    for content in (b"MThd nothing", file.read_bytes().replace(b"Y\x02\0", b"Y\x02\x31")):
        labelled.write_bytes(content)
        with pytest.raises(UserError, match="one.mid: cannot be read as a song with chords"):
            read_midi_song(labelled)


def corrected(folder, off=0.0):
    """POP909's layout: a performance of 1 s a beat that begins at 0.5 s, and its score of half the speed."""
    played = [(4 * k + 0.5, chord) for k, chord in enumerate(CHORDS)]
    melody = [(k + 0.5, k + 1, 72 + k % 5) for k in range(16)]
    path = write_midi(folder / "POP909/007/007.mid", {"PIANO": beats_of(played), "MELODY": melody}, ((0, 1_000_000),))
    (path.parent / "beat_midi.txt").write_text("".join(f"{k + 0.5} {k % 2}.0 {float(k % 4 == 1)}\n" for k in range(16)))
    (path.parent / "chord_midi.txt").write_text("0.5 4.5 C:maj\n4.5 16.5 A:min\n")
    score = [(start - 0.5 + off * k, start - 0.45 + off * k, note) for k, (start, _, note) in enumerate(melody)]
    tracks = {"melody": score, "chords": beats_of([(4 * k, chord) for k, chord in enumerate(CHORDS)])}
    write_midi(folder / "scores/007.mid", tracks)
    return path, folder / "scores"


def test_corrected_chords_are_moved_onto_the_performance(tmp_path):
    path, scores = corrected(tmp_path)
    assert find_midi_songs(tmp_path / "POP909", scores) == [path]
    song = read_midi_song(path, scores)
    assert [label for *_, label in song.chords] == LABELS
    assert [a for a, *_ in song.chords] == pytest.approx([0.5, 4.5, 8.5, 12.5])
    assert [b for _, b, _ in song.chords] == pytest.approx([4.5, 8.5, 12.5, 16.4])
    assert song.beats[:3] == [(0.5, 2), (1.5, 1), (2.5, 2)]
    assert [label for *_, label in read_midi_song(path).chords] == ["C:maj", "A:min"]


def test_a_score_of_something_else_is_not_used(tmp_path):
    path, scores = corrected(tmp_path, off=0.37)
    assert read_midi_song(path, scores) is None
