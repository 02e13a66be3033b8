"""The promise: `export` writes what is verified and nothing else, says so in a table, and says in one line what is wrong.

Torch's ONNX exporter takes half a minute: here the shipped network stands for what it would give. One test, marked
slow, does all of it.
"""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import cli
from core import checkpoint
from core.predict import SHIPPED
from export import exporter, onnx_model
from export.verify import VerificationError
from tests.core.toys import save_original
from tests.export.exports import ONNX_FILES, info_of, network, sine_clips

ALL_FILES = {*ONNX_FILES, "chordnet.torchscript.pt"}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Clips of sines, the shipped network, and two timed calls."""
    from bench import export_table

    monkeypatch.setattr(exporter.verification, "verification_clips", lambda *_: sine_clips())
    monkeypatch.setattr(exporter.verification, "calibration_clips", lambda *_: sine_clips())
    monkeypatch.setattr(onnx_model, "network_model", lambda *_: network())
    monkeypatch.setattr(export_table, "_ROUNDS", {1: 1, 32: 1})


def run(*arguments, code=0):
    done = CliRunner().invoke(cli.main, ["export", *map(str, arguments)])
    assert done.exit_code == code, f"{done.output}\n{done.exception!r}"
    assert "Traceback" not in done.output
    return done


def assert_one_line(done, *words):
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("export:")]
    assert line.startswith("Error: ") and all(word in line for word in words), done.stderr


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


@pytest.fixture
def old(tmp_path):
    """A folder that holds files of before."""
    folder = tmp_path / "out"
    folder.mkdir()
    for name in ("chordnet.onnx", "chordnet.mel.onnx", "chordnet.torchscript.pt", "mine.txt"):
        (folder / name).write_bytes(b"of before")
    return folder


# ---- what it writes


def test_every_format_and_precision_verified_and_in_the_table(tmp_path):
    done = run("--out", tmp_path / "out")
    assert set(files(tmp_path / "out")) == ALL_FILES
    header, _, *lines = done.stdout.splitlines()
    for word in ("file", "format", "precision", "status", "network MB", "type %", "worst difference", "ms", "clips/s"):
        assert word in header
    assert [line.split()[0] for line in lines] == [SHIPPED.name, *exporter_order()]
    assert "reference" in lines[0] and all("verified" in line for line in lines[1:])


def exporter_order():
    return [
        "chordnet.onnx", "chordnet.batch.onnx", "chordnet.mel.onnx", "chordnet.batch.fp16.onnx", "chordnet.int8.onnx",
        "chordnet.mel.int8.onnx", "chordnet.torchscript.pt",
    ]  # fmt: skip


def test_json_holds_the_same_and_the_file_its_own_accuracies(tmp_path):
    done = run("--onnx", "--precision", "fp32", "--out", tmp_path / "out", "--json")
    result = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1 and result["out"] == str(tmp_path / "out")
    reference, *rows = result["files"]
    assert reference["status"] == "reference" and len(rows) == 3
    for row in rows:
        path = Path(row["path"])
        assert row["bytes"] == path.stat().st_size >= row["network_bytes"] > 5e5
        assert row["status"] == "verified" and row["agreement"] == 1.0 and 0 < row["worst_difference"] < 1e-5
        assert row["ms"] > 0 and row["clips_per_s"] > 0 and row["type_accuracy"] == reference["type_accuracy"]
        import onnx

        accuracies = info_of(onnx.load(path)).accuracies
        assert accuracies["n"] == 48 and accuracies["type_accuracy"] == row["type_accuracy"]


@pytest.mark.parametrize(
    ("arguments", "written"),
    [
        (("--torchscript",), {"chordnet.torchscript.pt"}),
        (("--onnx", "--precision", "int8"), {"chordnet.int8.onnx", "chordnet.mel.int8.onnx"}),
        (("--precision", "fp16"), {"chordnet.batch.fp16.onnx"}),
    ],
)
def test_only_what_was_asked_for(arguments, written, tmp_path):
    run(*arguments, "--out", tmp_path / "out")
    assert set(files(tmp_path / "out")) == written


@pytest.mark.parametrize("task", ["type", "root"])
def test_the_original_network(task, tmp_path):
    model = save_original(tmp_path / f"vgg-{task}.pt", task)
    done = run("--torchscript", "--model", model, "--out", tmp_path / "out")
    assert set(files(tmp_path / "out")) == {f"vgg-{task}.torchscript.pt"} and "—" in done.stdout.splitlines()[3]


# ---- what does not hold


def test_a_precision_that_does_not_hold_leaves_no_file(tmp_path, monkeypatch):
    def deaf(network, mels):
        for each in network.graph.initializer:
            if each.name == "model.circle.4.weight":
                each.raw_data = bytes(len(each.raw_data))
        return network

    monkeypatch.setattr("export.precision.to_int8", lambda network, mels: deaf(copy_of(network), mels))
    done = run("--onnx", "--out", tmp_path / "out")  # int8 was not asked for by name
    assert {name for name in files(tmp_path / "out")} == {name for name in ONNX_FILES if "int8" not in name}
    assert done.stdout.count("chordnet.int8.onnx: refused: ") == 1
    done = run("--onnx", "--precision", "int8,fp16", "--out", tmp_path / "again", code=1)
    assert set(files(tmp_path / "again")) == {"chordnet.batch.fp16.onnx"}
    assert_one_line(done, "chordnet.int8.onnx was not written, refused: ", "of the labels are fp32's")


def copy_of(model):
    copy = type(model)()
    copy.CopyFrom(model)
    return copy


def test_an_export_that_differs_fails_and_changes_no_file(old, monkeypatch):
    def wrong(*_):
        model = network()
        for each in model.graph.initializer:
            if each.name == "model.circle.4.bias":
                each.raw_data = np.arange(4, dtype=np.float32).tobytes()
        return model

    monkeypatch.setattr(onnx_model, "network_model", wrong)
    before = files(old)
    done = run("--onnx", "--precision", "fp32", "--out", old, code=1)
    assert_one_line(done, "chordnet.onnx was not written, failed: ", "a probability differs by")
    assert "failed" in done.stdout and files(old) == before


# ---- bad input


def test_wrong_words_are_usage_errors_and_write_nothing(tmp_path):
    for arguments, words in (
        (("--precision", "fp8"), "'fp8' is no precision; choose from fp32, fp16, int8"),
        (("--precision", ""), "no precision"),
        (("--torchscript", "--precision", "fp16"), "TorchScript files are fp32"),
        (("--format", "coreml"), "No such option"),
    ):
        assert words in run(*arguments, "--out", tmp_path / "out", code=2).stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["missing", "cut", "text", "foreign", "onnx"])
def test_a_model_file_that_is_none(kind, old, tmp_path):
    model = tmp_path / "model.safetensors"
    if kind == "cut":
        model.write_bytes(SHIPPED.read_bytes()[:100_000])
    elif kind == "text":
        model.write_text("no model")
    elif kind == "foreign":
        from safetensors.numpy import save_file

        save_file({"weight": np.zeros(3, np.float32)}, model)
    elif kind == "onnx":
        model = old / "chordnet.onnx"
    before = files(old)
    assert_one_line(run("--model", model, "--out", old, code=1), str(model.name))
    assert files(old) == before


def test_a_full_disk_changes_no_file(old, monkeypatch):
    def full(self, content):
        with open(self, "wb") as file:
            file.write(content[:1000])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = files(old)
    monkeypatch.setattr(Path, "write_bytes", full)
    done = run("--torchscript", "--out", old, code=1)
    assert_one_line(done, "chordnet.torchscript.pt", "No space left on device")
    assert files(old) == before


def test_a_full_disk_for_the_clips_is_one_line(old, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = files(old)
    monkeypatch.setattr(np, "save", full)
    assert_one_line(run("--torchscript", "--out", old, code=1), "No space left on device")
    assert files(old) == before


@pytest.mark.parametrize("kind", ["a file", "not writable"])
def test_a_folder_that_takes_no_file_is_said_before_the_work(kind, tmp_path, monkeypatch):
    out = tmp_path / "out"
    if kind == "a file":
        out.write_text("in the way")
    else:

        def refuse(*_, **__):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        monkeypatch.setattr(exporter.tempfile, "TemporaryFile", refuse)
    monkeypatch.setattr(exporter.verification, "verification_clips", lambda *_: pytest.fail("work was begun"))
    assert_one_line(run("--out", out, code=1), str(out), "choose another --out")
    assert kind == "not writable" or out.read_text() == "in the way"


def test_nothing_is_left_behind_when_the_worker_dies(old, monkeypatch, tmp_path):
    worker = tmp_path / "worker.py"
    worker.write_text("raise MemoryError('no room')")
    monkeypatch.setattr("export.verify._WORKER", worker)
    before = files(old)
    assert_one_line(run("--torchscript", "--out", old, code=1), "does not run (MemoryError: no room)")
    assert files(old) == before


def test_formats_and_precisions_are_checked_for_programs_too():
    for arguments in ((["tflite"], ["fp32"]), (["onnx"], ["fp8"]), ([], ["fp32"]), (["onnx"], [])):
        with pytest.raises(exporter.UserError, match="choose from"):
            exporter.check(*arguments)
    assert issubclass(VerificationError, exporter.UserError)


@pytest.mark.slow
def test_all_of_it(tmp_path, monkeypatch):
    monkeypatch.undo()
    done = run("--out", tmp_path / "out", "--banks", tmp_path / "banks")
    assert set(files(tmp_path / "out")) == ALL_FILES and done.stdout.count("verified") == 7
    assert checkpoint.load(SHIPPED).task == "both"
