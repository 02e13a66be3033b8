"""A checkpoint comes back as it was, runs nothing that a file holds, and says in a line what is wrong with a file."""

import dataclasses
import json
import os
import pickle
import warnings
import zipfile

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.core.damage import damaged
from tests.core.models.test_networks import published_forward, published_state
from tests.core.toys import save_original, save_pair, save_template, small_net
from triadbench.core.constants import VERSION
from triadbench.core.errors import UserError
from triadbench.core.models import checkpoint as checkpoints
from triadbench.core.models.checkpoint import Checkpoint, build_model, load, save
from triadbench.core.models.chords import ROOTS, TYPES
from triadbench.core.models.networks import ChordNet, OriginalNet
from triadbench.kernels.spec import CHORD, ORIGINAL


@pytest.fixture
def path(tmp_path):
    return save_template(tmp_path / "model.safetensors")


# --- ours ------------------------------------------------------------------------------------------------------------


def test_round_trip(tmp_path):
    net = small_net(3, width=3, hidden=10)
    net.prior.normal_()
    net.temperature.fill_(0.8)
    made = Checkpoint(
        net, "chordnet", "both", CHORD, {"seed": 7, "curves": [{"epoch": 1}]}, {"0.step": torch.tensor(3.0)}
    )
    save(made, tmp_path / "m.safetensors")
    back = load(tmp_path / "m.safetensors")
    assert (back.architecture, back.task, back.spec, back.training) == ("chordnet", "both", CHORD, made.training)
    assert list(back.state) == ["0.step"] and back.state["0.step"] == 3
    assert back.model.config == {"width": 3, "hidden": 10, "dropout": 0.2} and not back.model.training
    for (name, one), (other_name, other) in zip(net.state_dict().items(), back.model.state_dict().items(), strict=True):
        assert name == other_name and torch.equal(one, other), name
    mel = torch.randn(2, CHORD.n_mels, 20)
    assert torch.equal(net.joint(mel), back.model.joint(mel))


@pytest.mark.parametrize("task", ["type", "root"])
def test_round_trip_of_the_original(task, tmp_path):
    back = load(save_original(tmp_path / "m.safetensors", task))
    assert (back.architecture, back.task, back.spec) == ("original", task, ORIGINAL)
    torch.manual_seed(5)
    fresh = OriginalNet({"type": 4, "root": 12}[task])
    assert all(
        torch.equal(a, b) for a, b in zip(fresh.state_dict().values(), back.model.state_dict().values(), strict=True)
    )


def test_channels_last_weights_are_saved(tmp_path):
    net = ChordNet(width=2, hidden=4).to(memory_format=torch.channels_last)
    save(Checkpoint(net, "chordnet", "both", CHORD), tmp_path / "m.safetensors")
    assert torch.equal(load(tmp_path / "m.safetensors").model.stem[0].weight, net.stem[0].weight)


def test_the_metadata_says_everything(path):
    described = json.loads(safe_open(path, framework="pt").metadata()["triadbench"])
    assert described["format"] == checkpoints.FORMAT and described["version"] == VERSION
    assert described["spec"] == CHORD.to_dict() and described["config"] == {"width": 1, "hidden": 4, "dropout": 0.0}
    assert (tuple(described["labels"]["types"]), tuple(described["labels"]["roots"])) == (TYPES, ROOTS)


def test_a_failed_save_keeps_the_old_file(path, monkeypatch):
    before = path.read_bytes()

    def fail(tensors, filename, metadata):
        filename.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "write_tensors", fail)
    with pytest.raises(UserError, match="No space left on device"):
        save_template(path)
    assert path.read_bytes() == before and [file.name for file in path.parent.iterdir()] == [path.name]


# --- the original study's --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
@pytest.mark.parametrize(("task", "n_classes"), [("type", 4), ("root", 12)])
def test_published_state_dicts_load_and_answer_as_published(suffix, task, n_classes, tmp_path):
    state = published_state(n_classes)
    path = tmp_path / f"published{suffix}"
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    loaded = load(path, device="cpu")
    assert (loaded.architecture, loaded.task, loaded.spec) == ("original", task, ORIGINAL) and not loaded.model.training
    mel = torch.rand(2, 1, 64, 126, generator=torch.Generator().manual_seed(2)) * 50
    with torch.inference_mode():
        assert torch.allclose(loaded.model(mel), published_forward(state, mel), atol=1e-6)


