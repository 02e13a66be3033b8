"""Songs take turns, so that one visitor's hour keeps nobody from clips, and a closing app waits for no song."""

import contextlib
import threading
from collections.abc import Callable, Iterator

from triadbench.core.errors import UserError


class SongQueue:
    """One song at a time, in the order of arrival.

    Args:
        max_waiting: songs that wait at most; the visitor of one more is asked to come again.
    """

    def __init__(self, max_waiting: int = 8):
        self._max_waiting, self._closed = max_waiting, False
        self._line: list[object] = []
        self._changed = threading.Condition()

    def close(self, patience_s: float = 1.0) -> None:
        """Send away who waits, and have `check` stop the song at work; returns once all are gone, or patience is."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._line, patience_s)

    def check(self) -> None:
        """Raises UserError once closed; the song at work calls it now and then."""
        if self._closed:
            raise UserError("the app is being closed; come again when it is back")

    @contextlib.contextmanager
    def turn(self, report: Callable[[int], None] | None = None) -> Iterator[None]:
        """A block that runs when it is its turn.

        Args:
            report: called with the number of songs before this one, whenever it changes.

        Raises:
            UserError: too many wait, or the app is being closed.
        """
        ticket = object()
        with self._changed:
            self.check()
            if len(self._line) > self._max_waiting:
                raise UserError(f"{len(self._line)} songs are before yours, and no more can wait; come again soon")
            self._line.append(ticket)
        place = None
        try:
            while place != 0:
                with self._changed:
                    while not self._closed and self._line.index(ticket) == place:
                        self._changed.wait()
                    self.check()
                    place = self._line.index(ticket)
                if place and report is not None:
                    report(place)
            yield
        finally:
            with self._changed:
                self._line.remove(ticket)
                self._changed.notify_all()
