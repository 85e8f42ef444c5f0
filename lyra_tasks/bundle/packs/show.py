"""What `bundle.pack` shows."""

from __future__ import annotations

from typing import Any

from lyra_tasks import console
from lyra_tasks.bundle.packs.plan import PackPlan
from lyra_tasks.bundle.packs.run import Packing
from lyra_tasks.config.find import shown


def planned(plan: PackPlan) -> None:
    """What a pack would hold, what it needs, and what is free."""
    facts = plan.facts
    if console.is_json():
        return console.document(
            {
                "folder": str(plan.folder),
                "version": facts.manifest.version,
                "since": facts.since.version if facts.since else None,
                "split": facts.split,
                "needed": plan.needed,
                "free": facts.free,
                "images": [_archive(plan, number) for number in range(len(plan.archives))],
            }
        )
    console.say(f"would pack {facts.manifest.version} to {shown(plan.folder)}:")
    for each in plan.archives:
        console.say(f"  {each.image.file}  {console.size(each.size)} of {console.size(each.image.size)}")
        if each.held:
            console.say(f"    without {len(each.without)} layer(s) of {each.held.reference}")
    console.say(f"at most {console.size(plan.needed)} needed, {console.size(facts.free)} free")
    return None


def packed(result: Packing) -> None:
    """Where the pack is, how large it is, and what the receiver must hold."""
    pack = result.pack
    if console.is_json():
        return console.document(
            {
                "folder": str(result.folder),
                "size": result.size,
                "files": [{"name": file.name, "size": file.size} for file in result.files],
            }
            | pack.model_dump(mode="json", by_alias=True)
        )
    console.say(
        f"packed {console.style(pack.version, 'green')} to {shown(result.folder)}: "
        f"{len(result.files)} files, {console.size(result.size)}"
    )
    for each in pack.images:
        parts = f" in {each.parts} parts" if each.parts else ""
        console.say(f"  {each.file}  {console.size(each.size)}{parts}")
    for name in sorted({each.held.reference for each in pack.images if each.held}):
        console.say(f"the receiver must hold {name}; receive.sh checks that before it loads anything")
    console.say("next: carry the folder to Proxima, all parts into one, and run `sh receive.sh` there")
    return None


def _archive(plan: PackPlan, number: int) -> dict[str, Any]:
    each = plan.archives[number]
    return {
        "image": each.image.name,
        "file": each.image.file,
        "size": each.size,
        "without": list(each.without),
        "held": each.held.model_dump(mode="json") if each.held else None,
    }
