"""The commands data render, train and evaluate from end to end: answers, exit codes, one line for a mistake."""

import json

import pytest
import soundfile

from tests.commands import assert_one_line, run, run_json
from tests.core.toys import all_names, chord, save_pair, save_template, whole_note_folder, write_pack, write_set
from tests.odd_files import BAD, C_MAJOR, ODD, nan, truncated
from triadbench.core.data import render_set as renderset
from triadbench.core.data.dataset import open_dataset
from triadbench.core.files import only_one
from triadbench.core.models.chords import ClipName
from triadbench.core.models.targets import label_of
from triadbench.core.training import train as training


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_template(tmp_path_factory.mktemp("model") / "template.safetensors")


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


def test_evaluate_two_networks_of_the_original(tmp_path):
    """As one model; alone, each is measured on what it answers for."""
    types, roots = save_pair(tmp_path / "pair")
    folder = write_set(tmp_path / "set", all_names()[:8])
    result, _ = run_json("evaluate", "--data", folder, "--model", types, "--model", roots)
    assert result["n"] == 8 and result["type_accuracy"] == result["root_accuracy"] == result["both_accuracy"] == 1
    alone, _ = run_json("evaluate", "--data", folder, "--model", roots)
    assert alone["root_accuracy"] == 1 and alone["type_accuracy"] is None and alone["both_accuracy"] is None
    done = run("evaluate", "--data", folder, "--model", types, "--model", types, code=1)
    assert_one_line(done, "two models are joined where one answers for the type and one for the root")
    for path in sorted(folder.iterdir()):
        path.with_suffix(".lab").write_text(f"0 4 {label_of(ClipName.parse(path.stem))}\n")
    pair, _ = run_json("evaluate", "--data", folder, "--model", types, "--model", roots)
    assert pair["model"] == "type.pth + root.safetensors" and pair["triads"] == 1
    assert_one_line(run("evaluate", "--data", folder, "--model", roots, code=1), "answers for the root only", "--model")


def test_evaluate_table(model, tmp_path):
    names = [*all_names()[:4], ClipName(0, 3, 4, "f", voicing="inv1")]
    done = run("evaluate", "--data", write_set(tmp_path / "set", names), "--model", model)
    rows = [line.split("  ") for line in done.stdout.splitlines()]
    heads = [row[0] for row in rows[2:]]
    assert heads == [
        "all",
        "octave 4",
        "octave 5",
        "volume f",
        "volume m",
        "voicing inv1",
        "voicing root",
        "chroma template, all",
    ]
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


def test_evaluate_by_labels(model, tmp_path):
    folder = tmp_path / "strums"
    folder.mkdir()
    for name, label in (("one", "C:maj"), ("two", "C:maj7"), ("three", None)):
        soundfile.write(folder / f"{name}.wav", chord(*C_MAJOR), 16_000)
        if label:
            (folder / f"{name}.lab").write_text(f"0 4 {label}")
    result, done = run_json("evaluate", "--data", folder, "--model", model, "--out", tmp_path / "r.svg")
    assert (result["set"], result["model"], result["n"]) == ("strums", "template.safetensors", 2)
    assert result["triads"] == 1 and result["names"] == 0.5
    assert result["skipped"][0]["file"] == "three.wav" and result["calibration"]["names"]["ece"] is not None
    assert done.stderr == f"Reliability: {tmp_path / 'r.svg'}\n"
    assert "ends in .svg" in run("evaluate", "--data", folder, "--out", tmp_path / "r.html", code=2).stderr
    text = run("evaluate", "--data", folder, "--model", model).stdout
    assert "template.safetensors  100.0" in text and "maj7" in text and "calibration error, points: triads " in text


def test_evaluate_asks_peers_of_labelled_sounds_alone(model, tmp_path):
    folder = write_set(tmp_path / "set", all_names()[:2])
    done = run("evaluate", "--data", folder, "--model", model, "--peer", "chordino=python", code=1)
    assert_one_line(done, "--peer", ".lab")


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
    assert answer["results"][0]["label"] is not None  # after an epoch it may be none of the triads


def test_two_trainings_into_one_folder(pack, tmp_path):
    pytest.importorskip("fcntl")
    with only_one(tmp_path / "out"):
        done = run("train", pack, tmp_path / "out", code=1)
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["lock"]
    assert_one_line(done, "another run is at work here; wait for it or choose another OUT")
    assert not (tmp_path / "out").exists()


def test_the_originals_recipe_says_its_pipeline_and_keeps_training_accuracy(pack, tmp_path):
    given = ("train", pack, tmp_path / "out", "--recipe", "original", "--task", "type", "--epochs", 1)
    result, done = run_json(*given, "--switch", "mel=batch")
    assert "pipeline: fast, mel=batch (--pipeline original is the study's own)" in done.stderr
    assert result["type"]["config"]["pipeline"] == "fast" and result["type"]["pipeline"]["mel"] == "batch"
    assert 0 <= result["type"]["curves"][0]["train_type_accuracy"] <= 1
    assert "pipeline:" not in run("train", pack, tmp_path / "ours", "--epochs", 1).stderr


def test_train_passes_its_options_on(pack, monkeypatch, tmp_path):
    calls = []

    def fake(settings, task, resume, progress, train_one):
        calls.append((settings, task, resume))
        return {task: {"best_epoch": 1, "seconds": 0.0, "curves": [{"test_loss": 1.0, "test_type_accuracy": 0.5}]}}

    monkeypatch.setattr(training, "train_tasks", fake)
    run(
        "train",
        pack,
        tmp_path / "out",
        "--recipe",
        "original",
        "--task",
        "root",
        "--epochs",
        3,
        "--batch-size",
        16,
        "--learning-rate",
        0.01,
        "--split",
        "random",
        "--test-fraction",
        0.2,
        "--seed",
        4,
        "--split-seed",
        5,
        "--device",
        "cuda",
        "--resume",
    )
    run("train", pack, tmp_path / "out")
    assert calls[0] == (
        {
            "data": pack,
            "out": tmp_path / "out",
            "recipe": "original",
            "epochs": 3,
            "batch_size": 16,
            "learning_rate": 0.01,
            "split": "random",
            "test_fraction": 0.2,
            "seed": 4,
            "split_seed": 5,
            "device": "cuda",
            "pipeline": None,
            "switches": (),
        },
        "root",
        True,
    )
    settings, task, resume = calls[1]
    assert (task, resume, settings["recipe"], settings["seed"], settings["split_seed"]) == (
        "both",
        False,
        "ours",
        None,
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
    result, _ = run_json(
        "data",
        "render",
        tmp_path / "pack",
        "-n",
        30,
        "--style",
        "room",
        "--voicing",
        "inv1",
        "--voicing",
        "open",
        "--octave",
        4,
        "--variants",
        3,
        "--seed",
        9,
        "--pack",
        "-i",
        instrument,
        "--banks",
        banks,
        "--jobs",
        1,
    )
    dataset = open_dataset(tmp_path / "pack")
    assert dataset.kind == "pack" and result["recordings"] == 10
    assert {clip.name.voicing for clip in dataset.clips} == {"inv1", "open"} and {
        clip.name.octave for clip in dataset.clips
    } == {4}
    meta = json.loads((tmp_path / "pack" / "meta.json").read_text())["source"]["rendered"]
    assert (meta["seed"], meta["variants"], meta["style"]) == (9, 3, "room")


def configs(monkeypatch, *arguments):
    seen = []
    monkeypatch.setattr(
        renderset,
        "render_dataset",
        lambda config, **_: seen.append(config) or {"n": 1, "recordings": 1, "instruments": [], "path": "x"},
    )
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
