"""The original's notebook, written out in plain torch: split, order, losses, weights and accuracies, bit for bit."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, random_split

from tests.core.toys import all_names, write_set
from triadbench.core.constants import ALL_CLIPS, FULL_CLIPS
from triadbench.core.data.dataset import open_dataset
from triadbench.core.data.pack import pack
from triadbench.core.errors import UserError
from triadbench.core.models.networks import OriginalNet
from triadbench.core.training.batches import TriadClips
from triadbench.core.training.draws import Draws, draw_clips
from triadbench.core.training.epoch import StudyTrainer
from triadbench.core.training.settings import ORIGINAL_PIPELINE, TrainConfig, fast_pipeline
from triadbench.core.training.train import train

SEED, BATCH, EPOCHS = 13, 5, 3


def notebook_split(data, n):
    """Seeds the default generator and splits; what follows draws from where it stands."""
    torch.manual_seed(SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of a rest that is empty, as the notebook's is of all 86,400
        chosen, _ = random_split(data, [n, len(data) - n])
    return random_split(chosen, [0.7, 0.3])


def notebook(clips, n_all, n_classes):
    """(network, losses, training accuracies of batches, test accuracies of batches) of three epochs."""

    class All(torch.utils.data.Dataset):
        def __len__(self):
            return n_all

        def __getitem__(self, index):
            return clips[place[index]]

    place = {index: position for position, index in enumerate(draw_clips(n_all, SEED)[: len(clips)])}
    if n_all == len(clips):
        place = {index: index for index in range(n_all)}
    train_set, test_set = notebook_split(All(), len(clips))
    train_loader = DataLoader(train_set, batch_size=BATCH, shuffle=True)
    test_loader = DataLoader(test_set, batch_size=BATCH, shuffle=False)
    net = OriginalNet(n_classes)
    optimizer, loss_of = torch.optim.Adam(net.parameters(), lr=1e-5), nn.CrossEntropyLoss()
    losses, accuracies, tested = [], [], []
    for _ in range(EPOCHS):
        net.train()
        for mel, labels in train_loader:
            predicted = net(mel)
            loss = loss_of(predicted, labels)
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            accuracies.append((torch.argmax(predicted, dim=1) == labels).sum().item() / len(predicted))
        net.eval()
        with torch.inference_mode():
            for mel, labels in test_loader:
                predicted = net(mel)
                tested.append((torch.argmax(predicted, dim=1) == labels).sum().item() / len(predicted))
    return net, losses, accuracies, tested


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return open_dataset(write_set(tmp_path_factory.mktemp("draws") / "set", all_names()))


def shares(results, sizes):
    return [right / size for result in results for right, size in zip(result.n_right, sizes, strict=True)]


@pytest.mark.parametrize(("n_all", "n_classes"), [(ALL_CLIPS, 4), (ALL_CLIPS, 12), (48, 4)])
def test_the_original_pipeline_is_the_notebook_bit_for_bit(n_all, n_classes, files, tmp_path):
    clips = TriadClips(files, torch.from_numpy(files.labels()[0]), torch.device("cpu"))
    net, losses, accuracies, tested = notebook([clips[k] for k in range(48)], n_all, n_classes)
    assert len(losses) == 21 and len(set(losses)) == 21
    if n_all == ALL_CLIPS:
        made = StudyTrainer(
            files, task="type", batch_size=BATCH, switches=ORIGINAL_PIPELINE, device="cpu", n_classes=n_classes
        )
        results = [(made.train_epoch(), made.test_epoch()) for _ in range(EPOCHS)]
        found, weights = sum((trained.losses for trained, _ in results), []), made.model.state_dict()
        assert shares([trained for trained, _ in results], [5] * 6 + [4]) == accuracies
        assert shares([test for _, test in results], [5, 5, 4]) == tested
        assert [trained.accuracy for trained, _ in results] == [sum(t.n_right) / 34 for t, _ in results]
    else:  # the command trains on a whole set
        config = TrainConfig(files.path, tmp_path, "original", "type", EPOCHS, BATCH, pipeline="original")
        runs = []
        record = train(config, run_types={"original": watched(runs)})
        found, weights = runs[0].losses, runs[0].epochs.model.state_dict()
        wanted = [np.dot(accuracies[k : k + 7], [5] * 6 + [4]) / 34 for k in (0, 7, 14)]
        assert [point["train_type_accuracy"] for point in record["curves"]] == pytest.approx(wanted, abs=1e-15)
        assert record["config"]["seed"] == SEED and record["config"]["pipeline"] == "original"
    assert found == losses
    assert all(torch.equal(weights[key], value) for key, value in net.state_dict().items())


def watched(runs):
    from triadbench.core.training.epoch import OriginalRun

    class Watched(OriginalRun):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.losses = []
            runs.append(self)
            epoch = self.epochs.train_epoch

            def train_epoch(**options):
                result = epoch(**options)
                self.losses += result.losses
                return result

            self.epochs.train_epoch = train_epoch

    return Watched


@pytest.mark.parametrize("n", [4096, FULL_CLIPS, 16_384, ALL_CLIPS])
def test_the_split_is_the_notebooks_index_for_index(n):
    train_set, test_set = notebook_split(range(ALL_CLIPS), n)
    sizes = {4096: (2868, 1228), FULL_CLIPS: (5735, 2457), 16_384: (11_469, 4915), ALL_CLIPS: (60_480, 25_920)}
    assert (len(train_set), len(test_set)) == sizes[n]
    chosen = np.array(draw_clips(ALL_CLIPS, SEED)[:n])
    rows = Draws(n, 4, SEED).rows
    if n < ALL_CLIPS:
        rows = [chosen[side] for side in rows]
    for side, wanted in zip(rows, (train_set, test_set), strict=True):
        assert side.tolist() == [wanted[k] for k in range(len(wanted))]


def test_an_epochs_order_does_not_depend_on_those_asked_for_before_nor_draws_from_others():
    draws, state = Draws(48, 4, SEED), torch.get_rng_state()
    third = draws.order(34, 2)
    again = [draws.order(34, epoch) for epoch in (0, 2, 1)]
    assert (again[1] == third).all() and not (again[0] == third).all() and sorted(third) == list(range(34))
    assert torch.equal(torch.get_rng_state(), state)
    assert not (Draws(48, 4, SEED + 1).order(34, 2) == third).all()


def test_the_fast_pipeline_trains_from_the_same_weights_in_the_same_order(files, tmp_path):
    pack(files, tmp_path / "pack")
    options = {"task": "type", "batch_size": BATCH, "device": "cpu"}
    original = StudyTrainer(files, switches=ORIGINAL_PIPELINE, **options)
    fast = StudyTrainer(open_dataset(tmp_path / "pack"), switches=fast_pipeline("cpu"), **options)
    assert all(torch.equal(a, b) for a, b in zip(original.model.parameters(), fast.model.parameters(), strict=True))
    for _ in range(2):
        for a, b in ((original.train_epoch(), fast.train_epoch()), (original.test_epoch(), fast.test_epoch())):
            assert a.losses == pytest.approx(b.losses, rel=2e-4)
            assert a.n_right == b.n_right and a.accuracy == b.accuracy


def test_a_side_without_clips_is_refused():
    with pytest.raises(UserError, match="3 clips cannot be split with a test part of 0.3: a side would be empty"):
        Draws(3, 4, SEED)
