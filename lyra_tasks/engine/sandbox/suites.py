"""Which suite has an engine like the one on Proxima."""

from __future__ import annotations

_VERSIONS = {"bookworm": (20, 10), "trixie": (26, 1)}
_NEWEST = "sid"


def suite_like(version: tuple[int, ...]) -> str:
    """The suite with the oldest engine that is no older than `version`; else the one with the newest engine."""
    fitting = [suite for suite, known in sorted(_VERSIONS.items(), key=lambda item: item[1]) if known >= version[:2]]
    return fitting[0] if fitting else _NEWEST
