"""The configuration as frozen, validated models: one class per table of `.lyra.toml`, one field per key.

Sizes are bytes, durations seconds. What a single value must be is said here; what values must be to each other is said
in `checks.py`, where every problem is collected.
"""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from lyra_tasks.config.text import no_control, not_blank, single_line
from lyra_tasks.config.units import parse_duration, parse_size

Size = Annotated[int, BeforeValidator(parse_size)]
Duration = Annotated[float, BeforeValidator(parse_duration)]
Text = Annotated[str, AfterValidator(no_control)]
Line = Annotated[str, AfterValidator(single_line)]
Said = Annotated[Line, AfterValidator(not_blank)]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
ContainerPath = Annotated[str, StringConstraints(pattern=r"^/[^:\x00-\x1f]*[^/:\x00-\x1f]$")]
ProjectPath = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f]+$")]
Port = Annotated[int, Field(ge=1, le=65535, strict=True)]
Owner = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,7}:[0-9]{1,7}$")]
Platform = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+/[a-z0-9_]+(/v[0-9]+)?$")]
Group = Annotated[str, StringConstraints(pattern=r"^([a-z0-9][a-z0-9_-]{0,30})?$")]
Command = list[Line] | Line


class Table(BaseModel):
    """A table of the configuration: unknown keys and other types are errors, values cannot be changed afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Project(Table):
    name: Name
    description: Line = ""
    source: Line = ""
    licenses: Line = ""


class Proxima(Table):
    """What the production node can run (R3)."""

    platforms: list[Platform] = Field(default=["linux/amd64"], min_length=1)
    min_engine: Annotated[str, StringConstraints(pattern=r"^[0-9]+\.[0-9]+(\.[0-9]+)?$")] = "20.10"
    cpus: float | None = Field(default=None, gt=0)
    memory: Size | None = None
    max_image_size: Size | None = None

    @property
    def engine_version(self) -> tuple[int, ...]:
        """`min_engine` as numbers that compare."""
        return tuple(int(part) for part in self.min_engine.split("."))


class Engine(Table):
    context: Line = ""
    sandbox: Literal["auto", "never", "always"] = "never"
    suite: Literal["bookworm", "trixie", "sid"] = "trixie"


class Builder(Table):
    name: Line = ""
    cache_from: list[Line] = []
    cache_to: list[Line] = []


class Rootfs(Table):
    """A root file system made of Debian packages."""

    suite: Annotated[str, StringConstraints(pattern=r"^[a-z]+$")]
    packages: list[Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9+.-]+$")]] = Field(min_length=1)
    variant: Literal["extract", "custom", "essential", "minbase"] = "custom"


class Base(Table):
    """Where a FROM comes from; the sources are tried in the order image, archive, rootfs."""

    image: Line = ""
    archive: ProjectPath | None = None
    rootfs: Rootfs | None = None


class Image(Table):
    context: ProjectPath
    dockerfile: ProjectPath = "Dockerfile"
    target: Line = ""
    dev_target: Line = ""
    args: dict[Variable, Line] = {}
    secrets: dict[Name, ProjectPath] = {}
    bases: dict[Line, Name] = {}
    platforms: list[Platform] = []


class Limits(Table):
    """What one container may use (R10); `disk` covers its volumes and `/tmp`, and counts as memory on Lyra."""

    cpus: float = Field(default=1.0, gt=0)
    memory: Size = 256 * 1024**2
    pids: int = Field(default=128, ge=1, strict=True)
    disk: Size = 64 * 1024**2


class Healthcheck(Table):
    exec: Command | None = None
    http: Line | None = None
    tcp: Port | Name | None = None
    interval: Duration = 1.0
    timeout: Duration = 5.0
    retries: int = Field(default=30, ge=1, strict=True)
    start_period: Duration | None = None


class EnvironmentVariable(Table):
    default: Line | None = None
    test_value: Line | None = None
    description: Line = ""
    required: bool = False
    secret: bool = False
    pattern: Line = ""


class SecretFile(Table):
    path: ContainerPath
    description: Line = ""
    test_value: Text | None = None


class ConfigFile(Table):
    path: ContainerPath
    source: ProjectPath
    description: Line = ""


class Volume(Table):
    path: ContainerPath
    description: Line = ""
    size: Size = 64 * 1024**2
    owner: Owner = "0:0"


class Dev(Table):
    command: Command | None = None
    egress: bool = True
    read_only: bool = False
    limits: Limits | None = None
    source: ContainerPath | None = None


class Service(Table):
    image: Name | None = None
    external: Line | None = None
    command: Command | None = None
    entrypoint: Command | None = None
    user: Line = ""
    working_dir: Line = ""
    ports: dict[Name, Port] = {}
    depends_on: list[Name] = []
    oneshot: bool = False
    promote: bool | None = None
    limits: Limits = Limits()
    read_only: bool = True
    tmpfs: dict[ContainerPath, Size] = {}
    egress: bool = False
    cap_add: list[Annotated[str, StringConstraints(pattern=r"^[A-Z_]+$")]] = []
    stop_signal: Line = ""
    healthcheck: Healthcheck | None = None
    environment: dict[Variable, EnvironmentVariable] = {}
    secrets: dict[Name, SecretFile] = {}
    configs: dict[Name, ConfigFile] = {}
    volumes: dict[Name, Volume] = {}
    dev: Dev | None = None

    @property
    def promoted(self) -> bool:
        """Whether the service's image travels to Proxima: own images do unless told otherwise, doubles never."""
        return self.external is None and self.promote is not False

    @property
    def http_port(self) -> int | None:
        """The container port that HTTP checks talk to: the one named `http`, or the only one; None if neither is."""
        if "http" in self.ports:
            return self.ports["http"]
        return next(iter(self.ports.values())) if len(self.ports) == 1 else None

    def port(self, wanted: int | str) -> int | None:
        """The container port that a name or number of `ports` means; None if the service has no such port."""
        if isinstance(wanted, str):
            return self.ports.get(wanted)
        return wanted if wanted in self.ports.values() else None


