"""The stage "mel": every case has a record in the order of its weight, on a made-up GPU and in the rehearsal."""

from __future__ import annotations

import contextlib
import dataclasses

import pytest
import torch

from tests.bench.mel import fake_gpu
from triadbench.bench import records, roofs
from triadbench.bench.analysis import mel as mel_summary
from triadbench.bench.analysis.summary import select
from triadbench.bench.gpu import mel as stage
from triadbench.bench.gpu.context import Context
from triadbench.bench.mel import measure, rivals
from triadbench.bench.report import mel_page
from triadbench.kernels import mel_reference

EVERY = rivals.all_rivals()
OURS, GRAPH = "ours: cuda", rivals.GRAPH


def on_fake_gpu() -> dict[str, rivals.Rival]:
    """As on a GPU; what is not there is stood in for by another."""
    stand_in = dataclasses.replace(EVERY["ours: matmul"], name=OURS)
    return EVERY | {OURS: stand_in, OURS + GRAPH: rivals._graphed(stand_in)}


def context(folder, seconds=600.0, device="cuda", rehearse=False) -> Context:
    return Context(device, rehearse, seconds, folder / "records.jsonl", folder)


@pytest.fixture
def gpu(monkeypatch):
    with contextlib.ExitStack() as stack:
        fake_gpu.install(monkeypatch, stack)
        monkeypatch.setattr(rivals, "all_rivals", on_fake_gpu)
        monkeypatch.setattr(stage.mel_before, "contestants", dict)
        monkeypatch.setattr(torch, "compile", lambda module, dynamic: module)
        monkeypatch.setattr(roofs, "_SIZES", {"cuda": (1 << 20, 64)})
        monkeypatch.setattr(stage, "_CASES", [("ORIGINAL", 2), ("ORIGINAL", 1), ("CHORD", 1)])
        monkeypatch.setattr(stage, "_INT16_BATCHES", (2,))
        monkeypatch.setattr(stage, "_COMPILED", (("ORIGINAL", 2),))
        monkeypatch.setattr(stage, "_TIMING_S", 0.05)
        monkeypatch.setattr(measure, "_why_too_slow", lambda *given: None)
        monkeypatch.setattr(stage, "gpu_state", lambda: {"sm_clock_mhz": 1980.0})
        yield


def test_a_gpus_cases_have_calls_and_replays(gpu, tmp_path):
    line = stage.run(context(tmp_path))
    made, problems = records.load(tmp_path / "records.jsonl")
    assert not problems and {record["effort"] for record in made} == {"gpu"}
    assert [record["name"] for record in made[:2]] == ["mel roof"] * 2, "roofs first"
    timed = select(made, "mel")
    cases = list(dict.fromkeys(mel_summary.case(record["parameters"]) for record in timed))
    assert [(case.spec, case.batch, case.dtype) for case in cases] == [
        ("ORIGINAL", 2, "float32"),
        ("ORIGINAL", 1, "float32"),
        ("CHORD", 1, "float32"),
        ("ORIGINAL", 2, "int16"),
    ]
    names = {*rivals.GRAPHED, *(name + GRAPH for name in rivals.GRAPHED)}
    compiled = {name for name in names if "compiled" in name}
    for case in cases:
        here = {r["parameters"]["contestant"] for r in timed if mel_summary.case(r["parameters"]) == case}
        assert here == (names if case == cases[0] else names - compiled)
    for record in timed:
        assert record["gpu_before"] == record["gpu_after"] == {"sm_clock_mhz": 1980.0}
        replayed = record["parameters"]["contestant"].endswith(GRAPH)
        assert record.get("graph_of", "") == record["parameters"]["contestant"].removesuffix(GRAPH) * replayed
        assert not replayed or record["calls_per_sample"] % 4 == 0, "a replay is four calls"
        item = 2 if record["parameters"]["dtype"] == "int16" else 4
        if record["parameters"]["spec"] == "ORIGINAL":
            assert record["bytes_moved"] == record["parameters"]["batch"] * (64_000 * item + 64 * 126 * 4)
        assert (record["error"]["tolerance"] is None) == bool(record.get("approximate"))
        assert (record["error"]["rms_relative"] > 0.1) == ("MelT" in record["parameters"]["contestant"])
    assert line.startswith("ORIGINAL 2: ") and " us a clip (ours: " in line and line.count(", CUDA graph") == 3
    assert " x torchaudio eager" in line and " x torchaudio compiled, CUDA graph; 4 of 4 cases measured" in line
    assert "not compiled for every case" in {gap["reason"][:27] for gap in select(made, "mel left out")}


