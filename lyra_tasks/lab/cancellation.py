"""How checks that run in threads are ended by the one that waits for them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Cancellation:
    """Asked for once, by Ctrl-C or a check that fails fast; everything that may take long looks at it."""

    def __init__(self) -> None:
        self.stop_starting = threading.Event()
        self._cancelled = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: dict[int, Callable[[], None]] = {}

    @property
    def is_cancelled(self) -> bool:
        """Whether all that runs is to end now; `enough` is the milder word: nothing more is to begin."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """End what runs now, and let nothing begin."""
        with self._lock:
            self.stop_starting.set()
            self._cancelled.set()
            callbacks = list(self._callbacks.values())
        for callback in callbacks:
            callback()

    def raise_if_cancelled(self) -> None:
        """Raise KeyboardInterrupt, in whichever thread this is, if an end was asked for."""
        if self.is_cancelled:
            raise KeyboardInterrupt

    @contextmanager
    def on_cancel(self, callback: Callable[[], None], *, after: float | None = None) -> Iterator[threading.Event]:
        """While the block runs, `end` is what ends it: when asked for, or when `after` seconds have passed.

        The event says that it came to the latter.
        """
        timed_out = threading.Event()
        timer = threading.Timer(after or 0.0, _call_in_order(timed_out.set, callback))
        with self._lock:
            self._callbacks[id(timer)] = callback
            already_cancelled = self.is_cancelled
        if already_cancelled:
            callback()
        if after is not None:
            timer.start()
        try:
            yield timed_out
        finally:
            timer.cancel()
            with self._lock:
                del self._callbacks[id(timer)]


def _call_in_order(*calls: Callable[[], None]) -> Callable[[], None]:
    def call_all() -> None:
        for call in calls:
            call()

    return call_all
