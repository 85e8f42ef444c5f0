"""The tables that `init` writes: a whole configuration from Dockerfiles, or what a Compose project leaves open."""

from __future__ import annotations

import copy
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lyra_tasks.compose.overrides import merge_tables


@dataclass
class DraftTable:
    """A table of the configuration: `written` is what `init` adds to what the Compose project says of it, `given`."""

    given: Mapping[str, Any] = field(default_factory=dict)
    written: dict[str, Any] = field(default_factory=dict)
    todos: list[str] = field(default_factory=list)
    guesses: dict[str, str] = field(default_factory=dict)
    """why a key has its value, for a comment behind it"""

    def get(self, key: str) -> Any:
        """Return the effective value of a key, or None; tables of both are merged."""
        given, written = ({key: table[key]} if key in table else {} for table in (self.given, self.written))
        return merge_tables(copy.deepcopy(given), written).get(key)

    def entries(self, key: str) -> dict[str, Any]:
        """Return a table in it."""
        return dict(self.get(key) or {})

    def add(self, key: str, value: Any, guess: str = "") -> None:
        """Write a key."""
        self.written[key] = value
        if guess:
            self.guesses[key] = guess

    def add_entry(self, table: str, key: str, value: Any) -> None:
        """Write an entry of a table, or keys of it if the Compose project has it."""
        entries = self.written.setdefault(table, {})
        if isinstance(value, dict):
            entries[key] = {**entries.get(key, {}), **value}
        else:
            entries[key] = value

    def list_paths(self) -> list[str]:
        """Return where a service has volumes, files and tmpfs."""
        tables = [entry for key in ("volumes", "configs", "secrets") for entry in self.entries(key).values()]
        return [str(entry["path"]) for entry in tables if "path" in entry] + list(self.entries("tmpfs"))


@dataclass(frozen=True)
class ImageOffer:
    """Lines to paste for a service that may be made from the image of a Dockerfile."""

    name: str
    dockerfile: str
    service: str
    table: Mapping[str, Any]


@dataclass
class Draft:
    """A configuration; `compose` is its table `[compose]`, `checks` are `[[tests]]`."""

    compose: dict[str, Any] = field(default_factory=dict)
    project_name: str = ""
    images: dict[str, DraftTable] = field(default_factory=dict)
    services: dict[str, DraftTable] = field(default_factory=dict)
    checks: list[dict[str, Any]] = field(default_factory=list)
    todos: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    offers: list[ImageOffer] = field(default_factory=list)
    foreign_images: dict[str, list[str]] = field(default_factory=dict)
    """the references of base images and third-party images, with what uses them"""


def dockerfile_path(image: DraftTable) -> str:
    """Return the path of an image's Dockerfile, relative to the project."""
    return posixpath.normpath(posixpath.join(str(image.get("context")), str(image.get("dockerfile") or "Dockerfile")))
