"""Choose the published ports of a development environment, which restarts and replacements of containers keep.

The engine would pick another port at each start.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Mapping
from contextlib import closing

from lyra_tasks.config.models import Service
from lyra_tasks.digests import sha256_hex
from lyra_tasks.engine.client.connect import Engine
from lyra_tasks.engine.client.errors import translate_errors
from lyra_tasks.engine.objects.ownership import LABEL_RUN
from lyra_tasks.ports import ContainerPort, port_protocol

# Below those that Linux and the engine give away by themselves (/proc/sys/net/ipv4/ip_local_port_range)
_FIRST_PORT, _LAST_PORT = 20000, 31999

PublishedPorts = Mapping[str, Mapping[ContainerPort, int]]
"""The published port of each port of the container, by service."""


def choose_ports(
    services: Mapping[str, Service],
    previous: Mapping[str, Mapping[str, int]],
    is_free: Callable[[ContainerPort, int], bool],
    seed: str,
) -> PublishedPorts:
    """Return a published port for each port of the services: the previous one, else one that depends on `seed` alone.

    `previous` has the published ports by service and name of the port.
    """
    taken: set[tuple[str, int]] = set()

    def choose(name: str, key: str, port: ContainerPort) -> int:
        count = _LAST_PORT - _FIRST_PORT + 1
        start = int(sha256_hex(f"{seed} {name} {key}".encode())[:8], 16)
        candidates = [_FIRST_PORT + (start + step) % count for step in range(count)]
        if key in previous.get(name, {}):
            candidates.insert(0, previous[name][key])
        protocol = port_protocol(port)
        chosen = next(
            candidate for candidate in candidates if (protocol, candidate) not in taken and is_free(port, candidate)
        )
        taken.add((protocol, chosen))
        return chosen

    return {
        name: {port: choose(name, key, port) for key, port in service.ports.items()}
        for name, service in services.items()
    }


def probe_ports(engine: Engine, run: str) -> Callable[[ContainerPort, int], bool]:
    """Return a function that tells whether a port can be published for the environment of `run`.

    The ports of its own containers can; those of others, and those that another program of this machine uses, cannot.
    """
    with translate_errors("listing published ports"):
        containers = engine.api.containers()
    own: set[tuple[str, int]] = set()
    others: set[tuple[str, int]] = set()
    for container in containers:
        published = own if container["Labels"].get(LABEL_RUN) == run else others
        published |= {
            (port["Type"], port["PublicPort"]) for port in container.get("Ports") or () if "PublicPort" in port
        }

    def is_free(port: ContainerPort, candidate: int) -> bool:
        key = (port_protocol(port), candidate)
        return key in own or (key not in others and not _is_used(engine.host_address, port, candidate))

    return is_free


def _is_used(host: str, port: ContainerPort, candidate: int) -> bool:
    """Return whether a program listens on a port; of an address that is not this machine's, it is not known."""
    kind = socket.SOCK_STREAM if port_protocol(port) == "tcp" else socket.SOCK_DGRAM
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with closing(socket.socket(family, kind)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(kind == socket.SOCK_STREAM))
        try:
            probe.bind((host, candidate))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False