def test_no_group_begins_that_cannot_end(gpu, tmp_path, monkeypatch):
    right, now = measure.Run.measure_group, [0.0]

    def slow(self, group, group_s, skip):
        now[0] += 30.0
        return right(self, group, group_s, skip)

    monkeypatch.setattr(measure.Run, "measure_group", slow)
    monkeypatch.setattr(Context, "left_s", lambda self: 100.0 - now[0])
    monkeypatch.setattr(stage.time, "monotonic", lambda: now[0])
    line = stage.run(context(tmp_path))
    made, _ = records.load(tmp_path / "records.jsonl")
    over = [gap["parameters"] for gap in select(made, "mel left out") if "was over" in gap["reason"]]
    # 30 s each, and once one is known the next needs 45 s.
    assert [(one["contestant"], one["spec"], one["dtype"]) for one in over] == [
        ("all", "CHORD", "float32"),
        ("all", "ORIGINAL", "int16"),
    ]
    assert "2 of 4 cases measured" in line


def test_nothing_is_compiled_when_the_time_is_short(gpu, tmp_path):
    stage.run(context(tmp_path, seconds=45.0))
    made, _ = records.load(tmp_path / "records.jsonl")
    gaps = select(made, "mel left out", batch=2, dtype="float32")
    reasons = {gap["parameters"]["contestant"]: gap["reason"] for gap in gaps}
    assert reasons["torchaudio compiled"] == "no time left to compile"
    assert reasons["torchaudio compiled" + GRAPH] == "torchaudio compiled is not timed here"
    assert not select(made, "mel", contestant="torchaudio compiled")


@pytest.mark.parametrize(("left_s", "compiled"), [([55, 30, 30], 2), ([55, 20, 20], 1), ([45, 30, 30], 0)])
def test_compiling_again_takes_less_time(gpu, tmp_path, monkeypatch, left_s, compiled):
    skipped = []
    monkeypatch.setattr(stage, "_COMPILED", (("ORIGINAL", 2), ("ORIGINAL", 1)))
    monkeypatch.setattr(measure.Run, "measure_group", lambda self, group, group_s, skip: skipped.append(skip) or [])
    monkeypatch.setattr(Context, "left_s", lambda self: left_s[min(len(skipped), 2)])
    monkeypatch.setattr(stage, "_line", lambda *given: "")
    stage.run(context(tmp_path))
    assert [not skip for skip in skipped[:2]].count(True) == compiled


def test_ours_failing_fails_the_stage(gpu, tmp_path, monkeypatch):
    def broken(spec, waveform, threads):
        raise RuntimeError("no kernel image")

    broken = dataclasses.replace(on_fake_gpu()[OURS], prepare=broken)
    monkeypatch.setattr(rivals, "all_rivals", lambda: on_fake_gpu() | {OURS: broken})
    with pytest.raises(RuntimeError, match="^ours: cuda: failed: no kernel image"):
        stage.run(context(tmp_path))
    assert select(records.load(tmp_path / "records.jsonl")[0], "mel"), "the others have their records"
    absent = dataclasses.replace(on_fake_gpu()[OURS], unavailable=lambda device: "no numba-cuda")
    monkeypatch.setattr(rivals, "all_rivals", lambda: on_fake_gpu() | {OURS: absent})
    with pytest.raises(RuntimeError, match="ours: cuda: no numba-cuda"):
        stage.run(context(tmp_path))


