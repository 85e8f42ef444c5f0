"""How a version is written where its own grammar does not fit: image tags, file names, Python packages."""

from __future__ import annotations

import re

from lyra_tasks.errors import PreconditionError, UsageError

LONGEST_IMAGE_TAG = 128

_PHASES = {"alpha": "a", "beta": "b", "rc": "rc"}
_PYTHONIC = re.compile(
    r"(?P<core>\d+\.\d+\.\d+)"
    r"(?:-(?:(?P<phase>alpha|beta|rc)\.(?P<number>\d+)(?:\.dev\.(?P<after>\d+))?|dev\.(?P<dev>\d+)))?"
    r"(?:\+(?P<build>[0-9a-z]+(?:\.[0-9a-z]+)*))?"
)


def image_tag(version: str) -> str:
    """The version as an image tag: `+`, which a tag cannot hold, as `_`, which a version cannot hold.

    PreconditionError if it is too long for a tag.
    """
    tag = version.replace("+", "_")
    if len(tag) > LONGEST_IMAGE_TAG:
        raise PreconditionError(
            f"the version {version} has {len(tag)} characters; an image tag has at most {LONGEST_IMAGE_TAG}",
            hint="use a shorter pre-release in the tag",
        )
    return tag


def version_of_image_tag(tag: str) -> str:
    """The version that an image tag was written for; UsageError if it is none of a version."""
    from semver import Version

    version = tag.replace("_", "+")
    if not (tag.isascii() and "+" not in tag and Version.is_valid(version) and len(tag) <= LONGEST_IMAGE_TAG):
        raise UsageError(f"{tag!r} is not the image tag of a version", hint="such as 1.4.0, or 1.4.0-dev.2_g1a2b3c4")
    return version


def file_name(version: str) -> str:
    """The version as part of a file name, also where upper and lower case are one: `1.0.0-RC.1+b` as `1.0.0-_r_c.1__b`.

    A version that fits into an image tag has at most 255 characters here.
    """
    return re.sub(r"[A-Z+]", lambda found: "__" if found[0] == "+" else f"_{found[0].lower()}", version)


def pep440(version: str) -> str | None:
    """The version as Python packages write it, in the same order; None if it has no such form.

    What follows a pre-release comes before the next one there: `1.4.0-rc.1.dev.2` is `1.4.0rc2.dev2`.
    """
    found = _PYTHONIC.fullmatch(version)
    if found is None:
        return None
    text = found["core"]
    if found["after"] is not None:
        text += f"{_PHASES[found['phase']]}{int(found['number']) + 1}.dev{found['after']}"
    elif found["phase"] is not None:
        text += f"{_PHASES[found['phase']]}{found['number']}"
    elif found["dev"] is not None:
        text += f".dev{found['dev']}"
    return f"{text}+{found['build']}" if found["build"] is not None else text
