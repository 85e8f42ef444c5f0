"""A socket that passes on to an engine and back, and counts what the engine sends, or ends in the middle of it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Relay:
    """Where to connect instead of to the engine, and how many bytes came from there."""

    address: str
    received: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def taken(self) -> int:
        """The bytes since this was asked for last."""
        with self.lock:
            received, self.received = self.received, 0
        return received


@contextmanager
def relayed(engine: Path, folder: Path, most: int | None = None) -> Iterator[Relay]:
    """A relay to the engine behind a socket, which lies in `folder` while the block runs.

    After `most` bytes from the engine, it passes nothing on any more.
    """
    path = folder / "relay.sock"
    relay = Relay(f"unix://{path}")

    def serve() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            there = socket.socket(socket.AF_UNIX)
            there.connect(str(engine))
            threading.Thread(target=carry, args=(client, there, False), daemon=True).start()
            threading.Thread(target=carry, args=(there, client, True), daemon=True).start()

    def carry(source: socket.socket, target: socket.socket, counted: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if counted:
                    with relay.lock:
                        relay.received += len(data)
                    if most is not None and relay.received > most:
                        break
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)
        if counted:
            source.close()
            target.close()

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(64)
        threading.Thread(target=serve, daemon=True).start()
        yield relay
