"""Whatever the switches: the same clips in the same order from the same weights, and the same losses up to rounding."""

import copy
import time

import numpy as np
import pytest
import torch
from torch import nn

from tests.core.toys import all_names, write_set
from triadbench.core.constants import CLIP_SAMPLES, EPOCH_PARTS
from triadbench.core.data.dataset import open_dataset
from triadbench.core.data.pack import pack
from triadbench.core.errors import UserError
from triadbench.core.models.networks import OriginalNet, original_loss
from triadbench.core.timing import Clock
from triadbench.core.training.batches import CachedSource, TriadClips, in_batches, make_source
from triadbench.core.training.draws import Draws
from triadbench.core.training.epoch import StudyTrainer
from triadbench.core.training.settings import LADDER, ORIGINAL_PIPELINE, Switches, fast_pipeline
from triadbench.core.training.step import TrainingStep
from triadbench.kernels.spec import ORIGINAL

CPU = torch.device("cpu")
RUNGS = {name: switches for name, switches, _ in LADDER("cpu")}
MORE = {
    "clips ahead": ORIGINAL_PIPELINE.with_(prefetch=True),
    "batches ahead": RUNGS["mel per batch"].with_(prefetch=True),
    "files, mel per batch": ORIGINAL_PIPELINE.with_(mel="batch"),
    "files, cached mel": fast_pipeline("cpu").with_(packed=False),
    "compiled": fast_pipeline("cpu").with_(fused_blocks=False, compile=True),
}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """{packed: a set of 48 chords}, the same clips as files and as a pack."""
    folder = tmp_path_factory.mktemp("epoch")
    files = open_dataset(write_set(folder / "set", all_names()))
    pack(files, folder / "pack")
    return {False: files, True: open_dataset(folder / "pack")}


def trainer(sets, switches, **changes):
    settings = {"task": "type", "batch_size": 10, "seed": 3, "device": "cpu", "learning_rate": 1e-4}
    return StudyTrainer(sets[switches.packed], switches=switches, **{**settings, **changes})


@pytest.fixture(scope="module")
def original(sets):
    """Two epochs of the original pipeline, and a test between them."""
    made = trainer(sets, ORIGINAL_PIPELINE)
    return made, made.train_epoch(), made.test_epoch(), made.train_epoch()


def assert_same(found, wanted, weights, original_weights):
    """Far inside what another seed changes (tenths of a loss). A weight whose gradient is zero up to rounding moves by
    the rounding's sign, so single weights may differ by steps (1e-4 each); all together they do not."""
    for a, b in zip(found, wanted, strict=True):
        assert a.losses == pytest.approx(b.losses, rel=2e-4) and a.loss == pytest.approx(b.loss, rel=2e-4)
        assert a.n_clips == b.n_clips and a.accuracy == b.accuracy
    for a, b in zip(weights, original_weights, strict=True):
        assert float((a - b).detach().abs().mean()) < 1e-6


@pytest.mark.parametrize("name", [*RUNGS, *(name for name in MORE if name != "compiled")])
def test_a_switch_changes_speed_only(name, sets, original):
    made = trainer(sets, {**RUNGS, **MORE}[name])
    found = (made.train_epoch(), made.test_epoch(), made.train_epoch())
    assert_same(found, original[1:], made.model.parameters(), original[0].model.parameters())


@pytest.mark.slow
def test_a_compiled_step_changes_speed_only(sets, original):
    made = trainer(sets, MORE["compiled"])
    found = (made.train_epoch(), made.test_epoch(), made.train_epoch())
    assert_same(found, original[1:], made.model.parameters(), original[0].model.parameters())


def test_another_seed_is_another_training(sets, original):
    """The check above can fail."""
    made = trainer(sets, RUNGS["fused Adam"], seed=4)
    assert np.abs(np.subtract(made.train_epoch().losses, original[1].losses)).max() > 0.01


def test_half_precision_stays_near(sets, original):
    made = trainer(sets, fast_pipeline("cpu").with_(fused_blocks=False, precision="bf16"))
    assert made.train_epoch().losses[0] == pytest.approx(original[1].losses[0], abs=0.05)


