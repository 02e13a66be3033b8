"""Every format says the same: read back by other programs' rules (MIREX, RFC 4180, MIDI), and whole or not at all."""

import csv
import dataclasses
import io
import json
import subprocess
import sys

import mido
import numpy as np
import pytest

from triadbench.core.errors import UserError
from triadbench.core.models.chords import ROOTS, TYPES
from triadbench.core.models.prediction import describe
from triadbench.core.models.spelling import chord_name, harte, key_name, read_chord
from triadbench.core.models.vocabulary import QUALITIES
from triadbench.export.songs import files
from triadbench.export.songs.files import FORMATS, chord_midi, clock, format_of, text, write
from triadbench.export.songs.timeline import Segment, Timeline


def timeline(rows, duration=None, key="C major", tempo=120.0, roman=None):
    segments = [Segment(*row, row[2], harte(row[2]), None, row[-1]) for row in rows]
    return Timeline(
        segments,
        duration or segments[-1].end_s,
        key,
        None if key is None else 0.8,
        tempo,
        roman or [None if s.root is None else "I" for s in segments],
        [{"roman": ["I", "V", "vi", "IV"], "chords": ["C", "G", "Am", "F"], "count": 3}] if key else [],
        {"window_s": 0.5},
    )


ROWS = (
    (0.0, 0.75, "N", None, None, None),
    (0.75, 2.0, "C", "C", "major", 0.99),
    (2.0, 3.5, "Am", "A", "minor", 0.9),
    (3.5, 5.0, "Abdim", "Ab", "diminished", 0.8),
    (5.0, 64.125, "Faug", "F", "augmented", 0.7),
)


@pytest.fixture
def song():
    return timeline(ROWS)


@pytest.fixture
def nothing():
    return timeline([(0.0, 3.0, "N", None, None, None)], key=None, tempo=None)


def test_lab_is_mirex(song, tmp_path):
    write(song, tmp_path / "x.lab")
    lines = [line.split("\t") for line in (tmp_path / "x.lab").read_text().splitlines()]
    assert [label for *_, label in lines] == ["N", "C:maj", "A:min", "Ab:dim", "F:aug"]
    assert [(float(a), float(b)) for a, b, _ in lines] == [row[:2] for row in ROWS]


def test_lab_is_read_by_mir_eval(song, tmp_path):
    mir_eval = pytest.importorskip("mir_eval")
    write(song, tmp_path / "x.lab")
    intervals, labels = mir_eval.io.load_labeled_intervals(str(tmp_path / "x.lab"))
    assert np.array_equal(intervals, [row[:2] for row in ROWS])
    assert mir_eval.chord.evaluate(intervals, labels, intervals, labels)["triads"] == 1


def test_mir_eval_tells_all_four_types_apart():
    chord = pytest.importorskip("mir_eval").chord
    labels = [harte(chord_name(ROOTS.index("C"), kind)) for kind in range(4)]
    for k, label in enumerate(labels):
        assert chord.triads([label] * 4, labels).tolist() == [float(k == other) for other in range(4)]


def test_json(song, tmp_path):
    write(song, tmp_path / "x.json")
    read = json.loads((tmp_path / "x.json").read_text())
    assert read["key"] == "C major" and read["tempo_bpm"] == 120 and read["duration_s"] == 64.125
    assert read["segments"][1] == {
        "start_s": 0.75,
        "end_s": 2.0,
        "chord": "C",
        "root": "C",
        "type": "major",
        "confidence": 0.99,
        "name": "C",
        "label": "C:maj",
        "bass": None,
        "label_confidence": 0.99,
        "roman": "I",
    }
    assert read["progressions"][0]["count"] == 3 and read["settings"] == {"window_s": 0.5}


