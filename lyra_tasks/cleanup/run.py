"""Running a cleaning plan, and the proof at its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Container
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_tasks.cleanup.facts import find_temporary_files, remove_temporary_files
from lyra_tasks.cleanup.plan import CheckoutCleanup, CleanupPlan, GonePlan, require_no_new_runs
from lyra_tasks.cleanup.report import (
    StateBefore,
    delete_directory,
    describe_leftover,
    list_kept_objects,
    require_clean,
    take_snapshot,
)
from lyra_tasks.engine import sandbox
from lyra_tasks.engine.client.connect import Engine
from lyra_tasks.engine.objects.disk_usage import prune_build_cache, read_disk_usage
from lyra_tasks.engine.objects.host_footprint import collect_host_footprint, find_reapers
from lyra_tasks.engine.objects.inventory import EngineObject, list_objects
from lyra_tasks.engine.objects.lifeline import forget_crashed_runs
from lyra_tasks.engine.objects.ownership import OwnedObject, Owner
from lyra_tasks.engine.objects.removal import remove_in_order
from lyra_tasks.errors import NoSpaceError, is_disk_full
from lyra_tasks.locks import active_runs, file_lock, run_locks_directory
from lyra_tasks.records.checkouts import is_directory_missing
from lyra_tasks.records.cleanup import CLEANUP_FILE_NAME, CleanupReport, DeletedState, Leftover
from lyra_tasks.records.dev import DevStore
from lyra_tasks.records.journal import Journal
from lyra_tasks.records.record import write_record

if TYPE_CHECKING:
    from lyra_tasks.engine.workspace import Workspace

__all__ = ["save_report", "require_clean", "run_cleanup"]

ENGINE_TIMEOUT_S = 60  # seconds; an engine that has not removed a container by then hangs
_REAPER_TIMEOUT_S = 5.0  # seconds that reapers of killed runs have to see that nothing is left for them


def run_cleanup(plan: CleanupPlan, work: Workspace, engine: Engine | None) -> CleanupReport:
    """Remove what `plan` lists and what appears meanwhile, until a scan finds nothing (after a killed run: two); then
    stop the sandbox.

    What is left is in the proof; an engine that stops answering is an EngineUnavailableError, a run that began since
    this was planned a LockedError, and the next `clean` goes on where this one ended.
    """
    require_no_new_runs(
        plan.facts, work.find_other_active_runs()
    )  # somebody may have thought about the answer for long
    states = plan.facts.states
    before = take_snapshot(
        plan.facts.engine_objects,
        plan.facts.disk_usage,
        collect_host_footprint(states, work.paths.work),
        plan.facts.temporary_files,
    )
    state_before = StateBefore(work.run, plan.level, engine, plan.facts.engine_objects)
    removed: list[OwnedObject] = []
    engine_objects, disk_usage, leftovers = plan.facts.engine_objects, None, []
    if engine is not None:
        engine.api.timeout = ENGINE_TIMEOUT_S
        engine_objects, swept = sweep_objects(plan, work.owner, work.find_other_active_runs, engine, removed)
        leftovers = swept
        work.owner.record_released(engine, plan.shared_images)
        prune_build_cache(engine, 0 if plan.prune_cache else work.config.resources.cache)
        disk_usage = read_disk_usage(engine)
    require_no_new_runs(plan.facts, work.find_other_active_runs())
    leftovers += _remove_host_state(plan, work)
    footprint = collect_host_footprint(states, work.paths.work)
    temporary_files = tuple(find_temporary_files(work.paths, work.bundles))
    if engine is not None and plan.is_complete and not leftovers and plan.facts.ownership.journal_bytes:
        work.owner.record_cleared(engine, plan.facts.ownership.journal_bytes)
    after = take_snapshot(engine_objects, disk_usage, footprint, temporary_files)
    if not plan.facts.live_runs:
        leftovers += [
            Leftover(kind="file", name=str(path), reason="still there", fix=f"rm -r {path}") for path in temporary_files
        ]
    return state_before.build_report(
        before, after, engine_objects,
        removed=removed, kept=list_kept_objects(plan), leftovers=leftovers, stopped=bool(plan.stop_sandboxes), has_live_runs=bool(plan.live_objects),
    )  # fmt: skip


def save_report(report: CleanupReport, work: Workspace, *, removes_state: bool = False) -> Path | None:
    """Write the proof into the run's folder, or into the state folder if `.lyra/` goes or has no room.

    None if neither has: who cleans because a disk is full is not to fail by that.
    """
    directories: list[Callable[[], Path]] = [lambda: work.run_directory, lambda: work.paths.state]
    for get_directory in directories[1:] if removes_state else directories:
        try:
            file = get_directory() / CLEANUP_FILE_NAME
            write_record(file, report)
        except NoSpaceError:
            continue
        except OSError as error:
            if not is_disk_full(error):
                raise
        else:
            return file
    return None


def _remove_host_state(plan: CleanupPlan, work: Workspace) -> list[Leftover]:
    """Take away what is ours outside of the engine's objects; what of it is left."""
    leftovers = []
    remove_temporary_files(plan.temporary_files)
    if not plan.facts.live_runs:
        for state in plan.facts.states:
            DevStore(state).delete()
            forget_crashed_runs(state, plan.facts.crashed_runs)
    for state in dict.fromkeys([*plan.stop_sandboxes, *plan.purge_sandboxes]):
        leftovers += end_sandbox(state, purge=state in plan.purge_sandboxes)
    if plan.removes_state:
        leftovers += delete_directory(work.paths.work)
    return leftovers + wait_for_reapers(plan)


