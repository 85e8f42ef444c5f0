"""Debian's registry on this machine's loopback; it lets Ada in."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import requests

from lyra_tasks.engine.debian import AptWorkspace, host_codename, unpack
from lyra_tasks.images import documents
from tests.conftest import Project
from tests.faults import becomes

PASSWORD = "open sesame"
HASH = "$2y$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW"
ACCEPT = {"Accept": f"{documents.MANIFEST}, {documents.INDEX}"}


@contextmanager
def running(folder: Path, cache: Path) -> Iterator[str]:
    """A registry with its data in `folder`, unpacked there; yields host and port."""
    suite = host_codename()
    workspace = AptWorkspace(cache / "tests" / "apt", (suite,))
    workspace.update()
    unpack(workspace.download([f"docker-registry/{suite}"], folder, lambda _: None), folder / "root")
    (folder / "htpasswd").write_text(f"ada:{HASH}\n")
    with socket.create_server(("127.0.0.1", 0)) as free:
        host = f"127.0.0.1:{free.getsockname()[1]}"
    (folder / "config.yml").write_text(
        f"version: 0.1\nlog: {{level: error}}\nhttp: {{addr: '{host}'}}\n"
        f"storage: {{filesystem: {{rootdirectory: '{folder}/data'}}}}\n"
        f"auth: {{htpasswd: {{realm: here, path: '{folder}/htpasswd'}}}}\n"
    )
    program = folder / "root/usr/bin/docker-registry"
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([program, "serve", folder / "config.yml"], stdout=log, stderr=log)
    try:
        assert becomes(lambda: _answers(host)), (folder / "log").read_text()
        yield host
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


def _answers(host: str) -> bool:
    address, _, port = host.partition(":")
    with socket.socket() as connection:
        return connection.connect_ex((address, int(port))) == 0
