"""Read the output and the exit code of commands that run in containers.

The engine turns the HTTP connection into a plain stream. The SDK reads it from the bare socket and loses bytes that
arrived together with the response header, and so does not see a short output on a busy machine.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from lyra_tasks.errors import PreconditionError

if TYPE_CHECKING:
    from lyra_tasks.engine.client.connect import Engine

STDOUT, STDERR = 1, 2
_CHUNK_BYTES = 1 << 16
_FRAME_HEADER = struct.Struct(">BxxxL")
_EXIT_STATUS_TIMEOUT_S = 5.0


class ExecStream:
    """The connection to a command in a container; starts it. `stream_api` is a client without a timeout."""

    def __init__(self, stream_api: Any, exec_id: str) -> None:
        connection: Any = stream_api.exec_start(exec_id, socket=True)
        self._response: Any = connection._response
        self._reader: Any = self._response.raw._fp.fp
        self.socket: Any = getattr(connection, "_sock", connection)

    def chunks(self) -> Iterator[bytes]:
        """Yield output as it arrives."""
        while data := self._reader.read1(_CHUNK_BYTES):
            yield data

    def close(self) -> None:
        """Close the connection and discard further output."""
        self.socket.close()
        self._response.close()


def split_frames(chunks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Split the output of a command without a terminal into (STDOUT or STDERR, data) pairs."""
    buffer = b""
    for chunk in chunks:
        buffer += chunk
        while len(buffer) >= _FRAME_HEADER.size:
            stream, length = _FRAME_HEADER.unpack(buffer[: _FRAME_HEADER.size])
            if len(buffer) < _FRAME_HEADER.size + length:
                break
            yield stream, buffer[_FRAME_HEADER.size : _FRAME_HEADER.size + length]
            buffer = buffer[_FRAME_HEADER.size + length :]


def wait_for_exit_code(engine: Engine, exec_id: str) -> int:
    """Return the exit code of a command whose output has ended.

    The engine records it a moment later, and a command may go on after closing its output.
    """
    pause, deadline = 0.01, time.monotonic() + _EXIT_STATUS_TIMEOUT_S
    while (status := engine.api.exec_inspect(exec_id))["ExitCode"] is None or status["Running"]:
        if not status["Running"] and time.monotonic() > deadline:
            raise PreconditionError("The engine did not report an exit status", hint="Retry the command")
        time.sleep(pause)
        pause = min(2 * pause, 0.5)
    return int(status["ExitCode"])
