"""Plan what of a checkout's evidence and image references goes by itself. Pure functions: facts in, names out.

One rule for both: what something still needs is always kept. Of the rest, the newest are kept within the limits of
`[resources]`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lyra_tasks.records.journal import Journal

_PROMOTED_EVENT = "promoted"


@dataclass(frozen=True)
class EvidenceLimits:
    """How much evidence of test runs a checkout keeps: a number of runs, and bytes."""

    max_runs: int = 50
    max_bytes: int = 1024**3


@dataclass(frozen=True)
class StoredRun:
    """The evidence of a test run: the name of its directory, the time of its last change, and its size in bytes."""

    name: str
    modified_ns: int
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


def select_expired_evidence(
    runs: Iterable[StoredRun], needed: Collection[str], limits: EvidenceLimits
) -> tuple[StoredRun, ...]:
    """Return the runs whose evidence goes, the newest first.

    Needed runs never go, but count: what they leave of the limits is for the newest of the others.
    """
    ordered = sorted(runs, key=lambda run: run.modified_ns, reverse=True)
    needed_runs = [run for run in ordered if run.name in needed]
    count, size = len(needed_runs), sum(run.size for run in needed_runs)
    expired: list[StoredRun] = []
    for run in ordered:
        if run.name in needed:
            continue
        # once one goes, all older ones go: what is kept has no gaps
        if expired or count >= limits.max_runs or size + run.size > limits.max_bytes:
            expired.append(run)
        else:
            count, size = count + 1, size + run.size
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
