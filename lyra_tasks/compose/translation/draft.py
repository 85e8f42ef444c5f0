"""The tables that a Compose project becomes, with the place of each value and what is not carried."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lyra_tasks.compose.model import Finding, Location
from lyra_tasks.compose.probes import ProjectProbes
from lyra_tasks.compose.sources import SourceFiles

_MIN_PASSWORD_LENGTH = 4


@dataclass
class Draft:
    """The tables `images` and `services`; `origins` has the location in the Compose project of each value."""

    root: Path
    sources: SourceFiles
    plain_names: frozenset[str]
    images: dict[str, Any] = field(default_factory=dict)
    services: dict[str, Any] = field(default_factory=dict)
    origins: dict[Location, Location] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    probes: ProjectProbes = field(default_factory=ProjectProbes)
    public_texts: dict[Path | str, str] = field(default_factory=dict)
    """what is no secret whatever it is called: the content of mounted files, and values of variables by their names"""

    def is_public(self, password: str) -> bool:
        """Return whether a password stands in a file that the bundle has, too, or is a value that is no secret."""
        return any(
            len(password) >= _MIN_PASSWORD_LENGTH and password in text if isinstance(origin, Path) else password == text
            for origin, text in self.public_texts.items()
        )

    @property
    def read_files(self) -> tuple[Path, ...]:
        """Return the mounted files that were read."""
        return tuple(origin for origin in self.public_texts if isinstance(origin, Path))

    @property
    def document(self) -> dict[str, Any]:
        """Return the tables as in `.lyra.toml`."""
        tables = {"images": self.images, "services": self.services}
        return {key: table for key, table in tables.items() if table}

    def note(self, location: Location, message: str) -> None:
        """Record something that is not carried."""
        self.findings.append(Finding(location, message))


@dataclass
class ServiceDraft:
    """The table of one service."""

    draft: Draft
    name: str
    compose_name: str
    raw: Mapping[str, Any]
    table: dict[str, Any] = field(default_factory=dict)

    def put(self, key: str, value: Any, *path: str | int) -> None:
        """Set a key, which stands at `path` below the service in the Compose project (default: at the same key)."""
        self.table[key] = value
        self.add_origin((key,), path or (key,))

    def put_entry(self, table: str, key: str, value: Any, *path: str | int) -> None:
        """Set an entry of a table, which stands at `path` below the service."""
        self.table.setdefault(table, {})[key] = value
        self.add_origin((table,), path[:1])
        self.add_origin((table, key), path)

    def add_origin(self, location: Location, path: Location) -> None:
        """Record where a value stands in the Compose project."""
        self.draft.origins.setdefault(("services", self.name, *location), ("services", self.compose_name, *path))

    def refuse(self, message: str, *path: str | int, override: str = "") -> None:
        """Refuse a value of the service."""
        settled_by: Location = ("services", self.name, override) if override else ()
        self.refuse_at(("services", self.compose_name, *path), message, settled_by)

    def refuse_at(self, location: Location, message: str, override: Location = ()) -> None:
        """Refuse a value that the service uses and that stands elsewhere."""
        self.draft.findings.append(Finding(location, message, override, is_refused=True, service=self.compose_name))

    def note(self, message: str, *path: str | int) -> None:
        """Record that a value of the service is not carried."""
        self.draft.note(("services", self.compose_name, *path), message)

    def ask_host(self, what: str, *path: str | int) -> None:
        """Record that the service asks for something of the host, which it does not get."""
        self.table.setdefault("host_access", []).append(what)
        self.add_origin(("host_access",), path)

    def raw_table(self, key: str) -> dict[str, Any]:
        """Return a table of the service in the Compose project, or an empty one."""
        value = self.raw.get(key)
        return value if isinstance(value, dict) else {}

    def raw_list(self, key: str) -> list[Any]:
        """Return a list of the service in the Compose project, or an empty one."""
        value = self.raw.get(key)
        return value if isinstance(value, list) else []
