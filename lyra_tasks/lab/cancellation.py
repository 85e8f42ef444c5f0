"""Cancellation of checks that run in threads, by the thread that waits for them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Cancellation:
    """A cancellation token shared by all check threads, set once by Ctrl-C or an error.

    `stop_starting` is the milder signal, set by fail-fast: what runs may finish, but nothing new is started.
    """

    def __init__(self) -> None:
        self.stop_starting = threading.Event()
        self._cancelled = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: dict[int, Callable[[], None]] = {}

    @property
    def is_cancelled(self) -> bool:
        """Whether everything that runs has to end now."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """End everything that runs, and let nothing start."""
        with self._lock:
            self.stop_starting.set()
            self._cancelled.set()
            callbacks = list(self._callbacks.values())
        for callback in callbacks:
            callback()

    def raise_if_cancelled(self) -> None:
        """Raise KeyboardInterrupt, in whichever thread this is, after a cancellation."""
        if self.is_cancelled:
            raise KeyboardInterrupt

    @contextmanager
    def on_cancel(self, callback: Callable[[], None], *, timeout: float | None = None) -> Iterator[threading.Event]:
        """Call `callback` on cancellation or after `timeout` seconds while the block runs.

        Yields an event that is set on timeout.
        """
        timed_out = threading.Event()

        def expire() -> None:
            timed_out.set()
            callback()

        timer = threading.Timer(timeout or 0.0, expire)
        with self._lock:
            self._callbacks[id(timer)] = callback
            already_cancelled = self.is_cancelled
        if already_cancelled:
            callback()
        if timeout is not None:
            timer.start()
        try:
            yield timed_out
        finally:
            timer.cancel()
            with self._lock:
                del self._callbacks[id(timer)]
