"""Training follows its recipe, and one that was cut off at any moment ends with the same bits as one that was not."""

import json
import math
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.core.runs import Killed, killer, original, ours
from tests.core.toys import small_net, write_excerpts, write_pack
from triadbench.core.data.dataset import open_dataset
from triadbench.core.data.excerpts import open_excerpts
from triadbench.core.data.splits import grouped_split
from triadbench.core.errors import UserError
from triadbench.core.files import PACKAGE
from triadbench.core.models import checkpoint as checkpoints
from triadbench.core.models.networks import chord_loss, original_loss
from triadbench.core.models.prediction import REDUCTION
from triadbench.core.models.targets import label_of
from triadbench.core.training import train as training
from triadbench.core.training.draws import Draws
from triadbench.core.training.settings import RECIPES
from triadbench.core.training.train import train
from triadbench.kernels import MelSpectrogram

FILES = {"last.safetensors", "best.safetensors", "final.safetensors", "history.json", "curves.html"}


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return write_pack(tmp_path_factory.mktemp("train") / "pack", 48)


def whole(config):
    """A whole training: its configuration, folder, record, and what it reported."""
    events = []
    return config, config.out, train(config, progress=events.append), events


@pytest.fixture(scope="module")
def ours_run(pack, tmp_path_factory):
    return whole(ours(pack, tmp_path_factory.mktemp("ours") / "run"))


@pytest.fixture(scope="module")
def original_run(pack, tmp_path_factory):
    return whole(original(pack, tmp_path_factory.mktemp("original") / "run"))


@pytest.fixture(params=["ours", "original"])
def run(request):
    return request.getfixturevalue(f"{request.param}_run")


def without_seconds(record):
    return {
        **record,
        "seconds": 0,
        "config": {**record["config"], "out": ""},
        "curves": [{**point, "seconds": 0} for point in record["curves"]],
    }


def assert_same_run(one: Path, other: Path):
    for name in ("last.safetensors", "best.safetensors", "final.safetensors"):
        a, b = load_file(one / name), load_file(other / name)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a), name
    a, b = (json.loads((out / "history.json").read_text()) for out in (one, other))
    assert without_seconds(a) == without_seconds(b)


# --- a whole run -----------------------------------------------------------------------------------------------------


def test_what_a_run_leaves(run):
    config, out, record, _ = run
    assert {path.name for path in out.iterdir() if path.is_file()} == FILES
    assert (
        json.loads((out / "history.json").read_text()) == record == checkpoints.load(out / "last.safetensors").training
    )
    assert [point["epoch"] for point in record["curves"]] == list(range(1, config.epochs + 1))
    assert all(math.isfinite(value) for point in record["curves"] for value in point.values())
    assert record["n_train"] + record["n_test"] == 48 and record["config"]["seed"] == config.resolved().seed
    assert record["data_digest"] == open_dataset(config.data).digest()
    page = (out / "curves.html").read_text()
    assert "plotly" in page and "train loss" in page and "test type accuracy" in page


