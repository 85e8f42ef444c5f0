"""Run a cleanup plan, and report what was removed and what is left."""

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
    path_leftovers,
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

_ENGINE_TIMEOUT_S = 60  # an engine that has not removed a container by then hangs
_REAPER_TIMEOUT_S = 5.0  # by then, reapers of killed runs have seen that nothing is left to remove
_REAPER_POLL_INTERVAL_S = 0.05
_MAX_SCANS = 8
_RETRY_INTERVAL_S = 0.25  # times the number of the scan: the engine may be busy with the same object


def run_cleanup(plan: CleanupPlan, work: Workspace, engine: Engine | None) -> CleanupReport:
    """Remove what `plan` lists and what appears meanwhile, then stop the sandbox engine.

    What could not be removed is in the report; the next `clean` continues where this one was interrupted.

    Raises:
        EngineUnavailableError: the engine does not answer any more.
        LockedError: a run has started since the plan was made.
    """
    facts = plan.facts
    require_no_new_runs(facts, work.find_other_active_runs())  # the confirmation may have taken long
    footprint = collect_host_footprint(facts.states, work.paths.work)
    snapshot = take_snapshot(facts.engine_objects, facts.disk_usage, footprint, facts.temporary_files)
    state_before = StateBefore(work.run, plan.level, engine, facts.engine_objects, snapshot)
    removed: list[OwnedObject] = []
    leftovers: list[Leftover] = []
    engine_objects, disk_usage = facts.engine_objects, None
    if engine is not None:
        engine.api.timeout = _ENGINE_TIMEOUT_S
        engine_objects, leftovers = sweep_objects(plan, work.owner, work.find_other_active_runs, engine, removed)
        work.owner.record_disowned(engine, plan.shared_images)
        prune_build_cache(engine, 0 if plan.prune_cache else work.config.resources.cache)
        disk_usage = read_disk_usage(engine)
    require_no_new_runs(facts, work.find_other_active_runs())
    leftovers += _remove_host_state(plan, work)
    footprint = collect_host_footprint(facts.states, work.paths.work)
    temporary_files = find_temporary_files(work.paths, work.bundles)
    if engine is not None and plan.is_complete and not leftovers and facts.ownership.journal_bytes:
        work.owner.record_cleared(engine, facts.ownership.journal_bytes)
    if not facts.live_runs:
        leftovers += path_leftovers("file", temporary_files)
    return state_before.build_report(
        take_snapshot(engine_objects, disk_usage, footprint, temporary_files),
        engine_objects,
        removed=removed,
        kept=list_kept_objects(plan),
        leftovers=leftovers,
        stopped=bool(plan.stop_sandboxes),
        has_live_runs=bool(plan.live_objects),
    )


def run_gone_cleanup(plan: GonePlan, work: Workspace, engine: Engine | None) -> CleanupReport:
    """Clean the missing checkouts one by one; the state directories of one are deleted when nothing else of it is left.

    A checkout that exists again is skipped. What could not be removed is in the report.
    """
    facts = plan.facts
    states = [state for cleanup in plan.cleanups for state in cleanup.checkout.facts.states]
    footprint = collect_host_footprint(states, work.paths.work)
    snapshot = take_snapshot(facts.engine_objects, facts.disk_usage, footprint)
    state_before = StateBefore(work.run, "gone", engine, facts.engine_objects, snapshot)
    removed: list[OwnedObject] = []
    leftovers: list[Leftover] = []
    deleted_states: list[DeletedState] = []
    with file_lock(work.paths.cache / "gone.lock", resource="`clean --gone`"):
        cleanups = [cleanup for cleanup in plan.cleanups if is_directory_missing(cleanup.checkout.root)]
        for cleanup in cleanups:
            leftovers += _clean_checkout(cleanup, work, engine, removed)
        engine_objects = list_objects(engine) if engine is not None else ()
        disk_usage = read_disk_usage(engine) if engine is not None else None
        remaining = {(item.kind, item.name) for item in leftovers}
        for cleanup in cleanups:
            owned = {(item.kind, item.name) for item in cleanup.checkout.facts.owned}
            if not cleanup.kept_reason and not remaining & owned:
                leftovers += _delete_states(cleanup, deleted_states)
    if deleted_states:
        work.journal.append(work.run, "states-deleted", checkouts=[state.model_dump() for state in deleted_states])
    footprint = collect_host_footprint([state for state in states if state.is_dir()], work.paths.work)
    return state_before.build_report(
        take_snapshot(engine_objects, disk_usage, footprint),
        engine_objects,
        removed=removed,
        kept=[item for cleanup in cleanups for item in list_kept_objects(cleanup.plan)],
        leftovers=leftovers,
        stopped=any(cleanup.ended_sandboxes for cleanup in cleanups),
        deleted_states=deleted_states,
    )


