"""Image references: parse, normalize and shorten."""

from __future__ import annotations

import re
from collections.abc import Mapping

_DEFAULT_REGISTRY = "docker.io/"
_OFFICIAL_NAMESPACE = "library/"


def normalize_reference(reference: str) -> str:
    """Return the full form of a reference: `app` becomes `docker.io/library/app:latest`."""
    first, slash, _ = reference.partition("/")
    if not (slash and _is_host(first)):
        reference = f"{_DEFAULT_REGISTRY}{reference}"
    name = reference.removeprefix(_DEFAULT_REGISTRY)
    if name != reference and "/" not in name:
        reference = f"{_DEFAULT_REGISTRY}{_OFFICIAL_NAMESPACE}{name}"
    if ":" not in reference.rpartition("/")[2]:
        reference += ":latest"
    return reference


def familiar_reference(reference: str) -> str:
    """Return the short form of a reference, with its tag: `docker.io/library/app:1` becomes `app:1`."""
    return normalize_reference(reference).removeprefix(_DEFAULT_REGISTRY).removeprefix(_OFFICIAL_NAMESPACE)


def registry_host(reference: str) -> str:
    """Return the registry of a reference as Docker reads it: `docker.io` unless the first part looks like a host."""
    first, slash, _ = reference.partition("/")
    return first if slash and _is_host(first) else "docker.io"


def pin_reference(reference: str, digest: str) -> str:
    """Return `reference` with `digest`, unless it has one."""
    return reference if "@" in reference else f"{reference}@{digest}"


def strip_tag(reference: str) -> str:
    """Return the name in a reference, with neither tag nor digest."""
    return re.sub(r":[^:/]+$", "", reference.partition("@")[0])


def _is_host(part: str) -> bool:
    return part == "localhost" or "." in part or ":" in part


def is_attestation(annotations: Mapping[str, str] | None, platform_os: str = "") -> bool:
    """Return whether a descriptor with these annotations and platform is an attestation, not an image."""
    return "vnd.docker.reference.type" in (annotations or {}) or platform_os == "unknown"


def suggest_archive_name(reference: str) -> str:
    """Return the name of a file for `docker save` of an image: `redis-7-alpine.tar`."""
    last = reference.rpartition("/")[2].partition("@")[0]
    return f"{re.sub(r'[^a-z0-9.]+', '-', last.lower())}.tar"
