"""Models of `[services.S]` and the tables below it."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from lyra_tasks.config.values import (  # fmt: skip
    Command,
    ContainerPath,
    Duration,
    EnvironmentName,
    GroupName,
    HostName,
    IpAddress,
    Line,
    Name,
    Owner,
    Platform,
    Port,
    ProjectPath,
    PublishAddress,
    Reference,
    Size,
    SysctlName,
    SysctlValue,
    Table,
    Text,
    UdpPort,
    UlimitName,
    UlimitValue,
)
from lyra_tasks.ports import join_host_port, port_number

_WILDCARD_PARTS = re.compile(r"(?:^|/)[^/]*[*?\[\\].*", re.DOTALL)


class Limits(Table):
    """Limits of a container (R10); `disk` covers volumes and `/tmp`, which count as memory in environments."""

    cpus: float = Field(default=1.0, gt=0)
    """number of CPUs"""
    memory: Size = 256 * 1024**2
    """memory of the processes; the size of `/tmp` and volumes is added"""
    pids: int = Field(default=128, ge=1, strict=True)
    """number of processes and threads"""
    disk: Size = 64 * 1024**2
    """size of volumes and `/tmp` together"""


class Ulimit(Table):
    """A resource limit of each process; `-1` is no limit."""

    soft: UlimitValue
    """limit that a process may raise itself"""
    hard: UlimitValue
    """limit up to which it may"""


class Healthcheck(Table):
    """A health check of one kind: `exec`, `http` or `tcp`; without a kind, that of the image with another timing."""

    exec: Command | None = None
    """command in the container; part of the bundle's compose file"""
    http: Line | None = None
    """request such as `"GET /path"` to the port `http` or the only port; sent from outside, not part of the bundle"""
    tcp: Port | Name | None = None
    """name or number of a port that accepts connections; tried from outside, not part of the bundle"""
    interval: Duration = 1.0
    """time between two probes; environments also probe more often until the service is ready"""
    timeout: Duration = 5.0
    """time limit of a probe"""
    retries: int = Field(default=30, ge=1, strict=True)
    """number of failed probes until the service is unhealthy"""
    start_period: Duration | None = None
    """time after the start in which failures do not count; default: none"""
    disable: bool = False
    """no health check, not even that of the image"""

    @property
    def is_polled(self) -> bool:
        """Return whether it is sent from outside of the container."""
        return self.http is not None or self.tcp is not None

    @property
    def has_kind(self) -> bool:
        """Return whether it takes the place of the image's health check."""
        return self.exec is not None or self.is_polled


class EnvironmentVariable(Table):
    """An environment variable that the service reads or its image sets."""

    default: Line | None = None
    """value if Proxima sets none; not for secrets"""
    test_value: Line | None = None
    """value in test and development environments; default: `default`, or a random value for a secret"""
    description: Line = ""
    """purpose, for the bundle's documentation"""
    required: bool = False
    """Proxima must set a value"""
    secret: bool = False
    """the value is never stored or printed"""
    template: Line = ""
    """how Proxima makes the value of others, each of which is set once: `postgres://app:${POSTGRES_PASSWORD}@db/app`"""
    pattern: Line = ""
    """regular expression that the value must match"""


class SecretFile(Table):
    """A file with a secret that only the service's user can read."""

    path: ContainerPath
    """where it is in the container"""
    description: Line = ""
    """purpose"""
    test_value: Text | None = None
    """content in tests; default: random"""


class ConfigFile(Table):
    """A file that is mounted read-only and is part of the bundle: `source` or `content`."""

    path: ContainerPath
    """where it is in the container"""
    source: ProjectPath | None = None
    """path in the project"""
    content: Text | None = None
    """its text, instead of a file of the project"""
    description: Line = ""
    """purpose"""

    @model_validator(mode="after")
    def _has_one_origin(self) -> Self:
        if (self.source is None) == (self.content is None):
            raise ValueError("needs either source or content")
        return self

    def read(self, read_source: Callable[[str], bytes]) -> bytes:
        """Return its content; `read_source` returns that of a file of the project."""
        return self.content.encode() if self.source is None else read_source(self.source)  # type: ignore[union-attr]


