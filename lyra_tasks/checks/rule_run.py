"""Check the rules beside the creation of the environments: reading images takes as long as that does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait

from lyra_tasks.lab.cancellation import Cancellation
from lyra_tasks.rules.deviations import RuleReport

_CANCELLATION_INTERVAL_S = 0.1


class RefusedRunError(Exception):
    """Ends the groups of a run whose rules have failed, or could not be checked; `RuleRun.wait` gives the reason."""


class RuleRun:
    """The rule checks of a test run, in a thread of their own.

    The thread does not keep the process alive: after Ctrl-C, nobody needs its result.
    """

    def __init__(self, check: Callable[[], RuleReport]) -> None:
        self._future: Future[RuleReport] = Future()
        self._thread = threading.Thread(target=self._run, args=(check,), daemon=True)
        self._thread.start()

    def _run(self, check: Callable[[], RuleReport]) -> None:
        try:
            self._future.set_result(check())
        except BaseException as error:  # raised again by whoever waits
            self._future.set_exception(error)

    def wait(self) -> RuleReport:
        """Return the report, or raise what ended the rule checks."""
        return self._future.result()

    def require_passed(self, cancellation: Cancellation | None = None) -> None:
        """Wait for the report; raise RefusedRunError if it does not allow the run, KeyboardInterrupt if cancelled."""
        while cancellation is not None and not wait((self._future,), _CANCELLATION_INTERVAL_S).done:
            cancellation.raise_if_cancelled()
        if self._future.exception() is not None or self.wait().failed:
            raise RefusedRunError
