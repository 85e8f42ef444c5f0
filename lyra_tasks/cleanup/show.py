"""What `clean` shows and asks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from lyra_tasks import console
from lyra_tasks.cleanup.plan import CleanupPlan, GonePlan
from lyra_tasks.errors import UsageError
from lyra_tasks.records.cleanup import CleanupReport, HostSnapshot

_LEVEL_DESCRIPTIONS = {
    "objects": "containers, networks, volumes and image references of this project",
    "cache": "containers, networks, volumes and image references of this project, and the builder cache",
    "all": "everything of this project but its source, bundles, journal and evidence",
}


def confirm_cleanup(plan: CleanupPlan, *, yes: bool) -> bool:
    """Whether to go on: only `--all` asks. UsageError where it must ask and nobody can answer."""
    if not plan.removes_state or yes:
        return True
    if console.confirm(f"Remove {plan.summary}?"):
        return True
    raise UsageError("`clean --all` was not confirmed", hint="pass --yes to go ahead without being asked")


def announce_cleanup(plan: CleanupPlan) -> None:
    """What is about to be freed, what of it killed runs left, and what stays."""
    console.info(f"clean: {_LEVEL_DESCRIPTIONS[plan.level]}: {plan.summary}")
    _print_notes(plan)


def print_cleanup_plan(plan: CleanupPlan) -> None:
    """What would be removed."""
    disk_usage = plan.facts.disk_usage
    if console.is_json_mode():
        return console.print_json(
            {
                "level": plan.level,
                "objects": [asdict(item) for item in plan.objects],
                "stays": {item.name: why for item, why in plan.kept_objects.items()},
                "temporary_files": [str(path) for path in plan.temporary_files],
                "prune_cache": plan.prune_cache,
                "stop_sandbox": bool(plan.stop_sandboxes),
                "forget": plan.removes_state,
                "layers_size": disk_usage.layers_size if disk_usage else 0,
                "cache_size": disk_usage.cache_size if disk_usage else 0,
            }
        )
    console.print(f"would remove {plan.summary}")
    for item in plan.objects:
        console.print(f"  {item.kind} {item.name}")
    for path in plan.temporary_files:
        console.print(f"  file {path}")
    if disk_usage is not None:
        layers, cache = console.format_bytes(disk_usage.layers_size), console.format_bytes(disk_usage.cache_size)
        console.print(f"the engine has {layers} of image layers and {cache} of builder cache now")
    _print_notes(plan)
    return None


def print_cleanup_report(report: CleanupReport, file: Path | None) -> None:
    """What was removed, the engine's own figures, and where the proof lies."""
    if console.is_json_mode():
        return console.print_json(report.model_dump(mode="json", by_alias=True))
    for item in report.removed:
        console.print(f"removed {item.kind} {item.name}")
    if report.sandbox_stopped:
        console.print("stopped the sandbox engine")
    if report.engine is not None:
        console.print(f"the engine says: {_describe_disk_usage(report.before, report.after)}")
    state = (
        "no engine holds anything of it"
        if report.engine is None
        else "the engine holds nothing of this project any more"
    )
    if not report.clean:
        state = f"{len(report.leftovers) + len(report.kept)} thing(s) of this project are left"
    where = f"proof: {file}" if file else "there is no room to keep the proof"
    console.print(f"clean: {len(report.removed)} object(s) removed; {state}; {where}")
    return None


def _describe_disk_usage(before: HostSnapshot, after: HostSnapshot) -> str:
    rows = (
        ("image layers", before.layers_size, after.layers_size),
        ("builder cache", before.cache_size, after.cache_size),
    )
    return ", ".join(
        f"{what} {console.format_bytes(then)} before, {console.format_bytes(now)} now" for what, then, now in rows
    )


def _print_notes(plan: CleanupPlan) -> None:
    if plan.crashed_objects:
        console.info(
            f"of these, runs that were killed had left: {', '.join(each.name for each in plan.crashed_objects)}"
        )
    for item, why in plan.kept_objects.items():
        console.info(f"{item.kind} {item.name} stays: {why}")
    if plan.level != "objects" and not plan.prune_cache and plan.facts.disk_usage and not plan.facts.live_runs:
        console.info("the builder cache stays: this engine's builder is not Lyra's. `docker builder prune` empties it")


def confirm_gone_cleanup(plan: GonePlan, *, yes: bool) -> None:
    """List what goes, and ask whether to go on: it cannot be made again. UsageError where nobody agrees."""
    _list_gone_checkouts(plan, console.info)
    if not yes and not console.confirm("Remove all of it, for good?"):
        raise UsageError("`clean --gone` was not confirmed", hint="pass --yes to go ahead without being asked")


def print_gone_plan(plan: GonePlan) -> None:
    """What would be removed."""
    if not console.is_json_mode():
        return _list_gone_checkouts(plan, console.print)
    return console.print_json(
        {
            "level": "gone",
            "checkouts": [
                {
                    "root": str(cleanup.checkout.root),
                    "doubt": cleanup.checkout.unmounted_reason,
                    "objects": [asdict(item) for item in cleanup.plan.objects],
                    "stays": {item.name: why for item, why in cleanup.plan.kept_objects.items()},
                    "stop_sandbox": bool(cleanup.ended_sandboxes),
                    "states": [str(state) for state in cleanup.checkout.facts.states]
                    if not cleanup.kept_reason
                    else [],
                    "keeps": cleanup.kept_reason,
                }
                for cleanup in plan.cleanups
            ],
            "live": {str(checkout.root): why for checkout, why in plan.live_checkouts},
        }
    )


def print_gone_report(report: CleanupReport, file: Path | None) -> None:
    """What was removed, and where the proof lies."""
    if console.is_json_mode():
        return console.print_json(report.model_dump(mode="json", by_alias=True))
    for item in report.removed:
        console.print(f"removed {item.kind} {item.name}")
    for deleted_state in report.deleted_states:
        console.print(f"removed {deleted_state.state}")
    state = "nothing else is left of them" if report.clean else f"{len(report.leftovers)} thing(s) of theirs are left"
    roots = len({deleted_state.root for deleted_state in report.deleted_states})
    where = f"proof: {file}" if file else "there is no room to keep the proof"
    console.print(f"clean: {len(report.removed)} object(s) and {roots} checkout(s) removed; {state}; {where}")
    return None


def _list_gone_checkouts(plan: GonePlan, print_line: Callable[[str], None]) -> None:
    if not plan.cleanups and not plan.live_checkouts:
        print_line("no checkout that is gone has left anything")
    for cleanup in plan.cleanups:
        print_line(
            f"{cleanup.checkout.root} is gone, and left {', '.join(cleanup.parts) or 'nothing that can be removed'}"
        )
        if cleanup.checkout.unmounted_reason:
            print_line(f"  it may only be out of reach: {cleanup.checkout.unmounted_reason}")
        if cleanup.kept_reason:
            print_line(f"  its journal stays: {cleanup.kept_reason}")
        for item in cleanup.plan.objects:
            print_line(f"  {item.kind} {item.name}")
        for item, why in cleanup.plan.kept_objects.items():
            print_line(f"  {item.kind} {item.name} stays: {why}")
    for checkout, why in plan.live_checkouts:
        print_line(f"{checkout.root} is gone, and is left alone: {why}")
