"""A relay to an engine that counts the bytes of its responses, delays them or breaks off in the middle of them."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Relay:
    """The address of a relay, and how many bytes the engine has sent."""

    address: str
    received: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take_received(self) -> int:
        """Return the bytes since the last call."""
        with self.lock:
            received, self.received = self.received, 0
        return received


@contextmanager
def relayed(
    engine: Path, directory: Path, max_bytes: int | None = None, response_delay_s: float = 0.0
) -> Iterator[Relay]:
    """Run a relay to an engine's socket, with its own socket in `directory`; it breaks off after `max_bytes`.

    What the engine sends within `response_delay_s`, such as a header and the output after it, arrives together.
    """
    path = directory / "relay.sock"
    relay = Relay(f"unix://{path}")

    def serve() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            upstream = socket.socket(socket.AF_UNIX)
            upstream.connect(str(engine))
            threading.Thread(target=forward, args=(client, upstream, False), daemon=True).start()
            threading.Thread(target=forward, args=(upstream, client, True), daemon=True).start()

    def receive(source: socket.socket, is_response: bool) -> bytes:
        if is_response:
            time.sleep(response_delay_s)
        return source.recv(1 << 16)

    def forward(source: socket.socket, target: socket.socket, is_response: bool) -> None:
        with suppress(OSError):
            while data := receive(source, is_response):
                if is_response:
                    with relay.lock:
                        relay.received += len(data)
                    if max_bytes is not None and relay.received > max_bytes:
                        break
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)
        if is_response:
            source.close()
            target.close()

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(64)
        threading.Thread(target=serve, daemon=True).start()
        yield relay