class Volume(Table):
    """A volume for data; in environments, a tmpfs of its size."""

    path: ContainerPath
    """where it is in the container"""
    description: Line = ""
    """content"""
    size: Size = 64 * 1024**2
    """maximum size; part of `limits.disk`"""
    owner: Owner | None = None
    """`UID:GID` that its directory must have in the image; default: any with which the service can write"""
    shared: Name | None = None
    """name under which other services have the same volume; its size is that of the first one, in the order of their
    start, that does not mount it `read_only`, its owner that of the path in the images that have it"""
    read_only: bool = False
    """the service only reads it, and a shared one does not get the files of its image"""

    @property
    def mount_options(self) -> tuple[str, ...]:
        """Return the options of its mount, as in a Compose file."""
        return (*(["ro"] if self.read_only else []), *(["nocopy"] if self.read_only and self.shared else []))

    @property
    def owner_text(self) -> str:
        """Return the owner for documents."""
        return self.owner or "as in the image"


class ChangeRule(Table):
    """What the development environment does when certain files change and `create --watch` or `dev.sync --watch` runs.

    Each rule applies whose `paths` match a changed file. If files of several rules change at once, files are copied
    first, then the service is rebuilt or else restarted once, and then commands run, in the order of the rules.
    """

    paths: Annotated[list[ProjectPath], Field(min_length=1)]
    """files, directories with all that is in them, or patterns as in `.dockerignore`, relative to the project"""
    ignore: list[ProjectPath] = []
    """patterns of files among them that do not count, relative to the project"""
    action: Literal["sync", "restart", "rebuild"] | Annotated[list[Line], Field(min_length=1)]
    """`"sync"`: only copy the files, as every rule does; `"restart"`: restart the container, which keeps its files and
    ports; `"rebuild"`: build the image and replace the container, which keeps its ports and its source volume; or a
    command to run in the container, as a list"""
    target: ContainerPath | None = None
    """path in the container, outside of the source volume, that changed files are copied to; it stands for the part of
    `paths` before the first wildcard"""

    @property
    def roots(self) -> tuple[str, ...]:
        """Return the part of each path before the first wildcard, which is a file or directory; `.` is the project."""
        return tuple(dict.fromkeys(fixed_part(path) for path in self.paths if not path.startswith("!")))


def fixed_part(pattern: str) -> str:
    """Return the part of a pattern before the first wildcard, `.` if there is none."""
    return posixpath.normpath(_WILDCARD_PARTS.sub("", pattern.lstrip("/")) or ".")


class Dev(Table):
    """Settings of the service in the development environment; default: as in a test."""

    command: Command | None = None
    """command to start, without entrypoint and health check; default: the image's"""
    egress: bool = True
    """access to other networks; needs no deviation here"""
    read_only: bool = False
    """read-only root file system; `false` needs no deviation here"""
    limits: Limits | None = None
    """limits that replace those of the service"""
    source: ContainerPath | None = None
    """mount point of the source volume, which contains git's files below the image's context, not those of the image;
    default: `working_dir`, or the image's"""
    sync: bool = True
    """mount a source volume; `false`: the service uses the files of its image, and `on_change` copies what changes"""
    on_change: (
        Literal["restart", "rebuild"]
        | Annotated[list[Line], Field(min_length=1)]
        | Annotated[list[ChangeRule], Field(min_length=1)]
        | None
    ) = None
    """what to do when a file of the source changes: `"restart"`, `"rebuild"`, a command as a list of its arguments, or
    tables for certain files; default: only sync"""


