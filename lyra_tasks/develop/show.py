"""Show plans and results of `create` and `dev.*`, and ask for confirmation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from lyra_tasks import console
from lyra_tasks.develop.lab import CreateResult
from lyra_tasks.develop.live_logs import LiveLogs
from lyra_tasks.develop.parity import find_parity_gaps
from lyra_tasks.develop.stop import StopPlan
from lyra_tasks.develop.watch import SourceWatch, WatchListener
from lyra_tasks.dockerfile.context import format_names
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.errors import CheckFailedError, PreconditionError
from lyra_tasks.files import display_path
from lyra_tasks.ports import join_host_port
from lyra_tasks.records.dev import DevLab
from lyra_tasks.results.development import (
    CopiedFiles,
    CreatePreview,
    DevEnvironment,
    RestartedService,
    StoppedEnvironment,
    StopPreview,
    Upload,
    UploadSummary,
)

_MAX_EDITS = 10
_MAX_NAMES = 3


def show_create_plan(profile: Workspace) -> CreatePreview:
    """Show what `create` would build and start."""
    config = profile.config
    services = {name: service.model_dump(mode="json") for name, service in config.services.items()}
    preview = CreatePreview(tuple(sorted(config.images)), services)
    if console.print_result(preview):
        return preview
    for name, image in config.images.items():
        target = f" ({image.target})" if image.target else ""
        console.print(f"would build {config.project.name}/{name} for development{target}")
    for name, service in config.services.items():
        purpose = "for development" if service.dev is not None else "as in a test"
        cpus, memory = console.format_count(service.limits.cpus, "CPU"), console.format_bytes(service.limits.memory)
        console.print(f"would start {name} {purpose}, with {cpus}, {memory} of memory")
    return preview


def show_create_result(result: CreateResult, work: Workspace, *, is_watched: bool) -> DevEnvironment:
    """Show the changes, the services with their addresses, the differences from Proxima and the next commands.

    If the source `is_watched` afterwards, an error of a service is shown, and does not end the command.

    Raises CheckFailedError if a service exited right after its start.
    """
    environment = DevEnvironment(
        run=result.lab.run,
        kept=result.changes.keep,
        replaced=result.changes.replace,
        created=result.changes.create,
        removed=result.changes.remove,
        services=result.lab.services,
        uploads=tuple(map(_summarize_upload, result.uploads)),
        parity_gaps=tuple(find_parity_gaps(work, result)),
        seconds=result.seconds,
    )
    if not console.print_result(environment):
        _print_changes(result)
        _print_services(result)
        if environment.parity_gaps:
            console.print("differences from Proxima:")
        for gap in environment.parity_gaps:
            console.print(f"  {gap.subject}: {gap.local} here, {gap.proxima} on Proxima: {gap.consequence}")
        dev_services = [name for name, service in result.lab.services.items() if service.is_developed]
        option = f" --service {dev_services[0]}" if len(dev_services) > 1 else ""
        next_commands = f"`dev.shell{option}`, `dev.exec{option} -- COMMAND`, `dev.sync` to upload changes, `dev.stop`"
        console.print(f"ready after {result.seconds:.1f} s" + ("" if is_watched else f"; next: {next_commands}"))
    if result.failures:
        error = CheckFailedError(
            "; ".join(failure.message for failure in result.failures),
            hint="Fix the source, then run `create` again; the other services keep running",
            details=result.failures[0].details,
        )
        if not is_watched:
            raise error
        console.error(error.message, "Fix the source, which is watched")
    return environment


def _summarize_upload(upload: Upload) -> UploadSummary:
    return UploadSummary(**vars(upload) | {"uploaded": len(upload.uploaded), "deleted": len(upload.deleted)})


def _print_changes(result: CreateResult) -> None:
    changes = result.changes
    for action, names, reason in (
        ("kept", changes.keep, ""),
        ("replaced", changes.replace, " (configuration or image changed, or the container had exited)"),
        ("created", changes.create, ""),
        ("removed", changes.remove, " (not in this environment any more)"),
    ):
        if names:
            console.print(f"{action}: {', '.join(names)}{reason}")
    for upload in result.uploads:
        print_upload(upload)


def _print_services(result: CreateResult) -> None:
    rows = []
    for name, service in result.lab.services.items():
        planned = result.plan.lab.services[name]
        urls = []
        for key, port in service.ports.items():
            scheme = "http" if isinstance(planned.service.ports[key], int) else "udp"
            urls.append(f"{scheme}://{join_host_port(result.work.engine.host_address, port)}")
        own_memory = planned.service.limits.memory
        memory = f"{console.format_bytes(own_memory)} + {console.format_bytes(planned.memory - own_memory)}"
        limits = (f"{planned.cpus:g}", memory, f"{planned.service.limits.pids}")
        rows.append((name, " ".join(urls) or "-", *limits, service.source.path if service.source else "-"))
    console.print_table(("service", "address", "CPUs", "memory + files", "processes", "source"), rows)


def print_upload(result: Upload) -> None:
    """Print one line about a sync, with the names of the first files."""
    for name in result.invalid_names:
        console.warn(f"Skipped {name!r}: file name is not valid UTF-8")
    changes = [f"uploaded {format_names(result.uploaded, _MAX_NAMES)} ({console.format_bytes(result.size)})"]
    changes = changes if result.uploaded else []
    if result.deleted:
        changes.append(f"removed {format_names(result.deleted, _MAX_NAMES)}")
    console.print(f"{result.service}: {', '.join(changes) or 'no changes'} in {result.seconds:.2f} s")


def print_reaction(action: str, services: Sequence[str], seconds: float) -> None:
    """Print one line about what a change has led to."""
    console.print(f"{', '.join(services)}: {action} in {seconds:.2f} s")


def show_watch_start(watch: SourceWatch) -> None:
    """Show what is watched."""
    directories = ", ".join(display_path(directory) for directory in sorted(watch.directories))
    console.print(f"watching {directories}; Ctrl-C stops watching, the services keep running")


def create_listener(logs: LiveLogs | None) -> WatchListener:
    """Return what prints the events of a watch; the logs of containers that it replaces are followed, too."""

    def follow_replaced(lab: DevLab) -> None:
        if logs is not None:
            logs.follow(lab, "")

    return WatchListener(
        uploaded=print_upload,
        reacted=print_reaction,
        failed=lambda error: console.error(error.message, error.hint, error.details),
        replaced=follow_replaced,
    )


def show_restarted_services(results: tuple[RestartedService, ...]) -> tuple[RestartedService, ...]:
    """Show the result of `dev.restart`."""
    if not console.print_result(results):
        for result in results:
            print_reaction("restarted", [result.service], result.seconds)
    return results


def show_uploads(results: tuple[Upload, ...]) -> tuple[Upload, ...]:
    """Show the result of `dev.sync`."""
    if console.print_result(results):
        return results
    if not results:
        console.print("no service has a source volume: add [services.NAME.dev]")
    for result in results:
        print_upload(result)
    return results


def show_copied_files(files: tuple[str, ...]) -> CopiedFiles:
    """Show the result of `dev.sync --back`."""
    result = CopiedFiles(files)
    if console.print_result(result):
        return result
    for file in files:
        console.print(f"copied {console.escape(file)}")
    if not files:
        console.print("nothing to copy: the checkout has the same files")
    return result


def show_nothing_to_stop() -> StoppedEnvironment:
    """Show that no development environment exists."""
    stopped = StoppedEnvironment(None, None)
    if not console.print_result(stopped):
        console.print("no development environment")
    return stopped


def show_stop_plan(plan: StopPlan) -> StopPreview:
    """Show what `dev.stop` would remove."""
    preview = StopPreview(tuple(sorted(plan.lab.services)), plan.edits)
    if not console.print_result(preview):
        console.print(f"would remove the development environment: {', '.join(plan.lab.services)}")
        warn_about_edits(plan)
    return preview


def warn_about_edits(plan: StopPlan) -> None:
    """Warn about edits that are about to be lost."""
    for name, reason in plan.unreadable.items():
        console.warn(f"Cannot read the source volume of {name}: {reason}")
    for name, edits in plan.edits.items():
        console.warn(f"{name} has edits that exist only in the container; copy them out with `dev.sync --back PATH`:")
        lines = [f"{change} {path}" for change, paths in asdict(edits).items() for path in paths]
        if len(lines) > _MAX_EDITS:
            lines[_MAX_EDITS:] = [f"and {len(lines) - _MAX_EDITS} more"]
        for line in lines:
            console.warn(f"  {line}")


def confirm_losing_edits(plan: StopPlan, *, yes: bool) -> None:
    """Ask before edits are lost; raise PreconditionError if the user does not agree."""
    warn_about_edits(plan)
    is_asked = bool(plan.edits or plan.unreadable) and not yes
    if is_asked and not console.confirm("Remove the development environment and these edits?"):
        raise PreconditionError(
            "Not stopped: the development environment has edits that exist only in its containers",
            hint="Copy them out with `dev.sync --back PATH`, or pass --yes",
        )


def show_stop_result(work: Workspace, plan: StopPlan) -> StoppedEnvironment:
    """Show the result of `dev.stop`."""
    directory = work.paths.runs / plan.lab.run
    stopped = StoppedEnvironment(plan.lab.run, str(directory / "logs"))
    if not console.print_result(stopped):
        console.print(f"development environment removed; logs: {display_path(directory)}")
    return stopped
