"""Print plans and results of `create` and `dev.*`, and ask for confirmation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from lyra_tasks import console
from lyra_tasks.develop.lab import CreateResult
from lyra_tasks.develop.parity import find_parity_gaps
from lyra_tasks.develop.stop import StopPlan
from lyra_tasks.develop.sync import UploadResult
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.errors import CheckFailedError, PreconditionError
from lyra_tasks.files import display_path
from lyra_tasks.ports import join_host_port

_MAX_EDITS = 10


def print_create_plan(profile: Workspace) -> None:
    """Print what `create` would build and start."""
    config = profile.config
    if console.is_json_mode():
        services = {name: service.model_dump(mode="json") for name, service in config.services.items()}
        return console.print_json({"images": sorted(config.images), "services": services})
    for name, image in config.images.items():
        target = f" ({image.target})" if image.target else ""
        console.print(f"would build {config.project.name}/{name} for development{target}")
    for name, service in config.services.items():
        purpose = "for development" if service.dev is not None else "as in a test"
        limits = f"{service.limits.cpus:g} CPUs, {console.format_bytes(service.limits.memory)}"
        console.print(f"would start {name} {purpose}, with {limits}")
    return None


def print_create_result(result: CreateResult, work: Workspace) -> None:
    """Print the changes, the services with their addresses, the differences from Proxima and the next commands.

    Raises CheckFailedError if a service exited right after its start.
    """
    gaps = find_parity_gaps(work, result)
    if console.is_json_mode():
        console.print_json(
            {
                "run": result.lab.run,
                "kept": list(result.changes.keep),
                "replaced": list(result.changes.replace),
                "created": list(result.changes.create),
                "removed": list(result.changes.remove),
                "services": {name: service.model_dump(mode="json") for name, service in result.lab.services.items()},
                "uploads": [
                    asdict(upload) | {"uploaded": len(upload.uploaded), "deleted": len(upload.deleted)}
                    for upload in result.uploads
                ],
                "parity_gaps": [asdict(gap) for gap in gaps],
                "seconds": result.seconds,
            }
        )
    else:
        _print_changes(result)
        _print_services(result)
        if gaps:
            console.print("differences from Proxima:")
        for gap in gaps:
            console.print(f"  {gap.subject}: {gap.local} here, {gap.proxima} on Proxima: {gap.consequence}")
        dev_services = [name for name, service in result.lab.services.items() if service.is_developed]
        option = f" --service {dev_services[0]}" if len(dev_services) > 1 else ""
        console.print(
            f"ready after {result.seconds:.1f} s; next: `dev.shell{option}`, `dev.exec{option} -- COMMAND`, "
            "`dev.sync` to upload changes, `dev.stop`"
        )
    if result.failures:
        raise CheckFailedError(
            "; ".join(failure.message for failure in result.failures),
            hint="Fix the source, then run `create` again; the other services keep running",
            details=result.failures[0].details,
        )


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
        memory = console.format_bytes(planned.memory)
        limits = f"{planned.cpus:g} CPUs, {memory}, {planned.service.limits.pids} processes"
        rows.append((name, " ".join(urls) or "-", limits, service.source.path if service.source else "-"))
    console.print_table(("service", "address", "limits", "source"), rows)


def print_upload(result: UploadResult) -> None:
    """Print one line about a sync."""
    for name in result.invalid_names:
        console.warn(f"Skipped {name!r}: file name is not valid UTF-8")
    console.print(
        f"{result.service}: {len(result.uploaded)} file(s) uploaded ({console.format_bytes(result.size)}), "
        f"{len(result.deleted)} removed, in {result.seconds:.2f} s"
    )


def print_uploads(results: Sequence[UploadResult]) -> None:
    """Print the result of `dev.sync`."""
    if console.is_json_mode():
        return console.print_json([asdict(result) for result in results])
    if not results:
        console.print("no service has a source volume: add [services.NAME.dev]")
    for result in results:
        print_upload(result)
    return None


def print_copied_files(files: Sequence[str]) -> None:
    """Print the result of `dev.sync --back`."""
    if console.is_json_mode():
        return console.print_json({"copied": list(files)})
    for file in files:
        console.print(f"copied {file}")
    if not files:
        console.print("nothing to copy: the checkout has the same files")
    return None


def print_nothing_to_stop() -> None:
    """Print that no development environment exists."""
    if console.is_json_mode():
        return console.print_json({"stopped": None})
    return console.print("no development environment")


def print_stop_plan(plan: StopPlan) -> None:
    """Print what `dev.stop` would remove."""
    if console.is_json_mode():
        edits = {name: asdict(service_edits) for name, service_edits in plan.edits.items()}
        return console.print_json({"services": sorted(plan.lab.services), "edits": edits})
    console.print(f"would remove the development environment: {', '.join(plan.lab.services)}")
    return warn_about_edits(plan)


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


def print_stop_result(work: Workspace, plan: StopPlan) -> None:
    """Print the result of `dev.stop`."""
    directory = work.paths.runs / plan.lab.run
    if console.is_json_mode():
        return console.print_json({"stopped": plan.lab.run, "logs": str(directory / "logs")})
    return console.print(f"development environment removed; logs: {display_path(directory)}")
