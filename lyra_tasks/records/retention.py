"""Plan what of evidence, image references and caches goes by itself. Pure functions: facts in, names out.

One rule for all: what something still needs is always kept. Of the rest, the newest are kept within the limits of
`[resources]`. `cleanup/limits.py` applies it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lyra_tasks.records.journal import Journal

_PROMOTED_EVENT = "promoted"


@dataclass(frozen=True)
class Limits:
    """How much is kept: a number of items, their bytes, and none that were last used before `oldest_ns`."""

    max_count: int
    max_bytes: int
    oldest_ns: int = 0


@dataclass(frozen=True)
class StoredItem:
    """Something that takes space, such as the evidence of a test run: its name, time of last use, and size in bytes."""

    name: str
    used_ns: int
    size: int


@dataclass(frozen=True)
class StoredReference:
    """A reference of an image in an engine, and the run that created it; ids of runs sort by time."""

    name: str
    run: str

    @property
    def repository(self) -> str:
        """Return the reference without its tag."""
        return self.name.rpartition(":")[0]


def select_expired(items: Iterable[StoredItem], needed: Collection[str], limits: Limits) -> tuple[StoredItem, ...]:
    """Return the items that go, the newest first.

    Needed ones never go, but count: what they leave of the limits is for the newest of the others.
    """
    ordered = sorted(items, key=lambda item: item.used_ns, reverse=True)
    needed_items = [item for item in ordered if item.name in needed]
    count, size = len(needed_items), sum(item.size for item in needed_items)
    expired: list[StoredItem] = []
    for item in ordered:
        if item.name in needed:
            continue
        # once one goes, all older ones go: what is kept has no gaps
        is_beyond = count >= limits.max_count or size + item.size > limits.max_bytes or item.used_ns < limits.oldest_ns
        if expired or is_beyond:
            expired.append(item)
        else:
            count, size = count + 1, size + item.size
    return tuple(expired)


def select_expired_references(
    references: Iterable[StoredReference], needed: Collection[str], max_references: int
) -> tuple[StoredReference, ...]:
    """Return the references that go: of each repository, all but the needed and the newest up to `max_references`."""
    ordered: Sequence[StoredReference] = sorted(references, key=lambda reference: reference.run, reverse=True)
    counts = Counter(reference.repository for reference in ordered if reference.name in needed)
    expired: list[StoredReference] = []
    for reference in ordered:
        if reference.name in needed:
            continue
        if counts[reference.repository] >= max_references:
            expired.append(reference)
        else:
            counts[reference.repository] += 1
    return tuple(expired)


def list_promoted_sets(journal: Journal, bundles: Path) -> frozenset[str]:
    """Return the digests of the sets whose bundles exist in the directory of a project's bundles."""
    entries = (entry.data for _, entry in journal.find_backwards(_PROMOTED_EVENT))
    versions = {str(data.get("version", "")): str(data.get("set", "")) for data in reversed(list(entries))}
    return frozenset(digest for version, digest in versions.items() if version and (bundles / version).is_dir())
