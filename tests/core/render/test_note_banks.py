"""Note banks sound the notes that they name, are built once, and say what is wrong with a source."""

import json
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.core.toys import frequency, note_folder, pitch_of, sine_bank, whole_note_folder, write_bank
from triadbench.core.errors import UserError
from triadbench.core.render import note_banks as banks
from triadbench.core.render import synthesiser as synth
from triadbench.core.render.note_banks import LAYERS, NoteBank, bank_for, build_banks, note_of_name

LOW, HIGH = 55, 67
"""A fifth of a bank's range: enough to hear that every note has its own pitch."""


@pytest.fixture
def octave(monkeypatch):
    monkeypatch.setattr(banks, "LOW_MIDI", LOW)
    monkeypatch.setattr(banks, "HIGH_MIDI", HIGH)


@pytest.fixture(scope="module")
def folder_bank(tmp_path_factory):
    place = tmp_path_factory.mktemp("notes")
    return NoteBank.load(bank_for(f"notes:{whole_note_folder(place / 'Box of sines')}", place / "cache"))


# --- what a bank is --------------------------------------------------------------------------------------------------


def test_synth_bank(octave, tmp_path):
    bank = NoteBank.load(bank_for("synth:7:grand", tmp_path))
    assert (bank.low, bank.high, bank.first, bank.family) == (LOW, HIGH, LOW, "grand")
    assert bank.notes.dtype == np.int16 and bank.notes.shape == (13, len(LAYERS), 67_200)
    assert np.array_equal(np.abs(bank.notes.astype(int)).max(axis=2), np.full((13, 3), 32767))
    assert bank.peaks.shape == (13, 3) and bank.peaks.max() == 1 and bank.peaks.min() > 0
    assert (np.diff(bank.peaks, axis=1) > 0).all()  # struck harder, it sounds louder
    # The instrument as a whole may be tuned apart; two unisons and the stretch move single notes by some cents.
    away = [pitch_of(bank.notes[note - LOW, 1], note) - note for note in range(LOW, HIGH + 1)]
    assert np.abs(away).max() < 0.35 and np.ptp(away) < 0.15


def test_same_seed_same_bytes_and_another_seed_another_instrument(octave, tmp_path):
    one, again, other = (
        bank_for(source, tmp_path / cache) for source, cache in (("synth:3", "a"), ("synth:3", "b"), ("synth:4", "a"))
    )
    assert one.name == again.name != other.name
    assert (one / "notes.npy").read_bytes() == (again / "notes.npy").read_bytes()
    assert (one / "bank.json").read_bytes() == (again / "bank.json").read_bytes()
    assert (one / "notes.npy").read_bytes() != (other / "notes.npy").read_bytes()


def test_notes_borrowed_from_neighbours_are_in_tune_within_3_cents(folder_bank):
    assert (folder_bank.name, folder_bank.low, folder_bank.high) == ("Box of sines", 36, 96)
    for note in range(36, 97):
        assert pitch_of(folder_bank.notes[note - 36, 0], note) == pytest.approx(note, abs=0.03)


def test_silence_before_a_recorded_note_is_cut(folder_bank):
    for note in (60, 63, 96):
        loud = np.abs(folder_bank.notes[note - 36, 0].astype(int)) > 1600
        assert 0 < np.argmax(loud) < 0.02 * 16_000


# --- names of note recordings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stem", "midi"),
    [
        ("A4", 69),
        ("C4", 60),
        ("C#4", 61),
        ("Db2", 37),
        ("Fs3", 54),
        ("piano-Gs5", 80),
        ("Ef3", 51),
        ("B♭3", 58),
        ("F♯3", 54),
        ("a4", 69),
        ("bb3", 58),
        ("A0v10", 21),
        ("Db2_f", 37),
        ("Piano.ff.Bb4", 70),
        ("01 - C5 (loud)", 72),
        ("C-1", 0),
        ("Cb4", 59),
        ("B#3", 60),
        # Of two names the last counts: what comes before is more often a bank, a take or a string than the pitch.
        ("E2-string-A3", 57),
        ("D1_piano_Fs4", 66),
    ],
)
def test_pitch_in_a_name(stem, midi):
    assert note_of_name(stem) == midi


