"""What `clean` shows and asks."""

from __future__ import annotations

from dataclasses import asdict

from lyra_tasks import console
from lyra_tasks.cleanup.plan import CleanPlan
from lyra_tasks.cleanup.run import Cleaned
from lyra_tasks.errors import UsageError


def agreed(plan: CleanPlan, *, yes: bool) -> bool:
    """Whether to go on: only `--all` asks. UsageError where it must ask and nobody can answer."""
    if not plan.forget or yes:
        return True
    if console.confirm(f"Remove {plan.summary}?"):
        return True
    raise UsageError("`clean --all` was not confirmed", hint="pass --yes to go ahead without being asked")


def planned(plan: CleanPlan) -> None:
    """What would be removed."""
    if console.is_json():
        return console.document(asdict(plan))
    console.say(f"would remove {plan.summary}")
    for each in plan.objects:
        console.say(f"  {each.kind} {each.name}")
    return None


def cleaned(result: Cleaned) -> None:
    """What was removed, and the proof."""
    if console.is_json():
        return console.document(asdict(result))
    for each in result.removed:
        console.say(f"removed {each.kind} {each.name}")
    if result.sandbox_stopped:
        console.say("stopped the sandbox engine")
    proof = "the engine holds nothing of this project any more" if result.proved else "no engine holds anything of it"
    console.say(f"clean: {len(result.removed)} object(s) removed; {proof}")
    return None
