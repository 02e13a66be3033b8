"""`infer --timeline` from end to end: table, JSON, files of every format, several songs, and one line for what is wrong."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from tests import commands
from tests.export.instruments import play
from triadbench import cli

ROOT = Path(cli.__file__).parent
FORMATS = ("lab", "json", "csv", "mid", "html")


def run(*arguments, code=0):
    return commands.run("infer", "--timeline", *arguments, code=code)


@pytest.fixture(scope="module")
def song(tmp_path_factory):
    path = tmp_path_factory.mktemp("songs") / "song.flac"
    soundfile.write(path, play("C G Am F C G Am F")[1], 16_000)
    return path


def test_table(song):
    lines = run(song).stdout.splitlines()
    assert lines[0].split() == ["start", "end", "chord", "roman", "confidence"] and len(lines) > 5
    assert any(line.startswith("key ") for line in lines)


def test_json_is_one_object(song):
    done = run(song, "--json")
    assert done.stdout.count("\n") == 1
    [result] = json.loads(done.stdout)["results"]
    assert result["file"] == str(song) and result["segments"][0]["start_s"] == 0 and result["written"] == []
    assert {"beats", "meter", "tempo_bpm"} <= result.keys()


def test_every_format_at_once(song, tmp_path):
    outs = [part for kind in FORMATS for part in ("--out", tmp_path / f"x.{kind}")]
    done = run(song, *outs)
    assert {path.name for path in tmp_path.iterdir()} == {f"x.{kind}" for kind in FORMATS}
    assert all(path.stat().st_size for path in tmp_path.iterdir()) and done.stderr.count("Wrote ") == len(FORMATS)


def test_several_songs_go_into_a_folder_and_a_bad_one_stops_none(song, tmp_path):
    (tmp_path / "in" / "b").mkdir(parents=True)
    for name in ("song.flac", "b/song.flac"):
        (tmp_path / "in" / name).write_bytes(song.read_bytes())
    (tmp_path / "in" / "bad.wav").write_bytes(b"none")
    done = run(tmp_path / "in", "--out", tmp_path / "out", "--format", "lab", "--format", "mid", "--jsonl", code=1)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"song.lab", "song.mid", "song-2.lab", "song-2.mid"}
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == 3 and sum("error" in r for r in results) == 1
    assert "1 of 3 files failed" in done.stderr and "bad.wav" in done.stderr


def test_standard_input(song):
    done = subprocess.run(
        [sys.executable, ROOT / "cli.py", "infer", "-", "--timeline"],
        input=song.read_bytes(),
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0 and b"key " in done.stdout, done.stderr


def nan():
    file = io.BytesIO()
    soundfile.write(file, np.full(9000, np.nan, np.float32), 16_000, format="WAV", subtype="FLOAT")
    return file.getvalue()


@pytest.mark.parametrize(("content", "words"), [(b"", "empty"), (b"x" * 900, "not a sound file"), (nan(), "is nan")])
def test_bad_files(content, words, tmp_path):
    (tmp_path / "x.wav").write_bytes(content)
    done = run(tmp_path / "x.wav", "--out", tmp_path / "x.lab", code=1)
    assert words in done.stderr and done.stderr.splitlines()[-1] == "Error: 1 of 1 files failed"
    assert [path.name for path in tmp_path.iterdir()] == ["x.wav"] and done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--out", "x.xls"], "give a name that ends in .lab"),
        (["--format", "lab"], "give it with --out DIR"),
        (["--out", "x.lab", "--format", "mid"], "names its format by itself"),
        (["--csv"], "--out FILE.csv"),
        (["--alternatives", "2"], "one chord at a time"),
    ],
)
def test_wrong_usage(song, arguments, words):
    assert words in run(song, *arguments, code=2).stderr


def test_several_songs_do_not_fit_into_one_file(song):
    assert "2 recordings do not fit into one file" in run(song, song, "--out", "x.lab", code=2).stderr


def test_out_is_for_timelines(song):
    done = CliRunner().invoke(cli.main, ["infer", str(song), "--out", "x.lab"])
    assert done.exit_code == 2 and "--out is for --timeline" in done.stderr
