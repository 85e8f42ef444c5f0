"""Show cleanup plans and reports, and ask for confirmation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from lyra_tasks import console
from lyra_tasks.cleanup.plan import CleanupFacts, CleanupPlan, describe_active_runs, record_unasked_engines
from lyra_tasks.cleanup.report import describe_leftover
from lyra_tasks.engine.objects.ownership import OwnedObject
from lyra_tasks.errors import UsageError
from lyra_tasks.records.cleanup import CleanupReport
from lyra_tasks.results.lifecycle import CleanupPreview, GoneCheckout, GoneCleanupPreview

_LEVEL_DESCRIPTIONS = {
    "objects": "containers, networks, volumes and image references of this project",
    "cache": "containers, networks, volumes and image references of this project, and the build cache",
    "all": "everything of this project except source, bundles, journal and image records",
}
_CONFIRM_HINT = "Pass --yes to skip the confirmation"


def confirm_cleanup(plan: CleanupPlan, *, yes: bool) -> None:
    """Ask before `--all`; raise UsageError if the user does not agree, or nobody can answer."""
    if plan.removes_state and not yes and not console.confirm(f"Remove {_summarize(plan)}?"):
        raise UsageError("`clean --all` was not confirmed", hint=_CONFIRM_HINT)


def confirm_gone_cleanup(plans: Sequence[CleanupPlan], checkouts: Sequence[CleanupFacts], *, yes: bool) -> None:
    """List what is removed, and ask: it cannot be restored; raise UsageError without agreement."""
    _print_gone_checkouts(plans, checkouts, console.info)
    if not yes and not console.confirm("Remove all of this permanently?"):
        raise UsageError("`clean --gone` was not confirmed", hint=_CONFIRM_HINT)


def announce_cleanup(plan: CleanupPlan) -> None:
    """Print what is about to be removed and what is kept."""
    console.info(f"clean: {_LEVEL_DESCRIPTIONS[plan.level]}: {_summarize(plan)}")
    _print_notes(plan)


def show_cleanup_plan(plan: CleanupPlan, expired: Sequence[str] = ()) -> CleanupPreview:
    """Show what would be removed, and what would go by itself."""
    disk_usage = plan.facts.disk_usage
    preview = CleanupPreview(
        level=plan.level,
        objects=plan.objects,
        kept=_list_kept(plan),
        temporary_files=tuple(map(str, plan.temporary_files)),
        prune_cache=plan.prune_cache,
        stop_sandbox=bool(plan.stop_sandboxes),
        removes_state=plan.removes_state,
        layers_size=disk_usage.layers_size if disk_usage else 0,
        cache_size=disk_usage.cache_size if disk_usage else 0,
        not_asked=tuple(record_unasked_engines(plan)),
        expired=tuple(expired),
    )
    if console.print_result(preview):
        return preview
    console.print(f"would remove {_summarize(plan)}")
    for item in plan.objects:
        console.print(f"  {item.kind} {item.name}")
    for path in plan.temporary_files:
        console.print(f"  file {console.escape(path)}")
    for line in expired:
        console.print(f"  {console.escape(line)}")
    if disk_usage is not None:
        layers, cache = console.format_bytes(disk_usage.layers_size), console.format_bytes(disk_usage.cache_size)
        console.print(f"engine disk usage: image layers {layers}, build cache {cache}")
    _print_notes(plan)
    return preview


def show_gone_plan(plans: Sequence[CleanupPlan], checkouts: Sequence[CleanupFacts]) -> GoneCleanupPreview:
    """Show what would be removed of missing checkouts."""
    preview = GoneCleanupPreview(
        checkouts=tuple(
            GoneCheckout(
                root=str(plan.facts.root),
                unmounted_reason=plan.facts.unmounted_reason,
                objects=plan.objects,
                kept=_list_kept(plan),
                stop_sandbox=bool(plan.stop_sandboxes),
                states=tuple(map(str, plan.facts.states)) if plan.deletes_states else (),
                kept_reason=plan.kept_reason,
            )
            for plan in plans
        ),
        live={str(facts.root): describe_active_runs(facts.live_runs) for facts in checkouts if facts.live_runs},
    )
    if not console.print_result(preview):
        _print_gone_checkouts(plans, checkouts, console.print)
    return preview


def _list_kept(plan: CleanupPlan) -> dict[str, str]:
    return {item.name: reason for item, reason in plan.kept_objects.items()}


def show_cleanup_report(report: CleanupReport, file: Path | None) -> CleanupReport:
    """Show what was removed, the engine's disk usage, and where the report was saved."""
    if console.print_result(report):
        return report
    for item in report.removed:
        console.print(f"removed {item.kind} {item.name}")
    for deleted_state in report.deleted_states:
        console.print(f"removed {deleted_state.state}")
    removed = f"{len(report.removed)} object(s)"
    if report.level == "gone":
        removed += f" and {len({deleted_state.root for deleted_state in report.deleted_states})} checkout(s)"
    else:
        if report.sandbox_stopped:
            console.print("stopped the private engine")
        if report.engine is not None:
            layers, cache = (
                f"{console.format_bytes(before)} -> {console.format_bytes(after)}"
                for before, after in (
                    (report.before.layers_size, report.after.layers_size),
                    (report.before.cache_size, report.after.cache_size),
                )
            )
            console.print(f"engine disk usage: image layers {layers}, build cache {cache}")
    leftovers = len(report.leftovers) + (0 if report.level == "gone" else len(report.kept))
    result = "nothing is left" if report.clean else f"{leftovers} object(s) left"
    if report.not_asked:
        result += f" where it looked, {len(report.not_asked)} engine(s) not asked"
    if report.after.not_seen:
        console.print(f"not visible on this system: {', '.join(report.after.not_seen)}")
    location = f"report: {file}" if file else "report not saved: disk full"
    console.print(f"clean: {removed} removed; {result}; {location}")
    return report