@pytest.mark.parametrize("stem", ["", "piano", "60", "take 3", "Grade4", "H4", "A44", "abc4", "readme"])
def test_no_pitch_in_a_name(stem):
    assert note_of_name(stem) is None


# --- folders with too few notes --------------------------------------------------------------------------------------


def test_a_note_is_borrowed_from_a_fifth_away_at_most(tmp_path):
    bank = NoteBank.load(bank_for(f"notes:{note_folder(tmp_path / 'one', ['A4.wav'], [69])}", tmp_path / "cache"))
    assert (bank.low, bank.high) == (62, 76) and bank.first == 36
    assert not bank.notes[bank.low - 1 - 36].any() and not bank.notes[bank.high + 1 - 36].any()


def test_a_gap_between_recordings_is_out_of_range(tmp_path):
    folder = note_folder(tmp_path / "gap", ["A2.wav", "C5.wav", "F5.wav"], [45, 72, 77])
    bank = NoteBank.load(bank_for(f"notes:{folder}", tmp_path / "cache"))
    assert (bank.low, bank.high) == (65, 84)
    assert all(bank.notes[note - 36].any() for note in range(65, 85)) and not bank.notes[58 - 36].any()


def test_a_note_with_a_silent_layer_is_out_of_range(tmp_path):
    bank = sine_bank(low=60, high=70)
    bank.peaks[3, 0] = 0
    loaded = NoteBank.load(write_bank(tmp_path / "bank", bank))
    assert (loaded.low, loaded.high) == (64, 70)


def test_family_of_a_folder_named_guitar(tmp_path):
    folder = note_folder(tmp_path / "My Guitar", ["A3.flac"], [57])
    assert NoteBank.load(bank_for(f"notes:{folder}", tmp_path / "cache")).family == "guitar"


# --- cache -----------------------------------------------------------------------------------------------------------


def test_a_bank_is_built_once(octave, tmp_path, monkeypatch):
    path = bank_for("synth:1", tmp_path)
    monkeypatch.setattr(synth, "render_note", lambda *_, **__: pytest.fail("built again"))
    assert bank_for("synth:1", tmp_path) == path


def test_another_range_is_another_bank(octave, tmp_path, monkeypatch):
    path = bank_for("synth:1", tmp_path)
    monkeypatch.setattr(banks, "HIGH_MIDI", HIGH + 1)
    assert bank_for("synth:1", tmp_path) != path


def test_folders_with_files_of_the_same_names_and_sizes_are_two_instruments(tmp_path):
    first = note_folder(tmp_path / "x" / "set", ["A4.wav"], [69])
    second = note_folder(tmp_path / "y" / "set", ["A4.wav"], [69.5])
    assert (first / "A4.wav").stat().st_size == (second / "A4.wav").stat().st_size
    one, two = (NoteBank.load(bank_for(f"notes:{folder}", tmp_path / "cache")) for folder in (first, second))
    assert not np.array_equal(one.notes, two.notes)


def test_a_failed_build_leaves_nothing(octave, tmp_path, monkeypatch):
    monkeypatch.setattr(synth, "render_note", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        bank_for("synth:1", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_bank_that_another_process_finished_first_is_taken(octave, tmp_path, monkeypatch):
    build = banks._write

    def slow(folder, *rest):
        build(folder, *rest)
        shutil.copytree(folder, tmp_path / folder.name)

    monkeypatch.setattr(banks, "_write", slow)
    assert NoteBank.load(bank_for("synth:1", tmp_path)).name == "synthesiser, seed 1"
    assert len(list(tmp_path.iterdir())) == 1


def test_banks_in_two_processes_come_in_the_order_of_their_sources(tmp_path):
    sources = [f"notes:{note_folder(tmp_path / name, ['A4.wav'], [69])}" for name in ("one", "two", "three")]
    counts = []
    paths = build_banks(
        [*sources, sources[0]], tmp_path / "cache", workers=2, progress=lambda done, total: counts.append((done, total))
    )
    assert [NoteBank.load(path).name for path in paths] == ["one", "two", "three", "one"]
    assert counts == [(1, 3), (2, 3), (3, 3)]


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("piano", "expected synth:SEED, font:FILE:PROGRAM or notes:FOLDER"),
        ("synth:", "expected synth:SEED"),
        ("tape:3", "note source 'tape:3'"),
        ("synth:one", "seed must be a whole number"),
        ("synth:-1", "seed must be a whole number"),
        ("synth:1:organ", "note source 'synth:1:organ': .*organ"),
        ("font:x.sf2", "expected font:FILE:PROGRAM"),
        ("font:x.sf2:300", "numbers 0-127"),
        ("font:x.sf2:piano", "numbers 0-127"),
        ("font:nowhere.sf2:0", "nowhere.sf2 not found here nor in /usr/share/sounds/sf2.*install it or give its path"),
        ("notes:/nowhere", "no such folder"),
    ],
)
def test_bad_sources(octave, source, message, tmp_path):
    with pytest.raises(UserError, match=message):
        bank_for(source, tmp_path / "cache")
    assert not (tmp_path / "cache").exists() or list((tmp_path / "cache").iterdir()) == []


