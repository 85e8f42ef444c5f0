"""What is known without asking a registry: the ports, users and folders of images that many projects stand on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lyra_tasks.config.ports import AnyPort, number

PORT_NAMES: Mapping[int, str] = {
    80: "http", 3000: "http", 4000: "http", 5000: "http", 8000: "http", 8080: "http", 8888: "http", 9000: "http",
    443: "https", 8443: "https", 9090: "metrics", 1025: "smtp", 25: "smtp", 5432: "postgres", 3306: "mysql",
    6379: "redis", 5672: "amqp", 15672: "management", 27017: "mongo", 11211: "memcached", 4222: "nats",
    50051: "grpc", 1883: "mqtt", 9092: "kafka", 9200: "search",
    53: "dns", 514: "syslog", 8125: "statsd", 51820: "wireguard",
}  # fmt: skip
"""How a port is called where it has no better name."""


@dataclass(frozen=True)
class KnownImage:
    """An image that is run as a double: what it listens on, whom it can run as, where it must be able to write.

    `alpine_user` is that of its Alpine variants; `volume` is where it keeps its data.
    """

    port: int
    user: str
    alpine_user: str
    volume: str = ""
    tmpfs: tuple[str, ...] = ()
    size: str = "64m"

    def user_of(self, reference: str) -> str:
        """The user that the image `reference` can run as."""
        return self.alpine_user if "alpine" in reference else self.user


KNOWN_IMAGES: Mapping[str, KnownImage] = {
    "redis": KnownImage(6379, "999:999", "999:1000", "/data"),
    "valkey": KnownImage(6379, "999:999", "999:1000", "/data"),
    "postgres": KnownImage(5432, "999:999", "70:70", "/var/lib/postgresql/data", ("/var/run/postgresql",), "256m"),
    "mysql": KnownImage(3306, "999:999", "999:999", "/var/lib/mysql", ("/var/run/mysqld",), "512m"),
    "mariadb": KnownImage(3306, "999:999", "999:999", "/var/lib/mysql", ("/run/mysqld",), "512m"),
    "mongo": KnownImage(27017, "999:999", "999:999", "/data/db", ("/data/configdb",), "512m"),
    "rabbitmq": KnownImage(5672, "999:999", "100:101", "/var/lib/rabbitmq"),
    "memcached": KnownImage(11211, "11211:11211", "11211:11211"),
    "nginx": KnownImage(80, "101:101", "101:101", "", ("/var/cache/nginx", "/run")),
}


def known_image(reference: str) -> KnownImage | None:
    """What is known of an image, by the last part of its name."""
    return KNOWN_IMAGES.get(reference.partition("@")[0].rpartition("/")[2].partition(":")[0])


def port_names(ports: Sequence[AnyPort]) -> dict[str, AnyPort]:
    """Names for ports: what they are usually for; `http` for the only TCP port whose use is not known."""
    named: dict[str, AnyPort] = {}
    streams = {port for port in ports if isinstance(port, int)}
    for port in dict.fromkeys(ports):
        plain = f"port-{port}".replace("/", "-")
        unknown = "http" if isinstance(port, int) and len(streams) == 1 else plain
        name = PORT_NAMES.get(number(port), unknown)
        named[name if name not in named else plain] = port
    return named