def test_csv(song, tmp_path):
    write(song, tmp_path / "x.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "x.csv").read_text())))
    assert [row["chord"] for row in rows] == [row[2] for row in ROWS]
    assert rows[0]["root"] == rows[0]["confidence"] == "" and rows[1]["confidence"] == "0.9900"


FULL = ("N", "Cmaj7/E", "Dm7", "Gsus4", "G7", "C5")
HARTE = ["N", "C:maj7/3", "D:min7", "G:sus4", "G:7", "C:5"]


@pytest.fixture
def full():
    chords = [read_chord(name) for name in FULL]
    times = [{"start_s": float(k), "end_s": k + 1.0} for k in range(len(chords))]
    shares = [{"confidence": c and 0.9, "label_confidence": c and 0.6} for c in chords]
    segments = [Segment(**t, **describe(c, "C major"), **s) for t, c, s in zip(times, chords, shares, strict=True)]
    return dataclasses.replace(timeline(ROWS), segments=segments, roman=[None, "Imaj7/3", "ii7", "Vsus4", "V7", "I5"])


def test_every_file_has_the_whole_chord(full, tmp_path):
    for name in FORMATS:
        write(full, tmp_path / f"x.{name}")
    lab = [line.split("\t")[2] for line in (tmp_path / "x.lab").read_text().splitlines()]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "x.csv").read_text())))
    read = json.loads((tmp_path / "x.json").read_text())["segments"]
    assert lab == [row["label"] for row in rows] == [segment["label"] for segment in read] == HARTE
    assert [row["name"] for row in rows] == [segment["name"] for segment in read] == list(FULL)
    assert [row["chord"] for row in rows] == ["N", "C", "Dm", "", "G", ""]
    assert [(s["chord"], s["type"], s["bass"]) for s in read[1:4]] == [
        ("C", "major", "E"),
        ("Dm", "minor", None),
        (None, None, None),
    ]
    assert rows[1]["confidence"] == "0.9000" and rows[1]["label_confidence"] == "0.6000"
    assert [m.text for m in mido.MidiFile(tmp_path / "x.mid") if m.type == "marker"] == list(FULL[1:])
    html = (tmp_path / "x.html").read_text().replace("\\u002f", "/")
    assert all(f'"{name}"' in html for name in (*FULL, "no triad", "no chord"))
    assert "Cmaj7/E" in text(full) and "60.0 %" in text(full)


def test_the_rows_of_a_plot_are_roots_with_or_without_a_triad(full):
    plot = files.figure(full)
    bars = {bar.name: dict(zip(bar.hovertext, bar.y, strict=True)) for bar in plot.data if bar.type == "bar"}
    assert bars["no triad"] == {"Gsus4": "G", "C5": "C"} and bars["no chord"] == {"N": "N"}
    assert bars["major"] == {"Cmaj7/E": "C", "G7": "G"}


def test_mir_eval_reads_every_label():
    chord = pytest.importorskip("mir_eval").chord
    for quality in range(len(QUALITIES)):
        for root in range(12):
            for bass in [None, *((root + step) % 12 for step in QUALITIES[quality].semitones[1:])]:
                chord.encode(harte(chord_name(root, quality, None, bass)))


@pytest.mark.parametrize(
    ("name", "notes"),
    [
        ("C", [36, 55, 60, 64]),
        ("C/E", [40, 55, 60, 64]),
        ("Cmaj7/E", [40, 55, 59, 60, 64]),
        ("Gsus4", [43, 55, 60, 62]),
        ("C5", [36, 55, 60]),
        ("N", []),
    ],
)
def test_midi_notes_of_a_chord(name, notes):
    assert chord_midi(name) == notes


def sounding(path):
    """[(start, end, notes)] of a MIDI file's chords, in seconds, and its tempo."""
    midi, now, begun, chords = mido.MidiFile(path), 0.0, {}, {}
    tempos = [m.tempo for track in midi.tracks for m in track if m.type == "set_tempo"]
    for message in midi:
        now += message.time
        if message.type == "note_on":
            begun[message.note] = now
        elif message.type == "note_off":
            chords.setdefault((round(begun.pop(message.note), 3), round(now, 3)), []).append(message.note)
    assert not begun
    return [(*span, sorted(notes)) for span, notes in sorted(chords.items())], mido.tempo2bpm(tempos[0]), midi.length


