"""Keep what was read of a Compose project until one of the files changes that it was read from."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from lyra_tasks.compose.locate import find_compose_files
from lyra_tasks.compose.model import COMPOSE_VARIABLES, ComposeProject, ComposeSettings, Finding, Place
from lyra_tasks.compose.probes import ProjectProbes
from lyra_tasks.digests import sha256_hex
from lyra_tasks.documents import parse_foreign_json, read_document, translate_failures
from lyra_tasks.errors import LyraError, PreconditionError
from lyra_tasks.files import display_path, write_file

_SCHEMA = "lyra.compose-cache/1"
_CACHE_FILE = Path(".lyra", "compose.json")


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

    project = read_project(root, files, settings)
    _write_cache(root, key, project)
    return project


def describe_settings(root: Path, settings: ComposeSettings) -> dict[str, Any]:
    """Return everything that the result depends on besides files."""
    return {
        "schema": _SCHEMA,
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
            document = parse_foreign_json(read_document(root / _CACHE_FILE))
            if document["key"] != key:
                return None
            if any(_hash_file(path) != digest for path, digest in document["files"].items()):
                return None
            probes = ProjectProbes()
            probes.merge(document["kinds"], {path: tuple(files) for path, files in document["listings"].items()})
            if not probes.is_current():
                return None
            names = {
                path: display_path(Path(path)) for path in dict.fromkeys(path for _, path, _ in document["places"])
            }
            return ComposeProject(
                name=str(document["name"]),
                document=document["document"],
                places={tuple(location): Place(names[path], line) for location, path, line in document["places"]},
                findings=tuple(
                    Finding(tuple(location), message, tuple(override), is_refused, service)
                    for location, message, override, is_refused, service in document["findings"]
                ),
                inputs=tuple(Path(path) for path in document["inputs"]),
                read=tuple(Path(path) for path in document["files"]),
                probes=probes,
            )
    except LyraError:
        return None


def _write_cache(root: Path, key: Mapping[str, Any], project: ComposeProject) -> None:
    """Write the cache; without it, the next command only takes longer."""
    paths = {display_path(path): os.fspath(path) for path in project.read}
    document = {
        "key": key,
        "files": {os.fspath(path): _hash_file(os.fspath(path)) for path in project.read},
        "kinds": project.probes.kinds,
        "listings": project.probes.files,
        "name": project.name,
        "document": project.document,
        "places": [
            [location, paths.get(place.file, place.file), place.line] for location, place in project.places.items()
        ],
        "findings": [
            [finding.location, finding.message, finding.override, finding.is_refused, finding.service]
            for finding in project.findings
        ],
        "inputs": [os.fspath(path) for path in project.inputs],
    }
    file = root / _CACHE_FILE
    with suppress(OSError, LyraError, ValueError):
        file.parent.mkdir(exist_ok=True)
        if not (file.parent / ".gitignore").exists():
            (file.parent / ".gitignore").write_text("*\n")
        write_file(file, json.dumps(document, ensure_ascii=True).encode(), 0o600)
