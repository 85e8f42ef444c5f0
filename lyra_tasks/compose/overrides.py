"""What `.lyra.toml` says of a Compose project: which files count, and tables that win over those of the project."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lyra_tasks.compose.model import ComposeProject, ComposeSettings, Finding, Location

# of which a table has one: what `.lyra.toml` writes takes the place of what the Compose file has
_CHECK_KINDS = frozenset({"exec", "http", "tcp", "disable"})
_FILE_ORIGINS = frozenset({"source", "content"})


def read_settings(document: Mapping[str, Any]) -> ComposeSettings:
    """Return the table `[compose]`, as far as it is valid; its problems are found with all others."""
    table = _table(document, "compose")
    values = {
        key: tuple(value)
        for key in ("files", "profiles", "ignore")
        if isinstance(value := table.get(key), list) and all(isinstance(item, str) for item in value)
    }
    plain_names = {
        name
        for service in _table(document, "services").values()
        for name, variable in _table(service, "environment").items()
        if isinstance(variable, dict) and variable.get("secret") is False
    }
    return ComposeSettings(
        values.get("files"), values.get("profiles"), values.get("ignore", ()), frozenset(plain_names)
    )


def merge_overrides(project: ComposeProject, document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tables of a Compose project with those of `.lyra.toml` over them, which win key by key."""
    merged = merge_tables(copy.deepcopy(dict(project.document)), document)
    for name, service in _table(document, "services").items():
        merged_service = _table(merged["services"], name)
        _replace_alternatives(merged_service, service, "healthcheck", _CHECK_KINDS)
        for key in _table(service, "configs"):
            _replace_alternatives(_table(merged_service, "configs"), service["configs"], key, _FILE_ORIGINS)
    if project.name:
        identity = merged.setdefault("project", {})
        if isinstance(identity, dict):
            identity.setdefault("name", project.name)
    return merged


def list_refusals(project: ComposeProject, document: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield what cannot be done with a Compose project, unless `.lyra.toml` says it differently."""
    for finding in project.findings:
        if finding.is_refused and not has_value(finding.override, document):
            yield finding


def suggest_ignoring(refusals: Iterable[Finding], document: Mapping[str, Any]) -> str:
    """Return the hint for services that cannot run, with the line that leaves them out; '' if it is about none."""
    services = dict.fromkeys(finding.service for finding in refusals if finding.service)
    names = json.dumps([*dict.fromkeys((*read_settings(document).ignore, *services))])
    hint = "Correct the Compose file, or leave the services out, by this line of [compose] in .lyra.toml:"
    return f"{hint}\nignore = {names}" if services else ""


def _replace_alternatives(merged: object, override: object, key: str, alternatives: frozenset[str]) -> None:
    written = alternatives & _table(override, key).keys()
    for alternative in alternatives - written if written else ():
        _table(merged, key).pop(alternative, None)


def has_value(location: Location, document: Any) -> bool:
    """Return whether tables have a value at a location; none has one at the empty location."""
    for part in location:
        document = document.get(part) if isinstance(document, dict) else None
    return bool(location) and document is not None


def merge_tables(base: dict[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table with another one over it, which wins key by key; `base` is changed."""
    for key, value in override.items():
        below = base.get(key)
        base[key] = merge_tables(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return base


def _table(document: object, key: str) -> dict[str, Any]:
    value = document.get(key) if isinstance(document, dict) else None
    return value if isinstance(value, dict) else {}
