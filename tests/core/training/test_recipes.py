"""Each recipe trains as it says: split, order, rate, loss and choice of the best; and the original's two networks."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.core.runs import Killed, original, ours
from tests.core.toys import write_pack, write_set
from triadbench.core.data.dataset import open_dataset
from triadbench.core.data.splits import grouped_split
from triadbench.core.errors import UserError
from triadbench.core.models import checkpoint as checkpoints
from triadbench.core.models.chords import ClipName
from triadbench.core.models.networks import ChordNet, original_loss_floor
from triadbench.core.models.targets import allowed_classes, parse_label, sounding
from triadbench.core.models.vocabulary import N_CLASSES
from triadbench.core.training.batches import CachedSource
from triadbench.core.training.draws import Draws
from triadbench.core.training.epoch import OriginalRun
from triadbench.core.training.settings import ORIGINAL_PIPELINE, RECIPES, TrainConfig, fast_pipeline
from triadbench.core.training.step import TrainingStep
from triadbench.core.training.train import (
    ChordRun,
    augment,
    augmentation,
    make_optimizer,
    right_answers,
    schedule,
    targets_of,
    train,
    train_tasks,
)
from triadbench.kernels.spec import CHORD, ORIGINAL


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return write_pack(tmp_path_factory.mktemp("recipes") / "pack", 48)


# --- recipes ---------------------------------------------------------------------------------------------------------


def test_the_original_recipe_is_the_studys():
    config = TrainConfig("data", "out", recipe="original", task="root").resolved()
    assert (config.epochs, config.batch_size, config.learning_rate) == (30, 32, 1e-5)
    assert (config.split, config.test_fraction, config.split_seed) == ("random", 0.3, 13)
    assert (config.seed, config.pipeline) == (13, "fast")
    recipe = RECIPES["original"]
    assert recipe.spec == ORIGINAL
    for switches in (ORIGINAL_PIPELINE, fast_pipeline("cpu")):
        model = checkpoints.build_model("original", "root")
        optimizer = TrainingStep(model, 1e-5, switches, torch.device("cpu")).optimizer
        assert type(optimizer) is torch.optim.Adam and optimizer.defaults["lr"] == 1e-5
        assert optimizer.defaults["betas"] == (0.9, 0.999) and optimizer.defaults["weight_decay"] == 0


def test_our_recipe():
    config = TrainConfig("data", "out").resolved()
    assert config.split == "grouped" and RECIPES["ours"].spec == CHORD
    model = checkpoints.build_model("chordnet", "both")
    optimizer = make_optimizer(model, 1e-3)
    assert type(optimizer) is torch.optim.AdamW
    decayed, plain = optimizer.param_groups
    assert decayed["weight_decay"] > 0 == plain["weight_decay"]
    assert all(p.ndim > 1 for p in decayed["params"]) and all(p.ndim <= 1 for p in plain["params"])
    assert len(decayed["params"]) + len(plain["params"]) == len(list(model.parameters()))


def test_our_schedule_warms_up_and_falls_to_nothing():
    shares = np.linspace(0, 1, 201)
    factors = np.array([schedule(share) for share in shares])
    top = int(factors.argmax())
    assert shares[top] == pytest.approx(0.05) and factors[top] == pytest.approx(1)
    assert 0 < factors[0] < 0.03 and factors[-1] == pytest.approx(0, abs=1e-9)
    assert (np.diff(factors[: top + 1]) > 0).all() and (np.diff(factors[top:]) < 0).all()
    assert schedule(0.525) == pytest.approx(0.5)


def watch(monkeypatch):
    """What the steps and tests of a run see, of either recipe."""
    seen = {"steps": [], "tests": [], "rates": []}
    step, test = ChordRun.step, ChordRun.test
    original_step, original_test, batches = TrainingStep.__call__, OriginalRun.test, CachedSource.batches

    def watched_original_step(self, *arguments, **options):
        seen["rates"].append([group["lr"] for group in self.optimizer.param_groups])
        return original_step(self, *arguments, **options)

    def watched_batches(self, parts, *arguments):
        seen["batches"] = [rows.tolist() for rows in parts]
        if self.training:
            seen["steps"] += seen["batches"]
        return batches(self, parts, *arguments)

    def watched_original_test(self):
        self.epochs.source.training = False
        result = original_test(self)
        seen["tests"].append(sum(seen["batches"], []))
        self.epochs.source.training = True
        return result

    monkeypatch.setattr(TrainingStep, "__call__", watched_original_step)
    monkeypatch.setattr(CachedSource, "batches", watched_batches)
    monkeypatch.setattr(CachedSource, "training", True, raising=False)
    monkeypatch.setattr(OriginalRun, "test", watched_original_test)

    def watched_step(self, crops):
        seen["steps"].append(crops.rows.tolist())
        seen["rates"].append([group["lr"] for group in self.optimizer.param_groups])
        return step(self, crops)

    def watched_test(self):
        seen["tests"].append([row for crops in self.test_crops for row in crops.rows.tolist()])
        return test(self)

    monkeypatch.setattr(ChordRun, "step", watched_step)
    monkeypatch.setattr(ChordRun, "test", watched_test)
    return seen


def test_the_original_takes_the_random_split_and_a_constant_rate(pack, tmp_path, monkeypatch):
    seen = watch(monkeypatch)
    record = train(original(pack, tmp_path / "run", epochs=2, batch_size=None))
    train_rows, test_rows = Draws(48, 4, 13, n_all=48).rows
    assert [len(rows) for rows in seen["steps"]] == [32, 2] * 2
    assert [len(rows) for rows in seen["batches"]] == [14]
    epochs = [sum(seen["steps"][0:2], []), sum(seen["steps"][2:4], [])]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(train_rows.tolist()) and epochs[0] != epochs[1]
    assert seen["tests"] == [test_rows.tolist()] * 2
    assert {rate for rates in seen["rates"] for rate in rates} == {1e-5}
    point = record["curves"][0]
    assert min(point["train_loss"], point["test_loss"]) > original_loss_floor(4)
    wanted = {"epoch", "train_loss", "train_type_accuracy", "test_loss", "test_type_accuracy", "seconds"}
    assert set(point) == wanted and 0 < point["train_type_accuracy"] < 1


def test_ours_takes_the_grouped_split_and_the_schedule(pack, tmp_path, monkeypatch):
    seen = watch(monkeypatch)
    record = train(ours(pack, tmp_path / "run", epochs=1, batch_size=5))
    train_rows, test_rows, _ = grouped_split(open_dataset(pack).clips, 0.25, 13)
    assert seen["tests"] == [test_rows.tolist()]
    assert record["n_train"] == len(train_rows) == 36
    # 36 clips are seven batches and a single clip, from which batch normalisation has nothing to learn.
    assert [len(rows) for rows in seen["steps"]] == [5] * 7
    assert len(set(sum(seen["steps"], []))) == 35 and set(sum(seen["steps"], [])) <= set(train_rows.tolist())
    wanted = [3e-3 * schedule(step / 8) for step in range(7)]
    assert [rates[0] for rates in seen["rates"]] == pytest.approx(wanted)
    assert {"test_type_accuracy", "test_root_accuracy"} <= set(record["curves"][0])


def test_another_seed_gives_another_order(pack, tmp_path, monkeypatch):
    seen = watch(monkeypatch)
    for seed in (1, 2):
        train(original(pack, tmp_path / str(seed), epochs=1, batch_size=None, seed=seed))
    assert sorted(seen["steps"][0] + seen["steps"][1]) == sorted(seen["steps"][2] + seen["steps"][3])
    assert seen["steps"][0] != seen["steps"][2]


def test_the_best_checkpoint_is_that_of_the_best_epoch(pack, tmp_path, monkeypatch):
    scores = iter([0.5, 0.7, 0.9, 0.9])
    losses = iter([1.0, 0.8, 0.9, 0.8])  # accuracy says less: few clips decide it, and ties are common
    monkeypatch.setattr(
        OriginalRun, "test", lambda self: {"test_loss": next(losses), "test_type_accuracy": next(scores)}
    )
    after_two = {}

    def keep(event):
        if event["stage"] == "train" and event["epoch"] == 3:
            after_two.update(load_file(tmp_path / "run" / "last.safetensors"))

    record = train(original(pack, tmp_path / "run", epochs=4), progress=keep)
    assert record["best_epoch"] == 2
    best, last = (load_file(tmp_path / "run" / f"{name}.safetensors") for name in ("best", "last"))
    assert all(torch.equal(best[key], after_two[key]) for key in best)
    assert not all(torch.equal(best[key], last[key]) for key in best)


@pytest.mark.parametrize(
    ("label", "answer", "right"),
    [
        ("C:maj", "C:7", (True, True)),
        ("C:maj", "E:maj", (True, False)),
        ("C:maj", "C:min7", (False, True)),
        ("C:maj", "N", (False, False)),
        ("C:maj", "C:5", (False, False)),
        ("C:sus4", "G:5", (True, True)),  # neither has a triad
        ("N", "C:1", (True, True)),
        ("N", "C:maj", (False, False)),
        ("E:aug/3", "Ab:aug", (True, True)),
        ("E:aug", "Ab:aug", (True, False)),
        ("A:min7/b3", "C:maj", (True, True)),
    ],
)
def test_an_answer_is_right_in_type_and_root_by_its_triad(label, answer, right):
    chords = torch.zeros(1, N_CLASSES)
    chords[0, parse_label(answer)[0]] = 20
    types, roots = right_answers(chords, targets_of([label])[0])
    assert (types.tolist(), roots.tolist()) == ([right[0]], [right[1]])


def test_labels_come_from_the_clips_names(tmp_path):
    names = [ClipName(0, 3, 5, "m", voicing="inv1"), ClipName(0, 3, 5, "m", voicing="root"), ClipName(1, 0, 5, "m")]
    data = open_dataset(write_set(tmp_path / "set", names))
    order = [data.clips.index(clip) for name in names for clip in data.clips if clip.name.voicing == name.voicing]
    config = TrainConfig("data", tmp_path / "out").resolved()
    rows = np.array(order[:2]), np.array(order[2:])
    run = ChordRun(config, ChordNet(width=2, hidden=8), data, rows, torch.device("cpu"), lambda event: None)
    allowed, bass, notes = run._targets_of(run.crops.whole(np.arange(3), 0)[0])
    wanted = {"inv1": ("Ab:aug/3", 4), "root": ("Ab:aug", 0)}
    for row, clip in enumerate(data.clips):
        label, lowest = wanted[clip.name.voicing] if clip.name.type == 3 else ("A:maj", 1)
        assert allowed[row].tolist() == allowed_classes(label).tolist() and int(bass[row]) == lowest
        assert notes[row].tolist() == sounding(label).tolist() and notes[row].sum() == 3


# --- augmentation ----------------------------------------------------------------------------------------------------


def test_augmentation_is_a_tone_curve_and_a_floor():
    torch.manual_seed(0)
    mel = torch.randn(4, 192, 30) - 25
    mel[:, :, 10] += 25  # one loud frame; the rest lies under any floor
    out = augment(mel, *augmentation(4))
    assert out.shape == mel.shape and torch.isfinite(out).all()
    loudest = mel.amax(dim=(1, 2))
    quiet = out[:, :, 20:]
    for k in range(4):
        assert float(quiet[k].std()) < 0.1 and -18.2 < float(quiet[k].mean() - loudest[k]) < -3.8
    torch.manual_seed(1)
    steady = torch.zeros(4, 192, 30) + torch.tensor([0.0, 1e3, 2e3, 3e3]).view(4, 1, 1)
    curve = augment(steady, *augmentation(4)) - steady
    assert torch.allclose(curve, curve[:, :, :1].expand_as(curve)) and float(curve.std(dim=1).min()) > 0.3
    assert float(curve.diff(dim=1).abs().max()) < 0.3  # smooth over frequency
    assert not torch.allclose(curve[0], curve[1], atol=0.1)


# --- both networks of the original -----------------------------------------------------------------------------------


def test_both_tasks_of_the_original_are_two_runs(monkeypatch, tmp_path):
    calls = []

    def train_one(config, **options):
        calls.append((config, options))
        return config.task

    settings = {"data": "set", "out": tmp_path, "recipe": "original", "seed": 4}
    assert train_tasks(settings, "both", True, print, train_one) == {"type": "type", "root": "root"}
    assert [config.out for config, _ in calls] == [tmp_path / "type", tmp_path / "root"]
    assert all(config.seed == 4 and options == {"resume": True, "progress": print} for config, options in calls)
    assert (
        train_tasks(settings, "root", False, train_one=train_one) == {"root": "root"} and calls[-1][0].out == tmp_path
    )
    assert (
        train_tasks({**settings, "recipe": "ours"}, "both", False, train_one=train_one) == {"both": "both"}
        and calls[-1][0].out == tmp_path
    )


def test_an_interrupted_pair_goes_on_with_whichever_is_unfinished(pack, tmp_path):
    settings = {"data": pack, "out": tmp_path / "pair", "recipe": "original", "epochs": 1}
    stages = []

    def kill(event):
        stages.append(event["stage"])
        if stages.count("train") == 2:
            raise Killed

    with pytest.raises(Killed):
        train_tasks(settings, "both", False, kill)
    written = (tmp_path / "pair" / "type" / "last.safetensors").stat().st_mtime_ns
    assert not (tmp_path / "pair" / "root" / "last.safetensors").exists()
    results = train_tasks(settings, "both", True)
    assert {task: len(record["curves"]) for task, record in results.items()} == {"type": 1, "root": 1}
    assert (tmp_path / "pair" / "type" / "last.safetensors").stat().st_mtime_ns == written
    assert checkpoints.load(tmp_path / "pair" / "root" / "best.safetensors").task == "root"


def test_our_network_needs_two_clips_a_step():
    with pytest.raises(UserError, match="batch_size=1"):
        TrainConfig("data", "out", batch_size=1).resolved()
