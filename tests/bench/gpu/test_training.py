"""The training stage: every part leaves records that the analysis reads; what fails or has no time says so."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from triadbench.bench import records
from triadbench.bench.analysis import experiments as experiment_numbers
from triadbench.bench.analysis import ladder as ladder_numbers
from triadbench.bench.gpu import clips, training
from triadbench.bench.gpu.context import Context
from triadbench.kernels import MelSpectrogram
from triadbench.kernels.spec import ORIGINAL


def context(folder: Path, seconds: float = 600.0, rehearse: bool = True) -> Context:
    return Context("cpu", rehearse, seconds, folder / "records.jsonl", folder)


def test_a_rehearsal_does_every_part_and_the_analysis_reads_it(tmp_path):
    line = training.run(context(tmp_path))
    found, problems = records.load(tmp_path / "records.jsonl")
    assert not problems and "ladder on cpu: " in line and "2 of 2 epochs of 48 clips" in line
    rungs = ladder_numbers.main_ladder(found, "cpu")
    assert ladder_numbers.is_complete(rungs) and ladder_numbers.has_parts(rungs) and rungs[-1]["name"] == "fused Adam"
    assert ladder_numbers.gain_sentence(rungs)
    cases = {record["parameters"]["pipeline"] for record in found if record["name"] in experiment_numbers.NAMES}
    assert cases == {"original", "fast"}
    (final,) = (record for record in found if record["name"] == training.FINAL)
    expected = {"device": "cpu", "clips": 48, "batch_size": 32, "task": "type", "epochs": 2, "pipeline": "fast"}
    assert final["parameters"] == expected and final["effort"] == "rehearsal" and final["epochs_done"] == 2
    lists = ("train_s", "test_s", "train_loss", "test_loss", "test_accuracy", "states")
    assert all(len(final[name]) == 2 for name in lists) and final["n_clips"] == 34
    assert final["samples"] == [sum(pair) for pair in zip(final["train_s"], final["test_s"], strict=True)]
    assert 1.0 < final["train_loss"][0] < 1.5 and final["made_s"] > 0


class Parts(training._Training):
    """The parts as they are called, each quick; the speed of the original pipeline is given."""

    wrong = ""

    def __init__(self, context, clip_s=1e-3):
        self.context, self.size, self.clip_s = context, training._Size(), {context.device: clip_s, "cpu": clip_s}
        self.done, self.failed, self.called, self.case = [], [], [], (512, 2)

    def ladder(self, device):
        return self._call(f"ladder on {device}")

    def final(self, pipeline):
        return self._call(pipeline)

    def experiment(self, clips):
        return self._call(f"experiment of {clips}")

    def _call(self, name):
        self.called.append(name)
        if name == self.wrong:
            raise ValueError("no such thing")
        return "done"


def stage(monkeypatch, parts: Parts) -> str:
    monkeypatch.setattr(training, "_Training", lambda _: parts)
    return training.run(parts.context)


@pytest.fixture
def on_gpu(tmp_path):
    return Context("cuda", False, 600.0, tmp_path / "records.jsonl", tmp_path)


def test_the_order_of_the_parts(on_gpu, monkeypatch):
    parts = Parts(on_gpu)
    stage(monkeypatch, parts)
    assert parts.called == ["ladder on cuda", "fast", "ladder on cpu", "experiment of 2048"]


def test_a_part_that_fails_stops_no_other_and_fails_the_stage(on_gpu, monkeypatch):
    parts = Parts(on_gpu)
    parts.wrong = "fast"
    with pytest.raises(RuntimeError, match="^final training failed: ValueError: no such thing; ladder on cuda: done"):
        stage(monkeypatch, parts)
    assert parts.called == ["ladder on cuda", "fast", "fast, no CUDA graph", "ladder on cpu", "experiment of 2048"]
    (record,) = records.load(on_gpu.records)[0]
    assert (record["name"], record["parameters"]) == (training.LEFT_OUT, {"part": "final training"})


def test_what_has_no_time_is_left_out_and_recorded(tmp_path, monkeypatch):
    short = Context("cuda", False, 20.0, tmp_path / "records.jsonl", tmp_path)
    parts = Parts(short)
    line = stage(monkeypatch, parts)
    assert parts.called == ["ladder on cuda", "fast", "experiment of 1024"]
    assert "ladder on cpu left out: it would take 21 s" in line
    (record,) = records.load(short.records)[0]
    assert record["parameters"] == {"part": "ladder on cpu"} and "s are left" in record["reason"]
    assert not record["samples"]


def test_the_ladders_are_alike_and_shorter_where_time_is(tmp_path, monkeypatch):
    monkeypatch.setattr(training._Training, "_original_clip_s", lambda self, device: 1e-3 if device == "cuda" else 3e-3)
    monkeypatch.setattr(training, "write_wavs", lambda n, folder, device: folder)
    cases = [
        training._Training(Context("cuda", False, seconds, tmp_path / "r", tmp_path)).case for seconds in (300, 90, 9)
    ]
    assert cases == [(512, 2), (512, 1), (256, 1)]


def test_a_ladder_whose_graph_fails_keeps_the_other_rungs(on_gpu, monkeypatch):
    climbed = []

    def run(cases, settings, rungs=training.ladder.rungs_of):
        climbed.append([rung.name for rung in rungs(cases[0].device)])
        if "CUDA graph" in climbed[-1]:
            raise RuntimeError("capture failed")

    monkeypatch.setattr(training.ladder, "run", run)
    parts = Parts(on_gpu)
    parts.wavs = Path()
    with pytest.raises(RuntimeError, match="capture failed"):
        training._Training.ladder(parts, "cuda")
    assert [len(names) for names in climbed] == [11, 10] and climbed[1] == climbed[0][:-1]


def test_a_rung_with_other_losses_fails_the_part(on_gpu, monkeypatch):
    wrong = {"rungs": [], "failed": [{"parameters": {"name": "TF32"}}]}
    monkeypatch.setattr(training.ladder, "run", lambda *arguments: wrong)
    parts = Parts(on_gpu)
    parts.wavs = Path()
    with pytest.raises(RuntimeError, match="not the original's losses: TF32"):
        training._Training.ladder(parts, "cuda")


def test_features_are_those_of_the_named_clips_and_fewer_where_time_is(tmp_path, monkeypatch):
    monkeypatch.setattr(clips, "_CHUNK", 4)
    parts = Parts(context(tmp_path))
    names, features, made_s = parts._features(10, float("inf"))
    assert names == clips.clip_names(10) and features.shape == (10, 1, 64, 126) and made_s > 0
    expected = MelSpectrogram.from_spec(ORIGINAL)(torch.cat(list(clips.make_chunks(names, "cpu"))))
    assert torch.allclose(features[:, 0], expected, rtol=1e-4, atol=1e-6 * float(expected.max()))
    names, features, _ = parts._features(10, 0.0)
    assert len(names) == len(features) == 4


def test_the_final_training_ends_in_time_and_says_how_far_it_came(tmp_path):
    parts = Parts(context(tmp_path, seconds=0.5, rehearse=False))
    parts.size = training._TINY._replace(epochs=30)
    line = training._Training.final(parts, "fast")
    (record,) = records.load(tmp_path / "records.jsonl")[0]
    assert 1 <= record["epochs_done"] == len(record["samples"]) < 30 == record["parameters"]["epochs"]
    assert line.startswith(f"{record['epochs_done']} of 30 epochs of 48 clips")


def test_epochs_that_were_done_before_a_failure_are_kept(tmp_path, monkeypatch):
    parts, done = Parts(context(tmp_path)), []
    parts.size = training._TINY._replace(epochs=30)

    def check(loss, epoch):
        done.append(epoch)
        if epoch == 2:
            raise RuntimeError("loss is nan")

    monkeypatch.setattr(training, "finite_loss", check)
    with pytest.raises(RuntimeError, match="nan"):
        training._Training.final(parts, "fast")
    (record,) = records.load(tmp_path / "records.jsonl")[0]
    assert record["epochs_done"] == len(record["samples"]) == 2


def test_a_part_that_takes_longer_than_reckoned_is_ended(tmp_path):
    late, early = (Parts(context(tmp_path, seconds)) for seconds in (0.0, 600.0))
    for parts in (late, early):
        parts.wavs = Path()
    with early._settings("ladder").progress("rungs") as report:
        report(1, 2, "")
    with late._settings("ladder").progress("rungs") as report, pytest.raises(TimeoutError, match="0 s are over"):
        report(1, 2, "")