def test_a_published_state_dict_goes_to_the_device_asked_for(tmp_path):
    torch.save(published_state(4), tmp_path / "p.pt")
    assert next(load(tmp_path / "p.pt", device="meta").model.parameters()).device.type == "meta"


def test_a_network_of_the_original_in_the_earlier_format_is_read(tmp_path):
    path = save_original(tmp_path / "m.safetensors")
    wanted = load(path).model.state_dict()
    rewrite(path, lambda d: d.update(format="triadbench-checkpoint-1", labels={"types": TYPES, "roots": ROOTS}))
    back = load(path).model.state_dict()
    assert back.keys() == wanted.keys() and all(torch.equal(back[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.pop("linear.bias"),
        lambda s: s.update({"linear.bias": torch.zeros(5)}),
        lambda s: s.update({"conv5.0.weight": torch.zeros(1)}),
        lambda s: s.clear(),
    ],
    ids=["a key is missing", "another shape", "a key too many", "empty"],
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_other_state_dicts_are_refused(change, suffix, tmp_path):
    state = published_state(4)
    change(state)
    (save_file if suffix == ".safetensors" else torch.save)(state, tmp_path / f"m{suffix}")
    with pytest.raises(UserError, match="neither a triadbench checkpoint nor a state dict of the original network"):
        load(tmp_path / f"m{suffix}")


class Harm:
    """Unpickled by a careless reader, it makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ""])
@pytest.mark.parametrize("writer", ["torch", "torch legacy", "pickle"])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(writer, suffix, tmp_path):
    path, trace = tmp_path / f"evil{suffix}", tmp_path / "trace"
    content = {"linear.bias": Harm(trace)}
    if writer == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=writer == "torch")
    with warnings.catch_warnings(record=True) as warned, pytest.raises(UserError, match="that can be read safely"):
        warnings.simplefilter("always")
        load(path)
    assert not trace.exists() and not warned
    # The trap does snap where a reader is careless.
    torch.load(path, weights_only=False) if writer != "pickle" else pickle.loads(path.read_bytes())
    assert trace.is_dir()


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(3), {"a": 1}], ids=["list", "tensor", "numbers"])
def test_other_torch_files_are_refused(content, tmp_path):
    torch.save(content, tmp_path / "m.pt")
    with pytest.raises(UserError, match="not a state dict"):
        load(tmp_path / "m.pt")


# --- damage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize(
    "content", [b"", b"hello, this is text", b"\x00" * 100, b"\xff" * 5000], ids=["empty", "text", "zeros", "ones"]
)
def test_files_that_are_no_models(content, suffix, tmp_path):
    (tmp_path / f"m{suffix}").write_bytes(content)
    with pytest.raises(UserError, match=f"m{suffix}: not a ") as caught:
        load(tmp_path / f"m{suffix}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_truncated_files(share, suffix, tmp_path):
    path = tmp_path / f"m{suffix}"
    save_template(path) if suffix == ".safetensors" else torch.save(published_state(4), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match=f"m{suffix}: not a "):
        load(path)


@pytest.mark.parametrize("name", ["missing.safetensors", "missing.pt", ""])
def test_a_missing_file(name, tmp_path):
    with pytest.raises(UserError, match="no such model file" if name else "is a folder, not a model file"):
        load(tmp_path / name)


def rewrite(path, change, change_tensors=lambda tensors: None):
    tensors = load_file(path)
    described = json.loads(safe_open(path, framework="pt").metadata()["triadbench"])
    text = change(described)
    change_tensors(tensors)
    save_file(tensors, path, metadata={"triadbench": text if isinstance(text, str) else json.dumps(described)})


def as_before(path, net, state=None):
    """The file that the version before wrote for the triads of a network."""
    save(Checkpoint(net, "chordnet", "both", CHORD, {}, state or {}), path)
    described = json.loads(safe_open(path, framework="pt").metadata()["triadbench"])
    described["format"] = "triadbench-checkpoint-1"
    described["labels"].pop("qualities")
    tensors = load_file(path)
    weight, bias = tensors.pop("at_root.weight"), tensors.pop("at_root.bias")
    for name in ("no_chord.weight", "no_chord.bias", "prior", "temperature"):
        tensors.pop(name)
    tensors |= {"circle.4.weight": weight[:4].contiguous(), "circle.4.bias": bias[:4].contiguous()}
    save_file(tensors, path, metadata={"triadbench": json.dumps(described)})


def test_a_network_that_knew_triads_alone_gives_no_other_chord_any_probability(tmp_path):
    net = small_net(3, width=3, hidden=10)
    as_before(tmp_path / "m.safetensors", net)
    back, mel = load(tmp_path / "m.safetensors").model, torch.randn(2, CHORD.n_mels, 20)
    with torch.inference_mode():
        wanted = net.heads(mel).chords[:, :-1].reshape(2, 12, 17)[..., :4].flatten(1).softmax(1)
        chords = back.calibrated(back.heads(mel).chords).softmax(1)
        assert torch.allclose(chords[:, :-1].reshape(2, 12, 17)[..., :4].flatten(1), wanted, atol=1e-6)
        assert chords.sum() == pytest.approx(2) and torch.allclose(back.joint(mel).flatten(1).softmax(1), wanted)


def test_a_training_of_triads_alone_does_not_go_on(tmp_path):
    as_before(tmp_path / "m.safetensors", small_net(3), {"0.step": torch.tensor(3.0)})
    with pytest.raises(UserError, match="an unfinished training of an earlier version.*train it again"):
        load(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format="triadbench-checkpoint-1"), "a damaged or foreign model file .*circle.4.weight"),
        (lambda d: d["labels"].update(qualities=["maj", "min"]), "its labels are not this program's"),
        (lambda d: d.update(format="triadbench-checkpoint-9"), "format 'triadbench-checkpoint-9'; this program reads"),
        (lambda d: d["labels"].update(roots=sorted(ROOTS)), "its labels are not this program's"),
        (lambda d: d["labels"].update(types=TYPES[:3]), "its labels are not this program's"),
        (lambda d: d.update(architecture="transformer"), "no model of architecture 'transformer' for task 'both'"),
        (lambda d: d.update(task="type"), "no model of architecture 'chordnet' for task 'type'"),
        (lambda d: d["spec"].update(n_fft=0), "a damaged or foreign model file .*n_fft=0"),
        (lambda d: d["spec"].update(colour="red"), "a damaged or foreign model file"),
        (lambda d: d["config"].update(width=3), "a damaged or foreign model file"),
        (lambda d: d["config"].update(depth=3), "a damaged or foreign model file"),
        (lambda d: d.pop("labels"), "a damaged or foreign model file"),
        (lambda d: "[]", "a damaged or foreign model file"),
        (lambda d: "{", "a damaged or foreign model file"),
        (lambda d: d.update(config=None), "a damaged or foreign model file"),
    ],
    ids=lambda value: value[:25] if isinstance(value, str) else "",
)
def test_metadata_that_does_not_fit(path, change, message):
    rewrite(path, change)
    with pytest.raises(UserError, match=message) as caught:
        load(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [lambda t: t.pop("stem.0.weight"), lambda t: t.update({"extra": torch.zeros(1)})],
    ids=["missing", "extra"],
)
def test_weights_that_do_not_fit(path, change):
    rewrite(path, lambda described: None, change)
    with pytest.raises(UserError, match="a damaged or foreign model file"):
        load(path)


@pytest.mark.parametrize(("architecture", "task"), [("original", "chord"), ("chordnet", "root"), ("x", "type")])
def test_models_that_do_not_exist(architecture, task):
    with pytest.raises(UserError, match=f"no model of architecture '{architecture}' for task '{task}'"):
        build_model(architecture, task)


def test_weights_that_are_not_finite_are_refused(tmp_path):
    net = small_net()
    next(net.parameters()).data.fill_(float("nan"))
    save(Checkpoint(net, "chordnet", "both", CHORD), tmp_path / "nan.safetensors")
    with pytest.raises(UserError, match="not finite"):
        load(tmp_path / "nan.safetensors")


# --- the seal ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_state", [False, True], ids=["finished", "to resume from"])
def test_no_damaged_checkpoint_answers(with_state, tmp_path):
    path, state = tmp_path / "m.safetensors", {"0.exp_avg": torch.rand(50)} if with_state else {}
    save(Checkpoint(small_net(), "chordnet", "both", CHORD, {"curves": [{"epoch": 1}]}, state), path)
    whole = path.read_bytes()
    for what, content in damaged(whole, 100):
        path.write_bytes(content)
        with pytest.raises(UserError):
            load(path)
            pytest.fail(what)
    path.write_bytes(whole)
    assert load(path).training == {"curves": [{"epoch": 1}]}


def test_every_byte_of_a_header_counts(path):
    """The seal's own name too: without it a file would pass for one of the first version."""
    whole = path.read_bytes()
    for at in range(8 + int.from_bytes(whole[:8], "little")):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(UserError):
            load(path)
            pytest.fail(f"byte {at}, {whole[at - 10 : at + 10]}")


def test_a_checkpoint_of_the_first_version_has_no_seal_and_loads(path):
    net = load(path)
    rewrite(path, lambda described: None)
    assert "sha256" not in safe_open(path, framework="pt").metadata()
    assert torch.equal(load(path).model.stem[0].weight, net.model.stem[0].weight)
    save(load(path), path)
    assert "sha256" in safe_open(path, framework="pt").metadata()


def test_a_state_dict_that_is_not_finite_is_refused(tmp_path):
    state = OriginalNet(4).state_dict()
    state["linear.bias"][0] = float("nan")
    torch.save(state, tmp_path / "type.pth")
    with pytest.raises(UserError, match="type.pth: a damaged model file .its weights are not finite"):
        load(tmp_path / "type.pth")


def test_no_damaged_published_state_dict_answers(tmp_path):
    path, state = tmp_path / "m.pt", published_state(4)
    torch.save(state, path)
    archive = zipfile.ZipFile(path)
    entry = max(archive.infolist(), key=lambda entry: entry.file_size)
    content = bytearray(path.read_bytes())
    content[entry.header_offset + entry.file_size // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="m.pt: .* is damaged; get the file anew"):
        load(path)


# --- two networks as one model ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, -1], ids=["type first", "root first"])
def test_two_networks_are_joined_and_come_back_from_one_file(order, tmp_path):
    files = save_pair(tmp_path)
    joined = load(files[::order])
    assert (joined.architecture, joined.task, joined.spec, joined.state) == ("original", "both", ORIGINAL, {})
    assert joined.training == {"type": {"source": "type.pth"}, "root": {}} and not joined.model.training
    save(joined, tmp_path / "joined.safetensors")
    mel = torch.rand(3, 64, 126) * 10
    types, roots = (load(path).model(mel.unsqueeze(1)) for path in files)
    for model in (joined.model, load(tmp_path / "joined.safetensors").model):
        joint = model.joint(mel).exp()
        assert torch.allclose(joint, roots[:, :, None] * types[:, None, :], rtol=1e-4, atol=1e-7)
        assert torch.equal(joint.flatten(1).argmax(1), roots.argmax(1) * 4 + types.argmax(1))


def test_what_cannot_be_joined_is_said_in_one_line(tmp_path, path):
    types, roots = save_pair(tmp_path / "pair")
    other = tmp_path / "other.safetensors"
    save(Checkpoint(OriginalNet(12), "original", "root", dataclasses.replace(ORIGINAL, f_max=7000.0)), other)
    for files, words in (
        ([types, types], "type.pth answers for the type, .*type.pth answers for the type: two models are joined"),
        ([path, roots], "model.safetensors answers for the whole chord, .*root.safetensors answers for the root: two"),
        ([types, roots, types], "type.pth, .*root.safetensors, .*type.pth: give one model, or two"),
        ([], "no model file: give one model, or two"),
        ([None, types], "expected a path, or a list of two"),
        ([types, other], r"type.pth and .*other.safetensors take different mel spectrograms \(f_max .* and 7000.0\)"),
        ([types, tmp_path / "none.pth"], "none.pth: no such model file"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            load(files)
        assert "\n" not in str(caught.value)


def test_neither_of_two_runs_code(tmp_path):
    types, roots = save_pair(tmp_path)
    evil, trace = tmp_path / "evil.pth", tmp_path / "trace"
    torch.save({"linear.bias": Harm(trace)}, evil)
    for files in ([evil, roots], [types, evil]):
        with pytest.raises(UserError, match="evil.pth: not a state dict that can be read safely"):
            load(files)
    assert not trace.exists()