def end_sandbox(state: Path, *, purge: bool) -> list[Leftover]:
    """End the sandbox engine of a state folder; what of it is left."""
    leftovers = sandbox.shut_down_sandbox(state, purge=purge).leftovers
    data = [path for path in leftovers if Path(path).is_relative_to(state.resolve())]
    return [
        *(Leftover(kind="folder", name=path, reason="still there", fix=f"rm -r {path}") for path in data),
        *(
            Leftover(kind="control group", name=path, reason="the kernel keeps it", fix=f"rmdir {path}")
            for path in leftovers
            if path not in data
        ),
    ]


def wait_for_reapers(plan: CleanupPlan) -> list[Leftover]:
    """The reapers of killed runs, which end when they see that nothing is left for them to do."""
    deadline = time.monotonic() + _REAPER_TIMEOUT_S
    while not plan.facts.live_runs and (pids := find_reapers(plan.facts.states)):
        if time.monotonic() > deadline:
            return [Leftover(kind="process", name=str(pid), reason="a reaper", fix=f"kill {pid}") for pid in pids]
        time.sleep(0.05)
    return []


_MAX_SCANS = 8
_RETRY_INTERVAL_S = 0.25  # seconds, more with each scan: the engine may be busy with the same object for somebody else


def sweep_objects(
    plan: CleanupPlan,
    owner: Owner,
    get_live_runs: Callable[[], Container[str]],
    engine: Engine,
    removed: list[OwnedObject],
) -> tuple[tuple[EngineObject, ...], list[Leftover]]:
    """What the engine holds at the end, and what of it is residue; `removed` grows, also if this ends early.

    `owner` journals what is gone, and `live` says which runs of other processes are going on now.
    """
    pending, engine_objects, reasons = list(plan.objects), plan.facts.engine_objects, dict(plan.used_by_others)
    ownership = plan.facts.ownership  # what is claimed since belongs to a run that is going on
    kept = {*plan.live_objects, *plan.shared_images, *plan.used_by_others}
    # where something was killed, the engine may still be making what it was asked for
    empty_scans, required_empty_scans = 0, 2 if plan.facts.has_unfinished_build or plan.facts.crashed_runs else 1
    for scan in range(_MAX_SCANS):
        if pending:
            result = remove_in_order(engine, pending, engine_objects)
            owner.record_removed(engine, result.removed)
            removed += result.removed
            reasons |= result.failed
            if result.error is not None:
                raise result.error
            if result.failed:
                time.sleep(_RETRY_INTERVAL_S * (scan + 1))
        engine_objects = list_objects(engine)
        remaining = [
            item
            for engine_object in engine_objects
            if (item := ownership.match(engine_object)) is not None and item not in kept
        ]
        live_runs = get_live_runs() if remaining else ()
        pending = [item for item in remaining if item.run not in live_runs]
        empty_scans = 0 if pending else empty_scans + 1
        if empty_scans == required_empty_scans:
            break
    leftovers = {*plan.used_by_others, *pending} & {
        item for engine_object in engine_objects if (item := ownership.match(engine_object)) is not None
    }
    return engine_objects, [
        describe_leftover(item, plan.used_by_others.get(item), reasons.get(item, ""))
        for item in sorted(leftovers, key=_by_kind_and_name)
    ]


