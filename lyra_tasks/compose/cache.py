"""Keep what was read of a Compose project until one of the files changes that it was read from."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from lyra_tasks.compose.locate import find_compose_files
from lyra_tasks.compose.model import (
    CACHE_FILE,
    COMPOSE_VARIABLES,
    ComposeProject,
    ComposeSettings,
    Finding,
    Location,
    Place,
)
from lyra_tasks.compose.probes import Kind, ProjectProbes
from lyra_tasks.digests import sha256_hex
from lyra_tasks.documents import parse_foreign_json, read_document, translate_failures
from lyra_tasks.errors import LyraError, PreconditionError
from lyra_tasks.files import display_path, write_file


class CachedProject(BaseModel):
    """What was read of a Compose project, with the hashes of the files that it was read from; `key` is all else."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, defer_build=True)

    schema_: Literal["lyra.compose-cache/2"] = Field(default="lyra.compose-cache/2", alias="schema")
    key: dict[str, Any]
    files: dict[str, str]
    kinds: dict[str, Kind]
    listings: dict[str, tuple[str, ...]]
    name: str
    document: dict[str, Any]
    places: list[tuple[Location, str, int]]
    findings: list[tuple[Location, str, Location, bool, str]]
    inputs: list[str]


def read_cached_project(root: Path, settings: ComposeSettings) -> ComposeProject | None:
    """Return the Compose project at `root` as it is now, or None without one.

    Raises:
        PreconditionError: Docker Compose is not here, and something has changed.
        ConfigurationError: A file cannot be read, or Compose refuses the project.
    """
    if settings.files == ():
        return None
    key = describe_settings(root, settings)
    cached = _read_cache(root, key)
    if cached is not None:
        return cached
    files = find_compose_files(root, settings)
    if not files:
        return None
    from lyra_tasks.compose.project import read_project

    project = _last_reading.get(key) or read_project(root, files, settings)
    _write_cache(root, key, project)
    return project


def read_new_project(root: Path, files: tuple[Path, ...], settings: ComposeSettings) -> ComposeProject:
    """Read the Compose project of these files, and keep it in memory alone: `init` writes nothing before it has a plan.

    Raises:
        PreconditionError: Docker Compose is not here.
        ConfigurationError: A file cannot be read, or Compose refuses the project.
    """
    from lyra_tasks.compose.project import read_project

    project = read_project(root, files, settings)
    _last_reading.keep(describe_settings(root, settings), project)
    return project


class _LastReading:
    """The Compose project that this process has read last."""

    def __init__(self) -> None:
        self._key: Mapping[str, Any] = {}
        self._files: Mapping[str, str] = {}
        self._project: ComposeProject | None = None

    def keep(self, key: Mapping[str, Any], project: ComposeProject) -> None:
        self._key, self._files, self._project = key, _hash_files(project.read), project

    def get(self, key: Mapping[str, Any]) -> ComposeProject | None:
        """Return the project if it was read with the same settings, and nothing has changed since."""
        project = self._project
        if project is None or key != self._key or not (_is_current(self._files) and project.probes.is_current()):
            return None
        return project


_last_reading = _LastReading()


def describe_settings(root: Path, settings: ComposeSettings) -> dict[str, Any]:
    """Return everything that the result depends on besides files."""
    return {
        "code": _code_version(),
        "root": os.fspath(root),
        "home": os.environ.get("HOME", ""),
        "settings": [
            list(settings.files) if settings.files is not None else None,
            list(settings.profiles) if settings.profiles is not None else None,
            list(settings.ignore),
            sorted(settings.plain_names),
        ],
        "variables": {name: os.environ.get(name, "") for name in COMPOSE_VARIABLES},
    }


@cache
def _code_version() -> str:
    """Return a hash of this package's files, which decide what a project is read as."""
    stats = {path.name: path.stat() for path in sorted(Path(__file__).parent.rglob("*.py"))}
    return sha256_hex(repr([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()]).encode())[:16]


def _hash_file(path: str) -> str:
    """Return the hash of a file's content, or '' for none that can be read."""
    try:
        return sha256_hex(read_document(Path(path)))
    except Exception:  # a missing file, a directory, a FIFO, or one too large: the reader says which
        return ""


def _read_cache(root: Path, key: Mapping[str, Any]) -> ComposeProject | None:
    """Return the cached project if nothing has changed that it was read from."""
    try:
        with translate_failures(PreconditionError):
            cached = CachedProject.model_validate(parse_foreign_json(read_document(root / CACHE_FILE)))
            probes = ProjectProbes(dict(cached.kinds), dict(cached.listings))
            if cached.key != key or not _is_current(cached.files) or not probes.is_current():
                return None
    except LyraError:
        return None
    names = {path: display_path(Path(path)) for path in dict.fromkeys(path for _, path, _ in cached.places)}
    return ComposeProject(
        name=cached.name,
        document=cached.document,
        places={location: Place(names[path], line) for location, path, line in cached.places},
        findings=tuple(Finding(*finding) for finding in cached.findings),
        inputs=tuple(Path(path) for path in cached.inputs),
        read=tuple(Path(path) for path in cached.files),
        probes=probes,
    )


def _hash_files(files: tuple[Path, ...]) -> dict[str, str]:
    return {os.fspath(path): _hash_file(os.fspath(path)) for path in files}


def _is_current(files: Mapping[str, str]) -> bool:
    return all(_hash_file(path) == digest for path, digest in files.items())


def _write_cache(root: Path, key: Mapping[str, Any], project: ComposeProject) -> None:
    """Write the cache; without it, the next command only takes longer."""
    paths = {display_path(path): os.fspath(path) for path in project.read}
    document = {
        "key": key,
        "files": _hash_files(project.read),
        "kinds": project.probes.kinds,
        "listings": project.probes.files,
        "name": project.name,
        "document": project.document,
        "places": [
            (location, paths.get(place.file, place.file), place.line) for location, place in project.places.items()
        ],
        "findings": [
            (finding.location, finding.message, finding.override, finding.is_refused, finding.service)
            for finding in project.findings
        ],
        "inputs": [os.fspath(path) for path in project.inputs],
    }
    file = root / CACHE_FILE
    with suppress(OSError, LyraError, ValueError):
        cached = CachedProject.model_validate(document).model_dump(mode="json", by_alias=True)
        file.parent.mkdir(exist_ok=True)
        if not (file.parent / ".gitignore").exists():
            (file.parent / ".gitignore").write_text("*\n")
        write_file(file, json.dumps(cached).encode(), 0o600)
