"""Tasks for the engine and the base images: `engine.*` and `bases.*`."""

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
        NoEngine,
        PinnedBases,
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


@task("bases.build")
def bases_build(c: Context, dry_run: bool = False, json: bool = False, quiet: bool = False) -> PinnedBases:
    """Resolve and lock all base images, and build the local ones."""
    return _resolve_bases(update=False, dry_run=dry_run)


@task("bases.update")
def bases_update(c: Context, dry_run: bool = False, json: bool = False, quiet: bool = False) -> PinnedBases:
    """Resolve all base images again and update the lock file."""
    return _resolve_bases(update=True, dry_run=dry_run)


def _resolve_bases(*, update: bool, dry_run: bool) -> PinnedBases:
    from lyra_tasks.builds.facts import prepare_bases
    from lyra_tasks.builds.show import show_bases

    return show_bases(prepare_bases(workspace(), update=update, dry_run=dry_run))
