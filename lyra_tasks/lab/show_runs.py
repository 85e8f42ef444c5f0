"""What `logs` and `stats` show."""

from __future__ import annotations

from collections.abc import Iterable

from lyra_tasks import console
from lyra_tasks.lab.logs import Line, Source
from lyra_tasks.lab.usage import Usage


def lines(found: Iterable[Line], source: Source) -> None:
    """Each line with its time, and with its service where there are several."""
    several = len(source.services) > 1
    width = max((len(name) for name in source.services), default=0)
    for line in found:
        name = f"{line.service.ljust(width)} | " if several else ""
        console.say(f"{line.at[:23].rstrip('Z')} {name}{line.text}")


def usage(found: Usage) -> None:
    """A table of what is used against what is allowed."""
    if console.is_json():
        services = {name: each.model_dump(mode="json") for name, each in found.services.items()}
        return console.document({"run": found.run, "live": found.live, "services": services})
    console.say(f"run {found.run}, {'now' if found.live else 'at most'}:")
    rows = [
        (
            name,
            f"{console.size(use.memory_peak)} of {console.size(use.memory_limit)}",
            f"{use.cpu_peak:.2f} of {use.cpu_limit:g}",
            f"{use.pids_peak} of {use.pids_limit}",
        )
        for name, use in found.services.items()
    ]
    return console.table(("service", "memory", "CPUs", "processes"), rows)
