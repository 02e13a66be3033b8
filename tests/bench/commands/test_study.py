"""The commands: short runs say so, mistakes are one line with the way out, and the study runs its steps in order."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from tests.bench.study.fakes import FakeTrainer, make_clips, silent
from triadbench import cli
from triadbench.bench import records
from triadbench.bench.commands import study as study_steps
from triadbench.bench.study import ladder, session
from triadbench.core.errors import UserError
from triadbench.core.training import batches
from triadbench.core.training.batches import FEATURE_BYTES


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return make_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty folder to work in, with a trainer that takes no time."""
    FakeTrainer.made.clear()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(session, "make_trainer", FakeTrainer)
    return tmp_path


def call(*arguments):
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


def test_a_short_experiment_says_so_everywhere(place, clips):
    given = (
        "experiment",
        "batch-size",
        "--data",
        clips,
        "--clips",
        64,
        "--batch-sizes",
        "4,8",
        "--trials",
        2,
        "--epochs",
        1,
        "--device",
        "cpu",
    )
    label = "short: 2 trials, not 6; 1 epoch a trial, not 5; 64 clips, not 8,192; "
    label += "batch size 4 and 8, not 32 or 64 or 128 or 256"
    done = call(*given)
    assert done.exit_code == 0, done.output
    assert label in done.stdout and label in done.stderr and "16 new" in done.stdout
    again = call(*given, "--json")
    result = json.loads(again.stdout)
    assert result["protocol"] == label and (result["measured"], result["appended"]) == (0, 0)
    assert (place / "runs/batch-size/trials.jsonl").exists() and (place / "runs/study/records.jsonl").exists()


