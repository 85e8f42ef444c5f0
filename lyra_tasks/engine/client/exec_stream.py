"""Connections that the engine turns from HTTP into plain streams: what a command in a container prints.

The SDK reads them from the socket. But the first bytes may have come together with the answer's head, and are in the
buffer of whoever read that: a short output would be lost where the machine is busy.
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
_EXIT_STATUS_TIMEOUT_S = 5.0  # seconds in which an engine knows how a command ended that does not run any more


class ExecStream:
    """The connection of one exec, started by an SDK client that has no time limit."""

    def __init__(self, stream_api: Any, exec_id: str, *, tty: bool) -> None:
        connection: Any = stream_api.exec_start(exec_id, tty=tty, socket=True)
        self._response: Any = connection._response
        self._reader: Any = self._response.raw._fp.fp
        self.socket: Any = getattr(connection, "_sock", connection)

    def chunks(self) -> Iterator[bytes]:
        """What comes, as it comes."""
        while data := self._reader.read1(_CHUNK_BYTES):
            yield data

    def close(self) -> None:
        """End it; what is still to come is lost."""
        self.socket.close()
        self._response.close()


def split_frames(chunks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """What comes without a terminal, by stream: OUTPUT or ERRORS."""
    buffer = b""
    for chunk in chunks:
        buffer += chunk
        while len(buffer) >= _FRAME_HEADER.size:
            stream, length = _FRAME_HEADER.unpack(buffer[: _FRAME_HEADER.size])
            if len(buffer) < _FRAME_HEADER.size + length:
                break
            yield stream, buffer[_FRAME_HEADER.size : _FRAME_HEADER.size + length]
            buffer = buffer[_FRAME_HEADER.size + length :]


def read_exec_output(engine: Engine, exec_id: str) -> bytes:
    """Start a created exec and wait for its end; everything that it printed, both streams together."""
    stream = ExecStream(engine.stream_api, exec_id, tty=False)
    try:
        return b"".join(data for _, data in split_frames(stream.chunks()))
    finally:
        stream.close()


def wait_for_exit_code(engine: Engine, exec_id: str) -> int:
    """How a command ended whose output has: the engine notes that a moment later, or it runs on without any.

    PreconditionError if the engine does not say.
    """
    pause, deadline = 0.01, time.monotonic() + _EXIT_STATUS_TIMEOUT_S
    while (status := engine.api.exec_inspect(exec_id))["ExitCode"] is None or status["Running"]:
        if not status["Running"] and time.monotonic() > deadline:
            raise PreconditionError("the engine does not say how the command ended", hint="run the same word again")
        time.sleep(pause)
        pause = min(2 * pause, 0.5)
    return int(status["ExitCode"])