def test_a_rival_failing_is_named(gpu, tmp_path, monkeypatch):
    def wrong(spec, waveform, threads):
        right = EVERY["torch by hand"].prepare(spec, waveform, threads)
        return lambda waveform: right(waveform).roll(1, -1)

    wrong = dataclasses.replace(EVERY["torch by hand"], prepare=wrong)
    monkeypatch.setattr(rivals, "all_rivals", lambda: on_fake_gpu() | {"torch by hand": wrong})
    assert stage.run(context(tmp_path)).endswith("; wrong or failed: torch by hand")


def test_a_graph_that_leaves_something_out_is_wrong(gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(fake_gpu.Graph, "replay", lambda self: None)
    with pytest.raises(RuntimeError, match="ours: cuda, CUDA graph: wrong: FAILED: actual has .* NaN"):
        stage.run(context(tmp_path))


def test_the_reference_on_a_gpu_is_checked_against_the_definition(gpu, tmp_path, monkeypatch):
    right = mel_reference.mel_spectrogram
    monkeypatch.setattr(mel_reference, "mel_spectrogram", lambda *given: right(*given) * (1 + 1e-8))
    with pytest.raises(RuntimeError, match="^all: failed: .*float64 on the GPU against the definition"):
        stage.run(context(tmp_path))


def test_a_group_that_fails_stops_no_other(gpu, tmp_path, monkeypatch):
    inputs = measure.Run._inputs

    def without_memory(self, group):
        if group.spec == "CHORD":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return inputs(self, group)

    monkeypatch.setattr(measure.Run, "_inputs", without_memory)
    with pytest.raises(RuntimeError, match="^all: failed: CUDA out of memory$"):
        stage.run(context(tmp_path))
    made, _ = records.load(tmp_path / "records.jsonl")
    (gap,) = select(made, "mel left out", contestant="all")
    assert gap["parameters"]["spec"] == "CHORD"
    assert {record["parameters"]["dtype"] for record in select(made, "mel")} == {"float32", "int16"}


def test_without_time_for_any_case_the_stage_fails(gpu, tmp_path):
    with pytest.raises(RuntimeError, match="the time of the stage was over"):
        stage.run(context(tmp_path, seconds=5.0))
    made, _ = records.load(tmp_path / "records.jsonl")
    assert len(select(made, "mel left out", contestant="all")) == 4


def test_the_rehearsal_does_everything_small(tmp_path):
    line = stage.run(context(tmp_path, 600.0, "cpu", rehearse=True))
    made, problems = records.load(tmp_path / "records.jsonl")
    assert not problems and {record["effort"] for record in made} == {"rehearsal"}
    timed = {(mel_summary.case(r["parameters"])[:2], r["parameters"]["dtype"]) for r in select(made, "mel")}
    assert timed == {
        (("ORIGINAL", 1), "float32"),
        (("ORIGINAL", 2), "float32"),
        (("CHORD", 1), "float32"),
        (("ORIGINAL", 1), "int16"),
        (("ORIGINAL", 2), "int16"),
    }
    assert "us a clip (ours: " in line and "5 of 5 cases measured" in line
    reasons = {gap["parameters"]["contestant"]: gap["reason"] for gap in select(made, "mel left out")}
    assert OURS in reasons and reasons["MelT TF32"] == "it needs a GPU"


def test_the_page_shows_a_gpus_times(gpu, tmp_path):
    stage.run(context(tmp_path))
    page = mel_page.chapter(records.load(tmp_path / "records.jsonl")[0])
    for text in ("By graph replays", "other values", "ORIGINAL x2 int16, GPU"):
        assert text in page, text
