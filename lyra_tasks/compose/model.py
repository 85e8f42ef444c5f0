"""What is known of a Compose project; imports next to nothing, since every command has one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from lyra_tasks.compose.probes import ProjectProbes

Location = tuple[str | int, ...]
"""Where a value is in nested tables and lists."""
CACHE_FILE = Path(".lyra", "compose.json")
"""The Compose project as the last command read it, below the directory of `.lyra.toml`."""
COMPOSE_VARIABLES = ("COMPOSE_FILE", "COMPOSE_PATH_SEPARATOR", "COMPOSE_PROFILES", "COMPOSE_PROJECT_NAME")
DEFAULT_FILES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
OVERRIDE_FILES = (
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
)


class Place(NamedTuple):
    """A line of a file, as messages name it."""

    file: str
    line: int

    def __str__(self) -> str:
        """Return `FILE:LINE`."""
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Finding:
    """Something of a Compose project that is not in the tables.

    `location` is where it stands in the Compose project. `override` is the location in `.lyra.toml` that settles it,
    or empty. `is_refused`: the project cannot be used with it, or with the `service` that it is about.
    """

    location: Location
    message: str
    override: Location = ()
    is_refused: bool = False
    service: str = ""


@dataclass(frozen=True)
class ComposeSettings:
    """The table `[compose]`; None means what Compose itself would take.

    `plain_names` are the variables that `.lyra.toml` says are no secrets.
    """

    files: tuple[str, ...] | None = None
    profiles: tuple[str, ...] | None = None
    ignore: tuple[str, ...] = ()
    plain_names: frozenset[str] = frozenset()


@dataclass(frozen=True)
class ComposeProject:
    """A Compose project as tables of `.lyra.toml`.

    `name` is empty unless it is given: Compose would take that of the directory. `places` has where each value and each
    finding stands, `inputs` the files that images and bundle are made from, `read` all that were read or looked for.
    """

    name: str
    document: Mapping[str, Any]
    places: Mapping[Location, Place]
    findings: tuple[Finding, ...]
    inputs: tuple[Path, ...]
    read: tuple[Path, ...]
    probes: ProjectProbes = field(default_factory=ProjectProbes)

    @property
    def notes(self) -> tuple[Finding, ...]:
        """Return what is not carried."""
        return tuple(finding for finding in self.findings if not finding.is_refused)