def test_an_epoch_by_hand(sets, original):
    """What the original pipeline does, written out with torch alone; `test_draws` has the original's seed."""
    made, first, tested, _ = original
    draws, (train_rows, test_rows) = Draws(48, 4, 3), Draws(48, 4, 13).rows
    assert (made.n_train, made.n_test) == (len(train_rows), len(test_rows)) == (34, 14)
    net = draws.model
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4)
    clips = TriadClips(sets[False], torch.from_numpy(sets[False].labels()[0]), CPU)
    order = train_rows[draws.order(34, 0)]
    losses, n_right = [], 0
    for rows in in_batches(order, 10):
        mel, labels = (torch.stack(column) for column in zip(*(clips[row] for row in rows), strict=True))
        probabilities = net(mel)
        loss = nn.functional.cross_entropy(probabilities, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        n_right += int((probabilities.argmax(1) == labels).sum())
    assert first.losses == pytest.approx(losses, rel=1e-6) and len(losses) == 4
    assert first.loss == pytest.approx(np.dot(losses, [10, 10, 10, 4]) / 34) and first.accuracy == n_right / 34
    with torch.no_grad():
        mel, labels = (torch.stack(column) for column in zip(*(clips[row] for row in test_rows), strict=True))
        assert tested.loss == pytest.approx(float(original_loss(net(mel), labels)), rel=1e-5)
        assert tested.accuracy == int((net(mel).argmax(1) == labels).sum()) / 14


def test_fused_blocks_have_the_gradients_of_the_network():
    """Against float64; torch's own float32 is as far off."""
    torch.manual_seed(0)
    net, mel, labels = OriginalNet(12), torch.rand(6, 1, 64, 126) ** 4 * 10, torch.arange(6)
    exact = copy.deepcopy(net).double()
    loss = original_loss(exact(mel.double()), labels)
    wanted = dict(zip(dict(exact.named_parameters()), torch.autograd.grad(loss, exact.parameters()), strict=True))
    step = TrainingStep(net, 1e-5, fast_pipeline("cpu"), CPU)
    found = original_loss(step.forward(mel), labels)
    assert found.item() == pytest.approx(loss.item(), rel=1e-6)
    found.backward()
    for name, parameter in net.named_parameters():
        error = (parameter.grad.double() - wanted[name]).abs().max() / wanted[name].abs().max()
        assert float(error) < 1e-4, name


def test_state_dict_keys_stay_the_originals(sets):
    made = trainer(sets, fast_pipeline("cpu"))
    made.train_epoch()
    wanted = OriginalNet(4).state_dict()
    assert {key: value.shape for key, value in made.model.state_dict().items()} == {
        k: v.shape for k, v in wanted.items()
    }


# --- the original's dataset ------------------------------------------------------------------------------------------


def test_files_of_any_rate_channels_and_length_become_clips(tmp_path):
    import soundfile

    from tests.core.toys import chord

    (tmp_path / "set").mkdir()
    sound = chord(0, 0, rate=44_100)
    soundfile.write(tmp_path / "set" / "piano_5_Af_j_m_00.wav", np.stack([sound, 0 * sound], axis=1), 44_100)
    soundfile.write(tmp_path / "set" / "piano_5_Af_j_m_01.wav", chord(0, 0)[:16_000] / 2, 16_000)
    soundfile.write(tmp_path / "set" / "piano_5_Af_j_m_02.wav", np.tile(chord(0, 0) / 2, 2), 16_000)
    dataset = open_dataset(tmp_path / "set")
    clips = TriadClips(dataset, torch.zeros(3, dtype=torch.int64), CPU)
    resampled, short, long = (clips[i][0] for i in range(3))
    assert resampled.shape == short.shape == long.shape == (1, ORIGINAL.n_mels, 126)
    assert torch.equal(short[..., :30], long[..., :30]) and not short[..., 34:].any() and long[..., 34:].any()
    near = (resampled[..., 5:-5] - long[..., 5:-5]).abs().max() / long.max()
    assert float(near) < 0.02  # half of a chord on one of two channels is the average of both


# --- parts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["original", "mel per batch", "fused Adam"])
@pytest.mark.parametrize("clock", [time.perf_counter, Clock()], ids=["function", "clock"])
def test_parts_sum_to_the_epoch(name, clock, sets):
    made = trainer(sets, RUNGS[name])
    for result in (made.train_epoch(clock), made.test_epoch(clock), made.train_epoch(clock)):
        assert tuple(result.parts) == EPOCH_PARTS and sum(result.parts.values()) == pytest.approx(result.seconds)
        assert all(seconds >= 0 for seconds in result.parts.values())
    expected = {"original": {"reading", "resampling", "mel"}, "mel per batch": {"reading", "mel"}, "fused Adam": set()}
    seen = {part for part in ("reading", "resampling", "mel") if result.parts[part] > 0}
    assert seen == expected[name]
    assert min(result.parts[part] for part in ("forward", "backward", "optimizer")) > 0
    assert made.train_epoch().parts is None


COPIED = {
    "original": (
        RUNGS["original"],
        10 * (4 * CLIP_SAMPLES + 8),
        12,
    ),  # a file's float32, and an index of labels a batch
    "clips ahead": (MORE["clips ahead"], 10 * (4 * CLIP_SAMPLES + 8), 12),
    "mel per batch": (RUNGS["mel per batch"], 10 * (2 * CLIP_SAMPLES + 8), 4),  # a pack's int16, and where they lie
    "batches ahead": (MORE["batches ahead"], 10 * (2 * CLIP_SAMPLES + 8), 4),
    "cached mel": (RUNGS["cached mel"], 10 * 8, 1),
}


@pytest.mark.parametrize("name", COPIED)
def test_every_byte_that_goes_to_another_device_is_counted(name, sets):
    """To torch's device without memory, which is another everywhere."""
    switches, n_bytes, n = COPIED[name]
    clock, meta = Clock(), torch.device("meta")
    source = make_source(sets[switches.packed], "type", switches, meta)
    if switches.mel != "clip":  # our kernels need values
        source._mel = lambda waveform: waveform
        source.features = torch.empty(100, 1, device=meta)
    assert len(list(source.batches(in_batches(np.arange(10), 5), clock))) == 2
    assert clock.copies() == {"n": n, "bytes": n_bytes, "seconds": None}


def test_on_one_device_nothing_is_copied(sets):
    made = trainer(sets, ORIGINAL_PIPELINE)
    assert made.train_epoch(Clock()).copies == {"n": 0, "bytes": 0, "seconds": None}
    assert made.train_epoch().copies is None


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["original", "prefetch", "CUDA graph"])
def test_copies_to_a_gpu_have_bytes_and_seconds(name, sets):
    made = trainer(sets, {rung: switches for rung, switches, _ in LADDER("cuda")}[name], device="cuda")
    made.train_epoch()
    result = made.train_epoch(Clock("cuda"))
    assert result.copies["bytes"] > 0 and 0 < result.copies["seconds"] < result.seconds


