"""A study that is interrupted anywhere goes on where it was, counts no trial twice, and drops each figure's first."""

from __future__ import annotations

import collections
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.bench.study.fakes import CLIPS, FakeMonitor, FakeTrainer, make_clips, run, small
from triadbench.bench import records
from triadbench.bench.analysis import experiments as analysis
from triadbench.bench.study.protocol import Case
from triadbench.bench.study.session import Remaining, TrialLog, duration, make_trainer
from triadbench.core.errors import UserError
from triadbench.core.files import only_one

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return make_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(autouse=True)
def forget():
    FakeTrainer.made.clear()


def start(what: str, folder: Path, clips: Path, sleep_s: float) -> subprocess.Popen:
    program = [sys.executable, "-m", "tests.bench.study.fakes", what, str(folder), str(clips), str(sleep_s)]
    return subprocess.Popen(program, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def wait_for_lines(process: subprocess.Popen, path: Path, n: int) -> None:
    end = time.monotonic() + 60
    while not (path.exists() and path.read_bytes().count(b"\n") >= n):
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < end
        time.sleep(0.01)


def kill(process: subprocess.Popen, how: int) -> None:
    process.send_signal(how)
    process.wait(60)
    process.stderr.close()


def counted(path: Path) -> collections.Counter:
    found, _ = records.load(path)
    return collections.Counter(json.dumps(line["parameters"], sort_keys=True) for line in found)


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL on Windows")
def test_killed_twice_in_a_trial_it_goes_on_and_counts_nothing_twice(tmp_path, clips):
    trials = tmp_path / "run" / "trials.jsonl"
    for lines in (3, 7):
        process = start("experiment", tmp_path, clips, 0.03)
        wait_for_lines(process, trials, lines)
        kill(process, signal.SIGKILL)
    before = len(records.load(trials)[0])
    with open(trials, "ab") as file:
        file.write(b'{"schema": 1, "name": "trial", "para')  # as if it had died in a write
    notes = []
    result = run(tmp_path, clips, small(), note=notes.append)
    assert result["kept"] == before >= 7 and result["kept"] + result["measured"] == 2 * 2 * 2 * 3
    assert any("half line" in note for note in notes)
    assert set(counted(trials).values()) == {1}
    assert len(counted(trials)) == 24
    assert run(tmp_path, clips, small())["measured"] == 0


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT to another process on Windows")
def test_ctrl_c_keeps_finished_trials(tmp_path, clips):
    process = start("experiment", tmp_path, clips, 0.03)
    wait_for_lines(process, tmp_path / "run" / "trials.jsonl", 2)
    kill(process, signal.SIGINT)
    assert run(tmp_path, clips, small())["kept"] >= 2


def test_the_first_trial_is_dropped_and_kept_apart(tmp_path, clips):
    result = run(tmp_path, clips, small(batch_sizes=(8,), task="type", pipeline="fast"))
    train, test = result["figures"]
    # One warm-up trainer, then three trials: trainers 2, 3 and 4, whose epochs take 2, 3 and 4 seconds.
    assert train["first_call"] == 2 and train["samples"] == [3, 4]
    assert train["epoch_seconds"] == [[3, 3], [4, 4]] and test["samples"] == [1.5, 2]
    assert train["parameters"]["phase"] == "train" and test["parameters"]["phase"] == "test"
    assert (train["n_clips"], test["n_clips"]) == (45, 19)


def test_a_disturbed_trial_is_run_again_twice_at_most_and_stays_in_the_record(tmp_path, clips):
    """The dropped trial may be disturbed; of the next one the third attempt counts, of the last one none."""
    FakeMonitor.others += [6400.0, *[6400.0, 6400.0, 0.0], *[6400.0] * 3]
    notes = []
    result = run(tmp_path, clips, small(batch_sizes=(8,), task="type", pipeline="fast"), note=notes.append)
    train, test = result["figures"]
    assert train["first_call"] == 2 and train["samples"] == [5] and test["samples"] == [2.5] and not train["disturbed"]
    late = [(line["trial"], line["epoch_seconds"][0], line["disturbed"]) for line in train["disturbed_trials"]]
    words = "other processes used 6400 % of a core"
    assert late == [(1, 3, words), (1, 4, words), (2, 6, words), (2, 7, words), (2, 8, words)]
    assert len(train["monitor"]) == 1 and sum(words in note for note in notes) == 5
    again = run(tmp_path, clips, small(batch_sizes=(8,), task="type", pipeline="fast"))
    assert again["measured"] == 0 and again["appended"] == 0


def test_a_figure_whose_every_trial_was_disturbed_has_no_mean(tmp_path, clips):
    FakeMonitor.others += [6400.0] * 4
    (train, _) = run(tmp_path, clips, small(batch_sizes=(8,), task="type", pipeline="fast", trials=2))["figures"]
    assert train["samples"] == [] and train["disturbed"] and len(train["disturbed_trials"]) == 3
    assert analysis.ours([train]) == []


def test_a_finished_setting_is_in_the_records_while_the_next_one_is_measured(tmp_path, clips):
    class Stop(Exception):
        pass

    def proceed():
        if len(FakeTrainer.made) > 4 + 12:  # the warm-up's, and the first setting's
            raise Stop

    with pytest.raises(Stop):
        run(tmp_path, clips, small(), proceed=proceed)
    made, _ = records.load(tmp_path / "records.jsonl")
    assert {record["parameters"]["batch_size"] for record in made} == {4} and len(made) == 8
    assert run(tmp_path, clips, small())["appended"] == 8


def test_types_are_timed_with_the_network_that_the_original_timed(tmp_path, clips):
    for options, classes in (({}, 12), ({"type_classes": 4}, 4)):
        FakeTrainer.made.clear()
        result = run(tmp_path, clips, small(batch_sizes=(8,), task="type", trials=2, **options))
        assert {made["n_classes"] for made in FakeTrainer.made[2:]} == {classes}
        assert {record["parameters"]["n_classes"] for record in result["figures"]} == {classes}
        assert result["measured"] == 4


def test_records_carry_the_label_and_are_appended_once(tmp_path, clips):
    first = run(tmp_path, clips, small())
    again = run(tmp_path, clips, small())
    made, problems = records.load(tmp_path / "records.jsonl")
    assert not problems and (first["appended"], again["appended"]) == (16, 0) and len(made) == 16
    label = (
        "short: 3 trials, not 6; 2 epochs a trial, not 5; 64 clips, not 8,192; "
        "batch size 4 and 8, not 32 or 64 or 128 or 256"
    )
    assert {record["parameters"]["protocol"] for record in made} == {label} == {first["protocol"]}
    assert label in analysis.text(made)
    wanted = {
        "experiment",
        "task",
        "batch_size",
        "num_items",
        "device",
        "pipeline",
        "phase",
        "n_classes",
        "epochs",
        "trials",
        "protocol",
    }
    assert all(set(record["parameters"]) == wanted for record in made)


def test_more_trials_go_on_from_fewer(tmp_path, clips):
    run(tmp_path, clips, small(trials=2))
    more = run(tmp_path, clips, small(trials=4))
    assert (more["kept"], more["measured"]) == (16, 16)


def test_pipelines_read_the_same_clips_as_files_and_as_a_pack(tmp_path, clips):
    seen = {}

    def maker(dataset, **given):
        seen[dataset.kind] = dataset
        return FakeTrainer(dataset, **given)

    run(tmp_path, clips, small(batch_sizes=(8,), trials=2), maker)
    folder, pack = seen["folder"], seen["pack"]
    assert [clip.member for clip in folder.clips] == [clip.member for clip in pack.clips]
    for index in (0, 17, CLIPS - 1):
        assert (folder.read(index) == pack.read(index)).all()


def test_a_folder_is_mixed_and_packed_in_the_same_order(tmp_path, clips):
    run(tmp_path / "a", clips, small(batch_sizes=(8,), trials=2))
    wavs = next((clips.parent / "made").glob("*-wav"))
    seen = {}

    def maker(dataset, **given):
        seen[dataset.kind] = dataset
        return FakeTrainer(dataset, **given)

    run(tmp_path / "b", wavs, small(batch_sizes=(8,), trials=2), maker, data_folder=tmp_path / "made")
    names = [clip.member for clip in seen["pack"].clips]
    assert names == [clip.member for clip in seen["folder"].clips] != sorted(names)
    assert (seen["pack"].read(5) == seen["folder"].read(5)).all()


def test_other_clips_do_not_count(tmp_path, clips):
    run(tmp_path, clips, small())
    other = make_clips(tmp_path / "other")
    (other / "index.jsonl").write_text((other / "index.jsonl").read_text().replace('"r', '"q'))
    notes = []
    assert run(tmp_path, other, small(), note=notes.append)["kept"] == 0
    assert any("24 trials of other code, clips or another machine are not counted" in note for note in notes)


def test_too_few_clips(tmp_path, clips):
    with pytest.raises(UserError, match="holds 64 clips and 128 are needed; give more clips or a smaller --clips"):
        run(tmp_path, clips, small(clips=(128,)))


def test_a_folder_in_use_is_refused(tmp_path, clips):
    pytest.importorskip("fcntl")
    with only_one(tmp_path / "run"), pytest.raises(UserError, match="another run is at work here"):
        run(tmp_path, clips, small())


def test_a_trial_is_not_added_twice(tmp_path):
    log = TrialLog(tmp_path, "f")
    log.add({"trial": 0}, [1.0])
    with pytest.raises(ValueError, match="finished already"):
        log.add({"trial": 0}, [2.0])
    assert TrialLog(tmp_path, "f").find({"trial": 0})["samples"] == [1.0]
    assert TrialLog(tmp_path, "g").find({"trial": 0}) is None


def test_the_first_trial_gives_an_estimate(tmp_path, clips):
    notes = []
    run(tmp_path, clips, small(), note=notes.append)
    assert sum("23 more will take about" in note for note in notes) == 1


def test_time_left_takes_the_nearest_kind_and_scales_with_clips():
    case = Case("data-size", "type", 32, 4096, "cpu", "original")
    left = Remaining()
    assert left.text([case]) == ""
    left.saw(case, 100.0)
    left.saw(case.__class__(**{**case.__dict__, "pipeline": "fast"}), 10.0)
    larger = case.__class__(**{**case.__dict__, "num_items": 8192})
    fast = case.__class__(**{**larger.__dict__, "pipeline": "fast"})
    assert left.seconds([case, larger, fast]) == pytest.approx(100 + 200 + 20)
    assert [duration(s) for s in (4.2, 90, 1500, 11_400)] == ["4.2 s", "90 s", "25 min", "3 h 10 min"]


def test_a_real_trial_end_to_end(tmp_path, clips):
    made = small(batch_sizes=(16,), trials=2, epochs=1, task="type")
    result = run(tmp_path, clips, made, make_trainer)
    figures = {(r["parameters"]["pipeline"], r["parameters"]["phase"]): r for r in result["figures"]}
    assert len(figures) == 4 and all(r["samples"][0] > 0 for r in figures.values())
    original, fast = figures["original", "test"], figures["fast", "test"]
    assert original["test_loss"] == pytest.approx(fast["test_loss"], abs=1e-4), "both pipelines train the same network"


@pytest.mark.gpu
def test_a_real_trial_on_the_gpu(tmp_path, clips):
    made = small(batch_sizes=(16,), trials=2, epochs=1, task="type", device="all")
    result = run(tmp_path, clips, made, make_trainer)
    losses = {(r["parameters"]["device"], r["parameters"]["pipeline"]): r["test_loss"] for r in result["figures"]}
    assert len(losses) == 4
    assert all(loss == pytest.approx(losses["cpu", "original"], abs=5e-3) for loss in losses.values())
    assert "GPU/CPU fast" in analysis.text(result["figures"])
