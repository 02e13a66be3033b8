"""The command: real contestants on tiny grids, wrong ones dropped, and every record's number on the page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx import numpy_helper

from tests.core.toys import save_pair
from tests.export.exports import sealed_bytes
from triadbench import cli
from triadbench.bench import machine, records
from triadbench.bench.analysis import providers as providers_numbers
from triadbench.bench.providers import contestants, plan
from triadbench.bench.providers.contestants import Contestant
from triadbench.core.errors import UserError
from triadbench.core.models.predictor import SHIPPED

FILES = SHIPPED.parent


def invoke(folder: Path, *arguments: str, monkeypatch):
    monkeypatch.setitem(plan.EFFORTS, "quick", plan.SMOKE)
    given = ["--quick", "--out", str(folder / "r.html"), "--records", str(folder / "r.jsonl")]
    return CliRunner().invoke(cli.main, ["benchmark", *given, *arguments])


@pytest.fixture
def folder(tmp_path) -> Path:
    """Exported files in a folder of their own: a good one, and one whose weights are wrong."""
    place = tmp_path / "files"
    place.mkdir()
    shutil.copy(FILES / "chordnet.onnx", place)
    model = onnx.load(FILES / "chordnet.mel.onnx")
    weights = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weights.CopyFrom(numpy_helper.from_array(1.02 * numpy_helper.to_array(weights), weights.name))
    (place / "chordnet.mel.onnx").write_bytes(sealed_bytes(model))
    return place


def test_a_wrong_model_is_dropped_and_the_others_are_timed(tmp_path, folder, monkeypatch):
    done = invoke(
        tmp_path,
        "--files",
        str(folder),
        "--only",
        "single",
        "--only",
        "offline",
        "--threads",
        "1",
        monkeypatch=monkeypatch,
    )
    assert done.exit_code == 1 and "2 checks failed" in done.output, done.output
    found, problems = records.load(tmp_path / "r.jsonl")
    timed = {record["parameters"]["format"] for record in found if record["samples"]}
    assert not problems and timed == {"onnx, clip by clip", "eager, torchaudio", "eager, our kernel"}
    wrong = [r for r in found if r["name"].endswith("left out") and r["reason"].startswith("wrong: ")]
    assert {r["parameters"]["format"] for r in wrong} == {"onnx behind our kernel", contestants.STFT}
    assert all("differs by" in r["reason"] and "PyTorch" in r["reason"] for r in wrong)
    for record in found:
        if record["samples"]:
            assert record["error"]["worst_difference"] <= 1e-5 and record["error"]["agreement"] == 1.0
            assert record["environment"]["cpu"] is not None and record["effort"] == "smoke"
            assert len(record["samples"]) == (4 if record["name"] == providers_numbers.SINGLE else 1)
    assert {r["parameters"]["batch"] for r in found if r["name"] == providers_numbers.OFFLINE} == {1, 2}
    placed = [r["placement"] for r in found if r["samples"] and r["parameters"]["format"] == "onnx, clip by clip"]
    assert placed and all(p["memcpy"] == 0 and set(p["nodes"]) == {"cpu"} for p in placed)
    assert "not measured" in done.output and "torchscript" in done.output
    text = (tmp_path / "r.html").read_text()
    assert "onnx, clip by clip" in text and "differs by" in text


def test_all_formats_pass_and_json_is_one_object(tmp_path, monkeypatch):
    done = invoke(tmp_path, "--only", "single", "--threads", "1", "--json", monkeypatch=monkeypatch)
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    formats = {(row["format"], row["precision"]) for row in result["measurements"] if row["provider"] == "cpu"}
    assert {(name, "fp32") for name in contestants.FORMATS} <= formats
    assert result["failed"] == [] and all(row["single"]["n"] == 4 for row in result["measurements"])
    baseline = next(row for row in result["measurements"] if row["format"] == contestants.BASELINE)
    for row in result["measurements"]:
        if row["format"] != contestants.BASELINE and row["provider"] == "cpu":
            ratio = pytest.approx(baseline["single"]["p50"] / row["single"]["p50"])
            # Whether other programs disturb it is this machine's affair; then no ratio is shown.
            assert row["over_eager"] == (None if "disturbed" in (row["badge"], baseline["badge"]) else ratio)


def test_files_are_answered_alike_and_processes_too(tmp_path, monkeypatch):
    done = invoke(tmp_path, "--only", "files", "--only", "process", "--threads", "1", monkeypatch=monkeypatch)
    assert done.exit_code == 0, done.output
    found, _ = records.load(tmp_path / "r.jsonl")
    names = [(r["name"], r["parameters"].get("way") or r["parameters"].get("command")) for r in found if r["samples"]]
    assert names == [
        ("benchmark files", "infer"),
        ("benchmark files", "eager loop"),
        ("benchmark process", "infer clip.wav"),
        ("benchmark process", "--help"),
    ]
    assert "A folder of 3 files: infer takes" in done.output and "python cli.py --help" in done.output


def test_a_fresh_process_tells_its_load_first_call_and_memory(tmp_path):
    np.save(tmp_path / "clips.npy", np.zeros((4, 64_000), np.float32))
    one = Contestant("onnx, whole batch", "fp32", "cpu", str(FILES / "chordnet.batch.onnx"))
    found, outputs = contestants.measure_fresh(one, 1, tmp_path / "clips.npy", 4)
    assert found["load_ms"] > 1 and found["first_call_ms"] > 0.1 and found["gpu_memory_mb"] is None
    assert 5 < found["memory_mb"] <= found["batch_memory_mb"] < 400
    assert outputs["logits"].shape == (1, 12, 4)
    with pytest.raises(machine.ProcessError, match="no such model file"):
        contestants.measure_fresh(
            Contestant("onnx, whole batch", "fp32", "cpu", "none.onnx"), 1, tmp_path / "clips.npy", 4
        )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--provider", "abacus"], "provider='abacus' must be one of cpu, cuda, tensorrt"),
        (["--precision", "fp8"], "precision='fp8'"),
        (["--batch", "0"], "batch=0 must be in 1 to"),
        (["--threads", "9999"], "threads=9999 must be in 1 to"),
        (["--model", "none.safetensors"], "none.safetensors: no such model file"),
    ],
)
def test_bad_values_are_one_line(tmp_path, monkeypatch, arguments, told):
    done = invoke(tmp_path, *arguments, monkeypatch=monkeypatch)
    assert done.exit_code == 1 and told in done.output and "Traceback" not in done.output
    assert not (tmp_path / "r.html").exists()


def test_a_provider_that_was_asked_for_and_is_absent_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "why_unavailable", lambda name: None if name == "cpu" else "no GPU here")
    done = invoke(tmp_path, "--provider", "cpu,cuda", monkeypatch=monkeypatch)
    assert done.exit_code == 1 and "provider cuda: no GPU here; leave it out" in done.output
    found, absent = plan.grid(SHIPPED, FILES)
    assert {one.provider for one in found} == {"cpu"} and {one.provider for one, _ in absent} == {"cuda", "tensorrt"}
    by_torch = {reason for one, reason in absent if not one.format.startswith("onnx")}
    assert {reason for _, reason in absent} - by_torch == {"no GPU here"}
    assert len(by_torch) == 1 and "torch finds no CUDA GPU" in by_torch.pop()


@pytest.mark.parametrize("asked", [(), ("cpu", "cuda")])
def test_a_gpu_without_onnx_runtimes_provider_keeps_what_torch_computes(asked, monkeypatch):
    monkeypatch.setattr(plan, "why_unavailable", lambda name: f"built without {name}")
    monkeypatch.setattr(plan, "why_no_torch", lambda name: None)
    found, absent = plan.grid(SHIPPED, FILES, asked)
    on_gpu = {"torchscript", "eager, torchaudio", "eager, our kernel"}
    assert {one.format for one in found if one.provider == "cuda"} == on_gpu
    assert {reason for one, reason in absent if one.provider == "cuda"} == {"built without cuda"}
    with pytest.raises(UserError, match="provider tensorrt: built without tensorrt"):
        plan.grid(SHIPPED, FILES, ("tensorrt",))


def test_onnx_runtime_computes_where_torch_finds_no_gpu(monkeypatch):
    monkeypatch.setattr(plan, "why_unavailable", lambda name: None)
    monkeypatch.setattr(plan, "why_no_torch", lambda name: "torch is blind" if name == "cuda" else None)
    found, absent = plan.grid(SHIPPED, FILES, ("cuda",))
    assert {one.format for one in found} == {"onnx, whole batch"}
    assert {reason for _, reason in absent} == {"torch is blind"}


def test_a_gpu_computes_fp32_with_all_its_bits(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    contestants._torch_calls(lambda waveforms: (), "cpu")
    assert torch.backends.cudnn.allow_tf32
    contestants._torch_calls(lambda waveforms: (), "cuda")
    assert not torch.backends.cudnn.allow_tf32


def test_wrong_usage(tmp_path, monkeypatch):
    assert invoke(tmp_path, "--full", monkeypatch=monkeypatch).exit_code == 2
    assert invoke(tmp_path, "--batch", "1,x", monkeypatch=monkeypatch).exit_code == 2
    assert invoke(tmp_path, "--out", "a.txt", monkeypatch=monkeypatch).exit_code == 2


def test_no_stft_model_of_a_foreign_file(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"no model")
    with pytest.raises(UserError, match="a.onnx"):
        contestants.write_stft_model(tmp_path / "a.onnx", tmp_path / "b.onnx")


@pytest.mark.gpu
def test_a_gpu_is_measured_with_and_without_copies(tmp_path, monkeypatch):
    pytest.importorskip("plotly")  # of the page
    done = invoke(tmp_path, "--provider", "cpu,cuda", "--only", "offline", monkeypatch=monkeypatch)
    assert done.exit_code == 0, done.output
    found, _ = records.load(tmp_path / "r.jsonl")
    on_gpu = [r for r in found if r["samples"] and r["parameters"]["provider"] == "cuda"]
    assert {r["parameters"]["copies"] for r in on_gpu} == {True, False}
    assert all(set(r["placement"]["nodes"]) <= {"cuda", "cpu"} for r in on_gpu if r["placement"])


def test_two_networks_are_timed_as_one(tmp_path, monkeypatch):
    types, roots = map(str, save_pair(tmp_path / "pair"))
    only = ("--only", "single", "--threads", "1", "--json")
    done = invoke(tmp_path, "--model", types, "--model", roots, *only, monkeypatch=monkeypatch)
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert {row["format"] for row in result["measurements"]} == {"eager, torchaudio", "eager, our kernel"}
    assert result["failed"] == [] and "root-type.onnx is not there; `export` makes it" in done.stderr
    done = invoke(tmp_path, "--model", types, *only, monkeypatch=monkeypatch)
    assert done.exit_code == 1 and "type.pth answers for the type only, a chord needs the root network" in done.stderr
    done = invoke(tmp_path, "--model", types, "--model", types, *only, monkeypatch=monkeypatch)
    assert done.exit_code == 1 and "two models are joined where one answers for the type" in done.stderr
