"""List what a checkout has on this machine outside of an engine: processes, mounts, network interfaces, builders."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lyra_tasks.engine.client.contexts import docker_config_directory
from lyra_tasks.engine.objects.lifeline import REAPER_MODULE
from lyra_tasks.engine.sandbox.cgroups import MOUNTS_FILE, list_cgroup_processes, list_cgroup_trees, list_mounts
from lyra_tasks.engine.sandbox.layout import SandboxPaths, read_sandbox_record
from lyra_tasks.processes import run_captured

INTERFACES_DIRECTORY = Path("/sys/class/net")
_PS_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class HostFootprint:
    """Processes by id with a description, mount points, network interfaces and Buildx builders.

    `not_seen` names those of them that this system does not show.
    """

    processes: dict[int, str]
    mounts: tuple[str, ...]
    interfaces: tuple[str, ...]
    builders: tuple[str, ...]
    not_seen: tuple[str, ...] = ()


def collect_host_footprint(states: Iterable[Path], work_directory: Path) -> HostFootprint:
    """Collect the footprint of a checkout, given its state directories and `.lyra/`, and all builders of the user."""
    states = [state.resolve() for state in states]
    sandboxes = [SandboxPaths(state) for state in states]
    directories = [*states, work_directory, *(paths.runtime for paths in sandboxes)]
    links = [record.link for paths in sandboxes if (record := read_sandbox_record(paths)) is not None]
    reapers = find_reapers(states)
    processes = dict.fromkeys(reapers or (), "reaper")
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
        not_seen=tuple(
            name
            for name, is_seen in (
                ("processes", reapers is not None),
                ("mounts", MOUNTS_FILE.exists()),
                ("network interfaces", INTERFACES_DIRECTORY.exists()),
            )
            if not is_seen
        ),
    )


def find_reapers(states: Iterable[Path]) -> list[int] | None:
    """Return the process ids of the reapers of these state directories, or None where processes cannot be listed."""
    commands = _read_commands()
    if commands is None:
        return None
    prefixes = [os.fsencode(state.resolve()) + b"/" for state in states]
    return [
        pid
        for pid, command in commands.items()
        if REAPER_MODULE.encode() in command and any(prefix in command for prefix in prefixes)
    ]


def _read_commands() -> dict[int, bytes] | None:
    """Return the command lines of all processes, or None if neither `/proc` nor `ps` shows them."""
    if not Path("/proc/self").exists():
        return _ask_ps_for_commands()
    commands = {}
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with suppress(OSError):  # it has ended
                commands[int(process.name)] = (process / "cmdline").read_bytes()
    return commands


def _ask_ps_for_commands() -> dict[int, bytes] | None:
    try:
        result = run_captured(["ps", "-axww", "-o", "pid=,command="], timeout=_PS_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = (line.split(None, 1) for line in result.stdout.splitlines() if result.returncode == 0)
    return {int(line[0]): line[1].encode(errors="replace") for line in lines if len(line) == 2} or None


def list_builders() -> list[str]:
    """Return the named Buildx builders of the user."""
    directory = Path(os.environ.get("BUILDX_CONFIG") or docker_config_directory() / "buildx") / "instances"
    try:
        return [path.name for path in directory.iterdir()]
    except OSError:
        return []
