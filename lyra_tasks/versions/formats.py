"""Which git tags are versions: `v{version}`, or with a prefix where one repository holds several projects."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import semver

from lyra_tasks.errors import PreconditionError, UsageError

DEFAULT_TAG_PATTERN = "v{version}"


@dataclass(frozen=True)
class Tag:
    """A tag and the full id of the commit it names."""

    name: str
    commit: str


def parse_tag(name: str, pattern: str = DEFAULT_TAG_PATTERN) -> semver.Version | None:
    """The version that a tag's name holds, or None if it does not match the pattern or is no semantic version."""
    prefix, _, suffix = pattern.partition("{version}")
    if not (name.startswith(prefix) and name.endswith(suffix) and len(name) > len(prefix) + len(suffix)):
        return None
    text = name[len(prefix) : len(name) - len(suffix)]
    # Git allows any digits and letters in a tag's name, a version has ASCII alone
    return semver.Version.parse(text) if text.isascii() and semver.Version.is_valid(text) else None


def find_highest_tag(tags: Iterable[Tag], pattern: str = DEFAULT_TAG_PATTERN) -> tuple[Tag, semver.Version] | None:
    """The tag of the highest version by semver precedence; None if no tag holds one."""
    candidates = [(tag, version) for tag in tags if (version := parse_tag(tag.name, pattern)) is not None]
    # Build metadata has no precedence: the name decides, so that the answer is always the same
    return max(candidates, key=lambda pair: (pair[1], pair[0].name), default=None)


MAX_IMAGE_TAG_LENGTH = 128

_PEP440_PHASES = {"alpha": "a", "beta": "b", "rc": "rc"}
_PEP440_CONVERTIBLE = re.compile(
    r"(?P<core>\d+\.\d+\.\d+)"
    r"(?:-(?:(?P<phase>alpha|beta|rc)\.(?P<number>\d+)(?:\.dev\.(?P<after>\d+))?|dev\.(?P<dev>\d+)))?"
    r"(?:\+(?P<build>[0-9a-z]+(?:\.[0-9a-z]+)*))?"
)


def version_to_image_tag(version: str) -> str:
    """The version as an image tag: `+`, which a tag cannot hold, as `_`, which a version cannot hold.

    PreconditionError if it is too long for a tag.
    """
    tag = version.replace("+", "_")
    if len(tag) > MAX_IMAGE_TAG_LENGTH:
        raise PreconditionError(
            f"the version {version} has {len(tag)} characters; an image tag has at most {MAX_IMAGE_TAG_LENGTH}",
            hint="use a shorter pre-release in the tag",
        )
    return tag


def version_from_image_tag(tag: str) -> str:
    """The version that an image tag was written for; UsageError if it is none of a version."""
    from semver import Version

    version = tag.replace("_", "+")
    if not (tag.isascii() and "+" not in tag and Version.is_valid(version) and len(tag) <= MAX_IMAGE_TAG_LENGTH):
        raise UsageError(f"{tag!r} is not the image tag of a version", hint="such as 1.4.0, or 1.4.0-dev.2_g1a2b3c4")
    return version


def version_to_file_name(version: str) -> str:
    """The version as part of a file name, also where upper and lower case are one: `1.0.0-RC.1+b` as `1.0.0-_r_c.1__b`.

    A version that fits into an image tag has at most 255 characters here.
    """
    return re.sub(r"[A-Z+]", lambda match: "__" if match[0] == "+" else f"_{match[0].lower()}", version)


def version_to_pep440(version: str) -> str | None:
    """The version as Python packages write it, in the same order; None if it has no such form.

    What follows a pre-release comes before the next one there: `1.4.0-rc.1.dev.2` is `1.4.0rc2.dev2`.
    """
    match = _PEP440_CONVERTIBLE.fullmatch(version)
    if match is None:
        return None
    converted = match["core"]
    if match["after"] is not None:
        converted += f"{_PEP440_PHASES[match['phase']]}{int(match['number']) + 1}.dev{match['after']}"
    elif match["phase"] is not None:
        converted += f"{_PEP440_PHASES[match['phase']]}{match['number']}"
    elif match["dev"] is not None:
        converted += f".dev{match['dev']}"
    return f"{converted}+{match['build']}" if match["build"] is not None else converted
