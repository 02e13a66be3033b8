"""The promise: `export` writes what is verified and nothing else, says so in a table, and says in one line what is wrong.

Torch's ONNX exporter takes half a minute: here the shipped network stands for what it would give. One test, marked
slow, does all of it.
"""

import errno
import json
import os
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests import commands
from tests.core.toys import save_original
from tests.export.exports import ONNX_FILES, bare_network, info_of, network, sine_clips
from triadbench.core.files import file_digest
from triadbench.core.models import checkpoint
from triadbench.core.models.predictor import SHIPPED
from triadbench.export.commands import export as command
from triadbench.export.formats import exporter, onnx_model
from triadbench.export.formats.verify import VerificationError

ALL_FILES = {*ONNX_FILES, "chordnet.torchscript.pt"}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Clips of sines, the shipped network, and two timed calls."""
    monkeypatch.setattr(exporter.verify, "verification_clips", lambda *_: sine_clips())
    monkeypatch.setattr(exporter.verify, "calibration_clips", lambda *_: sine_clips())
    monkeypatch.setattr(onnx_model, "network_model", lambda *_: bare_network())
    monkeypatch.setattr(command, "_ROUNDS", {1: 1, 2: 1})  # of a batch of 2, not 32


def run(*arguments, code=0):
    return commands.run("export", *arguments, code=code)


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


def test_the_table_says_what_each_file_is_and_costs():
    rows = [
        exporter.Row("a.safetensors", "checkpoint", "fp32", "kernel", "reference", "a", 10_000, None, 1.0, 0.9876),
        exporter.Row("a.onnx", "onnx", "fp32", "each", "verified", "a", 2_900_000, 690_000, 1.0, 0.9876, 1.234e-6, 1.0),
        exporter.Row("a.int8.onnx", "onnx", "int8", "each", "refused: too far"),
    ]
    times = {"a.safetensors": {"ms": 5.0, "clips_per_s": 200.4}, "a.onnx": {"ms": 2.5, "clips_per_s": 400.0}}
    header, _, *lines = command.table_text(rows, times).splitlines()
    for word in ("file", "format", "precision", "status", "network MB", "type %", "worst difference", "ms", "clips/s"):
        assert word in header
    assert lines[0].split() == [
        "a.safetensors",
        "checkpoint",
        "fp32",
        "reference",
        "0.01",
        "—",
        "100.00",
        "98.76",
        "—",
        "5.00",
        "200",
    ]
    assert lines[1].split()[4:] == ["2.90", "0.69", "100.00", "98.76", "1.2e-06", "2.50", "400"]
    assert lines[2].split()[3:] == ["refused", *"———————"] and lines[3] == "a.int8.onnx: refused: too far"
    assert len(lines) == 4
    times["a.onnx"]["disturbed"] = True
    assert "Other work" in command.table_text(rows, times).splitlines()[-1]
    assert [row["status"] for row in command.table_json(rows, times, Path("x"))["files"]] == [r.status for r in rows]


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
        accuracies = info_of(onnx.load(path)).accuracies
        assert accuracies["n"] == 48 and accuracies["type_accuracy"] == row["type_accuracy"]


def test_only_what_was_asked_for(tmp_path):
    run("--precision", "fp16", "--out", tmp_path / "out")
    assert set(files(tmp_path / "out")) == {"chordnet.batch.fp16.onnx"}


def test_the_original_network(tmp_path):
    model = save_original(tmp_path / "vgg.safetensors", "type")
    done = run("--torchscript", "--model", model, "--out", tmp_path / "out")
    assert set(files(tmp_path / "out")) == {"vgg.torchscript.pt"}
    assert done.stdout.splitlines()[3].split()[7] == "—"  # no accuracy of a root that it does not name


# ---- what does not hold


def test_a_precision_that_does_not_hold_leaves_no_file(tmp_path, monkeypatch):
    def deaf(network, mels):
        for each in network.graph.initializer:
            if each.name == "model.at_root.weight":
                each.raw_data = bytes(len(each.raw_data))
        return network

    monkeypatch.setattr(
        "triadbench.export.formats.onnx_model.to_int8", lambda network, mels: deaf(copy_of(network), mels)
    )
    monkeypatch.setattr(exporter, "PRECISIONS", ("int8",))
    done = run("--onnx", "--out", tmp_path / "out")  # int8 was not asked for by name
    assert not files(tmp_path / "out") and done.stdout.count("chordnet.int8.onnx: refused: ") == 1
    done = run("--onnx", "--precision", "int8", "--out", tmp_path / "out", code=1)
    assert not files(tmp_path / "out")
    assert_one_line(done, "chordnet.int8.onnx was not written, refused: ", "of the labels are fp32's")


def copy_of(model):
    copy = type(model)()
    copy.CopyFrom(model)
    return copy


def test_an_export_that_differs_fails_and_changes_no_file(old, monkeypatch):
    def wrong(*_):
        model = network()
        for each in model.graph.initializer:
            if each.name == "model.at_root.bias":
                each.raw_data = np.arange(19, dtype=np.float32).tobytes()
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
        (("--precision", ""), "no precision was named; choose from fp32, fp16, int8"),
        (("--precision", "fp32,"), "'fp32,' has an empty name beside a comma; choose from fp32, fp16, int8"),
        (("--precision", " , "), "no precision was named"),
        (("--torchscript", "--precision", "fp16"), "TorchScript files are fp32"),
        (("--format", "coreml"), "No such option"),
    ):
        assert words in run(*arguments, "--out", tmp_path / "out", code=2).stderr
    assert not (tmp_path / "out").exists()


def test_rows_of_refused_files_have_every_key():
    rows = [
        exporter.Row("a.onnx", "onnx", "fp32", "each", "verified", "a", 2_900_000, 690_000, 1.0, 0.9876, 1.234e-6, 1.0),
        exporter.Row("a.int8.onnx", "onnx", "int8", "each", "refused: too far"),
    ]
    times = {"a.onnx": {"ms": 2.5, "clips_per_s": 400.0, "disturbed": False}}
    timed, refused = command.table_json(rows, times, Path("out"))["files"]
    assert timed["ms"] == 2.5 and timed.keys() == refused.keys()
    assert [refused[key] for key in ("ms", "clips_per_s", "disturbed")] == [None] * 3


def test_a_model_that_is_a_folder_or_torchscript(old):
    before = files(old)
    assert_one_line(run("--model", old, "--out", old, code=1), f"{old} is a folder, not a model file")
    with pytest.warns() as warned:  # or torch's own would be errors, and caught as such
        warnings.warn("one", UserWarning, stacklevel=1)
        done = run("--model", SHIPPED.parent / "chordnet.torchscript.pt", "--out", old, code=1)
    assert len(warned) == 1, [str(each.message) for each in warned]
    assert_one_line(done, "chordnet.torchscript.pt: a TorchScript file, not a checkpoint")
    assert files(old) == before


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


@pytest.mark.parametrize("where", ["numpy.save", "triadbench.export.formats.onnx_model.to_fp16"])
def test_a_full_disk_for_temporary_files_is_one_line(where, old, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = files(old)
    monkeypatch.setattr(where, full)
    assert_one_line(run("--precision", "fp16", "--out", old, code=1), "No space left on device")
    assert files(old) == before


@pytest.mark.parametrize("kind", ["a file", "not writable"])
def test_a_folder_that_takes_no_file_is_said_before_the_work(kind, tmp_path, monkeypatch):
    out = tmp_path / "out"
    if kind == "a file":
        out.write_text("in the way")
    else:

        def refuse(*_, **__):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        monkeypatch.setattr(exporter, "scratch_folder", refuse)
    monkeypatch.setattr(exporter.verify, "verification_clips", lambda *_: pytest.fail("work was begun"))
    assert_one_line(run("--out", out, code=1), str(out), "choose another --out")
    assert kind == "not writable" or out.read_text() == "in the way"


def test_nothing_is_left_behind_when_the_worker_dies(old, monkeypatch, tmp_path):
    worker = tmp_path / "worker.py"
    worker.write_text("raise MemoryError('no room')")
    monkeypatch.setattr("triadbench.export.formats.verify._WORKER", worker)
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


# ---- the original study's two networks as one file


def test_two_networks_become_one_verified_file_of_each_format(exported_pair):
    files, (reference, *rows) = exported_pair
    assert reference.file == "type.pth + root.safetensors" and reference.status == "reference"
    fp32 = {row.file: row for row in rows if row.precision == "fp32"}
    assert set(fp32) == {f"root-type.{end}" for end in ("onnx", "batch.onnx", "mel.onnx", "torchscript.pt")}
    digests = "+".join(sorted(file_digest(path) for path in files))
    for row in fp32.values():
        assert row.status == "verified" and row.agreement == 1.0
        assert (row.type_accuracy, row.root_accuracy) == (reference.type_accuracy, reference.root_accuracy)
    for name in ("root-type.onnx", "root-type.mel.onnx"):
        info = info_of(onnx.load(fp32[name].path))
        assert (info.architecture, info.task, info.samples, info.log) == ("original", "both", 64_000, False)
        assert info.checkpoint_sha256 == digests and info.training == {"type": {}, "root": {}}
    for row in rows:  # those that do not hold leave no file
        assert row.status == "verified" or (row.precision != "fp32" and row.path is None), row


def test_an_export_of_one_task_says_how_to_join(tmp_path):
    done = run("--torchscript", "--model", save_original(tmp_path / "vgg.safetensors", "root"), "--out", tmp_path)
    assert "vgg.safetensors answers for one task" in done.stderr and "--model TYPE --model ROOT" in done.stderr


def test_networks_that_do_not_go_together_write_nothing(tmp_path):
    model = save_original(tmp_path / "vgg.safetensors", "root")
    done = run("--model", model, "--model", model, "--out", tmp_path / "out", code=1)
    assert_one_line(done, "two models are joined where one answers for the type and one for the root")
    assert not (tmp_path / "out").exists()