@pytest.mark.parametrize("bpm", [120.0, 87.3, None])
def test_midi_sounds_the_chords_at_their_times(bpm, tmp_path):
    write(timeline(ROWS, tempo=bpm), tmp_path / "x.mid")
    chords, tempo, length = sounding(tmp_path / "x.mid")
    assert tempo == pytest.approx(bpm or 120, abs=0.01) and length == pytest.approx(64.125, abs=0.01)
    assert len(chords) == 4
    for (start, end, notes), row in zip(chords, ROWS[1:], strict=True):
        assert (start, end) == pytest.approx(row[:2], abs=0.005)
        pitch_classes = {"C": {0, 4, 7}, "Am": {9, 0, 4}, "Abdim": {8, 11, 2}, "Faug": {5, 9, 1}}[row[2]]
        assert {note % 12 for note in notes} == pitch_classes and len(notes) == 4


def with_beats(song, first=0.9, pickup=1, period=0.8):
    times = first + np.cumsum(np.concatenate([[0], np.linspace(period, 1.1 * period, 70)]))
    beats = [(float(time), (k - pickup) % 4 + 1) for k, time in enumerate(times)]
    return dataclasses.replace(song, beats=beats, meter=4)


@pytest.mark.parametrize("first", [0.0, 0.3, 0.9])
def test_midi_counts_the_beats_that_were_heard(song, first, tmp_path):
    counted = with_beats(song, first)
    write(counted, tmp_path / "x.mid")
    chords, _, length = sounding(tmp_path / "x.mid")
    assert length == pytest.approx(64.125, abs=0.01)
    assert [start for start, *_ in chords] == pytest.approx([s.start_s for s in song.segments[1:]], abs=0.01)
    track, now, at = mido.MidiFile(tmp_path / "x.mid").tracks[0], 0, {}
    for message in track:
        now += message.time
        at.setdefault(message.type, []).append((now, message))
    n_before = round(first / 0.8) + 1
    signatures = [(tick // 480, m.numerator) for tick, m in at["time_signature"]]
    assert signatures == [(0, n_before), (n_before, 4)] and len(at["set_tempo"]) > 60
    [*_, (tick, last)] = at["set_tempo"]
    assert last.tempo == pytest.approx(0.88e6, rel=0.01) and tick % 480 == 0


def test_html_and_text_show_the_bars(song, tmp_path):
    [shape] = files.figure(with_beats(song)).layout.shapes
    assert shape.path.count("M") == 18 and shape.path.startswith("M 1.700,0") and not files.figure(song).layout.shapes
    assert "beats a minute, 4 in a bar" in text(with_beats(song)) and "in a bar" not in text(song)


def test_midi_of_all_chords_and_keys(tmp_path):
    signatures = set()
    for root, name in enumerate(ROOTS):
        for kind in range(len(TYPES)):
            notes = chord_midi(chord_name(root, kind))
            assert notes[0] % 12 == (8 + root) % 12 and notes == sorted(set(notes)) and notes[-1] < 72
        for mode in ("major", "minor"):
            key = key_name(root, mode)
            write(timeline([(0.0, 1.0, name, name, "major", 1.0)], key=key), tmp_path / "x.mid")
            assert sounding(tmp_path / "x.mid")[0]
            signatures |= {(key, m.key) for m in mido.MidiFile(tmp_path / "x.mid") if m.type == "key_signature"}
    assert len(signatures) == 24 and {("F# minor", "F#m"), ("Eb minor", "Ebm"), ("Gb major", "Gb")} < signatures


A_MAJOR = (
    (0.0, 2.0, "A", "A", "major", 0.9),
    (2.0, 4.0, "F#m", "Gb", "minor", 0.9),
    (4.0, 6.0, "D", "D", "major", 0.9),
    (6.0, 8.0, "C#m", "Db", "minor", 0.9),
)


def test_every_file_spells_for_the_key(tmp_path):
    song = timeline(A_MAJOR, key="A major", roman=["I", "vi", "IV", "iii"])
    for name in FORMATS:
        write(song, tmp_path / f"x.{name}")
    assert [line.split()[2] for line in (tmp_path / "x.lab").read_text().splitlines()] == [
        "A:maj",
        "F#:min",
        "D:maj",
        "C#:min",
    ]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "x.csv").read_text())))
    assert [(row["chord"], row["root"]) for row in rows] == [("A", "A"), ("F#m", "Gb"), ("D", "D"), ("C#m", "Db")]
    segments = json.loads((tmp_path / "x.json").read_text())["segments"]
    assert [(s["chord"], s["root"]) for s in segments] == [(row["chord"], row["root"]) for row in rows]
    markers = [m.text for m in mido.MidiFile(tmp_path / "x.mid") if m.type == "marker"]
    assert markers == ["A", "F#m", "D", "C#m"]
    shown = files.figure(song)
    assert " ".join(shown.layout.yaxis.categoryarray[::-1]) == "C G D A E B F# C# G# Eb Bb F"
    assert {row for bar in shown.data for row in bar.y} == {"A", "F#", "D", "C#"}
    assert all(name not in text(song) for name in ("Gb", "Db"))


