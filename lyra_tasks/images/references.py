"""Image references: the full form that stores keep, the familiar one that people write."""

from __future__ import annotations

_HUB = "docker.io/"
_OFFICIAL = "library/"


def full_name(reference: str) -> str:
    """`app` → `docker.io/library/app:latest`; a name that is full already stays."""
    first, slash, _ = reference.partition("/")
    if not slash or not (first == "localhost" or "." in first or ":" in first):
        reference = f"{_HUB}{'' if slash else _OFFICIAL}{reference}"
    if ":" not in reference.rpartition("/")[2]:
        reference += ":latest"
    return reference


def familiar_name(reference: str) -> str:
    """`docker.io/library/app:1` → `app:1`; the tag is always written."""
    return full_name(reference).removeprefix(_HUB).removeprefix(_OFFICIAL)


def tag_of(reference: str) -> str:
    """The tag of a reference, `latest` if it names none."""
    return full_name(reference).rpartition(":")[2]
