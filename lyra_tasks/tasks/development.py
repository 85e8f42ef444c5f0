"""Tasks for the development environment: `create` and `dev.*`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from invoke.context import Context

from lyra_tasks import console
from lyra_tasks.errors import InterruptedRunError
from lyra_tasks.tasks.session import arguments_after_dashes, workspace
from lyra_tasks.tasks.task import CommandExitError, task

if TYPE_CHECKING:
    from lyra_tasks.engine.workspace import Workspace
    from lyra_tasks.records.dev import DevLab
    from lyra_tasks.results import (
        CopiedFiles,
        CreatePreview,
        DevEnvironment,
        RestartedService,
        StoppedEnvironment,
        StopPreview,
        Upload,
    )

_SERVICE_HELP = "The service; may be omitted if only one has a dev table"
_SHELL_COMMAND = ["/bin/sh", "-c", "if command -v bash >/dev/null 2>&1; then exec bash; else exec /bin/sh; fi"]


@task(
    "create",
    iterable=("service",),
    service="Create only this service and its dependencies (repeatable)",
    watch="Sync changes and show logs until Ctrl-C, as [services.S.dev] on_change says",
)
def create(
    c: Context,
    service: str | Sequence[str] | None = None,
    watch: bool = False,
    dry_run: bool = False,
    yes: bool = False,
    json: bool = False,
    quiet: bool = False,
) -> DevEnvironment | CreatePreview:
    """Start or update the development environment."""
    from lyra_tasks.builds.run import build_dev_images
    from lyra_tasks.cleanup.limits import keep_limits
    from lyra_tasks.develop.lab import create_dev_lab, lock_dev_lab, plan_create
    from lyra_tasks.develop.show import show_create_plan, show_create_result
    from lyra_tasks.engine.client.monitoring import utc_timestamp

    work, started_at = workspace(), utc_timestamp()
    development_work = _development_workspace(work, tuple(service or ()), connect=not dry_run)
    if dry_run:
        return show_create_plan(development_work)
    with lock_dev_lab(work):
        lab_plan = plan_create(development_work, build_dev_images(development_work))
        lab_result = create_dev_lab(lab_plan, yes=yes)
        keep_limits(work, has_built=True)
    environment = show_create_result(lab_result, work, is_watched=watch)
    if watch:
        _watch_source(development_work, lab_result.lab, "", logs_after=started_at)
    return environment


@task("dev.shell", service=_SERVICE_HELP)
def dev_shell(c: Context, service: str = "", quiet: bool = False) -> None:
    """Open a shell in a service of the development environment."""
    from lyra_tasks.engine.client.exec import attach_terminal

    work, lab, service_name = _select_service(service)
    container = lab.services[service_name]
    directory = container.source.path if container.source else ""
    _require_success("The shell", attach_terminal(work.engine, container.id, _SHELL_COMMAND, directory=directory))


@task("dev.exec", python_only=("command",), service=_SERVICE_HELP)
def dev_exec(c: Context, service: str = "", command: Sequence[str] | None = None, quiet: bool = False) -> None:
    """Run the command after `--` in a development service."""
    import sys

    from lyra_tasks.engine.client.exec import exec_with_stdio
    from lyra_tasks.errors import UsageError

    arguments = list(command or arguments_after_dashes())
    if not arguments:
        raise UsageError("No command given", hint="Write it after two dashes: dev.exec -- ls -l")
    work, lab, service_name = _select_service(service)
    container = lab.services[service_name]
    directory = container.source.path if container.source else ""
    pass_input = not sys.stdin.isatty()
    try:
        exit_code = exec_with_stdio(work.engine, container.id, arguments, directory=directory, pass_input=pass_input)
    except KeyboardInterrupt as error:
        console.info("Interrupted; the command may still run in the container (Ctrl-C reaches it only in `dev.shell`)")
        raise CommandExitError("Interrupted", InterruptedRunError.exit_code) from error
    _require_success(arguments[0], exit_code)


@task(
    "dev.sync",
    iterable=("back",),
    service="Sync only the source of this service",
    watch="Sync later changes too, until Ctrl-C",
    back="Copy PATH from the container instead, unless newer here (repeatable)",
)
def dev_sync(
    c: Context,
    service: str = "",
    watch: bool = False,
    back: str | Sequence[str] | None = None,
    json: bool = False,
    quiet: bool = False,
) -> tuple[Upload, ...] | CopiedFiles | None:
    """Upload changed sources, or copy files back."""
    from lyra_tasks.develop.copy_back import copy_out
    from lyra_tasks.develop.lab import require_dev_lab
    from lyra_tasks.develop.show import show_copied_files, show_uploads
    from lyra_tasks.develop.sync import find_source_syncs, upload_changes

    work = workspace()
    lab = require_dev_lab(work)
    if back:
        work, lab, service_name = _select_service(service)
        source_sync = find_source_syncs(work, lab, (service_name,))[service_name]
        return show_copied_files(tuple(file for requested in back for file in copy_out(source_sync, requested)))
    if watch:
        _watch_source(_development_workspace(work, tuple(lab.services), connect=True), lab, service)
        return None
    source_syncs = find_source_syncs(work, lab, (service,) if service else ())
    return show_uploads(tuple(upload_changes(source_sync) for source_sync in source_syncs.values()))


@task(
    "dev.restart",
    iterable=("service",),
    service="Restart only this service (repeatable); default: those with a dev table",
)
def dev_restart(
    c: Context, service: str | Sequence[str] | None = None, json: bool = False, quiet: bool = False
) -> tuple[RestartedService, ...]:
    """Restart services; they keep their files and ports."""
    from lyra_tasks.develop.lab import lock_dev_lab, require_dev_lab
    from lyra_tasks.develop.restart import restart_services
    from lyra_tasks.develop.show import show_restarted_services
    from lyra_tasks.suggest import select_known

    work = workspace()
    lab = require_dev_lab(work)
    developed = [name for name, lab_service in lab.services.items() if lab_service.is_developed]
    names = select_known(tuple(service or developed), list(lab.services), "service")
    with lock_dev_lab(work):
        return show_restarted_services(restart_services(work, lab, names))


@task("dev.stop")
def dev_stop(
    c: Context, yes: bool = False, dry_run: bool = False, json: bool = False, quiet: bool = False
) -> StoppedEnvironment | StopPreview:
    """Remove the development environment.

    Keeps its logs, and asks if edits are lost.
    """
    from lyra_tasks.develop.lab import lock_dev_lab
    from lyra_tasks.develop.show import confirm_losing_edits, show_nothing_to_stop, show_stop_plan, show_stop_result
    from lyra_tasks.develop.stop import plan_stop, stop_dev_lab

    work = workspace(allow_invalid=True)
    with lock_dev_lab(work):
        stop_plan = plan_stop(work)
        if stop_plan is None:
            return show_nothing_to_stop()
        if dry_run:
            return show_stop_plan(stop_plan)
        confirm_losing_edits(stop_plan, yes=yes)
        stop_dev_lab(work, stop_plan)
        return show_stop_result(work, stop_plan)


def prepare_dev_cleanup(work: Workspace) -> None:
    """Warn about edits that `clean` removes, and save the logs of the development environment."""
    from lyra_tasks.develop.show import warn_about_edits
    from lyra_tasks.develop.stop import plan_stop, stop_and_save_logs
    from lyra_tasks.errors import PreconditionError
    from lyra_tasks.records.dev import DevStore

    try:
        DevStore(work.paths.state).read()
    except PreconditionError as error:
        console.warn(f"{error.message}; cannot save logs and edits of the development environment")
        return
    stop_plan = plan_stop(work)
    if stop_plan is not None:
        warn_about_edits(stop_plan)
        stop_and_save_logs(work, stop_plan)


def _development_workspace(work: Workspace, requested: tuple[str, ...], *, connect: bool) -> Workspace:
    """Return the workspace with the development profile of the requested services as its configuration.

    Of a multi-platform image it has the variant of the engine's platform, which only a connected engine tells.
    """
    from lyra_tasks.config.platforms import list_variants
    from lyra_tasks.config.services import development_profile
    from lyra_tasks.suggest import select_known

    names = select_known(requested, list(work.config.services), "service")
    is_multi_platform = len(list_variants(work.config, work.config.images)) > len(work.config.images)
    platform = work.engine.facts.platform if is_multi_platform and connect else work.build_platform
    return replace(work, loaded=replace(work.loaded, config=development_profile(work.config, names, platform)))


def _select_service(service: str) -> tuple[Workspace, DevLab, str]:
    from lyra_tasks.config.services import select_service
    from lyra_tasks.develop.lab import require_dev_lab

    work = workspace()
    lab = require_dev_lab(work)
    is_developed = {name: lab_service.is_developed for name, lab_service in lab.services.items()}
    return work, lab, select_service(is_developed, service)


def _watch_source(work: Workspace, lab: DevLab, service: str, *, logs_after: str = "") -> None:
    """Watch the source of services, in a workspace with the development profile, until Ctrl-C.

    With `logs_after`, a time, also print the logs from then on.
    """
    from lyra_tasks.builds.run import build_dev_images
    from lyra_tasks.develop.live_logs import LiveLogs
    from lyra_tasks.develop.show import create_listener, show_watch_start
    from lyra_tasks.develop.watch import EnvironmentGoneError, SourceWatch

    logs = LiveLogs(work) if logs_after else None
    watch = SourceWatch(work, lab, service, create_listener(logs), build_dev_images)
    show_watch_start(watch)
    work.mark_finished()
    if logs is not None:
        logs.follow(lab, logs_after)
    try:
        watch.run()
    except KeyboardInterrupt:
        console.print("\nstopped watching; the services keep running")
    except EnvironmentGoneError as error:
        console.print(f"stopped watching: {error.message}")
    finally:
        if logs is not None:
            logs.stop()


def _require_success(command: str, exit_code: int) -> None:
    if exit_code:
        raise CommandExitError(f"{command} exited with {exit_code}", exit_code)
