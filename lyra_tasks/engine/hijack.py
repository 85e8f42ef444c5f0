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
    from lyra_tasks.engine.connect import Engine

OUTPUT, ERRORS = 1, 2
_CHUNK = 1 << 16
_FRAME = struct.Struct(">BxxxL")
_NOTED_AFTER = 5.0  # seconds in which an engine knows how a command ended that does not run any more


class Hijacked:
    """The connection of one exec, started by an SDK client that has no time limit."""

    def __init__(self, streams: Any, made: str, *, tty: bool) -> None:
        connection: Any = streams.exec_start(made, tty=tty, socket=True)
        self._response: Any = connection._response
        self._reader: Any = self._response.raw._fp.fp
        self.socket: Any = getattr(connection, "_sock", connection)

    def chunks(self) -> Iterator[bytes]:
        """What comes, as it comes."""
        while data := self._reader.read1(_CHUNK):
            yield data

    def close(self) -> None:
        """End it; what is still to come is lost."""
        self.socket.close()
        self._response.close()


def frames(chunks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """What comes without a terminal, by stream: OUTPUT or ERRORS."""
    rest = b""
    for data in chunks:
        rest += data
        while len(rest) >= _FRAME.size:
            stream, length = _FRAME.unpack(rest[: _FRAME.size])
            if len(rest) < _FRAME.size + length:
                break
            yield stream, rest[_FRAME.size : _FRAME.size + length]
            rest = rest[_FRAME.size + length :]


def output_of(engine: Engine, made: str) -> bytes:
    """Start a created exec and wait for its end; everything that it printed, both streams together."""
    connection = Hijacked(engine.streams, made, tty=False)
    try:
        return b"".join(data for _, data in frames(connection.chunks()))
    finally:
        connection.close()


def exit_code(engine: Engine, made: str) -> int:
    """How a command ended whose output has: the engine notes that a moment later, or it runs on without any.

    PreconditionError if the engine does not say.
    """
    pause, deadline = 0.01, time.monotonic() + _NOTED_AFTER
    while (seen := engine.api.exec_inspect(made))["ExitCode"] is None or seen["Running"]:
        if not seen["Running"] and time.monotonic() > deadline:
            raise PreconditionError("the engine does not say how the command ended", hint="run the same word again")
        time.sleep(pause)
        pause = min(2 * pause, 0.5)
    return int(seen["ExitCode"])