class Service(Table):
    """A container of the project."""

    image: Reference
    """name in `[images]`, or the reference of a third-party image such as `"redis:7"`; see
    [third-party images](#third-party-images)"""
    platform: Platform | None = None
    """for a third-party image: its only platform; default: `proxima.platforms`"""
    command: Command | None = None
    """default: the image's; a string is run by `/bin/sh -c`"""
    entrypoint: Command | None = None
    """default: the image's; a string is run by `/bin/sh -c`"""
    user: Line = ""
    """default: the image's; root needs a deviation (`container.non-root`)"""
    working_dir: Line = ""
    """default: the image's"""
    ports: dict[Name, Port | UdpPort] = {}
    """name = port, such as `8000` or `"53/udp"`; HTTP checks use the port `http`"""
    publish: dict[Name, Port | PublishAddress] = {}
    """name of a port = where Proxima publishes it by default: a port on 127.0.0.1, or `"IP:PORT"`; default: the same
    number on 127.0.0.1"""
    depends_on: list[Name] = []
    """services that must be ready first"""
    oneshot: bool = False
    """exits with 0 before its dependents start"""
    promote: bool = True
    """part of the bundle; `false`: a test double, which takes part in tests and is never part of a bundle"""
    limits: Limits = Limits()
    """limits of the container"""
    read_only: bool = True
    """read-only root file system; `false` needs a deviation (`container.read-only-root`)"""
    tmpfs: dict[ContainerPath, Size] = {}
    """path = size of writable directories besides `/tmp` and volumes"""
    egress: bool = False
    """access to other networks; `true` needs a deviation (`container.egress`)"""
    cap_add: list[Annotated[str, StringConstraints(pattern=r"^[A-Z_]+$")]] = []
    """capabilities to keep; needs a deviation (`container.capabilities`)"""
    stop_signal: Line = ""
    """default: the image's"""
    stop_grace_period: Duration = 10.0
    """time from this signal to SIGKILL"""
    start_timeout: Duration | None = None
    """time in which the service must be ready or, if it is a one-shot, done; default: as long as its health check takes
    to fail, `1m` for a one-shot; not part of the bundle"""
    init: bool = True
    """run the command under an init process, which forwards signals and reaps zombies"""
    hostname: HostName | None = None
    """default: the service's name"""
    aliases: list[HostName] = []
    """further names for other services to reach it"""
    extra_hosts: dict[HostName, IpAddress] = {}
    """name = IP address in `/etc/hosts`"""
    ulimits: dict[UlimitName, UlimitValue | Ulimit] = {}
    """name = limit, or `{ soft, hard }`; default: `nofile = 1024` and `core = 0`"""
    shm_size: Size = 64 * 1024**2
    """size of `/dev/shm`, whose content counts as memory of the processes"""
    sysctls: dict[SysctlName, SysctlValue] = {}
    """kernel parameters of the container's own namespaces"""
    group_add: list[GroupName] = []
    """further groups of the user, by name or number"""
    host_access: list[Line] = []
    """what the Compose file asks of the host, and no container gets; needs a deviation (`container.host-access`), or
    `[]` if the service does without"""
    healthcheck: Healthcheck | None = None
    """health check that decides when the service is ready; default: the image's"""
    environment: dict[EnvironmentName, EnvironmentVariable] = {}
    """all variables that the service reads or its image sets"""
    secrets: dict[Name, SecretFile] = {}
    """files with secrets"""
    configs: dict[Name, ConfigFile] = {}
    """files of the project"""
    volumes: dict[Name, Volume] = {}
    """volumes for data"""
    dev: Dev | None = None
    """settings in the development environment"""

    @property
    def is_promoted(self) -> bool:
        """Return whether the service is part of the bundle; test doubles never are."""
        return self.promote

    @property
    def http_port(self) -> int | None:
        """Return the TCP port for HTTP checks: the one named `http`, or the only one."""
        streams = {name: port for name, port in self.ports.items() if isinstance(port, int)}
        if "http" in streams:
            return streams["http"]
        return next(iter(streams.values())) if len(streams) == 1 else None

    def default_publish_address(self, name: str) -> str:
        """Return where Proxima publishes a port unless `.env` says otherwise: `127.0.0.1:8080`."""
        address = self.publish.get(name, port_number(self.ports[name]))
        return address if isinstance(address, str) else join_host_port("127.0.0.1", address)

    def resolve_port(self, name_or_number: int | str) -> int | str | None:
        """Return the container port for a name or value in `ports`, or None."""
        port = self.ports.get(name_or_number, name_or_number) if isinstance(name_or_number, str) else name_or_number
        return port if port in self.ports.values() else None
