"""The final training goes on after any interruption, and its records stand beside the original's 60 epochs."""

from __future__ import annotations

import json

import pytest

from tests.bench.study.fakes import CLIPS, FakeMonitor, make_clips, settings
from triadbench.bench import records
from triadbench.bench.analysis import final as analysis
from triadbench.bench.analysis import gather, published
from triadbench.bench.report import report
from triadbench.bench.study import final as finals
from triadbench.bench.study.final import Final
from triadbench.core.constants import ALL_CLIPS
from triadbench.core.errors import UserError
from triadbench.core.models import checkpoint as checkpoints


class Stop(Exception):
    pass


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return make_clips(tmp_path_factory.mktemp("final"))


@pytest.fixture(autouse=True)
def quiet_too(monkeypatch):
    monkeypatch.setattr(finals, "Monitor", FakeMonitor)


def small(**changes):
    return Final(**{"clips": CLIPS, "epochs": 3, "original_epochs": 1, "tasks": ("type",), **changes})


def run(folder, clips, plan, **changes):
    return finals.run(plan, settings(folder, clips, maker=None, **changes))


def test_killed_between_epochs_it_goes_on_to_the_same_result(tmp_path, clips):
    whole = run(tmp_path / "whole", clips, small())
    notes = []

    def killed(text):
        if "epoch 2" in text:
            raise Stop

    with pytest.raises(Stop):
        run(tmp_path / "cut", clips, small(), note=killed)
    result = run(tmp_path / "cut", clips, small(), note=notes.append)
    told = [note.split(":")[0] for note in notes[1:]]
    assert told == ["fast type, epoch 2 of 3", "fast type, epoch 3 of 3", "original type, epoch 1 of 1"]
    for one, other in zip(result["figures"], whole["figures"], strict=True):
        for key in ("train_loss", "train_accuracy", "test_loss", "test_accuracy"):
            assert one[key] == other[key] and len(one[key]) == one["parameters"]["epochs"]
    fast, original = result["figures"]
    assert fast["n_clips"] == 45 and fast["n_test"] == 19
    assert fast["train_loss"][0] == pytest.approx(original["train_loss"][0], rel=1e-4), (
        "the same clips in the same order"
    )
    assert len(fast["monitor"]) == 3 and fast["wall_s"] == 3.0 and fast["disturbed"] is None
    assert fast["extrapolated_s"] is None and original["extrapolated_s"] == 3 * original["samples"][0]
    assert result["appended"] == 2 and run(tmp_path / "cut", clips, small())["appended"] == 0
    model = checkpoints.load(tmp_path / "cut" / "run" / "fast-cpu" / "type" / "final.safetensors")
    assert model.task == "type"


def test_a_disturbed_epoch_is_named(tmp_path, clips):
    FakeMonitor.others += [0.0, 6400.0]
    (fast,) = run(tmp_path, clips, small(original_epochs=0))["figures"]
    assert fast["disturbed_epochs"] == [2] and fast["disturbed"] == "other processes used 6400 % of a core"
    first, _, third = fast["samples"]
    assert analysis.trainings([fast])[1].quiet_s == [first, third]
    assert "other work disturbed, or other code timed, 1 of " in analysis.text([fast])


def test_epochs_that_other_code_timed_are_not_called_undisturbed(tmp_path, clips, monkeypatch):
    run(tmp_path, clips, small(original_epochs=0))
    monkeypatch.setattr("triadbench.bench.study.session.fingerprint", lambda *_: "other code")
    (fast,) = run(tmp_path, clips, small(original_epochs=0))["figures"]
    assert fast["disturbed_epochs"] == [1, 2, 3] and "other code" in fast["disturbed"] and fast["wall_s"] is None
    assert "(epochs alone)" in analysis.text([fast])


def test_the_originals_epochs_stand_beside_ours(tmp_path, clips):
    made = run(tmp_path, clips, small(tasks=("type", "root")))["figures"]
    text = analysis.text(made)
    assert "91.4 %" in text and "81.1 %" in text and "284.2" in text and "(extrapolated from 1 epoch)" in text
    assert max(map(len, text.split("\n\n")[1].splitlines())) < 120, "a table of epochs fits a terminal"
    assert "short: 64 clips, not 86,400; 3 epochs, not 30" in text
    head, rows = analysis.by_epoch(made)["root"]
    assert len(rows) == 3 and len(head) == 10 and rows[0][1] == "41.20 %" and rows[1][7] == "—"
    assert rows[2][4] == f"{100 * made[1]['test_accuracy'][2]:.2f} %"
    assert len(gather.gather([tmp_path / "records.jsonl"]).machines[0].records) == 4
    result = report.write_report([tmp_path / "records.jsonl"], tmp_path / "page.html")
    assert "final" in result["machines"][0]["chapters"] and not result["problems"]
    assert "final training, again" in (tmp_path / "page.html").read_text()


def test_the_published_epochs():
    for task, total in analysis.TOTAL_S.items():
        epochs = published.final_epochs(task)
        assert [epoch["epoch"] for epoch in epochs] == list(range(1, 31))
        assert sum(epoch["elapsed_s"] for epoch in epochs) == pytest.approx(total, rel=1e-3)


def test_defaults_are_the_originals_and_labels_say_what_is_not():
    assert Final().protocol() == "full" and Final().clips == ALL_CLIPS and Final().epochs == 30
    assert Final(epochs=2).protocol() == "short: 2 epochs, not 30"
    with pytest.raises(UserError, match="3 epochs of the original pipeline of 2: give fewer"):
        Final(epochs=2, original_epochs=3)


def test_half_of_the_rendered_clips_are_amplifier_copies(tmp_path):
    run(tmp_path, None, small(clips=7, epochs=1, original_epochs=0), data=None, data_folder=tmp_path / "study")
    (pack,) = (tmp_path / "study").glob("*.pack")
    files = [json.loads(line) for line in (pack / "index.jsonl").read_text().splitlines()]
    assert pack.name == "doubled-8.pack" and len(files) == 8
    assert [entry["file"].split("_")[0] for entry in files] == ["piano", "shred"] * 4
    assert all(one["recording"] == copy["recording"] for one, copy in zip(files[::2], files[1::2], strict=True))
    assert records.load(tmp_path / "records.jsonl")[0][0]["data"]["origin"] == "rendered"
