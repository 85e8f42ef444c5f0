"""Commands in running containers with this process's own input and output: plain streams, or a real terminal."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from lyra_tasks.engine.faults import engine_faults
from lyra_tasks.engine.hijack import ERRORS, OUTPUT, Hijacked, exit_code, frames
from lyra_tasks.errors import PreconditionError

if TYPE_CHECKING:
    from lyra_tasks.engine.connect import Engine

_CHUNK = 1 << 16
_UNSTARTABLE = (126, 127)


def execute(engine: Engine, container: str, command: Sequence[str], *, folder: str, pass_input: bool) -> int:
    """Run `command` in a container, its output and errors passed on apart; returns its exit code.

    With `pass_input` it reads what this process is given; without, its input is empty.
    """
    with engine_faults("running a command in a container"):
        made = engine.api.exec_create(
            container, list(command), stdin=pass_input, stdout=True, stderr=True, workdir=folder or None
        )["Id"]
        wire = _Wire(engine, made, tty=False)
    with wire.open(pass_input):
        for stream, data in wire.frames():
            _write(ERRORS if stream == ERRORS else OUTPUT, data)
    return _exit_code(engine, made)


def attach_terminal(engine: Engine, container: str, command: Sequence[str], *, folder: str) -> int:
    """Run `command` in a container with this process's terminal as its own; returns its exit code.

    Keys go through as they are typed, Ctrl-C included; the size follows the window's; the terminal is given back as
    it was, whatever happens. PreconditionError without a terminal, or if the command cannot be started.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise PreconditionError(
            "a shell needs a terminal, and this is none", hint="for single commands: `dev.exec -- COMMAND`"
        )
    said = b""
    with engine_faults("opening a terminal in a container"):
        made = engine.api.exec_create(
            container, list(command), stdin=True, stdout=True, stderr=True, tty=True,
            environment={"TERM": os.environ.get("TERM", "xterm")}, workdir=folder or None,
        )["Id"]  # fmt: skip
    with _raw(0), _sized(lambda: _resize(engine, made)):
        with engine_faults("opening a terminal in a container"):
            wire = _Wire(engine, made, tty=True)
        _resize(engine, made)
        with wire.open(pass_input=True):
            for data in wire.chunks():
                said = (said + data)[-_CHUNK:] if len(said) < _CHUNK else said
                _write(1, data)
    code = _exit_code(engine, made)
    if code in _UNSTARTABLE and b"exec failed" in said:
        raise PreconditionError(
            f"the container has no {command[0]}", hint="build the image's dev_target from a base with a shell"
        )
    return code


class _Wire:
    """The connection of one exec: everything the engine sends, and a thread that carries our input to it."""

    def __init__(self, engine: Engine, made: str, *, tty: bool) -> None:
        self._connection = Hijacked(engine.streams, made, tty=tty)

    @contextmanager
    def open(self, pass_input: bool) -> Iterator[None]:
        """Carry input until the block ends."""
        wake_reader, wake_writer = os.pipe()
        thread = threading.Thread(target=self._carry_input, args=(wake_reader,), daemon=True)
        if pass_input:
            thread.start()
        try:
            yield
        finally:
            os.write(wake_writer, b"x")
            if pass_input:
                thread.join()
            os.close(wake_reader)
            os.close(wake_writer)
            self._connection.close()

    def chunks(self) -> Iterator[bytes]:
        """What comes, as it comes."""
        with engine_faults("talking to a container"):
            yield from self._connection.chunks()

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """What comes, by stream."""
        return frames(self.chunks())

    def _carry_input(self, wake: int) -> None:
        import socket

        with suppress(OSError):
            while True:
                readable, _, _ = select.select([0, wake], [], [])
                if wake in readable:
                    return
                data = os.read(0, _CHUNK)
                if not data:
                    self._connection.socket.shutdown(socket.SHUT_WR)
                    return
                self._connection.socket.sendall(data)


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _exit_code(engine: Engine, made: str) -> int:
    with engine_faults("asking how a command ended"):
        return exit_code(engine, made)


def _resize(engine: Engine, made: str) -> None:
    from docker.errors import APIError

    with suppress(OSError, APIError):
        size = os.get_terminal_size(0)
        engine.api.exec_resize(made, height=size.lines, width=size.columns)


@contextmanager
def _raw(descriptor: int) -> Iterator[None]:
    """The terminal in raw mode."""
    import termios
    import tty

    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSAFLUSH, before)


@contextmanager
def _sized(resize: Callable[[], None]) -> Iterator[None]:
    """Call `resize` whenever the window's size changes."""
    before = signal.signal(signal.SIGWINCH, lambda _number, _frame: resize())
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
