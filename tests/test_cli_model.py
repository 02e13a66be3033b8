"""The commands data render, train, evaluate and infer from end to end: answers, exit codes, one line for a mistake."""

import csv
import io
import json
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

import cli
from core import predict, renderset, training_set
from core.dataset import open_dataset
from core.labels import ClipName
from tests.core.toys import all_names, chord, save_original, save_template, whole_note_folder, write_pack, write_set

ROOT = Path(cli.__file__).parent
C_MAJOR, A_MINOR = (4, 0), (1, 1)


def run(*arguments, code=0):
    done = CliRunner().invoke(cli.main, [str(argument) for argument in arguments])
    assert done.exit_code == code, f"{done.output}\n{done.exception!r}"
    assert "Traceback" not in done.output
    return done


def run_json(*arguments, code=0):
    done = run(*arguments, "--json", code=code)
    assert done.stdout.count("\n") == 1  # one object on a line, and nothing else
    return json.loads(done.stdout), done


def assert_one_line(done, *words):
    assert done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1, done.stderr
    assert all(word in done.stderr for word in words), done.stderr


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_template(tmp_path_factory.mktemp("model") / "template.safetensors")


@pytest.fixture
def sounds(tmp_path):
    folder = tmp_path / "sounds"
    folder.mkdir()
    soundfile.write(folder / "c.wav", chord(*C_MAJOR), 16_000)
    soundfile.write(folder / "deep, am.flac", chord(*A_MINOR, rate=44_100), 44_100)
    soundfile.write(folder / "nothing.wav", np.zeros(16_000), 16_000)
    return folder


# --- infer -----------------------------------------------------------------------------------------------------------


def test_infer_table(model, sounds):
    lines = run("infer", "--model", model, sounds).stdout.splitlines()
    assert lines[0].split() == ["file", "chord", "type", "root", "agree", "seconds", "or"] and len(lines) == 5
    cells = [line.replace(str(sounds) + "/", "").replace("deep, ", "").split() for line in lines[2:]]
    assert [row[:2] for row in cells] == [["c.wav", "C"], ["am.flac", "Am"], ["nothing.wav", "N"]]
    assert "100.0 %" in lines[2] and cells[2][2:6] == ["—", "—", "—", "1.00"]


def test_infer_json(model, sounds):
    result, done = run_json("infer", "--model", model, sounds)
    assert done.stderr == ""
    assert (result["n"], result["failed"], result["model"]) == (3, 0, str(model))
    assert [each["chord"] for each in result["results"]] == ["C", "Am", "N"]
    assert result["results"][2]["confidence"] is None


def test_infer_csv(model, sounds):
    (sounds / "bad.wav").write_text("no sound")
    done = run("infer", "--model", model, "--csv", sounds, code=1)
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert list(rows[0]) == ["file", "chord", "type", "root", "confidence", "type_confidence", "root_confidence", "agreement",
                             "duration_s", "windows", "error"]  # fmt: skip
    by_name = {Path(row["file"]).name: row for row in rows}
    assert by_name["deep, am.flac"]["chord"] == "Am" and float(by_name["c.wav"]["confidence"]) > 0.9
    assert by_name["nothing.wav"]["chord"] == "N" and by_name["nothing.wav"]["confidence"] == ""
    assert by_name["bad.wav"]["chord"] == "" and "not a sound file" in by_name["bad.wav"]["error"]


def test_infer_csv_or_json(model, sounds):
    assert "choose --csv or --json" in run("infer", "--model", model, sounds, "--csv", "--json", code=2).stderr


def test_infer_without_the_shipped_model(sounds, monkeypatch, tmp_path):
    monkeypatch.setattr(predict, "SHIPPED", tmp_path / "chordnet.safetensors")
    assert_one_line(run("infer", sounds, code=1), "the shipped model chordnet.safetensors is not in pretrained/")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "missing.safetensors"], ["missing.safetensors: no such model file"]),
        (["--device", "graphics"], ["unknown device 'graphics'; choose cpu or cuda"]),
    ],
)
def test_infer_with_bad_options(model, sounds, arguments, words):
    assert_one_line(run("infer", "--model", model, *arguments, sounds, code=1), *words)


