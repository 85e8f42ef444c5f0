"""Versions with known faults that matter to a machine which builds and runs containers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lyra_tasks.engine.connect import version_numbers


@dataclass(frozen=True)
class Known:
    """A fault of a component, and the first version without it in each of its release lines."""

    component: str
    names: str
    fixed: tuple[tuple[int, ...], ...]


# From the projects' own advisories. A line that is not named, and is older than the newest that is, was never mended.
KNOWN = (
    Known("Engine", "CVE-2024-23651 and others (a build can reach files of the host)", ((24, 0, 9), (25, 0, 2))),
    Known("Engine", "CVE-2024-29018 (names leave an internal network)", ((23, 0, 11), (25, 0, 5), (26, 0, 0))),
    Known("runc", "CVE-2024-21626 (a container can reach the host)", ((1, 1, 12),)),
    Known("runc", "CVE-2025-31133, CVE-2025-52565, CVE-2025-52881 (the same)", ((1, 2, 8), (1, 3, 3))),
)


@dataclass(frozen=True)
class Fault:
    """A component whose version has a known fault, and the versions that do not."""

    component: str
    version: str
    names: str
    fixed: str


def known_faults(components: Mapping[str, str]) -> Iterator[Fault]:
    """The known faults of these components, by their versions; what has no readable version has none."""
    for known in KNOWN:
        text = components.get(known.component, "")
        version = version_numbers(text)
        if version and _has(version, known.fixed):
            yield Fault(
                known.component, text, known.names, " or ".join(".".join(map(str, each)) for each in known.fixed)
            )


def _has(version: tuple[int, ...], fixed: tuple[tuple[int, ...], ...]) -> bool:
    for each in fixed:
        if version[:2] == each[:2]:
            return version < each
    return version < max(fixed)
