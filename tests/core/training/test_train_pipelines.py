"""`triadbench.core.training.train` in every pipeline of the original recipe: the same curves, the same files, and runs that go on."""

from dataclasses import replace

import numpy as np
import pytest
from safetensors.torch import load_file

from tests.core.runs import Killed, killer, original, ours
from tests.core.toys import all_names, write_set
from triadbench.core.data.dataset import open_dataset
from triadbench.core.data.pack import pack
from triadbench.core.errors import UserError
from triadbench.core.models import checkpoint as checkpoints
from triadbench.core.models.networks import OriginalNet
from triadbench.core.training.train import train

WAYS = {
    "original": {"pipeline": "original"},
    "fast": {"pipeline": "fast"},
    "mel per batch": {"switches": ("mel=batch", "prefetch=true", "fused_blocks=false")},
    "files in the fast one": {"pipeline": "fast", "files": True},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipelines")
    write_set(folder / "set", all_names())
    pack(open_dataset(folder / "set"), folder / "pack")
    return folder


def config(data, out, way, **changes):
    settings = dict(WAYS[way])
    files = settings.pop("files", way == "original")
    return original(data / ("set" if files else "pack"), out, batch_size=9, **settings, **changes)


def curves(record):
    return [[value for key, value in point.items() if key != "seconds"] for point in record["curves"]]


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """{way: (folder, record)} of whole trainings."""
    outs = {way: tmp_path_factory.mktemp("whole") / "run" for way in WAYS}
    return {way: (out, train(config(data, out, way))) for way, out in outs.items()}


@pytest.mark.parametrize("way", WAYS)
def test_every_pipeline_gives_the_same_curves_and_state_dict(way, whole):
    out, record = whole[way]
    assert np.allclose(curves(record), curves(whole["original"][1]), rtol=1e-4, atol=0)
    wanted = {key: value.shape for key, value in OriginalNet(4).state_dict().items()}
    for name in ("best", "final"):
        assert {key: value.shape for key, value in load_file(out / f"{name}.safetensors").items()} == wanted
    assert record["pipeline"]["packed"] is (way in ("fast", "mel per batch"))


@pytest.mark.parametrize("way", WAYS)
def test_a_killed_run_goes_on_to_the_same_weights(way, data, whole, tmp_path):
    killed = config(data, tmp_path / "run", way)
    with pytest.raises(Killed):
        train(killed, progress=killer("train", epoch=2))
    train(killed, resume=True)
    for name in ("final", "last"):
        one, other = (load_file(out / f"{name}.safetensors") for out in (whole[way][0], tmp_path / "run"))
        assert one.keys() == other.keys() and all((one[key] == other[key]).all() for key in one)


@pytest.mark.parametrize(("before", "after"), [("fast", "mel per batch"), ("mel per batch", "fast")])
def test_a_run_may_go_on_in_another_pipeline(before, after, data, whole, tmp_path):
    """Optimizer averages of one memory layout go on in another."""
    with pytest.raises(Killed):
        train(config(data, tmp_path / "run", before), progress=killer("train", epoch=2))
    record = train(config(data, tmp_path / "run", after), resume=True)
    assert np.allclose(curves(record), curves(whole["original"][1]), rtol=1e-4, atol=0)
    model = checkpoints.load(tmp_path / "run" / "final.safetensors").model
    wanted = checkpoints.load(whole["original"][0] / "final.safetensors").model
    for a, b in zip(model.parameters(), wanted.parameters(), strict=True):
        assert float((a - b).detach().abs().mean()) < 1e-6


def test_a_record_says_which_epochs_were_computed_how(data, tmp_path):
    out = tmp_path / "run"
    for way, epoch in (("fast", 2), ("mel per batch", 3), ("mel per batch", 4)):
        with pytest.raises(Killed):
            train(config(data, out, way, epochs=4), resume=True, progress=killer("train", epoch=epoch))
    record = train(config(data, out, "fast", epochs=4), resume=True)
    assert record == checkpoints.load(out / "last.safetensors").training
    assert checkpoints.load(out / "final.safetensors").training == record
    assert record["config"]["pipeline"] == "fast" and record["pipeline"]["mel"] == "cached"
    later = [(way["from_epoch"], way["pipeline"]["mel"], way["pipeline"]["prefetch"]) for way in record["resumed"]]
    assert later == [(2, "batch", True), (4, "cached", False)]
    # A finished run computes nothing, in whatever way.
    assert train(config(data, out, "mel per batch", epochs=4), resume=True) == record


def test_a_run_that_goes_on_as_it_was_says_nothing_of_it(data, tmp_path):
    with pytest.raises(Killed):
        train(config(data, tmp_path / "run", "fast"), progress=killer("train", epoch=2))
    assert "resumed" not in train(config(data, tmp_path / "run", "fast"), resume=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pipeline": "slow"}, "unknown pipeline 'slow'"),
        ({"pipeline": "original"}, "pack is a pack; switch packed=false opens a file for each clip"),
        ({"switches": ("speed=9",)}, "switch 'speed=9' must be name=value"),
    ],
)
def test_what_is_refused(change, message, data, tmp_path):
    with pytest.raises(UserError, match=message):
        train(replace(config(data, tmp_path / "run", "fast"), **{"pipeline": None, **change}))
    assert not (tmp_path / "run").exists()


def test_our_recipe_has_one_pipeline(data, tmp_path):
    with pytest.raises(UserError, match="recipe 'ours' has one pipeline; leave out --pipeline and --switch"):
        train(ours(data / "pack", tmp_path / "run", pipeline="fast"))
