"""What a command in a container prints arrives whole, however its bytes come."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import docker

from lyra_tasks.engine import sandbox
from lyra_tasks.engine.connect import Engine
from lyra_tasks.engine.objects import execute
from tests.engine.sandboxes import IMAGE, client_of, import_busybox


@contextmanager
def slow_way(box: sandbox.Sandbox, folder: Path) -> Iterator[str]:
    """A way to the engine that is slow back, so that an answer and the output behind it come in one piece."""
    path = folder / "slow.sock"

    def back(engine: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            time.sleep(0.5)
            while data := engine.recv(1 << 16):
                client.sendall(data)
                time.sleep(0.5)
            client.shutdown(socket.SHUT_WR)

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        opened: list[socket.socket] = []

        def serve() -> None:
            with suppress(OSError):
                while True:
                    client, _ = server.accept()
                    engine = socket.socket(socket.AF_UNIX)
                    opened.extend((client, engine))
                    engine.connect(str(box.socket))
                    threading.Thread(target=back, args=(engine, client), daemon=True).start()
                    threading.Thread(target=forth, args=(client, engine), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield f"unix://{path}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            for each in opened:
                each.close()


def forth(client: socket.socket, engine: socket.socket) -> None:
    with suppress(OSError):
        while data := client.recv(1 << 16):
            engine.sendall(data)


def test_output_that_comes_together_with_the_answer_s_head_is_not_lost(
    engine: Engine, box: sandbox.Sandbox, busybox: Path, tmp_path: Path
) -> None:
    import_busybox(box, busybox)
    sleeper = client_of(box).containers.run(IMAGE, ["/bin/busybox", "sleep", "60"], detach=True)
    try:
        with slow_way(box, tmp_path) as address:
            client = docker.DockerClient(base_url=address)
            slow = replace(engine, client=client, streams=client.api)
            assert execute(slow, str(sleeper.id), ["/bin/busybox", "echo", "hello"]) == (0, "hello\n")
            client.close()
    finally:
        sleeper.remove(force=True)
        client_of(box).images.remove(IMAGE, force=True)
