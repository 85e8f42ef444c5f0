"""What a checkout has on this machine outside of any engine: processes, mounts, interfaces, builders."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lyra_tasks.engine.client.contexts import docker_config_directory
from lyra_tasks.engine.sandbox.cgroups import list_cgroup_processes, list_cgroup_trees
from lyra_tasks.engine.sandbox.layout import read_sandbox_record, sandbox_paths

MOUNT_TABLE = Path("/proc/self/mounts")
INTERFACES_DIRECTORY = Path("/sys/class/net")
_REAPER_MODULE = b"lyra_tasks.engine.objects.reaper"


@dataclass(frozen=True)
class HostFootprint:
    """Process ids with what they are, mount points, network interfaces, Buildx builders."""

    processes: dict[int, str]
    mounts: tuple[str, ...]
    interfaces: tuple[str, ...]
    builders: tuple[str, ...]


def collect_host_footprint(states: Iterable[Path], work_directory: Path) -> HostFootprint:
    """The traces of the checkout whose state folders, and `.lyra/`, these are; builders are the user's, all of them."""
    states = [state.resolve() for state in states]
    places = [sandbox_paths(state) for state in states]
    directories = [*states, work_directory, *(place.runtime for place in places)]
    links = [record.link for place in places if (record := read_sandbox_record(place)) is not None]
    return HostFootprint(
        processes=dict(_find_reaper_processes(states))
        | dict(_find_sandbox_processes([place.name for place in places])),
        mounts=tuple(sorted(mount_point for mount_point in list_mount_points() if _is_below(mount_point, directories))),
        interfaces=tuple(sorted(link for link in links if (INTERFACES_DIRECTORY / link).exists())),
        builders=tuple(sorted(list_builders())),
    )


def find_reapers(states: Iterable[Path]) -> list[int]:
    """The reapers that wait for runs of these state folders to end, or clean up after one."""
    return [pid for pid, _ in _find_reaper_processes([state.resolve() for state in states])]


def list_mount_points(table: str | None = None) -> list[str]:
    """The mount points of a mount table, by default this process's own."""
    lines = (MOUNT_TABLE.read_text() if table is None else table).splitlines()
    return [re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), line.split(" ")[1]) for line in lines]


def list_builders() -> list[str]:
    """The named builders that Buildx knows; the engine's own needs no name."""
    directory = Path(os.environ.get("BUILDX_CONFIG") or docker_config_directory() / "buildx") / "instances"
    try:
        return [path.name for path in directory.iterdir()]
    except OSError:
        return []


def _find_reaper_processes(states: list[Path]) -> Iterator[tuple[int, str]]:
    prefixes = [os.fsencode(prefix) + b"/" for prefix in states]
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                arguments = (process / "cmdline").read_bytes()
            except OSError:
                continue
            if _REAPER_MODULE in arguments and any(prefix in arguments for prefix in prefixes):
                yield int(process.name), "reaper"


def _find_sandbox_processes(names: list[str]) -> Iterator[tuple[int, str]]:
    for tree in list_cgroup_trees():
        for name in names:
            for pid in list_cgroup_processes(tree.path / name):
                yield pid, f"of the sandbox engine {name}"


def _is_below(point: str, directories: list[Path]) -> bool:
    return any(Path(point).is_relative_to(directory) for directory in directories)
