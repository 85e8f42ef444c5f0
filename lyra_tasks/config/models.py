"""Models of `.lyra.toml`: one class per table, one field per key; sizes in bytes, durations in seconds.

Models validate single values, the package `validation` how values fit together. The text under a key is its
description in the JSON Schema and in docs/configuration.md.
"""

from __future__ import annotations

import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from lyra_tasks.config.service_models import ConfigFile as ConfigFile
from lyra_tasks.config.service_models import EnvironmentVariable as EnvironmentVariable
from lyra_tasks.config.service_models import Healthcheck as Healthcheck
from lyra_tasks.config.service_models import Limits as Limits
from lyra_tasks.config.service_models import SecretFile as SecretFile
from lyra_tasks.config.service_models import Service as Service
from lyra_tasks.config.service_models import Volume as Volume
from lyra_tasks.config.test_models import TEST_KINDS as TEST_KINDS
from lyra_tasks.config.test_models import JunitSuite as JunitSuite
from lyra_tasks.config.test_models import Test as Test
from lyra_tasks.config.values import Command as Command
from lyra_tasks.config.values import (  # fmt: skip
    Line,
    NonBlankLine,
    PackageName,
    ProjectPath,
    Size,
    Suite,
    Table,
    VariableName,
)
from lyra_tasks.config.values import Name as Name
from lyra_tasks.config.values import Platform as Platform
from lyra_tasks.config.values import Reference as Reference


class Project(Table):
    """The project: its name and metadata."""

    name: Name
    """name of images (`NAME/IMAGE`) and of the directory of bundles (`promotion/NAME/`)"""
    description: Line = ""
    """label of the images, heading of the bundle"""
    source: Line = ""
    """URL of the source code; default: the git remote, without credentials"""
    licenses: Line = ""
    """SPDX expression, label of the images"""


class Proxima(Table):
    """Capabilities of the production node (R3)."""

    platforms: list[Platform] = Field(default=["linux/amd64"], min_length=1)
    """platforms that images are built for; see [platforms](#platforms)"""
    min_engine: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,5}\.[0-9]{1,5}(\.[0-9]{1,5})?$")] = "20.10"
    """oldest engine that must load the bundle"""
    cpus: float | None = Field(default=None, gt=0)
    """limit of CPUs for all promoted services together"""
    memory: Size | None = None
    """limit of memory for all promoted services together"""
    max_image_size: Size | None = None
    """limit for the size of an image"""

    @property
    def engine_version(self) -> tuple[int, ...]:
        """Return `min_engine` as a tuple for comparison."""
        return tuple(int(part) for part in self.min_engine.split("."))


class Compose(Table):
    """The Compose project, read anew by every command; `.lyra.toml` overrides it by service and key."""

    files: list[NonBlankLine] | None = None
    """Compose files, the strongest last; `[]`: none; default: those that `docker compose` takes here, from
    `COMPOSE_FILE` too"""
    profiles: list[NonBlankLine] | None = None
    """active profiles; default: `COMPOSE_PROFILES`, also from `.env`"""
    ignore: list[NonBlankLine] = []
    """services that take no part"""


class Engine(Table):
    """The Docker engine."""

    context: Line = ""
    """Docker context or address of the engine; required for one on another machine; default: `DOCKER_HOST` or the
    current context"""
    sandbox: Literal["auto", "never", "always"] = "never"
    """`"auto"`: a private engine if no other responds; `"always"`: only a private engine"""
    suite: Literal["bookworm", "trixie", "sid"] = "trixie"
    """Debian suite of the private engine"""


class Builder(Table):
    """The Buildx builder."""

    name: Line = ""
    """name of a Buildx builder; default: the engine itself; see [builders](#builders-and-caches)"""
    cache_from: list[Line] = []
    """caches to import, as in `--cache-from`; `{image}` is the image's name"""
    cache_to: list[Line] = []
    """caches to export, as in `--cache-to`; `{image}` is the image's name, with several platforms
    `NAME-linux-arm64`"""


class Rootfs(Table):
    """A root file system of Debian packages."""

    suite: Suite
    """Debian suite, for example `"bookworm"`"""
    packages: list[PackageName] = Field(min_length=1)
    """packages to install, with their dependencies"""
    variant: Literal["extract", "custom", "essential", "minbase"] = "custom"
    """variant of mmdebstrap; `extract` only unpacks packages and keeps no package database"""


class Base(Table):
    """A source of an image: image, archive and rootfs are tried in this order, and the result is locked."""

    image: Line = ""
    """reference of an image in the engine or its registry; `{platform}` becomes `linux-arm64`, for example"""
    archive: ProjectPath | None = None
    """Docker or OCI archive of one image; `{platform}` becomes `linux-arm64`, for example"""
    rootfs: Rootfs | None = None
    """root file system of Debian packages"""


class Image(Table):
    """An image of the project."""

    context: ProjectPath
    """build context, in the project"""
    dockerfile: ProjectPath = "Dockerfile"
    """path of the Dockerfile below the context"""
    target: Line = ""
    """stage to build; default: the last one"""
    dev_target: Line = ""
    """stage that `create` builds; default: `target`"""
    args: dict[VariableName, Line] = {}
    """build arguments; must not contain secrets"""
    secrets: dict[Name, ProjectPath] = {}
    """build secrets: id = file in the project"""
    bases: dict[Line, Reference] = {}
    """name in FROM = name in `[bases]`"""
    platforms: list[Platform] = []
    """subset of `proxima.platforms`; default: all of them"""


class Sign(Table):
    """The signature of bundles."""

    key: Line
    """path of the key for `ssh-keygen -Y sign`, relative to the project or `~`; a key in ssh-agent is preferred"""
    identity: Line
    """name under which receivers know the key"""