def test_infer_with_a_model_of_one_task(sounds, tmp_path):
    path = save_original(tmp_path / "m.safetensors", "type")
    assert_one_line(run("infer", "--model", path, sounds, code=1), "answers for the type only")


def test_infer_as_a_program(model, sounds):
    """Through a real process: stdout carries the object alone, and the exit code is seen by the shell."""
    command = [sys.executable, str(ROOT / "cli.py"), "infer", "--json", "--model", str(model)]
    done = subprocess.run([*command, "c.wav", "missing.wav"], cwd=sounds, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and json.loads(done.stdout)["failed"] == 1
    assert json.loads(done.stdout)["results"][0]["chord"] == "C"
    assert done.stderr == "failed: missing.wav does not exist\nError: 1 of 2 files failed\n"


# --- bad input -------------------------------------------------------------------------------------------------------


def pcm(path, sound, rate=16_000, width=2, channels=1):
    """A wav by the standard library, which knows no more than PCM."""
    scaled = np.rint(np.repeat(sound[:, None], channels, axis=1) * (2 ** (8 * width - 1) - 1)).astype("<i8")
    data = (scaled + 128).astype("u1").tobytes() if width == 1 else scaled.astype("<i4").tobytes()
    if width == 3:
        data = b"".join(data[i : i + 3] for i in range(0, len(data), 4))
    elif width == 2:
        data = scaled.astype("<i2").tobytes()
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", ""))
        file.writeframes(data)


def truncated(path):
    pcm(path, chord(*C_MAJOR))
    path.write_bytes(path.read_bytes()[:50_000])


def nan(path):
    sound = chord(*C_MAJOR)
    sound[30_000] = np.nan
    soundfile.write(path, sound, 16_000, subtype="FLOAT")


BAD = {
    "empty": (lambda path: path.write_bytes(b""), "the file is empty (0 bytes)"),
    "truncated": (truncated, "truncated"),
    "zero length": (lambda path: soundfile.write(path, np.zeros(0), 16_000), "zero length"),
    "nan": (nan, "sample 30000 is nan"),
    "text": (lambda path: path.write_text("la la la\n" * 100), "not a sound file that can be read"),
    "noise": (lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)), "not a sound file that can be read"),
    "missing": (lambda path: None, "does not exist"),
    "empty folder": (lambda path: path.mkdir(), "no audio file in this folder"),
    "folder of other files": (
        lambda path: (path.mkdir(), (path / "x.txt").write_text("x")),
        "no audio file in this folder",
    ),
}
ODD = {
    "8 bit": lambda path: pcm(path, chord(*C_MAJOR), width=1),
    "24 bit": lambda path: pcm(path, chord(*C_MAJOR), width=3),
    "32 bit": lambda path: pcm(path, chord(*C_MAJOR), width=4),
    "float": lambda path: soundfile.write(path, chord(*C_MAJOR), 16_000, subtype="FLOAT"),
    "double": lambda path: soundfile.write(path, chord(*C_MAJOR), 16_000, subtype="DOUBLE"),
    "8 channels": lambda path: pcm(path, chord(*C_MAJOR), channels=8),
    "1 kHz": lambda path: pcm(path, chord(*C_MAJOR, octave=3, rate=1_000), 1_000),
    "192 kHz": lambda path: pcm(path, chord(*C_MAJOR, rate=192_000), 192_000),
    "70 s": lambda path: pcm(path, np.tile(chord(*C_MAJOR, rate=8_000), 18)[: 70 * 8_000], 8_000),
    "0.4 s": lambda path: pcm(path, chord(*C_MAJOR)[:6_400]),
}
SILENT = {
    "zeros": np.zeros(64_000), "offset": np.full(50_000, 0.3), "last bit": np.resize([0, 1 / 32768, 0, -1 / 32768], 64_000),
    "one sample": np.array([0.4]),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_infer_says_in_a_line_what_is_wrong_with_a_file(model, tmp_path, kind):
    make, words = BAD[kind]
    make(tmp_path / "x.wav")
    done = run("infer", "--model", model, tmp_path / "x.wav", code=1)
    lines = done.stderr.splitlines()
    assert done.stdout == "" and len(lines) == 2 and lines[1] == "Error: 1 of 1 files failed"
    assert lines[0].startswith(f"failed: {tmp_path / 'x.wav'}") and words in lines[0]


def test_infer_goes_on_after_all_of_them(model, tmp_path):
    for kind, (make, _) in BAD.items():
        make(tmp_path / f"{kind}.wav")
    for name in ("a.wav", "z.wav"):
        soundfile.write(tmp_path / name, chord(*C_MAJOR), 16_000)
    files = [tmp_path / "a.wav", *(tmp_path / f"{kind}.wav" for kind in BAD), tmp_path / "z.wav"]
    result, done = run_json("infer", "--model", model, *files, code=1)
    assert (result["n"], result["failed"]) == (len(BAD) + 2, len(BAD))
    assert [result["results"][k]["chord"] for k in (0, -1)] == ["C", "C"]
    for answer, (_, words) in zip(result["results"][1:-1], BAD.values(), strict=True):
        assert words in answer["error"] and "\n" not in answer["error"]
    assert done.stderr.count("failed: ") == len(BAD)


@pytest.mark.parametrize("kind", ODD)
def test_infer_hears_odd_files(model, tmp_path, kind):
    ODD[kind](tmp_path / "x.wav")
    result, _ = run_json("infer", "--model", model, tmp_path / "x.wav")
    assert result["results"][0]["chord"] == "C"


@pytest.mark.parametrize("kind", SILENT)
def test_infer_hears_no_chord_in_silence(model, tmp_path, kind):
    pcm(tmp_path / "x.wav", SILENT[kind])
    result, _ = run_json("infer", "--model", model, tmp_path / "x.wav")
    assert result["results"][0]["chord"] == "N" and result["results"][0]["type"] is None


# --- evaluate --------------------------------------------------------------------------------------------------------


def test_evaluate(model, tmp_path):
    folder = write_set(tmp_path / "set", all_names()[:8])
    (folder / "README.txt").write_text("x")
    result, done = run_json("evaluate", "--data", folder, "--model", model, "--out", tmp_path / "c.html")
    assert result["n"] == 8 and result["type_accuracy"] == result["root_accuracy"] == result["both_accuracy"] == 1
    assert (
        result["skipped"] == [{"file": "README.txt", "reason": result["skipped"][0]["reason"]}] and not result["failed"]
    )
    assert "template.safetensors on set (8 clips)" in (tmp_path / "c.html").read_text()
    assert done.stderr == f"Confusion matrices: {tmp_path / 'c.html'}\n"


def test_evaluate_table(model, tmp_path):
    names = [*all_names()[:4], ClipName(0, 3, 4, "f", voicing="inv1")]
    done = run("evaluate", "--data", write_set(tmp_path / "set", names), "--model", model)
    rows = [line.split("  ") for line in done.stdout.splitlines()]
    heads = [row[0] for row in rows[2:]]
    assert heads == ["all", "octave 4", "octave 5", "volume f", "volume m", "voicing inv1", "voicing root",
                     "chroma template, all"]  # fmt: skip
    assert rows[2][-1].strip() == "100.00" and rows[3][-1].strip() == "—"


def test_evaluate_lists_what_it_cannot_read_and_fails_in_the_end(model, tmp_path):
    folder = write_set(tmp_path / "set", all_names()[:3])
    files = sorted(folder.iterdir())
    nan(files[0])
    truncated(files[1])
    result, done = run_json("evaluate", "--data", folder, "--model", model, code=1)
    assert result["n"] == 1 and {entry["file"] for entry in result["failed"]} == {files[0].name, files[1].name}
    lines = done.stderr.splitlines()
    assert len(lines) == 3 and lines[-1] == "Error: 2 clips could not be read"
    assert sum(line.startswith("failed: ") and ("nan" in line or "truncated" in line) for line in lines) == 2


@pytest.mark.parametrize("kind", BAD)
def test_evaluate_a_set_of_one_bad_clip(model, tmp_path, kind):
    (tmp_path / "set").mkdir()
    path = tmp_path / "set" / "piano_5_Cn_j_m_00.wav"
    BAD[kind][0](path)
    assert_one_line(run("evaluate", "--data", path.parent, "--model", model, code=1), str(path.parent))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "no clip found"),
        (lambda path: path.write_text("x"), "not a zip that can be read"),
    ],
    ids=["missing", "empty folder", "a text"],
)
def test_evaluate_no_set(model, tmp_path, make, words):
    make(tmp_path / "set")
    assert_one_line(run("evaluate", "--data", tmp_path / "set", "--model", model, code=1), words)


