"""Collect what `clean` may remove: objects in the engine, private engines and temporary files."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path

from lyra_tasks.cleanup.plan import CleanupFacts
from lyra_tasks.engine import sandbox
from lyra_tasks.engine.client.connect import Engine, connect_existing_engine
from lyra_tasks.engine.client.facts import UnsupportedEngineError
from lyra_tasks.engine.objects.disk_usage import owns_builder, read_disk_usage, request_disk_usage
from lyra_tasks.engine.objects.inventory import IMAGE, EngineObject, list_objects
from lyra_tasks.engine.objects.known_engines import (
    UnaskedEngine,
    count_claims,
    find_missing_checkouts,
    find_unasked_engines,
)
from lyra_tasks.engine.objects.lifeline import list_crashed_runs
from lyra_tasks.engine.objects.ownership import OwnedObject, OwnershipIndex, build_ownership_index, load_ownership_index
from lyra_tasks.engine.sandbox.layout import SandboxPaths
from lyra_tasks.engine.workspace import Workspace, was_auto_started
from lyra_tasks.errors import EngineUnavailableError
from lyra_tasks.files import STAGING_PREFIX
from lyra_tasks.locks import active_runs, list_stale_directories, run_locks_directory, started_within
from lyra_tasks.paths import Paths
from lyra_tasks.records.checkouts import Checkout, list_former_states, list_other_checkouts, merge_journals
from lyra_tasks.records.journal import Journal
from lyra_tasks.records.journal_entry import JournalEntry

_RECENT_S = 3600  # so long, an engine may go on with a build whose client is gone
_TEMPORARY_NAME = re.compile(r"\..+\.[a-z0-9_]{8}")  # what files.write_file has not renamed yet


def collect_cleanup_facts(work: Workspace) -> tuple[CleanupFacts, Engine | None]:
    """Collect what this checkout left, and return it with its engine, or None if no engine can hold anything of it.

    Raises EngineUnavailableError if no engine can be asked, but one holds something of the checkout by its journal.
    """
    journals = list_own_journals(work)
    running_before = set(_find_running_sandboxes(journals))
    engine, unasked_engines = _connect_holding_engine(work)
    finish_disk_usage = request_disk_usage(engine) if engine is not None else None
    engine_objects = list_objects(engine) if engine is not None else ()
    ownership = load_ownership_index(work.paths, engine.facts.id) if engine is not None else OwnershipIndex()
    others = [list_project_journals(names) for names in list_other_checkouts(work.paths) if not names[0].is_missing]
    facts = _collect_facts(work, engine, engine_objects, ownership, tuple(journals), other_checkouts=others)
    return replace(
        facts,
        root=work.root,
        project_id=work.paths.project_id,
        has_recent_build=any(started_within(intent.run, _RECENT_S) for intent in ownership.image_intents.values()),
        temporary_files=tuple(find_temporary_files(work.paths, work.bundles)),
        # Wait for it now: during the removal the engine would count what is left, or fail on what is not.
        disk_usage=finish_disk_usage() if finish_disk_usage is not None else None,
        owns_builder=engine is not None and owns_builder(engine),
        unasked_engines=unasked_engines,
        missing_checkouts=find_missing_checkouts(work.paths),
        stray_sandboxes=tuple(state for state in journals if sandbox.find_stray_sandbox(state) is not None),
        auto_started_sandboxes=tuple(
            state
            for state in facts.running_sandboxes
            # An engine that ran before was started by the command that journaled it.
            if state not in running_before or was_auto_started(journals[state].entries())
        ),
    ), engine


def collect_gone_facts(work: Workspace) -> tuple[list[CleanupFacts], Engine | None]:
    """Collect what missing checkouts left in the engine of `work` and in their own, and return it with that engine."""
    engine = connect_existing_engine(work.config, work.paths)
    engine_objects = list_objects(engine) if engine is not None else ()
    checkouts = list_other_checkouts(work.paths)
    existing = [(work.paths.project_id, list(list_own_journals(work).values()))]
    existing += [list_project_journals(names) for names in checkouts if not names[0].is_missing]
    disk_usage = read_disk_usage(engine) if engine is not None else None
    gone_facts = []
    for names in checkouts:
        if not names[0].is_missing:
            continue
        project_id, journals = list_project_journals(names)
        ownership, states = OwnershipIndex(), tuple(checkout.state for checkout in names)
        if engine is not None:
            ownership = build_ownership_index(merge_journals(journals), engine.facts.id)
        facts = _collect_facts(work, engine, engine_objects, ownership, states, other_checkouts=existing)
        sockets = {f"unix://{box.socket}" for state in states if (box := sandbox.find_sandbox(state)) is not None}
        gone_facts.append(
            replace(
                facts,
                root=names[-1].root or Path(),
                project_id=project_id,
                disk_usage=disk_usage,
                unmounted_reason=names[-1].unmounted_reason,
                is_engine_in_use=engine is not None and engine.cli_environment.get("DOCKER_HOST") in sockets,
                other_engines=tuple(sorted(set(_find_other_engines(names, engine, engine_objects)))),
            )
        )
    return gone_facts, engine


def find_live_runs(work: Workspace, states: Iterable[Path]) -> dict[str, int]:
    """Return the active runs of a checkout in other processes, with their process ids."""
    runs = chain.from_iterable(active_runs(run_locks_directory(state)).items() for state in states)
    return {run: pid for run, pid in runs if run not in work.active_runs}


@contextmanager
def restore_engine_state(work: Workspace) -> Iterator[None]:
    """Stop private engines at the end of the block that were started in it.

    A cleanup stops them anyway; a dry run, a declined confirmation and an error do not.
    """
    states = list(list_own_journals(work))
    running_before = _find_running_sandboxes(states)
    try:
        yield
    finally:
        for state in _find_running_sandboxes(states):
            if state not in running_before and not find_live_runs(work, states):
                sandbox.require_clean_stop(sandbox.shut_down_sandbox(state))


def find_temporary_files(paths: Paths, bundles: Path) -> list[Path]:
    """Return unfinished bundles, secrets placed for old engines, and files that were not renamed into place.

    The temporary directories of killed processes of this user are among them, and Buildx's notes of killed builds.
    """
    build_notes = SandboxPaths(paths.state).config / "buildx" / "refs"
    return sorted(
        [
            *bundles.glob(f"{STAGING_PREFIX}*"),
            *paths.runs.glob("*/mounts"),
            *_find_unrenamed_files(paths.state),
            *_find_unrenamed_files(bundles),
            *list_stale_directories(),
            *(path for path in build_notes.rglob("*") if path.is_file()),
        ]
    )


def remove_temporary_files(files: Iterable[Path]) -> None:
    """Delete files and directories; errors are ignored, since the next search finds the path again."""
    for path in files:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _connect_holding_engine(work: Workspace) -> tuple[Engine | None, tuple[UnaskedEngine, ...]]:
    """Connect to the engine that may hold objects, and return it with those that hold some and cannot be asked."""
    try:
        engine = connect_existing_engine(work.config, work.paths)
    except UnsupportedEngineError:
        raise
    except EngineUnavailableError as error:
        if unasked_engines := find_unasked_engines(work.paths, None):
            raise _unasked_error(error.message, unasked_engines, error.hint) from error
        raise
    unasked_engines = find_unasked_engines(work.paths, engine)
    if engine is None and unasked_engines:
        raise _unasked_error("No engine can be asked for the objects of this project", unasked_engines, "")
    return engine, unasked_engines


def _unasked_error(message: str, engines: Sequence[UnaskedEngine], hint: str) -> EngineUnavailableError:
    return EngineUnavailableError(message, hint=hint or engines[0].fix, details=tuple(map(str, engines)))


def _collect_facts(
    work: Workspace,
    engine: Engine | None,
    engine_objects: tuple[EngineObject, ...],
    ownership: OwnershipIndex,
    states: tuple[Path, ...],
    *,
    other_checkouts: Sequence[tuple[str, list[Journal]]],
) -> CleanupFacts:
    """Collect what is known alike of this and of other checkouts."""
    shared = find_shared_images(other_checkouts, engine, engine_objects, ownership) if engine is not None else {}
    return CleanupFacts(
        engine_objects=engine_objects,
        owned=tuple(item for candidate in engine_objects if (item := ownership.match(candidate)) is not None),
        ownership=ownership,
        live_runs=find_live_runs(work, states),
        crashed_runs=frozenset(chain.from_iterable(list_crashed_runs(state) for state in states)),
        has_unfinished_build=bool(ownership.image_intents),
        shared_images=shared,
        running_sandboxes=tuple(_find_running_sandboxes(states)),
        states=states,
        sandboxes_with_data=tuple(state for state in states if sandbox.has_sandbox_data(state)),
    )


def list_own_journals(work: Workspace) -> dict[Path, Journal]:
    """Return this checkout's journals by state directory, those of former project names first."""
    former = {checkout.state: checkout.journal for checkout in list_former_states(work.paths)}
    return {**former, work.paths.state: work.journal}