class Promotion(Table):
    """The promotion of bundles."""

    directory: ProjectPath = "promotion"
    """directory of bundles, in the project"""
    sign: Sign | None = None
    """signature of bundles; default: none"""
    keep_snapshots: int = Field(default=5, ge=1, strict=True)
    """number of versions to keep that are not releases"""
    compression: Literal["gzip", "zstd"] | None = None
    """compression of layers; default: `gzip` if `proxima.min_engine` is below 23.0, else `zstd`"""
    sbom: Literal["layers", "syft"] = "layers"
    """source of package lists: the package records in the `layers`, or the program `syft`"""


Severity = Literal["negligible", "unknown", "low", "medium", "high", "critical"]


class Scan(Table):
    """The scan of `promote` for known vulnerabilities, without network.

    See [vulnerabilities](bundle.md#known-vulnerabilities).
    """

    tool: Literal["grype", "trivy", "debian-tracker"]
    """program that knows vulnerabilities, or `"debian-tracker"`: the data of Debian's security tracker, for Debian
    packages only (`pip install 'lyra-tasks[debian]'`)"""
    database: NonBlankLine
    """directory of the program's database, relative to the project or `~`; for `debian-tracker` the file from
    `https://security-tracker.debian.org/tracker/data/json`"""
    fail_on: Severity | Literal["never"] = "high"
    """lowest severity that `promote` refuses; `"unknown"` is what the source has not rated, `"never"` only reports"""
    max_age_days: int = Field(default=7, ge=1, strict=True)
    """age of the database from which on it counts as too old: `promote` refuses, unless `fail_on` is `"never"`"""


class Release(Table):
    """Releases and their tags."""

    tag: Line = "v{version}"
    """git tag of a version; use a prefix in monorepos: `"web/v{version}"`"""
    branches: list[Line] = ["main"]
    """patterns of branches that may be released; `"*"` includes a detached HEAD"""
    require_tests: bool = True
    """release a commit only if its images were tested together"""
    fresh_tests: bool = False
    """release and promote a commit only if no result of its test is cached from an earlier run: `test --fresh`"""


class Resources(Table):
    """Resources of this machine that Lyra may use."""

    host_share: float = Field(default=0.75, gt=0, le=1)
    """share of CPUs and memory for all environments on the engine together"""
    keep_runs: int = Field(default=20, ge=1, strict=True)
    """number of directories to keep in `.lyra/runs/`; active runs are never removed"""
    keep_tests: int = Field(default=50, ge=1, strict=True)
    """number of test runs whose evidence is kept; see [what goes by itself](commands.md#what-goes-by-itself)"""
    evidence: Size = 1024**3
    """size limit of the evidence of test runs"""
    keep_images: int = Field(default=3, ge=1, strict=True)
    """number of references to keep in the engine for each image"""
    journal: Size = 32 * 1024**2
    """size limit of the journal's archives, which hold its older entries compressed"""
    keep_cached: int = Field(default=30, ge=1, strict=True)
    """number of days that an unused item of the caches is kept"""
    cache: Size = 5 * 1024**3
    """size limit of the cache of compressed layers, of the root file systems, and of the private engine's build cache,
    which `build` and `clean` enforce; the build cache of other engines is never pruned"""


class Deviation(Table):
    """A documented exception from a rule: where, why, who is responsible, and until when."""

    rule: NonBlankLine
    """id in [rules.md](rules.md)"""
    scope: NonBlankLine
    """pattern such as `services.web`, `services.*`, `images.web`, `images.web@linux/arm64`"""
    reason: NonBlankLine
    """why the exception is needed"""
    owner: NonBlankLine
    """who is responsible"""
    expires: datetime.date
    """last valid day, without quotes: `2027-03-31`"""


class Configuration(Table):
    """The document `.lyra.toml`."""

    schema_: Literal[1] = Field(alias="schema")
    """version of this format"""
    project: Project
    """name and metadata"""
    proxima: Proxima = Proxima()
    """capabilities of the production node"""
    compose: Compose = Compose()
    """Compose project that images and services come from; see [Compose](from-compose.md)"""
    engine: Engine = Engine()
    """Docker engine"""
    builder: Builder = Builder()
    """Buildx builder"""
    bases: dict[Reference, Base] = {}
    """sources of base images and third-party images, by reference or name: image, archive and rootfs are tried in this
    order, and the result is locked; see [third-party images](#third-party-images)"""
    images: dict[Name, Image] = {}
    """images of the project"""
    services: dict[Name, Service] = {}
    """containers of the project"""
    tests: list[Test] = []
    """checks, run in this order"""
    promotion: Promotion = Promotion()
    """promotion of bundles"""
    scan: Scan | None = None
    """scan for known vulnerabilities; default: none, which every promotion says"""
    release: Release = Release()
    """releases and their tags"""
    resources: Resources = Resources()
    """resources of this machine that Lyra may use"""
    deviations: list[Deviation] = []
    """documented exceptions from rules"""

    @property
    def third_party_images(self) -> dict[str, str]:
        """Return the references of third-party images by service, those of test doubles too."""
        return {name: service.image for name, service in self.services.items() if not self.is_own_image(name)}

    @property
    def config_sources(self) -> set[str]:
        """Return the files of the project that services have as configs."""
        files = [file for service in self.services.values() for file in service.configs.values()]
        return {file.source for file in files if file.source is not None}

    def is_own_image(self, service: str) -> bool:
        """Return whether a service runs an image of the project."""
        return self.services[service].image in self.images

    def image_name(self, service: str) -> str:
        """Return the name in `[images]`, or the name of the service itself for a third-party image."""
        return self.services[service].image if self.is_own_image(service) else service
