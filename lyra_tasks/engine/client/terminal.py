"""Commands in running containers with this process's own input and output: plain streams, or a real terminal."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
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
        return wait_for_exit_code(engine, exec_id)


def attach_terminal(engine: Engine, container: str, command: Sequence[str], *, directory: str) -> int:
    """Run `command` in a container with this process's terminal, by `docker exec`; return its exit code."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise PreconditionError("`dev.shell` needs a terminal", hint="Run single commands by `dev.exec -- COMMAND`")
    docker = [engine.cli, "exec", "--interactive", "--tty", "--env", f"TERM={os.environ.get('TERM', 'xterm')}"]
    docker += ["--workdir", directory] if directory else []
    environment = {**os.environ, **engine.cli_environment}
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
    with translate_errors("running a command in a container"):
        exec_id = engine.api.exec_create(container, [program, "-c", ":"])["Id"]
        engine.api.exec_start(exec_id)
        return wait_for_exit_code(engine, exec_id) in _CANNOT_START_CODES


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


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