def list_project_journals(names: tuple[Checkout, ...]) -> tuple[str, list[Journal]]:
    """Return the project id of a checkout and its journals, from its state directories."""
    return names[-1].project_id, [checkout.journal for checkout in names]


def _find_running_sandboxes(states: Iterable[Path]) -> list[Path]:
    return [state for state in states if sandbox.find_sandbox(state) is not None]


def find_shared_images(
    checkouts: Sequence[tuple[str, list[Journal]]],
    engine: Engine,
    engine_objects: Iterable[EngineObject],
    ownership: OwnershipIndex,
) -> dict[OwnedObject, str]:
    """Return the owned images that another of these checkouts also created, with its project id."""
    images = {
        image: item for image in engine_objects if image.kind == IMAGE and (item := ownership.match(image)) is not None
    }
    shared: dict[OwnedObject, str] = {}
    for project_id, journals in checkouts if images else ():
        # Parsing is slow for long journals, and most of them do not mention these images.
        texts = [journal.path.read_bytes() for journal in journals if journal.path.is_file()]
        candidates = [image for image in images if any(image.name.encode() in text for text in texts)]
        if candidates:
            other_ownership = build_ownership_index(merge_journals(journals), engine.facts.id)
            shared |= {images[image]: project_id for image in candidates if other_ownership.match(image) is not None}
    return shared


