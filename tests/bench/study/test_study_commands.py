"""The commands: short runs say so, mistakes are one line with the way out, and the study runs its steps in order."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

import cli
from bench import records
from bench.study import experiments, ladder, whole
from core.errors import UserError
from tests.bench.study.fakes import FakeTrainer, make_clips, silent


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return make_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty folder to work in, with a trainer that takes no time."""
    monkeypatch.chdir(tmp_path)
    for module in (experiments, ladder):
        monkeypatch.setattr(module.run, "__kwdefaults__", {**module.run.__kwdefaults__, "maker": FakeTrainer})
    return tmp_path


def call(*arguments):
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


def test_a_short_experiment_says_so_everywhere(place, clips):
    given = ("experiment", "batch-size", "--data", clips, "--clips", 64, "--batch-sizes", "4,8", "--trials", 2,
             "--epochs", 1, "--device", "cpu")  # fmt: skip
    label = "short: 2 trials, not 6; 1 epoch a trial, not 5; 64 clips, not 8,192; "
    label += "batch size 4 and 8, not 32 or 64 or 128 or 256"
    done = call(*given)
    assert done.exit_code == 0, done.output
    assert label in done.stdout and label in done.stderr and "16 new" in done.stdout
    again = call(*given, "--json")
    result = json.loads(again.stdout)
    assert result["protocol"] == label and (result["measured"], result["appended"]) == (0, 0)
    assert (place / "runs/batch-size/trials.jsonl").exists() and (place / "runs/study/records.jsonl").exists()


def test_data_size_and_ladder(place, clips):
    done = call("experiment", "data-size", "--data", clips, "--clips", "48,64", "--trials", 2, "--epochs", 1)
    assert done.exit_code == 0 and "48" in done.stdout and "fast/original CPU" in done.stdout
    done = call("experiment", "ladder", "--data", clips, "--clips", 64, "--batch-size", 8, "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert "s of 8,192: extrapolated" in done.stdout and "spread of 3 seeds" in done.stdout
    result = json.loads(
        call("experiment", "ladder", "--data", clips, "--clips", 64, "--batch-size", 8, "--json").stdout
    )
    assert result["why"] and result["measured"] == 0


def test_a_failed_rung_is_exit_1(place, clips, monkeypatch):
    wrong = lambda device: [  # noqa: E731
        rung._replace(more={"learning_rate": 1.0}) if rung.number == 1 else rung for rung in ladder.rungs_of(device)
    ]
    monkeypatch.setattr(ladder.run, "__kwdefaults__", {**ladder.run.__kwdefaults__, "rungs": wrong})
    done = call("experiment", "ladder", "--data", clips, "--clips", 64, "--batch-size", 8, "--device", "cpu")
    assert done.exit_code == 1 and "packed: the loss is not the original's" in done.stderr
    assert [r["name"] for r in records.load(place / "runs/study/records.jsonl")[0]].count("ladder left out") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["batch-size", "--trials", "0"], 2, "0 is not in the range x>=1"),
        (["batch-size", "--trials", "1"], 1, "nothing would be kept; at least 2"),
        (["batch-size", "--device", "tpu"], 1, "unknown device 'tpu'; choose cpu, cuda or all"),
        (["data-size", "--device", "cuda"], 1, "check the driver with nvidia-smi, or use cpu"),
        (["ladder", "--device", "cuda"], 1, "check the driver with nvidia-smi, or use cpu"),
        (["batch-size", "--batch-sizes", "a"], 2, "whole numbers with commas"),
        (["batch-size", "--data", "none"], 1, "none does not exist"),
        (["ladder", "--full", "--clips", "64"], 2, "choose --full or --clips"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_mistakes(arguments, code, message, place, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = call("experiment", *arguments)
    assert done.exit_code == code and message in " ".join(done.stderr.split()) and done.stdout == ""


def test_the_study_runs_every_step_in_order(tmp_path):
    seen = []
    work = {step: lambda study, step=step: seen.append((step, study.quick)) for step in whole.STEPS}
    result = whole.run(whole.Study(tmp_path, "cpu", quick=True, progress=silent), work=work)
    assert seen == [(step, True) for step in whole.STEPS]
    assert [each["step"] for each in result["steps"]] == list(whole.STEPS) == list(whole._WORK)


def test_the_study_refuses_what_it_does_not_know(tmp_path):
    with pytest.raises(UserError, match="unknown step 'meel'; choose from mel, batch-size"):
        whole.run(whole.Study(tmp_path, "cpu", progress=silent), ("meel",))
    with pytest.raises(UserError, match="unknown device 'tpu'"):
        whole.run(whole.Study(tmp_path, "tpu", progress=silent), ("mel",), {"mel": pytest.fail})


def test_a_step_that_is_done_is_not_done_again(tmp_path):
    calls = []

    def measure(device, environment, progress):
        calls.append(device)
        return [records.make("lines", parameters={}, unit="s", samples=[1.0], environment=environment)]

    study = whole.Study(tmp_path, "cpu", progress=silent)
    whole._once(study, "lines", measure)
    whole._once(study, "lines", measure)
    whole._once(study, "layers", measure)
    whole._once(whole.Study(tmp_path, "cpu", quick=True, progress=silent), "lines", measure)
    assert len(calls) == 3 == len(records.load(study.records)[0])


@pytest.mark.parametrize(("step", "n"), [("batch-size", 512), ("data-size", 512), ("ladder", 256)])
def test_the_quick_steps_ask_for_few_clips(step, n, place, clips):
    study = whole.Study(place / "out", "cpu", True, clips, silent)
    with pytest.raises(UserError, match=f"holds 64 clips and {n} are needed"):
        whole.run(study, (step,))
