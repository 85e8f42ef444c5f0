"""Start the programs `lyra` and `./inv`: signals first, since importing the rest takes a while.

Ctrl-C, SIGTERM and SIGHUP end the program with one line and exit code 130 at any moment: at once as long as nothing has
begun, and with KeyboardInterrupt, which cleans up, once a task may run.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_EXIT_INTERRUPTED = 130


def main() -> None:
    """Run `lyra`."""
    _handle_signals(_exit_at_once)
    from lyra_tasks.tasks.program import main as run_program

    _run(run_program)


def inv() -> None:
    """Run `./inv`."""
    _handle_signals(_exit_at_once)
    from lyra_tasks.tasks.program import inv as run_program

    _run(run_program)


def _run(run_program: Callable[[], None]) -> None:
    sys.unraisablehook = _raise_interrupt_again
    try:
        _handle_signals(_raise_interrupt)
        run_program()
    except SystemExit as error:
        _exit_with_daemon_threads(error)
        raise
    except KeyboardInterrupt:  # a second one, while the first was handled
        _exit_at_once()
    finally:
        _handle_signals(_exit_at_once)


def _exit_with_daemon_threads(error: SystemExit) -> None:
    """Exit now if threads are left that nobody waits for, such as those that read from an engine.

    While it finalizes, Python ends them in the middle of native code, which may abort the process
    (https://github.com/python/cpython/issues/87135).
    """
    threads = [thread for thread in threading.enumerate() if thread is not threading.current_thread()]
    if not any(thread.daemon for thread in threads) or not isinstance(error.code, int | None):
        return
    _handle_signals(_exit_at_once)
    for thread in threads:
        if not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(error.code or 0)


def _handle_signals(handler: Callable[..., None]) -> None:
    """Set the handler of each signal that is not ignored, such as SIGHUP by `nohup`; `./inv` has blocked them."""
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def _raise_interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _exit_at_once(*_: object) -> None:
    try:
        os.write(2, b"error: Interrupted\n")
    finally:
        os._exit(_EXIT_INTERRUPTED)


def _raise_interrupt_again(unraisable: sys.UnraisableHookArgs) -> None:
    """Deliver an interrupt that came in a destructor or callback, where Python would print and forget it."""
    if unraisable.exc_type is KeyboardInterrupt:
        signal.raise_signal(signal.SIGINT)
    else:
        sys.__unraisablehook__(unraisable)


if __name__ == "__main__":
    inv()
