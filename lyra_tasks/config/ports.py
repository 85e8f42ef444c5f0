"""Ports of containers: a number is a TCP port, `"53/udp"` one of the other kind."""

from __future__ import annotations

AnyPort = int | str
"""A number, or a text as above."""


def number(port: AnyPort) -> int:
    """The number of a port."""
    return int(str(port).partition("/")[0])


def protocol(port: AnyPort) -> str:
    """`tcp` or `udp`."""
    return "tcp" if isinstance(port, int) else "udp"


def docker_name(port: AnyPort) -> str:
    """The port as Docker names it: `80/tcp`."""
    return f"{number(port)}/{protocol(port)}"


def read(name: str) -> AnyPort:
    """The port that Docker names so; TCP where it names no protocol."""
    digits, _, kind = name.partition("/")
    return f"{int(digits)}/udp" if kind == "udp" else int(digits)


def joined(host: str, port: int) -> str:
    """Host and port in one, as URLs have them: an IPv6 address stands in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
