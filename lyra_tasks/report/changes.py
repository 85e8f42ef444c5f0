"""What differs from the previous version: the part for a reviewer, and marks for settings."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

_MAX_PER_SECTION = 12
_OMITTED_SECTION = "layers"  # the section on images shows them
_RUN_SECTIONS = frozenset({"services", "limits"})
_SETTINGS = frozenset({"services", "environment", "secrets", "volumes", "ports", "configs"})

_LONG_DIGEST = re.compile(r"(sha256:[0-9a-f]{12})[0-9a-f]{52}")

Change = Mapping[str, Any]


def select_changes(changes: Sequence[Change]) -> tuple[list[Change], dict[str, int]]:
    """Return the changes to show, at most some of each section, and the number of the others by section."""
    counts: Counter[str] = Counter()
    shown: list[Change] = []
    for change in changes:
        section = change["section"]
        counts[section] += 1
        if section != _OMITTED_SECTION and counts[section] <= _MAX_PER_SECTION:
            shown.append({name: _shorten_digests(value) for name, value in change.items()})
    shown_counts = Counter(change["section"] for change in shown)
    return shown, {section: count for section in counts if (count := counts[section] - shown_counts[section])}


def _shorten_digests(value: str | None) -> str | None:
    return None if value is None else _LONG_DIGEST.sub(r"\1…", value)


def list_marks(changes: Sequence[Change]) -> dict[str, str]:
    """Return `new` or `changed` by section and name: `environment web: GREETING`."""
    return {
        f"{change['section']} {change['name']}": "new" if change["before"] is None else "changed"
        for change in changes
        if change["section"] in _SETTINGS and change["after"] is not None
    }


def list_changed_services(changes: Sequence[Change]) -> dict[str, list[str]]:
    """Return what differs in how a service runs, by service that is not new: `memory + tmpfs`, `user`."""
    relevant = [change for change in changes if change["section"] in _RUN_SECTIONS]
    new_services = {change["name"] for change in relevant if change["before"] is None}
    names: dict[str, list[str]] = {}
    for change in relevant:
        service, _, name = change["name"].partition(": ")
        if name and service not in new_services:
            names.setdefault(service, []).append(name)
    return names


def list_removed_settings(changes: Sequence[Change]) -> list[str]:
    """Return the settings that the previous version had: `environment web: GREETING`."""
    return [
        f"{change['section']} {change['name']}"
        for change in changes
        if change["section"] in _SETTINGS and change["after"] is None
    ]
