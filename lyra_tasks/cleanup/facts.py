"""What there is to clean, found out."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path

from lyra_tasks.cleanup.plan import CleanupFacts, GoneCheckout, GoneFacts
from lyra_tasks.engine import sandbox
from lyra_tasks.engine.client.connect import Engine, connect_existing_engine
from lyra_tasks.engine.objects.disk_usage import owns_builder, read_disk_usage, request_disk_usage
from lyra_tasks.engine.objects.inventory import IMAGE, EngineObject, list_objects
from lyra_tasks.engine.objects.lifeline import list_crashed_runs
from lyra_tasks.engine.objects.ownership import OwnedObject, OwnershipIndex, build_ownership_index, load_ownership_index
from lyra_tasks.engine.workspace import Workspace, was_auto_started
from lyra_tasks.files import STAGING_PREFIX
from lyra_tasks.locks import active_runs, run_locks_directory, started_within
from lyra_tasks.paths import Paths
from lyra_tasks.records.checkouts import Checkout, list_former_states, list_other_checkouts, merge_journals
from lyra_tasks.records.journal import Journal

_RECENT_S = 3600  # seconds; an engine that goes on for longer with what nobody waits for is not known


def collect_cleanup_facts(work: Workspace) -> tuple[CleanupFacts, Engine | None]:
    """What there is to clean, and the engine that holds it: None if there is none that could hold anything of ours."""
    journals = _own_journals(work)
    states = list(journals)
    running_before = {state for state in states if sandbox.find_sandbox(state) is not None}
    engine = connect_existing_engine(work.config, work.paths)
    running_sandboxes = [state for state in states if sandbox.find_sandbox(state) is not None]
    finish_disk_usage = request_disk_usage(engine) if engine is not None else None
    engine_objects = list_objects(engine) if engine is not None else ()
    ownership = load_ownership_index(work.paths, engine.facts.id) if engine is not None else OwnershipIndex()
    owned = tuple(item for engine_object in engine_objects if (item := ownership.match(engine_object)) is not None)
    return CleanupFacts(
        engine_objects=engine_objects,
        owned=owned,
        ownership=ownership,
        live_runs=work.find_other_active_runs(),
        crashed_runs=frozenset(chain.from_iterable(list_crashed_runs(state) for state in states)),
        has_unfinished_build=bool(ownership.image_intents),
        has_recent_build=any(started_within(intent.run, _RECENT_S) for intent in ownership.image_intents.values()),
        shared_images=_find_images_of_other_checkouts(work, engine, engine_objects, ownership)
        if engine is not None
        else {},
        temporary_files=tuple(find_temporary_files(work.paths, work.bundles)),
        # counted by now: beside a removal they would be of what is left, and an engine may stumble over what is not
        disk_usage=finish_disk_usage() if finish_disk_usage is not None else None,
        owns_builder=engine is not None and owns_builder(engine),
        running_sandboxes=tuple(running_sandboxes),
        # one that ran before this word needed it was started by whoever wrote so into the journal
        auto_started_sandboxes=tuple(
            state
            for state in running_sandboxes
            if state not in running_before or was_auto_started(journals[state].entries())
        ),
        states=tuple(states),
        sandboxes_with_data=tuple(state for state in states if sandbox.has_sandbox_data(state)),
    ), engine


@contextmanager
def restore_engine_state(work: Workspace) -> Iterator[None]:
    """A private engine that does not run, and is started to be looked through in the block, is ended with it.

    What is cleaned ends it anyway; not so a dry run, an answer that is no, or a fault.
    """
    states = list(_own_journals(work))
    running_before = {state for state in states if sandbox.find_sandbox(state) is not None}
    try:
        yield
    finally:
        for state in states:
            if (
                state not in running_before
                and sandbox.find_sandbox(state) is not None
                and not work.find_other_active_runs()
            ):
                sandbox.require_clean_stop(sandbox.shut_down_sandbox(state))


def _own_journals(work: Workspace) -> dict[Path, Journal]:
    """The journals of this checkout by state folder: those from under former names first, the present one last."""
    return {
        **{checkout.state: checkout.journal for checkout in list_former_states(work.paths)},
        work.paths.state: work.journal,
    }


def _find_images_of_other_checkouts(
    work: Workspace, engine: Engine, engine_objects: Iterable[EngineObject], ownership: OwnershipIndex
) -> dict[OwnedObject, str]:
    """The images that other checkouts made as well, with the id of one of them; those that are deleted do not count."""
    checkouts = (
        (names[-1].project_id, [checkout.journal for checkout in names])
        for names in list_other_checkouts(work.paths)
        if not names[0].is_missing
    )
    return find_shared_images(checkouts, engine, engine_objects, ownership)


def find_shared_images(
    checkouts: Iterable[tuple[str, list[Journal]]],
    engine: Engine,
    engine_objects: Iterable[EngineObject],
    ownership: OwnershipIndex,
) -> dict[OwnedObject, str]:
    """What of the images that `mine` claims one of these checkouts made as well: the id of one, by image."""
    images = {
        image: item for image in engine_objects if image.kind == IMAGE and (item := ownership.match(image)) is not None
    }
    shared: dict[OwnedObject, str] = {}
    for project_id, journals in checkouts if images else ():
        # a journal may be long, and most have nothing to do with these images
        texts = [journal.path.read_bytes() for journal in journals if journal.path.is_file()]
        candidates = [image for image in images if any(image.name.encode() in text for text in texts)]
        if candidates:
            other_ownership = build_ownership_index(merge_journals(journals), engine.facts.id)
            shared |= {images[image]: project_id for image in candidates if other_ownership.match(image) is not None}
    return shared


def collect_gone_facts(work: Workspace) -> tuple[GoneFacts, Engine | None]:
    """What the checkouts left that are gone, in the engine of `work` and in those of their own; and that engine."""
    engine = connect_existing_engine(work.config, work.paths)
    engine_objects = list_objects(engine) if engine is not None else ()
    gone_checkouts, existing_checkouts = (
        [],
        [("", [*(checkout.journal for checkout in list_former_states(work.paths)), work.journal])],
    )
    for names in list_other_checkouts(work.paths):
        if names[0].is_missing:
            gone_checkouts.append(names)
        else:
            existing_checkouts.append((names[-1].project_id, [checkout.journal for checkout in names]))
    existing_checkouts[0] = (work.paths.project_id, existing_checkouts[0][1])
    return GoneFacts(
        checkouts=tuple(
            _collect_checkout_facts(names, engine, engine_objects, existing_checkouts) for names in gone_checkouts
        ),
        engine_objects=engine_objects,
        disk_usage=read_disk_usage(engine) if engine is not None else None,
    ), engine


def _collect_checkout_facts(
    names: tuple[Checkout, ...],
    engine: Engine | None,
    engine_objects: tuple[EngineObject, ...],
    existing_checkouts: Iterable[tuple[str, list[Journal]]],
) -> GoneCheckout:
    states = [checkout.state for checkout in names]
    ownership = (
        build_ownership_index(merge_journals(checkout.journal for checkout in names), engine.facts.id)
        if engine
        else OwnershipIndex()
    )
    running_sandboxes = [state for state in states if sandbox.find_sandbox(state) is not None]
    facts = CleanupFacts(
        engine_objects=engine_objects,
        owned=tuple(item for engine_object in engine_objects if (item := ownership.match(engine_object)) is not None),
        ownership=ownership,
        live_runs=dict(chain.from_iterable(active_runs(run_locks_directory(state)).items() for state in states)),
        crashed_runs=frozenset(chain.from_iterable(list_crashed_runs(state) for state in states)),
        has_unfinished_build=bool(ownership.image_intents),
        shared_images=find_shared_images(existing_checkouts, engine, engine_objects, ownership)
        if engine is not None
        else {},
        running_sandboxes=tuple(running_sandboxes),
        states=tuple(states),
        sandboxes_with_data=tuple(state for state in states if sandbox.has_sandbox_data(state)),
    )
    return GoneCheckout(
        root=names[-1].root or Path(),
        project_id=names[-1].project_id,
        unmounted_reason=names[-1].unmounted_reason,
        facts=facts,
        is_engine_in_use=engine is not None and any(_is_sandbox_engine(engine, state) for state in running_sandboxes),
        other_engines=tuple(sorted(_find_other_engines(names, engine, engine_objects))),
    )


def _is_sandbox_engine(engine: Engine, state: Path) -> bool:
    box = sandbox.find_sandbox(state)
    return box is not None and engine.cli_environment.get("DOCKER_HOST") == f"unix://{box.socket}"


def _find_other_engines(
    names: Iterable[Checkout], engine: Engine | None, engine_objects: Iterable[EngineObject]
) -> Iterator[str]:
    """The engines that the journals name, that are neither this one nor their own, and may hold something of theirs.

    What was made in an engine of their own goes with its data.
    """
    own_engine_ids = [
        sandbox.read_engine_ids(checkout.state) for checkout in names if sandbox.has_sandbox_data(checkout.state)
    ]
    if not all(own_engine_ids):
        return  # an old engine does not write down who it is, and may be any that is named
    entries = list(merge_journals(checkout.journal for checkout in names))
    known_engine_ids = (
        {engine.facts.id, *chain.from_iterable(own_engine_ids)}
        if engine is not None
        else set(chain.from_iterable(own_engine_ids))
    )
    # only images are made in an engine by name; what else was made may be in any, and is gone wherever it was removed
    entries_without_engine = (
        replace(entry, data={**entry.data, "engine": ""}) for entry in entries if entry.data.get("kind") != IMAGE
    )
    missing = build_ownership_index(entries_without_engine, "").nonces.keys() - {
        (engine_object.kind, engine_object.name) for engine_object in engine_objects
    }
    for engine_id in {str(entry.data["engine"]) for entry in entries if entry.data.get("engine")} - known_engine_ids:
        ownership = build_ownership_index(entries, engine_id)
        if ownership.images or ownership.image_intents or missing:
            yield engine_id


_TEMPORARY_NAME = re.compile(r"\..+\.[a-z0-9_]{8}")  # as files.write_file names what it has not renamed yet


def find_temporary_files(paths: Paths, bundles: Path) -> list[Path]:
    """Bundles that were not finished, secrets placed for old engines, files that were not renamed into place."""
    files = [
        *bundles.glob(f"{STAGING_PREFIX}*"),
        *paths.runs.glob("*/mounts"),
        *_find_unrenamed_files(paths.state),
        *_find_unrenamed_files(bundles),
    ]
    return sorted(files)


def remove_temporary_files(files: Iterable[Path]) -> None:
    """Delete them; what cannot be deleted is found again by the next look."""
    for path in files:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _find_unrenamed_files(directory: Path) -> Iterator[Path]:
    """Of a folder and those directly below it; an engine's own data is none of them."""
    for pattern in ("*", "*/*"):
        for path in directory.glob(pattern):
            if _TEMPORARY_NAME.fullmatch(path.name) and path.parent.name != "sandbox" and path.is_file():
                yield path