def _by_kind_and_name(item: OwnedObject) -> tuple[str, str]:
    return item.kind, item.name


def run_gone_cleanup(plan: GonePlan, work: Workspace, engine: Engine | None) -> CleanupReport:
    """Remove what `plan` lists, checkout by checkout; the state folders of one go when nothing else of it is left.

    A folder that is back meanwhile is left alone. What is left is in the proof.
    """
    states = [state for cleanup in plan.cleanups for state in cleanup.checkout.facts.states]
    before = take_snapshot(
        plan.facts.engine_objects, plan.facts.disk_usage, collect_host_footprint(states, work.paths.work), ()
    )
    state_before = StateBefore(work.run, "gone", engine, plan.facts.engine_objects)
    removed: list[OwnedObject] = []
    leftovers: list[Leftover] = []
    deleted_states: list[DeletedState] = []
    with file_lock(work.paths.cache / "gone.lock", resource="`clean --gone`"):
        cleanups = [cleanup for cleanup in plan.cleanups if is_directory_missing(cleanup.checkout.root)]
        for cleanup in cleanups:
            leftovers += _clean_checkout(cleanup, work, engine, removed)
        engine_objects = list_objects(engine) if engine is not None else ()
        disk_usage = read_disk_usage(engine) if engine is not None else None
        remaining = {(entry.kind, entry.name) for entry in leftovers}
        for cleanup in cleanups:
            if not cleanup.kept_reason and not remaining & {
                (item.kind, item.name) for item in cleanup.checkout.facts.owned
            }:
                leftovers += _delete_state(cleanup, deleted_states)
    if deleted_states:
        work.journal.append(work.run, "forgotten", checkouts=[checkout.model_dump() for checkout in deleted_states])
    after = take_snapshot(
        engine_objects,
        disk_usage,
        collect_host_footprint([state for state in states if state.is_dir()], work.paths.work),
        (),
    )
    return state_before.build_report(
        before, after, engine_objects,
        removed=removed, kept=[item for cleanup in cleanups for item in list_kept_objects(cleanup.plan)], leftovers=leftovers,
        stopped=any(cleanup.ended_sandboxes for cleanup in cleanups), deleted_states=deleted_states,
    )  # fmt: skip


def _clean_checkout(
    cleanup: CheckoutCleanup, work: Workspace, engine: Engine | None, removed: list[OwnedObject]
) -> list[Leftover]:
    """Remove the objects of one checkout and end its engine; what of it is left."""
    facts, leftovers = cleanup.checkout.facts, list[Leftover]()
    if engine is not None:
        engine.api.timeout = ENGINE_TIMEOUT_S
        # in its own journal: what is gone from there is not looked for again, also if this ends in the middle
        owner = Owner(Journal(facts.states[-1] / "journal.jsonl"), work.run, cleanup.checkout.project_id)
        _, leftovers = sweep_objects(cleanup.plan, owner, lambda: _live_runs(cleanup), engine, removed)
        owner.record_released(engine, cleanup.plan.shared_images)
    for state in cleanup.ended_sandboxes:
        leftovers += end_sandbox(state, purge=True)
    for state in facts.states:
        forget_crashed_runs(state, facts.crashed_runs)
    return leftovers + wait_for_reapers(cleanup.plan)


def _live_runs(cleanup: CheckoutCleanup) -> set[str]:
    return {run for state in cleanup.checkout.facts.states for run in active_runs(run_locks_directory(state))}


def _delete_state(cleanup: CheckoutCleanup, deleted_states: list[DeletedState]) -> list[Leftover]:
    """Delete the state folders of one checkout; what of them is left."""
    leftovers = []
    for state in cleanup.checkout.facts.states:
        state_leftovers = delete_directory(state)
        leftovers += state_leftovers
        if not state_leftovers:
            deleted_states.append(DeletedState(root=str(cleanup.checkout.root), state=str(state)))
    return leftovers
