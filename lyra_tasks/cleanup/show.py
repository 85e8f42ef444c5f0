"""Print cleanup plans and reports, and ask for confirmation."""

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
    "cache": "containers, networks, volumes and image references of this project, and the build cache",
    "all": "everything of this project except source, bundles, journal and evidence",
}
_CONFIRM_HINT = "Pass --yes to skip the confirmation"


def confirm_cleanup(plan: CleanupPlan, *, yes: bool) -> None:
    """Ask before `--all`.

    Raises:
        UsageError: the user does not agree, or nobody can answer.
    """
    if plan.removes_state and not yes and not console.confirm(f"Remove {plan.summary}?"):
        raise UsageError("`clean --all` was not confirmed", hint=_CONFIRM_HINT)


def confirm_gone_cleanup(plan: GonePlan, *, yes: bool) -> None:
    """List what is removed, and ask: it cannot be restored.

    Raises:
        UsageError: the user does not agree, or nobody can answer.
    """
    _print_gone_checkouts(plan, console.info)
    if not yes and not console.confirm("Remove all of this permanently?"):
        raise UsageError("`clean --gone` was not confirmed", hint=_CONFIRM_HINT)


def announce_cleanup(plan: CleanupPlan) -> None:
    """Print what is about to be removed and what is kept."""
    console.info(f"clean: {_LEVEL_DESCRIPTIONS[plan.level]}: {plan.summary}")
    _print_notes(plan)


def print_cleanup_plan(plan: CleanupPlan) -> None:
    """Print what would be removed."""
    disk_usage = plan.facts.disk_usage
    if console.is_json_mode():
        return console.print_json(
            {
                "level": plan.level,
                "objects": [asdict(item) for item in plan.objects],
                "kept": {item.name: reason for item, reason in plan.kept_objects.items()},
                "temporary_files": [str(path) for path in plan.temporary_files],
                "prune_cache": plan.prune_cache,
                "stop_sandbox": bool(plan.stop_sandboxes),
                "removes_state": plan.removes_state,
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
        console.print(f"engine disk usage: image layers {layers}, build cache {cache}")
    _print_notes(plan)
    return None


def print_gone_plan(plan: GonePlan) -> None:
    """Print what would be removed of missing checkouts."""
    if not console.is_json_mode():
        return _print_gone_checkouts(plan, console.print)
    return console.print_json(
        {
            "level": "gone",
            "checkouts": [
                {
                    "root": str(cleanup.checkout.root),
                    "unmounted_reason": cleanup.checkout.unmounted_reason,
                    "objects": [asdict(item) for item in cleanup.plan.objects],
                    "kept": {item.name: reason for item, reason in cleanup.plan.kept_objects.items()},
                    "stop_sandbox": bool(cleanup.ended_sandboxes),
                    "states": [] if cleanup.kept_reason else [str(state) for state in cleanup.checkout.facts.states],
                    "kept_reason": cleanup.kept_reason,
                }
                for cleanup in plan.cleanups
            ],
            "live": {str(checkout.root): reason for checkout, reason in plan.live_checkouts},
        }
    )


def print_cleanup_report(report: CleanupReport, file: Path | None) -> None:
    """Print what was removed, the engine's disk usage, and where the report was saved."""
    if console.is_json_mode():
        return console.print_json(report.model_dump(mode="json", by_alias=True))
    for item in report.removed:
        console.print(f"removed {item.kind} {item.name}")
    for deleted_state in report.deleted_states:
        console.print(f"removed {deleted_state.state}")
    removed = f"{len(report.removed)} object(s)"
    if report.level == "gone":
        removed += f" and {len({deleted_state.root for deleted_state in report.deleted_states})} checkout(s)"
    else:
        if report.sandbox_stopped:
            console.print("stopped the sandbox engine")
        if report.engine is not None:
            console.print(f"engine disk usage: {_describe_disk_usage(report.before, report.after)}")
    leftovers = len(report.leftovers) + (0 if report.level == "gone" else len(report.kept))
    result = "nothing is left" if report.clean else f"{leftovers} object(s) left"
    location = f"report: {file}" if file else "report not saved: disk full"
    return console.print(f"clean: {removed} removed; {result}; {location}")


def _describe_disk_usage(before: HostSnapshot, after: HostSnapshot) -> str:
    rows = (
        ("image layers", before.layers_size, after.layers_size),
        ("build cache", before.cache_size, after.cache_size),
    )
    return ", ".join(f"{name} {console.format_bytes(old)} -> {console.format_bytes(new)}" for name, old, new in rows)


def _print_notes(plan: CleanupPlan) -> None:
    if plan.crashed_objects:
        console.info(f"left by killed runs: {', '.join(item.name for item in plan.crashed_objects)}")
    for item, reason in plan.kept_objects.items():
        console.info(f"kept {item.kind} {item.name}: {reason}")
    if plan.level != "objects" and not plan.prune_cache and plan.facts.disk_usage and not plan.facts.live_runs:
        console.info("build cache kept: the engine's builder is not Lyra's; `docker builder prune` empties it")


def _print_gone_checkouts(plan: GonePlan, print_line: Callable[[str], None]) -> None:
    if not plan.cleanups and not plan.live_checkouts:
        print_line("no leftovers of missing checkouts")
    for cleanup in plan.cleanups:
        print_line(f"{cleanup.checkout.root} is missing; leftovers: {', '.join(cleanup.parts) or 'none to remove'}")
        if cleanup.checkout.unmounted_reason:
            print_line(f"  it may be on an unmounted disk: {cleanup.checkout.unmounted_reason}")
        if cleanup.kept_reason:
            print_line(f"  its journal is kept: {cleanup.kept_reason}")
        for item in cleanup.plan.objects:
            print_line(f"  {item.kind} {item.name}")
        for item, reason in cleanup.plan.kept_objects.items():
            print_line(f"  kept {item.kind} {item.name}: {reason}")
    for checkout, reason in plan.live_checkouts:
        print_line(f"{checkout.root} is missing; skipped: {reason}")