def write_text(folder, name):
    (folder / name).write_text("no sound")


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: None, "no audio file there is named by a pitch"),
        (lambda folder: write_text(folder, "A4.txt"), "no audio file there is named by a pitch"),
        (lambda folder: (folder / "A4.wav").mkdir(), "no audio file there is named by a pitch"),
        (lambda folder: write_text(folder, "A4.wav"), "A4.wav: not a sound file"),
        (lambda folder: note_folder(folder, ["A0.wav"], [21]), "its notes lie outside MIDI 36-96"),
        (lambda folder: soundfile.write(folder / "A4.wav", np.zeros(9000), 16_000), "all notes are silent"),
    ],
    ids=["empty", "other files", "a folder named so", "damaged", "too low", "silent"],
)
def test_bad_note_folders(prepare, message, tmp_path):
    (tmp_path / "notes").mkdir()
    prepare(tmp_path / "notes")
    with pytest.raises(UserError, match=message):
        bank_for(f"notes:{tmp_path / 'notes'}", tmp_path / "cache")


def damage(name, content):
    return lambda path: (path / name).write_bytes(content)


def cut(path):
    whole = (path / "notes.npy").read_bytes()
    (path / "notes.npy").write_bytes(whole[: len(whole) // 2])


def change(**entries):
    def apply(path):
        meta = json.loads((path / "bank.json").read_text())
        (path / "bank.json").write_text(json.dumps({**meta, **entries}))

    return apply


@pytest.mark.parametrize(
    "spoil",
    [
        damage("bank.json", b""),
        damage("bank.json", b"[1]"),
        damage("bank.json", b"\xff\xfe"),
        damage("notes.npy", b""),
        damage("notes.npy", b"text"),
        cut,
        change(format=99),
        change(peaks=[[1, 1, 1]]),
        change(peaks=[[0, 0, 0]] * 11),
        change(name=None, first="x"),
        lambda path: (path / "notes.npy").unlink(),
    ],
    ids=[
        "empty json",
        "no object",
        "no text",
        "empty array",
        "no array",
        "cut array",
        "format",
        "shape",
        "silent",
        "types",
        "no notes",
    ],
)
def test_a_damaged_bank_says_that_deleting_it_helps(spoil, tmp_path):
    path = write_bank(tmp_path / "bank", sine_bank(low=60, high=70))
    assert NoteBank.load(path).low == 60
    spoil(path)
    with pytest.raises(UserError, match="is not a note bank .*; delete it, and it is built again"):
        NoteBank.load(path)


# --- SoundFonts ------------------------------------------------------------------------------------------------------


def find_small_font() -> Path | None:
    for folder in banks.FONT_FOLDERS:
        for path in sorted(Path(folder).glob("*.sf[23]"), key=lambda font: font.stat().st_size):
            return path
    return None


FONT = find_small_font()
needs_fluidsynth = pytest.mark.skipif(
    shutil.which("fluidsynth") is None, reason="the program fluidsynth is not installed"
)
needs_font = pytest.mark.skipif(FONT is None, reason=f"no SoundFont in {', '.join(banks.FONT_FOLDERS)}")


def chunk(name, content):
    return struct.pack("<4sI", name, len(content)) + content + b"\0" * (len(content) % 2)


def write_font(path, *presets):
    """A SoundFont of preset headers alone: (bank, program) each."""
    rows = [struct.pack("<20sHH14x", b"preset", program, bank) for bank, program in (*presets, (0, 0))]
    info = chunk(b"LIST", b"INFO" + chunk(b"INAM", b"name")) + chunk(b"JUNK", b"odd")
    content = b"sfbk" + info + chunk(b"LIST", b"sdta") + chunk(b"LIST", b"pdta" + chunk(b"phdr", b"".join(rows)))
    path.write_bytes(chunk(b"RIFF", content))
    return path


def test_without_fluidsynth_the_message_says_how_to_get_it(monkeypatch, tmp_path):
    write_font(tmp_path / "x.sf2", (0, 0))
    monkeypatch.setattr(banks.shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="fluidsynth, which is not installed .*apt install fluidsynth"):
        bank_for(f"font:{tmp_path / 'x.sf2'}:0", tmp_path / "cache")


def test_a_font_is_found_by_its_file_name(monkeypatch, tmp_path):
    (tmp_path / "x.sf2").write_bytes(b"RIFF")
    monkeypatch.setattr(banks, "FONT_FOLDERS", (str(tmp_path),))
    assert banks.find_font("x.sf2") == tmp_path / "x.sf2"


@pytest.mark.parametrize("content", [b"", b"no font", b"RIFF1234WAVEfmt ", None], ids=["empty", "text", "a wav", "cut"])
def test_a_file_that_is_no_font_is_not_replaced_by_another(content, tmp_path):
    path = write_font(tmp_path / "x.sf2", (0, 0))
    path.write_bytes(path.read_bytes()[:-60] if content is None else content)
    with pytest.raises(UserError, match="x.sf2 is not a SoundFont"):
        bank_for(f"font:{path}:0", tmp_path / "cache")


@pytest.mark.parametrize(
    ("preset", "there"), [("4", True), ("8:25", True), ("8:4", False), ("25", False), ("0", False)]
)
def test_a_preset_that_the_font_lacks_is_not_replaced_by_another(preset, there, tmp_path, monkeypatch):
    path = write_font(tmp_path / "x.sf2", (0, 4), (8, 25))
    monkeypatch.setattr(banks, "_play_font", lambda *_: banks._empty() + 0.5)
    if there:
        assert NoteBank.load(bank_for(f"font:{path}:{preset}", tmp_path / "cache")).low == 36
    else:
        with pytest.raises(UserError, match=r"x.sf2 has no preset .*; choose another program"):
            bank_for(f"font:{path}:{preset}", tmp_path / "cache")


@needs_fluidsynth
def test_what_fluidsynth_says_is_passed_on(octave, tmp_path, monkeypatch):
    def fail(command, **_):
        Path(command[command.index("-F") + 1]).write_bytes(b"half")
        return subprocess.CompletedProcess(command, 1, "", "warning\nno room for it\n")

    monkeypatch.setattr(banks.subprocess, "run", fail)
    with pytest.raises(UserError, match="fluidsynth could not play .*x.sf2: no room for it"):
        bank_for(f"font:{write_font(tmp_path / 'x.sf2', (0, 0))}:0", tmp_path / "cache")


@needs_fluidsynth
@needs_font
def test_notes_of_a_font_have_their_pitch(monkeypatch, tmp_path):
    monkeypatch.setattr(banks, "LOW_MIDI", 60)
    monkeypatch.setattr(banks, "HIGH_MIDI", 62)
    bank = NoteBank.load(bank_for(f"font:{FONT}:0", tmp_path))
    assert bank.family == "piano" and bank.name == f"{FONT.stem} 0:0"
    for note in (60, 61, 62):
        for layer in range(3):
            assert pitch_of(bank.notes[note - 60, layer], note) == pytest.approx(note, abs=0.15)
    # Every slot begins with its own note: nothing of it lies before, nothing of the one before rings on.
    assert all(np.abs(bank.notes[i, j, :800].astype(int)).max() > 3000 for i in range(3) for j in range(3))
    assert frequency(60) == pytest.approx(261.63, abs=0.01)