class Test(Table):
    """One check; exactly one of `http`, `exec`, `tcp`, `log`, `run`, `stage`, `structure`."""

    __test__ = False

    name: Said
    service: Name | None = None
    image: Name | None = None
    group: Group = ""
    timeout: Duration = 10.0
    retry: int = Field(default=0, ge=0, strict=True)
    http: Line | None = None
    status: int = Field(default=200, ge=100, le=599, strict=True)
    body: Text | None = None
    json_: Any = Field(default=None, alias="json")
    headers: dict[Line, Line] = {}
    send: Text | None = None
    exec: Command | None = None
    exit_code: int = Field(default=0, ge=0, le=255, strict=True)
    output: Text | None = None
    tcp: Port | Name | None = None
    log: Text | None = None
    run: Command | None = None
    stage: Line | None = None
    structure: ProjectPath | None = None

    @property
    def kind(self) -> str:
        """Which of the kinds this check is; `checks.py` has made sure that there is exactly one."""
        return next(kind for kind in TEST_KINDS if getattr(self, kind) is not None)

    @property
    def patience(self) -> float:
        """Seconds that the check may take: `timeout`, or for kinds that build or start containers, more."""
        return self.timeout if "timeout" in self.model_fields_set else _PATIENCE.get(self.kind, self.timeout)

    @property
    def of_image(self) -> bool:
        """Whether it is made of an image alone, and needs no service to run."""
        return self.kind in _PATIENCE


_PATIENCE = {"stage": 600.0, "structure": 120.0}
TEST_KINDS = ("http", "exec", "tcp", "log", "run", "stage", "structure")


class Sign(Table):
    key: Line
    identity: Line


class Promotion(Table):
    directory: ProjectPath = "promotion"
    sign: Sign | None = None
    keep_snapshots: int = Field(default=5, ge=1, strict=True)
    compression: Literal["gzip", "zstd"] | None = None


class Release(Table):
    tag: Line = "v{version}"
    branches: list[Line] = ["main"]
    require_tests: bool = True


class Resources(Table):
    host_share: float = Field(default=0.75, gt=0, le=1)
    keep_runs: int = Field(default=20, ge=1, strict=True)
    cache: Size = 5 * 1024**3


class Deviation(Table):
    """A written reason for going around a rule: who, where, why, until when."""

    rule: Said
    scope: Said
    reason: Said
    owner: Said
    expires: datetime.date


class Configuration(Table):
    """The whole of `.lyra.toml`."""

    schema_: Literal[1] = Field(alias="schema")
    project: Project
    proxima: Proxima = Proxima()
    engine: Engine = Engine()
    builder: Builder = Builder()
    bases: dict[Name, Base] = {}
    images: dict[Name, Image] = {}
    services: dict[Name, Service] = {}
    tests: list[Test] = []
    promotion: Promotion = Promotion()
    release: Release = Release()
    resources: Resources = Resources()
    deviations: list[Deviation] = []
