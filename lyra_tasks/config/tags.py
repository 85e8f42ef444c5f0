"""Which git tags are versions: `v{version}`, or with a prefix where one repository holds several projects."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import semver

DEFAULT_PATTERN = "v{version}"


@dataclass(frozen=True)
class Tag:
    """A tag and the full id of the commit it names."""

    name: str
    commit: str


def parse_tag(name: str, pattern: str = DEFAULT_PATTERN) -> semver.Version | None:
    """The version that a tag's name holds, or None if it does not match the pattern or is no semantic version."""
    before, _, after = pattern.partition("{version}")
    if not (name.startswith(before) and name.endswith(after) and len(name) > len(before) + len(after)):
        return None
    text = name[len(before) : len(name) - len(after)]
    # Git allows any digits and letters in a tag's name, a version has ASCII alone
    return semver.Version.parse(text) if text.isascii() and semver.Version.is_valid(text) else None


def highest(tags: Iterable[Tag], pattern: str = DEFAULT_PATTERN) -> tuple[Tag, semver.Version] | None:
    """The tag of the highest version by semver precedence; None if no tag holds one."""
    versions = [(tag, version) for tag in tags if (version := parse_tag(tag.name, pattern)) is not None]
    # Build metadata has no precedence: the name decides, so that the answer is always the same
    return max(versions, key=lambda pair: (pair[1], pair[0].name), default=None)
