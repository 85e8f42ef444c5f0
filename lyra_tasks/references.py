"""Image references: the full form that stores keep, the familiar one that people write."""

from __future__ import annotations

_DEFAULT_REGISTRY = "docker.io/"
_OFFICIAL_NAMESPACE = "library/"


def normalize_reference(reference: str) -> str:
    """`app` → `docker.io/library/app:latest`; a name that is full already stays."""
    first, slash, _ = reference.partition("/")
    if not slash or not (first == "localhost" or "." in first or ":" in first):
        reference = f"{_DEFAULT_REGISTRY}{'' if slash else _OFFICIAL_NAMESPACE}{reference}"
    if ":" not in reference.rpartition("/")[2]:
        reference += ":latest"
    return reference


def familiar_reference(reference: str) -> str:
    """`docker.io/library/app:1` → `app:1`; the tag is always written."""
    return normalize_reference(reference).removeprefix(_DEFAULT_REGISTRY).removeprefix(_OFFICIAL_NAMESPACE)


def reference_tag(reference: str) -> str:
    """The tag of a reference, `latest` if it names none."""
    return normalize_reference(reference).rpartition(":")[2]
