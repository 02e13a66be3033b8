"""Songs are scored as mir_eval scores them: a perfect timeline gets 1, a wrong one what it deserves, and records load."""

import numpy as np
import pytest
import soundfile

from tests.commands import assert_one_line, run, run_json
from tests.core.toys import chord, sine_bank
from tests.export.instruments import small_piano
from triadbench.bench import records, songs
from triadbench.core.errors import UserError
from triadbench.core.models.spelling import harte
from triadbench.core.render.songs import SECONDS
from triadbench.export.songs.timeline import Segment, Timeline

pytest.importorskip("mir_eval")


TRUTH = [(0.0, 1.0, "N"), (1.0, 3.0, "C:maj"), (3.0, 5.0, "A:dim"), (5.0, 6.0, "F:aug")]


def scored(truth, heard):
    """The scores of one song, and what was heard in it."""
    followed = songs.compare(songs.Song(None, truth), [(a, b, harte(chord)) for a, b, chord in heard])
    return songs._scores([followed]), followed


def test_perfect():
    score, followed = scored(TRUTH, [(0, 1, "N"), (1, 3, "C"), (3, 5, "Adim"), (5, 6, "Faug")])
    assert [score[key] for key in ("triads", "root", "names", "non_chords", "segmentation")] == pytest.approx([1] * 5)
    assert max(followed.change_errors_s) == 0
    assert {name: (row["n"], row["triads"]) for name, row in score["by_quality"].items()} == {
        "maj": (2, 1),
        "dim": (2, 1),
        "aug": (1, 1),
        "N": (1, 1),
    }


def test_spelling_does_not_count():
    score, _ = scored([(0.0, 2.0, "Gb:min"), (2.0, 4.0, "C#:maj")], [(0, 2, "F#m"), (2, 4, "Db")])
    assert [score[key] for key in ("triads", "names", "segmentation")] == pytest.approx([1] * 3)


def test_diminished_and_augmented_count():
    score, _ = scored(TRUTH, [(0, 1, "N"), (1, 3, "C"), (3, 5, "Am"), (5, 6, "F")])
    assert score["triads"] == pytest.approx(3 / 6) and score["root"] == pytest.approx(1)
    assert score["by_quality"]["dim"]["triads"] == 0


def test_late_changes():
    score, followed = scored(TRUTH, [(0, 1.3, "N"), (1.3, 3, "C"), (3, 5, "Adim"), (5, 6, "Faug")])
    assert score["triads"] == pytest.approx(5.7 / 6) and followed.change_errors_s == pytest.approx([0.3, 0, 0])
    assert score["near_changes"] == pytest.approx(2 / 3) and score["median_change_error_s"] == 0


def test_a_repeated_chord_is_no_change():
    score, followed = scored(
        [(0.0, 2.0, "C:maj"), (2.0, 4.0, "C:maj"), (4.0, 6.0, "D:min")], [(0, 4, "C"), (4, 6, "Dm")]
    )
    assert followed.change_errors_s == [0] and score["segmentation"] == score["near_changes"] == 1


def test_beats():
    true = [(0.5 * k, k % 4 + 1) for k in range(40)]
    assert songs.beats_found(true, [(time + 0.06, None) for time, _ in true]) == 1
    assert songs.beats_found(true, [(time + 0.08, 1) for time, _ in true]) == songs.beats_found(true, []) == 0
    assert songs.beats_found(true, true[10:]) == 1  # from 5 s on
    assert songs.beats_found(true, true[::2]) == pytest.approx(2 / 3)


def test_full_labels():
    truth = [(0.0, 2.0, "A:min7/b3"), (2.0, 4.0, "C:sus4"), (4.0, 6.0, "D:1"), (6.0, 7.0, "X")]
    heard = [(0, 2, "A:min", 0.9, 0.8), (2, 4, "C:sus4", 0.6, 0.6), (4, 5, "N", None, None), (5, 9, "D:maj", 0.3, 0.3)]
    followed = songs.compare(songs.Song(None, truth), heard)
    assert [(row.label, row.answer, row.weight, row.confidence) for row in followed.answers] == [
        ("A:min7/b3", "A:min", 2, 0.9),
        ("C:sus4", "C:sus4", 2, 0.6),
        ("N", "N", 1, None),
        ("N", "D:maj", 1, 0.3),
        ("X", "D:maj", 1, 0.3),
    ]
    score = songs._scores([followed])
    assert score["triads"] == pytest.approx(5 / 6)  # the unknown chord does not count
    assert score["sevenths"] == pytest.approx(1 / 4) and score["majmin"] == pytest.approx(3 / 4)
    assert score["names"] == pytest.approx(3 / 6) and score["non_chords"] == 0.5


