"""Move the older entries of a checkout's journal to archives, but for what something still needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from lyra_tasks import console
from lyra_tasks.engine.objects.inventory import IMAGE
from lyra_tasks.engine.objects.known_engines import list_named_engines
from lyra_tasks.engine.objects.ownership import (
    ENGINE_EVENT,
    OwnershipIndex,
    build_ownership_index,
    load_ownership_index,
    read_cleared_offset,
)
from lyra_tasks.engine.workspace import SANDBOX_STARTED, Workspace
from lyra_tasks.errors import NoSpaceError
from lyra_tasks.paths import Paths
from lyra_tasks.records.checkouts import list_former_states, merge_journals
from lyra_tasks.records.journal import LASTING_EVENTS, Journal
from lyra_tasks.records.journal_entry import JournalEntry
from lyra_tasks.records.recorded_test import TESTED_EVENT

MAX_ENTRIES = 2000
"""Entries beyond the archived ones from which on the older ones are archived: some days of work, about 1 MiB."""
_KEPT_ENTRIES = 1000  # the last runs, which `status`, `history` and `logs` show


def archive_old_entries(work: Workspace) -> None:
    """Archive the older entries once there are many, and remove the oldest archives beyond `resources.journal`."""
    journal = work.journal
    if journal.recent_count <= MAX_ENTRIES:
        return
    tested_runs = {run.name.partition(".")[0] for run in work.evidence.list_runs()}
    try:
        archive = journal.archive(select_needed_entries(work.paths, tested_runs, work.bundles), _KEPT_ENTRIES)
    except (NoSpaceError, OSError):
        return  # a full disk must not make a build fail that has succeeded; the next command archives them
    if archive is None:
        return
    console.info(f"Moved the journal's entries {archive.first} to {archive.last} to {archive.path.parent}")
    archives = journal.archives
    sizes = [item.path.stat().st_size for item in archives]
    while len(archives) > 1 and sum(sizes) > work.config.resources.journal:
        oldest = archives.pop(0)
        size = console.format_bytes(sizes.pop(0))
        journal.remove_archive(oldest, work.run)
        console.info(
            f"Removed the journal's entries {oldest.first} to {oldest.last} ({size}), by the limits of [resources]"
        )


def select_needed_entries(paths: Paths, tested_runs: Set[str], bundles: Path) -> Callable[[JournalEntry], bool]:
    """Return whether an entry is needed: by objects that it claims, or by evidence or bundles that exist."""
    journal, former = Journal(paths.journal), [checkout.journal for checkout in list_former_states(paths)]
    claims = {
        engine: _collect_claims(paths, journal, former, engine) for engine in list_named_engines([journal, *former])
    }
    last_engines: dict[str, int] = {}
    for _, entry in journal.find_backwards(ENGINE_EVENT):
        last_engines.setdefault(str(entry.data.get("engine")), entry.seq)
    last_start = next((entry.seq for _, entry in journal.find_backwards(SANDBOX_STARTED)), 0)

    def is_needed(entry: JournalEntry) -> bool:
        if entry.event in LASTING_EVENTS or entry.event == "packed":
            return True
        if entry.event == TESTED_EVENT:
            return entry.run in tested_runs
        if entry.event == "promoted":
            return (bundles / str(entry.data.get("version"))).is_dir()
        if entry.event == ENGINE_EVENT:
            return last_engines.get(str(entry.data.get("engine"))) == entry.seq
        if entry.event == SANDBOX_STARTED:
            return entry.seq == last_start
        engine = entry.data.get("engine")
        named = list(claims.values()) if engine is None else [claims[str(engine)]] if str(engine) in claims else []
        return "kind" in entry.data and any(claim.needs(entry) for claim in named)

    return is_needed


@dataclass(frozen=True)
class _Claims:
    """What a checkout claims in one engine from the entry `start` on, and what former names of the project did."""

    start: int
    index: OwnershipIndex
    former: OwnershipIndex
    image_names: frozenset[str]

    def needs(self, entry: JournalEntry) -> bool:
        """Return whether the claims would be others without an entry about an object."""
        data = entry.data
        kind, name = str(data.get("kind")), str(data.get("name"))
        if entry.seq < self.start:
            return False
        if kind != IMAGE:
            return any((kind, name) in index.nonces for index in (self.index, self.former))
        if entry.event == "created":
            image_id = str(data.get("id"))
            return self.index.images.get(name) == (image_id, entry.run) or image_id in self.index.runs_by_image_id
        if entry.event == "intent":
            intent = self.index.image_intents.get(name)
            return intent is not None and intent.run == entry.run
        return name in self.image_names


def _collect_claims(paths: Paths, journal: Journal, former: Sequence[Journal], engine: str) -> _Claims:
    index, former_index, start = load_ownership_index(paths, engine), OwnershipIndex(), 0
    if former:  # removals of what they claim are in this journal, and all of it is read
        former_index = build_ownership_index(merge_journals(former), engine)
    else:  # what a cleanup has settled must not come back
        start = next((entry.seq for entry in journal.entries(read_cleared_offset(journal, engine))), 0)
    removed_ids = {str(entry.data.get("id")) for _, entry in journal.find_backwards("removed")}
    for image_id in removed_ids - {image_id for image_id, _ in index.images.values()}:
        index.runs_by_image_id.pop(image_id, None)
    created = (entry.data for _, entry in journal.find_backwards("created"))
    names = {str(data.get("name")) for data in created if str(data.get("id")) in index.runs_by_image_id}
    return _Claims(start, index, former_index, frozenset({*names, *former_index.images, *former_index.image_intents}))
