"""What `clean --gone` shows and asks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from lyra_tasks import console
from lyra_tasks.cleanup.gone_plan import GonePlan
from lyra_tasks.errors import UsageError
from lyra_tasks.records.cleanup import CleanupProof


def agree(plan: GonePlan, *, yes: bool) -> None:
    """List what goes, and ask whether to go on: it cannot be made again. UsageError where nobody agrees."""
    _listed(plan, console.note)
    if not yes and not console.confirm("Remove all of it, for good?"):
        raise UsageError("`clean --gone` was not confirmed", hint="pass --yes to go ahead without being asked")


def planned(plan: GonePlan) -> None:
    """What would be removed."""
    if not console.is_json():
        return _listed(plan, console.say)
    return console.document(
        {
            "level": "gone",
            "checkouts": [
                {
                    "root": str(each.checkout.root),
                    "doubt": each.checkout.doubt,
                    "objects": [asdict(item) for item in each.objects.objects],
                    "stays": {item.name: why for item, why in each.objects.stays.items()},
                    "stop_sandbox": bool(each.stops),
                    "states": [str(state) for state in each.checkout.facts.states] if not each.keeps else [],
                    "keeps": each.keeps,
                }
                for each in plan.cleans
            ],
            "live": {str(checkout.root): why for checkout, why in plan.live},
        }
    )


def cleaned(proof: CleanupProof, file: Path | None) -> None:
    """What was removed, and where the proof lies."""
    if console.is_json():
        return console.document(proof.model_dump(mode="json", by_alias=True))
    for each in proof.removed:
        console.say(f"removed {each.kind} {each.name}")
    for forgotten in proof.forgotten:
        console.say(f"removed {forgotten.state}")
    state = "nothing else is left of them" if proof.clean else f"{len(proof.residue)} thing(s) of theirs are left"
    roots = len({each.root for each in proof.forgotten})
    where = f"proof: {file}" if file else "there is no room to keep the proof"
    console.say(f"clean: {len(proof.removed)} object(s) and {roots} checkout(s) removed; {state}; {where}")
    return None


def _listed(plan: GonePlan, tell: Callable[[str], None]) -> None:
    if not plan.cleans and not plan.live:
        tell("no checkout that is gone has left anything")
    for each in plan.cleans:
        tell(f"{each.checkout.root} is gone, and left {', '.join(each.parts) or 'nothing that can be removed'}")
        if each.checkout.doubt:
            tell(f"  it may only be out of reach: {each.checkout.doubt}")
        if each.keeps:
            tell(f"  its journal stays: {each.keeps}")
        for item in each.objects.objects:
            tell(f"  {item.kind} {item.name}")
        for item, why in each.objects.stays.items():
            tell(f"  {item.kind} {item.name} stays: {why}")
    for checkout, why in plan.live:
        tell(f"{checkout.root} is gone, and is left alone: {why}")
