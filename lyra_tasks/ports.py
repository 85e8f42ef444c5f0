"""Ports of containers: a number is a TCP port, `"53/udp"` one of the other kind."""

from __future__ import annotations

ContainerPort = int | str
"""A number, or a text as above."""


def port_number(port: ContainerPort) -> int:
    """The number of a port."""
    return int(str(port).partition("/")[0])


def port_protocol(port: ContainerPort) -> str:
    """`tcp` or `udp`."""
    return "tcp" if isinstance(port, int) else "udp"


def docker_port(port: ContainerPort) -> str:
    """The port as Docker names it: `80/tcp`."""
    return f"{port_number(port)}/{port_protocol(port)}"


def parse_port(name: str) -> ContainerPort:
    """The port that Docker names so; TCP where it names no protocol."""
    digits, _, port_type = name.partition("/")
    return f"{int(digits)}/udp" if port_type == "udp" else int(digits)


def join_host_port(host: str, port: int) -> str:
    """Host and port in one, as URLs have them: an IPv6 address stands in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
