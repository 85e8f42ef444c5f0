"""Container ports: an int is a TCP port, a string such as `"53/udp"` a UDP port."""

from __future__ import annotations

ContainerPort = int | str


def port_number(port: ContainerPort) -> int:
    """Return the number of a port."""
    return int(str(port).partition("/")[0])


def port_protocol(port: ContainerPort) -> str:
    """Return `tcp` or `udp`."""
    return "tcp" if isinstance(port, int) else "udp"


def docker_port(port: ContainerPort) -> str:
    """Return the port in Docker's notation: `80/tcp`."""
    return f"{port_number(port)}/{port_protocol(port)}"


def parse_port(name: str) -> ContainerPort:
    """Parse a port in Docker's notation; the protocol defaults to TCP."""
    digits, _, port_type = name.partition("/")
    return f"{int(digits)}/udp" if port_type == "udp" else int(digits)


def join_host_port(host: str, port: int) -> str:
    """Join host and port as in a URL, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
