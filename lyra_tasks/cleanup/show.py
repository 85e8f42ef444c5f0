"""What `clean` shows and asks."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from lyra_tasks import console
from lyra_tasks.cleanup.plan import CleanPlan
from lyra_tasks.errors import UsageError
from lyra_tasks.records.cleanup import CleanupProof, Inventory

_LEVELS = {
    "objects": "containers, networks, volumes and image references of this project",
    "cache": "containers, networks, volumes and image references of this project, and the builder cache",
    "all": "everything of this project but its source, bundles, journal and evidence",
}


def agreed(plan: CleanPlan, *, yes: bool) -> bool:
    """Whether to go on: only `--all` asks. UsageError where it must ask and nobody can answer."""
    if not plan.forget or yes:
        return True
    if console.confirm(f"Remove {plan.summary}?"):
        return True
    raise UsageError("`clean --all` was not confirmed", hint="pass --yes to go ahead without being asked")


def announced(plan: CleanPlan) -> None:
    """What is about to be freed, what of it killed runs left, and what stays."""
    console.note(f"clean: {_LEVELS[plan.level]}: {plan.summary}")
    _whatever_else(plan)


def planned(plan: CleanPlan) -> None:
    """What would be removed."""
    figures = plan.facts.figures
    if console.is_json():
        return console.document(
            {
                "level": plan.level,
                "objects": [asdict(each) for each in plan.objects],
                "stays": {each.name: why for each, why in plan.stays.items()},
                "temporary_files": [str(path) for path in plan.temporary],
                "prune_cache": plan.prune_cache,
                "stop_sandbox": bool(plan.stop),
                "forget": plan.forget,
                "layers_size": figures.layers if figures else 0,
                "cache_size": figures.cache if figures else 0,
            }
        )
    console.say(f"would remove {plan.summary}")
    for each in plan.objects:
        console.say(f"  {each.kind} {each.name}")
    for path in plan.temporary:
        console.say(f"  file {path}")
    if figures is not None:
        layers, cache = console.size(figures.layers), console.size(figures.cache)
        console.say(f"the engine has {layers} of image layers and {cache} of builder cache now")
    _whatever_else(plan)
    return None


def cleaned(proof: CleanupProof, file: Path | None) -> None:
    """What was removed, the engine's own figures, and where the proof lies."""
    if console.is_json():
        return console.document(proof.model_dump(mode="json", by_alias=True))
    for each in proof.removed:
        console.say(f"removed {each.kind} {each.name}")
    if proof.sandbox_stopped:
        console.say("stopped the sandbox engine")
    if proof.engine is not None:
        console.say(f"the engine says: {_change(proof.before, proof.after)}")
    state = (
        "no engine holds anything of it"
        if proof.engine is None
        else "the engine holds nothing of this project any more"
    )
    if not proof.clean:
        state = f"{len(proof.residue) + len(proof.kept)} thing(s) of this project are left"
    where = f"proof: {file}" if file else "there is no room to keep the proof"
    console.say(f"clean: {len(proof.removed)} object(s) removed; {state}; {where}")
    return None


def _change(before: Inventory, after: Inventory) -> str:
    rows = (
        ("image layers", before.layers_size, after.layers_size),
        ("builder cache", before.cache_size, after.cache_size),
    )
    return ", ".join(f"{what} {console.size(then)} before, {console.size(now)} now" for what, then, now in rows)


def _whatever_else(plan: CleanPlan) -> None:
    if plan.crashed:
        console.note(f"of these, runs that were killed had left: {', '.join(each.name for each in plan.crashed)}")
    for each, why in plan.stays.items():
        console.note(f"{each.kind} {each.name} stays: {why}")
    if plan.level != "objects" and not plan.prune_cache and plan.facts.figures and not plan.facts.live:
        console.note("the builder cache stays: this engine's builder is not Lyra's. `docker builder prune` empties it")
