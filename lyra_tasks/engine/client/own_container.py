"""Recognize that this program runs in a container of the engine that it uses, whose socket is mounted into it.

Ports on the loopback interface of the engine's machine are not reached from there, and that machine has other files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import docker

_LOOPBACK_ADDRESS = "127.0.0.1"
_MOUNTS_FILE = Path("/proc/self/mountinfo")
# The engine mounts these into each container; a host name, which the user can choose, would not identify one.
_ENGINE_MOUNT = re.compile(r"/containers/([0-9a-f]{64})/(?:hostname|hosts|resolv\.conf)$")


@dataclass(frozen=True)
class OwnContainer:
    """The container of this program; ports published at `host_address` are reached from it, if it is not empty."""

    id: str
    host_address: str


def find_own_container(client: docker.DockerClient) -> OwnContainer | None:
    """Return the container of the engine in which this program runs, or None if there is none."""
    from docker.errors import NotFound

    with suppress(OSError, NotFound):
        container_id = parse_container_id(_MOUNTS_FILE.read_text(errors="replace"))
        if container_id:
            return OwnContainer(container_id, _resolve_host_address(client, container_id))
    return None


def parse_container_id(mounts: str) -> str:
    """Return the id of the container that has these mounts, in the format of `/proc/self/mountinfo`, or ""."""
    roots = (fields[3] for line in mounts.splitlines() if len(fields := line.split()) > 4)
    return next((match[1] for root in roots if (match := _ENGINE_MOUNT.search(root))), "")


def _resolve_host_address(client: docker.DockerClient, container_id: str) -> str:
    document: Mapping[str, Any] = client.api.inspect_container(container_id)
    mode = str(document["HostConfig"].get("NetworkMode") or "")
    if mode == "host":
        return _LOOPBACK_ADDRESS
    if mode.startswith("container:"):
        return _resolve_host_address(client, mode.removeprefix("container:"))
    networks = (document.get("NetworkSettings") or {}).get("Networks") or {}
    gateways = (str(network.get("Gateway") or "") for _, network in sorted(networks.items()))
    return next((gateway for gateway in gateways if gateway), "")
