"""Songs take turns, so that one visitor's hour keeps nobody from clips, and a closing app waits for no song."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from triadbench.core.errors import UserError


class Turns:
    """One at a time, in the order of arrival.

    Args:
        waiting: so many wait at most; one more is told to come again.
    """

    def __init__(self, waiting: int = 8):
        self._waiting, self._line, self._moved = waiting, [], threading.Condition()
        self._closed = False

    def close(self, patience_s: float = 1.0) -> None:
        """Who waits is sent away, and `check` says so to who is at work; all are gone then, or patience is."""
        with self._moved:
            self._closed = True
            self._moved.notify_all()
            self._moved.wait_for(lambda: not self._line, patience_s)

    def check(self) -> None:
        """Raises UserError once closed; called now and then by who is at work."""
        if self._closed:
            raise UserError("the app is being closed; come again when it is back")

    @contextlib.contextmanager
    def turn(self, told: Callable[[int], None] | None = None) -> Iterator[None]:
        """A block that runs when it is its turn.

        Args:
            told: is called with how many are before one, whenever that changes.

        Raises:
            UserError: too many wait, or the app is being closed.
        """
        own = object()
        with self._moved:
            self.check()
            if len(self._line) > self._waiting:
                raise UserError(f"{len(self._line)} songs are before yours, and no more can wait; come again soon")
            self._line.append(own)
        try:
            self._wait(own, told)
            yield
        finally:
            with self._moved:
                self._line.remove(own)
                self._moved.notify_all()

    def _wait(self, own: object, told: Callable[[int], None] | None) -> None:
        place = None
        while place != 0:
            with self._moved:
                while not self._closed and self._line.index(own) == place:
                    self._moved.wait()
                self.check()
                place = self._line.index(own)
            if place and told is not None:
                told(place)
