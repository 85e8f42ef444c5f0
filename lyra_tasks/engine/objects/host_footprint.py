"""List what a checkout has on this machine outside of an engine: processes, mounts, network interfaces, builders."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lyra_tasks.engine.client.contexts import docker_config_directory
from lyra_tasks.engine.objects.lifeline import REAPER_MODULE
from lyra_tasks.engine.sandbox.cgroups import list_cgroup_processes, list_cgroup_trees, list_mounts
from lyra_tasks.engine.sandbox.layout import SandboxPaths, read_sandbox_record

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
    processes = dict.fromkeys(find_reapers(states), "reaper")
    for tree in list_cgroup_trees():
        for paths in sandboxes:
            pids = list_cgroup_processes(tree.path / paths.name)
            processes |= dict.fromkeys(pids, f"of the private engine {paths.name}")
    mounts = [str(point) for point, _, _ in list_mounts() if any(map(point.is_relative_to, directories))]
    return HostFootprint(
        processes=processes,
        mounts=tuple(sorted(mounts)),
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


def list_builders() -> list[str]:
    """Return the named Buildx builders of the user."""
    directory = Path(os.environ.get("BUILDX_CONFIG") or docker_config_directory() / "buildx") / "instances"
    try:
        return [path.name for path in directory.iterdir()]
    except OSError:
        return []
