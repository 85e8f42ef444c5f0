"""Names of a Compose project as `.lyra.toml` takes them."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Sequence

from lyra_tasks.ports import ContainerPort, port_number

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_REPOSITORY_NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_PORT_NAMES = {
    80: "http", 3000: "http", 4000: "http", 5000: "http", 8000: "http", 8080: "http", 8888: "http", 9000: "http",
    443: "https", 8443: "https", 9090: "metrics", 1025: "smtp", 25: "smtp", 5432: "postgres", 3306: "mysql",
    6379: "redis", 5672: "amqp", 15672: "management", 27017: "mongo", 11211: "memcached", 4222: "nats",
    50051: "grpc", 1883: "mqtt", 9092: "kafka", 9200: "search",
    53: "dns", 514: "syslog", 8125: "statsd", 51820: "wireguard",
}  # fmt: skip


def make_name(text: str) -> str:
    """Return a text as a name of the configuration: itself if it is one, else as near as possible."""
    lowered = text.lower()
    if _NAME.fullmatch(lowered):
        return lowered
    return re.sub(r"[^a-z0-9]+", "-", lowered).strip("-")[:40].strip("-") or "app"


def make_image_name(text: str) -> str:
    """Return a text as a name that is valid in the reference of an image."""
    name = make_name(text)
    return name if _REPOSITORY_NAME.fullmatch(name) else re.sub(r"[^a-z0-9]+", "-", name).strip("-") or "app"


def unique_name(text: str, existing: Container[str]) -> str:
    """Return a text as a name, with a number if the name exists already."""
    name = candidate = make_name(text)
    number = 2
    while candidate in existing:
        candidate, number = f"{name}-{number}", number + 1
    return candidate


def name_services(services: Iterable[str]) -> dict[str, str]:
    """Return the new name of each service, which is the old one wherever that is valid."""
    names: dict[str, str] = {}
    ordered = list(services)
    for name in sorted(ordered, key=lambda name: (make_name(name) != name, ordered.index(name))):
        names[name] = unique_name(name, set(names.values()))
    return {name: names[name] for name in ordered}


def is_host_name(text: str) -> bool:
    """Return whether other services can resolve this name."""
    return _HOST_NAME.fullmatch(text) is not None


def name_ports(ports: Sequence[ContainerPort]) -> dict[str, ContainerPort]:
    """Return the ports by name: by their usual purpose, or `http` for the only TCP port."""
    ports_by_name: dict[str, ContainerPort] = {}
    tcp_ports = {port for port in ports if isinstance(port, int)}
    for port in dict.fromkeys(ports):
        fallback = f"port-{port}".replace("/", "-")
        default = "http" if isinstance(port, int) and len(tcp_ports) == 1 else fallback
        name = _PORT_NAMES.get(port_number(port), default)
        ports_by_name[name if name not in ports_by_name else fallback] = port
    return ports_by_name
