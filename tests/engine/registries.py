"""Debian's registry, unpacked and not installed, on the loopback of this machine or of a sandbox engine."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import requests

from lyra_tasks.engine import sandbox
from lyra_tasks.images import oci
from tests.conftest import Project
from tests.faults import becomes
from tests.packages import unpacked

PASSWORD = "open sesame"
ADA = "ada:$2y$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW\n"
ACCEPT = {"Accept": f"{oci.MANIFEST_MEDIA_TYPE}, {oci.INDEX_MEDIA_TYPE}"}


@contextmanager
def serving(folder: Path, cache: Path, *, users: str = "", box: sandbox.Sandbox | None = None) -> Iterator[str]:
    """A registry with its files in `folder`, as host and port; with `users` (a htpasswd file) it lets only those in."""
    unpacked(folder / "root", cache, "docker-registry")
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


def get(host: str, path: str) -> requests.Response:
    """What the registry answers to Ada."""
    with requests.Session() as session:
        session.trust_env = False
        return session.get(f"http://{host}/v2/{path}", auth=("ada", PASSWORD), headers=ACCEPT, timeout=10)


def signed_in(project: Project, folder: Path, config: dict[str, Any]) -> Project:
    """The project of somebody with this `config.json`."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    return replace(project, environment={**project.environment, "DOCKER_CONFIG": str(folder)})


def as_ada(project: Project, folder: Path, host: str) -> Project:
    """The project of somebody who is signed in there."""
    auth = base64.b64encode(f"ada:{PASSWORD}".encode()).decode()
    return signed_in(project, folder, {"auths": {host: {"auth": auth}}})
