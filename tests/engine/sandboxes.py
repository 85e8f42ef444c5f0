"""What several tests of the sandbox need: starting one, asking from inside, and looking for what it left."""

from __future__ import annotations

import io
import os
import re
import subprocess
import tarfile
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
    """No progress in tests."""


def up(state: Path, **options: Any) -> Sandbox:
    """A sandbox of the machine's own cache."""
    return sandbox.launch_sandbox(state, cache=CACHE, progress=silent, **options)


def client_of(engine: Sandbox) -> docker.DockerClient:
    """The engine's API."""
    return docker.DockerClient(base_url=f"unix://{engine.socket}", timeout=30)


def import_busybox(engine: Sandbox, folder: Path) -> None:
    """Make the image that the tests run: one static program, which lies in `folder`."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(folder / "busybox", "bin/busybox")
    repository, tag = IMAGE.split(":")
    client_of(engine).api.import_image_from_data(archive.getvalue(), repository=repository, tag=tag)


@contextmanager
def website(engine: Sandbox) -> Iterator[str]:
    """A container that publishes a port; its address as this machine sees it."""
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
    """This machine's end of the link to a sandbox."""
    return str(IPv4Address(engine.address) - 1)


def heard(engine: Sandbox, words: list[str], **options: Any) -> str:
    """The output of a busybox command in a container of the sandbox, cut off after some seconds."""
    command = ["/bin/busybox", "timeout", "5", "/bin/busybox", *words]
    container = client_of(engine).containers.run(IMAGE, command, detach=True, init=True, **options)
    try:
        container.wait(timeout=20)
        return container.logs().decode()
    finally:
        container.remove(force=True)


def reach(engine: Sandbox, host: str, port: int, **options: Any) -> str:
    """What a container hears when it connects somewhere."""
    return heard(engine, ["nc", host, str(port), "-e", "/bin/busybox", "echo", "hi"], **options)


@dataclass(frozen=True)
class Traces:
    """What an engine could leave on the machine. Others may work on it too, so only what bears our name is kept."""

    mounts: str
    rules: str
    settings: tuple[tuple[str, int], ...]
    ours: tuple[str, ...]


def traces(state: Path) -> Traces:
    """The traces as they are now."""
    name = layout.sandbox_paths(state).name
    cmdlines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    ours = [repr(line) for line in cmdlines if name.encode() in line or os.fsencode(state) in line]
    ours += [str(tree.path / name) for tree in cgroups.list_cgroup_trees() if (tree.path / name).exists()]
    ours += [str(path) for path in Path("/run").iterdir() if path.name == name or not path.name.startswith("lyra-")]
    settings = [path for folder in ("/etc", "/var/lib", "/run/mount") for path in Path(folder).glob("*")]
    return Traces(
        mounts=Path("/proc/self/mounts").read_text(),
        rules=rules(),
        settings=tuple(sorted((str(path), path.lstat().st_mtime_ns) for path in settings)),
        ours=tuple(sorted(ours)),
    )


def rules() -> str:
    """The machine's own packet filter, without counters and comments."""
    engine = packages.fetch_engine(CACHE, packages.resolve_suite("trixie"), silent)
    environment = {"PATH": "/bin", "LD_LIBRARY_PATH": str(engine / "lib"), "XTABLES_LIBDIR": str(engine / "xtables")}
    command = [engine / "bin" / "iptables-save"]
    text = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return re.sub(r"(?m)^#.*\n|\[\d+:\d+\]", "", text)
