"""The command: real contestants on tiny grids, wrong ones dropped, and every record's number on the page."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import numpy_helper

from tests.bench import report_records as made
from tests.export.exports import sealed_bytes
from triadbench import cli
from triadbench.bench import machine, records
from triadbench.bench.analysis import findings as story
from triadbench.bench.analysis import providers as providers_numbers
from triadbench.bench.analysis.summary import number
from triadbench.bench.providers import contestants, fresh, plan
from triadbench.bench.providers.contestants import Contestant
from triadbench.bench.report import providers_page
from triadbench.bench.report.report import write_report
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
            assert row["over_eager"] == pytest.approx(baseline["single"]["p50"] / row["single"]["p50"])


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
    assert "3 files of 4 s: infer" in done.output and "python cli.py --help" in done.output


def test_a_fresh_process_tells_its_load_first_call_and_memory(tmp_path):
    np.save(tmp_path / "clips.npy", np.zeros((4, 64_000), np.float32))
    one = Contestant("onnx, whole batch", "fp32", "cpu", str(FILES / "chordnet.batch.onnx"))
    found, outputs = fresh.measure(one, 1, tmp_path / "clips.npy", 4)
    assert found["load_ms"] > 1 and found["first_call_ms"] > 0.1 and found["gpu_memory_mb"] is None
    assert 5 < found["memory_mb"] <= found["batch_memory_mb"] < 400
    assert outputs["logits"].shape == (1, 12, 4)
    with pytest.raises(machine.ProcessError, match="no such model file"):
        fresh.measure(Contestant("onnx, whole batch", "fp32", "cpu", "none.onnx"), 1, tmp_path / "clips.npy", 4)


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
    assert all(reason == "no GPU here" for _, reason in absent)


def test_wrong_usage(tmp_path, monkeypatch):
    assert invoke(tmp_path, "--full", monkeypatch=monkeypatch).exit_code == 2
    assert invoke(tmp_path, "--batch", "1,x", monkeypatch=monkeypatch).exit_code == 2
    assert invoke(tmp_path, "--out", "a.txt", monkeypatch=monkeypatch).exit_code == 2


def test_no_stft_model_of_a_foreign_file(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"no model")
    with pytest.raises(UserError, match="a.onnx"):
        contestants.write_stft_model(tmp_path / "a.onnx", tmp_path / "b.onnx")


# --- numbers and page, on made-up records ----------------------------------------------------------------------------


def record(name: str, form: str, samples, batch=1, threads=2, provider="cpu", copies=True, env=None, **more) -> dict:
    error = {"reference": "PyTorch", "worst_difference": 1.25e-7, "agreement": 1.0, "limit": 1e-5}
    return records.make(
        name,
        parameters={
            "format": form,
            "precision": "fp32",
            "provider": provider,
            "threads": threads,
            "batch": batch,
            "copies": copies,
        },
        unit="ms",
        samples=samples,
        first_call=77.7,
        error=error,
        environment=env or made.environment(),
        clips=batch * len(samples),
        disturbed=False,
        **more,
    )


def everything(gpu: str | None = None) -> list[dict]:
    draw, env = np.random.default_rng(3), made.environment(gpu)
    found = []
    for form, slow in (("onnx, clip by clip", 2.0), (providers_numbers.BASELINE, 6.0)):
        for threads in (1, 2):
            found.append(
                record("benchmark single stream", form, slow * (1 + draw.random(1024) ** 8), threads=threads, env=env)
            )
            for batch in (1, 8, 64):
                times = slow * batch * (1 + 0.01 * draw.random(5))
                found.append(record("benchmark offline", form, times, batch=batch, threads=threads, env=env))
    if gpu:
        for batch in (1, 8, 64):
            found.append(
                record(
                    "benchmark offline",
                    "onnx, whole batch",
                    [10 + 0.01 * batch] * 3,
                    batch=batch,
                    provider="cuda",
                    env=env,
                    energy_j=3.0 * batch,
                )
            )
    runs = [
        {
            "load_ms": 123.0,
            "first_call_ms": 9.87,
            "second_call_ms": 3.21,
            "memory_mb": 36.5,
            "batch_memory_mb": 101.5,
            "gpu_memory_mb": None,
        }
    ]
    found.append(
        record(
            "benchmark load", "onnx, clip by clip", [123.0], batch=64, threads=1, env=env, runs=runs, bytes=2_904_502
        )
    )
    for way, samples in (
        ("infer", [1.11, 1.12, 1.13]),
        ("eager loop", [9.6, 9.8, 9.9]),
        ("eager loop, one thread", [6.6, 6.72, 6.9]),
    ):
        found.append(
            records.make(
                "benchmark files",
                parameters={"way": way, "files": 512, "threads": 2},
                unit="s",
                samples=samples,
                first_call=2.22,
                environment=env,
                disturbed=False,
            )
        )
    for command, seconds in (("infer clip.wav", 0.432), ("--help", 0.111)):
        found.append(
            records.make(
                "benchmark process",
                parameters={"command": command},
                unit="s",
                samples=[seconds] * 7,
                first_call=0.9,
                environment=env,
                disturbed=False,
            )
        )
    found.append(
        records.make(
            "benchmark single stream left out",
            unit="ms",
            samples=[],
            environment=env,
            reason="no <GPU>",
            parameters={"format": "torchscript", "precision": "fp32", "provider": "cuda", "batch": 1},
        )
    )
    return found


def test_statistics_are_numpys():
    samples = np.random.default_rng(0).lognormal(size=1024)
    found = providers_numbers.statistics(samples)
    assert found["n"] == 1024 and found["mean"] == pytest.approx(samples.mean())
    assert (found["min"], found["max"]) == (samples.min(), samples.max())
    for name, percent in {"p50": 50, "p90": 90, "p95": 95, "p99": 99, "p99.9": 99.9}.items():
        assert found[name] == pytest.approx(np.percentile(samples, percent))


def test_the_page_holds_every_number_of_the_records():
    found = everything()
    text = re.sub(r"<[^>]+>", "|", re.sub(r"<script>.*?</script>", "", providers_page.chapter(found), flags=re.S))
    shown = set(text.split("|"))
    for one in found:
        if one["name"] == "benchmark single stream":
            stats = providers_numbers.statistics(one["samples"])
            assert {number(value) for key, value in stats.items() if key != "n"} | {"1,024", "77.7", "1.2e-07"} <= shown
        elif one["name"] == "benchmark offline":
            assert number(1e3 * one["parameters"]["batch"] / np.median(one["samples"])) in shown
        elif one["name"] in ("benchmark files", "benchmark process"):
            assert {number(np.median(one["samples"])), number(one["first_call"])} <= shown
    assert {"123", "9.87", "3.21", "36.5", "102", "2.90"} <= shown
    assert "no &lt;GPU&gt;" in shown and "GPU: not measured, and so no crossover between CPU and GPU." in shown


def test_ratios_are_of_one_run_and_as_many_threads():
    found = everything()
    rows = {(row["format"], row["threads"]): row for row in providers_numbers.rows(found)}
    for threads in (1, 2):
        ours, eager = rows["onnx, clip by clip", threads], rows[providers_numbers.BASELINE, threads]
        assert ours["over_eager"] == pytest.approx(eager["single"]["p50"] / ours["single"]["p50"])
        assert ours["over_eager_offline"] == pytest.approx(ours["best"] / eager["best"])
        assert eager["over_eager"] is None
    later = made.environment() | {"time": "2026-11-23T20:00:00+00:00"}
    for one in found:
        if one["parameters"].get("format") == providers_numbers.BASELINE:
            one["environment"] = later
    assert all(row["over_eager"] is None and row["over_eager_offline"] is None for row in providers_numbers.rows(found))


def test_a_gpus_crossover_is_where_it_passes_every_cpu_row():
    rows = providers_numbers.rows(everything("Test GPU"))
    # 10 ms a call against 2 ms a clip: slower at batch 1, faster from 8 on.
    [crossing] = providers_numbers.crossovers(rows)
    assert (crossing["name"], crossing["batch"]) == ("onnx, whole batch, cuda", 8)
    page = providers_page.chapter(everything("Test GPU"))
    assert "from batch 8 on" in page and "circle-open" in page and "Energy of the whole GPU" in page
    assert "<td>1,000</td>" in page, "3 J a clip in three calls of one batch are 1,000 mJ"
    assert not providers_numbers.crossovers(providers_numbers.rows(everything()))


def test_report_and_story_have_the_chapter(tmp_path):
    found = everything()
    result = write_report([made.write(found, tmp_path / "a.jsonl")], tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    assert result["problems"] == [] and '<section id="providers"' in text and '<section id="other"' not in text
    told = {sentence["key"]: sentence for sentence in result["machines"][0]["story"]}["providers"]
    best = max((row for row in providers_numbers.rows(found) if row["over_eager"]), key=lambda row: row["over_eager"])
    assert told["numbers"]["over_eager"] == best["over_eager"] and told["numbers"]["p99_ms"] == best["single"]["p99"]
    assert told["numbers"]["files_ratio"] == pytest.approx(6.72 / 1.12) and "6.0 times as fast" in told["text"]
    assert number(best["over_eager"], 2) in told["text"]
    missing = {sentence["key"]: sentence for sentence in story.tell([], False)}["providers"]
    assert missing["missing"] == "python cli.py benchmark" and missing["numbers"] == {}


@pytest.mark.parametrize("field", ["parameters", "environment", "runs"])
def test_a_broken_record_is_told_and_the_report_stands(tmp_path, field):
    found = everything()
    for one in found:
        if field in one:
            one[field] = {} if isinstance(one[field], dict) else [{}]
    result = write_report([made.write(found, tmp_path / "a.jsonl")], tmp_path / "r.html")
    assert (tmp_path / "r.html").is_file() and (result["problems"] or field == "environment")


@pytest.mark.gpu
def test_a_gpu_is_measured_with_and_without_copies(tmp_path, monkeypatch):
    done = invoke(tmp_path, "--provider", "cpu,cuda", "--only", "offline", monkeypatch=monkeypatch)
    assert done.exit_code == 0, done.output
    found, _ = records.load(tmp_path / "r.jsonl")
    on_gpu = [r for r in found if r["samples"] and r["parameters"]["provider"] == "cuda"]
    assert {r["parameters"]["copies"] for r in on_gpu} == {True, False}
    assert all(set(r["placement"]["nodes"]) <= {"cuda", "cpu"} for r in on_gpu if r["placement"])
