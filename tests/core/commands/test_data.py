"""The commands `data ...` from end to end on small sets: results, JSON alone on stdout, one line for a mistake."""

import json
import os

import pytest
from click.testing import CliRunner

from tests.commands import assert_one_line
from tests.commands import run as cli_run
from tests.core.sounds import NAMES, encode, make_folder, tone
from triadbench.core.commands import data as commands
from triadbench.core.data import fetch as source
from triadbench.core.data.dataset import open_dataset
from triadbench.core.errors import UserError
from triadbench.core.render.note_banks import TRAINING


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    files = {name: encode(tone(64_000, 16_000)) for name in NAMES[:2]}
    return make_folder(tmp_path_factory.mktemp("commands") / "set", files | {"notes.txt": b"no clip"})


def run(*arguments, code=0):
    result = CliRunner().invoke(commands.data, list(map(str, arguments)))
    assert result.exit_code == code, result.output
    return result


@pytest.mark.parametrize("command", ["amp", "degrade", "pack"])
def test_commands_that_make_a_set_of_another(command, clips, tmp_path):
    answer = json.loads(run(command, clips, tmp_path / "out", "--json").stdout)
    assert answer["n"] == 2 and answer["path"] == str(tmp_path / "out") and len(open_dataset(tmp_path / "out")) == 2
    plain = run(command, clips, tmp_path / "again")
    assert plain.stdout.startswith(f"2 clips in {tmp_path / 'again'}") and "notes.txt" in plain.stderr


@pytest.mark.skipif(os.name == "nt", reason="needs such names")
def test_names_cannot_break_a_line_or_speak_to_the_terminal(tmp_path):
    files = {NAMES[0]: encode(tone(64_000, 16_000)), "two\nlines.wav": b"", "\x1b[31mred.wav": b""}
    folder = make_folder(tmp_path / "set", files)
    for command, *out in (("info",), ("pack", tmp_path / "a\nb.pack")):
        done = cli_run("data", command, folder, *out)
        lines = [line for line in done.output.splitlines() if "skipped" in line and ".wav" in line]
        assert [line.partition(":")[0] for line in lines] == [r"skipped \x1b[31mred.wav", r"skipped two\nlines.wav"]
        assert done.output.replace("\n", "").isprintable()
    assert "1 clips in" in done.stdout and done.stdout.count("\n") == 1
    assert_one_line(cli_run("data", "info", tmp_path / "\x1b[31mno\nset", code=1), r"/\x1b[31mno set does not exist")


def test_info_counts_and_draws(clips, tmp_path):
    plain = run("info", clips, "--picture", tmp_path / "set.html")
    assert plain.stdout.startswith("2 clips, folder, 1 files skipped") and "seconds a clip: 4 to 4" in plain.stdout
    assert (tmp_path / "set.html").read_text("utf-8").startswith("<!doctype html>")
    assert json.loads(run("info", clips, "--json").stdout)["n"] == 2


def test_info_of_clips_that_cannot_be_read_names_no_length(tmp_path):
    flac = encode(tone(64_000, 16_000), format="FLAC")
    folder = make_folder(tmp_path / "set", {NAMES[0].replace(".wav", ".flac"): flac[: len(flac) // 2]})
    plain = run("info", folder)
    assert "unreadable: 1" in plain.stdout and "seconds a clip" not in plain.stdout


def test_render_of_a_set_to_train_on(tmp_path):
    without = tmp_path / "without.txt"
    without.write_text("007")
    arguments = (
        "render",
        tmp_path / "set",
        "--mixture",
        "-n",
        2,
        "-i",
        "synth:5",
        "--jobs",
        1,
        "--banks",
        tmp_path / "banks",
    )
    answer = json.loads(run(*arguments, "--json").stdout)
    assert answer["rows"] == {"clip": 2, "song-own": 0, "song-midi": 0} and answer["kept"] == 0
    again = run(*arguments)
    assert again.stdout == f"rows: 2 clip; 1 parts in {tmp_path / 'set'}\n"
    assert "--without needs --mixture" in run("render", tmp_path / "out", "--without", without, code=2).output
    assert "--variants does not go with --mixture" in run(*arguments, "--variants", 2, code=2).output


def test_render_passes_its_options_on(tmp_path, monkeypatch):
    configs = []

    def render(config, bank_progress, progress):
        configs.append(config)
        return {"path": str(config.out), "n": config.n, "recordings": 1, "instruments": ["a"]}

    monkeypatch.setattr("triadbench.core.data.render_set.render_dataset", render)
    run("render", tmp_path / "a", "-n", 3)
    run("render", tmp_path / "b", "-i", "synth:5", "--voicing", "open", "--octave", 2, "--pack", "--jobs", 1)
    run("render", tmp_path / "c", "--training-instruments", "--voicing", "mixed", "--style", "wild", "--seed", 4)
    default, own, training = configs
    assert default.sources == [f"synth:{seed}" for seed in range(8)] and default.voicings == ("root",)
    assert default.n == 3 and default.octaves == (3, 4, 5) and default.weights is None and not default.pack
    assert own.sources == ["synth:5"] and own.voicings == ("open",) and own.octaves == (2,)
    assert own.pack and own.workers == 1
    assert training.sources == [entry.source for entry in TRAINING] and training.voicings is None
    assert training.weights == [entry.weight for entry in TRAINING] and (training.style, training.seed) == ("wild", 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--training-instruments", "-i", "synth:1"), "leave out --instrument"),
        (("--voicing", "mixed", "--voicing", "root"), "leave out the others"),
        (("--style", "loud"), "'loud' is not one of"),
    ],
)
def test_contradictions_are_wrong_usage(arguments, message, tmp_path):
    assert message in run("render", tmp_path / "out", *arguments, code=2).output


def test_fetch_says_where_the_set_is(tmp_path, monkeypatch):
    def fetch(out, **options):
        assert options["retries"] == 2 and options["unpack"] is False
        return {"archive": str(out / "a.zip"), "folder": None, "size": 1, "checksum": "md5:0"}

    monkeypatch.setattr(source, "fetch", fetch)
    assert run("fetch", tmp_path, "--no-unpack", "--retries", 2).stdout.strip() == str(tmp_path / "a.zip")


def test_a_missing_source_is_an_error(tmp_path):
    result = CliRunner().invoke(commands.data, ["pack", str(tmp_path / "none"), str(tmp_path / "out")])
    assert (
        result.exit_code == 1 and isinstance(result.exception, UserError) and "does not exist" in str(result.exception)
    )