def test_evaluate_hears_odd_files(model, tmp_path):
    (tmp_path / "set").mkdir()
    for number, make in enumerate(ODD.values()):
        make(tmp_path / "set" / f"piano_5_Cn_j_m_{number:02}.wav")
    result, _ = run_json("evaluate", "--data", tmp_path / "set", "--model", model)
    assert result["n"] == len(ODD) and result["both_accuracy"] == 1


def test_evaluate_needs_data(model):
    assert "--data" in run("evaluate", "--model", model, code=2).stderr


# --- train -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return write_pack(tmp_path_factory.mktemp("train") / "pack", 24)


def test_train_and_use_the_model(pack, tmp_path):
    out = tmp_path / "run"
    options = ["--epochs", 1, "--batch-size", 8, "--test-fraction", 0.25]
    done = run("train", pack, out, *options)
    assert "task  best epoch  test accuracy" in done.stdout and f"Checkpoints and curves in {out}" in done.stdout
    assert "epoch 1 of 1: train loss" in done.stderr
    assert_one_line_error = run("train", pack, out, *options, code=1).stderr.splitlines()[-1]
    assert "holds a training already; add --resume" in assert_one_line_error
    result, _ = run_json("train", pack, out, *options, "--resume")
    assert list(result) == ["both"] and result["both"]["best_epoch"] == 1
    soundfile.write(tmp_path / "c.wav", chord(*C_MAJOR), 16_000)
    answer, _ = run_json("infer", "--model", out / "best.safetensors", tmp_path / "c.wav")
    assert answer["results"][0]["root"] is not None


