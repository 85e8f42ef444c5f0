"""Run a cleanup plan, and report what was removed and what is left."""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

from lyra_tasks.cleanup.facts import find_live_runs, find_temporary_files, remove_temporary_files
from lyra_tasks.cleanup.plan import (
    WAIT_HINT,
    CleanupPlan,
    describe_active_runs,
    record_unasked_engines,
)
from lyra_tasks.cleanup.report import describe_leftover, find_removed_by_others, list_path_leftovers, take_snapshot
from lyra_tasks.engine import sandbox
from lyra_tasks.engine.client.connect import Engine
from lyra_tasks.engine.objects.disk_usage import prune_build_cache, read_disk_usage
from lyra_tasks.engine.objects.host_footprint import collect_host_footprint, find_reapers
from lyra_tasks.engine.objects.inventory import EngineObject, list_objects
from lyra_tasks.engine.objects.lifeline import forget_crashed_runs
from lyra_tasks.engine.objects.ownership import OwnedObject, Owner
from lyra_tasks.engine.objects.removal import remove_in_order
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.errors import LockedError
from lyra_tasks.locks import file_lock, remove_stale_directories
from lyra_tasks.records.checkouts import is_directory_missing
from lyra_tasks.records.cleanup import CleanupReport, DeletedState, KeptObject, Leftover, RecordedObject
from lyra_tasks.records.dev import DevStore
from lyra_tasks.records.evidence_store import EVIDENCE_DIRECTORY
from lyra_tasks.records.journal import Journal

_ENGINE_TIMEOUT_S = 60  # an engine that has not removed a container by then hangs
_REAPER_TIMEOUT_S = 5.0  # by then, reapers of killed runs have seen that nothing is left to remove
_REAPER_POLL_INTERVAL_S = 0.05
_MAX_SCANS = 8
_RETRY_INTERVAL_S = 0.25  # times the number of the scan: the engine may be busy with the same object


def run_cleanup(plans: Sequence[CleanupPlan], work: Workspace, engine: Engine | None) -> CleanupReport:
    """Remove what the plans, all of one level, list and what appears meanwhile, then stop private engines.

    What could not be removed is in the report; the next `clean` continues where this one was interrupted. A missing
    checkout that exists again is skipped. Raises LockedError if a run has started since the plans were made.
    """
    started, started_at = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    level, facts = plans[0].level, plans[0].facts
    states = [state for plan in plans for state in plan.facts.states]
    unasked_engines = [record for plan in plans for record in record_unasked_engines(plan)]
    removed, leftovers, deleted_states = list[OwnedObject](), list[Leftover](), list[DeletedState]()
    engine_objects, disk_usage, temporary_files = facts.engine_objects, None, list[Path]()
    with file_lock(work.paths.cache / "gone.lock", resource="`clean --gone`") if level == "gone" else nullcontext():
        plans = [plan for plan in plans if level != "gone" or is_directory_missing(plan.facts.root)]
        _require_no_new_runs(plans, work)  # the confirmation may have taken long
        footprint = collect_host_footprint(states, work.paths.work)
        before = take_snapshot(facts.engine_objects, facts.disk_usage, footprint, facts.temporary_files)
        if engine is not None:
            engine.api.timeout = _ENGINE_TIMEOUT_S
            for plan in plans:
                engine_objects, plan_leftovers = _sweep_objects(plan, work, engine, removed)
                leftovers += plan_leftovers
            if level != "gone":
                prune_build_cache(engine, 0 if plans[0].prune_cache else work.config.resources.cache)
            disk_usage = read_disk_usage(engine)
        _require_no_new_runs(plans, work)
        for plan in plans:
            leftovers += _remove_host_state(plan, work)
        remaining = {(item.kind, item.name) for item in leftovers}
        for plan in plans:
            if plan.deletes_states and not remaining & {(item.kind, item.name) for item in plan.facts.owned}:
                leftovers += _delete_states(plan, deleted_states)
    if deleted_states:
        work.journal.append(work.run, "states-deleted", checkouts=[state.model_dump() for state in deleted_states])
    remove_stale_directories()  # last, since commands of other projects may have been killed meanwhile
    if level != "gone":
        temporary_files = find_temporary_files(work.paths, work.bundles)
        if engine is not None and plans[0].is_complete and not leftovers and facts.ownership.last_entry:
            work.owner.record_cleared(engine.facts.id, facts.ownership.last_entry)
        if not facts.live_runs:
            leftovers += list_path_leftovers("file", temporary_files)
    footprint = collect_host_footprint([state for state in states if state.is_dir()], work.paths.work)
    return CleanupReport(
        run=work.run,
        level=level,
        started_at=started_at,
        seconds=round(time.monotonic() - started, 3),
        engine={"id": engine.facts.id, "version": engine.facts.version} if engine is not None else None,
        before=before,
        after=take_snapshot(engine_objects, disk_usage, footprint, temporary_files),
        removed=[RecordedObject(kind=item.kind, name=item.name, id=item.id, run=item.run) for item in removed],
        kept=[
            KeptObject(kind=item.kind, name=item.name, id=item.id, run=item.run, reason=reason)
            for plan in plans
            for item, reason in plan.kept_objects.items()
            if item not in plan.used_by_others
        ],
        leftovers=leftovers,
        not_asked=unasked_engines,
        removed_by_others=find_removed_by_others(facts.engine_objects, engine_objects, removed),
        sandbox_stopped=any(plan.stop_sandboxes for plan in plans),
        deleted_states=deleted_states,
        clean=not leftovers and not unasked_engines and not any(plan.live_objects for plan in plans),
    )


