"""What a checkout has on this machine outside of any engine: processes, mounts, interfaces, builders."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lyra_tasks.engine.contexts import settings_folder
from lyra_tasks.engine.sandbox import cgroups
from lyra_tasks.engine.sandbox.layout import places_of, read_record

MOUNTS = Path("/proc/self/mounts")
INTERFACES = Path("/sys/class/net")
_REAPER = b"lyra_tasks.engine.reaper"


@dataclass(frozen=True)
class Traces:
    """Process ids with what they are, mount points, network interfaces, Buildx builders."""

    processes: dict[int, str]
    mounts: tuple[str, ...]
    interfaces: tuple[str, ...]
    builders: tuple[str, ...]


def traces(states: Iterable[Path], work: Path) -> Traces:
    """The traces of the checkout whose state folders, and `.lyra/`, these are; builders are the user's, all of them."""
    states = [state.resolve() for state in states]
    places = [places_of(state) for state in states]
    folders = [*states, work, *(each.runtime for each in places)]
    links = [record.link for each in places if (record := read_record(each)) is not None]
    return Traces(
        processes=dict(_reapers(states)) | dict(_engines([each.name for each in places])),
        mounts=tuple(sorted(each for each in mount_points() if _below(each, folders))),
        interfaces=tuple(sorted(link for link in links if (INTERFACES / link).exists())),
        builders=tuple(sorted(builders())),
    )


def reapers(states: Iterable[Path]) -> list[int]:
    """The reapers that wait for runs of these state folders to end, or clean up after one."""
    return [pid for pid, _ in _reapers([state.resolve() for state in states])]


def mount_points(table: str | None = None) -> list[str]:
    """The mount points of a mount table, by default this process's own."""
    lines = (MOUNTS.read_text() if table is None else table).splitlines()
    return [re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), line.split(" ")[1]) for line in lines]


def builders() -> list[str]:
    """The named builders that Buildx knows; the engine's own needs no name."""
    folder = Path(os.environ.get("BUILDX_CONFIG") or settings_folder() / "buildx") / "instances"
    try:
        return [path.name for path in folder.iterdir()]
    except OSError:
        return []


def _reapers(states: list[Path]) -> Iterator[tuple[int, str]]:
    ours = [os.fsencode(state) + b"/" for state in states]
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                arguments = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if _REAPER in arguments and any(state in arguments for state in ours):
                yield int(folder.name), "reaper"


def _engines(names: list[str]) -> Iterator[tuple[int, str]]:
    for tree in cgroups.trees():
        for name in names:
            for pid in cgroups.processes(tree.path / name):
                yield pid, f"of the sandbox engine {name}"


def _below(point: str, folders: list[Path]) -> bool:
    return any(Path(point).is_relative_to(folder) for folder in folders)