def test_what_no_stretch_covers_is_no_chord():
    score, _ = scored(TRUTH, [(1.0, 3.0, "C")])
    assert score["triads"] == pytest.approx(3 / 6) and score["non_chords"] == 1
    score, _ = scored([TRUTH[1], TRUTH[3]], [(1, 3, "C"), (3, 5, "N"), (5, 6, "Faug")])
    assert score["triads"] == score["non_chords"] == 1
    assert scored([(0.0, 2.0, "C:dim")], [(0, 2, "Cdim")])[0]["majmin"] is None


def test_longer_songs_count_more():
    _, short = scored([(0.0, 1.0, "C:maj"), (1.0, 2.0, "G:maj")], [(0, 2, "C")])
    _, long = scored([(0.0, 6.0, "C:maj")], [(0, 6, "C")])
    score = songs._scores([short, long])
    assert (score["triads"], score["segmentation"]) == pytest.approx((7 / 8, 7 / 8))


@pytest.fixture
def recordings(tmp_path, monkeypatch):
    """Two songs with labels; the timeline hears C major to 2 s, then nothing."""
    for name, text in (("a", "0 2 C:maj7\n2 4 N\n"), ("b", "0 4 C:min")):
        (tmp_path / f"{name}.lab").write_text(text)
        soundfile.write(tmp_path / f"{name}.wav", np.concatenate([chord(4, 0, seconds=2.0), np.zeros(32_000)]), 16_000)
    heard = [
        Segment(0, 2, "C", "C", "major", 0.8, "C", "C:maj", None, 0.7),
        Segment(2, 4, "N", None, None, None, "N", "N", None, None),
    ]
    made = Timeline(heard, 4.0, None, None, None, [None] * 2, [], {})
    monkeypatch.setattr(songs, "find_timeline", lambda file, predictor, name: made)
    monkeypatch.setattr(songs.machine, "environment", lambda: {"cpu": "any"})
    return tmp_path


def test_recordings(recordings, monkeypatch):
    monkeypatch.setattr(songs, "listen", lambda *_: [[(0.0, 2.0, "C:maj7")], [(0.0, np.inf, "C:min")]])
    row = songs.score_recordings(recordings, None, {"peer": "python"})
    assert row["instrument"] == recordings.name and row["songs"] == 2 and row["scores"] == pytest.approx([1, 0])
    assert row["triads"] == pytest.approx(0.5) and row["sevenths"] == pytest.approx(0.25)
    assert row["non_chords"] == 1 and row["names"] == 0.25 and row["seconds"] == 8
    # 0.8 stated of the triad and 0.7 of the name, right for 2 s and none of 4.
    assert {name: entry["ece"] for name, entry in row["calibration"].items()} == pytest.approx(
        {"triads": 0.3, "names": 0.7}
    )
    assert row["others"]["peer"]["triads"] == row["others"]["peer"]["names"] == 1
    template = row["others"]["chroma template"]
    assert template["root"] > 0.6 and template["non_chords"] > 0.4
    assert [len(cells) for cells in songs.table([row])] == [len(songs.HEADERS)] * 3


def test_the_command_on_recordings(recordings, tmp_path):
    options = ["evaluate-songs", "--data", recordings]
    result, _ = run_json(*options, "--records", tmp_path / "out" / "r.jsonl")
    assert [row["songs"] for row in result["rows"]] == [2] and "seed" not in result
    done = run(*options)
    assert f"calibration error, points, {recordings.name}: triads 30.0, names 70.0" in done.stdout
    assert "  chroma template" in done.stdout
    written, problems = records.load(tmp_path / "out" / "r.jsonl")
    assert written[0]["parameters"] == {"instrument": recordings.name, "degraded": False, "model": "shipped"}
    assert written[0]["others"]["chroma template"]["root"] > 0.5 and not problems
    assert "--seed" in run(*options, "--seed", 3, code=2).stderr


def test_a_folder_without_songs(tmp_path):
    assert_one_line(run("evaluate-songs", "--data", tmp_path, code=1), str(tmp_path), ".lab")