def end_sandbox(state: Path, *, purge: bool) -> list[Leftover]:
    """Stop the private engine of a state directory and return what is left of it."""
    paths = sandbox.shut_down_sandbox(state, purge=purge).leftovers
    data = [path for path in paths if Path(path).is_relative_to(state.resolve())]
    return [
        *list_path_leftovers("directory", data),
        *(
            Leftover(kind="control group", name=path, reason="in use by the kernel", fix=f"rmdir {shlex.quote(path)}")
            for path in paths
            if path not in data
        ),
    ]


def _sweep_objects(
    plan: CleanupPlan, work: Workspace, engine: Engine, removed: list[OwnedObject]
) -> tuple[tuple[EngineObject, ...], list[Leftover]]:
    """Remove the planned objects and those that appear meanwhile, until a scan (after a killed run: two) finds none.

    Returns the objects that are left in the engine and our leftovers. `removed` is filled even if an error ends this
    early. Removals go into the checkout's own journal, so that they are not repeated after an interruption.
    """
    states = plan.facts.states
    owner = Owner(Journal(states[-1] / "journal.jsonl"), work.run, plan.facts.project_id)
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
        live_runs = find_live_runs(work, states) if removable else ()
        pending = [item for item in removable if item.run not in live_runs]
        empty_scans = 0 if pending else empty_scans + 1
        if empty_scans == required_empty_scans:
            break
    owner.record_disowned(engine, plan.shared_images)
    leftovers = {*plan.used_by_others, *pending} & set(owned)
    return engine_objects, [
        describe_leftover(item, plan.used_by_others.get(item), reasons.get(item, ""))
        for item in sorted(leftovers, key=lambda item: (item.kind, item.name))
    ]


def _remove_host_state(plan: CleanupPlan, work: Workspace) -> list[Leftover]:
    """Remove what is ours outside the engine and return what is left of it."""
    leftovers = []
    remove_temporary_files(plan.temporary_files)
    if not plan.facts.live_runs:
        # Their containers may be in an engine that was not asked.
        for state in plan.facts.states if not plan.unasked_engines else ():
            DevStore(state).delete()
            forget_crashed_runs(state, plan.facts.crashed_runs)
    for state in dict.fromkeys([*plan.stop_sandboxes, *plan.purge_sandboxes]):
        leftovers += end_sandbox(state, purge=state in plan.purge_sandboxes)
    if plan.removes_state:
        leftovers += _delete_directory(work.paths.work)
        for state in plan.facts.states:  # its images are gone, so nothing of it can be promoted any more
            leftovers += _delete_directory(state / EVIDENCE_DIRECTORY)
    return leftovers + _wait_for_reapers(plan)


def _delete_states(plan: CleanupPlan, deleted_states: list[DeletedState]) -> list[Leftover]:
    """Delete the state directories of a missing checkout and return what is left of them."""
    leftovers = []
    for state in plan.facts.states:
        state_leftovers = _delete_directory(state)
        leftovers += state_leftovers
        if not state_leftovers:
            deleted_states.append(DeletedState(root=str(plan.facts.root), state=str(state)))
    return leftovers


def _require_no_new_runs(plans: Sequence[CleanupPlan], work: Workspace) -> None:
    """Raise LockedError if a run has started since the facts were collected: the plan would remove its objects."""
    for plan in plans:
        live_runs = find_live_runs(work, plan.facts.states)
        if new_runs := {run: pid for run, pid in live_runs.items() if run not in plan.facts.live_runs}:
            message = f"{describe_active_runs(new_runs)}: it started after this cleanup was planned"
            raise LockedError(message, hint=WAIT_HINT)


def _wait_for_reapers(plan: CleanupPlan) -> list[Leftover]:
    """Wait until the reapers of killed runs have exited, and return those that have not."""
    deadline = time.monotonic() + _REAPER_TIMEOUT_S
    while not plan.facts.live_runs and (pids := find_reapers(plan.facts.states)):
        if time.monotonic() > deadline:
            reason = "a reaper that does not exit"
            return [Leftover(kind="process", name=str(pid), reason=reason, fix=f"kill {pid}") for pid in pids]
        time.sleep(_REAPER_POLL_INTERVAL_S)
    return []


def _delete_directory(directory: Path) -> list[Leftover]:
    """Delete a directory and return what is left of it."""
    shutil.rmtree(directory, ignore_errors=True)
    return list_path_leftovers("directory", [directory]) if directory.exists() else []
