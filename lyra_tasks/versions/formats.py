"""Convert versions from and to git tags, image tags, file names and Python versions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import semver

from lyra_tasks.errors import PreconditionError, UsageError

DEFAULT_TAG_PATTERN = "v{version}"
MAX_IMAGE_TAG_LENGTH = 128

_PEP440_PHASES = {"alpha": "a", "beta": "b", "rc": "rc"}
_PEP440_CONVERTIBLE = re.compile(
    r"(?P<core>\d+\.\d+\.\d+)"
    r"(?:-(?:(?P<phase>alpha|beta|rc)\.(?P<number>\d+)(?:\.dev\.(?P<dev_after>\d+))?|dev\.(?P<dev>\d+)))?"
    r"(?:\+(?P<build>[0-9a-z]+(?:\.[0-9a-z]+)*))?"
)


@dataclass(frozen=True)
class Tag:
    """A git tag, the full id of its commit, and its date as ISO 8601."""

    name: str
    commit: str
    date: str = ""


def parse_tag(name: str, pattern: str = DEFAULT_TAG_PATTERN) -> semver.Version | None:
    """Return the version in a tag's name, or None if the tag is not a version tag."""
    prefix, _, suffix = pattern.partition("{version}")
    if not (name.startswith(prefix) and name.endswith(suffix) and len(name) > len(prefix) + len(suffix)):
        return None
    text = name[len(prefix) : len(name) - len(suffix)]
    # git allows any letters and digits in tags, semantic versions only ASCII
    return semver.Version.parse(text) if text.isascii() and semver.Version.is_valid(text) else None


def find_highest_tag(tags: Iterable[Tag], pattern: str = DEFAULT_TAG_PATTERN) -> tuple[Tag, semver.Version] | None:
    """Return the tag with the highest version by semver precedence, or None without version tags."""
    candidates = [(tag, version) for tag in tags if (version := parse_tag(tag.name, pattern)) is not None]
    # build metadata has no precedence; comparing names as well keeps the result stable
    return max(candidates, key=lambda pair: (pair[1], pair[0].name), default=None)


def version_to_image_tag(version: str) -> str:
    """Return the version as an image tag, with `_` (not allowed in versions) for `+` (not allowed in tags)."""
    tag = version.replace("+", "_")
    if len(tag) > MAX_IMAGE_TAG_LENGTH:
        raise PreconditionError(
            f"Version {version} has {len(tag)} characters; image tags are limited to {MAX_IMAGE_TAG_LENGTH}",
            hint="Use a shorter pre-release in the git tag",
        )
    return tag


def version_from_image_tag(tag: str) -> str:
    """Return the version of an image tag, or raise UsageError."""
    version = tag.replace("_", "+")
    if not (tag.isascii() and "+" not in tag and semver.Version.is_valid(version) and len(tag) <= MAX_IMAGE_TAG_LENGTH):
        raise UsageError(f"{tag!r} is not the image tag of a version", hint="For example 1.4.0 or 1.4.0-dev.2_g1a2b3c4")
    return version


def version_to_file_name(version: str) -> str:
    """Return the version for use in file names, unique also on case-insensitive file systems.

    `1.0.0-RC.1+b` becomes `1.0.0-_r_c.1__b`. A version that fits into an image tag has at most 255 characters here.
    """
    return re.sub(r"[A-Z+]", lambda match: "__" if match[0] == "+" else f"_{match[0].lower()}", version)


def version_to_pep440(version: str) -> str | None:
    """Return the version in PEP 440 notation with the same ordering, or None if there is no equivalent.

    PEP 440 orders development releases before their pre-release: `1.4.0-rc.1.dev.2` becomes `1.4.0rc2.dev2`.
    """
    match = _PEP440_CONVERTIBLE.fullmatch(version)
    if match is None:
        return None
    converted = match["core"]
    if match["dev_after"] is not None:
        converted += f"{_PEP440_PHASES[match['phase']]}{int(match['number']) + 1}.dev{match['dev_after']}"
    elif match["phase"] is not None:
        converted += f"{_PEP440_PHASES[match['phase']]}{match['number']}"
    elif match["dev"] is not None:
        converted += f".dev{match['dev']}"
    return f"{converted}+{match['build']}" if match["build"] is not None else converted
