"""Look Debian packages up in the data of Debian's security tracker.

The data is the file https://security-tracker.debian.org/tracker/data/json, which has an entry for each source package.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from lyra_tasks.config.models import Severity
from lyra_tasks.documents import DocumentError, read_document, require_depth, shorten
from lyra_tasks.images.stream.packages import ImagePackages, OsRelease, Package, list_packages
from lyra_tasks.vulnerabilities.document import ImageVulnerabilities, Vulnerability, sort_vulnerabilities

_MAX_TRACKER_BYTES = 512 * 1024**2  # about 80 MB in 2026
_SEVERITIES: dict[str, Severity] = {"unimportant": "negligible", "low": "low", "medium": "medium", "high": "high"}
# os-release of a distroless image has no VERSION_CODENAME
_CODENAMES = {"10": "buster", "11": "bullseye", "12": "bookworm", "13": "trixie", "14": "forky"}
_BLANK = re.compile(r"[ \t\r\n]*")


class _Release(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    status: str
    urgency: str = ""
    fixed_version: str = ""


class _Issue(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    releases: dict[str, _Release] = {}


class DebianTracker:
    """The part of the tracker's data that is about the given source packages, and the date of the file."""

    def __init__(self, path: Path, sources: Collection[str]) -> None:
        """Read the file; raise DocumentError, OSError or ValidationError if it is not the tracker's data."""
        text = read_document(path, _MAX_TRACKER_BYTES).decode()
        self.date = datetime.fromtimestamp(path.stat().st_mtime, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self._issues = {
            source: {name: _Issue.model_validate(issue) for name, issue in issues.items()}
            for source, issues in _iter_entries(text)
            if source in sources
        }

    def look_up(self, image: ImagePackages) -> ImageVulnerabilities:
        """Return the vulnerabilities of the Debian packages of an image; other packages are not known here."""
        packages = list(list_packages(image))
        known = [package for package in packages if package.kind == "deb"] if is_debian(image.os_release) else []
        codename = find_codename(image.os_release) if known else ""
        vulnerabilities = [item for package in known for item in self._find(package, codename)]
        return ImageVulnerabilities(
            vulnerabilities=sort_vulnerabilities(vulnerabilities),
            packages=len(known),
            unknown_packages=len(packages) - len(known),
        )

    def _find(self, package: Package, codename: str) -> Iterator[Vulnerability]:
        for name, issue in self._issues.get(package.source_name, {}).items():
            release = issue.releases.get(codename)
            if release is not None and _is_affected(release, package.upstream_version):
                yield Vulnerability(
                    id=shorten(name),
                    severity=_SEVERITIES.get(release.urgency.rstrip("*"), "unknown"),
                    package=package.name,
                    version=package.version,
                    fixed_in=shorten(release.fixed_version),
                )


def is_debian(release: OsRelease | None) -> bool:
    """Return whether packages are those of Debian itself."""
    return release is not None and release.id == "debian"


def find_codename(release: OsRelease | None) -> str:
    """Return the name of a Debian release; DocumentError if it is not known."""
    codename = release.codename or _CODENAMES.get(release.version, "") if release else ""
    if not codename:
        raise DocumentError(f"os-release names no release of Debian: `{shorten(release.name if release else '')}`")
    return codename


def has_version_rules() -> bool:
    """Return whether the library that compares versions of Debian packages is installed."""
    from importlib.util import find_spec

    return find_spec("debian_inspector") is not None


def is_older(version: str, other: str) -> bool:
    """Return whether a version is older than another one, by the rules of dpkg; a malformed one is."""
    from debian_inspector.version import Version

    try:
        return bool(Version.from_string(version) < Version.from_string(other))
    except ValueError:
        return True


def collect_sources(images: Sequence[ImagePackages]) -> set[str]:
    """Return the names of the source packages of Debian packages."""
    return {package.source_name for image in images for package in list_packages(image) if package.kind == "deb"}


def _is_affected(release: _Release, version: str) -> bool:
    """Return whether a version has the vulnerability; `0` as the fixed version stands for "never had it"."""
    if release.status == "resolved":
        return release.fixed_version != "0" and is_older(version, release.fixed_version)
    return release.status in {"open", "undetermined"}


def _iter_entries(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the members of a JSON object one after the other: all of them together would take half a gigabyte."""
    decoder = json.JSONDecoder()
    position = _skip(text, 0, "{")
    while text[position : position + 1] != "}":
        try:
            key, position = decoder.raw_decode(text, position)
            position = _skip(text, position, ":")
            value, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            raise DocumentError("not valid JSON") from error
        if not (isinstance(key, str) and isinstance(value, dict)):
            raise DocumentError("not the data of Debian's security tracker")
        require_depth(value)
        yield key, value
        position = _BLANK.match(text, position).end()  # type: ignore[union-attr] # matches nothing, too
        if text[position : position + 1] == ",":
            position = _skip(text, position, ",")
        elif text[position : position + 1] != "}":
            raise DocumentError("not valid JSON")


def _skip(text: str, position: int, character: str) -> int:
    """Return the position after a character and the blanks around it."""
    match = re.compile(rf"[ \t\r\n]*{re.escape(character)}[ \t\r\n]*").match(text, position)
    if match is None:
        raise DocumentError("not a JSON object")
    return match.end()
