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

from lyra_tasks.engine.client.errors import translate_errors
from lyra_tasks.engine.client.exec_stream import STDERR, STDOUT, ExecStream, split_frames, wait_for_exit_code
from lyra_tasks.errors import PreconditionError

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine

_CHUNK_BYTES = 1 << 16
_CANNOT_START_CODES = (126, 127)


def exec_with_stdio(engine: Engine, container: str, command: Sequence[str], *, directory: str, pass_input: bool) -> int:
    """Run `command` in a container, its output and errors passed on apart; returns its exit code.

    With `pass_input` it reads what this process is given; without, its input is empty.
    """
    with translate_errors("running a command in a container"):
        exec_id = engine.api.exec_create(
            container, list(command), stdin=pass_input, stdout=True, stderr=True, workdir=directory or None
        )["Id"]
        connection = _ExecConnection(engine, exec_id, tty=False)
    with connection.forward_input(pass_input):
        for stream, chunk in connection.frames():
            _write(STDERR if stream == STDERR else STDOUT, chunk)
    return _exit_code(engine, exec_id)


def attach_terminal(engine: Engine, container: str, command: Sequence[str], *, directory: str) -> int:
    """Run `command` in a container with this process's terminal as its own; returns its exit code.

    Keys go through as they are typed, Ctrl-C included; the size follows the window's; the terminal is given back as
    it was, whatever happens. PreconditionError without a terminal, or if the command cannot be started.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise PreconditionError(
            "a shell needs a terminal, and this is none", hint="for single commands: `dev.exec -- COMMAND`"
        )
    output = b""
    with translate_errors("opening a terminal in a container"):
        exec_id = engine.api.exec_create(
            container, list(command), stdin=True, stdout=True, stderr=True, tty=True,
            environment={"TERM": os.environ.get("TERM", "xterm")}, workdir=directory or None,
        )["Id"]  # fmt: skip
    with _raw_mode(0), _on_window_resize(lambda: _resize(engine, exec_id)):
        with translate_errors("opening a terminal in a container"):
            connection = _ExecConnection(engine, exec_id, tty=True)
        _resize(engine, exec_id)
        with connection.forward_input(pass_input=True):
            for chunk in connection.chunks():
                output = (output + chunk)[-_CHUNK_BYTES:] if len(output) < _CHUNK_BYTES else output
                _write(1, chunk)
    code = _exit_code(engine, exec_id)
    if code in _CANNOT_START_CODES and b"exec failed" in output:
        raise PreconditionError(
            f"the container has no {command[0]}", hint="build the image's dev_target from a base with a shell"
        )
    return code


class _ExecConnection:
    """The connection of one exec: everything the engine sends, and a thread that carries our input to it."""

    def __init__(self, engine: Engine, exec_id: str, *, tty: bool) -> None:
        self._stream = ExecStream(engine.stream_api, exec_id, tty=tty)

    @contextmanager
    def forward_input(self, pass_input: bool) -> Iterator[None]:
        """Carry input until the block ends."""
        wake_reader, wake_writer = os.pipe()
        thread = threading.Thread(target=self._forward_input, args=(wake_reader,), daemon=True)
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
            self._stream.close()

    def chunks(self) -> Iterator[bytes]:
        """What comes, as it comes."""
        with translate_errors("talking to a container"):
            yield from self._stream.chunks()

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """What comes, by stream."""
        return split_frames(self.chunks())

    def _forward_input(self, wake: int) -> None:
        import socket

        with suppress(OSError):
            while True:
                readable, _, _ = select.select([0, wake], [], [])
                if wake in readable:
                    return
                data = os.read(0, _CHUNK_BYTES)
                if not data:
                    self._stream.socket.shutdown(socket.SHUT_WR)
                    return
                self._stream.socket.sendall(data)


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _exit_code(engine: Engine, exec_id: str) -> int:
    with translate_errors("asking how a command ended"):
        return wait_for_exit_code(engine, exec_id)


def _resize(engine: Engine, exec_id: str) -> None:
    from docker.errors import APIError

    with suppress(OSError, APIError):
        size = os.get_terminal_size(0)
        engine.api.exec_resize(exec_id, height=size.lines, width=size.columns)


@contextmanager
def _raw_mode(descriptor: int) -> Iterator[None]:
    """The terminal in raw mode."""
    import termios
    import tty

    attributes = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSAFLUSH, attributes)


@contextmanager
def _on_window_resize(resize: Callable[[], None]) -> Iterator[None]:
    """Call `resize` whenever the window's size changes."""
    previous_handler = signal.signal(signal.SIGWINCH, lambda _number, _frame: resize())
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, previous_handler)
