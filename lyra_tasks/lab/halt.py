"""How checks that run in threads are ended by the one that waits for them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Halt:
    """Asked for once, by Ctrl-C or a check that fails fast; everything that may take long looks at it."""

    def __init__(self) -> None:
        self.enough = threading.Event()
        self._asked = threading.Event()
        self._lock = threading.Lock()
        self._ends: dict[int, Callable[[], None]] = {}

    @property
    def asked(self) -> bool:
        """Whether all that runs is to end now; `enough` is the milder word: nothing more is to begin."""
        return self._asked.is_set()

    def ask(self) -> None:
        """End what runs now, and let nothing begin."""
        with self._lock:
            self.enough.set()
            self._asked.set()
            ends = list(self._ends.values())
        for end in ends:
            end()

    def pass_by(self) -> None:
        """Raise KeyboardInterrupt, in whichever thread this is, if an end was asked for."""
        if self.asked:
            raise KeyboardInterrupt

    @contextmanager
    def ending(self, end: Callable[[], None], *, after: float | None = None) -> Iterator[threading.Event]:
        """While the block runs, `end` is what ends it: when asked for, or when `after` seconds have passed.

        The event says that it came to the latter.
        """
        late = threading.Event()
        timer = threading.Timer(after or 0.0, _in_turn(late.set, end))
        with self._lock:
            self._ends[id(timer)] = end
            begun_too_late = self.asked
        if begun_too_late:
            end()
        if after is not None:
            timer.start()
        try:
            yield late
        finally:
            timer.cancel()
            with self._lock:
                del self._ends[id(timer)]


def _in_turn(*calls: Callable[[], None]) -> Callable[[], None]:
    def every() -> None:
        for call in calls:
            call()

    return every
