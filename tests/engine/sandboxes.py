"""Helpers for sandbox tests: start one, run commands inside, and record the state of the host."""

from __future__ import annotations

import io
import os
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import docker

from lyra_tasks.engine import sandbox
from lyra_tasks.engine.sandbox import Sandbox, cgroups, layout, packages
from lyra_tasks.paths import xdg_directory

CACHE = xdg_directory("XDG_CACHE_HOME", ".cache") / "lyra"
IMAGE = "busybox:test"


def silent(_: str) -> None:
    """Ignore progress messages."""


def up(state: Path, **options: Any) -> Sandbox:
    """Start a sandbox with the packages in the machine's cache."""
    return sandbox.launch_sandbox(state, cache=CACHE, progress=silent, **options)


def client_of(engine: Sandbox) -> docker.DockerClient:
    """Return a client of the engine."""
    return docker.DockerClient(base_url=f"unix://{engine.socket}", timeout=30)


def import_busybox(engine: Sandbox, directory: Path) -> None:
    """Import the image of the tests, which has only the static busybox in `directory`."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(directory / "busybox", "bin/busybox")
    repository, tag = IMAGE.split(":")
    client_of(engine).api.import_image_from_data(archive.getvalue(), repository=repository, tag=tag)


@contextmanager
def website(engine: Sandbox) -> Iterator[str]:
    """Run a container with a published port and yield its address on this machine."""
    client = client_of(engine)
    command = ["/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/bin"]
    container = client.containers.run(IMAGE, command, detach=True, ports={"8080/tcp": None}, mem_limit="16m")
    try:
        container.reload()
        published = container.ports["8080/tcp"]
        assert published
        yield f"{engine.address}:{published[0]['HostPort']}"
    finally:
        container.remove(force=True, v=True)


def gateway_of(engine: Sandbox) -> str:
    """Return this machine's address on the link to a sandbox."""
    return str(IPv4Address(engine.address) - 1)


def run_busybox(engine: Sandbox, arguments: list[str], **options: Any) -> str:
    """Run a busybox command in a container for at most 5 s and return its output."""
    command = ["/bin/busybox", "timeout", "5", "/bin/busybox", *arguments]
    container = client_of(engine).containers.run(IMAGE, command, detach=True, init=True, **options)
    try:
        container.wait(timeout=20)
        return container.logs().decode()
    finally:
        container.remove(force=True)


def reach(engine: Sandbox, host: str, port: int, **options: Any) -> str:
    """Connect to a port from a container and return the output."""
    return run_busybox(engine, ["nc", host, str(port), "-e", "/bin/busybox", "echo", "hi"], **options)


@dataclass(frozen=True)
class HostState:
    """Everything of the machine that an engine could change; of processes and files only those of the sandbox."""

    mounts: str
    rules: str
    settings: tuple[tuple[str, int], ...]
    ours: tuple[str, ...]


def host_state(state: Path) -> HostState:
    """Record the state of the machine."""
    name = layout.SandboxPaths(state).name
    cmdlines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    ours = [repr(line) for line in cmdlines if name.encode() in line or os.fsencode(state) in line]
    ours += [str(tree.path / name) for tree in cgroups.list_cgroup_trees() if (tree.path / name).exists()]
    ours += [str(path) for path in Path("/run").iterdir() if path.name == name or not path.name.startswith("lyra-")]
    settings = [
        path
        for directory in ("/etc", "/var/lib", "/run/mount")
        for path in Path(directory).glob("*")
        if path.name not in {"subuid", "subgid"}  # other tests make them for a moment, as places of mounts
    ]
    # Tests beside this one mount file systems below their own temporary directories.
    mounts = Path("/proc/self/mounts").read_text().splitlines(keepends=True)
    return HostState(
        mounts="".join(line for line in mounts if str(state) in line or tempfile.gettempdir() not in line),
        rules=rules(),
        settings=tuple(sorted((str(path), path.lstat().st_mtime_ns) for path in settings)),
        ours=tuple(sorted(ours)),
    )


def rules() -> str:
    """Return the packet filter of the machine, without counters and comments."""
    engine = packages.fetch_engine(CACHE, packages.resolve_suite("trixie"), silent)
    environment = {"PATH": "/bin", "LD_LIBRARY_PATH": str(engine / "lib"), "XTABLES_LIBDIR": str(engine / "xtables")}
    command = [engine / "bin" / "iptables-save"]
    text = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return re.sub(r"(?m)^#.*\n|\[\d+:\d+\]", "", text)
