"""Replayed steps are the steps: the graph's bookkeeping, with a graph that runs on the CPU what a GPU would replay."""

import contextlib

import numpy as np
import pytest
import torch

from tests.core.toys import write_pack
from triadbench.core.data.dataset import open_dataset
from triadbench.core.models.networks import OriginalNet
from triadbench.core.timing import NO_CLOCK, Clock
from triadbench.core.training.batches import make_source
from triadbench.core.training.draws import Draws
from triadbench.core.training.epoch import Epochs
from triadbench.core.training.settings import fast_pipeline
from triadbench.core.training.step import StepGraph, TrainingStep

CPU = torch.device("cpu")
N = 19


class Event:
    """Of 2 ms after the one before."""

    def __init__(self, **options):
        pass

    def record(self):
        pass

    def elapsed_time(self, end):
        return 2.0


@pytest.fixture
def replayed(monkeypatch):
    """The counts of steps of all replays; a capture leaves nothing changed, as on a GPU."""
    counts, capturing = [], []

    class Graph:
        def replay(self):
            owner, count = self.captured
            marks, owner._marks = owner._marks, None
            owner._steps(count)
            owner._marks = marks
            counts.append(count)

    @contextlib.contextmanager
    def graph(into, capture_error_mode):
        into.captured = capturing[-1]
        with capturing[-1][0]._kept():
            yield

    capture = StepGraph._capture

    def watched_capture(self, count):
        capturing.append((self, count))
        return capture(self, count)

    class Stream:
        def __init__(self, device):
            pass

        def wait_stream(self, other):
            pass

    monkeypatch.setattr(StepGraph, "_capture", watched_capture)
    for name, value in {
        "CUDAGraph": Graph,
        "graph": graph,
        "Stream": Stream,
        "current_stream": Stream,
        "stream": lambda stream: contextlib.nullcontext(),
        "Event": Event,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return counts


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return open_dataset(write_pack(tmp_path_factory.mktemp("graph") / "pack", 24))


def network():
    torch.manual_seed(0)
    return OriginalNet(4)


SWITCHES = fast_pipeline("cpu").with_(fused_blocks=False)


@pytest.mark.parametrize("mel", ["cached", "batch"])
@pytest.mark.parametrize("batch_size", [2, 5, 19], ids=["several steps a launch", "one step a launch", "one step"])
def test_replayed_epochs_are_the_epochs(mel, batch_size, dataset, replayed):
    switches = SWITCHES.with_(mel=mel)
    rows = np.arange(N), np.arange(N, 24)
    settings = {"task": "type", "batch_size": batch_size, "device": CPU, "learning_rate": 1e-3}
    settings["draws"] = Draws(N, 4, 1)
    epochs = Epochs(dataset, network(), rows, switches=switches, **settings)
    expected = [epochs.train_epoch() for _ in range(2)]
    step = TrainingStep(network(), 1e-3, switches, CPU)
    source = make_source(dataset, "type", switches, CPU)
    source.prepare()
    graph, seen = StepGraph(step, source, batch_size, N), []
    other = Epochs(dataset, network(), rows, switches=switches, **settings)
    other.step, other.source, other._graph = step, source, graph
    found = [other.train_epoch(on_step=lambda done, total, _: seen.append((done, total))) for _ in range(2)]
    assert np.allclose([one.losses for one in found], [one.losses for one in expected], rtol=1e-5)
    assert [one.n_right for one in found] == [one.n_right for one in expected]
    assert seen[-1] == (-(-N // batch_size),) * 2
    several = {2: [8, 1], 5: [1] * 3, 19: [1]} if mel == "cached" else {2: [1] * 9, 5: [1] * 3, 19: [1]}
    assert replayed == several[batch_size] * 2


def test_reading_every_loss_replays_every_step(dataset, replayed):
    step, source = TrainingStep(network(), 1e-3, SWITCHES, CPU), make_source(dataset, "type", SWITCHES, CPU)
    source.prepare()
    losses, n_right = StepGraph(step, source, 2, N, reads=True).run(np.arange(N), NO_CLOCK)
    assert len(losses) == len(n_right) == 10
    assert replayed == [1] * 9


def test_a_timed_graph_books_its_parts(dataset, replayed):
    step, source, clock = (
        TrainingStep(network(), 1e-3, SWITCHES, CPU),
        make_source(dataset, "type", SWITCHES, CPU),
        Clock(),
    )
    source.prepare()
    StepGraph(step, source, 5, 15, timed=True).run(np.arange(15), clock)
    assert replayed == [1] * 3
    assert all(clock.seconds[part] == pytest.approx(3 * 0.002) for part in ("backward", "optimizer"))
    assert clock.seconds["forward"] == pytest.approx(2 * 3 * 0.002)  # the right answers are counted after the update