def save_report(report: CleanupReport, work: Workspace, *, removes_state: bool = False) -> Path | None:
    """Save the report in the run directory, or in the state directory if `.lyra/` is removed or its disk is full.

    Returns None if both disks are full: a cleanup for want of space must not fail for want of space.
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


def sweep_objects(
    plan: CleanupPlan,
    owner: Owner,
    get_live_runs: Callable[[], Container[str]],
    engine: Engine,
    removed: list[OwnedObject],
) -> tuple[tuple[EngineObject, ...], list[Leftover]]:
    """Remove the planned objects and those that appear meanwhile, until a scan (after a killed run: two) finds none.

    Returns the objects that are left in the engine and our leftovers. `removed` is filled even if an error ends this
    early; `owner` journals the removals; `get_live_runs` returns the active runs of other processes.
    """
    pending, engine_objects, reasons = list(plan.objects), plan.facts.engine_objects, dict(plan.used_by_others)
    ownership = plan.facts.ownership  # objects journaled since belong to an active run
    kept = {*plan.live_objects, *plan.shared_images, *plan.used_by_others}
    # The engine may still be creating what a killed process requested.
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
        owned = [item for candidate in engine_objects if (item := ownership.match(candidate)) is not None]
        removable = [item for item in owned if item not in kept]
        live_runs = get_live_runs() if removable else ()
        pending = [item for item in removable if item.run not in live_runs]
        empty_scans = 0 if pending else empty_scans + 1
        if empty_scans == required_empty_scans:
            break
    leftovers = {*plan.used_by_others, *pending} & set(owned)
    return engine_objects, [
        describe_leftover(item, plan.used_by_others.get(item), reasons.get(item, ""))
        for item in sorted(leftovers, key=lambda item: (item.kind, item.name))
    ]


def end_sandbox(state: Path, *, purge: bool) -> list[Leftover]:
    """Stop the sandbox engine of a state directory and return what is left of it."""
    paths = sandbox.shut_down_sandbox(state, purge=purge).leftovers
    data = [path for path in paths if Path(path).is_relative_to(state.resolve())]
    return [
        *path_leftovers("directory", data),
        *(
            Leftover(kind="control group", name=path, reason="in use by the kernel", fix=f"rmdir {path}")
            for path in paths
            if path not in data
        ),
    ]


def _remove_host_state(plan: CleanupPlan, work: Workspace) -> list[Leftover]:
    """Remove what is ours outside the engine and return what is left of it."""
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
    return leftovers + _wait_for_reapers(plan)


def _clean_checkout(
    cleanup: CheckoutCleanup, work: Workspace, engine: Engine | None, removed: list[OwnedObject]
) -> list[Leftover]:
    """Remove the objects of one missing checkout, stop its engine and return what is left."""
    facts, leftovers = cleanup.checkout.facts, list[Leftover]()

    def get_live_runs() -> set[str]:
        return {run for state in facts.states for run in active_runs(run_locks_directory(state))}

    if engine is not None:
        engine.api.timeout = _ENGINE_TIMEOUT_S
        # Removals go into the checkout's own journal, so that they are not repeated after an interruption.
        owner = Owner(Journal(facts.states[-1] / "journal.jsonl"), work.run, cleanup.checkout.project_id)
        _, leftovers = sweep_objects(cleanup.plan, owner, get_live_runs, engine, removed)
        owner.record_disowned(engine, cleanup.plan.shared_images)
    for state in cleanup.ended_sandboxes:
        leftovers += end_sandbox(state, purge=True)
    for state in facts.states:
        forget_crashed_runs(state, facts.crashed_runs)
    return leftovers + _wait_for_reapers(cleanup.plan)


def _delete_states(cleanup: CheckoutCleanup, deleted_states: list[DeletedState]) -> list[Leftover]:
    """Delete the state directories of one missing checkout and return what is left of them."""
    leftovers = []
    for state in cleanup.checkout.facts.states:
        state_leftovers = delete_directory(state)
        leftovers += state_leftovers
        if not state_leftovers:
            deleted_states.append(DeletedState(root=str(cleanup.checkout.root), state=str(state)))
    return leftovers


def _wait_for_reapers(plan: CleanupPlan) -> list[Leftover]:
    """Wait until the reapers of killed runs have exited, and return those that have not."""
    deadline = time.monotonic() + _REAPER_TIMEOUT_S
    while not plan.facts.live_runs and (pids := find_reapers(plan.facts.states)):
        if time.monotonic() > deadline:
            reason = "a reaper that does not exit"
            return [Leftover(kind="process", name=str(pid), reason=reason, fix=f"kill {pid}") for pid in pids]
        time.sleep(_REAPER_POLL_INTERVAL_S)
    return []