def _print_notes(plan: CleanupPlan) -> None:
    if plan.crashed_objects:
        console.info(f"left by killed runs: {', '.join(item.name for item in plan.crashed_objects)}")
    for item, reason in plan.kept_objects.items():
        console.info(f"kept {item.kind} {item.name}: {reason}")
    for engine in plan.unasked_engines:
        console.info(f"not asked: {engine}")
    for unknown in plan.unknown_objects:
        command = describe_leftover(OwnedObject(unknown.kind, unknown.name, unknown.id, ""), None, "").fix
        name = f"{unknown.kind} {unknown.name}"
        console.info(f"not removed: {name} has this checkout's label, and the journal does not know it; `{command}`")
    if images := plan.unknown_images:
        console.info(
            f"not removed: {len(images)} image(s) of a project with this name that the journal does not know, such as "
            f"{images[0]}: they are another checkout's, or the state directory was removed; `docker rmi` removes them"
        )
    for line in plan.facts.missing_checkouts:
        console.info(line)
    if plan.level != "objects" and not plan.prune_cache and plan.facts.disk_usage and not plan.facts.live_runs:
        console.info("build cache kept: the engine's builder is not Lyra's; `docker builder prune` empties it")


def _summarize(plan: CleanupPlan) -> str:
    return ", ".join(plan.parts) or "nothing"


def _print_gone_checkouts(
    plans: Sequence[CleanupPlan], checkouts: Sequence[CleanupFacts], print_line: Callable[[str], None]
) -> None:
    if not checkouts:
        print_line("no leftovers of missing checkouts")
    for plan in plans:
        print_line(f"{plan.facts.root} is missing; leftovers: {', '.join(plan.parts) or 'none to remove'}")
        if plan.facts.unmounted_reason:
            print_line(f"  it may be on an unmounted disk: {plan.facts.unmounted_reason}")
        if plan.kept_reason:
            print_line(f"  its journal is kept: {plan.kept_reason}")
        for item in plan.objects:
            print_line(f"  {item.kind} {item.name}")
        for item, reason in plan.kept_objects.items():
            print_line(f"  kept {item.kind} {item.name}: {reason}")
    for facts in checkouts:
        if facts.live_runs:
            print_line(f"{facts.root} is missing; skipped: {describe_active_runs(facts.live_runs)}")
