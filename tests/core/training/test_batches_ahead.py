"""Batches made ahead on a GPU: a thread makes them on a stream of its own, and nobody reads one too early or too late."""

import contextlib
import threading

import torch

from triadbench.core.timing import NO_CLOCK
from triadbench.core.training import batches


class _OnGpu:
    """A tensor of a GPU, as far as handing it over goes."""

    is_cuda = True

    def __init__(self, number, events):
        self.number, self.events = number, events

    def record_stream(self, stream):
        self.events.append((self.number, "kept for", stream))


def test_a_batch_made_ahead_on_a_gpu_is_waited_for_and_kept(monkeypatch):
    events = []

    class Stream:
        def __init__(self, device):
            assert device == torch.device("cuda")

        def record_event(self):
            return f"event {sum(what == 'made' for _, what, _ in events)}"

    class Now(Stream):
        def wait_event(self, event):
            events.append((event, "waited for", "now"))

        def __eq__(self, other):
            return other == "now"

    def make():
        for number in (1, 2):
            events.append((number, "made", threading.current_thread().name))
            yield _OnGpu(number, events), torch.tensor(number)

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", contextlib.nullcontext)
    monkeypatch.setattr(torch.cuda, "current_stream", Now)
    taken = [item[0].number for item in batches._ahead(make(), torch.device("cuda"), NO_CLOCK)]
    assert taken == [1, 2]
    assert all(thread == "batches ahead" for _, what, thread in events if what == "made")
    used = [event for event in events if event[1] != "made"]
    assert used == [
        ("event 1", "waited for", "now"),
        (1, "kept for", "now"),
        ("event 2", "waited for", "now"),
        (2, "kept for", "now"),
    ]
