"""`[services.S]` and the tables below it. The text under a key is its description: in the schema and in the docs."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from lyra_tasks.config.values import (  # fmt: skip
    Command,
    ContainerPath,
    Duration,
    Line,
    Name,
    Owner,
    Port,
    ProjectPath,
    Size,
    Table,
    Text,
    UdpPort,
    VariableName,
)


class Limits(Table):
    """What one container may use (R10); `disk` covers its volumes and `/tmp`, and counts as memory on Lyra."""

    cpus: float = Field(default=1.0, gt=0)
    """cores"""
    memory: Size = 256 * 1024**2
    """of the processes; what may be in `/tmp` and volumes is added"""
    pids: int = Field(default=128, ge=1, strict=True)
    """processes and threads"""
    disk: Size = 64 * 1024**2
    """volumes and `/tmp` together"""


class Healthcheck(Table):
    """One of `exec`, `http` and `tcp`; without a table, the image's own HEALTHCHECK."""

    exec: Command | None = None
    """a command in the container; it goes into the bundle's compose file"""
    http: Line | None = None
    """`"GET /path"` at the port `http`, or the only one; asked from outside and not shipped"""
    tcp: Port | Name | None = None
    """a port, by name or number, that accepts; asked from outside and not shipped"""
    interval: Duration = 1.0
    """how long after one look the next is"""
    timeout: Duration = 5.0
    """how long one look may take"""
    retries: int = Field(default=30, ge=1, strict=True)
    """how many looks may fail before it counts as ill"""
    start_period: Duration | None = None
    """how long at the beginning failures do not count; default: not at all"""


class EnvironmentVariable(Table):
    """A variable that the service reads, or that its image sets."""

    default: Line | None = None
    """its value unless Proxima says otherwise; a secret has none"""
    test_value: Line | None = None
    """its value in tests and development labs; default: `default`, for a secret a random one"""
    description: Line = ""
    """what it is for; goes into the bundle's documentation"""
    required: bool = False
    """Proxima must give it a value"""
    secret: bool = False
    """its value is never written anywhere"""
    pattern: Line = ""
    """a regular expression that a value must match"""


class SecretFile(Table):
    """A file, readable by the service's user alone; tests get a random one."""

    path: ContainerPath
    """where it is in the container"""
    description: Line = ""
    """what it is for"""
    test_value: Text | None = None
    """its content in tests; default: a random one"""


class ConfigFile(Table):
    """A file of the project that is mounted, read-only, and travels in the bundle."""

    path: ContainerPath
    """where it is in the container"""
    source: ProjectPath
    """the file, from the project's folder"""
    description: Line = ""
    """what it decides"""


class Volume(Table):
    """Where the service keeps data; in labs it is a tmpfs of that size."""

    path: ContainerPath
    """where it is in the container"""
    description: Line = ""
    """what is kept there"""
    size: Size = 64 * 1024**2
    """the most that it holds; part of `limits.disk`"""
    owner: Owner = "0:0"
    """`UID:GID` of its root, as the image has it"""


class Dev(Table):
    """How `create` runs the service; without the table, as in a test."""

    command: Command | None = None
    """what is started; with one, the entrypoint and the health check are left out; default: the image's"""
    egress: bool = True
    """a way out of its network; needs no deviation in a development lab"""
    read_only: bool = False
    """a read-only root file system; `false` needs no deviation in a development lab"""
    limits: Limits | None = None
    """those it names replace the service's"""
    source: ContainerPath | None = None
    """where the source volume is mounted, which holds git's files below the image's context, and nothing of the image;
    default: `working_dir`, or the image's"""


class Service(Table):
    """One container of the project."""

    image: Name | None = None
    """an image of this project: a name in `[images]`; this or `external` is required"""
    external: Line | None = None
    """a reference, such as `"redis:7"`: takes part in tests and never travels"""
    command: Command | None = None
    """default: the image's; a string is run by `/bin/sh -c`"""
    entrypoint: Command | None = None
    """default: the image's; a string is run by `/bin/sh -c`"""
    user: Line = ""
    """default: the image's; root needs a deviation (`container.non-root`)"""
    working_dir: Line = ""
    """default: the image's"""
    ports: dict[Name, Port | UdpPort] = {}
    """name = port, such as `8000` or `"53/udp"`; `http` is the one that HTTP checks talk to"""
    depends_on: list[Name] = []
    """services that are ready first"""
    oneshot: bool = False
    """ends with 0 before its dependents start"""
    promote: bool | None = None
    """whether it travels; default: `true` for own images; `false`: takes part in tests only"""
    limits: Limits = Limits()
    """what it may use"""
    read_only: bool = True
    """a read-only root file system; `false` needs a deviation (`container.read-only-root`)"""
    tmpfs: dict[ContainerPath, Size] = {}
    """path = size, for what it must be able to write besides `/tmp` and volumes"""
    egress: bool = False
    """a way out of its network; `true` needs a deviation (`container.egress`)"""
    cap_add: list[Annotated[str, StringConstraints(pattern=r"^[A-Z_]+$")]] = []
    """capabilities that it keeps; needs a deviation (`container.capabilities`)"""
    stop_signal: Line = ""
    """default: the image's"""
    healthcheck: Healthcheck | None = None
    """when it is ready; default: the image's own"""
    environment: dict[VariableName, EnvironmentVariable] = {}
    """every variable that it reads or its image sets"""
    secrets: dict[Name, SecretFile] = {}
    """files with secrets"""
    configs: dict[Name, ConfigFile] = {}
    """files of the project"""
    volumes: dict[Name, Volume] = {}
    """where it keeps data"""
    dev: Dev | None = None
    """how `create` runs it"""

    @property
    def is_promoted(self) -> bool:
        """Whether the service's image travels to Proxima: own images do unless told otherwise, doubles never."""
        return self.external is None and self.promote is not False

    @property
    def http_port(self) -> int | None:
        """The TCP port that HTTP checks talk to: the one named `http`, or the only one; None if neither is."""
        streams = {name: port for name, port in self.ports.items() if isinstance(port, int)}
        if "http" in streams:
            return streams["http"]
        return next(iter(streams.values())) if len(streams) == 1 else None

    def resolve_port(self, name_or_number: int | str) -> int | str | None:
        """The container port that a name or a value of `ports` means; None if the service has no such port."""
        port = self.ports.get(name_or_number, name_or_number) if isinstance(name_or_number, str) else name_or_number
        return port if port in self.ports.values() else None