def test_train_passes_its_options_on(pack, monkeypatch, tmp_path):
    calls = []

    def fake(settings, task, resume, progress):
        calls.append((settings, task, resume))
        return {task: {"best_epoch": 1, "seconds": 0.0, "curves": [{"test_loss": 1.0, "test_type_accuracy": 0.5}]}}

    monkeypatch.setattr(training_set, "train_tasks", fake)
    run("train", pack, tmp_path / "out", "--recipe", "original", "--task", "root", "--epochs", 3, "--batch-size", 16,
        "--learning-rate", 0.01, "--split", "random", "--test-fraction", 0.2, "--seed", 4, "--split-seed", 5, "--device", "cuda",
        "--resume")  # fmt: skip
    run("train", pack, tmp_path / "out")
    assert calls[0] == ({"data": pack, "out": tmp_path / "out", "recipe": "original", "epochs": 3, "batch_size": 16,
                         "learning_rate": 0.01, "split": "random", "test_fraction": 0.2, "seed": 4, "split_seed": 5,
                         "device": "cuda"}, "root", True)  # fmt: skip
    settings, task, resume = calls[1]
    assert (task, resume, settings["recipe"], settings["seed"], settings["split_seed"]) == (
        "both",
        False,
        "ours",
        0,
        13,
    )
    assert all(settings[key] is None for key in ("epochs", "batch_size", "learning_rate", "split", "test_fraction"))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--recipe", "ours", "--task", "type"], 1, "recipe 'ours' trains the task both, not 'type'"),
        (["--device", "graphics"], 1, "unknown device 'graphics'"),
        (["--test-fraction", "0.999"], 1, "a side would be empty"),
        (["--epochs", "0"], 2, "epochs"),
        (["--learning-rate", "0"], 2, "learning-rate"),
        (["--recipe", "theirs"], 2, "recipe"),
    ],
)
def test_train_refuses(pack, tmp_path, arguments, code, words):
    done = run("train", pack, tmp_path / "out", "--split", "random", *arguments, code=code)
    assert words in done.stderr and not (tmp_path / "out").exists()


