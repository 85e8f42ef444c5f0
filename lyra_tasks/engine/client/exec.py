"""Run commands in running containers: captured, with this process's own input and output, or in a real terminal.

The engine turns the HTTP connection into a plain stream. The SDK reads it from the bare socket and loses bytes that
arrived together with the response header, and so does not see a short output on a busy machine.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from lyra_tasks.engine.client.errors import translate_errors
from lyra_tasks.errors import PreconditionError
from lyra_tasks.processes import BoundedOutput, create_environment

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine

STDOUT, STDERR = 1, 2
_CHUNK_BYTES = 1 << 16
_FRAME_HEADER = struct.Struct(">BxxxL")
_EXIT_STATUS_TIMEOUT_S = 5.0
_CANNOT_START_CODES = (126, 127)


def exec_command(
    engine: Engine,
    container: str,
    command: Sequence[str],
    *,
    user: str = "",
    timeout: float | None = None,
    secret_values: Iterable[str] = (),
) -> tuple[int, str]:
    """Run a command in a container; return its exit code and its output, both streams combined.

    Of a long output only the beginning and the end are kept, without parts of `secret_values`. After `timeout` seconds
    it raises TimeoutError: the engine cannot end a command, which so ends with its container.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    output = BoundedOutput()
    with translate_errors("running a command in a container"):
        exec_id = engine.api.exec_create(container, list(command), stdout=True, stderr=True, user=user)["Id"]
        with closing(ExecStream(engine.stream_api, exec_id, deadline)) as stream:
            for _, data in split_frames(stream.chunks()):
                output.write(data)
        code = _wait_for_exit_code(engine, exec_id, deadline)
    return code, output.text(secret_values)


def exec_with_stdio(engine: Engine, container: str, command: Sequence[str], *, directory: str, pass_input: bool) -> int:
    """Run `command` in a container and return its exit code; its output and errors stay apart.

    Its input is this process's with `pass_input`, and empty without.
    """
    with translate_errors("running a command in a container"):
        exec_id = engine.api.exec_create(
            container, list(command), stdin=pass_input, stdout=True, stderr=True, workdir=directory or None
        )["Id"]
        stream = ExecStream(engine.stream_api, exec_id)
    with _forwarded_input(stream, pass_input), translate_errors("running a command in a container"):
        for kind, chunk in split_frames(stream.chunks()):
            _write(STDERR if kind == STDERR else STDOUT, chunk)
    with translate_errors("reading the exit code of a command"):
        return _wait_for_exit_code(engine, exec_id)


def attach_terminal(engine: Engine, container: str, command: Sequence[str], *, directory: str) -> int:
    """Run `command` in a container with this process's terminal, by `docker exec`; return its exit code."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise PreconditionError("`dev.shell` needs a terminal", hint="Run single commands by `dev.exec -- COMMAND`")
    docker = [engine.cli, "exec", "--interactive", "--tty", "--env", f"TERM={os.environ.get('TERM', 'xterm')}"]
    docker += ["--workdir", directory] if directory else []
    environment = create_environment(engine.cli_environment)
    try:
        code = subprocess.run([*docker, container, *command], env=environment, check=False).returncode
    except FileNotFoundError as error:
        raise PreconditionError("Docker CLI not found", hint="Install the Docker CLI") from error
    if code in _CANNOT_START_CODES and _lacks_command(engine, container, command[0]):
        raise PreconditionError(
            f"The container has no {command[0]}", hint="Build the image's dev_target from a base with a shell"
        )
    return code


def _lacks_command(engine: Engine, container: str, program: str) -> bool:
    """Tell a program that cannot be started from a shell whose last command could not."""
    code, _ = exec_command(engine, container, [program, "-c", ":"])
    return code in _CANNOT_START_CODES


class ExecStream:
    """The connection to a command in a container; starts it.

    `stream_api` is a client without a timeout. Reading raises TimeoutError at the `deadline`, a monotonic time.
    """

    def __init__(self, stream_api: Any, exec_id: str, deadline: float | None = None) -> None:
        connection: Any = stream_api.exec_start(exec_id, socket=True)
        self._deadline = deadline
        self._response: Any = connection._response
        self._reader: Any = self._response.raw._fp.fp
        self.socket: Any = getattr(connection, "_sock", connection)

    def chunks(self) -> Iterator[bytes]:
        """Yield output as it arrives."""
        self._limit_wait()
        while data := self._reader.read1(_CHUNK_BYTES):
            yield data
            self._limit_wait()

    def _limit_wait(self) -> None:
        if self._deadline is not None:
            self.socket.settimeout(_seconds_until(self._deadline))

    def close(self) -> None:
        """Close the connection and discard further output."""
        self.socket.close()
        self._response.close()


def split_frames(chunks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Split the output of a command without a terminal into (STDOUT or STDERR, data) pairs, however it arrives."""
    header, stream, missing = b"", STDOUT, 0
    for chunk in chunks:
        position = 0
        while position < len(chunk):
            if missing:
                data = chunk[position : position + missing]
                position, missing = position + len(data), missing - len(data)
                yield stream, data
                continue
            part = chunk[position : position + _FRAME_HEADER.size - len(header)]
            position, header = position + len(part), header + part
            if len(header) == _FRAME_HEADER.size:
                stream, missing = _FRAME_HEADER.unpack(header)
                header = b""


def _wait_for_exit_code(engine: Engine, exec_id: str, deadline: float | None = None) -> int:
    """Return the exit code of a command whose output has ended; raise TimeoutError at the `deadline`.

    The engine records it a moment later, and a command may go on after closing its output.
    """
    pause, report_deadline = 0.01, time.monotonic() + _EXIT_STATUS_TIMEOUT_S
    while (status := engine.api.exec_inspect(exec_id))["ExitCode"] is None or status["Running"]:
        if not status["Running"] and time.monotonic() > report_deadline:
            raise PreconditionError("The engine did not report an exit status", hint="Retry the command")
        if deadline is not None:
            pause = min(pause, _seconds_until(deadline))
        time.sleep(pause)
        pause = min(2 * pause, 0.5)
    return int(status["ExitCode"])


@contextmanager
def _forwarded_input(stream: ExecStream, pass_input: bool) -> Iterator[None]:
    """Send this process's input to a command while the block runs, then close the stream."""
    wake_reader, wake_writer = os.pipe()
    thread = threading.Thread(target=_forward_input, args=(stream, wake_reader), daemon=True)
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
        stream.close()


def _forward_input(stream: ExecStream, wake: int) -> None:
    with suppress(OSError):
        while True:
            readable, _, _ = select.select([0, wake], [], [])
            if wake in readable:
                return
            data = os.read(0, _CHUNK_BYTES)
            if not data:
                stream.socket.shutdown(socket.SHUT_WR)
                return
            stream.socket.sendall(data)


def _seconds_until(deadline: float) -> float:
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("timed out")
    return seconds


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