def _find_other_engines(
    names: Sequence[Checkout], engine: Engine | None, engine_objects: Iterable[EngineObject]
) -> Iterator[str]:
    """Yield engines named in the journals, neither this one nor the checkout's own, that may hold objects of it."""
    own_ids = [sandbox.read_engine_ids(item.state) for item in names if sandbox.has_sandbox_data(item.state)]
    if not all(own_ids):
        return  # sandboxes of old versions did not record their engine's id: it may be any of those
    journals = [checkout.journal for checkout in names]
    known_ids = set(chain.from_iterable(own_ids)) | ({engine.facts.id} if engine is not None else set())
    yield from count_claims(journals, known_ids)
    # Old journals name the engine of images only: other objects may be in any, unless their removal was journaled.
    entries = list(merge_journals(journals))
    present = {(item.kind, item.name) for item in engine_objects}
    unplaced_entries = (entry for entry in entries if not entry.data.get("engine") or entry.event == "removed")
    if build_ownership_index((_forget_engine(entry) for entry in unplaced_entries), "").nonces.keys() - present:
        yield from {str(entry.data["engine"]) for entry in entries if entry.data.get("engine")} - known_ids


def _forget_engine(entry: JournalEntry) -> JournalEntry:
    return replace(entry, data={**entry.data, "engine": ""})


def _find_unrenamed_files(directory: Path) -> Iterator[Path]:
    """Yield temporary files in a directory and its subdirectories, except a private engine's data."""
    for pattern in ("*", "*/*"):
        for path in directory.glob(pattern):
            if _TEMPORARY_NAME.fullmatch(path.name) and path.parent.name != "sandbox" and path.is_file():
                yield path
