"""List what a checkout has on this machine outside of an engine: processes, mounts, network interfaces, builders."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lyra_tasks.engine.client.contexts import docker_config_directory
from lyra_tasks.engine.objects.lifeline import REAPER_MODULE
from lyra_tasks.engine.sandbox.cgroups import list_cgroup_processes, list_cgroup_trees
from lyra_tasks.engine.sandbox.layout import SandboxPaths, read_sandbox_record

MOUNT_TABLE = Path("/proc/self/mounts")
INTERFACES_DIRECTORY = Path("/sys/class/net")


@dataclass(frozen=True)
class HostFootprint:
    """Processes by id with a description, mount points, network interfaces and Buildx builders."""

    processes: dict[int, str]
    mounts: tuple[str, ...]
    interfaces: tuple[str, ...]
    builders: tuple[str, ...]


def collect_host_footprint(states: Iterable[Path], work_directory: Path) -> HostFootprint:
    """Collect the footprint of a checkout, given its state directories and `.lyra/`, and all builders of the user."""
    states = [state.resolve() for state in states]
    sandboxes = [SandboxPaths(state) for state in states]
    directories = [*states, work_directory, *(paths.runtime for paths in sandboxes)]
    links = [record.link for paths in sandboxes if (record := read_sandbox_record(paths)) is not None]
    sandbox_processes = _find_sandbox_processes([paths.name for paths in sandboxes])
    return HostFootprint(
        processes={**dict.fromkeys(find_reapers(states), "reaper"), **dict(sandbox_processes)},
        mounts=tuple(sorted(point for point in list_mount_points() if _is_below(point, directories))),
        interfaces=tuple(sorted(link for link in links if (INTERFACES_DIRECTORY / link).exists())),
        builders=tuple(sorted(list_builders())),
    )


def find_reapers(states: Iterable[Path]) -> list[int]:
    """Return the process ids of the reapers of these state directories."""
    prefixes = [os.fsencode(state.resolve()) + b"/" for state in states]
    reapers = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                arguments = (process / "cmdline").read_bytes()
            except OSError:
                continue
            if REAPER_MODULE.encode() in arguments and any(prefix in arguments for prefix in prefixes):
                reapers.append(int(process.name))
    return reapers


def list_mount_points(table: str | None = None) -> list[str]:
    """Return the mount points of a mount table, by default of this process."""
    lines = (MOUNT_TABLE.read_text() if table is None else table).splitlines()
    return [re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), line.split(" ")[1]) for line in lines]


def list_builders() -> list[str]:
    """Return the named Buildx builders of the user."""
    directory = Path(os.environ.get("BUILDX_CONFIG") or docker_config_directory() / "buildx") / "instances"
    try:
        return [path.name for path in directory.iterdir()]
    except OSError:
        return []


def _find_sandbox_processes(names: list[str]) -> Iterator[tuple[int, str]]:
    for tree in list_cgroup_trees():
        for name in names:
            for pid in list_cgroup_processes(tree.path / name):
                yield pid, f"of the private engine {name}"


def _is_below(point: str, directories: list[Path]) -> bool:
    return any(Path(point).is_relative_to(directory) for directory in directories)