@pytest.fixture
def perfect(monkeypatch):
    """Songs by a small piano, each with its true timeline; `made` has them by name."""
    made = {}

    def play(bank, folder, seed, degraded):
        song = plain_play(bank, folder, seed, degraded)
        made[song.path.stem] = song
        return song

    def true_timeline(file, predictor, name):
        segments = [Segment(a, b, None, None, None, 0.9, x, x, None, 0.9) for a, b, x in made[name].stretches]
        return Timeline(segments, segments[-1].end_s, None, None, None, [], [], {}, beats=made[name].beats)

    plain_play = songs._play
    monkeypatch.setattr(songs, "_play", play)
    monkeypatch.setattr(songs, "bank_for", lambda source, cache: source)
    monkeypatch.setattr(songs, "NoteBank", type("N", (), {"load": staticmethod(lambda path: small_piano())}))
    monkeypatch.setattr(songs, "find_timeline", true_timeline)
    monkeypatch.setattr(songs.machine, "environment", lambda: {"cpu": "any"})
    return made


def test_rows_and_records(perfect, tmp_path):
    steps = []
    rows = songs.score_songs(["any"], None, songs=3, seed=4, degraded=True, progress=lambda *a: steps.append(a))
    assert rows[0]["triads"] == pytest.approx(1) and rows[0]["triads_interval"] == pytest.approx([1, 1])
    assert steps[-1] == (3, 3) and rows[0]["beats"] == rows[0]["near_changes"] == 1
    records.append_all(songs.to_records(rows, {"seed": 4}), tmp_path / "r.jsonl")
    [record], problems = records.load(tmp_path / "r.jsonl")
    assert record["samples"] == pytest.approx([1, 1, 1]) and record["unit"] == "recall" and not problems
    assert record["parameters"] == {"instrument": "small piano", "degraded": True, "seed": 4}
    assert [len(cells) for cells in songs.table(rows)] == [len(songs.HEADERS)] * 2  # ours and the template's


def test_the_command_prints_and_records_both_ways(perfect, tmp_path):
    options = ["evaluate-songs", "-i", "any", "--songs", 2, "--records", tmp_path / "r.jsonl"]
    result, _ = run_json(*options)
    assert [row["degraded"] for row in result["rows"]] == [False, True] and result["songs"] == 2
    lines = run(*options, "--degraded").stdout.splitlines()
    assert lines[0].startswith("songs by") and lines[2].startswith("small piano, degraded")
    written, problems = records.load(tmp_path / "r.jsonl")
    assert [record["parameters"]["model"] for record in written] == ["shipped"] * 3 and not problems


def test_songs_are_those_of_their_seeds(tmp_path):
    def heard(seed, degraded=False):
        song = songs._play(small_piano(), tmp_path, seed, degraded)
        return song, soundfile.read(song.path, dtype="float32")[0]

    (song, sound), (same, again), (worse, degraded), (other, _) = heard(1), heard(1), heard(1, True), heard(2)
    assert song == same == worse and np.array_equal(sound, again) and other.stretches != song.stretches
    begin, end = song.stretches[0][1], song.stretches[-1][1]
    assert song.stretches[0] == (0.0, begin, "N") and 0.5 < begin < 2 and end == SECONDS == len(sound) / 16_000
    assert np.abs(sound).max() == pytest.approx(0.7, abs=1e-3) and len(degraded) == len(sound)
    loud = [np.sqrt(np.mean(np.square(x[: int(begin * 16_000) - 100]))) for x in (sound, degraded)]
    assert loud[0] < 1e-4 < loud[1]
    assert song.beats[0] == (pytest.approx(begin), 1) and song.path.stem == "song 1"


def test_too_small_an_instrument(perfect, monkeypatch):
    narrow = sine_bank(low=60, high=70)
    monkeypatch.setattr(songs.NoteBank, "load", staticmethod(lambda path: narrow))
    with pytest.raises(UserError, match="sines plays 60 to 70, less than an octave; choose another"):
        songs.score_songs(["any"], None, songs=1)
    monkeypatch.setattr(songs.NoteBank, "load", staticmethod(lambda path: sine_bank(low=60, high=71)))
    assert songs.score_songs(["any"], None, songs=1)[0]["songs"] == 1


def test_the_command_refuses_a_checkpoint():
    assert_one_line(run("evaluate-songs", "--model", "x.safetensors", code=1), "x.safetensors", "`export`")