def test_finished_models_carry_no_optimizer(run):
    _, out, record, _ = run
    best, final, last = (checkpoints.load(out / f"{name}.safetensors") for name in ("best", "final", "last"))
    assert not best.state and not final.state and last.state and final.training == record
    pairs = zip(final.model.state_dict().values(), last.model.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert {name.split(".")[1] for name in last.state} == {"step", "exp_avg", "exp_avg_sq"}


def test_progress_of_a_run(run):
    config, _, record, events = run
    assert events[0]["stage"] == "reading"
    steps = math.ceil(record["n_train"] / config.batch_size)
    done = [event["done"] for event in events if event["stage"] == "train" and event["epoch"] == 2]
    assert done == [10, steps] and steps > 10
    assert [event["epoch"] for event in events if event["stage"] == "epoch"] == list(range(1, config.epochs + 1))


def test_the_last_point_is_what_the_last_model_measures(run):
    config, out, record, _ = run
    dataset = open_dataset(config.data)
    seed = config.split_seed
    rows = (
        Draws(48, 4, seed, n_all=48).rows[1]
        if config.recipe == "original"
        else grouped_split(dataset.clips, 0.25, seed)[1]
    )
    recipe, model = RECIPES[config.recipe], checkpoints.load(out / "last.safetensors").model
    mel = MelSpectrogram.from_spec(recipe.spec, log=config.recipe == "ours")(torch.from_numpy(dataset.read_many(rows)))
    types, roots = (torch.from_numpy(labels[rows]) for labels in dataset.labels())
    with torch.inference_mode():
        if config.recipe == "original":
            scores = model(mel.unsqueeze(1))
            wanted = {"loss": original_loss(scores, types), "type_accuracy": (scores.argmax(1) == types).float().mean()}
        else:
            heads, labels = model.heads(mel), [label_of(dataset.clips[row].name) for row in rows]
            p = torch.softmax(heads.chords, 1)
            triad = torch.stack([p[:, torch.from_numpy(REDUCTION == k)].sum(1) for k in range(49)]).argmax(0)
            wanted = {
                "loss": chord_loss(heads, *training.targets_of(labels)),
                "type_accuracy": ((triad < 48) & (triad % 4 == types)).float().mean(),
                "root_accuracy": ((triad < 48) & (triad // 4 == roots)).float().mean(),
            }
    measured = {key[5:]: value for key, value in record["curves"][-1].items() if key.startswith("test_")}
    assert measured == pytest.approx({key: float(value) for key, value in wanted.items()}, abs=1e-5)


def test_ours_learns(ours_run):
    _, _, record, _ = ours_run
    losses = [point["train_loss"] for point in record["curves"]]
    assert losses[-1] < 0.9 * losses[0] and losses[0] < 1.3 * (
        math.log(205) + 0.5 * math.log(49) + 0.3 * math.log(12) + 0.1
    )


def test_another_seed_gives_other_weights(run, tmp_path):
    config, out, _, _ = run
    train(replace(config, out=tmp_path / "other", epochs=1, seed=config.resolved().seed + 1))
    one, other = load_file(out / "last.safetensors"), load_file(tmp_path / "other" / "last.safetensors")
    assert not any(torch.equal(one[key], other[key]) for key in one if one[key].ndim == 4)


# --- resume ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kill",
    [
        ("reading", {}),
        ("train", {"epoch": 1, "done": 10}),
        ("epoch", {"epoch": 1}),
        ("train", {"epoch": 2, "done": 10}),
        ("epoch", {"epoch": 2}),
    ],
    ids=["before", "in epoch 1", "after epoch 1", "in epoch 2", "after epoch 2"],
)
def test_a_killed_run_goes_on_to_the_same_bits(kill, run, tmp_path):
    config, out, _, _ = run
    moved = replace(config, out=tmp_path / "run")
    with pytest.raises(Killed):
        train(moved, progress=killer(kill[0], **kill[1]))
    torch.rand(7)  # whatever else the process drew in between
    train(moved, resume=True)
    assert_same_run(out, tmp_path / "run")


def test_excerpts_with_songs_are_trained_on_and_gone_on_with(tmp_path):
    config = ours(write_excerpts(tmp_path / "excerpts"), tmp_path / "whole", batch_size=4)
    record = train(config)
    assert (record["n_train"], record["n_test"], record["n_left_out"]) == (20, 8, 0)
    assert record["curves"][1]["train_loss"] < record["curves"][0]["train_loss"] and record["data_digest"]
    moved = replace(config, out=tmp_path / "run")
    with pytest.raises(Killed):
        train(moved, progress=killer("epoch", epoch=1))
    train(moved, resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "run")
    with pytest.raises(UserError, match="recipe 'original' trains on clips named by type and root"):
        train(original(config.data, tmp_path / "original"))


def test_a_set_of_unknown_chords_is_refused(tmp_path):
    lines = (write_excerpts(tmp_path / "excerpts") / "000.jsonl").read_text()
    (tmp_path / "excerpts/000.jsonl").write_text(re.sub("[A-G]b?:(maj|min|dim|aug)", "X", lines))
    with pytest.raises(UserError, match="has no row whose chord is known"):
        train(ours(tmp_path / "excerpts", tmp_path / "run"))


def test_a_songs_notes_are_not_taught(tmp_path):
    excerpts = open_excerpts(write_excerpts(tmp_path / "excerpts", n_clips=2, n_songs=2))
    config, rows = ours(excerpts.path, tmp_path / "run").resolved(), np.arange(4)
    run = training.ChordRun(config, small_net(), excerpts, (rows, rows), torch.device("cpu"), print)
    known = [not bool(run._targets_of(crops)[2].isnan().any()) for crops in run.test_crops]
    assert known == [True, False] and all(len(crops.rows) == 2 for crops in run.test_crops)


def test_a_run_killed_while_it_writes_goes_on_to_the_same_bits(run, tmp_path, monkeypatch):
    config, out, _, _ = run
    moved = replace(config, out=tmp_path / "run")
    with monkeypatch.context() as patch:
        count = iter(range(100))
        draw = training._draw_curves

        def fail_in_epoch_two(record, path):
            if next(count) == 1:
                raise Killed  # best and history are written by then, last is not
            draw(record, path)

        patch.setattr(training, "_draw_curves", fail_in_epoch_two)
        with pytest.raises(Killed):
            train(moved)
    assert len(json.loads((tmp_path / "run" / "history.json").read_text())["curves"]) == 2
    assert len(checkpoints.load(tmp_path / "run" / "last.safetensors").training["curves"]) == 1
    train(moved, resume=True)
    assert_same_run(out, tmp_path / "run")


def test_a_run_killed_before_its_last_file_is_finished_by_resuming(run, tmp_path, monkeypatch):
    config, out, _, _ = run
    moved = replace(config, out=tmp_path / "run", epochs=config.epochs)
    save = checkpoints.save
    with monkeypatch.context() as patch:

        def fail_at_the_end(checkpoint, path):
            if path.name == "final.safetensors":
                raise Killed
            save(checkpoint, path)

        patch.setattr(checkpoints, "save", fail_at_the_end)
        with pytest.raises(Killed):
            train(moved)
    train(moved, resume=True)
    assert_same_run(out, tmp_path / "run")


def test_resuming_a_finished_run_does_nothing(run):
    config, out, record, _ = run
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    assert train(config, resume=True) == record
    assert before == {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}


def test_a_moved_run_goes_on(pack, tmp_path):
    config = ours(pack, tmp_path / "here")
    with pytest.raises(Killed):
        train(config, progress=killer("train", epoch=2))
    (tmp_path / "here").rename(tmp_path / "there")
    assert len(train(replace(config, out=tmp_path / "there"), resume=True)["curves"]) == 2


@pytest.mark.slow
def test_a_process_killed_outright_goes_on_to_the_same_bits(pack, run, tmp_path):
    config, out, _, _ = run
    moved = replace(config, out=tmp_path / "run")
    program = (
        "import cli, json, sys\nfrom triadbench.core.training.train import TrainConfig, train\n"
        "train(TrainConfig(**json.loads(sys.argv[1])), progress=lambda event: print(json.dumps(event), flush=True))"
    )
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(moved).items()}
    process = subprocess.Popen(
        [sys.executable, "-c", program, json.dumps(settings)], cwd=PACKAGE, stdout=subprocess.PIPE, text=True
    )
    with process:
        for line in process.stdout:
            event = json.loads(line)
            if event["stage"] == "train" and event["epoch"] == 2:
                os.kill(process.pid, signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    train(moved, resume=True)
    assert_same_run(out, tmp_path / "run")


# --- what is refused -------------------------------------------------------------------------------------------------


def test_a_folder_with_a_run_is_refused(run):
    config, out, _, _ = run
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    with pytest.raises(
        UserError, match="holds a training already; add --resume to go on with it, or choose another folder"
    ):
        train(config)
    assert before == {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", 4),
        ("split_seed", 14),
        ("batch_size", 5),
        ("epochs", 9),
        ("learning_rate", 0.1),
        ("test_fraction", 0.5),
        ("split", "random"),
        ("recipe", "original"),
    ],
)
def test_a_run_does_not_go_on_with_other_settings(ours_run, name, value):
    config, _, _, _ = ours_run
    changed = replace(config, **{name: value}, **({"task": "type"} if name == "recipe" else {}))
    with pytest.raises(UserError, match=rf"was trained with {name}=.*, not {value}; train into another folder"):
        train(changed, resume=True)


def test_a_run_does_not_go_on_with_other_data(pack, tmp_path):
    config = ours(pack, tmp_path / "run")
    with pytest.raises(Killed):
        train(config, progress=killer("train", epoch=2))
    other = write_pack(tmp_path / "other", 40)
    with pytest.raises(UserError, match="other is not the data that .*run was trained on; train into another folder"):
        train(replace(config, data=other), resume=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": "theirs"}, "unknown recipe 'theirs'; choose from original, ours"),
        ({"task": "type"}, "recipe 'ours' trains the task both, not 'type'"),
        ({"recipe": "original"}, "recipe 'original' trains the task type or root, not 'both'"),
        ({"split": "sorted"}, "unknown split 'sorted'; choose random or grouped"),
        ({"epochs": 0}, "epochs=0: must be finite and greater than 0"),
        ({"batch_size": -1}, "batch_size=-1: must be finite and greater than 0"),
        ({"learning_rate": float("inf")}, "learning_rate=inf: must be finite"),
        ({"seed": 2**63}, "seed=9223372036854775808: must be 0 to 4294967295"),
        ({"split_seed": 10**30}, "must be 0 to 4294967295"),
        ({"learning_rate": float("nan")}, "learning_rate=nan: must be finite and greater than 0"),
        ({"device": "gpu"}, "unknown device 'gpu'; choose cpu or cuda"),
        ({"device": "meta"}, "device 'meta' is not supported; choose cpu or cuda"),
        ({"data": "/nowhere"}, "/nowhere does not exist"),
        ({"test_fraction": 1.5}, "test_fraction=1.5 must lie between 0 and 1"),
    ],
)
def test_bad_settings(pack, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        train(ours(pack, tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("inside", ["", "run"])
def test_it_does_not_write_into_its_own_data(pack, inside):
    before = sorted(pack.iterdir())
    with pytest.raises(UserError, match="the training would write into its own data, .*; choose another folder"):
        train(ours(pack, pack / inside))
    assert sorted(pack.iterdir()) == before


def test_cuda_without_a_gpu(pack, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="device cuda: torch finds no CUDA GPU here; check the driver with nvidia-smi"):
        train(ours(pack, tmp_path / "run", device="cuda"))


def test_a_loss_that_is_no_number_stops_the_run(pack, tmp_path):
    with pytest.raises(UserError, match="the loss is (nan|inf) in epoch 1; a smaller --learning-rate may help"):
        train(ours(pack, tmp_path / "run", learning_rate=1e30))
    assert not (tmp_path / "run" / "last.safetensors").exists()


def test_a_flipped_bit_is_not_gone_on_from(pack, tmp_path):
    config = ours(pack, tmp_path / "run")
    with pytest.raises(Killed):
        train(config, progress=killer("train", epoch=2))
    last = tmp_path / "run" / "last.safetensors"
    content = bytearray(last.read_bytes())
    content[-100] ^= 1
    last.write_bytes(content)
    with pytest.raises(UserError, match="last.safetensors: not a readable model file .damaged or changed since"):
        train(config, resume=True)
    assert last.read_bytes() == content
