"""Songs take turns: in the order of arrival, one at a time, a line of limited length, and an end that waits for none."""

from __future__ import annotations

import threading

import pytest

from triadbench.core.errors import UserError
from triadbench.export.app.recognition import SongQueue, clock


class Visitor(threading.Thread):
    """Takes a turn and keeps it until `leave` is set; notes in `trace` what it is told."""

    def __init__(self, queue: SongQueue, name: str, trace: list):
        super().__init__(name=name, daemon=True)
        self.queue, self.trace, self.leave, self.error = queue, trace, threading.Event(), None
        self.moved = threading.Semaphore(0)

    def say(self, what):
        self.trace.append((self.name, what))
        self.moved.release()

    def run(self):
        try:
            with self.queue.turn(self.say):
                self.say("in")
                assert self.leave.wait(20)
                self.trace.append((self.name, "out"))
                self.queue.check()
        except UserError as error:
            self.error = str(error)

    def arrive(self):
        """Start, and come back once it stands in the line."""
        self.start()
        self.wait()

    def wait(self):
        assert self.moved.acquire(timeout=20)


def test_in_the_order_of_arrival_and_one_at_a_time():
    trace, queue = [], SongQueue()
    visitors = [Visitor(queue, name, trace) for name in "abc"]
    for visitor in visitors:
        visitor.arrive()
    assert trace == [("a", "in"), ("b", 1), ("c", 2)]
    visitors[0].leave.set()
    visitors[1].wait(), visitors[2].wait()
    visitors[1].leave.set()
    visitors[2].wait()
    visitors[2].leave.set()
    for visitor in visitors:
        visitor.join(20)
    assert [said for said in trace if said[1] in ("in", "out")] == [
        (name, what) for name in "abc" for what in ("in", "out")
    ]
    assert ("c", 1) in trace and all(visitor.error is None for visitor in visitors)


def test_who_gives_up_leaves_the_line():
    trace, queue = [], SongQueue()
    with pytest.raises(ZeroDivisionError), queue.turn():
        _ = 1 / 0
    visitor = Visitor(queue, "a", trace)
    visitor.arrive()
    assert trace == [("a", "in")]
    visitor.leave.set()
    visitor.join(20)


def test_a_long_line_takes_no_more():
    trace, queue = [], SongQueue(max_waiting=1)
    visitors = [Visitor(queue, name, trace) for name in "ab"]
    for visitor in visitors:
        visitor.arrive()
    with pytest.raises(UserError, match="2 songs are before yours"), queue.turn():
        raise AssertionError("not its turn")
    for visitor in visitors:
        visitor.leave.set()
        visitor.join(20)
    with queue.turn():
        pass


def test_closing_sends_the_line_away():
    trace, queue = [], SongQueue()
    visitors = [Visitor(queue, name, trace) for name in "ab"]
    for visitor in visitors:
        visitor.arrive()
    queue.close(patience_s=0.1)
    visitors[1].join(20)
    assert "being closed" in visitors[1].error and ("b", "in") not in trace
    visitors[0].leave.set()
    visitors[0].join(20)
    assert "being closed" in visitors[0].error, "who is at work is told by check"
    with pytest.raises(UserError, match="being closed"), queue.turn():
        pass


def test_clock():
    assert [clock(seconds) for seconds in (0, 65.9, 3723)] == ["0:00", "1:05", "1:02:03"]
