"""Debian's registry, unpacked and not installed, on the loopback of this machine or of a sandbox engine."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lyra_tasks.engine import sandbox
from lyra_tasks.engine.debian import AptWorkspace, host_codename, unpack
from tests.faults import becomes


@contextmanager
def serving(folder: Path, cache: Path, *, users: str = "", box: sandbox.Sandbox | None = None) -> Iterator[str]:
    """A registry with its files in `folder`, as host and port; with `users` (a htpasswd line) it lets only those in."""
    suite = host_codename()
    workspace = AptWorkspace(cache / "tests" / "apt", (suite,))
    workspace.update()
    unpack(workspace.download([f"docker-registry/{suite}"], folder, lambda _: None), folder / "root")
    with socket.create_server(("127.0.0.1", 0)) as free:
        host, port = free.getsockname()
    text = (
        f"version: 0.1\nlog: {{level: error}}\nhttp: {{addr: '{host}:{port}'}}\n"
        f"storage: {{filesystem: {{rootdirectory: '{folder}/data'}}}}\n"
    )
    if users:
        (folder / "htpasswd").write_text(users)
        text += f"auth: {{htpasswd: {{realm: here, path: '{folder}/htpasswd'}}}}\n"
    (folder / "config.yml").write_text(text)
    there = ["nsenter", f"--net=/proc/{box.pid}/ns/net", "--"] if box else []
    ask = [*there, sys.executable, "-c", f"import socket; socket.create_connection(('{host}', {port}))"]
    with (folder / "log").open("wb") as log:
        program = folder / "root/usr/bin/docker-registry"
        server = subprocess.Popen([*there, program, "serve", folder / "config.yml"], stdout=log, stderr=log)
    try:
        ready = becomes(lambda: subprocess.run(ask, capture_output=True, check=False).returncode == 0)
        assert ready, (folder / "log").read_text()
        yield f"{host}:{port}"
    finally:
        server.terminate()
        server.wait()