def test_features_are_computed_once_and_paid_by_the_first_epoch(sets):
    made = trainer(sets, fast_pipeline("cpu"))
    first, second = made.train_epoch(), made.train_epoch()
    assert 0 < first.prepared_s <= first.seconds and second.prepared_s == 0


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("switches", "packed", "message"),
    [
        (fast_pipeline("cpu"), False, "set is a folder; switch packed=true reads a pack"),
        (ORIGINAL_PIPELINE, True, "pack is a pack; switch packed=false opens a file for each clip"),
        (fast_pipeline("cuda"), True, "switch cuda_graph=true needs a GPU and the device is cpu"),
        (Switches(precision="tf32"), False, "switch precision=tf32 needs a GPU"),
        (Switches(mel="never"), False, "switch mel=never: choose clip, batch, cached"),
        (Switches(fused_blocks=True), False, "switch fused_blocks=true needs channels_last=true"),
    ],
)
def test_switches_that_do_not_fit_are_refused(switches, packed, message, sets):
    with pytest.raises(UserError, match=message):
        StudyTrainer(sets[packed], task="type", batch_size=8, seed=0, switches=switches, device="cpu")


def test_an_unknown_task_is_refused(sets):
    with pytest.raises(UserError, match="task 'both': the original's networks learn type or root"):
        trainer(sets, ORIGINAL_PIPELINE, task="both")


def test_an_error_of_the_thread_ahead_is_raised_where_its_batch_is_wanted(sets, monkeypatch):
    source = make_source(sets[True], "type", RUNGS["mel per batch"].with_(prefetch=True), CPU)
    monkeypatch.setattr(source, "_read", lambda rows: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(source.batches([np.arange(3)]))


# --- GPU -------------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("name", [name for name, *_ in LADDER("cuda")])
def test_a_switch_changes_speed_only_on_a_gpu(name, sets, original):
    """TF32 rounds inputs to 10 bits: a thousandth, of a loss between 0.7 and 1.7.

    Adam's first steps have the size of the learning rate whatever the gradient's: rounding turns some of them round,
    and a later loss of the few clips here differed by 0.056 on an H100.
    """
    (switches,) = (switches for rung, switches, _ in LADDER("cuda") if rung == name)
    made = trainer(sets, switches, device="cuda")
    found = (made.train_epoch(), made.test_epoch(), made.train_epoch())
    for a, b in zip(found, original[1:], strict=True):
        assert a.losses == pytest.approx(b.losses, abs=0.1 if switches.precision == "tf32" else 2e-3)
    assert found[0].losses[0] == pytest.approx(original[1].losses[0], abs=2e-3)  # before the first step
    parts = made.train_epoch(Clock("cuda"))
    assert sum(parts.parts.values()) == pytest.approx(parts.seconds) and parts.parts["backward"] > 0


@pytest.mark.gpu
@pytest.mark.parametrize("batch_size", [3, 11, 33], ids=["several steps a launch", "one step a launch", "one step"])
@pytest.mark.parametrize("mel", ["cached", "batch"])
def test_a_replayed_step_is_the_step(batch_size, mel, sets):
    switches = fast_pipeline("cuda").with_(precision="fp32", mel=mel)
    results = []
    for replayed in (False, True):
        made = trainer(sets, switches.with_(cuda_graph=replayed), device="cuda", batch_size=batch_size)
        results.append([made.train_epoch().losses for _ in range(2)])
    assert np.allclose(results[0], results[1], rtol=1e-3)


@pytest.mark.gpu
def test_features_that_do_not_fit_are_refused(sets, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 1000))
    source = make_source(sets[True], "type", fast_pipeline("cuda"), torch.device("cuda"))
    assert isinstance(source, CachedSource)
    with pytest.raises(UserError, match="use switch mel=batch"):
        source.prepare()
