"""The tables that `init` writes: a whole configuration from Dockerfiles, or what a Compose project leaves open."""

from __future__ import annotations

import copy
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lyra_tasks.compose.overrides import merge_tables
from lyra_tasks.dockerfile.parse import Dockerfile
from lyra_tasks.dockerfile.stages import DeclaredImage


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
        merge_tables(self.written, {table: {key: value}})


@dataclass
class DraftImage(DraftTable):
    """An image, with its Dockerfile and what that declares, as far as it can be read."""

    dockerfile: Dockerfile | None = None
    bases: list[str] = field(default_factory=list)
    declared: DeclaredImage = field(default_factory=lambda: DeclaredImage(base="", user="", workdir=""))

    @property
    def dockerfile_path(self) -> str:
        """Return the path of the Dockerfile, relative to the project."""
        return posixpath.normpath(posixpath.join(str(self.get("context")), self.get("dockerfile") or "Dockerfile"))

    @property
    def copied_paths(self) -> list[str]:
        """Return what the Dockerfile copies from the context."""
        stages = self.dockerfile.stages if self.dockerfile else ()
        return list(dict.fromkeys(path for stage in stages for path in stage.copied_paths))


@dataclass
class Draft:
    """A configuration; `compose` is its table `[compose]`, `checks` are `[[tests]]`."""

    compose: dict[str, Any] = field(default_factory=dict)
    project_name: str = ""
    images: dict[str, DraftImage] = field(default_factory=dict)
    services: dict[str, DraftTable] = field(default_factory=dict)
    checks: list[dict[str, Any]] = field(default_factory=list)
    todos: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    offers: list[tuple[str, str, DraftImage]] = field(default_factory=list)
    """images to paste, each with its name and the name of a service that may be made from it"""
    foreign_images: dict[str, list[str]] = field(default_factory=dict)
    """the references of base images and third-party images, with what uses them"""