# --- data render -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def instrument(tmp_path_factory):
    return f"notes:{whole_note_folder(tmp_path_factory.mktemp('cli') / 'sines')}"


@pytest.fixture(scope="module")
def banks(tmp_path_factory):
    return tmp_path_factory.mktemp("banks")


def test_render_and_evaluate(instrument, banks, model, tmp_path):
    """The whole way without any download: notes, a set, a measurement."""
    common = ["-i", instrument, "--banks", banks, "--jobs", 1]
    result, _ = run_json("data", "render", tmp_path / "set", "-n", 24, "--octave", 5, *common)
    assert (result["n"], result["recordings"], result["instruments"]) == (24, 24, ["sines"])
    measured, _ = run_json("evaluate", "--data", tmp_path / "set", "--model", model)
    assert measured["n"] == 24 and measured["both_accuracy"] > 0.9 and measured["baseline"]["both_accuracy"] > 0.9
    done = run("data", "render", tmp_path / "set", "-n", 24, *common, code=1)
    assert "exists already and is not empty" in done.stderr.splitlines()[-1]


def test_render_options(instrument, banks, tmp_path):
    result, _ = run_json("data", "render", tmp_path / "pack", "-n", 30, "--style", "room", "--voicing", "inv1", "--voicing", "open",
                         "--octave", 4, "--variants", 3, "--seed", 9, "--pack", "-i", instrument, "--banks", banks, "--jobs", 1)  # fmt: skip
    dataset = open_dataset(tmp_path / "pack")
    assert dataset.kind == "pack" and result["recordings"] == 10
    assert {clip.name.voicing for clip in dataset.clips} == {"inv1", "open"} and {
        clip.name.octave for clip in dataset.clips
    } == {4}
    meta = json.loads((tmp_path / "pack" / "meta.json").read_text())["source"]["rendered"]
    assert (meta["seed"], meta["variants"], meta["style"]) == (9, 3, "room")


def configs(monkeypatch, *arguments):
    seen = []
    monkeypatch.setattr(renderset, "render_dataset", lambda config, **_: seen.append(config) or {
        "n": 1, "recordings": 1, "instruments": [], "path": "x"})  # fmt: skip
    run("data", "render", *arguments)
    return seen[0]


def test_render_defaults(monkeypatch):
    config = configs(monkeypatch, "out")
    assert config.sources == [f"synth:{seed}" for seed in range(8)] and config.weights is None
    assert (config.n, config.style, config.voicings, config.octaves, config.variants) == (
        4320,
        "clean",
        ("root",),
        (3, 4, 5),
        1,
    )


def test_render_training_instruments(monkeypatch):
    config = configs(monkeypatch, "out", "--training-instruments", "--voicing", "mixed")
    assert len(config.sources) == len(config.weights) > 48 and config.voicings is None


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--training-instruments", "-i", "synth:1"], 2, "--training-instruments is a list of its own"),
        (["--voicing", "mixed", "--voicing", "root"], 2, "--voicing mixed draws all voicings"),
        (["--style", "loud"], 2, "loud"),
        (["-n", "0"], 2, "--clips"),
        (["--octave", "9"], 2, "--octave"),
        (["-i", "tape:1"], 1, "note source 'tape:1': expected synth:SEED, font:FILE:PROGRAM or notes:FOLDER"),
        (["-i", "notes:/nowhere"], 1, "no such folder"),
        (["-i", "font:nowhere.sf2:0"], 1, "SoundFont nowhere.sf2 not found"),
    ],
)
def test_render_refuses(tmp_path, arguments, code, words):
    done = run("data", "render", tmp_path / "out", "--banks", tmp_path / "banks", *arguments, code=code)
    assert words in done.stderr.splitlines()[-1] and not (tmp_path / "out").exists()
