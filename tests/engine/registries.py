"""Debian's registry, unpacked but not installed, on the loopback of this machine or of a sandbox."""

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
def serving(directory: Path, cache: Path, *, users: str = "", box: sandbox.Sandbox | None = None) -> Iterator[str]:
    """Run a registry with its files in `directory` and yield its host and port; `users` is a htpasswd file."""
    program = unpacked(cache, "docker-registry") / "usr/bin/docker-registry"
    directory.mkdir(exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        host, port = free.getsockname()
    text = (
        f"version: 0.1\nlog: {{level: error}}\nhttp: {{addr: '{host}:{port}'}}\n"
        f"storage: {{filesystem: {{rootdirectory: '{directory}/data'}}}}\n"
    )
    if users:
        (directory / "htpasswd").write_text(users)
        text += f"auth: {{htpasswd: {{realm: here, path: '{directory}/htpasswd'}}}}\n"
    (directory / "config.yml").write_text(text)
    prefix = ["nsenter", f"--net=/proc/{box.pid}/ns/net", "--"] if box else []
    probe = [*prefix, sys.executable, "-c", f"import socket; socket.create_connection(('{host}', {port}))"]
    with (directory / "log").open("wb") as log:
        server = subprocess.Popen([*prefix, program, "serve", directory / "config.yml"], stdout=log, stderr=log)
    try:
        ready = becomes(lambda: subprocess.run(probe, capture_output=True, check=False).returncode == 0)
        assert ready, (directory / "log").read_text()
        yield f"{host}:{port}"
    finally:
        server.terminate()
        server.wait()


def get(host: str, path: str) -> requests.Response:
    """Return the registry's response to Ada."""
    with requests.Session() as session:
        session.trust_env = False
        return session.get(f"http://{host}/v2/{path}", auth=("ada", PASSWORD), headers=ACCEPT, timeout=10)


def signed_in(project: Project, directory: Path, config: dict[str, Any]) -> Project:
    """Return the project of a user with this Docker `config.json`."""
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(config))
    return replace(project, environment={**project.environment, "DOCKER_CONFIG": str(directory)})


def as_ada(project: Project, directory: Path, host: str) -> Project:
    """Return the project of Ada, who is signed in to the registry."""
    auth = base64.b64encode(f"ada:{PASSWORD}".encode()).decode()
    return signed_in(project, directory, {"auths": {host: {"auth": auth}}})
