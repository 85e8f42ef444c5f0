"""What `create` and `dev.*` show and ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from lyra_tasks import console
from lyra_tasks.config.find import shown
from lyra_tasks.config.ports import joined
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.errors import PreconditionError, VerdictError
from lyra_tasks.lab.dev import Created
from lyra_tasks.lab.dev_stop import Ending
from lyra_tasks.lab.proxima import Difference, differences
from lyra_tasks.lab.sync import CarriedIn, Edits, Mirror

_SHOWN = 10


def planned(profile: Workspace) -> None:
    """What `create` would build and start."""
    config = profile.config
    if console.is_json():
        services = {name: each.model_dump(mode="json") for name, each in config.services.items()}
        return console.document({"images": sorted(config.images), "services": services})
    for name, image in config.images.items():
        console.say(
            f"would build {config.project.name}/{name} for development" + (f" ({image.target})" if image.target else "")
        )
    for name, service in config.services.items():
        way = "to develop in" if service.dev is not None else "as in a test"
        limits = f"{service.limits.cpus:g} CPUs, {console.size(service.limits.memory)}"
        console.say(f"would start {name}, {way}, with {limits}")
    return None


def created(result: Created, work: Workspace) -> None:
    """What was kept, replaced and removed, how to enter, where services answer; VerdictError if one ended at once."""
    found = differences(work, result)
    if console.is_json():
        console.document(_document(result, found))
    else:
        _say_steps(result)
        _say_services(result)
        _say_differences(found)
        _say_doors(result)
    if result.faults:
        first = result.faults[0]
        raise VerdictError(
            "; ".join(fault.message for fault in result.faults),
            hint="the lab stays: mend the source, then run `create` again",
            details=first.details,
        )


def _document(result: Created, found: Sequence[Difference]) -> dict[str, object]:
    return {
        "run": result.lab.run,
        "kept": list(result.steps.keep),
        "replaced": list(result.steps.replace),
        "made": list(result.steps.make),
        "removed": list(result.steps.remove),
        "services": {name: each.model_dump(mode="json") for name, each in result.lab.services.items()},
        "carried": [asdict(each) | {"put": len(each.put), "deleted": len(each.deleted)} for each in result.carried],
        "differs_from_proxima": [asdict(each) for each in found],
        "seconds": result.seconds,
    }


def _say_steps(result: Created) -> None:
    steps = result.steps
    for what, names, why in (
        ("kept", steps.keep, ""),
        ("replaced", steps.replace, " (its configuration or image changed, or it had ended)"),
        ("made", steps.make, ""),
        ("removed", steps.remove, " (no longer asked for)"),
    ):
        if names:
            console.say(f"{what}: {', '.join(names)}{why}")
    for each in result.carried:
        carried(each)


def _say_services(result: Created) -> None:
    rows = []
    for name, service in result.lab.services.items():
        planned = result.plan.lab.services[name]
        kinds = {key: "http" if isinstance(port, int) else "udp" for key, port in planned.service.ports.items()}
        places = [f"{kinds[key]}://{joined(result.work.engine.reach_at, port)}" for key, port in service.ports.items()]
        limits = f"{planned.cpus:g} CPUs, {console.size(planned.memory)}, {planned.service.limits.pids} processes"
        rows.append((name, " ".join(places) or "-", limits, service.source.path if service.source else "-"))
    console.table(("service", "answers at", "limits", "source in"), rows)


def _say_differences(found: Sequence[Difference]) -> None:
    if found:
        console.say("other than on Proxima:")
        for each in found:
            console.say(f"  {each.what}: {each.here} here, {each.there} there: {each.why}")


def _say_doors(result: Created) -> None:
    developed = [name for name, each in result.lab.services.items() if each.developed]
    option = f" --service {developed[0]}" if len(developed) > 1 else ""
    console.say(
        f"enter with `dev.shell{option}`, run commands with `dev.exec{option} -- COMMAND`, carry changes in with "
        f"`dev.sync`, end with `dev.stop`; ready after {result.seconds:.1f} s"
    )


def carried(result: CarriedIn) -> None:
    """One line about a sync."""
    for name in result.unnamed:
        console.warn(f"{name!r} was left out: its name is no UTF-8")
    console.say(
        f"{result.service}: {len(result.put)} file(s) carried in ({console.size(result.size)}), "
        f"{len(result.deleted)} removed, in {result.seconds:.2f} s"
    )


def synced(results: Sequence[CarriedIn]) -> None:
    """What `dev.sync` did."""
    if console.is_json():
        return console.document([asdict(each) for each in results])
    if not results:
        console.say("no service has a source volume; write a [services.NAME.dev] table")
    for each in results:
        carried(each)
    return None


def brought_back(files: Sequence[str]) -> None:
    """What `dev.sync --back` did."""
    if console.is_json():
        return console.document({"brought_back": list(files)})
    for file in files:
        console.say(f"brought back {file}")
    if not files:
        console.say("nothing to bring back: it is the same here")
    return None


def watching(mirrors: Sequence[Mirror]) -> None:
    """What is being watched."""
    console.say(f"watching {', '.join(shown(mirror.context) for mirror in mirrors)}; Ctrl-C ends it, the lab stays")


def watched() -> None:
    """The end of watching."""
    console.say("no longer watching; the lab stays")


def nothing_to_stop() -> None:
    """There was no lab."""
    if console.is_json():
        return console.document({"stopped": None})
    return console.say("there is no development lab")


def would_stop(ending: Ending) -> None:
    """What `dev.stop` would remove."""
    if console.is_json():
        edits = {name: asdict(each) for name, each in ending.edits.items()}
        return console.document({"services": sorted(ending.lab.services), "edits": edits})
    console.say(f"would remove the development lab: {', '.join(ending.lab.services)}")
    return warned(ending)


def warned(ending: Ending) -> None:
    """Name the edits that are about to be lost."""
    for name, reason in ending.unseen.items():
        console.warn(f"{name}: its source volume could not be looked through: {reason}")
    for name, edits in ending.edits.items():
        console.warn(f"{name} has edits that exist only inside; bring them out with `dev.sync --back PATH`:")
        for line in _lines(edits):
            console.warn(f"  {line}")


def agreed_to_lose(ending: Ending, *, yes: bool) -> None:
    """PreconditionError if edits would be lost and nobody agrees."""
    warned(ending)
    if not (ending.edits or ending.unseen) or yes:
        return
    if not console.confirm("Remove the lab, and these edits with it?"):
        raise PreconditionError(
            "the development lab has edits that exist only inside; it was not stopped",
            hint="bring them out with `dev.sync --back PATH`, or pass --yes",
        )


def stopped(work: Workspace, ending: Ending) -> None:
    """What `dev.stop` did."""
    folder = work.paths.runs / ending.lab.run
    if console.is_json():
        return console.document({"stopped": ending.lab.run, "logs": str(folder / "logs")})
    return console.say(f"the development lab is gone; its logs are in {shown(folder)}")


def _lines(edits: Edits) -> list[str]:
    lines = [f"changed {name}" for name in edits.changed]
    lines += [f"added {name}" for name in edits.added]
    lines += [f"removed {name}" for name in edits.removed]
    return lines if len(lines) <= _SHOWN else [*lines[:_SHOWN], f"and {len(lines) - _SHOWN} more"]