def test_plot_fetches_nothing_and_names_every_chord(song, tmp_path):
    write(song, tmp_path / "x.html")
    page = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert 'src="http' not in page and "<link" not in page
    shown = files.figure(song)
    bars = [trace for trace in shown.data if trace.type == "bar"]
    assert {name for bar in bars for name in bar.hovertext} == {row[2] for row in ROWS}
    spans = sorted((b, b + w) for bar in bars for b, w in zip(bar.base, bar.x, strict=True))
    assert spans == [row[:2] for row in ROWS]


def test_table(song):
    lines = text(song).splitlines()
    assert lines[0].split() == ["start", "end", "chord", "roman", "confidence"]
    assert lines[3].split() == ["0:00.75", "0:02.00", "C", "I", "99.0", "%"]
    assert "key          C major (80 %)" in lines and "tempo        120 beats a minute" in lines
    assert any("I V vi IV   (C G Am F; 3 times)" in line for line in lines)


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00.00"), (59.996, "1:00.00"), (187.25, "3:07.25"), (3661.5, "1:01:01.50")]
)
def test_clock(seconds, shown):
    assert clock(seconds) == shown


@pytest.mark.parametrize("format", FORMATS)
def test_silence_in_every_format(nothing, format, tmp_path):
    path = tmp_path / f"x.{format}"
    write(nothing, path)
    assert path.stat().st_size > 0 and text(nothing).splitlines()[-1] == "length       0:03.00"


@pytest.mark.parametrize(
    ("name", "format"), [("a.MID", "mid"), ("a.midi", "mid"), ("a.htm", "html"), ("a.b.lab", "lab")]
)
def test_formats_by_name(name, format):
    assert format_of(name) == format


def test_refusals_leave_nothing_behind(song, tmp_path):
    with pytest.raises(UserError, match=r"x\.xls: give a name that ends in \.lab, \.json"):
        write(song, tmp_path / "x.xls")
    with pytest.raises(UserError, match="format='xls' must be one of"):
        write(song, tmp_path / "x.lab", "xls")
    song.settings["broken"] = float("nan")
    with pytest.raises(ValueError):
        write(song, tmp_path / "x.json")
    assert list(tmp_path.iterdir()) == []


def test_a_timeline_needs_no_heavy_library():
    code = """import sys
from triadbench.export.songs import files, timeline
print(*sorted({"torch", "scipy", "plotly", "mido", "pandas", "numba", "onnx"} & set(sys.modules)))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