def test_the_final_training_is_killed_goes_on_and_is_reported(place, clips):
    given = ["experiment", "final", "--data", clips, "--clips", 64, "--epochs", 40, "--original-epochs", 1]
    given = [*map(str, given), "--device", "cpu", "--task", "root", "--run", "final"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-m", "triadbench.cli", *given],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    lines, end = place / "final" / "trials.jsonl", time.monotonic() + 120
    while not (lines.exists() and lines.read_bytes().count(b"\n") >= 3):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    process.kill()
    process.wait(60)
    before = lines.read_bytes().count(b"\n")
    assert 3 <= before < 41 and not (place / "final" / "records.jsonl").exists()
    done = call(*given, "--json")
    assert done.exit_code == 0, done.output
    figures = {one["parameters"]["pipeline"]: one for one in json.loads(done.stdout)["figures"]}
    assert len(figures["fast"]["samples"]) == 40 and len(figures["original"]["samples"]) == 1
    whole = call(*given[:-1], "whole", "--json")
    uninterrupted = json.loads(whole.stdout)["figures"][0]
    assert figures["fast"]["test_loss"] == uninterrupted["test_loss"]
    again = call(*given)
    assert "0 new" in again.stdout and "81.10 %" in again.stdout and "(extrapolated from" in again.stdout
    assert "91.44 %" not in again.stdout, "of types nothing was trained"
    page = call("report", "final", "--out", "page.html")
    assert page.exit_code == 0 and "Expected of the root: 75 %; the original: 81.1 %; ours" in page.stdout


def test_data_size_and_ladder(place, clips):
    done = call("experiment", "data-size", "--data", clips, "--clips", "48,64", "--trials", 2, "--epochs", 1)
    assert done.exit_code == 0 and "48" in done.stdout and "original/fast CPU" in done.stdout
    done = call("experiment", "ladder", "--data", clips, "--clips", 64, "--batch-size", 8, "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert "s of 8,192: extrapolated" in done.stdout and "spread of 3 seeds" in done.stdout
    result = json.loads(
        call("experiment", "ladder", "--data", clips, "--clips", 64, "--batch-size", 8, "--json").stdout
    )
    assert result["why"] and result["measured"] == 0


def test_a_failed_rung_is_exit_1(place, clips, monkeypatch):
    rungs = ladder.rungs_of("cpu")
    rungs[1] = rungs[1]._replace(options={"learning_rate": 1.0})
    monkeypatch.setattr(ladder, "rungs_of", lambda device: rungs)
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
    steps = {
        name: study_steps.Step(lambda study, name=name: seen.append((name, study.quick))) for name in study_steps.STEPS
    }
    result = study_steps.run(study_steps.Study(tmp_path, silent, "cpu", quick=True), steps=steps)
    names = ["mel", "batch-size", "data-size", "ladder", "lines", "layers", "report"]
    assert seen == [(name, True) for name in names]
    assert [row["step"] for row in result["steps"]] == names


def test_the_study_refuses_what_it_does_not_know(tmp_path):
    with pytest.raises(UserError, match="unknown step 'meel'; choose from mel, batch-size"):
        study_steps.run(study_steps.Study(tmp_path, silent, "cpu"), ("meel",))
    with pytest.raises(UserError, match="unknown device 'tpu'"):
        study_steps.run(study_steps.Study(tmp_path, silent, "tpu"), ("mel",), {"mel": study_steps.Step(pytest.fail)})


def test_a_step_that_is_done_is_not_done_again(tmp_path):
    calls = []

    def measure(environment, device, progress):
        calls.append(device)
        return [records.make("lines", parameters={}, unit="s", samples=[1.0], environment=environment)]

    study = study_steps.Study(tmp_path, silent, "cpu")
    study_steps._once(study, "lines", measure)
    study_steps._once(study, "lines", measure)
    study_steps._once(study, "layers", measure)
    study_steps._once(study_steps.Study(tmp_path, silent, "cpu", quick=True), "lines", measure)
    assert len(calls) == 3 == len(records.load(study.records)[0])


def two_records(calls):
    def measure(environment, device, progress):
        calls.append(device)
        common = {"unit": "s", "samples": [1.0], "environment": environment}
        # Two of them alike: each is a record of its own.
        return [records.make("lines", parameters={"part": part}, **common) for part in (0, 1, 1)]

    return measure


@pytest.mark.parametrize("kept", [0, 1, 2], ids=["before the first", "in the middle", "in the last"])
def test_killed_while_records_are_appended_they_are_completed_and_none_is_measured_twice(kept, tmp_path, monkeypatch):
    study, calls = study_steps.Study(tmp_path, silent, "cpu"), []
    append_all = records.append_all

    def killed(made, path):
        if path != study.records:
            return append_all(made, path)
        append_all(made[:kept], path)
        with open(path, "ab") as file:
            file.write(json.dumps(made[kept]).encode()[:50])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(records, "append_all", killed)
        with pytest.raises(KeyboardInterrupt):
            study_steps._once(study, "lines", two_records(calls))
    for _ in range(2):
        study_steps._once(study, "lines", two_records(calls))
        found = records.load(study.records)[0]
        assert sorted(record["parameters"]["part"] for record in found) == [0, 1, 1] and len(calls) == 1


def test_a_step_whose_records_were_deleted_is_not_done(tmp_path):
    notes, calls = [], []
    study = study_steps.Study(tmp_path, silent, "cpu", note=notes.append)
    study_steps._once(study, "lines", two_records(calls))
    before = study.records.read_text()
    study.records.unlink()
    study_steps._once(study, "lines", two_records(calls))
    assert study.records.read_text() == before and notes[-1].endswith("written again: 3")
    study.records.write_text("".join(before.splitlines(keepends=True)[:2]))
    study_steps._once(study, "lines", two_records(calls))
    assert study.records.read_text() == before and notes[-1].endswith("written again: 1")
    study_steps._once(study, "lines", two_records(calls))
    assert notes[-1] == "lines on cpu: done already" and len(calls) == 1


@pytest.mark.parametrize("step", ["mel", "lines", "layers"])
def test_two_studies_in_one_folder_do_not_mix(step, tmp_path):
    pytest.importorskip("fcntl")
    study = study_steps.Study(tmp_path, silent, "cpu")

    def work(study):
        for command in (
            ("study", "--step", step, "--device", "cpu", "--out", tmp_path),
            ("profile", "--only", "lines", "--records", study.records, "--out", tmp_path / "p.html"),
        ):
            done = call(*command)
            assert done.exit_code == 1 and "another run is at work with these records" in done.stderr, done.output
        with pytest.raises(
            UserError, match="records.jsonl does not exist"
        ):  # a report of what is there can be had meanwhile
            study_steps.run(study, ("report",))

    study_steps.run(study, (step,), {step: study_steps.Step(work)})
    assert not (tmp_path / "p.html").exists()


@pytest.mark.parametrize(
    ("command", "option"),
    [
        *(
            (f"experiment {name}", option)
            for name in ("batch-size", "data-size", "ladder")
            for option in ("--records", "--run")
        ),
        ("study", "--out"),
        ("profile --only lines", "--out"),
        ("profile --only lines", "--records"),
    ],
)
def test_outputs_are_checked_before_anything_is_measured(command, option, place, clips):
    (place / "file").touch()
    given = () if command.startswith("profile") else ("--data", clips, "--device", "cpu")
    given += {
        "experiment batch-size": ("--batch-sizes", 8, "--clips", 64),
        "experiment data-size": ("--clips", 64),
    }.get(command, ())
    done = call(*command.split(), *given, option, place / "file" / "x.html")
    assert done.exit_code == 1 and "cannot be written" in done.stderr and f"another {option}" in done.stderr
    assert not FakeTrainer.made and not list(place.rglob("*.jsonl"))


@pytest.mark.parametrize("place_of", ["mel.html", "report.html", "ladder/trials.jsonl", "steps/trials.jsonl"])
def test_the_study_checks_the_outputs_of_its_last_steps_first(place_of, tmp_path):
    (tmp_path / place_of).mkdir(parents=True)
    study = study_steps.Study(tmp_path, silent, "cpu", quick=True)
    with pytest.raises(UserError, match=f"{place_of} is a folder"):
        study_steps.run(study, steps={name: step._replace(run=pytest.fail) for name, step in study_steps.STEPS.items()})


def test_features_beyond_the_memory_are_refused_before_anything_is_measured(place, clips, monkeypatch):
    monkeypatch.setattr(batches, "available_bytes", lambda device: 120 * FEATURE_BYTES)
    given = ("--data", clips, "--device", "cpu", "--clips")
    small = ("--trials", 2, "--epochs", 1, "--batch-sizes", 8)
    assert call("experiment", "batch-size", *given, 64, *small).exit_code == 0
    FakeTrainer.made.clear()
    done = call("experiment", "ladder", *given, 64, "--batch-size", 8)
    message = "the features of 64 clips, kept 6 times, take 0.0124 GB, and this machine has 0.00387 GB free"
    assert done.exit_code == 1 and message in done.stderr and "choose a smaller --clips" in done.stderr
    monkeypatch.setattr(batches, "available_bytes", lambda device: 64 * FEATURE_BYTES)
    done = call("experiment", "data-size", *given, "32,64", *small)
    assert done.exit_code == 1 and "choose a smaller --clips, or --pipeline original" in done.stderr
    assert call("experiment", "batch-size", *given, 64, *small).exit_code == 0, "what is done needs no memory"
    done = call("study", "--quick", "--data", clips, "--device", "cpu", "--out", place / "out")
    assert done.exit_code == 1 and "the features of 512 clips" in done.stderr and "--quick, or the steps" in done.stderr
    assert not FakeTrainer.made
    assert call("experiment", "data-size", *given, "32,64", *small, "--pipeline", "original").exit_code == 0


@pytest.mark.parametrize(("step", "n"), [("batch-size", 512), ("data-size", 512), ("ladder", 256)])
def test_the_quick_steps_ask_for_few_clips(step, n, place, clips):
    study = study_steps.Study(place / "out", silent, "cpu", True, clips)
    with pytest.raises(UserError, match=f"holds 64 clips and {n} are needed"):
        study_steps.run(study, (step,))


class _Stopping(study_steps.Study):
    """A study whose seconds are over when it has asked `calls` times whether it may go on."""

    calls: list[None] = []

    def proceed(self):
        if not self.calls:
            raise study_steps.TimeOver
        self.calls.pop()


def _stopping(calls, *arguments, **options):
    _Stopping.calls = [None] * calls
    return _Stopping(*arguments, seconds=60, **options)


def test_after_its_seconds_a_study_begins_no_step(tmp_path):
    seen = []
    steps = {name: study_steps.Step(lambda study, name=name: seen.append(name)) for name in "abc"}
    with pytest.raises(UserError, match="--seconds 60 are over; not finished: b, c; .* the same command goes on"):
        study_steps.run(_stopping(1, tmp_path, silent, "cpu"), tuple("abc"), steps)
    assert seen == ["a"]
    with pytest.raises(UserError, match="--seconds 0 are over; not finished: a, b, c;"):
        study_steps.run(study_steps.Study(tmp_path, silent, "cpu", seconds=0), tuple("abc"), steps)
    study_steps.run(study_steps.Study(tmp_path, silent, "cpu", seconds=3600), tuple("abc"), steps)
    assert seen == ["a", "a", "b", "c"]


@pytest.mark.parametrize("step", ["batch-size", "ladder"])
def test_after_its_seconds_no_trial_begins_and_the_same_command_goes_on(step, place, clips, monkeypatch):
    quick = {
        "batch-size": {"trials": 2, "epochs": 1, "clips": (64,), "task": "type", "batch_sizes": (4, 8)},
        "ladder": {"num_items": 64, "rounds": 1},
    }
    monkeypatch.setattr(study_steps, "QUICK", quick)
    options = (place / "out", silent, "cpu", True, clips)
    # One question for the step; an experiment asks before each trial, a ladder after each epoch that is not the last.
    with pytest.raises(UserError, match=f"not finished: {step}, report;"):
        study_steps.run(_stopping(3, *options), (step, "report"))
    trials = place / "out" / step / "trials.jsonl"
    first = records.load(trials)[0]
    assert len(first) == (2 if step == "batch-size" else 3) and not (place / "out/records.jsonl").exists()
    study_steps.run(study_steps.Study(*options, seconds=3600), (step,))
    assert records.load(trials)[0][: len(first)] == first and records.load(place / "out/records.jsonl")[0]
    done = len(records.load(trials)[0])
    study_steps.run(_stopping(1, *options), (step,))  # nothing is missing, so nothing begins
    assert len(records.load(trials)[0]) == done


def test_after_its_seconds_mel_begins_no_group(place, monkeypatch):
    from triadbench.bench.commands import profile

    groups = []

    def run_mel(page, path, contest, effort, *, progress, note):
        for number in range(4):
            progress(number, 4)
            groups.append(number)
        progress(4, 4)

    monkeypatch.setattr(profile, "run_mel", run_mel)
    with pytest.raises(UserError, match="not finished: mel;"):
        study_steps.run(_stopping(3, place / "out", silent, "cpu"), ("mel",))
    assert groups == [0, 1]
    study_steps.run(_stopping(5, place / "out", silent, "cpu"), ("mel",))  # the step and four groups


def test_lines_and_layers_begin_on_no_further_device(tmp_path, monkeypatch):
    monkeypatch.setattr(study_steps.protocol, "choose_devices", lambda name: ("cpu", "cuda"))
    calls = []
    with pytest.raises(study_steps.TimeOver):
        study_steps._once(_stopping(1, tmp_path, silent), "lines", two_records(calls))
    assert calls == ["cpu"]


def test_the_command_takes_the_seconds(place, monkeypatch):
    seen = []
    monkeypatch.setattr(
        study_steps, "run", lambda study, names: seen.append(study.seconds) or {"steps": [], "page": ""}
    )
    assert call("study", "--seconds", 90).exit_code == 0 and call("study").exit_code == 0
    assert seen == [90, None]
    assert call("study", "--seconds", 0).exit_code == 2
