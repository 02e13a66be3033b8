"""The inference stage: contestants within the time, and the card's command proven, unproven or failed."""

from __future__ import annotations

from pathlib import Path

import pytest

from triadbench.bench import machine, records
from triadbench.bench.analysis import providers as numbers
from triadbench.bench.gpu import inference
from triadbench.bench.gpu.context import Context


def context(folder: Path, device: str = "cpu", seconds: float = 600.0) -> Context:
    return Context(device, True, seconds, folder / "records.jsonl", folder)


def command_record(folder: Path) -> dict:
    (record,) = [r for r in records.load(folder / "records.jsonl")[0] if r["name"] == inference.COMMAND]
    return record


def test_a_rehearsal_measures_and_the_analysis_reads_it(tmp_path):
    line = inference.run(context(tmp_path))
    found, problems = records.load(tmp_path / "records.jsonl")
    rows = numbers.rows(found)
    formats = {"onnx, clip by clip", "onnx, whole batch", "torchscript", "eager, torchaudio", "eager, our kernel"}
    assert not problems and {row["format"] for row in rows} == formats
    assert all(row["single"]["n"] == 4 and set(row["offline"]) == {1, 2} for row in rows) and numbers.text(found)
    command = command_record(tmp_path)
    assert command["parameters"] == {"command": "infer clip.wav --provider cpu"} and command["chord"] in line
    assert len(command["samples"]) == 1 and "clips a second; infer" in line and "as PyTorch does" in line


@pytest.fixture
def quick(monkeypatch):
    """The command alone."""
    monkeypatch.setattr(inference.benchmark, "measure", lambda *arguments, **options: ([], []))


def test_without_the_provider_the_command_is_unproven(tmp_path, quick, monkeypatch):
    monkeypatch.setattr(inference, "why_unavailable", lambda provider: f"no {provider} here")
    assert inference.run(context(tmp_path, "cuda")) == "infer clip.wav --provider cuda is unproven: no cuda here"
    assert command_record(tmp_path)["reason"] == "no cuda here" and not command_record(tmp_path)["samples"]


def test_the_command_is_asked_for_the_gpu(tmp_path, quick, monkeypatch):
    asked = []

    def run_process(command, timeout_s):
        asked.append(command)
        raise machine.ProcessError("no room on the GPU")

    monkeypatch.setattr(inference, "why_unavailable", lambda provider: None)
    monkeypatch.setattr(machine, "run_process", run_process)
    with pytest.raises(RuntimeError, match="infer clip.wav --provider cuda failed: no room on the GPU"):
        inference.run(context(tmp_path, "cuda"))
    assert asked[0][2] == "infer" and asked[0][-3:] == ["--provider", "cuda", "--json"]
    assert command_record(tmp_path)["reason"] == "failed: no room on the GPU"


def test_another_chord_fails_the_stage(tmp_path, quick, monkeypatch):
    monkeypatch.setattr(machine, "run_process", lambda *arguments, **options: '{"results": [{"chord": "H"}]}')
    with pytest.raises(RuntimeError, match="it answers H, and PyTorch "):
        inference.run(context(tmp_path))
    assert not command_record(tmp_path)["samples"]


def test_a_wrong_contestant_fails_the_stage(tmp_path, monkeypatch):
    monkeypatch.setattr(inference, "_command", lambda context: ("proven", False))
    monkeypatch.setattr(inference.benchmark, "measure", lambda *arguments, **options: ([], ["eager: wrong: all of it"]))
    with pytest.raises(RuntimeError, match="eager: wrong: all of it; proven"):
        inference.run(context(tmp_path))


def test_what_has_no_time_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(inference, "_command", lambda context: ("proven", False))
    assert inference.run(context(tmp_path, seconds=0.0)) == "proven"
    found, _ = records.load(tmp_path / "records.jsonl")
    late = [record for record in found if record.get("reason") == "no time was left"]
    assert {record["parameters"]["batch"] for record in late} == {1, 2} and not any(r["samples"] for r in found)
