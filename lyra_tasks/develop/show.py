"""What `create` and `dev.*` show and ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from lyra_tasks import console
from lyra_tasks.config.discovery import display_path
from lyra_tasks.develop.lab import CreateResult
from lyra_tasks.develop.parity import ParityGap, find_parity_gaps
from lyra_tasks.develop.stop import StopPlan
from lyra_tasks.develop.sync import ContainerEdits, SourceSync, UploadResult
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.errors import CheckFailedError, PreconditionError
from lyra_tasks.ports import join_host_port

_MAX_EDITS = 10


def print_create_plan(profile: Workspace) -> None:
    """What `create` would build and start."""
    config = profile.config
    if console.is_json_mode():
        services = {name: service.model_dump(mode="json") for name, service in config.services.items()}
        return console.print_json({"images": sorted(config.images), "services": services})
    for name, image in config.images.items():
        console.print(
            f"would build {config.project.name}/{name} for development" + (f" ({image.target})" if image.target else "")
        )
    for name, service in config.services.items():
        purpose = "to develop in" if service.dev is not None else "as in a test"
        limits = f"{service.limits.cpus:g} CPUs, {console.format_bytes(service.limits.memory)}"
        console.print(f"would start {name}, {purpose}, with {limits}")
    return None


def print_create_result(result: CreateResult, work: Workspace) -> None:
    """What was kept, replaced and removed, how to enter, where services answer; VerdictError if one ended at once."""
    gaps = find_parity_gaps(work, result)
    if console.is_json_mode():
        console.print_json(_result_document(result, gaps))
    else:
        _print_changes(result)
        _print_services(result)
        _print_parity_gaps(gaps)
        _print_usage_hint(result)
    if result.failures:
        first = result.failures[0]
        raise CheckFailedError(
            "; ".join(failure.message for failure in result.failures),
            hint="the lab stays: mend the source, then run `create` again",
            details=first.details,
        )


def _result_document(result: CreateResult, gaps: Sequence[ParityGap]) -> dict[str, object]:
    return {
        "run": result.lab.run,
        "kept": list(result.changes.keep),
        "replaced": list(result.changes.replace),
        "made": list(result.changes.create),
        "removed": list(result.changes.remove),
        "services": {name: service.model_dump(mode="json") for name, service in result.lab.services.items()},
        "carried": [
            asdict(upload) | {"put": len(upload.uploaded), "deleted": len(upload.deleted)} for upload in result.uploads
        ],
        "differs_from_proxima": [asdict(gap) for gap in gaps],
        "seconds": result.seconds,
    }


def _print_changes(result: CreateResult) -> None:
    changes = result.changes
    for action, names, why in (
        ("kept", changes.keep, ""),
        ("replaced", changes.replace, " (its configuration or image changed, or it had ended)"),
        ("made", changes.create, ""),
        ("removed", changes.remove, " (no longer asked for)"),
    ):
        if names:
            console.print(f"{action}: {', '.join(names)}{why}")
    for upload in result.uploads:
        print_upload(upload)


def _print_services(result: CreateResult) -> None:
    rows = []
    for name, service in result.lab.services.items():
        planned_service = result.plan.lab.services[name]
        kinds = {key: "http" if isinstance(port, int) else "udp" for key, port in planned_service.service.ports.items()}
        urls = [
            f"{kinds[key]}://{join_host_port(result.work.engine.host_address, port)}"
            for key, port in service.ports.items()
        ]
        limits = f"{planned_service.cpus:g} CPUs, {console.format_bytes(planned_service.memory)}, {planned_service.service.limits.pids} processes"
        rows.append((name, " ".join(urls) or "-", limits, service.source.path if service.source else "-"))
    console.print_table(("service", "answers at", "limits", "source in"), rows)


def _print_parity_gaps(gaps: Sequence[ParityGap]) -> None:
    if gaps:
        console.print("other than on Proxima:")
        for gap in gaps:
            console.print(f"  {gap.subject}: {gap.local} here, {gap.proxima} there: {gap.consequence}")


def _print_usage_hint(result: CreateResult) -> None:
    dev_services = [name for name, service in result.lab.services.items() if service.is_developed]
    option = f" --service {dev_services[0]}" if len(dev_services) > 1 else ""
    console.print(
        f"enter with `dev.shell{option}`, run commands with `dev.exec{option} -- COMMAND`, carry changes in with "
        f"`dev.sync`, end with `dev.stop`; ready after {result.seconds:.1f} s"
    )


def print_upload(result: UploadResult) -> None:
    """One line about a sync."""
    for name in result.invalid_names:
        console.warn(f"{name!r} was left out: its name is no UTF-8")
    console.print(
        f"{result.service}: {len(result.uploaded)} file(s) carried in ({console.format_bytes(result.size)}), "
        f"{len(result.deleted)} removed, in {result.seconds:.2f} s"
    )


def print_uploads(results: Sequence[UploadResult]) -> None:
    """What `dev.sync` did."""
    if console.is_json_mode():
        return console.print_json([asdict(result) for result in results])
    if not results:
        console.print("no service has a source volume; write a [services.NAME.dev] table")
    for result in results:
        print_upload(result)
    return None


def print_copied_files(files: Sequence[str]) -> None:
    """What `dev.sync --back` did."""
    if console.is_json_mode():
        return console.print_json({"brought_back": list(files)})
    for file in files:
        console.print(f"brought back {file}")
    if not files:
        console.print("nothing to bring back: it is the same here")
    return None


def print_watch_started(syncs: Sequence[SourceSync]) -> None:
    """What is being watched."""
    console.print(
        f"watching {', '.join(display_path(mirror.context) for mirror in syncs)}; Ctrl-C ends it, the lab stays"
    )


def print_watch_ended() -> None:
    """The end of watching."""
    console.print("no longer watching; the lab stays")


def print_nothing_to_stop() -> None:
    """There was no lab."""
    if console.is_json_mode():
        return console.print_json({"stopped": None})
    return console.print("there is no development lab")


def print_stop_plan(plan: StopPlan) -> None:
    """What `dev.stop` would remove."""
    if console.is_json_mode():
        edits = {name: asdict(service_edits) for name, service_edits in plan.edits.items()}
        return console.print_json({"services": sorted(plan.lab.services), "edits": edits})
    console.print(f"would remove the development lab: {', '.join(plan.lab.services)}")
    return warn_about_edits(plan)


def warn_about_edits(plan: StopPlan) -> None:
    """Name the edits that are about to be lost."""
    for name, reason in plan.unreadable.items():
        console.warn(f"{name}: its source volume could not be looked through: {reason}")
    for name, edits in plan.edits.items():
        console.warn(f"{name} has edits that exist only inside; bring them out with `dev.sync --back PATH`:")
        for line in _describe_edits(edits):
            console.warn(f"  {line}")


def confirm_losing_edits(plan: StopPlan, *, yes: bool) -> None:
    """PreconditionError if edits would be lost and nobody agrees."""
    warn_about_edits(plan)
    if not (plan.edits or plan.unreadable) or yes:
        return
    if not console.confirm("Remove the lab, and these edits with it?"):
        raise PreconditionError(
            "the development lab has edits that exist only inside; it was not stopped",
            hint="bring them out with `dev.sync --back PATH`, or pass --yes",
        )


def print_stop_result(work: Workspace, plan: StopPlan) -> None:
    """What `dev.stop` did."""
    directory = work.paths.runs / plan.lab.run
    if console.is_json_mode():
        return console.print_json({"stopped": plan.lab.run, "logs": str(directory / "logs")})
    return console.print(f"the development lab is gone; its logs are in {display_path(directory)}")


def _describe_edits(edits: ContainerEdits) -> list[str]:
    lines = [f"changed {name}" for name in edits.changed]
    lines += [f"added {name}" for name in edits.added]
    lines += [f"removed {name}" for name in edits.removed]
    return lines if len(lines) <= _MAX_EDITS else [*lines[:_MAX_EDITS], f"and {len(lines) - _MAX_EDITS} more"]
