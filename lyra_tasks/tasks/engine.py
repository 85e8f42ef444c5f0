"""Tasks for the engine and the lock file: `engine.*` and `lock.*`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invoke.context import Context

from lyra_tasks.tasks.session import workspace
from lyra_tasks.tasks.task import task

if TYPE_CHECKING:
    from lyra_tasks.results import (
        EngineStartPreview,
        EngineStatus,
        EngineStopPreview,
        LockedImages,
        NoEngine,
        StartedEngine,
        StoppedEngine,
    )


@task("engine.up")
def engine_up(
    c: Context, dry_run: bool = False, json: bool = False, quiet: bool = False
) -> StartedEngine | EngineStartPreview:
    """Start this project's private engine.

    Needs root and the packages of Debian or Ubuntu.
    """
    from lyra_tasks.engine.client.connect import start_sandbox
    from lyra_tasks.engine.show import show_start_plan, show_started_engine
    from lyra_tasks.engine.workspace import SANDBOX_STARTED

    work = workspace()
    if dry_run:
        return show_start_plan(work.config.engine.suite)
    sandbox = start_sandbox(work.config, work.paths)
    work.journal.append(work.run, SANDBOX_STARTED, by="user")
    return show_started_engine(sandbox)


@task("engine.down")
def engine_down(
    c: Context, dry_run: bool = False, json: bool = False, quiet: bool = False
) -> StoppedEngine | EngineStopPreview:
    """Stop the private engine.

    Its images stay on disk until `clean --all`.
    """
    from lyra_tasks.engine.sandbox import find_sandbox, require_clean_stop, shut_down_sandbox
    from lyra_tasks.engine.show import show_stop_plan, show_stopped_engine

    work = workspace(allow_invalid=True)
    if dry_run:
        return show_stop_plan(is_running=find_sandbox(work.paths.state) is not None)
    report = shut_down_sandbox(work.paths.state)
    work.journal.append(work.run, "sandbox-stopped", was_running=report.was_running)
    require_clean_stop(report)
    return show_stopped_engine(was_running=report.was_running)


@task("engine.status")
def engine_status(c: Context, json: bool = False, quiet: bool = False) -> EngineStatus | NoEngine:
    """Show which engine is used."""
    from lyra_tasks.engine.client.connect import connect_running_engine
    from lyra_tasks.engine.show import show_engine_status

    work = workspace(allow_invalid=True)
    return show_engine_status(connect_running_engine(work.config, work.paths))


@task("lock.show")
def lock_show(c: Context, json: bool = False, quiet: bool = False) -> LockedImages:
    """Show what base images and third-party images are locked to."""
    from lyra_tasks.builds.lock import list_locked_images, show_locked_images

    return show_locked_images(list_locked_images(workspace()))


@task("lock.update", positional=("name",), name="A key of the lock file, reference or service; default: everything")
def lock_update(
    c: Context, name: str = "", dry_run: bool = False, json: bool = False, quiet: bool = False
) -> LockedImages:
    """Resolve images again and update the lock file."""
    from lyra_tasks.builds.lock import show_locked_images, update_lock

    return show_locked_images(update_lock(workspace(), name, dry_run=dry_run))
